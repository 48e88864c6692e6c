"""Files of weights: named tensors, and in our own files a header that says what they are.

Torch's files and safetensors are read, safetensors are written. Nothing in a file is ever run. What is wrong
with a file is a ``ValueError`` that says what was found and expected; the caller adds the file's name.
"""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from spikingir.files import write_atomically

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")

_HEADER = "spikingir"
# Moving averages come first: where a checkpoint has both, they are what its author evaluates.
_WRAPPERS = ("params_ema", "average", "params", "state_dict", "model_state_dict", "network", "model", "net")
_PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)+")  # DataParallel and moving averages; torch.compile


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read named tensors, freed from wrappers (``{"state_dict": ...}``) and their prefixes (``module.``).

    Args:
        path: Ends in one of :data:`SUFFIXES`.

    Returns:
        The tensors by name, in float32 on the CPU (but counters of batch norm, which stay whole numbers); and
        the header, None in a file that is not ours.

    Raises:
        ValueError: The file is missing, damaged, needs code to be read, or holds something else than finite
            tensors.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ValueError(f"there is no such file; expected weights ({', '.join(SUFFIXES)}), check the name")
    if suffix not in SUFFIXES:
        raise ValueError(f"{suffix or 'a name without suffix'} is not known; expected {', '.join(SUFFIXES)}")
    if suffix in TORCH_SUFFIXES:
        return _named_tensors(_read_torch(path)), None
    content, header = _read_safetensors(path)
    return _named_tensors(content), header


def write_weights(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a safetensors file with a header; it is complete or absent, whatever interrupts.

    The header is one entry of the metadata, ``spikingir``, as JSON: safetensors writes several entries in
    random order, and the same weights must give the same file.

    Args:
        path: Ends in ``.safetensors``; missing folders are made.
        tensors: Tensors by name.
        header: Values that JSON can hold.

    Raises:
        ValueError: Another suffix, or values that are not finite.
        OSError: The file cannot be written.
    """
    if path.suffix.lower() != ".safetensors":
        raise ValueError("weights are saved as safetensors; expected a name that ends in .safetensors")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has NaN or infinite values, expected finite ones; nothing is written")
    content = save(plain, {_HEADER: json.dumps(header)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content), overwrite=True)


def _read_torch(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise almost anything
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code is None:
            raise _unreadable("what torch.save writes", error) from error
        raise ValueError(
            f"it can only be read by running code ({code[1]}), which is refused; expected tensors alone: "
            "where you trust the file, open it with the program that wrote it and save network.state_dict()"
        ) from None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:
        raise _unreadable("a safetensors file", error) from error
    if text is None:
        return tensors, None
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"its {_HEADER} header is {text[:60]!r}, expected a JSON object; save it again")
    return tensors, header


def _unreadable(expected: str, error: Exception) -> ValueError:
    reason = str(error).split("\n", 1)[0] or type(error).__name__
    return ValueError(
        f"it cannot be read ({reason}); expected {expected}, but it is truncated, damaged or something else; "
        "fetch or export it again"
    )


def _named_tensors(content: object) -> dict[str, Tensor]:
    for _ in range(3):  # bounded, because a file may hold a mapping that contains itself
        if not isinstance(content, Mapping):
            break
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        kind = "an empty mapping" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise ValueError(f"it holds {kind}, expected tensors by name; save network.state_dict()")
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            found = f"an entry {key!r} of type {type(value).__name__}"
            raise ValueError(f"it has {found}, expected tensors by name alone; save network.state_dict()")
        name = _PREFIXES.sub("", key)
        if name == "n_averaged":  # the counter of torch's AveragedModel
            continue
        if name in tensors:
            raise ValueError(f"{name!r} is there twice, with and without a wrapper's prefix; keep one")
        tensors[name] = _plain(name, value)
    return tensors


def _plain(name: str, tensor: Tensor) -> Tensor:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
        raise ValueError(f"{name!r} is a tensor without plain values ({tensor.layout}); expected a dense one")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        # A small file can claim a tensor larger than the memory, by strides of zero.
        raise ValueError(f"{name!r} of shape {tuple(tensor.shape)} has fewer values than that in the file")
    if name.endswith("num_batches_tracked"):
        return tensor.detach()
    if not tensor.is_floating_point():
        raise ValueError(f"{name!r} is of type {tensor.dtype}, expected floating point")
    tensor = tensor.detach().float()
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name!r} has NaN or infinite values, expected finite ones; fetch or train it again")
    return tensor
