"""The page and its API over HTTP, as the command serves them."""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from email.message import Message
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
import pytest
from PIL import Image

from spikingir.cli.serve import serve
from spikingir.photo.images import FORMATS, Photo, encode_image, read_image
from spikingir.restoration.restorer import Restorer
from spikingir.web.server import ServerError, from_elsewhere, listening, serving
from spikingir.web.server import address as address_of
from spikingir.web.service import Limits, Service
from tests.web.conftest import START, free_port, offers

WAIT = 120


def ask(
    address: str, path: str, body: bytes | None = None, method: str | None = None, **headers: str
) -> tuple[bytes, Message]:
    """What the server answers."""
    given = {"Content-Type": "application/octet-stream"} if body is not None else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(address + path, body, given, method=method)
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        return answer.read(), answer.headers


def refused(address: str, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Any:
    """Code and sentence of what the server refuses."""
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(address, path, body, method, **headers)
    with error.value:
        return error.value.code, json.load(error.value)["error"]


def restored(address: str, content: bytes, **wishes: Any) -> str:
    """Path of a photograph that is sent, once it is restored; raises with what is wrong."""
    told = json.loads(ask(address, f"/v1/photos?{urlencode(wishes)}", content)[0])
    path, ticks = f"/v1/photos/{told['id']}", Event()
    for _ in range(50 * WAIT):
        if told["state"] == "failed":
            raise RuntimeError(told["error"])
        if told["state"] == "done":
            return path
        ticks.wait(0.02)
        told = json.loads(ask(address, path)[0])
    raise AssertionError("it never came to that")


def noise(format: str = "png", size: tuple[int, int] = (30, 20)) -> bytes:
    import io

    file = io.BytesIO()
    Image.effect_noise(size, 60).save(file, FORMATS[format].name)
    return file.getvalue()


@pytest.fixture(scope="module")
def about(address: str) -> dict[str, Any]:
    return dict(json.loads(ask(address, "/v1/")[0]))


@pytest.fixture(scope="module")
def model(about: dict[str, Any]) -> str:
    return str(about["models"][0]["name"])


def test_what_there_is(about: dict[str, Any], tiny_dehazer: Path) -> None:
    assert [model["task"] for model in about["models"]] == ["denoise", "dehaze"]
    assert about["models"][1]["name"] == tiny_dehazer.name
    assert about["limits"]["megapixels"] == 0.01
    assert "POST /v1/restore" in about["api"]


def test_restored_at_full_depth(address: str, model: str) -> None:
    photo = Photo(np.random.default_rng(0).random((9, 14, 3), dtype=np.float32), bits=16)
    content = encode_image(photo, "photo.png")[0]
    wishes = {"name": "Gräser 1.png", "model": model, "time_steps": 2, "schedule": "clocked"}
    path = restored(address, content, **wishes)
    report = json.loads(ask(address, path)[0])["report"]
    assert (report["file"], report["time_steps"], report["schedule"]) == ("Gräser 1_denoised.png", 2, "clocked")
    assert 0 < report["snn_mj"] < report["ann_mj"]
    file, headers = ask(address, f"{path}/result")
    found = read_image(file)
    assert (found.pixels.shape, found.bits) == ((9, 14, 3), 16)
    assert headers["content-type"] == "image/png"
    named = headers["content-disposition"]
    assert named == f"attachment; filename=\"Gr_ser 1_denoised.png\"; filename*=UTF-8''{quote(report['file'])}"
    # all in one, and none of it, which is the photograph
    once, headers = ask(address, f"/v1/restore?{urlencode(wishes)}", content)
    assert once == file
    assert headers["content-location"].startswith("/v1/photos/")
    none = read_image(ask(address, f"{path}/result?strength=0")[0])
    np.testing.assert_array_equal(none.pixels, read_image(content).pixels)


@pytest.mark.parametrize("format", FORMATS)
def test_haze_in_every_format(address: str, tiny_dehazer: Path, format: str) -> None:
    path = restored(address, noise(format), model=tiny_dehazer.name)
    report = json.loads(ask(address, path)[0])["report"]
    assert (report["task"], report["model"], report["time_steps"]) == ("dehaze", tiny_dehazer.name, 2)
    assert report["file"] == f"photo_dehazed{FORMATS[format].suffixes[0]}"  # one without a name
    file, headers = ask(address, f"{path}/result?strength=0.5")
    assert read_image(file).pixels.shape[:2] == (20, 30)
    assert headers["content-type"] == f"image/{format}"
    for side in ("before", "after"):
        picture, headers = ask(address, f"{path}/{side}.png?left=10&top=0&width=512&height=7")
        assert (read_image(picture).pixels.shape[:2], headers["content-type"]) == ((7, 20), "image/png")


def test_a_photograph_can_be_deleted(address: str, model: str) -> None:
    path = restored(address, noise(), model=model)
    assert ask(address, path, method="DELETE")[0] == b""
    for gone, method in ((path, None), (path, "DELETE"), (f"{path}/result", None), (f"{path}/after.png", None)):
        assert refused(address, gone, method=method) == (
            404,
            "the photograph has been deleted meanwhile; send it again",
        )


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("modle=auto", "no parameter 'modle' here; did you mean model?"),
        ("zzz=1", "expected one of name, strength, model"),
        ("model=x", "no model 'x'"),
        ("strength=2", "the strength is '2'; expected a number from 0 to 1"),
        ("strength=nan", "expected a number from 0 to 1"),
        ("strength=1&strength=0", "strength is given twice"),
        ("time_steps=6", "up to 5"),
        ("sigma=many", "the noise level is 'many'"),
        ("schedule=", "the schedule is ''"),
    ],
)
def test_wishes_that_are_none(address: str, query: str, said: str) -> None:
    code, found = refused(address, f"/v1/restore?{query}", noise())
    assert code == 400
    assert said in found


@pytest.mark.parametrize(
    ("path", "method", "code"),
    [
        ("/v2/", "GET", 404),
        ("/v1/photos/none", "GET", 404),
        ("/static/page.py", "GET", 404),
        ("/..%2f..%2fserver.py", "GET", 404),
        ("/examples/..%2fpage.js", "GET", 404),
        ("/v1/restore", "GET", 405),
        ("/v1/photos", "DELETE", 405),
        ("/", "POST", 405),
        ("/v1/restore", "OPTIONS", 405),
    ],
)
def test_what_there_is_not(address: str, path: str, method: str, code: int) -> None:
    assert refused(address, path, method=method)[0] == code


def test_parts_that_are_none(address: str, model: str) -> None:
    path = restored(address, noise(), model=model)
    for query in (
        "left=0",
        "left=x&top=0&width=1&height=1",
        "left=0&top=0&width=1&height=-1",
        "left=99&top=0&width=1&height=1",
    ):
        assert refused(address, f"{path}/after.png?{query}")[0] == 400
    assert refused(address, f"{path}/beside.png")[0] == 404


def test_refusals_are_sentences(address: str, model: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"large\.png: 200 x 60 are .* expected at most 0\.01"):
        restored(address, noise(size=(200, 60)), model=model, name="large.png")
    with pytest.raises(RuntimeError, match=r"torn\.png is a damaged PNG"):
        restored(address, noise()[:-50], model=model, name="torn.png")
    with pytest.raises(RuntimeError, match="the photograph is no image of a known format"):
        restored(address, b"hello, this is a text", model=model)
    code, said = refused(address, f"/v1/restore?model={model}&name=torn.png", noise()[:-50])
    assert (code, "damaged PNG" in said) == (422, True)


def test_an_empty_photograph_and_an_empty_name(address: str, model: str) -> None:
    assert refused(address, f"/v1/restore?model={model}", b"") == (
        400,
        "the body is empty; expected the photograph itself",
    )
    path = restored(address, noise("jpeg"), model=model, name="")
    assert json.loads(ask(address, path)[0])["report"]["file"] == "photo_denoised.jpg"


@pytest.mark.parametrize("path", ["/v1/restore", "/v1/photos"])
@pytest.mark.parametrize("extra", [1, 2**19, 30 * 2**20])
def test_files_beyond_the_limit_are_turned_away(address: str, path: str, extra: int) -> None:
    code, said = refused(address, path, bytes(2**20 + extra))
    assert code == 413
    assert "expected at most 1: give a smaller one" in said


def test_the_limit_holds_without_a_length(address: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=WAIT)
    connection.request(
        "POST", "/v1/restore", iter([bytes(2**16)] * 17), {"Content-Type": "image/png"}, encode_chunked=True
    )
    answer = connection.getresponse()
    assert (answer.status, "at most 1" in json.load(answer)["error"]) == (413, True)
    connection.close()


@pytest.mark.parametrize(
    "kind",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/plain", "application/json", ""],
)
def test_what_forms_of_other_sites_could_send_is_refused(address: str, kind: str) -> None:
    code, said = refused(address, "/v1/restore", noise(), Content_Type=kind)
    assert code == 415
    assert "expected the photograph itself" in said


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:7860"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/", "/page.js", "/v1/restore"])
def test_pages_of_other_sites_are_refused(address: str, path: str, headers: dict[str, str]) -> None:
    body = noise() if path == "/v1/restore" else None
    assert refused(address, path, body, **headers)[0] == 403


def test_no_answer_lets_another_site_read_it(address: str) -> None:
    request = urllib.request.Request(
        f"{address}/v1/restore",
        method="OPTIONS",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=WAIT)
    with error.value:
        assert error.value.code == 403
        assert not [name for name in error.value.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/", "/page.css", "/page.js", "/icon.svg", "/examples/noisy.jpg", "/examples/hazy.jpg", "/v1/"]
)
def test_what_is_served_needs_no_other_host(address: str, path: str) -> None:
    content, headers = ask(address, path)
    assert content
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"
    kinds = {"": "html", ".css": "css", ".js": "javascript", ".svg": "svg+xml", ".jpg": "jpeg"}
    assert headers.get_content_subtype() == ("json" if path == "/v1/" else kinds[Path(path).suffix])
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    if path in ("/", "/page.css", "/page.js"):
        # links, which a person may follow, are not loaded
        loaded = re.sub(r'<a href="[^"]*"', "", content.decode())
        assert not re.search(r"(https?:)?//[a-z]", loaded.replace("http://www.w3.org/2000/svg", ""))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Event, Event]]:
    """Work that begins, and goes on when it is told to."""
    begun, go_on = Event(), Event()
    restore = Service.restore

    def wait(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(WAIT)
        return restore(*arguments, **options)

    monkeypatch.setattr(Service, "restore", wait)
    yield begun, go_on
    go_on.set()


def test_more_than_may_wait_are_turned_away(port: int, tiny_model: Path, held: tuple[Event, Event]) -> None:
    pytest.importorskip("uvicorn", reason="Uvicorn is not installed: make test-web")
    begun, go_on = held
    with serving([str(tiny_model)], port=port, limits=Limits(waiting=1)) as url, ThreadPoolExecutor(2) as pool:
        address = url.rstrip("/")
        first = pool.submit(ask, address, "/v1/restore", noise())
        assert begun.wait(WAIT)
        told = json.loads(ask(address, "/v1/photos", noise())[0])
        assert (told["state"], told["before_it"], told["report"]) == ("waiting", 1, None)
        code, said = refused(address, f"/v1/photos/{told['id']}/result")
        assert (code, "not restored yet" in said) == (409, True)
        for path in ("/v1/restore", "/v1/photos"):
            code, said = refused(address, path, noise())
            assert (code, "2 photographs are being restored or wait" in said) == (503, True)
        go_on.set()
        assert read_image(first.result(WAIT)[0]).pixels.shape == (20, 30, 1)


def test_work_stops_when_the_client_hangs_up(
    port: int, tiny_model: Path, held: tuple[Event, Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn", reason="Uvicorn is not installed: make test-web")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    begun, go_on = held
    with serving([str(tiny_model)], port=port):
        connection = http.client.HTTPConnection(f"127.0.0.1:{port}", timeout=WAIT)
        connection.request("POST", "/v1/restore", noise(), {"Content-Type": "image/png"})
        assert begun.wait(WAIT)
        connection.close()
        ticks = Event()
        for _ in range(100 * WAIT):
            if not list(tmp_path.glob("spikingir-*/photo-*")):
                break
            ticks.wait(0.01)
        assert not list(tmp_path.glob("spikingir-*/photo-*"))
        go_on.set()
    assert not list(tmp_path.glob("spikingir-*"))


def test_a_sender_that_falls_silent_is_given_up(port: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="Uvicorn is not installed: make test-web")
    monkeypatch.setattr("spikingir.web.app.PATIENCE", 0.2)
    with serving([str(tiny_model)], port=port, limits=Limits(waiting=1)) as url:
        with socket.create_connection(("127.0.0.1", port), WAIT) as silent:
            silent.sendall(
                b"POST /v1/photos HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: image/png\r\nContent-Length: 999\r\n\r\nhalf"
            )
            answer = b""
            while piece := silent.recv(4096):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"no byte came" in answer
        for _ in range(2):  # its place is free
            assert restored(url.rstrip("/"), noise())


def test_a_sender_that_takes_too_long_is_given_up(port: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="Uvicorn is not installed: make test-web")
    monkeypatch.setattr("spikingir.web.app.AT_MOST", -1.0)
    with serving([str(tiny_model)], port=port, limits=Limits(waiting=1)) as url:
        for _ in range(3):  # each gives its place back
            assert refused(url.rstrip("/"), "/v1/restore", noise())[0] == 408


def test_fifty_clients_at_once(port: int, tiny_model: Path) -> None:
    pytest.importorskip("uvicorn", reason="Uvicorn is not installed: make test-web")
    values = np.random.default_rng(0)
    sent = [encode_image(Photo(values.random((9, 14, 1), dtype=np.float32)), "a.png")[0] for _ in range(50)]
    with serving([str(tiny_model)], port=port, limits=Limits(waiting=50)) as url, ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda content: ask(url.rstrip("/"), "/v1/restore", content)[0], sent))
    restorer = Restorer.from_pretrained(tiny_model)
    assert answers == [encode_image(restorer(read_image(content)), "a.png")[0] for content in sent]  # to each its own


def test_further_names_are_given_to_the_command(tiny_model: Path, tmp_path: Path, port: int) -> None:
    pytest.importorskip("uvicorn", reason="Uvicorn is not installed: make test-web")
    names = ["--allow-host", "photos.example.org", "--allow-host", "b.example"]
    with offers(tiny_model, "--port", port, *names, folder=tmp_path) as server:
        assert server.stdout is not None
        assert str(port) in server.stdout.readline()
        for name in ("photos.example.org", "b.example:81"):
            assert ask(f"http://127.0.0.1:{port}", "/v1/", Host=name)[0]
        assert refused(f"http://127.0.0.1:{port}", "/v1/", Host="c.example")[0] == 403
        server.terminate()
        assert server.wait(START) == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_however_it_ends_photographs_are_deleted(tiny_model: Path, tmp_path: Path, port: int, name: str) -> None:
    pytest.importorskip("uvicorn", reason="Uvicorn is not installed: make test-web")
    if not hasattr(signal, name):
        pytest.skip(f"{name} is unknown here")
    with offers(tiny_model, "--port", port, folder=tmp_path) as server:
        assert server.stdout is not None
        assert str(port) in server.stdout.readline()
        restored(f"http://127.0.0.1:{port}", noise())
        assert len(list(tmp_path.glob("spikingir-*/photo-*/result"))) == 1
        server.send_signal(getattr(signal, name))
        assert server.wait(START) == (130 if name == "SIGINT" else 0)
    assert not list(tmp_path.glob("spikingir-*"))


def test_a_port_that_is_taken(tiny_model: Path) -> None:
    pytest.importorskip("uvicorn", reason="Uvicorn is not installed: make test-web")
    port = free_port()
    with listening("127.0.0.1", port), pytest.raises(ServerError, match="give another with --port or --host"):
        serving([str(tiny_model)], port=port).__enter__()
    with pytest.raises(ServerError, match=r"192\.0\.2\.1 port"):  # for documentation: nobody's
        serving([str(tiny_model)], host="192.0.2.1", port=port).__enter__()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("::1", "http://[::1]:80/"),
        ("[::1]", "http://[::1]:80/"),
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("localhost", "http://localhost:80/"),
        ("0.0.0.0", "http://localhost:80/"),
        ("::", "http://localhost:80/"),
    ],
)
def test_hosts_are_named_as_in_a_url(host: str, expected: str) -> None:
    assert address_of(host, 80) == expected


@pytest.mark.parametrize("host", ["localhost", "[::1]", "::", "0.0.0.0"])
def test_addresses_to_listen_at(port: int, tiny_model: Path, host: str) -> None:
    pytest.importorskip("uvicorn", reason="Uvicorn is not installed: make test-web")
    if ":" in host and not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    with serving([str(tiny_model)], host=host, port=port) as url:
        assert json.loads(ask(url.rstrip("/"), "/v1/")[0])["models"]


@pytest.mark.parametrize(
    ("host", "noted"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("[::1]", False), ("0.0.0.0", True), ("::", True)],
)
def test_who_else_reaches_the_page_is_noted(
    host: str, noted: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spikingir.web.server.serving", lambda *models, **options: nullcontext(options["host"]))
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setattr("threading.Event.wait", lambda event, timeout=None: True)
    serve(host=host)
    err = capsys.readouterr().err
    assert (f"whoever reaches {from_elsewhere(host, 7860)} can use the page" in err) == noted


def test_where_a_phone_finds_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("0.0.0.0", "::", "[::]"):
        place = urlsplit(from_elsewhere(host, 80)).hostname
        assert place not in ("0.0.0.0", "::", "localhost", None)
    assert from_elsewhere("192.0.2.7", 80) == "http://192.0.2.7:80/"

    def unreachable(*arguments: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.socket", unreachable)
    monkeypatch.setattr("socket.gethostname", lambda: "desk")
    assert from_elsewhere("0.0.0.0", 80) == "http://desk:80/"


def test_an_ignored_hang_up_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``nohup`` has it."""
    handled = []
    monkeypatch.setattr("spikingir.web.server.serving", lambda *models, **options: nullcontext(""))
    monkeypatch.setattr("signal.getsignal", lambda number: signal.SIG_IGN if number == signal.SIGHUP else None)
    monkeypatch.setattr("signal.signal", lambda number, handler: handled.append(number))
    monkeypatch.setattr("threading.Event.wait", lambda event, timeout=None: True)
    serve()
    assert handled == [signal.SIGTERM]


def examples(language: str) -> list[str]:
    """What stands in docs/page.md as an example."""
    text = (Path(__file__).parents[2] / "docs" / "page.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("which", ["shell", "Python", "external editor"])
def test_examples_of_the_documentation_work(address: str, tmp_path: Path, which: str) -> None:
    shell, editor = examples("sh")
    (python,) = examples("python")
    example = {"shell": shell, "Python": python, "external editor": editor}[which]
    if which != "Python" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    assert len([line for line in example.splitlines() if line]) == 3
    script = tmp_path / "script"
    script.write_text(example.replace("http://127.0.0.1:7860", address), encoding="utf-8")
    photo, clean = tmp_path / "photo.jpg", tmp_path / "clean.jpg"
    photo.write_bytes(noise("jpeg"))
    strength = 0.8 if which == "shell" else 1.0
    expected = ask(address, f"/v1/restore?strength={strength}", photo.read_bytes())[0]
    program = [sys.executable, "-W", "ignore"] if which == "Python" else ["sh"]
    arguments = [str(photo)] if which == "external editor" else []
    subprocess.run([*program, str(script), *arguments], cwd=tmp_path, check=True, timeout=WAIT)
    assert (photo if which == "external editor" else clean).read_bytes() == expected
