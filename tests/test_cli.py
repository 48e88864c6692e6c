"""The command line as a person meets it: what it writes, what it says, and its exit codes."""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reproduce.commands import app as reproduction
from spikingir import __version__
from spikingir.cli import console, main, program
from spikingir.networks import DnCNN
from spikingir.restoration import demo as demo_module
from spikingir.restoration.restorer import Restorer
from spikingir.store import save_network

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def denoise(run: Run, tiny_model: Path) -> Run:
    return lambda *arguments: run("denoise", *arguments, "--model", tiny_model)


def one_sentence(err: str) -> bool:
    return err.startswith("spikingir: ") and err.count("\n") == 1 and err.endswith("\n")


def opened(path: Path) -> Image.Image:
    image = Image.open(path)
    image.load()
    return image


def python(code: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["denoise", "--help"], ["train", "--help"], ["no"]])
def test_help_and_version_load_no_torch(arguments: list[str]) -> None:
    done = python(f"import sys; from spikingir.cli import main; main({arguments}); sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("command", ["reproduce", "benchmark", "ablation"])
def test_what_has_moved_says_where_it_is(run: Run, command: str) -> None:
    for rest in ([], ["--help"], ["denoise-gray-25", "--data", "set12"]):
        code, out, err = run(command, *rest)
        assert (code, out, err.count("\n")) == (2, "", 1)
        where = {"reproduce": "", "benchmark": " benchmark", "ablation": " ablate"}[command]
        assert f"run python -m reproduce{where} in a checkout" in err
    assert f" {command} " not in run("--help")[1]


def test_help_begins_with_an_example_that_parses(run: Run) -> None:
    commands = [name for name in program.app if not name.startswith("-")]
    assert commands[:2] == ["denoise", "dehaze"]
    for command in ([], *([name] for name in commands)):
        code, out, err = run(*command, "--help")
        assert (code, err) == (0, "")
        example = re.fullmatch(r"Example: spikingir (.*)", out.lstrip("\n").partition("\n")[0])
        assert example is not None
        words = example[1].split()
        assert words[: len(command)] == command
        program.app.parse_args(words, exit_on_error=False, print_error=False)  # runs nothing


def test_help_flows_and_says_no_default_that_is_none(run: Run) -> None:
    framed = run("denoise", "--help")[1] + run("energy", "--help")[1]
    text = re.sub(r"[\s│]+", " ", framed)  # however wide the terminal is
    assert "else the one that ships for the nearest level restores." in text
    assert re.search(r"with memory\.\s*\n\s*\nAn architecture needs a", framed)  # two paragraphs
    assert not re.search(r"default: (None|False|\(\))", text)
    for kept in ("[default: 0]", "[default: auto]", "[default: 1.0]"):
        assert kept in text
    assert "--no-" not in text


def test_help_names_the_commands(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name in ("denoise", "demo", "train", "recipes"):
        assert name in out
    assert run() == (code, out, err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["derain", "photo.png"], "derain"),
        (["denoise"], "PHOTO"),
        (["denoise", "photo.png", "--qualty", "90"], "--quality"),
        (["denoise", "photo.png", "--quality", "101"], "100"),
        (["denoise", "photo.png", "--time-steps", "0"], "--time-steps"),
        (["denoise", "photo.png", "--time-steps", "many"], "many"),
        (["denoise", "-x.jpg"], "; a file of the name -x.jpg is given as ./-x.jpg ("),
        (["denoise", "photo.png", "-o", "-y.jpg"], "; a file of the name -y.jpg is given as ./-y.jpg ("),
        (["denoise", "photo.png", "-o", "clean"], "clean cannot be written; expected a name that ends in one of .png"),
        (["denoise", "photo.png", "-o", "clean"], "or in / for a folder"),
        (["denoise", "photo.png", "--sigma"], "--sigma needs a value (spikingir denoise --help"),
        (
            ["train", "denoise-gray-25"],
            "train needs --data-root, as in: spikingir train denoise-gray-25 --data-root DATA (",
        ),
        (
            ["export", "denoise-gray"],
            "export needs --to, as in: spikingir export denoise-gray --to onnx -o denoise.onnx (",
        ),
        (["train"], "RECIPE"),
    ],
)
def test_wrong_usage(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    monkeypatch.delenv("SPIKINGIR_DATA", raising=False)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert one_sentence(err)
    assert said in err


def whole_numbers() -> Iterator[tuple[tuple[str, ...], str]]:
    """Every option that takes whole numbers and none with a fraction, of all commands, the reproduction's too."""
    for module, app in (("spikingir.cli.program", program.app), ("reproduce.commands", reproduction)):
        commands = {(name,): app[name] for name in app if not name.startswith("-")}
        if app.default_command is not None:
            commands[()] = app
        for command, taken in commands.items():
            for argument in taken.assemble_argument_collection():
                hint = str(argument.hint)
                if re.search(r"\bint\b", hint) and "float" not in hint:
                    yield (module, *command), argument.name


@pytest.mark.parametrize(("place", "option"), list(whole_numbers()))
def test_no_whole_number_is_rounded(capsys: pytest.CaptureFixture[str], place: tuple[str, ...], option: str) -> None:
    module, *command = place
    assert main([*command, option, "64.5"], module) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r'"64\.5" for \S+; expected (.* or )?a whole number\.', err)


def test_a_whole_number_may_have_a_point(denoise: Run, photo: Path) -> None:
    assert denoise(photo, "--tile", "8.0")[0] == 0


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
def test_denoise(denoise: Run, tiny_model: Path, photo: Path, suffix: str) -> None:
    source = photo.with_suffix(suffix)
    Image.open(photo).save(source)
    before = source.read_bytes()
    code, out, err = denoise(source)
    target = source.with_stem("photo_denoised")
    assert (code, err) == (0, "")
    assert out.startswith(f"{target}: noise about ")
    assert "; removed (16 x 12, " in out
    assert source.read_bytes() == before
    restored = np.asarray(Image.open(target)).astype(int)
    wanted = np.asarray(Restorer.from_pretrained(tiny_model)(source)).astype(int)
    assert np.abs(restored - wanted).mean() <= (0 if suffix == ".png" else 4)


def test_output_and_options(denoise: Run, photo: Path, tmp_path: Path) -> None:
    sizes = []
    for quality in (20, 95):
        out = tmp_path / f"{quality}.jpg"
        assert denoise(photo, "-o", out, "--quality", quality, "--time-steps", 1)[0] == 0
        assert opened(out).format == "JPEG"
        sizes.append(out.stat().st_size)
    assert sizes[0] < sizes[1]
    assert "T = 1" in denoise(photo, "--out", tmp_path / "one.png", "--time-steps", 1, "--verbose")[1]


def test_what_is_lost_is_said(denoise: Run, photo: Path, tmp_path: Path) -> None:
    Image.open(photo).convert("RGBA").save(photo)
    code, _, err = denoise(photo, "-o", tmp_path / "out.jpg")
    assert code == 0
    assert err == "spikingir: note: JPEG has no transparency: the image is laid over white\n"


def test_existing_output_is_kept_unless_asked(denoise: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    out.write_text("mine")
    code, _, err = denoise(photo, "-o", out)
    assert code == 1
    assert one_sentence(err)
    assert "--overwrite" in err
    assert out.read_text() == "mine"
    assert denoise(photo, "-o", out, "--overwrite")[0] == 0
    assert opened(out).size == (16, 12)


@pytest.mark.parametrize("way", ["itself", "other path", "link", "hard link", "default"])
def test_photograph_is_never_replaced(denoise: Run, photo: Path, tmp_path: Path, way: str) -> None:
    before = photo.read_bytes()
    out = tmp_path / "other.png"
    if way == "itself":
        out = photo
    elif way == "other path":
        out = tmp_path / ".." / tmp_path.name / "photo.png"
    elif way == "link":
        out.symlink_to(photo)
    elif way == "hard link":
        os.link(photo, out)
    else:  # what the default would write is a link to the photograph
        out = tmp_path / "photo_denoised.png"
        out.symlink_to(photo)
    code, _, err = denoise(photo, "--overwrite", *([] if way == "default" else ["-o", out]))
    assert code == 1
    assert one_sentence(err)
    assert "none is ever replaced" in err
    assert photo.read_bytes() == before


def bad_photo(kind: str, photo: Path) -> Path:
    path = photo.with_name("bad.png")
    if kind == "truncated":
        path.write_bytes(photo.read_bytes()[:-200])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("dear diary")
    elif kind == "folder":
        path.mkdir()
    elif kind == "bomb":  # 900 megapixels, of which there are a few bytes
        head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b""))
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
                for name, data in chunks
            )
        )
    elif kind == "float":
        Image.new("F", (4, 4), float("nan")).save(path, "TIFF")
    elif kind == "GIF":
        Image.open(photo).save(path, "GIF")
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated", "damaged"),
        ("empty", "empty"),
        ("text", "no image"),
        ("folder", "holds no photographs"),
        ("missing", "does not exist"),
        ("GIF", "GIF"),
        ("bomb", "900 megapixels"),
        ("float", "32-bit samples"),
    ],
)
def test_bad_photographs(denoise: Run, photo: Path, kind: str, said: str) -> None:
    path = bad_photo(kind, photo)
    code, out, err = denoise(path)
    assert (code, out) == (1, "")
    assert one_sentence(err)
    assert "bad.png" in err
    assert said in err
    assert not path.with_name("bad_denoised.png").exists()


@contextmanager
def nobody() -> Iterator[None]:
    """No longer root, for whom no permission counts."""
    if os.geteuid() != 0:
        yield
        return
    groups, stranger = os.getgroups(), 65534
    os.setgroups([])
    os.setresgid(stranger, stranger, 0)
    os.setresuid(stranger, stranger, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


@pytest.mark.skipif(not hasattr(os, "setresuid"), reason="needs a system that lets root become another user")
def test_no_permission(run: Run, photo: Path, tiny_model: Path) -> None:
    assert (
        run("denoise", photo, "--model", tiny_model)[0] == 0
    )  # all is imported while the files of the installation can be read
    content = photo.read_bytes()
    with TemporaryDirectory() as place:  # not below tmp_path, where only its owner may go
        here = Path(place)
        here.chmod(0o777)
        model = shutil.copytree(tiny_model, here / "model")
        model.chmod(0o755)
        for name in ("readable", "locked", "unreadable", "secret"):
            (here / name).mkdir(mode=0o777)
            (here / name / "photo.png").write_bytes(content)
        (here / "locked").chmod(0o555)
        (here / "unreadable" / "photo.png").chmod(0)
        (here / "secret").chmod(0)
        with nobody():
            for name, said in (
                ("locked/photo.png", "the folder is not writable for this user"),
                ("unreadable/photo.png", "may not be read by this user"),
                ("secret/photo.png", "may not be read by this user"),
                ("secret", "the folder cannot be searched (Permission denied)"),
            ):
                code, out, err = run("denoise", here / name, "--model", model)
                assert (code, out) == (1, "")
                assert one_sentence(err)
                assert said in err
            code, out, _ = run("denoise", here, "-o", here / "out", "--model", model)
            assert (code, out.count("\n")) == (1, 2)
        (here / "secret").chmod(0o777)
        found = {path.relative_to(here).as_posix() for path in here.rglob("*.png")}
        names = {f"{name}/photo.png" for name in ("readable", "locked", "unreadable", "secret")}
        assert found == names | {"out/readable/photo_denoised.png", "out/locked/photo_denoised.png"}
        assert all((here / name).read_bytes() == content for name in names - {"unreadable/photo.png"})


def test_folder_that_is_not_writable(
    denoise: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as root every folder is writable, so the system's answer is replaced
    monkeypatch.setattr("spikingir.photo.images.os.access", lambda path, mode: False)
    code, _, err = denoise(photo)
    assert code == 1
    assert one_sentence(err)
    assert "not writable" in err


def test_writing_fails_at_the_end(denoise: Run, photo: Path) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that takes no files from anybody")
    code, out, err = denoise(photo, "-o", "/proc/self/out.png")
    assert (code, out) == (1, "")
    assert one_sentence(err)
    assert "/proc/self/out.png" in err


@pytest.mark.parametrize(
    ("out", "said", "expected"), [("no/folder/out.png", "no folder", 1), ("out.gif", ".png", 2), ("out", ".png", 2)]
)
def test_bad_outputs(denoise: Run, photo: Path, tmp_path: Path, out: str, said: str, expected: int) -> None:
    code, _, err = denoise(photo, "-o", tmp_path / out)
    assert code == expected
    assert one_sentence(err)
    assert said in err


def test_a_photograph_is_named_once(denoise: Run, photo: Path) -> None:
    _, _, err = denoise(photo, "-o", photo, "--overwrite")
    assert one_sentence(err)
    assert err.count(str(photo)) == 1


def bad_model(kind: str, folder: Path, good: Path) -> Path:
    path = folder / "bad.safetensors"
    if kind == "network":
        save_network(DnCNN(layers=3, width=2), path)
    elif kind == "other":
        save_file({"weight": torch.zeros(1)}, path)
    elif kind == "truncated":
        path.write_bytes((good / "snn.safetensors").read_bytes()[:-50])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("dear diary")
    elif kind == "folder":
        path.mkdir()
    elif kind == "torch":
        torch.save({"weight": torch.zeros(1)}, path)
    return path


@pytest.mark.parametrize("kind", ["network", "other", "truncated", "empty", "text", "folder", "torch", "missing"])
def test_bad_models(run: Run, photo: Path, tmp_path: Path, tiny_model: Path, kind: str) -> None:
    path = bad_model(kind, tmp_path, tiny_model)
    code, out, err = run("denoise", photo, "--model", path)
    assert (code, out) == (1, "")
    assert one_sentence(err)
    assert "bad.safetensors" in err
    assert not photo.with_stem("photo_denoised").exists()


def interrupt(*arguments: object, **options: object) -> NoReturn:
    raise KeyboardInterrupt


def test_ctrl_c(denoise: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Restorer, "__call__", interrupt)
    before = set(photo.parent.iterdir())
    assert denoise(photo) == (130, "", "spikingir: stopped\n")
    assert set(photo.parent.iterdir()) == before


def test_ctrl_c_from_the_terminal() -> None:
    code = (
        "import signal, sys, time; from spikingir import cli; from spikingir.cli import console, program\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a test run in the background ignores it
        "@program.app.command\n"
        "def wait():\n    console.say('ready')\n    time.sleep(60)\n"
        "sys.exit(cli.main(['wait']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == "spikingir: stopped\n"
    assert process.returncode == 130


def test_ctrl_c_in_the_middle(photo: Path, tiny_model: Path) -> None:
    """What is done stays, what is under way leaves nothing behind."""
    folder = photo.with_name("photos")
    folder.mkdir()
    for i in range(20):
        Image.effect_noise((900, 700), 60).save(folder / f"{i:02}.png", compress_level=1)
    out = photo.with_name("out")
    arguments = ["denoise", str(folder), "-o", str(out), "--model", str(tiny_model)]
    code = (
        "import signal, sys; from spikingir.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(main({arguments}))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate()
    assert (process.returncode, err) == (130, "spikingir: stopped\n")
    results = sorted(out.iterdir())
    # one may have been written, and not yet been told of
    assert 0 <= len(results) - len((said + rest).splitlines()) <= 1
    assert len(results) < 20
    assert {opened(result).size for result in results} == {(900, 700)}
    assert len(list(folder.iterdir())) == 20


def test_closed_pipe_is_no_error() -> None:
    code = (
        "import sys; from spikingir import cli; from spikingir.cli import console, program\n"
        "@program.app.command\n"
        "def talk():\n    [console.say('x' * 1000) for _ in range(1000)]\n"
        "sys.exit(cli.main(['talk']))"
    )
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (141, "")


# The streams


COMMAND = f'exec "{sys.executable}" -m spikingir.cli '
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


def shell(line: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["sh", "-c", COMMAND + line], capture_output=True, check=False, **options)


@posix
@pytest.mark.parametrize("line", ["models >&-", "--help >&-", "denoise photo.png >&-"])
def test_closed_stdout(line: str, photo: Path) -> None:
    done = shell(line, cwd=photo.parent)
    assert done.returncode == 1
    assert done.stderr.startswith(b"spikingir: stdout is closed")
    assert done.stderr.count(b"\n") == 1
    assert set(photo.parent.iterdir()) == {photo}


@posix
def test_closed_stderr_and_stdin(photo: Path, tiny_model: Path) -> None:
    """And what is written to the descriptor of the closed one goes into no photograph."""
    out = photo.with_name("out.png")
    for closed in ("2>&-", "2>&- <&-"):
        done = shell(f"denoise photo.png -o out.png --overwrite --model '{tiny_model}' {closed}", cwd=photo.parent)
        assert (done.returncode, done.stderr) == (0, b"")
        assert opened(out).size == (16, 12)
        assert shell(f"denoise absent.png --model '{tiny_model}' {closed}", cwd=photo.parent).returncode == 1
    done = shell(f"denoise - --model '{tiny_model}' <&-", cwd=photo.parent)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"spikingir: stdin is closed; expected a photograph from it\n"


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("line", ["models", "--help", "--version", "recipes"])
def test_full_stdout(line: str) -> None:
    done = shell(f"{line} > /dev/full")
    assert (done.returncode, done.stderr) == (1, b"spikingir: No space left on device\n")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_photograph_for_a_full_stdout(photo: Path, tiny_model: Path) -> None:
    done = shell(f"denoise '{photo}' -o - --model '{tiny_model}' > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith(b"spikingir: the result was not written to stdout: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [
        ("latin-1", "caf\u00e9 \u7167 \U0001f600", b"caf\xe9 \\u7167 \\U0001f600"),
        ("ascii", "caf\u00e9", b"caf\\xe9"),
        ("utf-8", "caf\u00e9 \u7167", "caf\u00e9 \u7167".encode()),
    ],
)
def test_names_that_stdout_has_no_letters_for(
    photo: Path, tiny_model: Path, encoding: str, name: str, shown: bytes
) -> None:
    try:
        photo = photo.rename(photo.with_stem(name))
    except OSError:
        pytest.skip("this file system has no such names")
    arguments = [photo.name, f"absent-{photo.name}", "--model", str(tiny_model)]
    done = subprocess.run(
        [sys.executable, "-m", "spikingir.cli", "denoise", *arguments],
        cwd=photo.parent,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 1
    assert done.stdout.startswith(shown + b"_denoised.png: noise about ")
    assert done.stderr.count(b"\n") == 2
    assert b"Traceback" not in done.stderr


def test_restoring_loads_no_compiler() -> None:
    """torch imports its compiler, for a second, where shapes of sums are asked for on its meta device."""
    done = python(
        "import sys, torch; from spikingir import Restorer\n"
        "Restorer.from_pretrained('denoise-photo')(torch.rand(3, 32, 32)); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(
    "module", ["spikingir.cli.program", "cyclopts", "spikingir.cli.train", "spikingir.restoration.jobs", "torch"]
)
def test_ctrl_c_before_the_imports_are_done(module: str, photo: Path, tiny_model: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class CtrlC:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, CtrlC())\n"
        "from spikingir.cli import main\n"
        f"sys.exit(main(['denoise', {str(photo)!r}, '--model', {str(tiny_model)!r}]))"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "spikingir: stopped\n")


def test_the_entry_imports_nothing_of_ours() -> None:
    """What it did import could be interrupted before there is anybody to answer."""
    code = (
        "import sys, spikingir; before = set(sys.modules); import spikingir.cli;"
        "print(set(sys.modules) - before - {'spikingir.cli'})"
    )
    assert python(code).stdout == "set()\n"


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch, photo: Path, tiny_model: Path) -> None:
    def broken(*arguments: object, **options: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(Restorer, "__call__", broken)
    with pytest.raises(ZeroDivisionError):
        main(["denoise", str(photo), "--model", str(tiny_model)])


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device", "/disk")])
def test_errors_of_the_system(denoise: Run, photo: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: object, **options: object) -> NoReturn:
        raise error

    monkeypatch.setattr(Restorer, "__call__", fail)
    code, _, err = denoise(photo)
    assert code == 1
    assert one_sentence(err)
    assert "memory" in err or "/disk: No space left" in err


def test_demo(run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = Restorer.from_pretrained(tiny_model)
    monkeypatch.setattr(demo_module, "Restorer", SimpleNamespace(from_pretrained=lambda name: restorer))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # its own files are replaced
        code, out, err = run("demo")
        assert (code, err) == (0, "")
    assert run("demo", "-o", tmp_path / "demo")[0] == 1  # those of another folder are not
    assert run("demo", "-o", tmp_path / "demo", "--overwrite")[0] == 0
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "original.png",
        "noisy.png",
        "restored.png",
        "comparison.png",
    }
    for said in ("dB", "comparison.png", "per neuron", "mJ", "T = 3"):
        assert said in out


def test_demo_of_haze(run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = Restorer.from_pretrained(tiny_model, time_steps=1)
    monkeypatch.setattr(demo_module, "Restorer", SimpleNamespace(from_pretrained=lambda name: restorer))
    code, out, err = run("demo", "--task", "dehaze", "-o", tmp_path / "demo")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].startswith("hazy        13.20 dB")
    assert (tmp_path / "demo" / "hazy.png").exists()


def test_the_demo_needs_no_extra(photo: Path) -> None:
    """Not even to load its samples; what its other modules import is loaded by restoring, too."""
    extras = sorted(console._EXTRAS)
    code = f"import sys; sys.modules.update(dict.fromkeys({extras})); from spikingir.tasks import TASKS\n"
    code += "print([t.degradation().sample().word for t in TASKS.values()]); import spikingir.restoration.demo"
    assert python(code).stdout == "['noisy', 'hazy']\n"


def _missing(name: str) -> Callable[..., NoReturn]:
    def fail(*arguments: object, **options: object) -> NoReturn:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return fail


def test_missing_modules_that_no_extra_has(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo_module, "run_demo", _missing("nonsense"))
    with pytest.raises(ModuleNotFoundError):
        run("demo", "-o", tmp_path)


def test_the_installed_command(photo: Path, tiny_model: Path) -> None:
    command = shutil.which("spikingir", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the package is not installed here")
    name = b"caf\xe9"  # a name that is no text
    try:
        photo = photo.rename(photo.with_stem(os.fsdecode(name)))
    except OSError:  # nor does this file system take it
        name = b"photo"
    done = subprocess.run(
        [command, "denoise", photo.name, "--model", str(tiny_model)], cwd=photo.parent, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(name + b"_denoised.png: ")
    assert photo.with_stem(f"{photo.stem}_denoised").exists()


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar("working") as progress:
        progress(1, 2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.progress_bar("working") as progress:
        progress(1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "working" in err
