"""What a command line means: which photographs, and where results go."""

import os
import socket
import sys
from pathlib import Path
from types import FrameType

import pytest

from spikingir.errors import UsageError
from spikingir.photo.formats import FORMATS
from spikingir.restoration.jobs import Job, plan


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with photographs in a tree, and things that are none."""
    for name in ("a.png", "B.JPG", "sub/c.tif", "sub/deep/d.webp", "notes.txt", ".hidden.png", ".cache/e.png", "f"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def targets(*inputs: str, out: str | None = None, **options: object) -> dict[str, str | None]:
    jobs = plan(list(inputs), out, "denoised", **options)
    assert [job.error for job in jobs] == [None] * len(jobs)
    return {job.name: None if job.target is None else job.target.as_posix() for job in jobs}


def errors(*inputs: str, out: str | None = None, **options: object) -> list[str | None]:
    return [job.error for job in plan(list(inputs), out, "denoised", **options)]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("out", "target"),
    [
        (None, "photos/a_denoised.png"),
        ("clean.jpg", "clean.jpg"),
        ("out/", "out/a_denoised.png"),
        ("photos", "photos/a_denoised.png"),
        ("-", None),
    ],
)
def test_one_photograph(out: str | None, target: str | None) -> None:
    assert targets("photos/a.png", out=out) == {"photos/a.png": target}


@pytest.mark.usefixtures("here")
def test_several_go_to_a_folder() -> None:
    assert targets("photos/a.png", "photos/B.JPG", out="new") == {
        "photos/a.png": "new/a_denoised.png",
        "photos/B.JPG": "new/B_denoised.JPG",
    }


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("inputs", ["photos", "photos/", "./photos"])
def test_folder_keeps_its_tree(inputs: str) -> None:
    found = targets(inputs, out="out")
    assert list(found.values()) == [
        "out/B_denoised.JPG",
        "out/a_denoised.png",
        "out/sub/c_denoised.tif",
        "out/sub/deep/d_denoised.webp",
    ]
    assert all(job.makes_folder for job in plan([inputs], "out", "denoised"))
    beside = list(targets(inputs).values())
    assert beside[2] == "photos/sub/c_denoised.tif"
    assert not any(job.makes_folder for job in plan([inputs], None, "denoised"))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["out/a_denoised.png"]),
        ("photos/**/*.[tw]*", ["out/notes_denoised.png", "out/sub/c_denoised.tif", "out/sub/deep/d_denoised.webp"]),
        ("*/sub/?.tif", ["out/photos/sub/c_denoised.tif"]),
    ],
)
def test_patterns(pattern: str, expected: list[str]) -> None:
    assert sorted(str(target) for target in targets(pattern, out="out").values()) == expected


def test_a_name_that_looks_like_a_pattern(here: Path) -> None:
    (here / "a[1].png").write_bytes(b"")
    assert targets("a[1].png") == {"a[1].png": "a[1]_denoised.png"}


@pytest.mark.usefixtures("here")
def test_streams() -> None:
    assert targets("-") == {"-": None}
    assert targets("-", out="-") == {"-": None}
    assert targets("-", out="clean.png") == {"-": "clean.png"}
    assert targets("-", out="out/", format=FORMATS["jpeg"]) == {"-": "out/stdin_denoised.jpg"}


@pytest.mark.usefixtures("here")
def test_format_gives_the_suffix() -> None:
    found = targets("photos", out="out", format=FORMATS["jpeg"])
    assert [Path(str(target)).suffix for target in found.values()] == [".JPG", ".jpg", ".jpg", ".jpg"]


@pytest.mark.usefixtures("here")
def test_each_photograph_once() -> None:
    found = targets("photos", "photos/sub/c.tif", "photos/*.png", "./photos/a.png", out="out")
    assert found == targets("photos", out="out")


@pytest.mark.usefixtures("here")
def test_comparison_is_beside_the_result() -> None:
    (job,) = plan(["photos/a.png"], None, "dehazed", compare=True)
    assert job.comparison == Path("photos/a_dehazed_compare.png")
    (job,) = plan(["photos/a.png"], "clean.jpg", "dehazed", compare=True)
    assert job.comparison == Path("clean_compare.png")


def test_results_of_earlier_runs_are_left_alone(here: Path) -> None:
    before = targets("photos")
    for target in before.values():
        assert target is not None
        (here / target).write_bytes(b"")
    (here / "photos" / "a_denoised_compare.png").write_bytes(b"")
    assert targets("photos") == before
    assert targets("photos/*.png") == {"photos/a.png": "photos/a_denoised.png"}
    (here / "photos" / "moved_denoised.png").write_bytes(b"")  # without its photograph: one like any other
    assert "photos/moved_denoised.png" in targets("photos")
    (here / "photos" / "out").mkdir()
    (here / "photos" / "out" / "a_denoised.png").write_bytes(b"")
    assert "photos/out/a_denoised.png" not in targets("photos", out="photos/out")


def test_no_photograph_is_replaced(here: Path) -> None:
    os.link(here / "photos/a.png", here / "clean.png")
    for inputs, out in ([["photos/a.png"], "photos/a.png"], [["photos/a.png"], "clean.png"]):
        assert "none is ever replaced" in str(errors(*inputs, out=out))
    (here / "photos" / "a_denoised.png").write_bytes(b"")
    first, second = errors("photos/a.png", "photos/a_denoised.png")
    assert first is not None
    assert second is None


@pytest.mark.usefixtures("here")
def test_no_two_results_go_to_one_file(here: Path) -> None:
    (here / "photos" / "sub" / "a.png").write_bytes(b"")
    first, second = plan(["photos/a.png", "photos/sub/a.png"], "out", "denoised")
    assert first.error is None
    assert second.error is not None
    assert "photos/a.png" in second.error
    first, second = plan(["photos/a.png", "photos/B.JPG"], "out", "denoised")
    assert (first.error, second.error) == (None, None)


@pytest.mark.usefixtures("here")
def test_what_there_is_not() -> None:
    assert "no photograph matches" in str(errors("photos/*.gif", "photos/a.png"))
    os.mkdir("empty")
    assert "holds no photographs" in str(errors("empty"))
    assert "an empty name" in str(errors(""))
    assert errors("absent.png") == [None]  # that is for the reading to say
    assert plan(["absent.png"], "out.png", "denoised") == [Job(Path("absent.png"), Path("out.png"), named=True)]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("inputs", "out", "options", "said"),
    [
        (["photos/a.png", "photos/B.JPG"], "photos/f", {}, "is a file"),
        (["photos"], "-", {}, "stdout"),
        (["photos/a.png"], "clean.png", {"format": FORMATS["jpeg"]}, "asks for JPEG"),
        (["photos/a.png"], "-", {"compare": True}, "--compare"),
        (["photos/a.png"], "photos/f/", {}, "is a file"),
    ],
)
def test_wrong_usage(inputs: list[str], out: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan(inputs, out, "denoised", **options)


def test_folder_that_may_not_be_searched(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    *found, refused = plan(["photos"], "out", "denoised")
    assert [job.error for job in found] == [None] * 3
    assert refused.error == "the folder cannot be searched (Permission denied)"
    assert refused.source == Path("photos/sub/deep")


def test_no_two_results_go_to_one_file_by_different_ways(here: Path) -> None:
    (here / "sub").mkdir(exist_ok=True)
    (here / "way.jpg").touch()
    (here / "way.png").touch()
    found = errors("way.jpg", "sub/../way.png", format=FORMATS["png"])
    assert found[0] is None
    assert "is where the result of way.jpg goes" in str(found[1])


def test_a_pattern_leaves_the_results_of_an_earlier_run_alone(here: Path) -> None:
    (here / "fresh").mkdir()
    (here / "fresh" / "one.png").touch()
    (here / "fresh" / "out").mkdir()
    (here / "fresh" / "out" / "one_denoised.png").touch()
    assert targets("fresh/**/*.png", out="fresh/out") == {"fresh/one.png": "fresh/out/one_denoised.png"}
    assert list(targets("fresh/out/*.png", out="fresh/out")) == ["fresh/out/one_denoised.png"]


def test_a_file_beside_it_that_is_no_photograph_makes_no_result_of_one(here: Path) -> None:
    (here / "notes").mkdir()
    (here / "notes" / "b_denoised.png").touch()
    (here / "notes" / "b.txt").touch()
    assert list(targets("notes")) == ["notes/b_denoised.png"]


# What is passed over, and what would never come to an end


def notes(*inputs: str, out: str | None = None) -> list[str]:
    said: list[str] = []
    plan(list(inputs), out, "denoised", note=said.append)
    return said


@pytest.mark.usefixtures("here")
def test_what_is_passed_over_is_told_with_its_count(here: Path) -> None:
    for name in ("x.CR2", "y.cr2", "z.nef", "a_denoised.png"):
        (here / "photos" / "sub" / name).touch()
    (here / "photos" / "link").symlink_to(here / "photos" / "sub")
    (said,) = notes("photos")
    for part in ("2 .cr2", "1 .nef", "1 .txt", "1 without an ending", "2 hidden", "1 links to folders"):
        assert part in said
    assert said.startswith("photos: passed over ")
    assert ".jpg" in said
    (said,) = notes("photos/*")
    assert said.startswith("photos/*: passed over 2 folders")
    assert notes("photos/a.png", "photos/sub/c.tif", "photos/**/*.png") == []


@pytest.mark.parametrize(
    ("suffix", "result"),
    [
        (".jfif", "p_denoised.jfif"),
        (".jpe", "p_denoised.jpe"),
        (".dib", "p_denoised.dib"),
        (".APNG", "p_denoised.png"),
        (".mpo", "p_denoised.jpg"),
    ],
)
def test_uncommon_endings_of_formats_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, result: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in", f"p{suffix}").touch()
    assert targets("in", out="out") == {f"in/p{suffix}": f"out/{result}"}
    assert notes("in") == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
@pytest.mark.parametrize("way", ["file", "folder", "pattern"])
def test_pipes_sockets_devices_and_links_without_end(here: Path, way: str) -> None:
    (here / "odd").mkdir()
    os.mkfifo(here / "odd" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str((here / "odd" / "socket.png").relative_to(here)))
    (here / "odd" / "device.png").symlink_to("/dev/zero")
    (here / "odd" / "self.png").symlink_to("self.png")
    names = ["device", "pipe", "self", "socket"]
    inputs = {"file": [f"odd/{name}.png" for name in names], "folder": ["odd"], "pattern": ["odd/*.png"]}[way]
    said = errors(*inputs, out="out")
    for error, kind in zip(said, ("a device", "a pipe", "symbolic links", "a socket"), strict=True):
        assert error is not None
        assert kind in error
        assert "; give a file" in error


def test_links_in_circles_below_two_stars(here: Path) -> None:
    """Each of two links back doubles the paths at every level, 40 levels deep, where they are followed."""
    (here / "photos" / "sub" / "back").symlink_to(here / "photos")
    (here / "photos" / "up").symlink_to(here / "photos")
    expected = targets("photos/a.png", "photos/sub/c.tif", "photos/sub/deep/d.webp", "photos/B.JPG", out="out")
    for pattern in ("photos/**/*.[pJtw]*[gfGp]", "photos/**/**/*.[pJtw]*[gfGp]"):
        assert sorted(targets(pattern, out="out")) == sorted(expected)
    assert sorted(targets("**/c.tif", out="out")) == ["photos/sub/c.tif"]
    assert sorted(targets("**/sub/**/d.*", out="out")) == ["photos/sub/deep/d.webp"]


def work(inputs: list[str], out: str | None) -> int:
    """Calls of functions, of Python's and of C's, that planning takes."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        plan(inputs, out, "denoised")
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("way", ["folder", "pattern", "files"])
@pytest.mark.parametrize("results", ["beside", "elsewhere"])
def test_the_work_is_linear_in_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, results: str
) -> None:
    monkeypatch.chdir(tmp_path)
    taken = []
    for count in (100, 200, 400):
        folder = Path(str(count))
        folder.mkdir()
        for i in range(count):
            (folder / f"{i}.png").touch()
            (folder / f"{i}_denoised.png").touch()  # left by an earlier run
        inputs = {"folder": [str(folder)], "pattern": [f"{folder}/**/*.png"], "files": list(map(str, folder.iterdir()))}
        taken.append(work(inputs[way], None if results == "beside" else "out"))
    assert taken[2] - taken[1] < 2.1 * (taken[1] - taken[0])  # 4 where every file is compared with every other


def test_no_result_goes_to_a_file_that_is_read_besides(here: Path) -> None:
    (here / "net.safetensors").write_bytes(b"weights")
    (here / "clean.png").symlink_to(here / "net.safetensors")
    for out in ("net.safetensors", "clean.png"):
        (job,) = plan(["photos/a.png"], out, "denoised", format=FORMATS["png"], keep=[here / "net.safetensors"])
        assert job.error is not None
        assert "none is ever replaced" in job.error
