"""Maps of a photograph, such as K and B of haze: estimated on a smaller one, brought to full size along its edges.

A network that estimates maps sees a photograph of about a megapixel at most: there its receptive field takes in what
it was trained on, and the work stays the same however large the photograph is. A guided filter then tells each pixel
of the whole photograph its values: in a window of the small one a map is a linear function of the photograph's
brightness, and that function, smooth in space, is what is enlarged. So detail is the photograph's own.

All sums are of whole numbers, all else is done value by value: the same bits on every machine, in strips of any height.

Source:
    He et al. 2013, "Guided Image Filtering", Eq. 5, 6 and 8; He and Sun 2015, "Fast Guided Filter", Algorithm 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from spikingir.inputs import pad_to_multiple, unit
from spikingir.networks.base import RestorationNetwork
from spikingir.spiking.formation import ESTIMATES_MAPS, dehazed, form_image, one_airlight

PIXELS = 2**20
"""Pixels of the largest photograph that maps are estimated on."""

RADIUS = 1 / 30
"""Radius of the guided filter's window, of the shorter side.

With it and :data:`EPSILON`, a network in the middle of its training gained .4 dB on SOTS-indoor, .4 outdoors and .8 on
clear photographs to themselves, against its maps as they were; with 1/60 and 1e-4 .2, .2 and .6. By eye a
larger window makes skies still more even, and leaves trees and towers in fog grayer; PSNR rises to 1/8.
"""

EPSILON = 1e-3
"""Variance of the brightness above which the maps follow its edges."""

VEIL = 0.12
"""Veil up to which a photograph counts as clear, see :func:`veil`: 31 levels of 255.

Thin haze and a pale sky have the same veil. With .175, and .205 for :data:`HAZY`, 38 of 40 clear photographs of
SOTS-outdoor stay above 30 dB to themselves in place of 34, but testset-a-like falls from 23.8 to 22.2 dB, outdoor-40
from 22.1 to 21.2, and a bridge in fog behind a clear shore stays in it. The mean of 1 - t tells them apart no better.
"""

HAZY = 0.18
"""Veil from which all of it is removed. Between the two the share that is removed rises evenly."""

BEND = 0.2
"""Share of a value's way to black or white from which on it comes nearer ever more slowly, see :func:`eased`.

The middle of .1, .2 and .3, which differ by .1 dB on SOTS. Without it values beyond black and white are cut off: more
than 1 % of them in every third photograph of real haze, and PSNR is .1 dB lower.
"""

LEAST = 2 / 255
"""Distance to black and white that a value far from them keeps, see :func:`eased`."""

_GRID = 2**12  # of photographs and maps: 12 bits below 1
_COEFFICIENT_GRID = 2**20
_LARGEST = 8.0  # of a map: sums stay within 64 bits
_TINY = 2.0**-24  # of a way to black or white
_LEAST_GAIN = 0.25  # of 1 + K, where a body went astray
_STRIP = 2**18  # pixels of the photograph at a time


def estimated_size(height: int, width: int) -> tuple[int, int]:
    """Height and width that maps of a photograph are estimated at: its own, or about :data:`PIXELS` pixels.

    Example:
        >>> estimated_size(480, 640), estimated_size(6000, 8000)
        ((480, 640), (886, 1181))
    """
    if height * width <= PIXELS:
        return height, width
    shorter = max(1, math.isqrt(PIXELS * min(height, width) // max(height, width)))
    longer = max(1, (max(height, width) * shorter) // min(height, width))
    return (shorter, longer) if height <= width else (longer, shorter)


def reduced(image: Tensor) -> Tensor:
    """A photograph at the size that its maps are estimated at; each pixel is the mean over the area that it covers.

    Args:
        image: The photographs: floating point in [0, 1], or whole numbers of 8 or 16 bits.

    Shape:
        (B, C, H, W) to (B, C, h, w), see :func:`estimated_size`.
    """
    size = estimated_size(*image.shape[-2:])
    if size == image.shape[-2:]:
        return unit(image)
    small = torch.empty(*image.shape[:2], *size, dtype=unit(image[:0]).dtype, device=image.device)
    for one, into in zip(image, small, strict=True):
        for plane, target in zip(one, into, strict=True):  # one at a time, for the memory
            # on a grid of 12 bits the sum over an area is exact in any order
            target.copy_(functional.adaptive_avg_pool2d(_whole(unit(plane[None])).div_(_GRID), size)[0])
    return small


def veil(k: Tensor, b: Tensor) -> Tensor:
    """How much light of the air lies over each photograph, of 1: the mean of ``max(B / (1 + K), 0)``.

    ``J = K y - B + y`` undoes ``y = J t + A (1 - t)`` with ``K = 1 / t - 1`` and ``B = A (1 - t) / t``, so that
    ``B / (1 + K)`` is the veil ``A (1 - t)``. Its RMS tells less: that of a bright sky over a clear landscape is large.
    So does the mean with its sign: a network that brightens a gray sky has a negative veil there, over streets in haze.

    Shape:
        ``k`` and ``b``: (B, C, h, w), or one channel for all; the result: (B,).
    """
    k, b = k.double(), b.double()
    return (b / (1 + k).clamp(min=_LEAST_GAIN)).clamp(min=0).mean((1, 2, 3))


def removed(veil: Tensor) -> Tensor:
    """Share of a veil that is removed: 0 up to :data:`VEIL`, 1 from :data:`HAZY`, in steps of 2^-12 between them.

    Shape:
        Any; the result has the same.

    Example:
        >>> removed(torch.tensor([0.05, 0.15, 0.5]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    share = ((veil - VEIL) / (HAZY - VEIL)).clamp(0, 1)
    return (share * _GRID).round() / _GRID  # in steps, as the last bit of a veil depends on the order of its sum


def eased(image: Tensor, formed: Tensor) -> Tensor:
    """Values that image formation moved, brought back from beyond black and white: detail there is not cut off.

    Let ``y`` be the value that came, ``J`` the formed one, and ``s`` the way to black or white: ``y`` where ``J < y``,
    else ``1 - y``. Let ``m = s l / (s + l)`` with ``l`` = :data:`LEAST`, and ``r = |J - y| / (s - m)``. Of the way is
    left::

        m + (s - m) h(r),   h(r) = 1 - r           for r <= 1 - b,  b = BEND
                            h(r) = b b / (2 b - 1 + r)   beyond

    ``h`` and its slope are continuous and it stays above 0, so that no value becomes black or white that was not; a
    value that formation leaves alone is not changed by a bit.

    Shape:
        ``image``, in [0, 1], ``formed`` and the result: any, the same.
    """
    moved = formed - image
    darker = moved < 0
    way = torch.where(darker, image, 1 - image)
    least = way * LEAST / (way + LEAST)
    way = way - least
    taken = moved.abs() / way.clamp(min=_TINY)
    left = torch.where(taken <= 1 - BEND, 1 - taken, BEND**2 / (taken + (2 * BEND - 1)).clamp(min=BEND))
    left = left * way + least
    return torch.where(moved == 0, image, torch.where(darker, left, 1 - left))


@dataclass(frozen=True)
class GuidedMaps:
    """Maps as linear functions of a photograph's brightness, ``map = slope * brightness + offset``.

    Attributes:
        slope: ``a`` of the guided filter, mean over the windows that a pixel is in.
        offset: ``b`` likewise.

    Shape:
        (B, M, h, w) each, float32, at the size that the maps were estimated at.
    """

    slope: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, guide: Tensor, maps: Tensor) -> "GuidedMaps":
        """The guided filter's coefficients.

        In each window of ``n`` pixels, with ``I`` the guide's brightness (mean of its channels) and ``p`` a map::

            a = (n sum I p - sum I sum p) / (n sum I I - (sum I)^2 + n^2 eps),   b = (sum p - a sum I) / n

        Args:
            guide: The photograph that the maps were estimated on.
            maps: The maps.

        Shape:
            ``guide``: (B, C, h, w); ``maps``: (B, M, h, w).
        """
        radius = max(1, math.floor(min(guide.shape[-2:]) * RADIUS))
        steps = guide.shape[1] * _GRID
        i = _brightness(guide).long()
        n = _window_sums(torch.ones_like(i[:1]), radius)
        count, sum_i = n.double(), _window_sums(i, radius)
        variance = (n * _window_sums(i * i, radius) - sum_i * sum_i).double() + count * count * (EPSILON * steps**2)
        found = []
        for one in maps.clamp(-_LARGEST, _LARGEST).split_with_sizes([1] * maps.shape[1], 1):  # for the memory
            p = _whole(one).long()
            sum_p = _window_sums(p, radius)
            a = (n * _window_sums(i * p, radius) - sum_i * sum_p).double() / variance
            b = (sum_p.double() - a * sum_i.double()) / count / _GRID
            found.append([_window_means(x, n, radius) for x in (a * (steps / _GRID), b)])
        slopes, offsets = zip(*found, strict=True)
        return cls(torch.cat(slopes, 1), torch.cat(offsets, 1))

    def form(self, image: Tensor, form: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Image formation with the maps at the image's size, strip by strip.

        Args:
            image: The photograph, as for :func:`reduced`.
            form: From some rows of the photograph and the maps there to the restored rows.

        Shape:
            (B, C, H, W) to the same.
        """
        height, width = image.shape[-2:]
        rows, columns = (
            _Places.of(size, small) for size, small in zip(image.shape[-2:], self.slope.shape[-2:], strict=True)
        )
        formed = torch.empty_like(image, dtype=unit(image[:0]).dtype)
        step = max(1, _STRIP // width)
        for top in range(0, height, step):
            strip = slice(top, min(height, top + step))
            near = rows.part(strip)
            a, b = (near.read(columns.read(x[..., near.span, :], -1), -2) for x in (self.slope, self.offset))
            part = unit(image[..., strip, :])
            brightness = _brightness(part) / (part.shape[1] * _GRID)
            formed[..., strip, :] = form(part, a.mul_(brightness.to(a.dtype)).add_(b).to(part.dtype))
        return formed


def form_with_maps(formation: str, image: Tensor, small: Tensor, maps: Tensor) -> Tensor:
    """Image formation at full size with maps of a smaller photograph; those without a veil as they came, bit for bit.

    Of a thin veil a part is removed, see :func:`removed`: a photograph that is nearly clear is hardly changed. No value
    is cut off at black or white, see :func:`eased`.

    Args:
        formation: Name of the image formation.
        image: The photographs, as for :func:`reduced`.
        small: They :func:`reduced`, perhaps padded to the right and below.
        maps: What the body makes of ``small``.

    Shape:
        ``image`` and the result: (B, C, H, W); ``small``: (B, C, h, w); ``maps``: (B, 2 C, h, w).
    """
    height, width = estimated_size(*image.shape[-2:])
    small, maps = small[..., :height, :width], maps[..., :height, :width]
    form = partial(form_image, formation)
    k, b = maps.chunk(2, 1)
    if formation == "airlight":
        maps, light = one_airlight(maps)
        k, b = maps, light * maps
        form = partial(dehazed, light=light)
    share = removed(veil(k, b))
    clear = share == 0
    if clear.all():
        return image.clone() if image.is_floating_point() else unit(image)
    guided = GuidedMaps.fit(small, maps * share.view(-1, 1, 1, 1).to(maps.dtype))
    formed = guided.form(image, lambda part, maps: eased(part, form(part, maps)))
    formed[clear] = unit(image[clear])
    return formed


def restore_by_network(network: RestorationNetwork, image: Tensor) -> Tensor:
    """What a conventional network makes of photographs as a whole, on the way that a restorer takes.

    Args:
        network: The network.
        image: The photographs, with the noise level behind them where the network takes one.

    Shape:
        (B, C, H, W) to the same, without the level.
    """
    if network.formation not in ESTIMATES_MAPS:
        restored: Tensor = network(image)
        return restored
    small = pad_to_multiple(reduced(image), network.multiple)
    return form_with_maps(network.formation, image, small, network.body(small))


@dataclass(frozen=True)
class _Places:
    """Where pixels along an axis lie between those of a smaller image: ``low``, and ``share`` of the way to the next.

    ``span`` are the pixels of the smaller image that ``low`` counts from.
    """

    low: Tensor
    share: Tensor
    span: slice

    @classmethod
    def of(cls, size: int, small: int) -> "_Places":
        middle = (torch.arange(size, dtype=torch.float64) + 0.5) * small / size - 0.5
        low = middle.floor().clamp(0, max(small - 2, 0))
        return cls(low.long(), (middle - low).clamp(0, 1).float(), slice(0, small))

    def part(self, pixels: slice) -> "_Places":
        """Some of the pixels."""
        low = self.low[pixels]
        first, last = int(low[0]), int(low[-1])
        return _Places(low - first, self.share[pixels], slice(first, last + 2))

    def read(self, values: Tensor, dim: int) -> Tensor:
        """Values of the smaller image at the pixels, interpolated along an axis."""
        low, high = self.low, (self.low + 1).clamp(max=values.shape[dim] - 1)
        before = values.index_select(dim, low.to(values.device))
        step = values.index_select(dim, high.to(values.device)) - before
        return before + step * self.share.to(values.device).view(-1, *(1,) * (-1 - dim))


def _whole(values: Tensor) -> Tensor:
    """Multiples of the grid's step, as float32 holds them."""
    return (values.float() * _GRID).round_()


def _brightness(image: Tensor) -> Tensor:
    """Sum of the channels in steps of the grid, a whole number.

    Shape:
        (B, C, H, W) to (B, 1, H, W).
    """
    return _whole(image).sum(1, keepdim=True)


def _window_sums(values: Tensor, radius: int) -> Tensor:
    """Sums over the square windows around each pixel, cut off at the border; exact.

    Shape:
        (..., H, W), int64, to the same.
    """
    for dim in (-2, -1):
        size = values.shape[dim]
        total = values.cumsum(dim)
        none = torch.zeros_like(total.narrow(dim, 0, 1))
        shape = list(values.shape)
        shape[dim] = radius + 1
        front = none.expand(shape)
        shape[dim] = radius
        around = torch.cat([front, total, total.narrow(dim, size - 1, 1).expand(shape)], dim)
        values = around.narrow(dim, 2 * radius + 1, size) - around.narrow(dim, 0, size)
    return values


def _window_means(values: Tensor, n: Tensor, radius: int) -> Tensor:
    """Means over the windows, of values on a fine grid."""
    sums = _window_sums((values * _COEFFICIENT_GRID).round_().long(), radius)
    return (sums.double() / n.double() / _COEFFICIENT_GRID).float()
