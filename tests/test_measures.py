"""PSNR and SSIM per image against their equations and scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from spikingir.measures import psnr, ssim


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    """Smooth images and noisy ones that leave [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.linspace(0, 3, 24), torch.linspace(0, 5, 30)
    clean = torch.stack([(rows[:, None] * (i + 1) + columns).sin() for i in range(6)]).view(2, 3, 24, 30) / 2 + 0.5
    return clean + torch.randn(clean.shape, generator=generator) * torch.tensor([0.05, 0.3]).view(2, 1, 1, 1), clean


def test_psnr_is_its_equation(pairs: tuple[Tensor, Tensor]) -> None:
    restored, clean = pairs
    expected = [
        -10 * np.log10(((r.clip(0, 1) - c) ** 2).mean()) for r, c in zip(*map(Tensor.numpy, pairs), strict=True)
    ]
    torch.testing.assert_close(psnr(restored, clean), torch.tensor(expected), rtol=1e-5, atol=0)


def test_ssim_is_that_of_scikit_image(pairs: tuple[Tensor, Tensor]) -> None:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [
        structural_similarity(r.clip(0, 1), c, channel_axis=0, **options)
        for r, c in zip(*(images.double().numpy() for images in pairs), strict=True)
    ]
    torch.testing.assert_close(ssim(*pairs).double(), torch.tensor(expected), rtol=1e-4, atol=0)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_of_a_batch_are_measured_alone(measure, pairs: tuple[Tensor, Tensor]) -> None:
    restored, clean = pairs
    together = measure(restored, clean)
    assert together.shape == (2,)
    assert together[0] > together[1]
    torch.testing.assert_close(together, torch.cat([measure(restored[i : i + 1], clean[i : i + 1]) for i in range(2)]))
    torch.testing.assert_close(measure(restored.flip(0), clean.flip(0)), together.flip(0))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_output_is_clipped_and_measured_in_float32(measure, pairs: tuple[Tensor, Tensor]) -> None:
    restored, clean = pairs
    assert torch.equal(measure(restored, clean), measure(restored.clamp(0, 1), clean))
    assert measure(restored.bfloat16(), clean.bfloat16()).dtype == torch.float32
    assert not measure(restored.requires_grad_(), clean).requires_grad


def test_the_same_image_is_perfect() -> None:
    clean = torch.rand(2, 1, 11, 12)
    assert psnr(clean, clean).tolist() == [float("inf")] * 2
    torch.testing.assert_close(ssim(clean, clean), torch.ones(2))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_refuses_other_shapes(measure) -> None:
    with pytest.raises(ValueError, match="one shape"):
        measure(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="one shape"):
        measure(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16))


def test_ssim_refuses_images_below_its_window() -> None:
    with pytest.raises(ValueError, match="11x11"):
        ssim(torch.zeros(1, 1, 10, 30), torch.zeros(1, 1, 10, 30))
