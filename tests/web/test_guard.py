"""What is refused by its headers: DNS rebinding, and requests that pages of other sites make."""

import pytest

pytest.importorskip("starlette", reason="Starlette is not installed: make test-web")

from spikingir.web.app import HEADERS, Guard, names_of
from spikingir.web.service import RequestError

HOST = "127.0.0.1:7860"
ELSEWHERE = "another site"


def refusal(host: str | None = HOST, method: str = "GET", *, listens: str = "127.0.0.1", **headers: str) -> str | None:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if host is not None:
        given.append((b"host", host.encode("latin-1")))
    return Guard(None, names_of(listens, ("photos.example.org",))).refusal(method, given)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:7860",
        "127.0.0.1",
        "localhost:7860",
        "LocalHost:9000",  # a tunnel's port
        "localhost.:7860",
        "[::1]:7860",
        "192.168.1.20:7860",  # a number: no site has it for a name
        "photos.example.org",  # --allow-host
        "photos.example.org:443",
    ],
)
def test_hosts_that_are_this_one(host: str) -> None:
    assert refusal(host) is None


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example:7860",
        "localhost.evil.example",
        "evil.example:7860@127.0.0.1",
        "evil.example/127.0.0.1",
        "127.0.0.1:7860 evil.example",
        "127.1",
        "0x7f000001",
        "[::1]evil.example",
        "::1",
        "127.0.0.1:port",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_hosts_that_are_another(host: str | None, method: str) -> None:
    said = refusal(host, method)
    assert said is not None
    assert "--allow-host" in said


def test_a_host_given_twice() -> None:
    headers = [(b"host", HOST.encode()), (b"host", b"evil.example")]
    assert Guard(None, names_of("127.0.0.1")).refusal("GET", headers) is not None


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://evil.example", "null", "", "http://localhost:7860", "http://127.0.0.1:3000"],
)
def test_origins_that_are_another(method: str, origin: str) -> None:
    assert ELSEWHERE in str(refusal(method=method, origin=origin))


@pytest.mark.parametrize("origin", ["http://127.0.0.1:7860", "https://127.0.0.1:7860"])
def test_the_page_itself_may_ask(origin: str) -> None:
    assert refusal(method="POST", origin=origin, sec_fetch_site="same-origin") is None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_browsers_say_of_the_page_that_asks(site: str) -> None:
    for method, kind in (("GET", "image"), ("GET", "empty"), ("GET", "iframe"), ("POST", "document")):
        assert ELSEWHERE in str(refusal(method=method, sec_fetch_site=site, sec_fetch_dest=kind))
    assert refusal(sec_fetch_site=site, sec_fetch_dest="document") is None  # a link that a person follows
    assert refusal(sec_fetch_site="none", sec_fetch_dest="empty") is None


def test_names_of_a_server_that_others_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Studio")
    assert names_of("127.0.0.1") == {"127.0.0.1", "localhost"}
    assert names_of("[::1]") == {"::1", "localhost"}
    assert names_of("0.0.0.0", ("Photos.Example.org.",)) == {
        "0.0.0.0",
        "localhost",
        "studio",
        "studio.local",
        "photos.example.org",
    }


def test_no_other_site_is_let_in() -> None:
    assert not [name for name in HEADERS if name.startswith("access-control")]
    assert "http" not in HEADERS["content-security-policy"]
    assert "unsafe" not in HEADERS["content-security-policy"]


@pytest.mark.parametrize(
    "name", ["", "*", "photos.example.org:443", "https://photos.example.org", "a b", "..", "[::1]"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(RequestError, match="is no name of a server; expected one like"):
        names_of("127.0.0.1", (name,))
