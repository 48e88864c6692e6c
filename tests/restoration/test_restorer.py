"""A photograph comes back in the form it came in, restored by the network that was asked for."""

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import spikingir
from spikingir.conversion.convert import convert
from spikingir.energy.paper import ann_energy, paper_energy
from spikingir.errors import InputError
from spikingir.graph.errors import TilingError
from spikingir.inputs import with_level
from spikingir.networks import AODNet
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.photo.photo import Photo
from spikingir.restoration import restorer as restorer_module
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.network import SpikingNetwork
from spikingir.store import StorageError
from spikingir.zoo.catalogue import ModelError, model_names

H, W = 13, 18


@pytest.fixture(scope="module")
def restorer(tiny_model: Path) -> Restorer:
    return Restorer.from_pretrained(tiny_model, tile=8)


@pytest.fixture(scope="module")
def gray() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (H, W), dtype=np.uint8)


@pytest.fixture(scope="module")
def rgb() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (H, W, 3), dtype=np.uint8)


def expected(restorer: Restorer, samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the network itself gives for each channel."""
    planes = torch.from_numpy(samples.reshape(H, W, -1)).permute(2, 0, 1)[:, None].float() / 255
    restored = (restorer.network(planes).clamp(0, 1) * 255).round().to(torch.uint8)
    return restored[:, 0].permute(1, 2, 0).numpy().reshape(samples.shape)


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_arrays(restorer: Restorer, gray: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> None:
    for samples in (gray, gray[..., None], rgb):
        before = samples.copy()
        restored = restorer(samples)
        assert restored.dtype == np.uint8
        assert np.array_equal(restored, expected(restorer, samples))
        assert np.array_equal(samples, before)
    assert not np.array_equal(restorer(gray), gray)


def test_array_views_and_read_only_arrays(restorer: Restorer, rgb: NDArray[np.uint8]) -> None:
    view = rgb[::-1, ::-1]
    assert np.array_equal(restorer(view), restorer(view.copy()))
    fixed = (rgb / 255).astype(np.float32)
    fixed.flags.writeable = False
    restorer(fixed)


@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64])
def test_types_of_arrays(restorer: Restorer, gray: NDArray[np.uint8], dtype: type) -> None:
    whole = np.issubdtype(dtype, np.integer)
    samples = gray.astype(dtype) * 257 if whole else (gray / 255).astype(dtype)
    restored = restorer(samples)
    assert restored.dtype == dtype
    assert restored.shape == samples.shape
    values = restored / 65535 if whole else restored.clip(0, 1)
    assert np.abs(np.rint(values * 255) - expected(restorer, gray)).max() <= 1


def test_floating_point_is_not_clipped(restorer: Restorer) -> None:
    noisy = np.full((H, W), 1.0, np.float32) + np.random.default_rng(0).normal(0, 0.1, (H, W)).astype(np.float32)
    assert restorer(noisy).max() > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("shape", [(1, H, W), (3, H, W), (2, 1, H, W), (2, 3, H, W)])
def test_tensors(restorer: Restorer, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    image = (values * 255).round().to(dtype) if dtype == torch.uint8 else values.to(dtype)
    restored = restorer(image)
    assert (restored.shape, restored.dtype) == (image.shape, dtype)
    planes = image.reshape(-1, 1, H, W)
    planes = planes.float() / 255 if dtype == torch.uint8 else planes
    wanted = restorer.network(planes if dtype == torch.float64 else planes.float()).reshape(shape)
    wanted = (wanted.clamp(0, 1) * 255).round() if dtype == torch.uint8 else wanted
    assert torch.equal(restored, wanted.to(dtype))


def test_pillow_images(restorer: Restorer, gray: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> None:
    for samples, mode in ((gray, "L"), (rgb, "RGB")):
        restored = restorer(Image.fromarray(samples))
        assert restored.mode == mode
        assert np.array_equal(np.asarray(restored), expected(restorer, samples))
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    assert restorer(deep).mode == "I;16"


def test_bytes_give_a_png(restorer: Restorer, rgb: NDArray[np.uint8]) -> None:
    restored = restorer(png(Image.fromarray(rgb)))
    assert restored.startswith(b"\x89PNG")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(restored))), expected(restorer, rgb))


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_give_a_pillow_image(
    restorer: Restorer, rgb: NDArray[np.uint8], tmp_path: Path, kind: Callable[[Path], Any]
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    content = path.read_bytes()
    restored = restorer(kind(path))
    assert np.array_equal(np.asarray(restored), expected(restorer, rgb))
    assert path.read_bytes() == content


def test_photos_keep_what_they_carry(restorer: Restorer, rgb: NDArray[np.uint8]) -> None:
    photo = Photo((rgb / 255).astype(np.float32), np.full((H, W), 0.25, np.float32), 16, b"exif", b"icc")
    restored = restorer(photo)
    assert (restored.bits, restored.exif, restored.icc) == (16, b"exif", b"icc")
    assert np.array_equal(restored.alpha, photo.alpha)


def test_metadata_of_a_file_is_kept(restorer: Restorer, rgb: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    restored = Image.open(io.BytesIO(restorer(png(Image.fromarray(rgb), exif=exif))))
    assert restored.getexif()[0x010E] == "a description"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colours", [1, 3])
def test_alpha_goes_around_the_network(restorer: Restorer, dtype: type, colours: int) -> None:
    samples = np.random.default_rng(2).random((H, W, colours + 1))
    samples = (
        (samples * np.iinfo(dtype).max).astype(dtype) if np.issubdtype(dtype, np.integer) else samples.astype(dtype)
    )
    restored = restorer(samples)
    assert np.array_equal(restored[..., -1], samples[..., -1])
    assert np.array_equal(restored[..., :-1], restorer(np.ascontiguousarray(samples[..., :-1])))
    tensor = torch.from_numpy(samples.astype(np.float32)).permute(2, 0, 1) / float(samples.max())
    assert torch.equal(restorer(tensor)[-1], tensor[-1])


def test_alpha_of_pillow_images(restorer: Restorer, rgb: NDArray[np.uint8]) -> None:
    rgba = Image.fromarray(np.dstack([rgb, np.arange(H * W, dtype=np.uint8).reshape(H, W)]))
    restored = restorer(rgba)
    assert restored.mode == "RGBA"
    assert np.array_equal(np.asarray(restored)[..., 3], np.asarray(rgba)[..., 3])


def test_network_for_colour() -> None:
    network = Restorer(convert(AODNet().eval(), torch.rand(1, 3, 16, 16), time_steps=2))
    colour = torch.rand(3, H, W)
    assert torch.equal(network(colour), network.network(colour[None])[0])
    gray = torch.rand(1, H, W)
    assert torch.equal(network(gray), network.network(gray.expand(1, 3, H, W))[0].mean(0, keepdim=True))
    assert network(torch.rand(4, H, W)).shape == (4, H, W)


def test_sizes_that_the_stride_does_not_divide() -> None:
    body = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.PixelShuffle(4))
    restored = Restorer(convert(body, torch.rand(1, 1, 16, 16)))(torch.rand(1, H, W))
    assert restored.shape == (1, H, W)


@pytest.mark.parametrize("tile", [0, 20.5])
def test_a_tile_that_is_no_number_of_pixels_is_refused(tiny_model: Path, tile: Any) -> None:
    with pytest.raises(InputError, match=f"tile is {tile}; expected a whole number"):
        Restorer.from_pretrained(tiny_model, tile=tile)


def test_tiles_do_not_show(tiny_model: Path, rgb: NDArray[np.uint8]) -> None:
    assert np.array_equal(Restorer.from_pretrained(tiny_model, tile=5)(rgb), Restorer.from_pretrained(tiny_model)(rgb))


def test_trace(restorer: Restorer, tiny_model: Path, rgb: NDArray[np.uint8]) -> None:
    progress: list[tuple[int, int]] = []
    restored, result = restorer.trace(rgb, progress=lambda *counts: progress.append(counts))
    assert np.array_equal(restored, restorer(rgb))
    assert progress[-1] == (18, 18)  # 2 x 3 tiles of three channels
    planes = torch.from_numpy(rgb).permute(2, 0, 1)[:, None].float() / 255
    _, whole = restorer.network.trace(planes)
    energy = paper_energy(restorer.network, whole)
    assert result.spikes == sum(int(layer.spikes.sum()) for layer in whole.layers)
    assert result.spikes > 0
    assert result.spikes_per_neuron == pytest.approx(whole.spikes_per_neuron)
    assert result.snn_mj == pytest.approx(3 * energy.snn_mj)
    assert result.ann_mj == pytest.approx(3 * ann_energy(restorer.network, (H, W)))
    assert result.seconds > 0
    steps = Restorer.from_pretrained(tiny_model, time_steps=1).trace(rgb)[1].trace.layers[0].spikes
    assert len(steps) == 1 + 1


def test_where_models_are_found(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(1, H, W)
    wanted = Restorer.from_pretrained(tiny_model)(image)
    assert torch.equal(Restorer.from_pretrained(str(tiny_model / "snn.safetensors"))(image), wanted)
    (tmp_path / "unfinished").mkdir()
    shutil.copytree(tiny_model, tmp_path / "denoise-tiny")
    variants = {"snn.safetensors": {"schedule": "clocked", "time_steps": 3}}
    config = {"name": "denoise-tiny", "task": "denoise", "channels": 1, "variants": variants}
    (tmp_path / "denoise-tiny" / "config.json").write_text(json.dumps({**config, "default": "snn.safetensors"}))
    monkeypatch.setattr("spikingir.zoo.catalogue.SHIPPED", tmp_path)
    assert model_names() == ["denoise-tiny"]
    assert torch.equal(Restorer.from_pretrained("denoise-tiny")(image), wanted)
    with pytest.raises(ModelError, match="did you mean denoise-tiny"):
        Restorer.from_pretrained("denoise-tin")
    monkeypatch.setattr("spikingir.zoo.catalogue.SHIPPED", tmp_path / "nowhere")
    assert model_names() == []


def test_models_that_ship_load() -> None:
    for name in model_names():
        assert Restorer.from_pretrained(name).network.config.channels in (1, 3)


def test_models_that_are_none(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'nothing'.*that ship"):
        Restorer.from_pretrained("nothing")
    with pytest.raises(ModelError, match=r"holds no snn\.safetensors"):
        Restorer.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="time_steps is 0"):
        Restorer.from_pretrained(tiny_model, time_steps=0)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((tiny_model / "snn.safetensors").read_bytes()[:-100])
    with pytest.raises(StorageError, match="cannot be read"):
        Restorer.from_pretrained(broken)


def spiking(body: nn.Module) -> SpikingNetwork:
    return convert(body, torch.rand(1, 1, 16, 16), time_steps=2)


def test_networks_that_no_restorer_runs() -> None:
    for stride, after, made in [(1, nn.Conv2d(4, 1, 3), "60 x 60"), (2, nn.Conv2d(4, 1, 3, padding=1), "31 x 31")]:
        with pytest.raises(
            ModelError, match=f"makes .*{made} pixels of 1 channel of 64 x 64 pixels; expected the same"
        ):
            Restorer(spiking(nn.Sequential(nn.Conv2d(1, 4, 3, stride), nn.ReLU(), after)))
    with pytest.raises(TypeError, match=r"expected a SpikingNetwork.*got a Sequential"):
        Restorer(nn.Sequential())  # type: ignore[arg-type]
    with pytest.raises(TilingError):
        Restorer(spiking(nn.Sequential(nn.CircularPad2d(1), nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 1))))


@pytest.mark.parametrize(
    ("image", "error", "match"),
    [
        (None, TypeError, "NoneType"),
        ([[0.5]], TypeError, "list"),
        (np.zeros((2, 2, 2, 2), np.uint8), ValueError, r"\(H, W, C\)"),
        (np.zeros((0, 4), np.uint8), ValueError, r"\(0, 4\)"),
        (np.zeros((4, 4), np.int32), ValueError, "int32"),
        (np.zeros((4, 4), bool), ValueError, "bool"),
        (np.zeros((4, 4, 5), np.uint8), ValueError, "5 channels"),
        (np.full((4, 4), 200.0), ValueError, r"200.*\[0, 1\]"),
        (np.full((4, 4), math.nan), ValueError, "nan"),
        (torch.zeros(4, 4), ValueError, r"\(C, H, W\)"),
        (torch.zeros(1, 0, 4), ValueError, "shape"),
        (torch.zeros(1, 4, 4, dtype=torch.int64), ValueError, "int64"),
        (torch.full((1, 4, 4), math.inf), ValueError, "inf"),
        (b"no image", spikingir.ImageError, "no image of a known format"),
    ],
)
def test_what_is_no_image(restorer: Restorer, image: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        restorer(image)


def test_network_for_other_channels() -> None:
    two = convert(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()), torch.rand(1, 2, 16, 16))
    network = Restorer(two)
    assert network(torch.rand(2, H, W)).shape == (2, H, W)
    with pytest.raises(ModelError, match="images of 2 channels; this one has 3"):
        network(torch.rand(3, H, W))


def test_photographs_too_small_to_be_reflected() -> None:
    reflecting = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Conv2d(4, 1, 1))
    network = Restorer(spiking(reflecting))
    assert network(torch.rand(1, 2, 5)).shape == (1, 2, 5)
    with pytest.raises(ModelError, match="the image is 5 x 1, too small for this network"):
        network(torch.rand(1, 1, 5))


def test_state_never_leaks(restorer: Restorer) -> None:
    first, second = torch.rand(1, H, W), torch.rand(1, H, W)
    alone: Tensor = restorer(second)
    restorer(first)
    assert torch.equal(restorer(second), alone)


@pytest.mark.parametrize("where", ["open_image", "restore_tiled", "trace_tiled", "_join"])
def test_want_of_memory_is_one_error_wherever_it_shows(
    restorer: Restorer, rgb: NDArray[np.uint8], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*arguments: object, **options: object) -> Tensor:
        return torch.empty(2**60)  # torch's own error on the CPU is a RuntimeError

    monkeypatch.setattr(restorer_module, where, hungry)
    for run in (restorer, restorer.trace):
        if where.endswith("_tiled") and where.startswith("trace") != (run == restorer.trace):
            continue
        with pytest.raises(MemoryError, match="not enough memory for this image"):
            run(rgb)


def test_a_bug_is_not_taken_for_want_of_memory(
    restorer: Restorer, rgb: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(restorer_module, "_join", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        restorer(rgb)


def _takes_level() -> Restorer:
    network = MultiScaleNet(width=4, blocks=(1, 1))
    network.reset_parameters(torch.Generator().manual_seed(0))
    for parameter in network.parameters():
        parameter.data.add_(0.05)
    images = with_level(torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), 0.1)
    return Restorer(convert(network.eval(), images, time_steps=4, schedule="phased", coding="binary"), engine="torch")


def test_a_network_that_takes_the_noise_level_gets_it() -> None:
    restorer = _takes_level()
    image = torch.rand(3, 21, 14)
    restored = restorer(image, sigma=25)
    assert restored.shape == image.shape
    assert torch.equal(restored, restorer(image, sigma=torch.full((21, 14), 25.0)))
    assert torch.equal(restored, restorer(image, sigma=50, strength=0.5))
    assert torch.equal(image, restorer(image, sigma=0))
    assert "takes a noise level" in repr(restorer)


def test_a_noise_level_and_a_network_that_do_not_fit_are_refused() -> None:
    restorer = _takes_level()
    with pytest.raises(ModelError, match="needs the noise level"):
        restorer(torch.rand(1, 8, 8))
    with pytest.raises(ValueError, match="the level has shape"):
        restorer(torch.rand(1, 8, 8), sigma=torch.zeros(8, 4))
    with pytest.raises(ValueError, match="negative or not finite"):
        restorer(torch.rand(1, 8, 8), sigma=-1)
    with pytest.raises(ValueError, match="strength is -1; expected 0 or more"):
        restorer(torch.rand(1, 8, 8), sigma=1, strength=-1)


def test_strength_is_the_share_of_what_is_removed(tiny_model: Path) -> None:
    restorer = Restorer.from_pretrained(tiny_model)
    image = torch.rand(1, 12, 12)
    whole, half = restorer(image), restorer(image, strength=0.5)
    torch.testing.assert_close(half, (image + whole) / 2)
    assert torch.equal(restorer(image, strength=0), image)
    with pytest.raises(ModelError, match="takes no noise level"):
        restorer(image, sigma=25)
    with pytest.raises(ValueError, match="strength is 2; expected 0 to 1"):
        restorer(image, strength=2)
