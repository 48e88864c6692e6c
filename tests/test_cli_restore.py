"""Many photographs on the command line: where results go, what is said of them, and what failures do."""

import errno
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from spikingir import files
from spikingir.cli import console, main
from spikingir.cli.program import app
from spikingir.deploy import engine
from spikingir.deploy.folded import FoldedNetwork
from spikingir.photo.formats import HEAD
from spikingir.photo.images import ImageError, read_image
from spikingir.photo.photo import Photo
from spikingir.restoration import sigma
from spikingir.restoration.choice import Choice, Chooser
from spikingir.restoration.restorer import Restorer
from spikingir.zoo.catalogue import SHIPPED, Model

CAMERA = 0x010F
ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def denoise(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Run:
    """Exit code, stdout and stderr of ``spikingir denoise`` with a tiny model; never a traceback."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["denoise", *(str(argument) for argument in arguments), "--model", str(tiny_model)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two photographs and one broken file in a tree, to work in."""
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    picture(0).save(tmp_path / "photos" / "a.png")
    picture(1).save(tmp_path / "photos" / "sub" / "b.jpg")
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def test_a_folder_of_which_one_fails(denoise: Run, here: Path) -> None:
    code, out, err = denoise("photos", "-o", "out")
    assert code == 1
    assert below(here / "out") == {"a_denoised.png", "sub/b_denoised.jpg"}
    first, second = out.splitlines()
    assert first.startswith("out/a_denoised.png: noise about ")
    assert "; removed (16 x 12, " in first
    assert second.startswith("out/sub/b_denoised.jpg: ")
    failure, summary = err.splitlines()
    assert failure.startswith("spikingir: photos/broken.png is a damaged PNG file")
    assert summary == "spikingir: 1 of 3 failed"


def test_all_of_several_done(denoise: Run, here: Path) -> None:
    code, out, err = denoise("photos/a.png", "photos/sub/b.jpg")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 2
    assert (here / "photos" / "sub" / "b_denoised.jpg").exists()


def test_a_second_run_has_nothing_left_to_do(denoise: Run, here: Path) -> None:
    (here / "photos" / "broken.png").unlink()
    arguments = ("photos", "-o", "out", "--report", "report.json", "--overwrite")
    assert denoise(*arguments)[0] == 0
    before = {name: (here / "out" / name).stat().st_mtime_ns for name in below(here / "out")}
    (here / "report.json").unlink()
    code, out, err = denoise(*arguments[:-1])
    assert (code, out) == (
        0,
        "out/a_denoised.png: 16 x 12, done already\nout/sub/b_denoised.jpg: 16 x 12, done already\n",
    )
    assert err == "spikingir: note: 2 of 2 were done already; --overwrite does it anew\n"
    assert {name: (here / "out" / name).stat().st_mtime_ns for name in below(here / "out")} == before
    report = json.loads((here / "report.json").read_text())
    assert (report["done"], report["done_before"], report["failed"]) == (0, 2, 0)
    assert report["images"][0]["output"] == "out/a_denoised.png"
    assert denoise("photos", "-o", "out", "--quiet") == (0, "", "")


def test_a_second_run_beside_the_photographs(denoise: Run, here: Path) -> None:
    assert denoise("photos/a.png", "photos/sub", "--compare")[0] == 0
    code, out, _ = denoise("photos/a.png", "photos/sub", "--compare")
    assert (code, out.count("done already")) == (0, 2)
    (here / "photos" / "a_denoised_compare.png").unlink()
    assert denoise("photos/a.png")[0] == 0
    assert denoise("photos/a.png", "--compare")[0] == 1  # a part of the result is missing, and none is replaced


@pytest.mark.parametrize("content", [b"", b"mine", b"\x89PNG\r\n\x1a\n"])
def test_what_is_empty_or_no_image_is_not_done(denoise: Run, here: Path, content: bytes) -> None:
    arguments = ("photos/a.png", "photos/sub", "-o", "out")
    assert denoise(*arguments)[0] == 0
    (here / "out" / "a_denoised.png").write_bytes(content)
    code, out, err = denoise(*arguments)
    assert (code, out) == (1, "out/b_denoised.jpg: 16 x 12, done already\n")
    assert err.count("out/a_denoised.png exists and is kept") == 1
    assert (here / "out" / "a_denoised.png").read_bytes() == content
    assert denoise(*arguments, "--overwrite")[0] == 0
    assert opened(here / "out" / "a_denoised.png").size == (16, 12)


@pytest.mark.parametrize(
    ("model", "said"), [("denoise-grya", "there is no model 'denoise-grya'"), ("dehaze", "dehaze removes haze; run")]
)
def test_a_wrong_model_is_refused_where_the_result_exists(
    denoise: Run, here: Path, capsys: pytest.CaptureFixture[str], model: str, said: str
) -> None:
    assert denoise("photos/a.png", "-o", "out/")[0] == 0
    assert main(["denoise", "photos/a.png", "-o", "out/", "--model", model]) > 0
    out, err = capsys.readouterr()
    assert (out, err.startswith(f"spikingir: {said}")) == ("", True), err


def test_a_file_that_the_user_names_is_not_taken_for_a_result(denoise: Run, here: Path) -> None:
    picture(7).save("other.png")
    code, out, err = denoise("photos/a.png", "-o", "other.png")
    assert (code, out) == (1, "")
    assert "other.png exists and is kept" in err


def test_what_is_passed_over_is_told(denoise: Run, here: Path) -> None:
    (here / "photos" / "sub" / "b.cr2").touch()
    code, _, err = denoise("photos/sub", "-o", "out")
    assert code == 0
    assert err.startswith("spikingir: note: photos/sub: passed over 1 .cr2; photographs end in one of .png,")
    assert denoise("photos/sub", "-o", "out2", "--quiet")[2] == ""


@pytest.mark.parametrize(("suffix", "kind"), [(".jfif", "JPEG"), (".jpe", "JPEG"), (".dib", "BMP")])
def test_uncommon_endings(denoise: Run, here: Path, suffix: str, kind: str) -> None:
    picture(0).save(here / "photos" / "sub" / f"p{suffix}", kind)
    assert denoise("photos/sub", "-o", "out")[0] == 0
    assert opened(here / "out" / f"p_denoised{suffix}").format == kind


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize("way", ["photograph", "other photograph", "model", "shipped", "hard link"])
def test_a_report_replaces_no_input(
    denoise: Run, here: Path, tiny_model: Path, way: str, overwrite: tuple[str, ...]
) -> None:
    picture(9).save("elsewhere.png")
    precious = {
        "photograph": here / "photos" / "a.png",
        "other photograph": here / "elsewhere.png",
        "model": tiny_model / "snn.safetensors",
        "shipped": SHIPPED / "denoise-gray-25" / "config.json",
        "hard link": here / "elsewhere.png",
    }[way]
    before = precious.read_bytes()
    if way == "hard link":
        os.link(precious, "report.json")
    else:
        (here / "report.json").symlink_to(precious)
    code, out, err = denoise("photos/a.png", "--report", "report.json", *overwrite)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "report.json" in err
    assert precious.read_bytes() == before
    assert not (here / "photos" / "a_denoised.png").exists()


def test_a_report_is_no_result(denoise: Run, here: Path) -> None:
    code, _, err = denoise("photos/a.png", "-o", "x.json", "--format", "png", "--report", "./x.json")
    assert code == 2
    assert "x.json is where a result goes, too" in err


def test_a_result_replaces_no_model(denoise: Run, here: Path, tiny_model: Path) -> None:
    before = (tiny_model / "snn.safetensors").read_bytes()
    (here / "clean.png").symlink_to(tiny_model / "snn.safetensors")
    for out in ("clean.png", tiny_model / "snn.safetensors"):
        code, _, err = denoise("photos/a.png", "-o", out, "--format", "png", "--overwrite")
        assert code == 1
        assert "none is ever replaced" in err
    assert (tiny_model / "snn.safetensors").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_pipes_and_devices_are_refused(denoise: Run, here: Path) -> None:
    os.mkfifo("photos/sub/pipe.png")
    code, out, err = denoise("photos/sub", "-o", "out")
    assert (code, out.count("\n")) == (1, 1)
    assert "photos/sub/pipe.png: it is a pipe, not a file; give a file, or pipe the photograph in and name it -" in err
    code, out, err = denoise("/dev/zero", "-o", "x.png")
    assert (code, out) == (1, "")
    assert "/dev/zero: it is a device" in err
    with pytest.raises(ImageError, match=r"pipe\.png cannot be read \(it is a pipe"):
        read_image("photos/sub/pipe.png")


@pytest.mark.parametrize("command", ["denoise", "dehaze"])
def test_an_empty_model_is_refused(run: Run, here: Path, command: str) -> None:
    picture(0).save("snn.safetensors", "PNG")  # an empty path would be this folder
    code, out, err = run(command, "photos/a.png", "--model", "")
    assert (code, out) == (1, "")
    assert err.startswith("spikingir: the name of the model is empty; expected one of")


def test_control_characters_in_names(denoise: Run, here: Path) -> None:
    """What a terminal would obey is shown instead, in results, notes and errors alike."""
    evil = "\x1b[31mred\nspikingir: done\x07\x9b\u202egnp"
    shown = r"\x1b[31mred\nspikingir: done\x07\x9b\u202egnp"
    (here / evil).mkdir()
    picture(0).convert("RGBA").save(here / evil / f"{evil}.png")
    (here / evil / "broken.png").write_bytes(b"text")
    (here / evil / f"x.{evil}").touch()
    code, out, err = denoise(evil, "-o", "out", "--format", "jpeg")
    assert code == 1
    assert out.startswith(f"out/{shown}_denoised.jpg: noise about ")
    assert out.count("\n") == 1
    assert err.count("\n") == 4
    assert err.count(shown) == 5
    for character in "\x1b\x07\x9b\u202e":
        assert character not in out + err


def test_streams(here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    content = (here / "photos" / "a.png").read_bytes()
    for arguments, kind in (["-"], "PNG"), (["-", "--format", "bmp"], "BMP"), (["-", "-o", "-"], "PNG"):
        stdin, stdout = io.TextIOWrapper(io.BytesIO(content)), io.TextIOWrapper(io.BytesIO())
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["denoise", *arguments, "--quiet", "--model", str(tiny_model)]) == 0
        image = Image.open(io.BytesIO(stdout.buffer.getvalue()))
        assert (image.format, image.size) == (kind, (16, 12))
    assert capfd.readouterr() == ("", "")
    assert below(here) == {"photos/a.png", "photos/sub/b.jpg", "photos/broken.png"}


def test_stdin_to_a_file(here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name says how the result is written."""
    content = (here / "photos" / "sub" / "b.jpg").read_bytes()
    for name, kind in (("clean.png", "PNG"), ("clean.tif", "TIFF")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert main(["denoise", "-", "-o", name, "--quiet", "--model", str(tiny_model)]) == 0
        assert opened(here / name).format == kind


def test_stdin_without_end_is_refused_by_its_head(denoise: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            return bytes(size) if size >= 0 else bytes(1)

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Endless()))
    code, _, err = denoise("-", "-o", "clean.png")
    assert code == 1
    assert "is no image of a known format" in err
    assert asked == [HEAD]


def test_streams_between_processes(here: Path, tiny_model: Path) -> None:
    command = [sys.executable, "-m", "spikingir.cli", "denoise", "-", "--model", str(tiny_model)]
    content = (here / "photos" / "sub" / "b.jpg").read_bytes()
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert Image.open(io.BytesIO(done.stdout)).format == "JPEG"
    done = subprocess.run(command, input=b"no image", capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"spikingir: stdin is no image of a known format")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [("jpeg", "JPEG"), ("jpg", "JPEG"), ("tiff", "TIFF"), ("tif", "TIFF"), ("webp", "WEBP"), ("bmp", "BMP")],
)
def test_format(denoise: Run, here: Path, name: str, kind: str) -> None:
    assert denoise("photos/a.png", "--format", name, "-o", "out/")[0] == 0
    (result,) = (here / "out").iterdir()
    assert opened(result).format == kind
    assert denoise("photos/a.png", "--format", name, "-o", "plain")[0] == 0
    assert opened(here / "plain").format == kind


def test_compare(denoise: Run, here: Path) -> None:
    assert denoise("photos/a.png", "--compare")[0] == 0
    both = np.asarray(opened(here / "photos" / "a_denoised_compare.png"))
    assert both.shape == (12, 16 + 1 + 16, 3)
    np.testing.assert_array_equal(both[:, :16], np.asarray(opened(here / "photos" / "a.png")))
    np.testing.assert_array_equal(both[:, 17:], np.asarray(opened(here / "photos" / "a_denoised.png")))
    code, _, err = denoise("photos/a.png", "-o", "clean.png", "--compare")
    assert (code, err) == (0, "")
    (here / "clean.png").unlink()
    code, _, err = denoise("photos/a.png", "-o", "clean.png", "--compare")
    assert code == 1
    assert "clean_compare.png exists" in err
    assert not (here / "clean.png").exists()


def test_report(denoise: Run, here: Path) -> None:
    code, _, _ = denoise("photos", "-o", "out", "--report", "report.json")
    assert code == 1
    report = json.loads((here / "report.json").read_text())
    assert (report["done"], report["failed"]) == (2, 1)
    a, broken, b = report["images"]
    assert (a["input"], a["output"], a["size"]) == ("photos/a.png", "out/a_denoised.png", [16, 12])
    assert (a["error"], a["notes"], a["sigma"], a["clock"]) == (None, [], None, "T = 3, clocked")
    assert a["seconds"] > 0
    assert a["spikes"] > 0
    assert a["snn_mj"] > 0
    assert a["ann_mj"] > 0
    assert "damaged" in broken["error"]
    assert (broken["output"], broken["size"]) == (None, None)
    assert b["output"] == "out/sub/b_denoised.jpg"
    code, _, err = denoise("photos/a.png", "--report", "report.json")
    assert code == 1
    assert "report.json: exists and is kept" in err
    assert not (here / "photos" / "a_denoised.png").exists()


def test_no_report_of_no_photograph(here: Path, run: Run) -> None:
    assert run("denoise", "photos", "-o", "out", "--model", "denoise-gray-24", "--report", "report.json")[0] == 1
    assert not (here / "report.json").exists()
    (here / "report.json").mkdir()
    code, _, err = run("denoise", "photos", "-o", "other", "--report", "report.json", "--overwrite")
    assert code == 1
    assert "report.json: is a folder" in err
    assert not (here / "other").exists()


def test_quiet_and_verbose(denoise: Run, here: Path) -> None:
    assert denoise("photos/a.png", "--format", "bmp", "--quiet") == (0, "", "")
    code, out, err = denoise("photos/broken.png", "--quiet")
    assert (code, out) == (1, "")
    assert "damaged" in err
    code, out, err = denoise("photos/a.png", "--verbose")
    assert (code, err) == (0, "")
    assert "spikes per neuron" in out
    assert "mJ" in out


def test_notes_name_their_photograph_among_several(denoise: Run, here: Path) -> None:
    picture(0).convert("RGBA").save("photos/sub/c.png")
    code, _, err = denoise("photos/sub", "-o", "out", "--format", "jpeg")
    assert code == 0
    assert err == "spikingir: note: photos/sub/c.png: JPEG has no transparency: the image is laid over white\n"


def test_metadata_is_kept_or_stripped(denoise: Run, here: Path) -> None:
    exif = Image.Exif()
    exif[CAMERA] = "Spike 1"
    picture(0).save("photos/a.png", exif=exif, icc_profile=(profile := b"\0" * 16 + b"RGB " + b"\0" * 200))
    denoise("photos/a.png", "-o", "kept.png")
    denoise("photos/a.png", "-o", "stripped.png", "--strip-metadata")
    assert opened(here / "kept.png").getexif()[CAMERA] == "Spike 1"
    assert CAMERA not in opened(here / "stripped.png").getexif()
    assert opened(here / "stripped.png").info["icc_profile"] == profile


def test_tiles_do_not_show(denoise: Run, here: Path) -> None:
    for tile in ("auto", "off", "5"):
        assert denoise("photos/a.png", "-o", f"{tile}.png", "--tile", tile)[0] == 0
    assert (here / "auto.png").read_bytes() == (here / "off.png").read_bytes() == (here / "5.png").read_bytes()


def test_schedule_and_device(denoise: Run, here: Path) -> None:
    code, out, err = denoise("photos/a.png", "--schedule", "phased", "--device", "cpu", "--verbose")
    assert code == 0
    assert "phased" in out
    assert err.count("note: ") == 1


def test_device_that_is_not_there(denoise: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = denoise("photos/a.png", "--device", "cuda")
    assert code == 1
    assert "no CUDA device" in err


@pytest.fixture
def two_denoisers(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models for sigma 15 and 50 that ship."""

    def model(name: str) -> Model:
        return Model(Path(), name, "denoise", 1, (), "", sigma=float(name.rpartition("-")[2]))

    monkeypatch.setattr(sigma, "read_shipped", model)
    monkeypatch.setattr(sigma, "model_names", lambda: ["denoise-gray-15", "denoise-gray-50"])
    load = Restorer.from_pretrained
    monkeypatch.setattr(Restorer, "from_pretrained", lambda model, **options: load(tiny_model, **options))


@pytest.mark.usefixtures("two_denoisers", "here")
def test_sigma_chooses_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["denoise", "photos/a.png", "--sigma", "40", "--verbose"]) == 0
    out, err = capsys.readouterr()
    assert "denoise-gray-50" in out
    assert err == "spikingir: note: no model ships for sigma 40; the nearest is denoise-gray-50\n"
    assert main(["denoise", "photos/a.png", "--sigma", "15", "--overwrite"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("two_denoisers")
def test_sigma_is_estimated(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).normal(128, 18, (32, 32)).clip(0, 255)
    Image.fromarray(noise.astype(np.uint8)).save("noisy.png")
    Image.fromarray(noise[:1, :1].astype(np.uint8)).save("pixel.png")
    assert main(["denoise", "noisy.png", "pixel.png", "--sigma", "auto", "--report", "report.json"]) == 0
    noisy, pixel = json.loads((here / "report.json").read_text())["images"]
    assert noisy["sigma"] == pytest.approx(18, rel=0.2)
    assert noisy["model"] == "denoise-gray-15"
    assert "estimated at sigma" in noisy["notes"][0]
    assert pixel["sigma"] == 0
    assert "noisy.png: the noise is estimated" in capsys.readouterr().err


def test_dehaze_shares_all(capsys: pytest.CaptureFixture[str], here: Path, tiny_model: Path) -> None:
    assert main(["dehaze", "photos/a.png", "--model", str(tiny_model)]) == 0
    assert (here / "photos" / "a_dehazed.png").exists()
    capsys.readouterr()
    assert main(["dehaze", "photos/sub", "--model", "no-such-model"]) == 1
    assert "no model 'no-such-model'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photos/a.png", "--quiet", "--verbose"], "contradict"),
        (["photos/a.png", "--sigma", "25"], "is not told the noise level; leave --sigma out"),
        (["photos/a.png", "--strength", "1.5"], "strength is 1.5; expected 0 to 1"),
        (["photos/a.png", "--strength", "-0.5"], "--strength"),
        (["photos/a.png", "--strength", "nan"], "--strength"),
        (["photos/a.png", "--sigma", "-1"], "--sigma"),
        (["photos/a.png", "--sigma", "nan"], "--sigma"),
        (["photos/a.png", "--sigma", "inf"], "--sigma"),
        (["photos/a.png", "--tile", "0"], "--tile"),
        (["photos/a.png", "--tile", "some"], '"some" for --tile; expected auto, off or a whole number.'),
        (["photos/a.png", "--strength", "80%"], '"80%" for --strength; expected a number.'),
        (["photos/a.png", "--sigma", "much"], '"much" for --sigma; expected auto or a number.'),
        (
            ["photos/a.png", "--quality", "best"],
            '"best" for --quality; expected a whole number. (spikingir denoise --help',
        ),
        ([], "denoise needs PHOTOS, as in: spikingir denoise photo.jpg (spikingir denoise --help lists what there is)"),
        (["photos/a.png", "--schedule", "late"], "late"),
        (["photos/a.png", "--device", "tpu"], "tpu"),
        (["photos/a.png", "--format", "gif"], "gif"),
        (["photos/a.png", "--report", "photos/a.png"], ".json"),
        (["photos/a.png", "-o", "x.png", "--format", "jpeg"], "asks for JPEG"),
        (["photos", "-o", "-"], "stdout"),
        (["photos", "-o", "x.jpg"], "x.jpg is named like one photograph, but several results need a folder"),
        (["-", "--compare"], "--compare"),
    ],
)
def test_wrong_usage(denoise: Run, here: Path, arguments: list[str], said: str) -> None:
    before = below(here)
    code, out, err = denoise(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err
    assert below(here) == before


# What goes wrong


def test_ctrl_c_in_the_middle(denoise: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Restorer.trace
    seen: list[object] = []

    def interrupt(self: Restorer, image: Any, **options: Any) -> Any:
        seen.append(image)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return run(self, image, **options)

    monkeypatch.setattr(Restorer, "trace", interrupt)
    code, _, err = denoise("photos/a.png", "photos/sub/b.jpg", "-o", "out", "--report", "report.json")
    assert (code, err) == (130, "spikingir: stopped\n")
    assert below(here / "out") == {"a_denoised.png"}
    assert json.loads((here / "report.json").read_text())["done"] == 1


def test_full_disk(denoise: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fail)
    code, out, err = denoise("photos/a.png", "photos/sub/b.jpg", "-o", "out")
    assert (code, out) == (1, "")
    assert err.count("the disk is full; free some space") == 2
    assert below(here / "out") == set()


def test_full_file_system(denoise: Run, here: Path) -> None:
    disk = here / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no small disk can be mounted by this user here")
    try:
        Image.effect_noise((128, 128), 50).save("large.png")
        code, _, err = denoise("large.png", "-o", "disk/large.png")
        assert code == 1
        assert "disk/large.png was not written: the disk is full" in err
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_folder_without_permission(denoise: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "sub")  # as root all are writable
    code, out, err = denoise("photos/a.png", "photos/sub/b.jpg")
    assert code == 1
    assert out.startswith("photos/a_denoised.png")
    assert "not writable" in err


def test_folder_that_cannot_be_made(denoise: Run, here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "sub").write_bytes(b"a file")
    code, out, err = denoise("photos", "-o", "out")
    assert code == 1
    assert out.startswith("out/a_denoised.png")
    assert "out/sub: File exists" in err
    assert err.endswith("2 of 3 failed\n")


def test_two_runs_into_one_folder(here: Path, tiny_model: Path) -> None:
    """Between them all is done once, complete, and what one has written the other does not replace."""
    (here / "photos" / "broken.png").unlink()
    command = [sys.executable, "-m", "spikingir.cli", "denoise", "photos", "-o", "out", "--model", str(tiny_model)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    done_before = sum(out.count("done already") for out, _ in said)
    assert done_before == 2
    assert sum(out.count("_denoised") for out, _ in said) == 4
    assert below(here / "out") == {"a_denoised.png", "sub/b_denoised.jpg"}
    for path in ("a_denoised.png", "sub/b_denoised.jpg"):
        assert opened(here / "out" / path).size == (16, 12)


@pytest.mark.filterwarnings("default:memory ran out")
def test_want_of_memory_is_said_once(denoise: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = FoldedNetwork.forward

    def tight(self: FoldedNetwork, piece: Tensor) -> Tensor:
        if piece.shape[-1] * piece.shape[-2] > 60 * 60:
            raise MemoryError
        return forward(self, piece)

    monkeypatch.setattr(FoldedNetwork, "forward", tight)
    for name in ("one.png", "two.png"):
        Image.effect_noise((90, 70), 50).save(name)
    code, out, err = denoise("one.png", "two.png", "--engine", "torch")
    assert (code, out.count("\n")) == (0, 2)
    assert err.count("note: memory ran out; the work goes on with tiles of 45 pixels") == 1


def test_no_memory_to_choose_a_model_stops_one_photograph_alone(
    denoise: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = Chooser.__call__

    def tight(self: Chooser, photo: Photo) -> Choice:
        if photo.pixels.shape[1] > 50:
            raise MemoryError
        return choose(self, photo)

    monkeypatch.setattr(Chooser, "__call__", tight)
    Image.effect_noise((90, 20), 50).save("one.png")
    Image.effect_noise((30, 20), 50).save("two.png")
    code, _, err = denoise("one.png", "two.png")
    assert code == 1
    assert "one.png" in err
    assert "1 of 2 failed" in err
    assert not (here / "one_denoised.png").exists()
    assert (here / "two_denoised.png").exists()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "BMP"]),
    st.dictionaries(st.integers(0, 150), st.integers(0, 255), max_size=3),
    st.integers(0, 200),
)
def test_damaged_photographs(denoise: Run, here: Path, kind: str, changes: dict[int, int], lost: int) -> None:
    file = io.BytesIO()
    picture(0).save(file, kind)
    content = bytearray(file.getvalue())
    for at, value in changes.items():
        content[at % len(content)] = value
    (here / "x.png").write_bytes(content[: len(content) - lost])
    code, _, err = denoise("x.png", "-o", "y.png")
    assert code in (0, 1)
    if code == 0:
        opened(here / "y.png")
        (here / "y.png").unlink()
    else:
        assert err.count("\n") == 1
    assert not {path.name for path in here.iterdir()} - {"x.png", "photos"}


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (30_000, 3)])
def test_extreme_sizes(denoise: Run, here: Path, size: tuple[int, int]) -> None:
    Image.effect_noise(size, 60).save("x.png")
    assert denoise("x.png")[0] == 0
    assert opened(here / "x_denoised.png").size == size
    assert denoise("x.png", "-o", "tiles.png", "--tile", "64")[0] == 0
    assert (here / "tiles.png").read_bytes() == (here / "x_denoised.png").read_bytes()


def test_ray_is_an_extra(denoise: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = denoise("photos", "-o", "out", "--ray", "local")
    assert (code, out) == (1, "")
    assert err.endswith("pip install 'spikingir[ray]'\n")
    assert not (here / "out").exists()


def test_that_the_engine_is_missing_is_told_once(denoise: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once on a machine, in whatever process; where that cannot be kept, each time."""
    monkeypatch.setattr(engine, "native_available", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "caches"))
    told = "note: restoring with torch, not with the faster native engine: it was not built"
    for said in (True, False, False):
        engine._say.cache_clear()  # as in a new process
        assert (told in denoise("photos/a.png", "--overwrite")[2]) == said
    (here / "file").touch()
    for caches in (here / "file", here / "file", "relative", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
        engine._say.cache_clear()
        assert told in denoise("photos/a.png", "--overwrite")[2]
    engine._say.cache_clear()
    assert not (here / "relative").exists()


# The terminal


def test_bars_are_for_terminals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with console.restoring_bars("working", 3) as (megapixels, image):
        megapixels(1, 2)
        image()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with console.restoring_bars("working", 3) as (megapixels, image):
        for total in (12, 24):
            for done in range(1, total + 1):
                megapixels(done, total)
            image()
        console.say("a result")
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert "working" in err
    assert "2 of 3" in err
    assert re.search(r"24\.0 of 24\.0 megapixels, [\d.e+]+ MP/s", err)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("denoise", "dehaze"):
        assert command in app.generate_completion(shell=shell)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    assert main(["--install-completion", "--shell", shell]) == 0
    assert any("spikingir" in path.name for path in tmp_path.rglob("*"))


# Size


@pytest.mark.slow
def test_memory_of_a_large_photograph(here: Path, tiny_model: Path) -> None:
    """12 megapixels in colour take less than two copies in float32, of 144 MB, over what a small one takes."""
    large = np.zeros((2999, 4001, 3), np.uint8)  # of sides that no stride divides
    large[::7, ::5] = 200
    Image.fromarray(large).save("large.png", compress_level=1)
    Image.fromarray(large[:256, :256]).save("small.png", compress_level=1)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r});"
        "from benchmarks.resident import resident_peak; from spikingir.cli import main\n"
        "for name in ('small.png', 'large.png'):\n"
        f"    code = main(['denoise', name, '--tile', '256', '--model', {str(tiny_model)!r}])\n"
        "    print(resident_peak(), file=sys.stderr)\n"
        "    if code: sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    of_small, of_large = map(float, done.stderr.split())
    assert of_large - of_small < 2 * 144


def test_the_largest_photograph_is_a_choice(here: Path, denoise: Run) -> None:
    Image.new("L", (1001, 1000)).save("large.png")
    code, _, err = denoise("large.png", "--max-megapixels", 1)
    assert code == 1
    assert "1001 x 1000 are 1 megapixels; expected at most 1," in err
    assert "raise --max-megapixels" in err
    assert denoise("photos/a.png", "--max-megapixels", 1)[0] == 0


def test_a_webp_file_without_loss_stays_so_unless_a_quality_is_given(here: Path, denoise: Run) -> None:
    picture(0).save("photo.webp", lossless=True)
    assert denoise("photo.webp", "-o", "same.webp")[0] == 0
    assert denoise("photo.webp", "-o", "small.webp", "--quality", 95)[0] == 0
    assert b"VP8L" in Path("same.webp").read_bytes()[:40]
    assert b"VP8 " in Path("small.webp").read_bytes()[:40]
