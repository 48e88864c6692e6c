"""The commands that list and measure models."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.cli.tables import number, table
from spikingir.conversion.convert import convert
from spikingir.evaluation.evaluate import evaluate
from spikingir.evaluation.testsets import open_testset
from spikingir.networks import AODNet, DnCNN
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.restoration.restorer import Restorer
from spikingir.store import save_network, save_pretrained
from spikingir.tasks import TASKS
from spikingir.zoo.catalogue import model_names, read_shipped
from spikingir.zoo.measured import read_tests
from spikingir.zoo.pretrained import load_ann, open_model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKINGIR_DATA", raising=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser with its conventional network and its configuration."""
    folder = tmp_path_factory.mktemp("models") / "mine"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ann = DnCNN(layers=3, width=4).eval()
    save_network(ann, folder / "ann.safetensors")
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    save_pretrained(convert(ann, images, time_steps=3), folder / "snn.safetensors")
    variants = {"snn.safetensors": {"schedule": "clocked", "time_steps": 3}}
    config = {"name": "mine", "task": "denoise", "channels": 1, "sigma": 15, "variants": variants}
    (folder / "config.json").write_text(json.dumps({**config, "default": "snn.safetensors"}))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photo{i}.png")
    return folder


def one_sentence(err: str) -> bool:
    return err.startswith("spikingir: ") and err.count("\n") == 1 and err.endswith("\n")


def test_models_are_listed(run: Run) -> None:
    code, out, err = run("models")
    assert (code, err) == (0, "")
    for name in model_names():
        (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        shipped = read_shipped(name)
        assert shipped.purpose in line
        for variant in shipped.variants:
            assert f"{variant.schedule} T = {variant.time_steps}" in line


def test_models_as_json(run: Run) -> None:
    found = {entry["name"]: entry for entry in json.loads(run("models", "--json")[1])}
    assert list(found) == model_names()
    entry = found["denoise-gray-25"]
    assert (entry["task"], entry["sigma"], entry["channels"]) == ("denoise", 25, 1)
    assert {"file", "schedule", "time_steps", "default"} == set(entry["variants"][0])
    assert sum(variant["default"] for variant in entry["variants"]) == 1
    assert entry["bytes"] == sum(p.stat().st_size for p in read_shipped("denoise-gray-25").folder.glob("*.safetensors"))


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["evaluate", "--help"]])
def test_no_torch_is_loaded(arguments: list[str]) -> None:
    code = f"import sys; from spikingir.cli import main; main({arguments}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_evaluate_as_json(run: Run, model: Path, photos: Path) -> None:
    code, out, err = run("evaluate", model, "--data", photos, "--json", "--seed", 3)
    assert (code, err) == (0, "")
    found = json.loads(out)
    pairs = open_testset(photos, task="denoise", channels=1, sigma=15, seed=3)
    wanted = evaluate(Restorer.from_pretrained(model), pairs, load_ann(open_model(model)))
    assert {key: found[key] for key in ("mean", "psnr_ci95", "psnr_loss_ci95", "images")} == wanted.as_dict()
    head = {"model": str(model), "data": str(photos), "schedule": "clocked", "time_steps": 3, "sigma": 15, "seed": 3}
    assert {key: found[key] for key in head} == head
    assert [image["name"] for image in found["images"]] == ["photo0", "photo1", "photo2"]


def test_a_network_that_is_told_the_level(run: Run, photos: Path, tmp_path: Path) -> None:
    """It is converted and evaluated with a level, and not without."""
    ann = MultiScaleNet(width=4, blocks=(0, 1)).eval()
    ann.reset_parameters(torch.Generator().manual_seed(0))
    save_network(ann, tmp_path / "ann.safetensors")
    convert = ("convert", tmp_path / "ann.safetensors", "--data", photos, "-o", tmp_path / "snn.safetensors")
    code, _, err = run(*convert)
    assert (code, "is told the noise level; give that of its images with --sigma" in err) == (2, True)
    assert run(*convert, "--sigma", 20, "--schedule", "phased", "--time-steps", 2)[0] == 0
    evaluate = ("evaluate", tmp_path, "--data", photos, "--limit", 1, "--json")
    code, _, err = run(*evaluate)
    assert (code, "not for one noise level alone; give the level with --sigma" in err) == (2, True)
    code, out, _ = run(*evaluate, "--sigma", 20)
    assert (code, json.loads(out)["sigma"]) == (0, 20)


def test_evaluate_for_people(run: Run, model: Path, photos: Path) -> None:
    code, out, err = run("evaluate", model, "--data", photos, "--limit", 2, "--crop", 16)
    assert (code, err) == (0, "")
    title, header, *lines = out.splitlines()
    assert "T = 3, clocked" in title
    assert "2 images, the middle 16 x 16, noise of sigma 15, seed 0" in title
    assert header.split()[0] == "image"
    assert [line.split()[0] for line in lines[:3]] == ["photo0", lines[1].split()[0], "mean"]
    assert len({len(line) for line in lines[:3]}) == 1
    assert "95 %" in lines[3]


def test_options_of_evaluate(run: Run, model: Path, photos: Path) -> None:
    def mean(*arguments: object) -> dict[str, float]:
        code, out, _ = run("evaluate", model, "--data", photos, "--limit", 1, "--json", *arguments)
        assert code == 0
        return json.loads(out)["mean"]

    usual = mean()
    assert mean() == usual
    assert mean("--sigma", 50)["degraded_psnr"] < usual["degraded_psnr"] - 8
    assert mean("--time-steps", 1)["snn_mj"] < usual["snn_mj"]
    assert mean("--seed", 1)["psnr"] != usual["psnr"]
    assert mean("--crop", 12)["ann_mj"] == pytest.approx(usual["ann_mj"] * 144 / 480)
    assert mean("--schedule", 1)["psnr"] != usual["psnr"]


def test_help_lists_every_test_set(run: Run) -> None:
    out = run("evaluate", "--help")[1]
    for task in TASKS.values():
        for name in task.testsets:
            assert name in " ".join(out.replace("│", " ").split())


def test_a_row_of_the_card_by_a_command(run: Run, model: Path, tmp_path: Path, photos: Path) -> None:
    folder, root = tmp_path / "mine", tmp_path / "data" / "denoise" / "set12"
    shutil.copytree(model, folder)
    root.mkdir(parents=True)
    for i in range(12):
        shutil.copy(photos / "photo0.png", root / f"{i:02}.png")
    arguments = ("evaluate", folder, "--data", "set12", "--data-root", tmp_path / "data", "--limit", 2)
    code, _, err = run(*arguments, "--card")
    assert (code, "has no card" in err) == (1, True)
    (folder / "README.md").write_text("# mine\n\n## Results\n")
    code, _, err = run("evaluate", folder, "--data", photos, "--card")
    assert (code, "--card is for test sets by name" in err) == (2, True)
    found = json.loads(run(*arguments, "--json")[1])["mean"]
    assert not (folder / "tests.json").exists()
    code, out, err = run(*arguments, "--json", "--card")
    assert (code, json.loads(out)["mean"]) == (0, found)
    assert err.endswith(f"note: the row is in {folder / 'tests.json'}, and in the card beside it\n")
    (row,) = read_tests(folder)
    assert (row.data, row.sigma, row.images, row.limit, row.network) == ("set12", 15, 2, 2, "snn.safetensors")
    assert (row.psnr, row.ann_psnr) == (found["psnr"], found["ann_psnr"])
    assert row.int8_twin_mj is not None
    assert f"| set12 (2 images) | 15 | T = 3, clocked | {row.degraded_psnr:.2f} |" in (folder / "README.md").read_text()


def test_photographs_without_clean_ones(run: Run, tmp_path: Path) -> None:
    for name in ("haze", "data/dehaze/real"):
        (tmp_path / name).mkdir(parents=True)
    save_pretrained(convert(AODNet(), torch.rand(1, 3, 16, 16)), tmp_path / "haze" / "snn.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "data/dehaze/real/fog.png")
    arguments = ("evaluate", tmp_path / "haze", "--data", "dehaze-real", "--data-root", tmp_path / "data")
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    header, *lines = out.splitlines()[1:]
    assert header.split()[:4] == ["image", "e", "r", "sigma"]
    assert [line.split()[0] for line in lines] == ["fog", "mean"]
    mean = json.loads(run(*arguments, "--json")[1])["mean"]
    assert lines[-1].split()[2] == number(mean["r"], 2)
    code, _, err = run(*arguments, "--sigma", 5)
    assert (code, "leave --sigma out" in err) == (2, True)


def test_what_was_not_trained_for_is_said(run: Run, model: Path, photos: Path) -> None:
    code, out, err = run("evaluate", model, "--data", photos, "--limit", 1, "--schedule", "phased", "--json")
    assert code == 0
    assert one_sentence(err)
    assert err.startswith("spikingir: note: mine has no network trained phased")
    assert json.loads(out)["schedule"] == "phased"
    assert err == f"spikingir: note: {json.loads(out)['notes'][0]}\n"


def test_evaluate_without_a_conventional_network(run: Run, tiny_model: Path, photos: Path) -> None:
    arguments = ("evaluate", tiny_model, "--data", photos, "--limit", 1, "--sigma", 25)
    assert json.loads(run(*arguments, "--json")[1])["mean"]["ann_psnr"] is None
    code, out, _ = run(*arguments)
    assert code == 0
    assert " - " in out


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["no-such-model", "--data", "{photos}"], 1, "no model 'no-such-model'"),
        (["{model}", "--data", "bsd6"], 1, "did you mean 'bsd68'"),
        (["{model}", "--data", "bsd68"], 1, "data root"),
        (["{model}", "--data", "sots-indoor", "--data-root", "{photos}"], 1, "to denoise"),
        (["{tiny}", "--data", "{photos}"], 2, "--sigma"),
        (["{haze}", "--data", "{photos}", "--sigma", "25"], 2, "leave --sigma out"),
        (["{model}", "--data", "polyu", "--sigma", "25"], 2, "have noise of their own, and none is added; leave"),
        (["{tiny}", "--data", "polyu"], 1, "data root"),
        (["{model}", "--data", "{small}"], 1, "11x11"),
        (["{model}", "--data", "{photos}", "--schedule", "7"], 1, "a delay of 7 does not fit"),
        (
            ["{model}", "--data", "{large}", "--max-megapixels", "1"],
            1,
            "2000 x 1000 are 2.0 megapixels, expected at most",
        ),
        (["{haze}", "--data", "{large}", "--max-megapixels", "1"], 1, "gt/1.png: 2000 x 1000 are 2.0 megapixels"),
    ],
)
def test_what_cannot_be_evaluated(
    run: Run,
    model: Path,
    tiny_model: Path,
    photos: Path,
    tmp_path: Path,
    arguments: list[str],
    exit_code: int,
    said: str,
) -> None:
    for name in ("haze", "small", "large/hazy", "large/gt"):
        (tmp_path / name).mkdir(parents=True)
    save_pretrained(convert(AODNet(), torch.rand(1, 3, 16, 16)), tmp_path / "haze" / "snn.safetensors")
    Image.fromarray(np.zeros((8, 30), np.uint8)).save(tmp_path / "small" / "small.png")
    for name, size in (("1", (2000, 1000)), ("hazy/1", (200, 100)), ("gt/1", (2000, 1000))):
        Image.new("RGB", size).save(tmp_path / "large" / f"{name}.png")
    folders = {name: tmp_path / name for name in ("haze", "small", "large")}
    places = {"model": model, "tiny": tiny_model, "photos": photos, **folders}
    code, out, err = run("evaluate", *(argument.format(**places) for argument in arguments))
    assert (code, out) == (exit_code, "")
    assert one_sentence(err)
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate"], "MODEL"),
        (["evaluate", "mine"], "--data"),
        (["evaluate", "mine", "--data", "set12", "--limit", "0"], "--limit"),
        (["evaluate", "mine", "--data", "set12", "--crop", "10"], "11"),
        (["evaluate", "mine", "--data", "set12", "--schedule", "fast"], "fast"),
        (["models", "all"], "all"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert one_sentence(err)
    assert said in err


def test_tables_align() -> None:
    assert table([["image", "dB"], ["a", number(30.125, 1)], ["bc", number(None, 1)]]) == (
        "image    dB\na      30.1\nbc        -"
    )
    assert table([["a", "x"], ["b", "long"]], words=2) == "a  x\nb  long"
