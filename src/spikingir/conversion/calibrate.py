"""Clip levels ``lambda`` of every layer, streamed over calibration images."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from spikingir.conversion.errors import ConversionError
from spikingir.conversion.trace import TracedBody
from spikingir.spiking.graph import Node, Wave, run_graph

CalibrationImages = Tensor | Iterable[Tensor]

_EXPONENTS = (-40, 40)
_PER_OCTAVE = 256


class StreamingRange:
    """Maximum and quantiles per channel of values seen in pieces.

    The maximum is exact. Quantiles come from a histogram with logarithmic bins, 256 an octave from 2^-40 to 2^40:
    a bin is 0.4 % wide at every scale, and a quantile is placed within its bin by linear interpolation.
    Zeros count; a value below 2^-40 counts as zero.

    Args:
        channels: Number of channels.
        histogram: Whether quantiles will be asked for.
    """

    def __init__(self, channels: int, histogram: bool = True) -> None:
        self.maximum = torch.zeros(channels)
        bins = (_EXPONENTS[1] - _EXPONENTS[0]) * _PER_OCTAVE + 1
        self._histogram = torch.zeros(channels, bins, dtype=torch.int64) if histogram else None

    def update(self, values: Tensor) -> None:
        """Take in non-negative values.

        Shape:
            ``(B, C, H, W)``.
        """
        flat = values.detach().cpu().movedim(1, 0).flatten(1)
        self.maximum = torch.maximum(self.maximum.to(flat.dtype), flat.amax(1))
        if self._histogram is None:
            return
        channels, bins = self._histogram.shape
        # the leading bits of a float are its exponent and mantissa: cut off, they number logarithmic bins
        bits = flat.float().contiguous().view(torch.int32)
        bucket = (bits >> (23 - 8)) - (127 + _EXPONENTS[0]) * _PER_OCTAVE + 1
        bucket = bucket.clamp(0, bins - 1) + torch.arange(channels)[:, None] * bins
        self._histogram += torch.bincount(bucket.flatten(), minlength=channels * bins).view(channels, bins)

    def quantile(self, q: float, per_channel: bool) -> Tensor:
        """Quantile ``q`` in [0, 1] of each channel, or of all channels together; ``q`` = 1 is the exact maximum.

        Shape:
            ``(C,)``, or ``(1,)`` for all channels together.
        """
        maximum = self.maximum if per_channel else self.maximum.amax(0, keepdim=True)
        if q >= 1 or self._histogram is None:
            return maximum
        counts = self._histogram if per_channel else self._histogram.sum(0, keepdim=True)
        cumulative = counts.cumsum(1).double()
        target = q * cumulative[:, -1:]
        bin_index = torch.searchsorted(cumulative, target).clamp_max(counts.shape[1] - 1)
        inside = counts.gather(1, bin_index).double().clamp_min(1)
        fraction = (1 - (cumulative.gather(1, bin_index) - target) / inside).clamp(0, 1)
        value = torch.where(bin_index == 0, 0.0, _bin_edge(bin_index - 1 + fraction))
        return torch.minimum(value.squeeze(1).to(maximum.dtype), maximum)


def _bin_edge(position: Tensor) -> Tensor:
    """Value at a position, in bins; within an octave the bins are linear, as a float's mantissa is."""
    octave = (position / _PER_OCTAVE).floor()
    return torch.exp2(octave + _EXPONENTS[0]) * (1 + position / _PER_OCTAVE - octave)


def image_batches(images: CalibrationImages, channels: int | None = None) -> Iterator[Tensor]:
    """Calibration images as batches ``(B, C, H, W)``, checked.

    Raises:
        ConversionError: No image, a wrong shape or channel count, NaN or infinite values.
    """
    pieces: Iterable[Tensor] = torch.split(images, 8) if isinstance(images, Tensor) and images.dim() == 4 else images
    if isinstance(images, Tensor) and images.dim() == 3:
        pieces = [images]
    found = False
    for i, piece in enumerate(pieces):
        if not isinstance(piece, Tensor) or not piece.is_floating_point():
            kind = piece.dtype if isinstance(piece, Tensor) else type(piece).__name__
            raise ConversionError(f"calibration image {i} is {kind}; expected a tensor of floats in [0, 1]")
        batch = piece[None] if piece.dim() == 3 else piece
        wanted = "C" if channels is None else str(channels)
        if batch.dim() != 4 or (channels is not None and batch.shape[1] != channels):
            raise ConversionError(
                f"calibration image {i} has shape {tuple(piece.shape)}; "
                f"expected (B, {wanted}, H, W) or ({wanted}, H, W)"
            )
        if not torch.isfinite(batch).all():
            raise ConversionError(f"calibration image {i} holds NaN or infinite values; leave it out")
        if batch.numel():
            found = True
            channels = batch.shape[1]
            yield batch
    if not found:
        raise ConversionError("there is no calibration image; give at least one")


def analog_neuron(traced: TracedBody, node: Node, current: Wave) -> Tensor:
    """Activation of the ANN at a ``neuron`` node: ReLU, or nothing where the neuron is signed."""
    assert current.constant is not None
    return current.constant if node.name in traced.signed else torch.relu(current.constant)


@torch.no_grad()
def calibrate(
    traced: TracedBody, images: Iterable[Tensor], percentile: float, per_channel: bool
) -> Mapping[str, Tensor]:
    """Clip level ``lambda`` of every layer: percentile or maximum of its activations, zeros counted.

    A signed layer uses the activation's magnitude. A channel below 1e-3 of its layer's maximum gets that, so that a
    dead one stays finite; a layer that is dead as a whole gets 1.

    Args:
        traced: The body.
        images: Batches ``(B, C, H, W)``, read once.
        percentile: In (0, 100]; 100 is the exact maximum.
        per_channel: One clip level per channel, or one per layer.

    Shape:
        Result: ``(C,)`` or ``(1,)`` by layer.

    Source:
        Rueckauer et al. 2017; SpikingIR, section "ANN-SNN conversion".
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile is {percentile}; it must lie in (0, 100]")
    ranges: dict[str, StreamingRange] = {}

    def observe(node: Node, current: Wave, owned: bool) -> Wave:
        activation = analog_neuron(traced, node, current)
        if node.name not in ranges:
            ranges[node.name] = StreamingRange(activation.shape[1], histogram=percentile < 100)
        ranges[node.name].update(activation.abs())
        return Wave(None, activation)

    dtype = next(weight.dtype for weight, _ in traced.weights.values())
    for batch in images:
        run_graph(traced.nodes, traced.weights, batch.to(dtype), observe, traced.raw)
    levels = {}
    for name, seen in ranges.items():
        maximum = seen.maximum.max().item()
        level = seen.quantile(percentile / 100, per_channel)
        levels[name] = level.clamp_min(1e-3 * maximum) if maximum > 0 else torch.ones_like(level)
    return levels
