"""What a network reads of photographs, made part by part."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spikingir.inputs import level_channel, pad_to_multiple, unit


@dataclass(frozen=True)
class Planes:
    """What a network reads of photographs: their values in [0, 1], the noise level behind them, at padded sizes.

    They are made part by part, so that a large photograph stays in memory in the numbers that it came in. Of 8 bits
    these take a quarter of what its values in float32 do.

    Attributes:
        samples: The photographs: floating point in [0, 1], or whole numbers of 8 or 16 bits.
        level: Their noise level, see :func:`~spikingir.inputs.level_channel`, where the network takes one.
        multiple: Both sides are made multiples of it, by repeating the last row and column.

    Shape:
        ``samples``: (B, C, H, W); ``level``: (B, 1, H, W).
    """

    samples: Tensor
    level: Tensor | None = None
    multiple: int = 1

    @classmethod
    def of(cls, samples: Tensor, level: Tensor | float | None = None, multiple: int = 1) -> "Planes":
        """Planes with a level that is a number, one for each image, or a map.

        Raises:
            ValueError: A level that is negative, not finite, or of another shape.
        """
        return cls(samples, None if level is None else level_channel(samples, level), multiple)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, C', H', W'): as a network reads them."""
        batch, channels, height, width = self.samples.shape
        height, width = (side + -side % self.multiple for side in (height, width))
        return batch, channels + (self.level is not None), height, width

    def part(self, image: int, rows: slice, columns: slice) -> Tensor:
        """Some rows and columns of one image.

        Shape:
            (1, C', h, w).
        """
        height, width = self.samples.shape[-2:]
        inside = (slice(image, image + 1), slice(None), rows, columns)  # slices end at the border by themselves
        values = unit(self.samples[inside])
        if self.level is not None:
            values = torch.cat([values, self.level[inside]], 1)
        beyond = (0, max(0, columns.stop - width), 0, max(0, rows.stop - height))
        return torch.nn.functional.pad(values, beyond, mode="replicate") if any(beyond) else values

    def whole(self) -> Tensor:
        """All of it.

        Shape:
            (B, C', H', W').
        """
        values = unit(self.samples)
        return pad_to_multiple(values if self.level is None else torch.cat([values, self.level], 1), self.multiple)
