"""How far an exported network is from the folded one that it was made of, measured on a sample."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spikingir.deploy.folded import FoldedNetwork

_SAMPLE_SIDE = 64  # a multiple of the strides of every network that ships
_SAMPLE_LEVEL = 25 / 255


@dataclass(frozen=True)
class Drift:
    """What differs between a folded network and its export on a sample; nothing is expected to.

    Attributes:
        spikes: Spikes that the folded network fires.
        different: Sum over all neurons and steps of the difference in spikes; None where the format shows no spikes.
        values: Values of the restored image.
        values_different: Those of them that are not the same bit for bit; None where the format holds no image.
        largest: Largest difference of a value, in units of the image.
    """

    spikes: int
    different: int | None
    values: int
    values_different: int | None
    largest: float = 0.0

    def __str__(self) -> str:
        found = []
        if self.different is not None:
            found.append(f"{self.different} of {self.spikes} spikes differ")
        if self.values_different is not None:
            by = f", by {self.largest:.1g} at most" * bool(self.values_different)
            found.append(f"{self.values_different} of {self.values} values of the restored image differ{by}")
        return ", ".join(found)


def sample_images(network: FoldedNetwork) -> Tensor:
    """An image of random values for a network, with the noise level 25 / 255 where it reads one.

    Shape:
        (1, C, 64, 64).
    """
    channels = network.config.input_channels
    image = torch.rand(1, channels, _SAMPLE_SIDE, _SAMPLE_SIDE, generator=torch.Generator().manual_seed(0))
    if channels > network.config.channels:
        image[:, -1] = _SAMPLE_LEVEL
    return image


def spikes_of(network: FoldedNetwork, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Restored image and the spikes of every layer.

    Shape:
        Of a layer (S, B, C, H, W); on the phased schedule, where they are counts, (B, C, H, W).
    """
    restored, trace = network.trace(image, trains=True)
    spikes = {}
    for layer in trace.layers:
        assert layer.trains is not None
        trains = layer.trains.int()
        if network.config.phased:
            steps = len(trains)
            weights = [2 ** (steps - 1 - t) if network.config.coding == "binary" else 1 for t in range(steps)]
            trains = sum((weight * step for weight, step in zip(weights, trains, strict=True)), torch.zeros(()).int())
        spikes[layer.name] = trains
    return restored, spikes


def measure(
    expected: tuple[Tensor, Mapping[str, Tensor]], restored: Tensor | None, spikes: Mapping[str, Tensor] | None
) -> Drift:
    """Compare what :func:`spikes_of` gives with what an export did on the same image.

    Args:
        expected: Of the folded network.
        restored: The export's image; None where it has none.
        spikes: The export's spikes by layer, of the first steps if fewer; None where it shows none.
    """
    image, layers = expected
    if spikes is not None:
        layers = {name: layer[: len(spikes[name])] for name, layer in layers.items()}
    return Drift(
        sum(int(layer.abs().sum()) for layer in layers.values()),
        None
        if spikes is None
        else sum(int((layer - spikes[name].int()).abs().sum()) for name, layer in layers.items()),
        image.numel(),
        None if restored is None else int((restored != image).sum()),
        0.0 if restored is None else float((restored - image).abs().max()),
    )
