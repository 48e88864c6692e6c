"""What each part of the method brings: one network converted with more and more of it, on one test set.

All rows but the last are conversions of the same conventional network, calibrated on the same images; the last is the
spiking network after fine-tuning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from spikingir.conversion.convert import convert
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.testsets import TestPair
from spikingir.evaluation.evaluate import Evaluation, Progress, evaluate
from spikingir.evaluation.testsets import open_testset
from spikingir.inputs import told
from spikingir.networks.base import RestorationNetwork
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.network import SpikingNetwork
from spikingir.tasks import TaskName as Task

FINE_TUNED = "+ fine-tuning"

_CONVERSIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "IF, v0 = 1/2 (baseline without training)": {"method": "if"},
        "conversion alone (IF, v0 = 0)": {"method": "if", "v0": 0.0},
        "+ membrane potential reuse (MPRN)": {"method": "spikingir", "mapper": False, "recycling": False},
        "+ membrane recycling": {"method": "spikingir", "mapper": False},
        "+ pixel mapper (the identity until trained)": {"method": "spikingir"},
    }
)

_TRAINING_FOLDERS = {1: "denoise/train400", 3: "denoise/bsds500_color_train"}
_SAMPLES = ("astronaut", "chelsea", "coffee")
_IMAGES, _SIDE = 16, 64


@dataclass(frozen=True)
class AblationRow:
    """One stage of the method.

    Attributes:
        name: What it adds to the row above.
        evaluation: What it gives.
    """

    name: str
    evaluation: Evaluation


def ablate(
    ann: RestorationNetwork,
    fine_tuned: SpikingNetwork,
    calibration_images: Tensor,
    testset: Sequence[TestPair],
    *,
    task: Task = "denoise",
    progress: Progress = lambda done, total: None,
) -> tuple[AblationRow, ...]:
    """Evaluate each stage of the method at the time steps and the schedule of the fine-tuned network.

    First the strongest baseline that needs no training; then the conversion alone, and what the membrane potential
    reuse neuron, membrane recycling and the pixel mapper add to it; last the fine-tuned network. The mapper starts as
    the identity, so that its row equals the one above: what it is worth shows in the fine-tuning. On the phased
    schedule there is neither an initial membrane nor an extended step, so that the first rows are equal as well.

    Args:
        ann: The conventional network.
        fine_tuned: The spiking network after fine-tuning.
        calibration_images: Images for the clip levels, degraded as those of the test set.
        testset: Pairs of a degraded and a clean image.
        task: What the networks do, on which the conversion rate depends.
        progress: Told how many images are done, over all rows, and of how many.

    Shape:
        ``calibration_images``: (B, C, H, W).

    Raises:
        ConversionError: The network cannot be converted.

    Source:
        SpikingIR, ablation study; docs/method.md, sections 1 to 4 and 7.
    """
    if testset:  # the calibration images have the noise of the test set
        calibration_images = told(calibration_images, ann.takes_level, testset[0].sigma)
    config = fine_tuned.config
    stages = [*_CONVERSIONS.items(), (FINE_TUNED, None)]
    rows = []
    for i, (name, how) in enumerate(stages):
        network = fine_tuned
        if how is not None:
            network = convert(ann, calibration_images, time_steps=config.time_steps, schedule=config.schedule, **how)

        def advance(done: int, total: int, before: int = i) -> None:
            progress(before * total + done, len(stages) * total)

        rows.append(AblationRow(name, evaluate(Restorer(network), testset, ann, task=task, progress=advance)))
    return tuple(rows)


def noisy_calibration_images(root: Path | None, channels: int, sigma: float, seed: int = 0) -> tuple[Tensor, str]:
    """Noisy crops to calibrate a denoiser on, and where they come from.

    Taken from the training images of the collection, or, where there are none, from photographs that come with
    scikit-image.

    Args:
        root: Folder of the image collection.
        channels: 1 for gray images, 3 for colour.
        sigma: Level of the noise on the 0..255 scale.
        seed: Seed of the noise.

    Shape:
        (16, channels, 64, 64).

    Raises:
        ModuleNotFoundError: scikit-image is missing; the ``plot`` extra has it.
    """
    folder = _TRAINING_FOLDERS[channels]
    if root is not None and (root / folder).is_dir():
        pairs = open_testset(
            root / folder, task="denoise", channels=channels, sigma=sigma, seed=seed, limit=_IMAGES, crop=_SIDE
        )
        return torch.stack([pair.degraded for pair in pairs]), folder
    clean = _sample_crops()
    if channels == 1:
        clean = clean.mean(1, keepdim=True)
    noisy = [add_gaussian_noise(crop, sigma, sample_generator(seed, i)) for i, crop in enumerate(clean)]
    return torch.stack(noisy), "photographs of scikit-image"


def _sample_crops() -> Tensor:
    """Crops of the sample photographs, spread evenly over each."""
    samples = import_module("skimage.data")  # an extra: nobody needs it who has the collection
    crops: list[Tensor] = []
    for name in _SAMPLES:
        image = torch.from_numpy(getattr(samples, name)().copy()).movedim(2, 0).float() / 255
        tiles = image.unfold(1, _SIDE, _SIDE).unfold(2, _SIDE, _SIDE).flatten(1, 2)
        crops.extend(tiles.movedim(1, 0))
    return torch.stack(crops[:: len(crops) // _IMAGES][:_IMAGES])
