"""Published weights load and restore as well as the image collection's README says."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from spikingir.data.folders import list_images
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.networks import RestorationNetwork, describe
from spikingir.store import load_network

pytestmark = pytest.mark.data

GRAY_17 = {"channels": 1, "layers": 17, "width": 64, "batch_norm": False}
GRAY_17_NORM = {**GRAY_17, "batch_norm": True}
OPTIONS = {
    "dncnn/kair_dncnn_25.pth": GRAY_17,
    "dncnn/cszn_dncnn_15.pth": GRAY_17,
    "dncnn/cszn_dncnn_50.pth": GRAY_17,
    "dncnn/cszn_dncnn_gray_blind.pth": {**GRAY_17, "layers": 20},
    "dncnn/cszn_dncnn_color_blind.pth": {**GRAY_17, "layers": 20, "channels": 3},
    "dncnn/saoyan_DnCNN-S-15.pth": GRAY_17_NORM,
    "dncnn/saoyan_DnCNN-S-25.pth": GRAY_17_NORM,
    "dncnn/saoyan_DnCNN-S-50.pth": GRAY_17_NORM,
    "dncnn/saoyan_DnCNN-B.pth": {**GRAY_17_NORM, "layers": 20},
    "aodnet/mayanksingal_dehazer.pth": {},
    "aodnet/AOD_Net_from_caffe.pth": {},
}
# (noise level, Set12's mean PSNR in dB), from the collection's README.
SET12 = {
    "dncnn/cszn_dncnn_15.pth": (15, 32.87),
    "dncnn/kair_dncnn_25.pth": (25, 30.44),
    "dncnn/cszn_dncnn_50.pth": (50, 27.17),
    "dncnn/saoyan_DnCNN-S-15.pth": (15, 32.84),
    "dncnn/saoyan_DnCNN-S-25.pth": (25, 30.39),
    "dncnn/saoyan_DnCNN-S-50.pth": (50, 27.14),
    "dncnn/saoyan_DnCNN-B.pth": (25, 30.34),
}
BLIND = {
    "dncnn/cszn_dncnn_gray_blind.pth": "denoise/set12",
    "dncnn/saoyan_DnCNN-B.pth": "denoise/set12",
    "dncnn/cszn_dncnn_color_blind.pth": "denoise/cbsd68",
}
SOTS_INDOOR = {"aodnet/mayanksingal_dehazer.pth": 18.83, "aodnet/AOD_Net_from_caffe.pth": 19.12}
SOTS_INDOOR_HAZY = 12.17


def read(path: Path, channels: int) -> Tensor:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).movedim(2, 0)[None]


def psnr(image: Tensor, clean: Tensor) -> float:
    return peak_signal_noise_ratio(image.clamp(0, 1), clean, data_range=1.0).item()


@torch.no_grad()
def denoise(network: RestorationNetwork, clean: Tensor, sigma: float, index: int) -> tuple[float, float]:
    """PSNR of the noisy and of the restored image."""
    noisy = add_gaussian_noise(clean, sigma, sample_generator(0, index))
    return psnr(noisy, clean), psnr(network(noisy), clean)


def haze(data_root: Path, scenes: int, suffixes: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor, Path]]:
    """(hazy, clean, name of the published hazy image) of SOTS-indoor, made anew as RESIDE made them."""
    folder = data_root / "dehaze/sots_indoor"
    for path in list_images(folder / "gt")[:scenes]:
        clean = read(path, 3)
        with Image.open(folder / "depth" / path.name) as image:
            depth = torch.from_numpy(np.asarray(image, dtype=np.float32)[10:470, 10:630])
        for suffix in suffixes:
            transmission = torch.exp(-(0.5 + 0.1 * suffix) * depth / depth.max())
            hazy = clean * transmission + (1 - transmission)
            yield (hazy * 255).round() / 255, clean, folder / "hazy" / f"{path.stem}_{suffix}.png"


@torch.no_grad()
def dehaze(network: RestorationNetwork, pairs: Iterator[tuple[Tensor, Tensor, Path]]) -> tuple[float, float]:
    """Mean PSNR of the hazy and of the restored images."""
    values = [(psnr(hazy, clean), psnr(network(hazy), clean)) for hazy, clean, _ in pairs]
    before, after = np.mean(values, axis=0)
    return float(before), float(after)


def test_every_file_is_known_here(data_root: Path) -> None:
    folder = data_root / "weights"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.pth")} == OPTIONS.keys()


@pytest.mark.parametrize("name", OPTIONS)
def test_file_loads(data_root: Path, name: str) -> None:
    network = load_network(data_root / "weights" / name)
    assert describe(network) == {"architecture": name.partition("/")[0], "options": OPTIONS[name]}
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", SET12)
def test_fixed_level_denoises_crops(data_root: Path, name: str) -> None:
    network, (sigma, _) = load_network(data_root / "weights" / name), SET12[name]
    crops = [read(path, 1)[..., 80:160, 80:160] for path in list_images(data_root / "denoise/set12")[:3]]
    gains = [after - before for before, after in (denoise(network, crops[i], sigma, i) for i in range(3))]
    assert np.mean(gains) > {15: 7, 25: 9, 50: 11}[sigma]


@pytest.mark.parametrize("name", BLIND)
def test_blind_gains_7_db_at_sigma_25(data_root: Path, name: str) -> None:
    network = load_network(data_root / "weights" / name)
    crops = [read(path, network.channels)[..., 80:160, 80:160] for path in list_images(data_root / BLIND[name])[:3]]
    gains = [after - before for before, after in (denoise(network, crops[i], 25, i) for i in range(3))]
    assert np.mean(gains) >= 7


def test_haze_is_made_as_published(data_root: Path) -> None:
    compared = 0
    for hazy, _, published in haze(data_root, scenes=6, suffixes=tuple(range(1, 11))):
        if published.exists():
            assert (hazy - read(published, 3)).abs().max() < 1.5 / 255
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("name", SOTS_INDOOR)
def test_dehazes_two_scenes(data_root: Path, name: str) -> None:
    network = load_network(data_root / "weights" / name)
    before, after = dehaze(network, haze(data_root, scenes=2, suffixes=(1, 5, 10)))
    assert after - before > 4


@pytest.mark.slow
@pytest.mark.parametrize("name", SET12)
def test_set12_figures(data_root: Path, name: str) -> None:
    network, (sigma, expected) = load_network(data_root / "weights" / name), SET12[name]
    images = list_images(data_root / "denoise/set12")
    restored = [denoise(network, read(path, 1), sigma, i)[1] for i, path in enumerate(images)]
    assert np.mean(restored) == pytest.approx(expected, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOTS_INDOOR)
def test_sots_indoor_figures(data_root: Path, name: str) -> None:
    network = load_network(data_root / "weights" / name)
    before, after = dehaze(network, haze(data_root, scenes=25, suffixes=tuple(range(1, 11))))
    assert before == pytest.approx(SOTS_INDOOR_HAZY, abs=0.1)
    assert after == pytest.approx(SOTS_INDOOR[name], abs=0.1)
