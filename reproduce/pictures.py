"""Pictures of what the contenders make of one photograph, side by side."""

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from reproduce.contenders import METHODS, Subject, UnavailableError, label
from reproduce.plots import Picture, grid
from spikingir.data.haze import add_haze
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.testsets import TestPair
from spikingir.evaluation.evaluate import quality

_BETA, _AIRLIGHT = 1.2, 0.9
_INSET = 32


def sample(subject: Subject, side: int, seed: int) -> TestPair:
    """The middle of a freely licensed photograph of scikit-image, with the degradation that the subject is for.

    To denoise, the cameraman; to dehaze, an astronaut's portrait, with a depth that rises evenly from the lower edge of
    the photograph to the upper one.

    Args:
        subject: The model under test.
        side: Side of the middle in pixels.
        seed: Seed of the noise.

    Raises:
        ModuleNotFoundError: scikit-image is missing; the ``plot`` extra has it.
    """
    samples = import_module("skimage.data")
    photograph = torch.from_numpy((samples.camera() if subject.channels == 1 else samples.astronaut()).copy())
    clean = (photograph[None] if subject.channels == 1 else photograph.movedim(2, 0)).float() / 255
    if subject.sigma is not None:
        degraded = add_gaussian_noise(clean, subject.sigma, sample_generator(seed, 0))
    else:
        height, width = clean.shape[-2:]
        depth = torch.linspace(1.0, 0.1, height)[:, None].expand(height, width)
        degraded = add_haze(clean, depth, _BETA, _AIRLIGHT)
    top, left = ((size - side) // 3 for size in clean.shape[-2:])  # a little above the middle, where the faces are
    middle = (slice(None), slice(top, top + side), slice(left, left + side))
    return TestPair("sample", degraded[middle], clean[middle])


@torch.inference_mode()
def comparison(subject: Subject, methods: Sequence[tuple[str, int | None]], pair: TestPair) -> tuple[bytes, list[str]]:
    """What each contender makes of an image, with its PSNR, and the same part of each enlarged.

    Args:
        subject: The model under test.
        methods: Names and time steps.
        pair: The image.

    Returns:
        A JPEG file, and why some contenders are not on it.
    """
    pictures, missing = [], []
    for method, time_steps in methods:
        try:
            image = METHODS[method].make(subject, time_steps)(pair.degraded).image
        except UnavailableError as error:
            missing.append(f"{label(method, time_steps)}: {error}")
            continue
        pictures.append(_titled(label(method, time_steps), image, pair))
    pictures.append(Picture("original", pair.clean))
    return grid(pictures, (*_liveliest(pair.clean), _INSET)), missing


def _liveliest(clean: Tensor) -> tuple[int, int]:
    """Top and left of the part to enlarge: that of the upper half, which no corner hides, that varies most."""
    upper = clean[:, : max(_INSET, clean.shape[1] // 2)]
    parts = upper.unfold(1, _INSET, _INSET // 2).unfold(2, _INSET, _INSET // 2)
    spread = parts.var((-2, -1)).sum(0)
    best = int(spread.argmax())
    return best // spread.shape[1] * (_INSET // 2), best % spread.shape[1] * (_INSET // 2)


def _titled(name: str, image: Tensor, pair: TestPair) -> Picture:
    return Picture(f"{name}\n{quality(image, pair)[0]:.2f} dB", image)
