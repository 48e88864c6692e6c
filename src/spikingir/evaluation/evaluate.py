"""How well a spiking network restores a test set, and at what cost, beside the conventional network."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikingir.data.testsets import Photograph, TestPair
from spikingir.energy.columns import EnergyColumns, energy_columns
from spikingir.errors import InputError
from spikingir.measures import Visibility, psnr, ssim, visibility
from spikingir.networks.base import RestorationNetwork
from spikingir.restoration.restorer import Restorer
from spikingir.restoration.scaling import upscaled
from spikingir.tasks import DENOISE, TASKS, TaskName

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measures:
    """What is measured on one image, or the mean over images. What needs a conventional network is None without one.

    Attributes:
        degraded_psnr: PSNR of the degraded image in dB, clipped to [0, 1] as all others are; enlarged by bicubic
            interpolation where the network enlarges it, and NaN where it has other channels.
        degraded_ssim: Its SSIM.
        psnr: PSNR of what the spiking network restores, in its deployment form.
        ssim: Its SSIM.
        ann_psnr: PSNR of what the conventional network restores.
        ann_ssim: Its SSIM.
        psnr_loss: ``ann_psnr - psnr``.
        conversion_rate: ``conversion_rate_uncapped``, at most 100.
        conversion_rate_uncapped: See :func:`conversion_rate`.
        synaptic_operations: Accumulates of spikes at hidden synapses.
        spikes_per_neuron: Mean number of spikes of a neuron, over all layers.
        snn_mj: Energy of the spiking network, as the paper counts it (column A).
        ann_mj: Energy of the conventional network, likewise.

    Source:
        docs/method.md, section 8.
    """

    degraded_psnr: float
    degraded_ssim: float
    psnr: float
    ssim: float
    ann_psnr: float | None
    ann_ssim: float | None
    psnr_loss: float | None
    conversion_rate: float | None
    conversion_rate_uncapped: float | None
    synaptic_operations: float
    spikes_per_neuron: float
    snn_mj: float
    ann_mj: float


@dataclass(frozen=True)
class Evaluation:
    """The measures of each image of a test set, in order, by the image's name; each one's scene; what was done.

    ``columns`` is the energy of each image by all columns, where it was asked for.
    """

    images: tuple[tuple[str, Measures], ...]
    scenes: tuple[str, ...] = ()
    task: TaskName = DENOISE.name
    columns: tuple[EnergyColumns, ...] = ()

    @property
    def mean(self) -> Measures:
        """Mean over images of each measure; the rate is that of the means, as the paper's is, and capped once."""
        columns = {field.name: [getattr(m, field.name) for _, m in self.images] for field in fields(Measures)}
        means = {name: None if None in column else fmean(column) for name, column in columns.items()}
        mean = Measures(**means)  # type: ignore[arg-type]
        if mean.ann_psnr is None or mean.ann_ssim is None:
            return mean
        rate = conversion_rate(mean.psnr / mean.ann_psnr, mean.ssim / mean.ann_ssim, self.task)
        return replace(mean, conversion_rate=min(rate, 100.0), conversion_rate_uncapped=rate)

    @property
    def psnr_ci95(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean PSNR; None for one image, which says nothing about others."""
        return confidence_interval([measures.psnr for _, measures in self.images], self.scenes)

    @property
    def psnr_loss_ci95(self) -> tuple[float, float] | None:
        """The same of the mean loss, whose differences are of the same images; None without a conventional network."""
        losses = [measures.psnr_loss for _, measures in self.images if measures.psnr_loss is not None]
        return confidence_interval(losses, self.scenes) if len(losses) == len(self.images) else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; what is not finite is None."""
        return {
            "mean": finite(asdict(self.mean)),
            "psnr_ci95": finite(self.psnr_ci95),
            "psnr_loss_ci95": finite(self.psnr_loss_ci95),
            "images": [{"name": name, **finite(asdict(measures))} for name, measures in self.images],
        }


def evaluate(
    restorer: Restorer,
    testset: Sequence[TestPair],
    ann: RestorationNetwork | None = None,
    *,
    task: TaskName = DENOISE.name,
    columns: bool = False,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Restore a test set by a spiking network in its deployment form, and measure.

    Args:
        restorer: The spiking network.
        testset: Pairs of a degraded and a clean image, of the network's channels.
        ann: The conventional network that it was made of, to compare with.
        task: What the networks do, on which the conversion rate depends.
        columns: Whether the energy is counted by all columns, and the int8 twin's, which takes longer.
        progress: Told how many images are done, and of how many.

    Raises:
        ValueError: There is no image, or one is smaller than SSIM's window of 11 x 11 pixels.
        ModelError: The network is for images of other channels, or is told the noise level, which a pair does not know.

    Source:
        docs/method.md, section 8.

    Example:
        >>> restorer = Restorer.from_pretrained("denoise-gray-25")  # doctest: +SKIP
        >>> pairs = open_testset("photos", task="denoise", channels=1, sigma=25)  # doctest: +SKIP
        >>> evaluate(restorer, pairs).mean.psnr  # doctest: +SKIP
        28.0
    """
    if not testset:
        raise InputError("there is no image to evaluate on; expected at least one")
    images, scenes, energies = [], [], []
    for i, pair in enumerate(testset):
        measures, energy = _measure(restorer, pair, ann, task, columns)
        images.append((pair.name, measures))
        scenes.append(pair.scene)
        energies += [] if energy is None else [energy]
        progress(i + 1, len(testset))
    return Evaluation(tuple(images), tuple(scenes), task, tuple(energies))


@torch.no_grad()
def _measure(
    restorer: Restorer, pair: TestPair, ann: RestorationNetwork | None, task: TaskName, columns: bool
) -> tuple[Measures, EnergyColumns | None]:
    sigma = pair.sigma if restorer.takes_level else None
    restored, took = restorer.trace(pair.degraded, sigma=sigma, counts=columns)
    if restored.shape != pair.clean.shape:
        raise InputError(
            f"the network makes {tuple(restored.shape)} of {pair.name}; the clean image has {tuple(pair.clean.shape)}; "
            "give pairs of that scale and those channels"
        )
    energy = None
    if columns:
        energy = energy_columns(restorer.network, took.trace, restorer.seen(pair.degraded, sigma), ann)
    degraded = upscaled(pair.degraded[None], restorer.scale)[0]
    # an image of other channels has no quality of its own
    fits = degraded.shape == pair.clean.shape
    degraded_psnr, degraded_ssim = quality(degraded, pair) if fits else (math.nan, math.nan)
    snn_psnr, snn_ssim = quality(restored, pair)
    ann_psnr = ann_ssim = loss = rate = None
    if ann is not None:
        ann_psnr, ann_ssim = quality(restorer.by_ann(ann, pair.degraded, sigma=sigma), pair)
        loss = ann_psnr - snn_psnr
        rate = conversion_rate(snn_psnr / ann_psnr, snn_ssim / ann_ssim, task)
    measures = Measures(
        degraded_psnr=degraded_psnr,
        degraded_ssim=degraded_ssim,
        psnr=snn_psnr,
        ssim=snn_ssim,
        ann_psnr=ann_psnr,
        ann_ssim=ann_ssim,
        psnr_loss=loss,
        conversion_rate=None if rate is None else min(rate, 100.0),
        conversion_rate_uncapped=rate,
        synaptic_operations=took.synaptic_operations,
        spikes_per_neuron=took.spikes_per_neuron,
        snn_mj=took.snn_mj,
        ann_mj=took.ann_mj,
    )
    return measures, energy


@dataclass(frozen=True)
class Assessed:
    """What restoring one photograph did, without a clean one to measure against.

    Attributes:
        visibility: What became visible, see :func:`spikingir.measures.visibility`.
        spikes_per_neuron: Mean number of spikes of a neuron, over all layers.
        snn_mj: Energy of the spiking network, as the paper counts it (column A).
        ann_mj: Energy of the conventional network, likewise.
    """

    visibility: Visibility
    spikes_per_neuron: float
    snn_mj: float
    ann_mj: float

    def as_dict(self) -> dict[str, float | None]:
        """Plain values that JSON can hold; what is not finite is None."""
        found: dict[str, float | None] = finite(
            {**self.visibility._asdict(), **{name: getattr(self, name) for name in _COSTS}}
        )
        return found


_COSTS = ("spikes_per_neuron", "snn_mj", "ann_mj")


@dataclass(frozen=True)
class Assessment:
    """What restoring a set of photographs did to each, in order, by its name; ``columns`` as in :class:`Evaluation`."""

    images: tuple[tuple[str, Assessed], ...]
    columns: tuple[EnergyColumns, ...] = ()

    @property
    def mean(self) -> dict[str, float | None]:
        """Mean over photographs of each value, of those that are finite."""
        rows = [assessed.as_dict() for _, assessed in self.images]
        known = {name: [value for row in rows if (value := row[name]) is not None] for name in rows[0]}
        return {name: fmean(values) if values else None for name, values in known.items()}

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {"mean": self.mean, "images": [{"name": name, **one.as_dict()} for name, one in self.images]}


@torch.no_grad()
def assess(
    restorer: Restorer,
    photographs: Sequence[Photograph],
    ann: RestorationNetwork | None = None,
    *,
    columns: bool = False,
    progress: Progress = lambda done, total: None,
) -> Assessment:
    """Restore photographs whose clean ones are not known, and say what it did to what can be seen.

    Args:
        restorer: The spiking network.
        photographs: The photographs.
        ann: The conventional network that it was made of, for the energy by all columns.
        columns: See :func:`evaluate`.
        progress: Told how many photographs are done, and of how many.

    Raises:
        ValueError: There is no photograph.
        ModelError: The network is for images of other channels, or is told a noise level.

    Source:
        See :func:`spikingir.measures.visibility`.
    """
    if not photographs:
        raise InputError("there is no photograph to assess; expected at least one")
    images, energies = [], []
    for i, photograph in enumerate(photographs):
        restored, took = restorer.trace(photograph.degraded, counts=columns)
        seen = visibility(photograph.degraded, restored)
        images.append((photograph.name, Assessed(seen, took.spikes_per_neuron, took.snn_mj, took.ann_mj)))
        if columns:
            given = restorer.seen(photograph.degraded)
            energies.append(energy_columns(restorer.network, took.trace, given, ann))
        progress(i + 1, len(photographs))
    return Assessment(tuple(images), tuple(energies))


def quality(image: Tensor, pair: TestPair) -> tuple[float, float]:
    """PSNR and SSIM of a restored image.

    Shape:
        ``image``: (C, H, W), as the pair's.
    """
    return psnr(image[None], pair.clean[None]).item(), ssim(image[None], pair.clean[None]).item()


def conversion_rate(psnr_ratio: float, ssim_ratio: float, task: TaskName) -> float:
    """What of the conventional network's quality the spiking network keeps, in per cent, not capped.

    To denoise, the ratio of the PSNRs; to dehaze, the mean of that and the ratio of the SSIMs.

    Args:
        psnr_ratio: PSNR of the spiking network over that of the conventional one.
        ssim_ratio: Likewise for SSIM.
        task: What the networks do.

    Source:
        SpikingIR, tables of results; docs/method.md, section 8.
    """
    return 100 * TASKS[task].conversion_rate(psnr_ratio, ssim_ratio)


def confidence_interval(values: Sequence[float], scenes: Sequence[str] = ()) -> tuple[float, float] | None:
    """Student's 95 % confidence interval of a mean; None for fewer than two independent values, or infinite ones.

    Images differ far more than networks do: the interval says how the mean would vary with other images, not by how
    much two networks differ on the same ones.

    Args:
        values: One for each image.
        scenes: Scene of each: images of one scene, in different haze, are one independent draw, of their mean. All
            are independent unless given; an image whose scene is empty is one of its own.
    """
    if not all(map(math.isfinite, values)):
        return None
    groups: dict[object, list[float]] = {}
    for i, value in enumerate(values):
        groups.setdefault((scenes[i] if scenes else "") or i, []).append(value)
    draws = [fmean(group) for group in groups.values()]
    if len(draws) < 2:
        return None
    half = _t_quantile(len(draws) - 1) * stdev(draws) / math.sqrt(len(draws))
    return fmean(values) - half, fmean(values) + half


def _t_quantile(degrees: int) -> float:
    """Level that Student's t exceeds in magnitude with probability 5 %.

    With ``t = sqrt(degrees) tan(angle)`` the density becomes that of the angle, ``cos(angle)^(degrees - 1)``.
    """
    angles = np.linspace(0, np.pi / 2, 100_001)
    mass = np.cumsum(np.cos((angles[1:] + angles[:-1]) / 2) ** (degrees - 1))
    return math.sqrt(degrees) * math.tan(float(np.interp(0.95 * mass[-1], mass, angles[1:])))


def finite(value: Any) -> Any:
    """Plain values with None for what JSON has no number for, such as the PSNR of equal images."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
