"""The smoke recipe, whole: every kind of stage on real images, and a model at the end."""

import json
from pathlib import Path

import pytest

from spikingir.cli import main
from spikingir.data.folders import list_images
from spikingir.training import follow as following


def test_smoke_recipe(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)  # compiling takes longer than all the rest
    monkeypatch.setattr(following, "list_images", lambda folder: list_images(folder)[::10])
    root = ("--data-root", str(data_root))
    assert main(["train", "smoke", *root, "--runs", str(tmp_path)]) == 0
    quality = {}
    for stage in ("ann", "qann", "snn"):
        log = tmp_path / "smoke" / stage / "log.jsonl"
        quality[stage] = json.loads(log.read_text().splitlines()[-1])["psnr"]
    assert quality["ann"] > 26  # noisy images have 20.2 dB
    assert min(quality.values()) > 23.5
    model = str(tmp_path / "smoke" / "model")
    assert main(["evaluate", model, "--data", "set12", *root, "--limit", "1", "--crop", "32"]) == 0
