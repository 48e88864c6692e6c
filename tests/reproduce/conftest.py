"""A small world to measure: tiny denoisers with all their baselines, and an image collection of tiny images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.conversion.convert import convert
from spikingir.data.noise import sample_generator
from spikingir.networks import DnCNN
from spikingir.store import save_network, save_pretrained

SIDE = 24


def tiny_model(folder: Path, sigma: int) -> None:
    """The folder of a model: a DnCNN of three layers, clocked at T = 4 and phased at T = 3."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(sigma)
        ann = DnCNN(layers=3, width=4).eval()
    with torch.no_grad():
        ann.get_parameter("body.conv2.weight").mul_(0.2)
    images = torch.rand(2, 1, 16, 16, generator=sample_generator(3, 0))
    save_network(ann, folder / "ann.safetensors")
    save_pretrained(convert(ann, images, time_steps=4), folder / "snn.safetensors")
    phased = convert(ann, images, time_steps=3, schedule="phased")
    save_pretrained(phased, folder / "snn-phased.safetensors")
    variants = {
        "snn.safetensors": {"schedule": "clocked", "time_steps": 4},
        "snn-phased.safetensors": {"schedule": "phased", "time_steps": 3},
    }
    config = {"name": folder.name, "task": "denoise", "channels": 1, "sigma": float(sigma), "variants": variants}
    (folder / "config.json").write_text(json.dumps({**config, "default": "snn.safetensors"}), encoding="utf-8")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for sigma in (15, 25, 50):
        tiny_model(folder / f"denoise-gray-{sigma}", sigma)
    return folder


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BSD68 and Set12 by name and number of images alone."""
    root = tmp_path_factory.mktemp("collection")
    rng = np.random.default_rng(0)
    for name, count in (("bsd68", 68), ("set12", 12)):
        folder = root / "denoise" / name
        folder.mkdir(parents=True)
        for i in range(count):
            ramp = np.linspace(i, 255 - i, SIDE)[:, None] + rng.uniform(0, 20, SIDE)
            Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")
    return root
