"""The weights that ship: they restore, they fold at no cost, and they say what they are."""

import numpy as np
import pytest
import torch
from skimage import data

from spikingir.data.camera import add_camera_noise
from spikingir.data.folders import to_tensor
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.deploy import engine
from spikingir.deploy.fold import fold
from spikingir.inputs import with_level
from spikingir.measures import psnr
from spikingir.networks.registry import describe
from spikingir.store import from_pretrained, load_network
from spikingir.tasks import TASKS
from spikingir.training.follow import QUANTISED
from spikingir.zoo.catalogue import ANN_FILE, Model, Variant, model_names, read_shipped

MODELS = [read_shipped(name) for name in model_names()]
VARIANTS = [pytest.param(m, v, id=f"{m.name}-{v.file.split('.')[0]}") for m in MODELS for v in m.variants]


def test_there_is_a_model() -> None:
    assert "denoise-gray-25" in model_names()


@pytest.mark.parametrize("model", MODELS, ids=model_names())
def test_a_model_has_its_card_and_configuration(model: Model) -> None:
    assert model.name == model.folder.name
    weights = {path.name for path in model.folder.glob("*.safetensors")}
    # the quantised network is there where training can go on from it
    assert weights - {QUANTISED} == {ANN_FILE, *(variant.file for variant in model.variants)}
    ann = load_network(model.folder / ANN_FILE)
    assert describe(ann)["architecture"] == model.architecture
    assert ann.formation in TASKS[model.task].formations
    assert model.sigma is None or TASKS[model.task].sigma_of is not None
    assert model.takes_level == ann.takes_level
    card = (model.folder / "README.md").read_text()
    for heading in ("Recipe", "Data", "Results", "Licence", "Not for"):
        assert f"## {heading}" in card


@pytest.mark.parametrize(("model", "variant"), VARIANTS)
def test_a_network_is_what_the_configuration_says(model: Model, variant: Variant) -> None:
    config = from_pretrained(model.folder / variant.file).config
    assert (config.schedule, config.time_steps) == (variant.schedule, variant.time_steps)
    assert config.channels == model.channels


DENOISERS = [case for case in VARIANTS if case.values[0].task == "denoise"]
PICTURES = {1: (data.camera, data.coins, data.moon), 3: (data.astronaut, data.chelsea, data.coffee)}


@pytest.mark.parametrize(("model", "variant"), DENOISERS)
def test_a_denoiser_gains_and_its_deployment_form_costs_nothing(model: Model, variant: Variant) -> None:
    # rounding flips a few spikes of a picture either way, so a cost shows in the mean over some
    corners = [(picture(), top) for picture in PICTURES[model.channels] for top in range(10, 210, 25)]
    clean = torch.stack([to_tensor(picture[top : top + 96, top : top + 96].copy()) for picture, top in corners])
    if model.sigma is None:  # made for the noise of cameras, which is fainter
        noisy_ones = [
            add_camera_noise(x.numpy(), sample_generator(0, i), 3, smooth=False)[0] for i, x in enumerate(clean)
        ]
        degraded, sigma, gain = torch.from_numpy(np.stack(noisy_ones)), 0.0, 2
    else:
        sigma, gain = 25.0 if model.fixed_sigma is None else model.fixed_sigma, 6
        degraded = add_gaussian_noise(clean, sigma, sample_generator(0, 0))
    noisy = with_level(degraded, sigma / 255) if model.takes_level else degraded
    snn = from_pretrained(model.folder / variant.file)
    folded = fold(snn)
    with torch.inference_mode():
        gridded_images = engine.restore(folded, noisy)  # torch's bits, in a tenth of its time
        before, trained, gridded = (psnr(x, clean).mean().item() for x in (degraded, snn(noisy), gridded_images))
        ann = psnr(load_network(model.folder / ANN_FILE)(noisy), clean).mean().item()
    assert gridded - before >= gain
    assert trained - gridded <= 0.02
    # ten levels at every scale of a small network cost most on pictures as smooth as these
    clocked = {"denoise-gray": 1.25, "denoise-color": 1.45} if variant.schedule == "clocked" else {}
    assert ann - gridded <= clocked.get(model.name, 1)
    corner = noisy[:2, :, :40, :40]
    in_float64 = fold(snn, dtype=torch.float64)(corner)
    assert torch.equal(folded(corner), in_float64)
    assert torch.equal(engine.restore(folded, corner), in_float64)
