"""Haze as photographs have it: the model's equation, patches without haze, the sky of outdoor scenes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.errors import DataError
from spikingir.data.noise import sample_generator
from spikingir.data.outdoor import list_outdoor, sky_mask
from spikingir.data.real_haze import RealHazePatches
from spikingir.data.scenes import Scene


def scene(name: str, unit: float, level: int) -> Scene:
    """A plain scene of one colour whose depth grows from left to right."""
    image = np.full((40, 60, 3), level, np.uint8)
    depth = np.tile(np.linspace(1, 255, 60).astype(np.uint8), (40, 1))
    return Scene(name, image, depth, unit)


def patches(**options: object) -> RealHazePatches:
    return RealHazePatches([scene("in", 0.039, 60)], [scene("out", 1 / 255, 61)], 16, **options)


def test_a_hazy_patch_depends_on_seed_and_number_alone() -> None:
    first, again, other = patches(seed=1), patches(seed=1), patches(seed=2)
    for i in (7, 0, 3):
        assert all(torch.equal(a, b) for a, b in zip(first[i], again[i], strict=True))
    assert any(not torch.equal(first[i][0], other[i][0]) for i in range(4))
    assert all(part.shape == (3, 16, 16) and part.dtype == torch.float32 for part in first[0])


def test_one_patch_in_eight_is_its_own_target() -> None:
    samples = [patches()[i] for i in range(400)]
    identity = sum(torch.equal(hazy, clean) for hazy, clean in samples)
    assert identity / 400 == pytest.approx(1 / 8, abs=0.05)
    assert all(hazy.min() >= 0 and hazy.max() <= 1 for hazy, _ in samples)


def test_the_haze_is_its_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a plain scene ``(A - I) / (A - J) = exp(-beta d)``, of one ``beta`` and one ``A`` for each colour."""
    monkeypatch.setattr("spikingir.data.real_haze._NOISY", 0)
    monkeypatch.setattr("spikingir.data.real_haze.as_file", lambda image, generator, jpeg: image)
    monkeypatch.setattr("spikingir.data.real_haze._SMALLEST", 1.0)
    betas, lights = [], []
    seen: list[tuple[torch.Tensor, float, float]] = []

    def transmission(depth: torch.Tensor, beta: float, farthest: float) -> torch.Tensor:
        seen.append((depth, beta, farthest))
        return torch.exp(-beta * depth / farthest)

    monkeypatch.setattr("spikingir.data.real_haze.transmission", transmission)
    farthest = set()
    for i in range(200):
        seen.clear()
        hazy, clean = patches(beta=2.5)[i]
        if torch.equal(hazy, clean):
            continue
        depth, beta, far = seen[0]
        t = torch.exp(-beta * depth / far)
        # of each colour an airlight that is the same at every pixel
        airlight = (hazy - clean * t) / (1 - t)
        assert airlight.flatten(1).std(1).max() < 2e-3
        lights.append(airlight.mean((1, 2)))
        betas.append(beta)
        farthest.add(round(far, 3))
        assert clean.flatten(1).std(1).max() < 1e-5
    assert farthest == {1.0, 5.7, round(scene("in", 0.039, 60).farthest, 3)}
    assert 0.3 <= min(betas) < 0.5 < 2.2 < max(betas) <= 2.5
    mean = torch.stack(lights).mean(1)
    assert 0.24 < mean.min() < 0.5 < 0.9 < mean.max() <= 1
    cast = torch.stack(lights).std(1)
    assert 0.005 < cast.mean() < 0.04


def test_a_share_of_the_indoor_haze_is_as_reside_makes_it() -> None:
    """A gray airlight of 1 or in [0.7, 1], beta in [0.6, 1.8], the scene as it is; other patches stay as they are."""
    indoor = scene("in", 0.039, 60)
    reside, without = (
        RealHazePatches([indoor], [scene("out", 1 / 255, 61)], 16, reside=share, airlight=(0.25, 0.6))
        for share in (1.0, 0.0)
    )
    lights = []
    for i in range(200):
        (hazy, clean), (hazy_before, clean_before) = reside[i], without[i]
        inside = int(torch.randint(2, (), generator=sample_generator(0, i))) == 0
        if not inside or torch.equal(hazy, clean):
            continue
        assert torch.allclose(clean, torch.tensor(60 / 255), atol=1e-6)
        assert torch.equal(hazy[0], hazy[1])
        assert torch.equal(hazy[1], hazy[2])
        assert not torch.equal(hazy, hazy_before)
        lights.append(float(hazy.max()))
        assert clean_before.shape == clean.shape
    assert len(lights) > 60
    assert max(lights) > 0.62  # of an airlight above the others'
    as_ever = patches(airlight=(0.25, 0.6))
    assert all(torch.equal(without[i][0], as_ever[i][0]) for i in range(8))


def test_brightness_of_half_the_patches_changes() -> None:
    levels = [round(float(patches()[i][1].mean() * 255), 2) for i in range(200)]
    same = sum(level in (60, 61) for level in levels)
    assert 70 < same < 130
    assert min(levels) < 40 < 80 < max(levels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"airlight": (0.5, 1.5)}, "airlight is"),
        ({"airlight": (0.9, 0.5)}, "airlight is"),
        ({"beta": 1.0}, "beta is 1.0"),
        ({"reside": 1.5}, "reside is 1.5; expected a share"),
    ],
)
def test_ranges_out_of_order_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patches(**options)


def test_a_scene_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scene in is \(40, 60\).*48x48"):
        RealHazePatches([scene("in", 1.0, 60)], [], 48)


def landscape() -> np.ndarray:
    """Bright sky above textured ground, and a bright plain lake below it that touches no sky."""
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)
    image[:40] = (190, 200, 230)
    image[70:] = (200, 210, 220)
    return image


def test_sky_is_what_is_bright_and_smooth_and_connected_to_the_top() -> None:
    pytest.importorskip("scipy")
    mask = sky_mask(landscape())
    assert mask.shape == (90, 80)
    assert (mask[:30] == 1).all()
    assert (mask[50:] == 0).all()
    assert ((mask >= 0) & (mask <= 1)).all()
    assert (sky_mask(landscape() // 3) == 0).all()


def test_outdoor_scenes_are_read_with_the_sky_set_to_far(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    for folder in ("rgb", "depth"):
        (tmp_path / folder).mkdir()
    Image.fromarray(landscape()).save(tmp_path / "rgb" / "0001.png")
    Image.fromarray(np.full((45, 40), 51, np.uint8)).save(tmp_path / "depth" / "0001.png")
    (files,) = list_outdoor(tmp_path)
    assert files.name == "0001"
    read = files.read()
    depth = read.depth()
    assert depth.shape == (90, 80)
    torch.testing.assert_close(depth[:30], torch.ones(30, 80))
    torch.testing.assert_close(depth[50:], torch.full((40, 80), 0.2))
    Image.fromarray(np.full((45, 40), 51, np.uint16)).save(tmp_path / "depth" / "0001.png")
    with pytest.raises(DataError, match="expected relative depth in 8 bits"):
        files.read()
