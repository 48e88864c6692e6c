"""The haze model: its limits, published images made by it, and patches that are pieces of hazy scenes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from spikingir.data.haze import AIRLIGHT, AOD_DEPTH, BETAS, HazyPatches, add_haze, transmission
from spikingir.data.scenes import Scene


@pytest.fixture
def scene() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 5, 7, generator=generator), torch.rand(2, 5, 7, generator=generator) * 8


def test_model_is_its_equation(scene: tuple[Tensor, Tensor]) -> None:
    clean, depth = scene
    betas, lights = [0.6, 1.4], [0.8, 1.0]
    hazy = add_haze(clean, depth, torch.tensor(betas), torch.tensor(lights))
    for image, j, d, beta, light in zip(hazy, clean, depth, betas, lights, strict=True):
        t = torch.exp(-beta * d / d.max())
        torch.testing.assert_close(image, j * t + light * (1 - t))
        torch.testing.assert_close(image, add_haze(j, d, beta, light))


def test_limits(scene: tuple[Tensor, Tensor]) -> None:
    clean, depth = scene
    torch.testing.assert_close(add_haze(clean, depth, 0.0), clean)
    torch.testing.assert_close(add_haze(clean, depth + 1, 1e4, 0.7), torch.full_like(clean, 0.7))
    airlight = torch.full_like(clean, 0.9)
    torch.testing.assert_close(add_haze(airlight, depth, 1.0, 0.9), airlight)


def test_unit_of_depth_matters_with_a_farthest_one_alone(scene: tuple[Tensor, Tensor]) -> None:
    _, depth = scene
    torch.testing.assert_close(transmission(depth, 1.2), transmission(depth * 1000, 1.2))
    torch.testing.assert_close(transmission(depth, 1.6, AOD_DEPTH), torch.exp(-1.6 / 5.7 * depth))


def test_refuses_what_is_no_scene(scene: tuple[Tensor, Tensor]) -> None:
    clean, depth = scene
    with pytest.raises(ValueError, match="negative or infinite"):
        transmission(depth - 4, 1.0)
    with pytest.raises(ValueError, match="beta is -1"):
        transmission(depth, -1.0)
    with pytest.raises(ValueError, match="farthest depth is 0"):
        transmission(torch.zeros(4, 4), 1.0)
    with pytest.raises(ValueError, match="with a depth of"):
        add_haze(clean, depth[:, :4], 1.0)


@pytest.mark.data
def test_reside_made_its_images_so(data_root: Path) -> None:
    folder = data_root / "dehaze/sots_indoor"

    def read(path: Path) -> Tensor:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image, dtype=np.float32))

    for scene in ("1400", "1405", "1412"):
        published = next((folder / "hazy").glob(f"{scene}_*.png"))
        suffix = published.stem.split("_")[1]
        clean = read(folder / "gt" / f"{scene}.png").movedim(2, 0) / 255
        # the frame of NYU without its white border
        depth = read(folder / "depth" / f"{scene}.png")[10:470, 10:630]
        hazy = add_haze(clean, depth, 0.5 + 0.1 * int(suffix))
        assert (hazy * 255 - read(published).movedim(2, 0)).abs().max() < 1.5


@pytest.mark.data
def test_aod_net_made_its_images_by_depth_in_metres(data_root: Path) -> None:
    folder = data_root / "dehaze/aod_samples"
    for scene in ("102", "741"):
        read = [
            np.array(Image.open(folder / name), np.float32) for name in (f"0{scene}_clean.jpg", f"0{scene}_depth.png")
        ]
        clean, depth = torch.from_numpy(read[0]).movedim(2, 0) / 255, torch.from_numpy(read[1]) / 1000
        published = torch.from_numpy(np.array(Image.open(folder / f"NYU2_{scene}_7_2.jpg"))).movedim(2, 0) / 255
        errors = [
            (add_haze(clean, depth, 1.6, 0.9, far) - published).square().mean().sqrt() for far in (AOD_DEPTH, None)
        ]
        assert errors[0] * 255 < 4 < 20 < errors[1] * 255


def coordinates(side: int, top: int) -> Scene:
    """A scene whose red and green tell row and column of each pixel, and whose blue tells which scene it is."""
    rows, columns = np.mgrid[:side, : side + 5].astype(np.uint8)
    depth = np.random.default_rng(top).integers(1, top, rows.shape).astype(np.uint16)
    depth[-1, -1] = top
    return Scene(f"up to {top}", np.stack([rows, columns, np.full_like(rows, top)], 2), depth, unit=0.01)


@pytest.mark.parametrize("farthest", [None, AOD_DEPTH])
def test_patches_are_pieces_of_hazy_scenes(farthest: float | None) -> None:
    scenes = {top: coordinates(20, top) for top in (100, 200)}
    patches = HazyPatches(list(scenes.values()), 8, farthest=farthest)
    seen: dict[str, set[float]] = {"scene": set(), "top": set(), "left": set(), "mirrored": set(), "beta": set()}
    lights = []
    for i in range(300):
        hazy, clean = patches[i]
        assert hazy.shape == clean.shape == (3, 8, 8)
        levels = (clean * 255).round().int()
        scene = scenes[levels[2, 0, 0].item()]
        mirrored = bool(levels[1, 0, 0] > levels[1, 0, -1])
        if mirrored:
            hazy, clean, levels = hazy.flip(-1), clean.flip(-1), levels.flip(-1)
        top, left = levels[0, 0, 0].item(), levels[1, 0, 0].item()
        part = slice(top, top + 8), slice(left, left + 8)
        assert torch.equal(clean, scene.clean(*part))
        # of the seven coefficients one alone leaves the same airlight at every pixel
        t = torch.stack([transmission(scene.depth(), beta, farthest)[part] for beta in BETAS])[:, None]
        light = (hazy - clean * t) / (1 - t)
        spread = light.std((1, 2, 3))
        which = int(spread.argmin())
        assert spread[which] < 1e-3
        lights.append(light[which].mean().item())
        for key, value in zip(seen, (scene.farthest, top, left, mirrored, BETAS[which]), strict=True):
            seen[key].add(value)
    assert [len(values) for values in seen.values()] == [2, 13, 18, 2, 7]
    assert AIRLIGHT[0] - 1e-3 < min(lights) < 0.62 < 0.98 < max(lights) < AIRLIGHT[1] + 1e-3
    assert np.mean(lights) == pytest.approx(0.8, abs=0.03)


def test_a_hazy_sample_depends_on_seed_and_number_alone() -> None:
    scenes = [coordinates(20, top) for top in (100, 200)]
    first, again, other = (HazyPatches(scenes, 8, seed=seed) for seed in (1, 1, 2))
    for i in (7, 0, 3):
        assert all(torch.equal(a, b) for a, b in zip(first[i], again[i], strict=True))
        assert not torch.equal(first[i][0], other[i][0])


def test_a_hazy_patch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scene up to 9 is \(20, 25\).*24x24"):
        HazyPatches([coordinates(20, 9)], 24)
