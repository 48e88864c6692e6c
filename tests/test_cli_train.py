"""Commands that make models: train, finetune, convert, recipes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.cli.console import is_expected, sentence
from spikingir.networks import AODNet, DnCNN
from spikingir.store import from_pretrained, save_network
from spikingir.training import follow as following
from spikingir.training.fit import TrainingError, TrainingStopped
from spikingir.training.journal import Log
from spikingir.training.recipe import Recipe
from spikingir.zoo.catalogue import SHIPPED

Run = Callable[..., tuple[int, str, str]]


def one_sentence(err: str) -> bool:
    return err.startswith("spikingir: ") and err.count("\n") == 1 and err.endswith("\n")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_train_without_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("spikingir.training.follow", "spikingir.training.fit", "spikingir.training.machine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("lightning_fabric", "lightning", "lightning.fabric"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, err = run("train", "denoise-gray-25", "--data-root", tmp_path, "--runs", tmp_path)
    assert code == 1
    assert one_sentence(err)
    assert "pip install 'spikingir[train]'" in err


def test_tensorboard_is_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        Log(tmp_path, tensorboard=True)
    assert is_expected(caught.value)
    assert "pip install 'spikingir[tensorboard]'" in sentence(caught.value)


def test_recipes(run: Run) -> None:
    code, out, err = run("recipes")
    assert (code, err) == (0, "")
    assert any(line.startswith("denoise-gray-25: dncnn; ann (") for line in out.splitlines())


def test_train_follows_the_recipe(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def follow(recipe: Recipe, *arguments: object, **options: object) -> dict[str, Path]:
        seen.extend([recipe.name, *arguments, options["stages"]])
        return {"ann": tmp_path / "model.safetensors"}

    monkeypatch.setattr(following, "follow", follow)
    arguments = ("train", "denoise-gray-25", "--data-root", "data", "--runs", tmp_path, "--stage", "ann", "qann")
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert f"ann: {tmp_path / 'model.safetensors'}" in out
    assert seen == ["denoise-gray-25", Path("data"), tmp_path / "denoise-gray-25", ["ann", "qann"]]
    monkeypatch.setenv("SPIKINGIR_DATA", "elsewhere")
    seen.clear()
    assert run("train", "denoise-gray-25")[0] == 0
    assert seen == ["denoise-gray-25", Path("elsewhere"), Path("runs/denoise-gray-25"), None]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-recipe", "--data-root", "."], "denoise-gray-25"),
        (["denoise-gray-25", "--data-root", "/nowhere"], "/nowhere"),
        (["denoise-gray-25", "--data-root", ".", "--stage", "last"], "'last'"),
        (["denoise-gray-25", "--data-root", "."], "no folder"),
    ],
)
def test_training_that_cannot_start(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    code, _, err = run("train", *arguments, "--runs", tmp_path)
    assert code == 1
    assert one_sentence(err)
    assert said in err


@pytest.mark.parametrize("error", [TrainingStopped("stopped at step 3 of 9"), TrainingError("another configuration")])
def test_training_that_stops(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def follow(*arguments: object, **options: object) -> NoReturn:
        raise error

    monkeypatch.setattr(following, "follow", follow)
    code, out, err = run("train", "denoise-gray-25", "--data-root", tmp_path, "--runs", tmp_path)
    assert (code, out, err) == (1, "", f"spikingir: {error}\n")


@pytest.mark.parametrize(("schedule", "sigma"), [("clocked", "25"), ("phased", None)])
def test_convert(run: Run, tmp_path: Path, photos: Path, schedule: str, sigma: str | None) -> None:
    network: DnCNN | AODNet = DnCNN(layers=3, width=4) if sigma else AODNet()
    network.reset_parameters(torch.Generator().manual_seed(0))
    save_network(network, tmp_path / "weights.safetensors")
    noise = ["--sigma", sigma] if sigma else []
    arguments = ("convert", tmp_path / "weights.safetensors", "--data", photos, "--schedule", schedule, *noise)
    code, out, err = run(*arguments, "--time-steps", 6, "--v0", 0.5)
    assert (code, err) == (0, "")
    assert "converted" in out
    spiking = from_pretrained(tmp_path / "weights_snn.safetensors")
    assert (spiking.config.time_steps, spiking.config.schedule) == (6, schedule)
    assert spiking.neuron(spiking.layers[0]).v0 == 0.5
    code, _, err = run(*arguments)
    assert code == 1
    assert one_sentence(err)
    assert "--overwrite" in err
    assert run(*arguments, "--overwrite")[0] == 0
    assert from_pretrained(tmp_path / "weights_snn.safetensors").config.time_steps == 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.pth", "--data", "photos"], "missing.pth"),
        (["weights.safetensors", "--data", "nowhere"], "no folder"),
        (["weights.safetensors", "--data", "photos", "--v0", "2"], "v0 is 2"),
    ],
)
def test_what_cannot_be_converted(
    run: Run, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    save_network(DnCNN(layers=3, width=4), tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    code, _, err = run("convert", *arguments)
    assert code == 1
    assert one_sentence(err)
    assert said in err
    assert not (tmp_path / "weights_snn.safetensors").exists()


@pytest.mark.parametrize("method", ["magic", "lan", "qcfs"])  # no file holds a network for the latter
def test_methods_that_no_file_is_converted_by(run: Run, tmp_path: Path, method: str) -> None:
    code, _, err = run("convert", tmp_path / "weights.safetensors", "--data", tmp_path, "--method", method)
    assert code == 2
    assert one_sentence(err)
    assert method in err


def test_a_spiking_network_is_converted_already(run: Run, tiny_model: Path, photos: Path) -> None:
    code, _, err = run("convert", tiny_model / "snn.safetensors", "--data", photos)
    assert code == 1
    assert one_sentence(err)
    assert "holds a spiking network already" in err


def test_finetune_trains_a_network_on_photographs_of_ones_own(
    run: Run, tmp_path: Path, photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    arguments = ("--steps", 2, "--batch-size", 2, "--patch", 12, "--runs", tmp_path / "runs")
    code, _, err = run("finetune", tiny_model, "--data", photos, *arguments)
    assert code == 1
    assert one_sentence(err)
    assert "--sigma" in err
    (tmp_path / "one").mkdir()
    (photos / "0.png").rename(tmp_path / "one" / "0.png")
    code, _, err = run("finetune", tiny_model, "--data", tmp_path / "one", "--sigma", 25, *arguments)
    assert code == 1
    assert one_sentence(err)
    assert "takes two or more" in err
    code, out, err = run("finetune", tiny_model, "--data", photos, "--sigma", 25, "--time-steps", 4, *arguments)
    assert (code, err) == (0, "")
    assert "with --model" in out
    before = from_pretrained(tiny_model / "snn.safetensors")
    after = from_pretrained(next((tmp_path / "runs").rglob("model.safetensors")))
    assert after.config.time_steps == 4
    assert not torch.equal(before.weight["conv0"], after.weight["conv0"])


@pytest.mark.parametrize("way", ["weights", "link", "photograph", "shipped"])
def test_converting_replaces_no_input(run: Run, tmp_path: Path, photos: Path, way: str) -> None:
    weights, out = tmp_path / "weights.safetensors", tmp_path / "out.safetensors"
    save_network(DnCNN(layers=3, width=4), weights)
    precious = {"photograph": photos / "0.png", "shipped": SHIPPED / "dehaze-aodnet" / "ann.safetensors"}.get(
        way, weights
    )
    if way == "weights":
        out = weights
    else:
        out.symlink_to(precious)
    before = precious.read_bytes()
    code, _, err = run("convert", weights, "--data", photos, "-o", out, "--overwrite")
    assert code == 1
    assert one_sentence(err)
    assert ("is a link to a photograph" if way == "photograph" else "itself one of the inputs") in err
    assert precious.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_pipe_among_the_images(run: Run, tmp_path: Path, photos: Path, tiny_model: Path) -> None:
    save_network(DnCNN(layers=3, width=4), tmp_path / "weights.safetensors")
    os.mkfifo(photos / "00.png")
    for arguments in (
        ("convert", tmp_path / "weights.safetensors", "--data", photos),
        ("evaluate", tiny_model, "--data", photos, "--sigma", 25),
        ("energy", tiny_model, "--image", photos / "00.png"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (1, "")
        assert one_sentence(err)
        assert "00.png" in err
        assert "it is a pipe, not a file" in err


def test_bugs_below_a_command_are_not_hidden(
    run: Run, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> NoReturn:
        raise ValueError("not enough values to unpack (expected 2, got 1)")

    save_network(DnCNN(layers=3, width=4), tmp_path / "weights.safetensors")
    monkeypatch.setattr("spikingir.conversion.convert.convert", broken)
    with pytest.raises(ValueError, match="unpack"):
        run("convert", tmp_path / "weights.safetensors", "--data", photos)
