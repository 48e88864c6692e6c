"""What a pixel of a wire depends on: the receptive field, step by step."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Reach:
    """What a pixel of a wire depends on along one axis: pixel ``i`` on ``stride * i + low .. stride * i + high``.

    Attributes:
        stride: Image pixels from one pixel of the wire to the next.
        low: Nearest image pixel, in image pixels.
        high: Farthest image pixel.
    """

    stride: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)

    def then(self, stride: Fraction | int, low: Fraction | int, high: Fraction | int) -> "Reach":
        """Reach of an operation whose pixel ``i`` reads pixels ``stride * i + low .. stride * i + high`` of this."""
        return Reach(self.stride * stride, self.low + self.stride * low, self.high + self.stride * high)
