"""What activation bits cost is measured on the networks that each row names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reproduce import bits
from reproduce.bits import Row, measure, page
from spikingir.evaluation.evaluate import evaluate
from spikingir.evaluation.testsets import open_testset
from spikingir.restoration.restorer import Restorer
from spikingir.training.recipe import load_recipe
from spikingir.zoo.pretrained import load_ann, open_model

MODEL = "denoise-gray"


def test_each_choice_of_bits_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = load_recipe(MODEL).noise
    assert noise is not None
    folders = [tmp_path / name for name in ([noise.folder] if isinstance(noise.folder, str) else noise.folder)]
    photographs = tmp_path / "photographs"
    shades = np.linspace(40, 220, 72)
    for folder in (photographs, *folders):
        folder.mkdir(parents=True)
        for i in range(2):
            Image.fromarray(
                np.add.outer(shades, (10 + 20 * i) * np.sin(shades / 9)).clip(0, 255).astype(np.uint8)
            ).save(folder / f"{i}.png")
    monkeypatch.setattr(bits, "CHOICES", ((3, 3, 3), (6, 6, 6)))
    monkeypatch.setattr(bits, "SIGMAS", (25.0,))
    told: list[str] = []
    rows = measure(MODEL, str(photographs), tmp_path, limit=1, tell=told.append)
    assert told == [row.name for row in rows] == ["3, 3, 3", "6, 6, 6", "6, 4, 3, trained: what ships"]
    few, many, shipped = rows
    assert few.loss > many.loss
    assert few.mj < many.mj
    ann = load_ann(open_model(MODEL))
    pairs = open_testset(str(photographs), tmp_path, task="denoise", channels=1, sigma=25, limit=1)
    mean = evaluate(Restorer.from_pretrained(MODEL), pairs, ann).mean
    assert (shipped.psnr, shipped.loss, shipped.mj) == ((mean.psnr,), (mean.psnr_loss,), (mean.snn_mj,))


def test_the_page_shows_every_row() -> None:
    text = page(
        [Row("5, 4, 3", (31.0, 29.0, 26.0), (0.1, -0.2, 0.0), (6.0, 6.5, 7.0))], MODEL, "bsd68", "COMMAND", "1.0"
    )
    assert "`COMMAND`, version 1.0. `denoise-gray` on bsd68" in text
    assert text.splitlines()[-1] == "| 5, 4, 3 | 31.00 / 29.00 / 26.00 | 0.10 / -0.20 / 0.00 | 6.00 / 6.50 / 7.00 |"
