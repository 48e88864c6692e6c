"""The page over HTTP, as the command serves it."""

import json
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from spikingir.cli.serve import serve
from spikingir.restoration.images import Photo, read_image, write_image
from spikingir.web.server import _launch, serving
from spikingir.web.service import Limits, Service


def upload(address: str, content: bytes, name: str) -> str:
    """Path that the server gives to a file."""
    boundary = "a-boundary"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(f"{address}/gradio_api/upload", body, kind)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)[0])


def ask(address: str, photo: str, *wishes: object) -> str:
    """Number under which the API restores a photograph."""
    data = [{"path": photo, "meta": {"_type": "gradio.FileData"}}, *wishes]
    request = urllib.request.Request(
        f"{address}/gradio_api/call/restore", json.dumps({"data": data}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["event_id"])


def answer_of(address: str, event: str) -> list[Any]:
    """What the API gives for a photograph; raises with what the server says is wrong."""
    with urllib.request.urlopen(f"{address}/gradio_api/call/restore/{event}", timeout=120) as answer:
        said = answer.read().decode()
    content = json.loads(said.rpartition("data: ")[2])
    if "event: complete" not in said:
        raise RuntimeError(content)
    return list(content)


def restore(address: str, photo: str, *wishes: object) -> list[Any]:
    return answer_of(address, ask(address, photo, *wishes))


@pytest.fixture(scope="module")
def model(address: str) -> str:
    with urllib.request.urlopen(f"{address}/gradio_api/info", timeout=60) as answer:
        endpoints = json.load(answer)["named_endpoints"]
    assert list(endpoints) == ["/restore"]
    assert "energy in mJ" in endpoints["/restore"]["description"]
    parameters = endpoints["/restore"]["parameters"]
    names = [parameter["parameter_name"] for parameter in parameters]
    assert names == ["photo", "model", "sigma", "time_steps", "schedule"]
    return str(parameters[1]["parameter_default"])


def test_restored_at_full_depth(address: str, model: str, tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "photo.png"
    write_image(Photo(np.random.default_rng(0).random((9, 14, 3), dtype=np.float32), bits=16), path)
    file, report = restore(address, upload(address, path.read_bytes(), path.name), model, "auto", 2, "clocked")
    with urllib.request.urlopen(file["url"], timeout=60) as answer:
        photo = read_image(answer.read())
    assert file["orig_name"] == "photo_denoised.png"
    assert (photo.pixels.shape, photo.bits) == ((9, 14, 3), 16)
    assert (report["time_steps"], report["schedule"]) == (2, "clocked")
    assert 0 < report["snn_mj"] < report["ann_mj"]


def test_haze(address: str, model: str, tiny_dehazer: Path, tmp_path: Path) -> None:
    path = tmp_path / "street.webp"
    Image.effect_noise((30, 20), 60).convert("RGB").save(path)
    file, report = restore(
        address, upload(address, path.read_bytes(), path.name), tiny_dehazer.name, "auto", 0, "trained"
    )
    assert (report["task"], report["model"], report["time_steps"]) == ("dehaze", tiny_dehazer.name, 2)
    with urllib.request.urlopen(file["url"], timeout=60) as answer:
        assert read_image(answer.read()).pixels.shape == (20, 30, 3)
    assert file["orig_name"] == "street_dehazed.webp"


@pytest.mark.filterwarnings("ignore")  # of Gradio, which is here in this process
def test_more_than_may_wait_are_turned_away(
    port: int, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="Gradio is not installed: make test-web")
    begun, go_on = Event(), Event()
    restore = Service.restore

    def wait(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(120)
        return restore(*arguments, **options)

    monkeypatch.setattr(Service, "restore", wait)
    path = tmp_path / "photo.png"
    Image.effect_noise((30, 20), 60).save(path)
    with serving([str(tiny_model)], port=port, limits=Limits(waiting=1)) as url:
        address = url.rstrip("/")
        photo = upload(address, path.read_bytes(), path.name)
        asked = [address, photo, tiny_model.name, "auto", 0, "trained"]
        first = ask(*asked)
        assert begun.wait(120)
        second = ask(*asked)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            ask(*asked)
        go_on.set()
        assert [len(answer_of(address, event)) for event in (first, second)] == [2, 2]


def test_refusals_are_sentences(address: str, model: str, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (200, 60)).save(path)
    large = upload(address, path.read_bytes(), path.name)
    with pytest.raises(RuntimeError, match=r"large\.png: 200 x 60 are .* expected at most 0\.01") as refused:
        restore(address, large, model, "auto", 0, "trained")
    assert str(Path(large).parent) not in str(refused.value)  # folders of the server are no business of visitors
    with pytest.raises(RuntimeError, match="maximum value 5"):
        restore(address, large, model, "auto", 5.5, "trained")
    Image.effect_noise((30, 20), 60).save(path)
    with pytest.raises(RuntimeError, match="damaged PNG"):
        restore(address, upload(address, path.read_bytes()[:-50], "torn.png"), model, "auto", 0, "trained")


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/photo.png", "/etc/passwd", "/etc/passwd.png"])
def test_nothing_is_fetched_or_read_from_elsewhere(address: str, model: str, place: str) -> None:
    with pytest.raises(RuntimeError):
        restore(address, place, model, "auto", 0, "trained")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}/gradio_api/file=/etc/passwd", timeout=60)
    # Gradio has an older route to its files, too
    for elsewhere in ("=https://example.com/a.png", "=HTTP%3A//example.com/a.png", "/https://example.com/a.png"):
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(f"{address}/gradio_api/file{elsewhere}", timeout=60)
        assert refused.value.read() == b"this server fetches nothing from others"


@pytest.mark.parametrize(
    ("host", "name"), [("::1", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")]
)
def test_hosts_are_named_as_in_a_url(host: str, name: str) -> None:
    pytest.importorskip("starlette", reason="Gradio is not installed: make test-web")
    blocks = SimpleNamespace(launch=lambda **options: (None, f"http://{options['server_name']}:80/", None))
    look = SimpleNamespace(theme=lambda: None, CSS="")
    assert _launch(blocks, look, host, 80, 1) == f"http://{name}:80/"


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
    assert (f"whoever reaches {host} can use the page" in capsys.readouterr().err) == noted


def test_files_beyond_the_limit_are_turned_away(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="413"):
        upload(address, bytes(2**20 + 1), "long.png")


def test_the_page_needs_no_other_host(address: str) -> None:
    with urllib.request.urlopen(address, timeout=60) as answer:
        policy, page = answer.headers["content-security-policy"], answer.read().decode()
    assert "default-src 'self'" in policy
    assert "http:" not in policy
    assert "https:" not in policy
    assert "fonts.googleapis.com" not in page
    with urllib.request.urlopen(f"{address}/config", timeout=60) as answer:
        assert json.load(answer)["analytics_enabled"] is False
