"""The commands that measure many networks."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spikingir.cli import main
from spikingir.files import locked
from tests.evaluation.conftest import collection, models  # noqa: F401

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("SPIKINGIR_DATA", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        found = capsys.readouterr()
        return code, found.out, found.err

    return call


def test_benchmark(run: Run, tmp_path: Path, models: Path, collection: Path) -> None:  # noqa: F811
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


def test_wrong_usage(run: Run, tmp_path: Path, models: Path, collection: Path) -> None:  # noqa: F811
    code, _, err = run("reproduce", "table2", "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "give its folder with --data-root" in err
    assert run("reproduce", "table9")[0] == 2
    code, _, err = run("reproduce", "table1", "--data-root", tmp_path, "--out", tmp_path / "out")
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
    code, _, err = run("reproduce", "table2", "--data-root", collection, "--docs", tmp_path / "report")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected a file such as" in err
    code, _, err = run("reproduce", "table2", "--data-root", collection, "--models", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "is no folder" in err


def test_reports(run: Run, tmp_path: Path, models: Path, collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("spikingir.evaluation.reproduce.DENOISERS", ("denoise-gray-25",))
    monkeypatch.setattr("spikingir.evaluation.reproduce.DEHAZER", "denoise-gray-99")
    setting = ("--models", models, "--data-root", collection, "--limit", 2, "--crop", 12, "--out", tmp_path)
    docs = tmp_path / "docs" / "results.md"
    code, out, _ = run("reproduce", "ablation", *setting, "--docs", docs)
    assert code == 0
    assert out.split() == [str(tmp_path / "results.html"), str(docs)]
    assert "(results/membranes-denoise-gray-25.svg)" in docs.read_text(encoding="utf-8")
    assert "data:image/svg+xml" in (tmp_path / "results.html").read_text(encoding="utf-8")


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from spikingir.cli import main; main(['reproduce', '--help']);"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("command", ["benchmark", "reproduce"])
def test_a_second_run_over_the_same_folder_is_refused(
    run: Run,
    tmp_path: Path,
    models: Path,  # noqa: F811
    collection: Path,  # noqa: F811
    command: str,
) -> None:
    what = ("denoise-gray-25", "--data", "set12", "--method", "ann") if command == "benchmark" else ("ablation",)
    arguments = (command, *what, "--models", models, "--data-root", collection, "--limit", 2, "--crop", 12)
    with locked(tmp_path / "cells"):
        code, out, err = run(*arguments, "--out", tmp_path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"cells is in use by process {os.getpid()} on " in err
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize(("command", "name"), [("benchmark", "results.csv"), ("reproduce", "results.html")])
def test_results_replace_no_input(
    run: Run,
    tmp_path: Path,
    models: Path,  # noqa: F811
    collection: Path,  # noqa: F811
    command: str,
    name: str,
) -> None:
    what = ("denoise-gray-25", "--data", "set12", "--method", "ann") if command == "benchmark" else ("ablation",)
    arguments = (command, *what, "--models", models, "--data-root", collection, "--limit", 2, "--crop", 12)
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
