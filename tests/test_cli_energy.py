"""The command that counts energy."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from spikingir.conversion.convert import convert
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.deploy.fold import fold
from spikingir.energy.columns import energy_columns
from spikingir.inputs import pad_to_multiple, with_level
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.spiking.network import SpikingNetwork
from spikingir.store import save_pretrained

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("name", "size", "paper"), [("aodnet", "640x480", 2.467), ("dncnn", "481x321", 393.555)])
def test_printed_figures(run: Run, name: str, size: str, paper: float) -> None:
    code, out, _ = run("energy", name, "--size", size, "--json")
    found = json.loads(out)
    assert code == 0
    assert round(found["ann"]["paper_mj"], 3) == paper
    assert set(found["ann"]) == {"paper_mj", "complete_mj", "int8_mj", "int32_mj", "memory_mj"}
    assert "snn" not in found
    assert found["border"]["paper"] == "full"
    code, out, _ = run("energy", name, "--size", size)
    assert code == 0
    assert f"{paper:.3f}" in out.splitlines()[3]  # of the table, which comes first
    assert "--explain" in out
    assert len(out.splitlines()) < 24  # of a terminal
    assert "Assumptions" not in out
    explained = run("energy", name, "--size", size, "--explain")[1]
    assert explained.startswith(out[: out.rindex("\nlayer by layer")])
    assert "mJ by layer" in explained
    assert "Assumptions" in explained
    assert "Horowitz 2014" in explained


def test_spiking_network_on_an_image(run: Run, tiny_model: Path, photo: Path) -> None:
    code, out, err = run("energy", tiny_model, "--image", photo, "--sigma", 25, "--json")
    assert code == 0
    assert "no conventional network" in err
    found = json.loads(out)
    assert (found["size"], found["sigma"], found["time_steps"], found["steps"]) == ([24, 20], 25, 3, 4)
    assert found["snn"]["complete_mj"] > found["snn"]["paper_mj"] > 0
    assert set(found["spikes_per_synapse"]) == {"full", "true"}
    assert set(found["break_even_spikes_per_synapse"]) == {"paper", "complete", "int8", "int32", "memory"}
    total = sum(layer["snn"]["memory_mj"] for layer in found["layers"])
    assert total == pytest.approx(found["snn"]["memory_mj"])
    assert found["constants"]["mac_float32"]["pj"] == 4.6

    code, out, _ = run(
        "energy", tiny_model, "--image", photo, "--sigma", 25, "--size", "16x12", "--time-steps", 2, "--explain"
    )
    assert code == 0
    assert "16 x 12, noise of sigma 25, seed 0" in out
    assert "pays below" in out
    assert "pixel mapper" in out


def test_an_image_that_the_stride_does_not_divide(run: Run, tmp_path: Path, photo: Path) -> None:
    body = nn.Sequential(nn.PixelUnshuffle(8), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.PixelShuffle(8))
    save_pretrained(convert(body, torch.rand(1, 1, 16, 16), time_steps=2), tmp_path / "strided.safetensors")
    code, out, err = run("energy", tmp_path / "strided.safetensors", "--image", photo, "--json")
    found = json.loads(out)
    assert (code, found["size"]) == (0, [24, 20])
    assert "counted at 24 x 24" in err
    assert found["ann"]["paper_mj"] == pytest.approx(4.6e-9 * 64 * 64 * 9 * 3 * 3)  # on 24 x 24 pixels


@pytest.fixture(scope="module", params=["binary", "clocked"])
def levelled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SpikingNetwork]:
    """A multi-scale denoiser that is told the level of the noise, with the network that is in its file."""
    network = MultiScaleNet(width=4, blocks=(1, 1))
    network.reset_parameters(torch.Generator().manual_seed(0))
    images = with_level(torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), 0.1)
    phased = {"schedule": "phased", "coding": "binary", "activation_bits": (4, 3)}
    spiking = convert(network.eval(), images, time_steps=4, **(phased if request.param == "binary" else {}))
    path = tmp_path_factory.mktemp("levelled") / "levelled.safetensors"
    save_pretrained(spiking, path)
    return path, spiking


def test_sigma_of_a_network_that_is_told_the_level(
    run: Run, levelled: tuple[Path, SpikingNetwork], tmp_path: Path
) -> None:
    path, spiking = levelled
    pixels = np.random.default_rng(1).integers(0, 256, (18, 23), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "odd.png")
    found = {}
    for sigma in (0, 40):
        code, out, err = run("energy", path, "--image", tmp_path / "odd.png", "--sigma", sigma, "--seed", 3, "--json")
        assert code == 0
        assert "counted at 24 x 20" in err
        found[sigma] = json.loads(out)
        image = torch.from_numpy(pixels.astype(np.float32) / 255)[None]
        image = with_level(add_gaussian_noise(image, sigma, sample_generator(3, 0))[None], sigma / 255)
        image = pad_to_multiple(image, 4)
        folded = fold(spiking)
        expected = energy_columns(folded, folded.trace(image, trains=True)[1], image, spiking)
        assert found[sigma]["snn"] == pytest.approx({f"{name}_mj": mj for name, mj in expected.snn_mj.items()})
        assert expected.int8_twin is not None
        assert found[sigma]["int8_twin"]["macs"] == pytest.approx(expected.int8_twin.macs)
    assert found[0]["spikes_per_neuron"] != found[40]["spikes_per_neuron"]

    code, out, _ = run("energy", path, "--image", tmp_path / "odd.png", "--sigma", 40, "--seed", 3)
    assert code == 0
    assert "int8 twin of the ANN" in out
    assert f"{found[40]['int8_twin']['snn_over_twin']['int32']:.3f} (of 32)" in out

    code, out, err = run("energy", path, "--image", tmp_path / "odd.png")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "is told the level of the noise, on which its spikes depend; give it with --sigma" in err


def test_an_architecture_whose_strides_do_not_divide_the_size(run: Run) -> None:
    code, out, err = run("energy", "multiscale", "--size", "19x9", "--json")
    assert code == 0
    assert err == "spikingir: note: counted at 24 x 16, the size at which the network sees it\n"
    padded = json.loads(run("energy", "multiscale", "--size", "24x16", "--json")[1])
    found = json.loads(out)
    assert (found["size"], found["ann"], padded["notes"]) == ([19, 9], padded["ann"], [])


def test_colours_are_said_to_be_left_out(run: Run, tiny_model: Path, photo: Path, tmp_path: Path) -> None:
    with Image.open(photo) as image:
        image.convert("RGB").save(tmp_path / "colour.png")
    assert "gray version" in run("energy", tiny_model, "--image", tmp_path / "colour.png")[2]
    assert "gray version" not in run("energy", tiny_model, "--image", photo)[2]


def test_wrong_usage(run: Run, tiny_model: Path, photo: Path) -> None:
    wrong = [
        (("aodnet",), "give it with --size"),
        (("aodnet", "--size", "640"), "expected width x height"),
        (("aodnet", "--size", "0x3"), "expected width x height"),
        (("aodnet", "--size", "8x8", "--image", photo), "has no spikes"),
        ((tiny_model,), "give an image with --image"),
    ]
    for arguments, message in wrong:
        code, out, err = run("energy", *arguments)
        assert (code, out) == (2, "")
        assert message in err


def test_what_cannot_be_done(run: Run, tiny_model: Path, photo: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("L", (2000, 1000)).save(large)
    for arguments, message in [
        ((tiny_model, "--image", large, "--max-megapixels", 1), "large.png: 2000 x 1000 are 2.0 megapixels"),
        ((tiny_model, "--image", photo, "--size", "25x8"), "cannot be cut out of it"),
        ((tiny_model, "--image", tiny_model / "nothing.png"), "cannot read"),
        (("nonsense", "--image", photo), "nonsense"),
    ]:
        code, out, err = run("energy", *arguments)
        assert (code, out) == (1, "")
        assert message in err
        assert err.count("\n") == 1 or "no conventional network" in err
