"""Restoration without a network does what its papers say it does."""

import sys
from types import ModuleType

import pytest
import torch

from reproduce.classical import bm3d, dark_channel_prior, non_local_means
from spikingir.data.haze import add_haze
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.measures import psnr


def scene() -> torch.Tensor:
    """Saturated colours, so that some channel is dark nearly everywhere, as the prior has it; and a sky."""
    colours = torch.rand(3, 12, 16, generator=sample_generator(0, 0))
    colours = colours - colours.amin(0)
    clean = colours.repeat_interleave(10, 1).repeat_interleave(10, 2)
    clean[:, :20] = 0.9
    return clean


def test_dark_channel_prior_removes_haze() -> None:
    clean = scene()
    depth = torch.linspace(1, 0.2, clean.shape[1])[:, None].expand(clean.shape[1:])
    depth = torch.where(torch.arange(clean.shape[1])[:, None] < 20, 5.0, depth)
    hazy = add_haze(clean, depth, 4.0, 0.9)
    before, after = (psnr(image[None], clean[None]).item() for image in (hazy, dark_channel_prior(hazy)))
    assert after > before + 5


def test_dark_channel_prior_leaves_a_clear_image_nearly_alone() -> None:
    clean = scene()
    assert psnr(dark_channel_prior(clean)[None], clean[None]).item() > 25
    assert torch.isfinite(dark_channel_prior(torch.zeros(3, 40, 40))).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_non_local_means_removes_noise(channels: int) -> None:
    clean = scene()[:channels, :64, :64]
    noisy = add_gaussian_noise(clean, 25, sample_generator(1, 0))
    restored = non_local_means(noisy, 25)
    assert restored.shape == noisy.shape
    assert restored.dtype == noisy.dtype
    assert psnr(restored[None], clean[None]).item() > psnr(noisy[None], clean[None]).item() + 5


def test_bm3d_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ModuleNotFoundError):
        bm3d(torch.rand(1, 8, 8), 25)
    # the package takes colours last, colour by a function of its own, and gives a gray image without its one channel
    package = ModuleType("bm3d")
    package.bm3d = lambda z, sigma: z[..., 0] - sigma  # type: ignore[attr-defined]
    package.bm3d_rgb = lambda z, sigma: z[..., ::-1] - sigma  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bm3d", package)
    gray, colour = torch.rand(1, 8, 9), torch.rand(3, 8, 9)
    torch.testing.assert_close(bm3d(gray, 25), gray - 25 / 255)
    torch.testing.assert_close(bm3d(colour, 25), colour.flip(0) - 25 / 255)
