"""PSNR and SSIM per image against their equations and scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from spikingir.measures import psnr, ssim, visibility


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


def columns(*levels: tuple[int, int]) -> Tensor:
    """Stripes of so many columns at a level of 255 each, 20 rows high."""
    return torch.cat([torch.full((1, 20, width), level / 255) for width, level in levels], 2)


def test_descriptors_of_contrast_by_hand() -> None:
    """Two steps, of which one can be seen before (20 %) and both after; far enough from each other for all windows."""
    before = columns((24, 100), (24, 120), (24, 122))
    after = columns((24, 80), (24, 160), (24, 170))
    found = visibility(before, after)
    assert found.e == 1  # the pixels beside one step before, beside two after
    # the two pixels beside a step have the gradient 4 (b - a): 4 times as steep at the first, 5 at the second
    assert found.r == pytest.approx(math.sqrt(4 * 5))
    assert found.sigma == 0


@pytest.mark.parametrize(
    ("low", "high", "seen"), [(100, 105, False), (100, 106, True), (200, 210, False), (10, 12, True)]
)
def test_an_edge_is_visible_above_five_per_cent(low: int, high: int, seen: bool) -> None:
    """By hand: at 100 | 105 the best level is 102, 2/102 and 3/105; at 100 | 106 103: 3/103 and 3/106."""
    step = columns((20, low), (20, high))
    found = visibility(step.flip(2), step.transpose(1, 2).flip(1).transpose(1, 2))
    assert found.e == 0 if seen else math.isnan(found.e)
    assert found.r == pytest.approx(1) if seen else math.isnan(found.r)


def test_saturated_pixels_are_those_that_were_not_so_before() -> None:
    before = columns((10, 0), (10, 100), (10, 150), (10, 255))
    after = columns((10, 0), (10, 0), (10, 254), (5, 255), (5, 200))
    assert visibility(before, after).sigma == 0.25
    assert visibility(before, before - 1).sigma == 0.5  # what was white was lost before
    assert visibility(before, before).sigma == 0


def test_descriptors_are_of_luma_and_of_every_size() -> None:
    before, after = columns((24, 100), (24, 120)), columns((24, 80), (24, 160))
    gray = visibility(before, after)
    assert visibility(before.expand(3, -1, -1), after.expand(3, -1, -1)) == gray
    assert visibility(before.transpose(1, 2), after.transpose(1, 2)).r == pytest.approx(gray.r)
    assert math.isinf(visibility(columns((9, 100), (9, 101)), after[..., :18] * 0 + columns((9, 10), (9, 99))).e)
    tiny = visibility(torch.tensor([[[0.5]]]), torch.tensor([[[1.0]]]))
    assert (math.isnan(tiny.e), tiny.sigma) == (True, 1)
    with pytest.raises(ValueError, match="one shape"):
        visibility(before, after[..., 1:])


def test_haze_is_seen_by_the_descriptors() -> None:
    clean = columns((24, 60), (24, 180), (24, 120))
    hazy = 0.2 * clean + 0.8
    assert visibility(hazy, clean).e >= 0
    assert visibility(hazy, clean).r == pytest.approx(5, rel=0.05)
    assert visibility(clean, hazy).r < 1
