"""The forms in which a photograph can come: files, bytes, Pillow images, arrays, tensors; and back."""

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spikingir.deploy.folded import MAX_IMAGE
from spikingir.photo.codecs import encode
from spikingir.photo.formats import FORMATS
from spikingir.photo.images import read_image
from spikingir.photo.photo import Photo, from_pillow, resized, to_pillow, to_samples, told_its_size


def open_image(image: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Values of an image of any form, and what turns restored values into an image of the same form.

    Args:
        image: A path, the bytes of an image file, a Pillow image, a NumPy array, a tensor, or a photo.

    Shape:
        Values: (B, C, H, W): whole numbers of 8 or 16 bits where the image has these, else in [0, 1], float32, or
        float64 where the image is; an alpha channel is the last one.

    Warns:
        UserWarning: What is lost of a file or a Pillow image.

    Raises:
        ImageError: A file cannot be read.
        TypeError: An image of no known form.
        ValueError: Shapes, types or values that are not an image's.
    """
    if isinstance(image, Tensor):
        return _open_tensor(image)
    if isinstance(image, np.ndarray):
        return _open_array(image)
    if isinstance(image, Photo):
        return _open_photo(image, _same)
    if isinstance(image, Image.Image):
        return _open_photo(from_pillow(image), _as_pillow)
    if isinstance(image, bytes):
        return _open_photo(read_image(image), _as_png)
    if isinstance(image, str | os.PathLike):
        return _open_photo(read_image(image), _as_pillow)
    raise TypeError(
        f"cannot restore a {type(image).__name__}; expected a path, bytes, a Pillow image, a NumPy array or a tensor"
    )


def _open_photo(photo: Photo, finish: Callable[[Photo], Any]) -> tuple[Tensor, Callable[[Tensor], Any]]:
    if finish is not _same:  # a photo has its notes with it
        for note in photo.notes:
            warnings.warn(note, stacklevel=4)

    def close(restored: Tensor) -> Any:
        samples = restored[0].permute(1, 2, 0).numpy()
        height, width, channels = samples.shape
        alpha = photo.alpha
        if alpha is not None and alpha.shape != (height, width):
            alpha = resized(alpha, height, width).clip(0, 1)
        # a profile of colours is none of grays
        icc = photo.icc if channels == photo.samples.shape[2] else None
        restored_photo = replace(photo, samples=samples, alpha=alpha, icc=icc)
        return finish(restored_photo if photo.size == (width, height) else told_its_size(restored_photo))

    return _tensor(photo.samples), close


def _as_pillow(photo: Photo) -> Image.Image:
    bits = photo.bits
    if bits == 16 and (photo.samples.shape[2] > 1 or photo.alpha is not None):
        bits = 8
        warnings.warn(
            "a Pillow image holds 16 bits per sample only in gray, so this one gets 8; read_image keeps 16",
            stacklevel=2,
        )
    image = to_pillow(photo.samples, photo.alpha, bits)
    for key, value in (("exif", photo.exif), ("icc_profile", photo.icc), ("xmp", photo.xmp)):
        if value is not None:
            image.info[key] = value
    return image


def _as_png(photo: Photo) -> bytes:
    return encode(photo, FORMATS["png"])[0]


def _same(photo: Photo) -> Photo:
    return photo


def _open_array(array: NDArray[Any]) -> tuple[Tensor, Callable[[Tensor], Any]]:
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(f"the array has shape {array.shape}; expected (H, W) or (H, W, C)")
    if array.dtype not in (np.uint8, np.uint16) and array.dtype.kind != "f":
        raise ValueError(f"the array is of type {array.dtype}; expected uint8, uint16, or floating point in [0, 1]")
    whole = array.dtype.kind == "u"
    # float64 keeps its precision, whatever is shorter is worth float32
    kind = array.dtype if whole else np.float64 if array.dtype.itemsize > 4 else np.float32
    values = _tensor((array[..., None] if array.ndim == 2 else array).astype(kind, copy=False))
    if not whole:
        _checked(values)

    def close(restored: Tensor) -> NDArray[Any]:
        result: NDArray[Any] = restored[0].permute(1, 2, 0).numpy()
        result = to_samples(result, None, 8 * array.dtype.itemsize) if whole else result
        result = result[..., 0] if array.ndim == 2 and result.shape[2] == 1 else result
        return np.ascontiguousarray(result, dtype=array.dtype)

    return values, close


def _tensor(rows: NDArray[Any]) -> Tensor:
    """One image, as a network has it; in the same memory where that is in order and can be written.

    Shape:
        (H, W, C) to (1, C, H, W).
    """
    # torch warns of an array that cannot be written
    return torch.from_numpy(np.require(rows, requirements=["C", "W"])).permute(2, 0, 1)[None]


def _open_tensor(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
    if tensor.dim() not in (3, 4) or tensor.numel() == 0:
        raise ValueError(f"the tensor has shape {tuple(tensor.shape)}; expected (C, H, W) or (B, C, H, W)")
    whole = tensor.dtype == torch.uint8
    if not whole and not tensor.is_floating_point():
        raise ValueError(f"the tensor is of type {tensor.dtype}; expected floating point in [0, 1], or uint8")
    precision = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    values = tensor.detach().cpu() if whole else _checked(tensor.detach().to("cpu", precision))

    def close(restored: Tensor) -> Tensor:
        result = (restored.clamp(0, 1) * 255).round() if whole else restored
        result = result if tensor.dim() == 4 else result[0]
        return result.to(tensor.device, tensor.dtype)

    return values if values.dim() == 4 else values[None], close


def _checked(values: Tensor) -> Tensor:
    """Refuse what is no image in [0, 1], but let noise reach beyond."""
    largest = max(abs(bound.item()) for bound in values.aminmax())
    if not math.isfinite(largest) or largest > MAX_IMAGE:
        raise ValueError(f"the image holds values of {largest:g} in magnitude; floating point is expected in [0, 1]")
    return values
