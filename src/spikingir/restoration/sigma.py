"""How noisy a photograph is, and which model is for that."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikingir.tasks import DENOISE, TaskName
from spikingir.zoo.catalogue import Model, ModelError, model_names, read_shipped

_NORMAL = 0.6745  # median of the magnitude of a standard normal variable
_MASK_NORM = 6.0  # root of the sum of squares of Immerkaer's mask
_MIDTONES = (0.2, 0.8)
_ENOUGH = 0.01  # share of the windows that must be midtones


def estimate_sigma(pixels: NDArray[np.float32]) -> float:
    """Standard deviation of the white Gaussian noise in a photograph, on the 0..255 scale.

    Immerkaer's mask, the difference of two Laplacians, answers to noise and hardly to what is smooth; the median of
    its magnitude, over .6745, is hardly moved by edges either:

        sigma = median |I * [1 -2 1; -2 4 -2; 1 -2 1]| / (6 x .6745)

    Only windows whose mean is a midtone count, where there are any, since files clip noise at black and white. Of
    colours the mean of the variances is taken. Measured on 16 photographs and textures of scikit-image, in 8 bits:
    mean error 1.4, 0.9, 0.6, 1.1 and 6.9 at sigma 5, 15, 25, 50 and 75 (too low at 75, where most pixels clip); with
    the median of Haar's diagonal wavelet coefficients 1.6, 1.3, 1.3, 4.4 and 11.6, with Immerkaer's own mean of
    magnitudes 1.6, 1.0, 1.0, 4.2 and 11.6.

    Shape:
        (H, W, C), in [0, 1].

    Of photographs below 3 x 3 pixels nothing can be told; the answer is 0.

    Source:
        Immerkaer, "Fast noise variance estimation", 1996, Eq. 1; the median after Donoho and Johnstone, "Ideal spatial
        adaptation by wavelet shrinkage", 1994.
    """
    if min(pixels.shape[:2]) < 3:
        return 0.0
    return float(np.sqrt(np.mean([_sigma(plane) ** 2 for plane in np.moveaxis(pixels, 2, 0)])))


def _sigma(plane: NDArray[np.float32]) -> float:
    rows = plane[:, :-2] + plane[:, 2:]
    means = rows + plane[:, 1:-1]
    means = means[:-2] + means[1:-1] + means[2:]
    edges = rows - 2 * plane[:, 1:-1]
    edges = np.abs(edges[:-2] - 2 * edges[1:-1] + edges[2:])
    low, high = _MIDTONES
    midtones = (means > 9 * low) & (means < 9 * high)
    if midtones.mean() >= _ENOUGH:
        edges = edges[midtones]
    return 255 * float(np.median(edges)) / (_MASK_NORM * _NORMAL)


def model_for(sigma: float, task: TaskName = DENOISE.name, *, colour: bool = False) -> Model:
    """The model that ships for a noise level.

    One that is told the level serves best: a colour network for what has colours, where it ships. Without one it is
    the model for gray planes whose level is nearest. Gray networks restore colours channel by channel.

    Args:
        sigma: Noise level on the 0..255 scale.
        task: What is to be removed.
        colour: Whether the photograph has colours.

    Raises:
        ModelError: None ships.
    """
    models = [model for model in map(read_shipped, model_names()) if model.task == task and model.sigma is not None]
    for channels in (3, 1) if colour else (1,):
        for model in models:
            if model.takes_level and model.channels == channels:
                return model
    gray = [
        (abs(model.fixed_sigma - sigma), model)
        for model in models
        if model.channels == 1 and model.fixed_sigma is not None
    ]
    if not gray:
        raise ModelError(f"no model ships to {task} at a noise level; name one of your own with --model")
    return min(gray, key=lambda one: one[0])[1]


def has_colours(pixels: NDArray[Any]) -> bool:
    """Whether a photograph has colours, which one of three equal channels has not.

    Shape:
        (H, W, C).
    """
    return pixels.shape[2] == 3 and bool((pixels != pixels[..., :1]).any())
