"""Noise of cameras: its statistics, files, which photographs are trained on, and patches that their number decides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.camera import (
    CameraCurves,
    Patch,
    add_camera_noise,
    add_sensor_noise,
    as_file,
    read_curves,
)
from spikingir.data.errors import DataError
from spikingir.data.noise import sample_generator
from spikingir.data.photographs import PhotographPatches
from spikingir.data.polyu import list_polyu, read_polyu

POINTS = np.linspace(0, 1, 50, dtype=np.float32)
CURVES = CameraCurves(np.stack([POINTS, POINTS]), np.stack([POINTS, POINTS**0.5]))


def smooth_images(count: int = 4) -> list[np.ndarray]:
    """Images without detail, so that what JPEG does to detail is no part of the statistics."""
    generator = np.random.default_rng(0)
    coarse = [generator.integers(20, 236, (3, 4, 3), np.uint8) for _ in range(count)]
    return [np.asarray(Image.fromarray(c).resize((96, 80), Image.Resampling.BICUBIC)) for c in coarse]


def pairs(count: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs that a patch tells its place of, of equal brightness; blue is one level off everywhere, up and down."""
    rows, columns = np.mgrid[:80, :96].astype(np.uint8)
    found = []
    for k in range(count):
        blue = np.full_like(rows, 2 * k + 1)
        noisy, clean = (np.stack([rows, columns, b], 2) for b in (2 * k + 2 * ((rows + columns) % 2), blue))
        found.append((noisy, clean))
    return found


def correlation(field: Patch, distance: int) -> float:
    """Autocorrelation of a field of zero mean along rows and columns."""
    products = (field[distance:] * field[:-distance]).mean(), (field[:, distance:] * field[:, :-distance]).mean()
    return float(np.mean(products) / np.square(field).mean())


def luminance_and_chroma(noise: Patch) -> tuple[Patch, Patch]:
    luminance = 0.299 * noise[0] + 0.587 * noise[1] + 0.114 * noise[2]
    return luminance, 0.564 * (noise[2] - luminance)


def test_camera_noise_is_correlated_as_polyus_is() -> None:
    """As on PolyU: std of 3.3 to 4.3 levels, luminance .5 to .68 at one pixel, chroma .9 and .6 at 1 and 4."""
    found = []
    clean = np.full((3, 64, 64), 0.5, np.float32)
    for i in range(300):
        noisy, target = add_camera_noise(clean, sample_generator(0, i), smooth=False)
        assert target is clean
        luminance, chroma = luminance_and_chroma((noisy - clean) * 255)
        found.append(
            [(noisy - clean).std() * 255]
            + [correlation(luminance, k) for k in (1, 2, 4)]
            + [correlation(chroma, k) for k in (1, 4, 8)]
        )
    std, *rest = np.median(found, axis=0)
    assert 2 < std < 6
    near, further, far, chroma_near, chroma_further, chroma_far = rest
    assert 0.4 < near < 0.75
    assert 0.05 < further < 0.4
    assert abs(far) < 0.2
    assert 0.85 < chroma_near < 0.99
    assert 0.4 < chroma_further < 0.75
    assert 0.05 < chroma_far < 0.4
    strengths = np.array(found)[:, 0]
    assert strengths.min() < 1 < 10 < strengths.max()


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_strength_scales_camera_noise(strength: float) -> None:
    clean = np.full((3, 16, 18), 0.5, np.float32)
    whole = add_camera_noise(clean, sample_generator(0, 1), smooth=False)[0] - clean
    part = add_camera_noise(clean, sample_generator(0, 1), strength, smooth=False)[0] - clean
    np.testing.assert_allclose(part, strength * whole, atol=1e-6)


def test_a_smoothing_camera_blurs_both_images() -> None:
    clean = np.zeros((3, 32, 32), np.float32)
    clean[:, 16:] = 1
    changed = 0
    for i in range(200):
        _, target = add_camera_noise(clean, sample_generator(0, i))
        if target is not clean:
            changed += 1
            assert 1e-4 < target[0, 15, 5] < 0.5
            np.testing.assert_allclose(target[:, 0], 0, atol=1e-6)  # at the border the kernel's weights sum to 1
            np.testing.assert_allclose(target[:, -1], 1, atol=1e-6)
    assert 0.2 < changed / 200 < 0.4


def test_sensor_noise_has_the_variance_of_light_and_of_reading() -> None:
    """With a linear curve: in each mosaic's own pixels ``sigma_s^2 L + sigma_c^2``."""
    linear = CameraCurves(POINTS[None], POINTS[None])
    for i in range(40):
        dark, bright = (np.full((3, 64, 64), light, np.float32) for light in (0.2, 0.5))
        generator = sample_generator(0, i)
        shot, read, smoothing, *_ = torch.rand(6, generator=generator).tolist()
        shot, read = 0.16 * shot**2, 0.06 * read**1.5
        if smoothing < 0.3 or shot**2 + read**2 < 1e-4 or shot > 0.1:  # blurred, too faint, or clipped
            continue
        for clean in (dark, bright):
            noise = add_sensor_noise(clean, linear, sample_generator(0, i)) - clean
            own = max(noise[0, r::2, c::2].std() for r in (0, 1) for c in (0, 1))
            expected = (shot**2 * clean[0, 0, 0] + read**2) ** 0.5
            assert own == pytest.approx(expected, rel=0.12)
            # between its own pixels red is a mean of two or four of them
            assert min(noise[0, r::2, c::2].std() for r in (0, 1) for c in (0, 1)) == pytest.approx(own / 2, rel=0.25)


def test_a_sensor_without_light_or_noise_gives_the_image_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn", lambda shape, generator: torch.zeros(shape))
    clean = np.random.default_rng(0).random((3, 16, 16), np.float32)
    for i in range(8):
        np.testing.assert_allclose(add_sensor_noise(clean, CURVES, sample_generator(0, i)), clean, atol=2e-3)


def test_files_are_8_bits_or_jpeg() -> None:
    image = smooth_images()[0].transpose(2, 0, 1).astype(np.float32) / 255
    same = as_file(image, sample_generator(0, 0), jpeg=0)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(as_file(image + 3, sample_generator(0, 0), jpeg=0), 1)
    files = [as_file(image, sample_generator(0, i), jpeg=1) for i in range(40)]
    errors = [np.abs(file - image).mean() * 255 for file in files]
    assert 0.1 < min(errors) < max(errors) < 8
    assert len({round(float(error), 4) for error in errors}) > 20  # of many qualities
    mixed = [np.array_equal(as_file(image, sample_generator(1, i), jpeg=0.5), image) for i in range(100)]
    assert 30 < sum(mixed) < 70


def test_a_patch_depends_on_seed_and_number_alone() -> None:
    first, again = (PhotographPatches(smooth_images(), CURVES, 32, 1, pairs()) for _ in range(2))
    other = PhotographPatches(smooth_images(), CURVES, 32, 2, pairs())
    for i in (7, 0, 3):
        assert all(torch.equal(a, b) for a, b in zip(first[i], again[i], strict=True))
    assert sum(torch.equal(first[i][0], other[i][0]) for i in range(20)) == 0
    assert all(part.shape == (3, 32, 32) and part.dtype == torch.float32 for part in first[0])
    assert all(noisy.min() >= 0 and noisy.max() <= 1 for noisy, _ in (first[i] for i in range(20)))


def test_one_patch_in_eight_has_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"sensor": 0, "camera": 0}

    def sensor(clean: Patch, curves: CameraCurves, generator: torch.Generator) -> Patch:
        calls["sensor"] += 1
        return clean + 0.2

    def camera(clean: Patch, generator: torch.Generator) -> tuple[Patch, Patch]:
        calls["camera"] += 1
        return clean + 0.2, clean

    monkeypatch.setattr("spikingir.data.photographs.add_sensor_noise", sensor)
    monkeypatch.setattr("spikingir.data.photographs.add_camera_noise", camera)
    count = 800
    patches = PhotographPatches(smooth_images(), CURVES, 16, real=0.25, pairs=pairs())
    samples = [patches[i] for i in range(count)]
    real = sum(bool((noisy[2] - clean[2]).mul(255).round().abs().eq(1).all()) for noisy, clean in samples)
    assert real / count == pytest.approx(0.25, abs=0.05)
    without = count - real - calls["sensor"] - calls["camera"]
    assert without / count == pytest.approx(1 / 8, abs=0.03)
    assert calls["sensor"] / (calls["sensor"] + calls["camera"]) == pytest.approx(0.3, abs=0.06)
    unchanged = sum(torch.equal(noisy, clean) for noisy, clean in samples)
    assert unchanged / without == pytest.approx(0.5, abs=0.15)  # the others are JPEG
    assert max(float((noisy - clean).abs().mean()) for noisy, clean in samples) < 0.25


def test_real_patches_are_pieces_of_a_pair_on_the_blocks_of_jpeg() -> None:
    patches = PhotographPatches(smooth_images(), CURVES, 16, real=7 / 8, pairs=pairs())
    places = set()
    for i in range(300):
        noisy, clean = ((part * 255).round().int() for part in patches[i])
        if not (noisy[2] - clean[2]).abs().eq(1).all():
            continue
        assert torch.equal(noisy[:2], clean[:2])
        axis = 0 if clean[0].float().var(1).max() == 0 else 1  # a turn changes rows into columns
        rows, columns = (clean[0], clean[1]) if axis == 0 else (clean[0].T, clean[1].T)
        assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 15
        assert int(rows.min()) % 8 == int(columns.min()) % 8 == 0
        places.add((int(rows.min()), int(columns.min())))
    assert len(places) > 30


def test_a_clean_photograph_of_another_exposure_is_made_as_bright() -> None:
    """What is left to learn from a real pair has no mean, in any channel."""
    (noisy, clean), *_ = pairs(1)
    brighter = clean + np.array([3, 9, 6], np.uint8)
    patches = PhotographPatches(smooth_images(), CURVES, 16, real=7 / 8, pairs=[(noisy, brighter)])
    plain = PhotographPatches(smooth_images(), CURVES, 16, real=7 / 8, pairs=[(noisy, clean)])
    for i in range(40, 60):
        if torch.rand(2, generator=sample_generator(0, i))[0] < 1 - 7 / 8:
            continue
        assert torch.allclose(patches[i][1], plain[i][1], atol=1e-6)
        assert torch.equal(patches[i][0], plain[i][0])
        assert torch.allclose(patches[i][0].mean((1, 2)), patches[i][1].mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "has an even side"),
        ({"size": 90}, r"image 0 is \(80, 96, 3\)"),
        ({"real": 0.95, "pairs": pairs()}, "expected shares"),
        ({"sensor": -0.1}, "expected shares"),
        ({"real": 0.5}, "there are no pairs"),
    ],
)
def test_patches_that_cannot_be_made_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhotographPatches(smooth_images(), CURVES, **{"size": 16, "real": 0.0, **options})


def polyu(tmp_path: Path) -> Path:
    for i, name in enumerate(["Canon80D_8_ball_1", "Sony_3-5_door_1", "Sony_3-5_door_2", "NikonD800_5_wall_1"]):
        for kind in ("noisy", "clean"):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(tmp_path / kind / f"{name}.png")
    return tmp_path


def test_cameras_are_listed_and_left_out(tmp_path: Path) -> None:
    folder = polyu(tmp_path)
    assert {camera: len(files) for camera, files in list_polyu(folder).items()} == {
        "Canon80D": 1,
        "NikonD800": 1,
        "Sony": 2,
    }
    assert sorted(int(noisy[0, 0, 0]) for noisy, _ in read_polyu(folder, without=("Sony",))) == [0, 30]
    assert [int(noisy[0, 0, 0]) for noisy, _ in read_polyu(folder, cameras=("Sony",))] == [10, 20]
    with pytest.raises(DataError, match="no camera 'Soni'; it has Canon80D, NikonD800, Sony"):
        read_polyu(folder, without=("Soni",))
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(folder / "clean" / "Sony_3-5_door_1.png")
    with pytest.raises(DataError, match=r"Sony_3-5_door_1\.png and .* differ in size"):
        read_polyu(folder)


def test_curves_are_read_from_their_file_and_undone(tmp_path: Path) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    savemat(tmp_path / "201_CRF_data.mat", {"I": CURVES.irradiance, "B": CURVES.brightness})
    curves = read_curves(tmp_path)
    assert len(curves) == 2
    values = np.linspace(0.2, 1, 7, dtype=np.float32)
    np.testing.assert_allclose(curves.expose(1, values), values**0.5, atol=1e-2)
    np.testing.assert_allclose(curves.expose(1, curves.invert(1, values)), values, atol=1e-3)
    savemat(tmp_path / "201_CRF_data.mat", {"I": CURVES.irradiance})
    with pytest.raises(DataError, match="holds no B"):
        read_curves(tmp_path)
    (tmp_path / "201_CRF_data.mat").write_text("no such file")
    with pytest.raises(DataError, match="copy it again"):
        read_curves(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        read_curves(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("brightness", "message"),
    [(POINTS[None, ::-1], "falls somewhere"), (POINTS[None, :9], "expected two of one shape")],
)
def test_curves_that_are_none_are_refused(brightness: Patch, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CameraCurves(POINTS[None], brightness)
