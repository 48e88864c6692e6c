"""Clip levels ``lambda`` of every layer, streamed over calibration images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from spikingir.conversion.ranges import StreamingRange
from spikingir.graph.errors import ConversionError
from spikingir.graph.graph import Graph, Node, Wave

CalibrationImages = Tensor | Iterable[Tensor]

_BRIGHTEST_MEAN = 1.5  # noise takes single pixels beyond 1, but no image in [0, 1] has such a mean


def image_batches(images: CalibrationImages, channels: int | None = None) -> Iterator[Tensor]:
    """Calibration images as batches ``(B, C, H, W)``, checked.

    Raises:
        ConversionError: No image, a wrong shape or channel count, NaN or infinite values, values of 0 to 255.
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
            if (mean := batch.mean((1, 2, 3), dtype=torch.float32).max().item()) > _BRIGHTEST_MEAN:
                raise ConversionError(
                    f"calibration image {i} has a mean of {mean:.3g}, so it is not in [0, 1]; "
                    "divide images of 0 to 255 by 255"
                )
            found = True
            channels = batch.shape[1]
            yield batch
    if not found:
        raise ConversionError("there is no calibration image; give at least one")


@torch.no_grad()
def calibrate(graph: Graph, images: Iterable[Tensor], percentile: float, per_channel: bool) -> Mapping[str, Tensor]:
    """Clip level ``lambda`` of every layer: percentile or maximum of its activations, zeros counted.

    A signed layer uses the activation's magnitude. A channel below 1e-3 of its layer's maximum gets that, so that a
    dead one stays finite; a layer that is dead as a whole gets 1.

    Args:
        graph: The body.
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
        wave = graph.activate(node, current)
        activation = wave.constant
        assert activation is not None
        if node.name not in ranges:
            ranges[node.name] = StreamingRange(activation.shape[1], histogram=percentile < 100)
        ranges[node.name].update(activation.abs())
        return wave

    dtype = next(weight.dtype for weight, _ in graph.weights.values())
    for batch in images:
        graph.run(batch.to(dtype), observe)
    return {name: seen.clip_level(percentile / 100, per_channel) for name, seen in ranges.items()}


def channel_means(maps: Sequence[Tensor]) -> Tensor:
    """Mean of each channel over all pixels of all images.

    Shape:
        (B, C, H, W) each, to (C,).
    """
    total = torch.stack([m.double().sum((0, 2, 3)) for m in maps]).sum(0)
    return (total / sum(m[:, 0].numel() for m in maps)).to(maps[0].dtype)
