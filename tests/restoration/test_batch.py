"""What is done with what is found: a photograph with nothing to remove stays as it was, and scripts are told."""

import json
import re
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.cli import main
from spikingir.conversion.convert import convert
from spikingir.networks.dncnn import DnCNN
from spikingir.photo.formats import FORMATS
from spikingir.photo.images import read_image
from spikingir.restoration.restorer import Restorer
from spikingir.store import save_pretrained

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]

RECORD = [
    *(
        "input",
        "output",
        "comparison",
        "model",
        "clock",
        "sigma",
        "strength",
        "finding",
        "found",
        "removed_rms",
        "bands",
    ),
    *("copied", "done_before", "seconds", "size", "megapixels", "notes", "error"),
]


def model(folder: Path, scale: float) -> Path:
    """A network whose residual is a random one, times ``scale``."""
    network = DnCNN(layers=3, width=4).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.4)
        for parameter in list(network.body[-1].parameters()):
            parameter.mul_(scale)
    images = torch.rand(2, 1, 16, 16, generator=generator)
    folder.mkdir()
    save_pretrained(convert(network, images, time_steps=3), folder / "snn.safetensors")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that finds nothing in any photograph, and one that finds much in all."""
    folder = tmp_path_factory.mktemp("models")
    model(folder / "nothing", 1e-5)
    model(folder / "much", 0.005)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(format: str) -> bytes:
    """A photograph with what restoring would lose or change: EXIF with a turn, a comment or two pictures."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A camera", 6
    more = {
        "PNG": {"exif": exif},
        "JPEG": {"exif": exif, "comment": b"by hand", "quality": 70},
        "TIFF": {"save_all": True, "append_images": [image]},
        "WebP": {"exif": exif, "quality": 50},
        "BMP": {},
    }
    file = BytesIO()
    image.save(file, format, **more[format])
    return file.getvalue()


@pytest.mark.parametrize("format", [format.name for format in FORMATS.values()])
def test_where_nothing_is_found_the_file_is_copied(run: Run, here: Path, models: Path, format: str) -> None:
    path = here / f"photo.{format.lower()}"
    path.write_bytes(content(format))
    code, out, err = run("denoise", path.name, "--model", models / "nothing")
    assert (code, err) == (0, "")
    assert out.startswith(f"photo_denoised.{format.lower()}: no noise found; the file is copied as it is (")
    assert out.count("\n") == 1
    assert (here / f"photo_denoised.{format.lower()}").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--format", "tiff"), "photo_denoised.tif"),
        (("-o", "other.png"), "other.png"),
        (("--strip-metadata",), "photo_denoised.jpg"),
        (("--quality", 90), "photo_denoised.jpg"),
    ],
)
def test_another_file_is_made_of_the_untouched_pixels(
    run: Run, here: Path, models: Path, options: tuple[object, ...], name: str
) -> None:
    (here / "photo.jpg").write_bytes(content("JPEG"))
    code, out, _ = run("denoise", "photo.jpg", "--model", models / "nothing", *options)
    assert code == 0
    assert "no noise found; the picture is written as it was (" in out
    before, after = read_image(here / "photo.jpg"), read_image(here / next(here.glob(f"{Path(name).stem}.*")))
    error = np.abs(before.pixels - after.pixels)
    assert error.mean() < 0.03 if name == "photo_denoised.jpg" else error.max() == 0
    assert (after.exif is None) == ("--strip-metadata" in options)


def test_what_is_found_is_removed_and_said(run: Run, here: Path, models: Path) -> None:
    (here / "photo.png").write_bytes(content("PNG"))
    code, out, err = run("denoise", "photo.png", "--model", models / "much", "--compare")
    assert (code, err) == (0, "")
    before, after = read_image(here / "photo.png"), read_image(here / "photo_denoised.png")
    rms = 255 * float(np.sqrt(np.square(before.pixels - after.pixels).mean()))
    assert rms > 2
    assert f"noise about {rms:.0f} levels" in out
    assert "; removed (12 x 16, " in out
    assert str(Restorer.from_pretrained(models / "much").trace(before)[1].finding) in out


def test_a_given_level_is_heard_whatever_is_found(run: Run, here: Path, models: Path) -> None:
    """Who says how noisy a photograph is gets what the network makes of it; ``test_choice`` has the networks."""
    (here / "photo.png").write_bytes(content("PNG"))
    restored = run("denoise", "photo.png", "--sigma", 1, "--json")
    assert restored[0] == 0
    record = json.loads(restored[1])
    assert record["copied"] is False
    assert re.fullmatch(r"noise about .* levels?.*; removed", record["finding"])
    assert (here / "photo_denoised.png").read_bytes() != (here / "photo.png").read_bytes()


def test_strength_0_leaves_the_photograph(run: Run, here: Path, models: Path) -> None:
    (here / "photo.png").write_bytes(content("PNG"))
    code, out, _ = run("denoise", "photo.png", "--model", models / "much", "--strength", 0)
    assert code == 0
    assert "nothing removed at strength 0; the file is copied as it is" in out
    assert (here / "photo_denoised.png").read_bytes() == (here / "photo.png").read_bytes()


def test_a_small_strength_does_not_hide_the_noise(run: Run, here: Path, models: Path) -> None:
    (here / "photo.png").write_bytes(content("PNG"))
    full = run("denoise", "photo.png", "--model", models / "much", "--json")[1]
    code, out, _ = run("denoise", "photo.png", "--model", models / "much", "--json", "--strength", 0.01, "--overwrite")
    assert code == 0
    full, little = json.loads(full), json.loads(out)
    assert little["found"] is True
    assert little["finding"].endswith("; 1 % of it removed")
    assert little["removed_rms"] == pytest.approx(full["removed_rms"] / 100, rel=0.05)


def test_json_lines(run: Run, here: Path, models: Path) -> None:
    """One object a line and photograph, all of the same keys, in the order of the photographs; errors too."""
    (here / "photos").mkdir()
    (here / "photos" / "a.png").write_bytes(content("PNG"))
    (here / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (here / "photos" / "c\n.jpg").write_bytes(content("JPEG"))
    code, out, err = run("denoise", "photos", "-o", "out", "--model", models / "much", "--json")
    assert (code, err.splitlines()[-1]) == (1, "spikingir: 1 of 3 failed")
    a, broken, c = map(json.loads, out.splitlines())
    assert all(list(record) == RECORD for record in (a, broken, c))
    assert (a["input"], a["output"], a["model"]) == ("photos/a.png", "out/a_denoised.png", str(models / "much"))
    assert a["finding"].startswith("noise about ")
    assert (a["found"], a["copied"], a["error"], a["notes"]) == (True, False, None, [])
    assert list(a["bands"]) == ["shadows", "midtones", "highlights"]
    assert a["removed_rms"] > 2
    assert (a["size"], a["megapixels"]) == ([12, 16], 0.000192)
    assert a["seconds"] > 0
    assert "damaged" in broken["error"]
    assert (broken["output"], broken["found"], broken["removed_rms"], broken["bands"]["shadows"]) == (None,) * 4
    assert c["output"] == "out/c\n_denoised.jpg"
    assert "a comment" in c["notes"][0]
    again = run("denoise", "photos/a.png", "photos/c\n.jpg", "-o", "out", "--model", models / "much", "--json")
    assert [json.loads(line)["done_before"] for line in again[1].splitlines()] == [True, True]


def test_the_documentation_lists_the_keys_of_a_record(run: Run, here: Path, models: Path) -> None:
    (here / "photo.png").write_bytes(content("PNG"))
    out = run("denoise", "photo.png", "--model", models / "much", "--json", "--verbose")[1]
    table = (ROOT / "docs/scripts.md").read_text(encoding="utf-8").partition("| Key | Value |")[2].partition("\n\n")[0]
    documented = [key for row in table.splitlines() if "|" in row for key in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert documented == list(json.loads(out))
    assert list(RECORD) == documented[: len(RECORD)]


def test_json_and_report_say_the_same(run: Run, here: Path, models: Path) -> None:
    (here / "photo.png").write_bytes(content("PNG"))
    out = run("denoise", "photo.png", "--model", models / "much", "--json", "--report", "report.json")[1]
    (entry,) = json.loads((here / "report.json").read_text())["images"]
    assert json.loads(out) == entry
    assert entry["snn_mj"] > 0
    assert set(entry) > set(RECORD)


@pytest.mark.parametrize("arguments", [("-",), ("photo.png", "-o", "-")])
def test_json_and_a_result_do_not_share_stdout(run: Run, here: Path, arguments: tuple[str, ...]) -> None:
    (here / "photo.png").write_bytes(content("PNG"))
    code, out, err = run("denoise", *arguments, "--json")
    assert (code, out) == (2, "")
    assert "--json prints on stdout, where the result goes, too; give a file with -o" in err


def test_a_stream_in_which_nothing_is_found_is_passed_on(
    here: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=BytesIO(content("JPEG"))))
    assert main(["denoise", "-", "-o", "-", "--model", str(models / "nothing")]) == 0
    out, err = capfdbinary.readouterr()
    assert out == content("JPEG")
    assert err == b"spikingir: note: -: no noise found; the file is copied as it is\n"
