"""Noise and patches: a function of seed and number, nothing else."""

import numpy as np
import pytest
import torch

from spikingir.data.noise import NoisyPatches, add_gaussian_noise, sample_generator

IMAGES = [np.random.default_rng(i).integers(0, 256, (20, 30), np.uint8) for i in range(3)]


def test_a_sample_depends_on_seed_and_number_alone() -> None:
    first, again = NoisyPatches(IMAGES, 8, 25.0, seed=1), NoisyPatches(IMAGES, 8, 25.0, seed=1)
    for i in (7, 0, 3):
        for a, b in zip(first[i], again[i], strict=True):
            assert torch.equal(a, b)
    other = NoisyPatches(IMAGES, 8, 25.0, seed=2)
    assert not torch.equal(first[0][0], other[0][0])
    noises = torch.stack([(noisy - clean).flatten() for noisy, clean in (first[i] for i in range(50))])
    assert len(torch.unique(noises, dim=0)) == 50


def test_patches_are_turned_and_flipped_pieces_of_the_images() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    seen = {tuple(NoisyPatches([image], 4, 0.0)[i][1].mul(255).round().int().flatten().tolist()) for i in range(200)}
    assert len(seen) == 8
    assert all(sorted(patch) == list(range(16)) for patch in seen)


def test_noise_has_the_level_asked_for_and_is_not_clipped() -> None:
    clean = torch.ones(1, 200, 200)
    noisy = add_gaussian_noise(clean, 25, sample_generator(0, 0))
    assert (noisy - clean).std().item() * 255 == pytest.approx(25, rel=0.02)
    assert noisy.max() > 1.2
    clipped = add_gaussian_noise(clean, 25, sample_generator(0, 0), clip=True)
    assert torch.equal(clipped, noisy.clamp(0, 1))


def test_samples_of_a_fixed_level_are_drawn_in_the_order_that_trainings_resume_with() -> None:
    noisy, clean = NoisyPatches(IMAGES, 8, 25.0, seed=1)[5]
    generator = sample_generator(1, 5)
    which, flip, turns = (int(torch.randint(n, (), generator=generator)) for n in (3, 2, 4))
    top, left = (int(torch.randint(n - 7, (), generator=generator)) for n in (20, 30))
    patch = IMAGES[which][top : top + 8, left : left + 8]
    expected = torch.from_numpy(np.rot90(patch[:, ::-1] if flip else patch, turns).copy())[None].float() / 255
    assert torch.equal(clean, expected)
    assert torch.equal(noisy, clean + torch.randn(1, 8, 8, generator=generator) * (25 / 255))


def test_levels_of_a_range_are_uniform_in_it() -> None:
    samples = NoisyPatches([np.full((64, 64), 128, np.uint8)], 64, (10.0, 50.0))
    levels = torch.tensor([(noisy - clean).std().item() * 255 for noisy, clean in (samples[i] for i in range(200))])
    assert 9.5 < levels.min() < 12 < 48 < levels.max() < 52
    assert levels.mean().item() == pytest.approx(30, abs=2.5)
    assert all(torch.equal(a, b) for a, b in zip(samples[3], samples[3], strict=True))


def test_clipped_patches_are_the_same_ones_clipped() -> None:
    noisy, clipped = NoisyPatches(IMAGES, 8, 50.0), NoisyPatches(IMAGES, 8, 50.0, clip=True)
    for i in range(5):
        assert torch.equal(clipped[i][0], noisy[i][0].clamp(0, 1))
        assert torch.equal(clipped[i][1], noisy[i][1])


@pytest.mark.parametrize("sigma", [-1.0, (5.0, 4.0), (-1.0, 4.0), float("nan")])
def test_a_level_out_of_range_is_refused(sigma: float | tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="sigma is"):
        NoisyPatches(IMAGES, 8, sigma)


def test_a_patch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image 0 is \(20, 30\).*24x24"):
        NoisyPatches(IMAGES, 24, 25.0)
