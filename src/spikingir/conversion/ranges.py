"""Maximum and quantiles of values seen in pieces."""

import torch
from torch import Tensor

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

    def clip_level(self, q: float, per_channel: bool) -> Tensor:
        """``lambda``: the quantile, but at least 1e-3 of the layer's maximum, so that a dead channel stays finite.

        A layer that is dead as a whole gets 1.

        Shape:
            As :meth:`quantile`.
        """
        level, maximum = self.quantile(q, per_channel), self.maximum.max().item()
        return level.clamp_min(1e-3 * maximum) if maximum > 0 else torch.ones_like(level)


def _bin_edge(position: Tensor) -> Tensor:
    """Value at a position, in bins; within an octave the bins are linear, as a float's mantissa is."""
    octave = (position / _PER_OCTAVE).floor()
    return torch.exp2(octave + _EXPONENTS[0]) * (1 + position / _PER_OCTAVE - octave)
