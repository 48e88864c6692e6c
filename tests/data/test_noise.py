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


def test_a_patch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image 0 is \(20, 30\).*24x24"):
        NoisyPatches(IMAGES, 24, 25.0)
