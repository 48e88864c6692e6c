"""The weights that ship: they restore, they fold at no cost, and they say what they are."""

import json
from pathlib import Path

import pytest
import torch
from skimage import data

import spikingir
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.evaluation.metrics import psnr
from spikingir.networks.registry import load_network
from spikingir.spiking.fold import fold
from spikingir.spiking.storage import from_pretrained

MODELS = Path(spikingir.__file__).parent / "models"
NAMES = sorted(folder.name for folder in MODELS.iterdir() if (folder / "snn.safetensors").exists())


def test_there_is_a_model() -> None:
    assert "denoise-gray-25" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_its_card_and_configuration(name: str) -> None:
    folder = MODELS / name
    config = json.loads((folder / "config.json").read_text())
    snn = from_pretrained(folder / "snn.safetensors")
    assert config["name"] == name
    assert config["time_steps"] == snn.config.time_steps
    assert config["schedule"] == snn.config.schedule
    card = (folder / "README.md").read_text()
    for heading in ("Recipe", "Data", "Results", "Licence", "Not for"):
        assert f"## {heading}" in card


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("denoise-gray")])
def test_a_denoiser_gains_and_its_deployment_form_costs_nothing(name: str) -> None:
    sigma = float(name.rsplit("-", 1)[1])
    # rounding flips a few spikes of a picture either way, so a cost shows in the mean over some
    corners = [(picture, top) for picture in (data.camera(), data.coins(), data.moon()) for top in (20, 90, 160, 200)]
    crops = [torch.from_numpy(picture[top : top + 96, top : top + 96].copy()) for picture, top in corners]
    clean = torch.stack(crops)[:, None].float() / 255
    noisy = add_gaussian_noise(clean, sigma, sample_generator(0, 0))
    snn = from_pretrained(MODELS / name / "snn.safetensors")
    folded = fold(snn)
    with torch.inference_mode():
        gridded_images = folded(noisy)
        before, trained, gridded = (psnr(x, clean).mean().item() for x in (noisy, snn(noisy), gridded_images))
        ann = psnr(load_network(MODELS / name / "ann.safetensors")(noisy), clean).mean().item()
    assert gridded - before >= 6
    assert trained - gridded <= 0.02
    assert gridded < ann
    assert torch.equal(gridded_images[:2], fold(snn, dtype=torch.float64)(noisy[:2]))
