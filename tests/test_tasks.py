"""A task is one record: what the package does with a new one, and that no other place asks which task it is."""

import ast
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import spikingir
from spikingir.cli import program
from spikingir.data.folders import list_images, read_gray, to_tensor
from spikingir.data.samples import Sample
from spikingir.data.sets import TestSet
from spikingir.data.testsets import Degradation, Reader, Request, TestPair
from spikingir.errors import InputError
from spikingir.evaluation.testsets import testset_names as names_of_testsets
from spikingir.networks import DnCNN
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.formation import IMAGE_FORMATIONS
from spikingir.store import save_network
from spikingir.tasks import TASKS, Task, find_task
from spikingir.zoo.pretrained import load_ann, open_model

Run = Callable[..., tuple[int, str, str]]


# The record, as somebody adds it


def dark_pair(path: Path) -> TestPair:
    clean = to_tensor(read_gray(path))
    return TestPair(path.stem, clean / 4, clean)


def dark_pairs(folder: Path, request: Request) -> list[Reader]:
    return [partial(dark_pair, path) for path in list_images(folder)]


def dark_sample() -> Sample:
    bright = torch.linspace(0.2, 0.9, 3 * 24 * 32).reshape(3, 24, 32)
    return Sample("dark", "a quarter of the light", bright, bright / 4)


BRIGHTEN = Task(
    name="brighten",
    done="brightened",
    removes="darkness",
    sigma_of=None,
    formations=(),
    default_models=("brighten",),
    conversion_rate=lambda psnr, ssim: ssim,
    degradation=lambda: Degradation((1,), dark_pairs, {"dusk": dark_pairs}, dark_sample),
    testsets={"dusk": TestSet("brighten/dusk", "dusk")},
)


@pytest.fixture
def brighten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, BRIGHTEN.name, BRIGHTEN)
    monkeypatch.setattr(program, "app", program.build())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(40, 256, (20, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def ship(folder: Path, photos: Path, run: Run) -> None:
    """A network that brightens, converted by the command line, in the folder of a model."""
    folder.mkdir()
    ann = DnCNN(layers=3, width=4)
    ann.reset_parameters(torch.Generator().manual_seed(0))
    save_network(ann, folder / "ann.safetensors")
    code, _, err = run("convert", folder / "ann.safetensors", "--data", photos, "-o", folder / "snn.safetensors")
    assert (code, err) == (0, "")
    variants = {"snn.safetensors": {"schedule": "clocked", "time_steps": 10}}
    config = {"name": folder.name, "task": "brighten", "channels": 1, "variants": variants}
    (folder / "config.json").write_text(json.dumps({**config, "default": "snn.safetensors"}))


@pytest.mark.usefixtures("brighten")
def test_a_new_task_is_one_record(tmp_path: Path, photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert, evaluate, restore, list, fine-tune and demonstrate, by the command line."""
    shipped = tmp_path / "models"
    shipped.mkdir()
    ship(shipped / "brighten", photos, run)
    monkeypatch.setattr("spikingir.zoo.catalogue.SHIPPED", shipped)

    code, out, err = run("evaluate", "brighten", "--data", photos, "--json")
    assert (code, err) == (0, "")
    mean, pairs = json.loads(out)["mean"], [dark_pair(path) for path in list_images(photos)]
    dark = np.mean([-10 * np.log10(np.mean((pair.clean - pair.degraded).numpy() ** 2)) for pair in pairs])
    assert mean["degraded_psnr"] == pytest.approx(dark, abs=1e-3)
    assert mean["conversion_rate_uncapped"] == pytest.approx(100 * mean["ssim"] / mean["ann_ssim"])
    code, _, err = run("evaluate", "brighten", "--data", photos, "--sigma", 5)
    assert (code, err) == (2, "spikingir: brighten removes darkness, to which no noise is added; leave --sigma out\n")
    code, _, err = run("evaluate", "brighten", "--data", "bsd68", "--data-root", tmp_path)
    assert (code, err) == (1, "spikingir: test set bsd68 is to denoise; to brighten, expected dusk, or a folder\n")
    assert names_of_testsets()[-1] == "dusk"

    code, out, err = run("brighten", photos / "0.png", "--strength", 0.5)
    assert (code, err) == (0, "")
    assert out.startswith(f"{photos / '0_brightened.png'}: no darkness found; the file is copied as it is (24 x 20, ")
    wanted = Restorer.from_pretrained("brighten")(Image.open(photos / "0.png"), strength=0.5)
    assert np.array_equal(np.asarray(Image.open(photos / "0_brightened.png")), np.asarray(wanted))
    assert run("brighten", photos / "0.png", "--sigma", 5)[0] == 2

    assert "darkness in gray images" in run("models")[1]
    assert load_ann(open_model("brighten")) is not None
    assert "Remove darkness from photographs" in run("brighten", "--help")[1]
    code, _, err = run("finetune", "brighten", "--data", photos, "--runs", tmp_path / "runs")
    assert (code, err) == (1, "spikingir: brighten is to brighten; models to denoise or dehaze alone are fine-tuned\n")
    code, out, _ = run("demo", "--task", "brighten", "-o", tmp_path / "demo")
    assert code == 0
    assert out.splitlines()[1].startswith("dark ")
    assert (tmp_path / "demo" / "dark.png").is_file()


def test_without_a_record_there_is_no_task(photos: Path, run: Run) -> None:
    assert run("brighten", photos)[0] == 2
    code, _, err = run("demo", "--task", "brighten")
    assert code == 2
    assert "Must be denoise or dehaze" in err
    with pytest.raises(InputError, match="the task is 'brighten'; expected denoise or dehaze"):
        find_task("brighten")


def test_every_image_formation_tells_one_task() -> None:
    told = [formation for task in TASKS.values() for formation in task.formations]
    assert sorted(told) == sorted(IMAGE_FORMATIONS)


# Where a task is still told by its name: the paper's reproduction, whose models and tables have names, and the page,
# which is written anew
NAMED = {"ablation.py", "contenders.py", "sections.py", "reproduce.py", "paper.py", "service.py", "tasks.py"}


def test_no_other_place_asks_which_task_it_is() -> None:
    source = Path(spikingir.__file__).parent
    names = set(TASKS)
    asking = {
        f"{path.relative_to(source)}:{node.lineno}"
        for path in source.rglob("*.py")
        if path.name not in NAMED
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert not asking
