"""Which restorer a photograph gets, from models that ship: the default of a task, the one for a noise level."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.cli import main
from spikingir.conversion.convert import convert
from spikingir.errors import UsageError
from spikingir.inputs import with_level
from spikingir.measures import psnr
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.photo.images import read_image
from spikingir.photo.photo import Photo
from spikingir.restoration.choice import AUTO, Chooser, Wishes
from spikingir.restoration.demo import demo_model, run_demo
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.network import SpikingNetwork
from spikingir.store import save_pretrained
from spikingir.tasks import DEHAZE, DENOISE, TASKS
from spikingir.zoo.catalogue import default_model
from spikingir.zoo.pretrained import open_model

Run = Callable[..., tuple[int, str, str]]


def network(channels: int, form: str) -> SpikingNetwork:
    ann = MultiScaleNet(channels=channels, width=4, blocks=(0, 1), form=form).eval()
    ann.reset_parameters(torch.Generator().manual_seed(channels))
    for parameter in ann.parameters():
        parameter.data.add_(0.05)  # so that all removes something
    images = torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    return convert(ann, with_level(images, 0.1) if form == "level" else images, time_steps=2, schedule="phased")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models as they will ship, but tiny and untrained."""
    folder = tmp_path_factory.mktemp("models")
    for name, task, channels, form, extra in (
        ("denoise-photo", "denoise", 3, "residual", {}),
        ("denoise-color", "denoise", 3, "level", {"sigma": [0, 75], "takes_level": True}),
        ("denoise-gray", "denoise", 1, "level", {"sigma": [0, 75], "takes_level": True}),
        ("denoise-gray-25", "denoise", 1, "residual", {"sigma": 25}),
        ("dehaze-aodnet", "dehaze", 3, "soft", {}),
        ("dehaze", "dehaze", 3, "soft", {}),
    ):
        (folder / name).mkdir()
        save_pretrained(network(channels, form), folder / name / "snn.safetensors")
        variants = {"snn.safetensors": {"schedule": "phased", "time_steps": 2}}
        config = {"name": name, "task": task, "channels": channels, "variants": variants, "default": "snn.safetensors"}
        (folder / name / "config.json").write_text(json.dumps(config | extra))
    return folder


@pytest.fixture
def ship(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets these models alone ship; all unless named."""

    def call(*names: str) -> None:
        shipped = tmp_path / "shipped"
        shipped.mkdir()
        for path in models.iterdir():
            if path.name in names or not names:
                (shipped / path.name).symlink_to(path)
        monkeypatch.setattr("spikingir.zoo.catalogue.SHIPPED", shipped)

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A colour photograph, a gray one, and a gray one with three equal channels; noise of sigma 20 on gray."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noisy = np.random.default_rng(0).normal(128, 20, (48, 40, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(folder / "colour.png")
    Image.fromarray(noisy[..., 0]).save(folder / "gray.png")
    Image.fromarray(noisy[..., [0, 0, 0]]).save(folder / "equal.png")
    return folder


def photo(photos: Path, name: str = "colour") -> Photo:
    return read_image(photos / f"{name}.png")


@pytest.mark.parametrize(
    ("shipped", "denoiser", "dehazer"),
    [
        ((), "denoise-photo", "dehaze"),
        (("denoise-color", "denoise-gray-25", "dehaze-aodnet"), "denoise-color", "dehaze-aodnet"),
        (("denoise-gray", "denoise-gray-25", "dehaze-aodnet"), "denoise-gray-25", "dehaze-aodnet"),
        (("denoise-gray",), "denoise-gray-25", "dehaze-aodnet"),  # that there is none is said when it is opened
    ],
)
def test_the_default_is_the_first_that_ships(
    shipped: tuple[str, ...], denoiser: str, dehazer: str, ship: Callable[..., None]
) -> None:
    ship(*shipped)
    assert (default_model(DENOISE), default_model(DEHAZE)) == (denoiser, dehazer)


@pytest.mark.parametrize(
    ("shipped", "wishes", "name", "model", "level", "noted"),
    [
        ((), {}, "colour", "denoise-photo", None, ""),
        ((), {"sigma": 25}, "colour", "denoise-color", 25, ""),
        ((), {"sigma": 25}, "gray", "denoise-gray", 25, ""),
        ((), {"sigma": 25}, "equal", "denoise-gray", 25, ""),
        ((), {"sigma": 0}, "gray", "denoise-gray", 0, ""),
        ((), {"sigma": 90}, "gray", "denoise-gray", 90, "trained for sigma 0 to 75"),
        ((), {"sigma": "auto"}, "colour", "denoise-color", ..., "estimated at sigma"),
        ((), {"model": "denoise-color"}, "gray", "denoise-color", ..., ""),
        ((), {"model": "denoise-color", "sigma": 7}, "gray", "denoise-color", 7, ""),
        ((), {"task": "dehaze"}, "colour", "dehaze", None, "a new network"),
        (("denoise-gray-25",), {}, "colour", "denoise-gray-25", None, ""),
        (("denoise-gray-25",), {"sigma": 25}, "colour", "denoise-gray-25", None, ""),
        (("denoise-gray-25",), {"sigma": 30}, "colour", "denoise-gray-25", None, "no model ships for sigma 30"),
        (("denoise-gray-25",), {"sigma": "auto"}, "gray", "denoise-gray-25", None, "the nearest model is"),
        (("denoise-color",), {}, "colour", "denoise-color", ..., ""),
        (("denoise-gray", "denoise-gray-25"), {"sigma": 9}, "colour", "denoise-gray", 9, ""),
    ],
)
def test_choice(
    shipped: tuple[str, ...],
    wishes: dict[str, Any],
    name: str,
    model: str,
    level: Any,
    noted: str,
    ship: Callable[..., None],
    photos: Path,
) -> None:
    ship(*shipped)
    choice = Chooser(Wishes(**{"model": AUTO, **wishes}))(photo(photos, name))
    assert choice.model == model
    notes = [*choice.notes, *choice.photo_notes]
    assert len(notes) == bool(noted)
    assert noted in "".join(notes)
    if level is ...:
        assert choice.level == choice.sigma == pytest.approx(20, rel=0.1)
    else:
        assert choice.level == level
    choice.restorer(photo(photos, name), sigma=choice.level)  # the network takes just that


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"model": "denoise-photo", "sigma": 5}, "denoise-photo is not told the noise level; leave --sigma out"),
        ({"model": "denoise-gray-25", "sigma": "auto"}, "denoise-gray-25 is not told the noise level"),
        ({"strength": 1.5}, "strength is 1.5; expected 0 to 1: denoise-photo .* removed; give .* with --sigma$"),
        ({"task": "dehaze", "strength": 2}, "strength is 2; expected 0 to 1: dehaze .* could be removed$"),
    ],
)
def test_what_a_model_does_not_take(wishes: dict[str, Any], said: str, ship: Callable[..., None], photos: Path) -> None:
    ship()
    with pytest.raises(UsageError, match=said):
        Chooser(Wishes(**{"model": AUTO, **wishes}))(photo(photos))


def test_a_network_alone_says_whether_it_is_told_the_level(models: Path) -> None:
    told = {
        name: open_model(models / name / "snn.safetensors") for name in ("denoise-color", "dehaze", "denoise-photo")
    }
    assert {name: (model.task, model.takes_level) for name, model in told.items()} == {
        "denoise-color": ("denoise", True),
        "dehaze": ("dehaze", False),
        "denoise-photo": ("denoise", False),
    }


def test_the_command_line_restores_as_the_restorer_does(
    ship: Callable[..., None], photos: Path, tmp_path: Path, models: Path, run: Run
) -> None:
    """Sigma and strength reach the network."""
    ship()
    for options, name, model, call in (
        ((), "colour", "denoise-photo", {}),
        (("--strength", 0.25), "colour", "denoise-photo", {"strength": 0.25}),
        (("--sigma", 40), "colour", "denoise-color", {"sigma": 40}),
        (("--sigma", 40, "--strength", 1.5), "gray", "denoise-gray", {"sigma": 40, "strength": 1.5}),
        (("--sigma", 40, "--model", models / "denoise-color"), "gray", "denoise-color", {"sigma": 40}),
    ):
        out, report = tmp_path / "out.png", tmp_path / "report.json"
        given = ("-o", out, "--report", report, "--overwrite", "--engine", "torch", *options)
        assert run("denoise", photos / f"{name}.png", *given)[::2] == (0, "")
        wanted = np.asarray(Restorer.from_pretrained(models / model)(Image.open(photos / f"{name}.png"), **call))
        assert np.array_equal(np.asarray(Image.open(out)), wanted)
        assert not np.array_equal(wanted, np.asarray(Image.open(photos / f"{name}.png")))
        (entry,) = json.loads(report.read_text())["images"]
        assert (Path(entry["model"]).name, entry["sigma"]) == (model, call.get("sigma"))
        assert entry["strength"] == call.get("strength", 1)


@pytest.mark.parametrize(
    ("shipped", "task", "model"),
    [
        ((), "denoise", "denoise-color"),
        (("denoise-photo", "denoise-gray-25"), "denoise", "denoise-gray-25"),
        ((), "dehaze", "dehaze"),
        (("dehaze-aodnet",), "dehaze", "dehaze-aodnet"),
    ],
)
def test_the_demonstration_takes_the_model_for_its_sample(
    shipped: tuple[str, ...], task: str, model: str, ship: Callable[..., None]
) -> None:
    ship(*shipped)
    sample = TASKS[task].degradation().sample()
    assert demo_model(task, sample) == model


def test_the_demonstration_tells_the_level(ship: Callable[..., None], tmp_path: Path, models: Path) -> None:
    ship()
    found = run_demo(tmp_path / "demo", task="denoise")
    wanted = Restorer.from_pretrained(models / "denoise-color")(found.sample.degraded, sigma=25)
    assert found.restored_db == pytest.approx(psnr(wanted[None], found.sample.original[None]).item())


def test_wrong_use_ends_with_2(ship: Callable[..., None], photos: Path, tmp_path: Path, run: Run) -> None:
    ship()
    for options in (("--sigma", 5, "--model", "denoise-photo"), ("--strength", 3)):
        code, _, err = run("denoise", photos, "-o", tmp_path / "out", *options)
        assert (code, err.count("\n")) == (2, 1)
        assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("command", "model", "removes"), [("denoise", "dehaze", "haze"), ("dehaze", "denoise-photo", "noise")]
)
def test_a_model_for_another_task_is_refused(
    command: str,
    model: str,
    removes: str,
    ship: Callable[..., None],
    models: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ship()
    other = "dehaze" if command == "denoise" else "denoise"
    for named in (model, str(models / model)):
        assert main([command, str(photos / "colour.png"), "--model", named]) == 2
        assert capsys.readouterr() == ("", f"spikingir: {named} removes {removes}; run spikingir {other} with it\n")


def test_that_a_name_is_another_networks_is_told_once(
    ship: Callable[..., None],
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Once on a machine, to people; each time, to programs."""
    ship()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    run = ["dehaze", str(photos / "colour.png"), "--overwrite"]
    assert [(main(run), "is a new network" in capsys.readouterr().err) for _ in range(3)] == [
        (0, True),
        (0, False),
        (0, False),
    ]
    assert main([*run, "--json"]) == 0
    assert "is a new network" in json.loads(capsys.readouterr().out)["notes"][0]
