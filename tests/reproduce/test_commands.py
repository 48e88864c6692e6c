"""The commands of ``python -m reproduce``."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import reproduce
from spikingir.cli import console, main
from spikingir.conversion.convert import convert
from spikingir.files import locked
from spikingir.networks import AODNet
from spikingir.store import from_pretrained, save_pretrained

ROOT = Path(reproduce.__file__).parents[1]
GRID = ("benchmark", "denoise-gray-25", "--data", "set12", "--method", "ann")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("SPIKINGIR_DATA", raising=False)

    def call(*arguments: object, commands: str = "reproduce.commands") -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments], commands)
        found = capsys.readouterr()
        return code, found.out, found.err

    return call


@pytest.mark.parametrize("missing", ["matplotlib", "skimage"])
def test_a_missing_extra_is_named_before_the_work(
    run: Run, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "find_spec", lambda name: None if name == missing else object())
    code, out, err = run("all", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert err.endswith("pip install 'spikingir[plot]'\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_benchmark(run: Run, tmp_path: Path, models: Path, collection: Path) -> None:
    places = ("--models", models, "--data-root", collection, "--weights", tmp_path / "weights", "--out", tmp_path)
    setting = (*places, "--limit", 2, "--crop", 12)
    grid = ("denoise-gray-25", "--data", "bsd68", "set12", "--method", "ann", "spikingir", "control")
    code, out, err = run("benchmark", *grid, "--time-steps", 2, 4, *setting)
    assert code == 1
    assert err.endswith("spikingir: 2 of 8 could not be measured\n")  # the control, on either set
    assert "SpikingIR, clocked, T = 2" in out
    assert "not measured: ANN, trained on (control)" in err
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {result["cell"]["data"] for result in results} == {"bsd68", "set12"}
    _, again, quiet = run("benchmark", *grid, "--time-steps", 2, 4, *setting)
    assert again == out
    assert "s)" not in quiet  # all was kept
    own = ("denoise-gray-25", "--data", "set12", "--method", "spikingir", "phased")
    assert [f"T = {steps}" in run("benchmark", *own, *setting)[1] for steps in (4, 3)] == [True, True]
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [row["time_steps"] for row in csv.DictReader(file)] == ["4", "3"]


def test_wrong_usage(run: Run, tmp_path: Path, models: Path, collection: Path) -> None:
    code, _, err = run("table2", "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "give its folder with --data-root" in err
    assert run("table9")[0] == 2
    for given, wanted in (((), "python -m reproduce needs TARGET ("), (("ablate", "x"), "ablate needs --data (")):
        assert f"spikingir: {wanted}" in run(*given)[2]
    code, _, err = run("table1", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (1, 1)
    arguments = ("benchmark", "denoise-gray-25", "--data", "bsd68", "--models", models, "--data-root", collection)
    code, _, err = run(*arguments, "--method", "magic", "--out", tmp_path)
    assert code == 2
    assert "unknown method 'magic'" in err
    code, _, err = run("benchmark", "nothing", "--data", "bsd68", "--method", "ann", "--out", tmp_path)
    assert code == 1
    assert "there is no model 'nothing'" in err
    for name in ("denoise-gray-x", "denoise-gray--5", "denoise-gray-nan"):
        assert "there is no model" in run("benchmark", name, "--data", "bsd68", "--method", "ann", "--out", tmp_path)[2]
    code, _, err = run("table2", "--data-root", collection, "--docs", tmp_path / "report")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected a file such as" in err
    code, _, err = run("table2", "--data-root", collection, "--models", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "is no folder" in err


def test_reports(run: Run, tmp_path: Path, models: Path, collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproduce.report.DENOISERS", ("denoise-gray-25",))
    monkeypatch.setattr("reproduce.report.DEHAZER", "denoise-gray-99")
    setting = ("--models", models, "--data-root", collection, "--limit", 2, "--crop", 12, "--out", tmp_path)
    docs = tmp_path / "docs" / "results.md"
    code, out, _ = run("ablation", *setting, "--docs", docs)
    assert code == 0
    assert out.split() == [str(tmp_path / "results.html"), str(docs)]
    assert "(results/membranes-denoise-gray-25.svg)" in docs.read_text(encoding="utf-8")
    assert "data:image/svg+xml" in (tmp_path / "results.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--help"], ["benchmark", "--help"], ["ablate", "--help"]])
def test_help_loads_no_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; from spikingir.cli import main; main({arguments}, 'reproduce.commands');"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"Usage: python -m reproduce" in done.stdout


@pytest.mark.parametrize("what", [GRID, ("ablation",)], ids=["benchmark", "report"])
def test_a_second_run_over_the_same_folder_is_refused(
    run: Run,
    tmp_path: Path,
    models: Path,
    collection: Path,
    what: tuple[str, ...],
) -> None:
    arguments = (*what, "--models", models, "--data-root", collection, "--limit", 2, "--crop", 12)
    with locked(tmp_path / "cells"):
        code, out, err = run(*arguments, "--out", tmp_path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"cells is in use by process {os.getpid()} on " in err
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize(("what", "name"), [(GRID, "results.csv"), (("ablation",), "results.html")])
def test_results_replace_no_input(
    run: Run,
    tmp_path: Path,
    models: Path,
    collection: Path,
    what: tuple[str, ...],
    name: str,
) -> None:
    arguments = (*what, "--models", models, "--data-root", collection, "--limit", 2, "--crop", 12)
    for precious, said in (
        (models / "denoise-gray-25" / "snn.safetensors", "itself one of the inputs"),
        (next(collection.rglob("*.png")), "is a link to a photograph"),
    ):
        before = precious.read_bytes()
        (tmp_path / name).symlink_to(precious)
        code, out, err = run(*arguments, "--out", tmp_path)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert said in err
        assert precious.read_bytes() == before
        (tmp_path / name).unlink()


def one_sentence(err: str) -> bool:
    return err.startswith("spikingir: ") and err.count("\n") == 1 and err.endswith("\n")


@pytest.fixture
def photos(collection: Path) -> Path:
    return collection / "denoise" / "set12"


def test_ablation(run: Run, models: Path, photos: Path) -> None:
    arguments = (models / "denoise-gray-25", "--data", photos, "--limit", 1, "--time-steps", 2)
    code, out, err = run("ablate", *arguments)
    assert (code, err) == (0, "")
    assert "T = 2, clocked" in out
    assert "photographs of scikit-image" in out
    found = json.loads(run("ablate", *arguments, "--json")[1])
    assert found["time_steps"] == 2
    for row in found["rows"]:
        (line,) = [line for line in out.splitlines() if line.startswith(f"{row['name']}  ")]
        assert f"{row['mean']['psnr']:.2f}" in line
    shipped = json.loads(run("evaluate", *arguments, "--json", commands="spikingir.cli.program")[1])
    assert found["rows"][-1]["mean"] == shipped["mean"]
    assert found["notes"] == []


def test_what_the_phased_schedule_leaves_out_of_an_ablation_is_said(
    run: Run, models: Path, photos: Path, tmp_path: Path
) -> None:
    model = models / "denoise-gray-25"
    (tmp_path / "ann.safetensors").write_bytes((model / "ann.safetensors").read_bytes())
    phased = from_pretrained(model / "snn.safetensors").at(schedule="phased")
    save_pretrained(phased, tmp_path / "snn.safetensors")
    code, out, err = run("ablate", tmp_path, "--data", photos, "--limit", 1, "--sigma", 15, "--json")
    assert code == 0
    assert one_sentence(err)
    assert "phased schedule" in err
    assert [f"spikingir: note: {note}\n" for note in json.loads(out)["notes"]] == [err]


def test_what_cannot_be_ablated(run: Run, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    code, _, err = run("ablate", tiny_model, "--data", photos, "--sigma", 25)
    assert code == 1
    assert "ann.safetensors" in err
    save_pretrained(convert(AODNet(), torch.rand(1, 3, 16, 16)), tmp_path / "snn.safetensors")
    code, _, err = run("ablate", tmp_path, "--data", photos)
    assert code == 1
    assert "no denoiser" in err
    code, _, err = run("ablate", "mine", "--data", "set12", "--time-steps", 0)
    assert code == 2
    assert "--time-steps" in err
    assert one_sentence(err)


def test_the_checkout_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reproduce", "table2"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "SPIKINGIR_DATA"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert one_sentence(done.stderr)
    assert "--data-root" in done.stderr
