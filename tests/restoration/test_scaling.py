"""Networks that enlarge a photograph, or make other channels of it: restored in every form, in tiles, and measured."""

import io
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from spikingir.conversion.convert import convert
from spikingir.data.testsets import Lazy, TestPair
from spikingir.energy.paper import ann_energy
from spikingir.errors import InputError
from spikingir.evaluation.evaluate import evaluate
from spikingir.export.export import export_network
from spikingir.inputs import with_level
from spikingir.measures import psnr
from spikingir.networks.base import RestorationNetwork
from spikingir.photo.images import read_image, write_image
from spikingir.photo.photo import Photo
from spikingir.restoration.batch import side_by_side
from spikingir.restoration.restorer import Restorer
from spikingir.restoration.scaling import upscaled
from spikingir.spiking.formation import ImageFormation
from spikingir.store import from_pretrained, save_pretrained
from spikingir.zoo.catalogue import ModelError


class Enlarging(RestorationNetwork):
    """Convolutions, and a shuffle to ``scale`` times the size; perhaps of other channels."""

    def __init__(self, scale: int, channels: int = 1, outputs: int | None = None) -> None:
        outputs = channels if outputs is None else outputs
        body = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
            nn.Conv2d(6, outputs * scale**2, 3, padding=1), nn.PixelShuffle(scale),
        )  # fmt: skip
        super().__init__(body, "identity", channels)
        self.scale = scale


def networks(scale: int, channels: int = 1, outputs: int | None = None) -> tuple[Enlarging, Restorer]:
    torch.manual_seed(scale)
    ann = Enlarging(scale, channels, outputs).eval()
    images = torch.rand(2, channels, 16, 16)
    spiking = convert(ann, images, time_steps=4)
    return ann, Restorer(spiking, tile=8)


@pytest.mark.parametrize(("scale", "channels"), list(product([2, 3, 4], [1, 3])))
def test_tiles_are_the_whole_image(scale: int, channels: int) -> None:
    _, restorer = networks(scale, channels)
    image = torch.rand(channels, 13, 18)
    restored = restorer(image)
    assert restorer.scale == scale
    assert torch.equal(restored[None], restorer.network(image[None]))
    traced, took = restorer.trace(image)
    assert torch.equal(traced, restored)
    _, whole = restorer.network.trace(image[None])
    assert took.spikes == sum(int(layer.spikes.sum()) for layer in whole.layers) > 0
    assert took.ann_mj == pytest.approx(ann_energy(restorer.network, (13, 18)))


def test_forms() -> None:
    """Arrays, tensors, Pillow images and photographs come back twice as large, alpha and all else with them."""
    _, restorer = networks(2, 3)
    rng = np.random.default_rng(0)
    for shape in ((9, 11), (9, 11, 1), (9, 11, 3), (9, 11, 4)):
        array = rng.integers(0, 256, shape, dtype=np.uint8)
        restored = restorer(array)
        assert restored.shape == (18, 22, *shape[2:])
        assert restored.dtype == np.uint8
        if shape[2:] == (4,):
            alpha = Image.fromarray(array[..., 3].astype(np.float32) / 255).resize((22, 18), Image.Resampling.BICUBIC)
            assert np.array_equal(restored[..., 3], np.rint(np.asarray(alpha).clip(0, 1) * 255))
    assert restorer(torch.rand(2, 3, 8, 9)).shape == (2, 3, 16, 18)
    assert restorer(torch.rand(3, 8, 9)).shape == (3, 16, 18)
    assert restorer(Image.new("RGB", (9, 8))).size == (18, 16)


def test_a_photograph_keeps_its_metadata(tmp_path: Path) -> None:
    _, restorer = networks(2)
    rng = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x010F] = "camera"
    size = exif.get_ifd(0x8769)
    size[0xA002], size[0xA003] = 12, 10
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (10, 12, 4), dtype=np.uint8)).save(file, "PNG", exif=exif)
    photo = read_image(file.getvalue())
    restored = restorer(photo)
    assert restored.pixels.shape == (20, 24, 3)
    assert restored.alpha is not None
    assert restored.alpha.shape == (20, 24)
    assert 0 <= restored.alpha.min() <= restored.alpha.max() <= 1
    assert restored.exif is not None
    write_image(restored, tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").exif == restored.exif
    kept = Image.Exif()
    kept.load(restored.exif)
    assert kept[0x010F] == "camera"
    assert kept.get_ifd(0x8769) == {0xA002: 24, 0xA003: 20}
    assert side_by_side(photo, restored).pixels.shape == (20, 24 * 2 + 1, 3)


def test_strength_is_a_share_of_what_goes_beyond_bicubic() -> None:
    _, restorer = networks(2)
    image = torch.rand(1, 1, 8, 9)
    none, half, all_ = (restorer(image, strength=strength) for strength in (0.0, 0.5, 1.0))
    assert torch.equal(none, upscaled(image, 2))
    torch.testing.assert_close(half, (none + all_) / 2)


def test_other_channels() -> None:
    _, to_gray = networks(1, 3, 1)
    image = torch.rand(3, 8, 9)
    assert torch.equal(to_gray(image)[None], to_gray.network(image[None]))
    photo = Photo(np.random.default_rng(0).random((8, 9, 3), np.float32), icc=b"colours")
    gray = to_gray(photo)
    assert gray.pixels.shape == (8, 9, 1)
    assert gray.icc is None
    assert side_by_side(photo, gray).pixels.shape[2] == 3
    _, to_colour = networks(2, 1, 3)
    assert to_colour(np.zeros((8, 9), np.uint8)).shape == (16, 18, 3)
    assert to_colour(Image.new("L", (9, 8))).mode == "RGB"
    with pytest.raises(ModelError, match="makes 3 channels of a gray image; this one has 3"):
        to_colour(image)
    with pytest.raises(InputError, match=r"strength is 0\.5; expected 1, as the network makes 3 channels"):
        to_colour(image[:1], strength=0.5)


def test_several_maps() -> None:
    _, maps = networks(1, 1, 5)
    assert maps(torch.rand(1, 8, 9)).shape == (5, 8, 9)
    assert maps(np.zeros((8, 9), np.uint8)).shape == (8, 9, 5)
    with pytest.raises(ModelError, match="makes 5 channels, and a photograph has 1 or 3; give an array or a tensor"):
        maps(Image.new("L", (9, 8)))


class Told(RestorationNetwork):
    """A body that is told the noise level as a map behind the image, and gives the image or the noise (FFDNet)."""

    takes_level = True

    def __init__(self, formation: ImageFormation, scale: int = 1) -> None:
        body = nn.Sequential(
            nn.Conv2d(3 + 1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 3 * scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
        )
        super().__init__(body, formation, 3)
        self.scale = scale


@pytest.mark.parametrize(("formation", "scale"), [("residual", 1), ("identity", 1), ("identity", 2)])
def test_a_level_map_as_second_input(tmp_path: Path, formation: ImageFormation, scale: int) -> None:
    torch.manual_seed(6)
    ann = Told(formation, scale).eval()
    spiking = convert(ann, with_level(torch.rand(2, 3, 12, 12), 0.1), time_steps=5)
    assert (spiking.config.channels, spiking.config.input_channels) == (3, 4)
    save_pretrained(spiking, tmp_path / "a.safetensors")
    spiking = from_pretrained(tmp_path / "a.safetensors")
    restorer, image = Restorer(spiking, tile=8), torch.rand(3, 11, 14)
    level = 50 * torch.rand(11, 14)
    for sigma, given in ((25.0, 25 / 255), (level, (level.double() / 255)[None, None])):
        wanted = restorer.network(with_level(image[None], given))
        assert wanted.shape[-2:] == (11 * scale, 14 * scale)
        assert torch.equal(restorer(image, sigma=sigma)[None], wanted)
    with pytest.raises(ModelError, match="needs the noise level"):
        restorer(image)
    pair = TestPair("a", image, torch.rand(3, 11 * scale, 14 * scale), sigma=25)
    measures = evaluate(restorer, [pair], ann).mean
    assert measures.ann_psnr == pytest.approx(psnr(ann(image[None], 25 / 255), pair.clean[None]).item(), abs=1e-4)
    for to, schedule in (("npz", "clocked"), ("onnx", "phased")):
        drift = export_network(spiking.at(schedule=schedule), tmp_path / f"a.{to}", to).drift  # type: ignore[arg-type]
        assert (drift.different, drift.values_different) == (0, 0)


def pairs(scale: int) -> list[TestPair]:
    found = []
    for i in range(3):
        clean = torch.rand(1, 24 * scale, 20 * scale, generator=torch.Generator().manual_seed(i))
        small = nn.functional.avg_pool2d(clean[None], scale)[0]
        found.append(TestPair(str(i), small, clean))
    return found


@pytest.mark.parametrize("scale", [2, 3])
def test_evaluation(scale: int) -> None:
    ann, restorer = networks(scale)
    found = evaluate(restorer, pairs(scale), ann)
    for (_, measures), pair in zip(found.images, pairs(scale), strict=True):
        large: Tensor = upscaled(pair.degraded[None], scale)
        wanted = [image.detach() for image in (large, restorer.network(pair.degraded[None]), ann(pair.degraded[None]))]
        values = [measures.degraded_psnr, measures.psnr, measures.ann_psnr]
        for value, image in zip(values, wanted, strict=True):
            assert value == pytest.approx(psnr(image, pair.clean[None]).item(), abs=1e-4)
    _, other = networks(scale + 1)
    with pytest.raises(InputError, match="give pairs of that scale and those channels"):
        evaluate(other, pairs(scale))


def test_the_middle_of_a_pair_is_the_same_place() -> None:
    (whole,) = pairs(2)[:1]
    (cut,) = Lazy((lambda: whole,), crop=11)
    assert cut.degraded.shape == (1, 11, 11)
    assert torch.allclose(nn.functional.avg_pool2d(cut.clean[None], 2)[0], cut.degraded)


def test_kept_in_a_file(tmp_path: Path) -> None:
    spiking = convert(Enlarging(3).eval(), torch.rand(1, 1, 8, 8), time_steps=3)
    save_pretrained(spiking, tmp_path / "a.safetensors")
    image = torch.rand(1, 8, 9)
    assert torch.equal(Restorer(from_pretrained(tmp_path / "a.safetensors"))(image), Restorer(spiking)(image))
