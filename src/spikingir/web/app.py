"""What the server answers to requests, and which it refuses before it reads them.

A page of another site, open in the same browser, reaches a server of this machine: by requests of its own, and under a
name of its own that it lets point here (DNS rebinding). What it cannot do is to choose the headers that browsers set:
``Host`` names the server as the address bar does, ``Origin`` and ``Sec-Fetch-Site`` the page that asks.
"""

import asyncio
import difflib
import ipaddress
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

import spikingir
from spikingir.photo.formats import SUFFIXES
from spikingir.web.desk import Desk, FullError, Job
from spikingir.web.service import MAX_SIGMA, PICTURE, SCHEDULES, Answer, Box, GoneError, RequestError

STATIC = Path(__file__).with_name("static")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy: the page loads what this server has, and nothing from elsewhere."""

HEADERS = MappingProxyType(
    {
        "content-security-policy": POLICY,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
)
"""Headers of every answer. None of them lets another site read it: there is no CORS."""

MIME = MappingProxyType(
    {"PNG": "image/png", "JPEG": "image/jpeg", "TIFF": "image/tiff", "WebP": "image/webp", "BMP": "image/bmp"}
)

PATIENCE = 30.0
"""Seconds without a byte after which a photograph that is being sent is given up."""

AT_MOST = 600.0
"""Seconds that a photograph may take to arrive: who sends a byte now and then keeps no place for ever."""

_PAGE = MappingProxyType({"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/icon.svg": "icon.svg"})
_TYPES = MappingProxyType(
    {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
)
_EXAMPLES = ("noisy.jpg", "hazy.jpg")
_WISHES = ("model", "sigma", "time_steps", "schedule")
_LOOK = 0.05  # seconds between two looks at whether a photograph is done
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/@\s]+)(?::\d{1,5})?")

_API = {
    "POST /v1/restore": "a photograph as the body (Content-Type: image/... or application/octet-stream): the restored "
    "file; takes what POST /v1/photos takes, and strength",
    "POST /v1/photos": "a photograph as the body: its id; parameters name, model, sigma, time_steps, schedule",
    "GET /v1/photos/ID": "its state (sent, waiting, working, done, failed), progress, error and report",
    "GET /v1/photos/ID/result": "the restored file; parameter strength, from 0 to 1",
    "GET /v1/photos/ID/before.png": f"a picture of at most {PICTURE} pixels a side; the part left, top, width, height",
    "GET /v1/photos/ID/after.png": "likewise of the restored photograph",
    "DELETE /v1/photos/ID": "deletes photograph and result, stops work on it",
}


class Guard:
    """Refuses requests that a page of another site had a hand in, and sets the headers of all answers.

    Args:
        app: What answers the others.
        names: Names of the server, beside its addresses as numbers, which no other site can have for a name.
    """

    def __init__(self, app: Any, names: frozenset[str]) -> None:
        self.app = app
        self.names = names

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, as an ASGI application."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        app = self.app
        if scope["type"] == "http":
            why = self.refusal(scope["method"], scope["headers"])
            if why is not None:
                app = JSONResponse({"error": why}, 403)
        await app(scope, receive, send_with_headers)

    def refusal(self, method: str, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Why a request is refused, or None."""
        given = {name: [v.decode("latin-1") for n, v in headers if n == name] for name, _ in headers}
        hosts, origins = given.get(b"host", []), given.get(b"origin", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0].lower()):
            return (
                "this server is asked under a name that it does not know; use its address, "
                "or start it with --allow-host NAME"
            )
        if any(
            origin.lower() not in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}") for origin in origins
        ):
            return "the request comes from a page of another site; open the page of this server"
        # a link from elsewhere may lead to the page: browsers tell that nothing else than a person goes there
        followed = method == "GET" and given.get(b"sec-fetch-dest") == ["document"]
        if not followed and any(site not in ("same-origin", "none") for site in given.get(b"sec-fetch-site", [])):
            return "the request comes from a page of another site; open the page of this server"
        return None

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].removesuffix(".")
        return name in self.names or _is_number(name.strip("[]"))


def names_of(host: str, more: tuple[str, ...] = ()) -> frozenset[str]:
    """Names under which a server that listens at ``host`` may be asked, in lower case.

    Raises:
        RequestError: One of ``more`` is no such name.
    """
    for name in more:
        if not _NAME.fullmatch(name):
            raise RequestError(f"{name!r} is no name of a server; expected one like photos.example.org, without a port")
    names = {"localhost", host.strip("[]"), *more}
    if host.strip("[]") not in ("localhost", "127.0.0.1", "::1"):
        own = socket.gethostname()
        names |= {own, f"{own}.local"}
    return frozenset(name.lower().removesuffix(".") for name in names)


def build(desk: Desk, names: frozenset[str]) -> Guard:
    """The page and its API, as an ASGI application.

    Args:
        desk: Where photographs go.
        names: See :class:`Guard`.
    """
    api = _Api(desk)
    photo = "/v1/photos/{id}"
    routes = [
        *(Route(path, _file(STATIC / name)) for path, name in _PAGE.items()),
        *(Route(f"/examples/{name}", _file(STATIC / name)) for name in _EXAMPLES),
        Route("/v1/", api.about),
        Route("/v1/restore", api.restore, methods=["POST"]),
        Route("/v1/photos", api.send, methods=["POST"]),
        Route(photo, api.photo, methods=["GET", "DELETE"]),
        Route(f"{photo}/result", api.result),
        Route(f"{photo}/{{side}}.png", api.picture),
    ]
    handlers = {
        HTTPException: api.refuse_http,
        RequestError: api.refuse,
        ClientDisconnect: _unheard,
        Exception: _bug,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), names)


class _Api:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.service = desk.service

    async def about(self, request: Request) -> Response:
        _parameters(request)
        limits = self.service.limits
        return JSONResponse(
            {
                "version": spikingir.__version__,
                "api": _API,
                "models": self.service.offers(),
                "schedules": SCHEDULES,
                "max_sigma": MAX_SIGMA,
                "picture": PICTURE,
                "suffixes": list(SUFFIXES),
                "limits": {
                    "megabytes": limits.megabytes,
                    "megapixels": limits.megapixels,
                    "time_steps": limits.time_steps,
                    "minutes": limits.minutes,
                },
            }
        )

    async def send(self, request: Request) -> Response:
        job = await self._receive(request, _parameters(request, "name", *_WISHES))
        return JSONResponse(self._told(job), 202, {"location": f"/v1/photos/{job.id}"})

    async def restore(self, request: Request) -> Response:
        wishes = _parameters(request, "name", "strength", *_WISHES)
        strength = _strength(wishes)
        job = await self._receive(request, wishes)
        while job.state not in ("done", "failed"):
            if job.stopped or await request.is_disconnected():
                self.desk.drop(job)
                raise ClientDisconnect
            await asyncio.sleep(_LOOK)
        return await self._file(job, strength)

    async def photo(self, request: Request) -> Response:
        _parameters(request)
        job = self.desk.find(request.path_params["id"])
        if request.method == "DELETE":
            self.desk.drop(job)
            return Response(status_code=204)
        return JSONResponse(self._told(job))

    async def result(self, request: Request) -> Response:
        strength = _strength(_parameters(request, "strength"))
        return await self._file(self.desk.find(request.path_params["id"]), strength)

    async def picture(self, request: Request) -> Response:
        side = request.path_params["side"]
        if side not in ("before", "after"):
            raise HTTPException(404)
        asked = _parameters(request, *Box._fields)
        job = self.desk.find(request.path_params["id"])
        box = Box(*(_whole(asked, name) for name in Box._fields)) if asked else None
        content = await run_in_threadpool(self.service.picture, self._answer(job), side, box)
        return Response(content, media_type="image/png")

    async def _receive(self, request: Request, asked: Mapping[str, str]) -> Job:
        """A photograph, from the body of a request."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # what forms of other sites can send without being asked by the browser first is not among these
        if not kind.startswith("image/") and kind != "application/octet-stream":
            raise HTTPException(
                415, f"the body is {kind or 'of no kind'}; expected the photograph itself, as Content-Type: image/jpeg"
            )
        wishes = self.service.check(**{name: asked[name] for name in _WISHES if name in asked})
        most = self.service.limits.megabytes * 2**20
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise _too_long(int(length) / 2**20, self.service.limits.megabytes)
        with self.desk.receiving(asked.get("name", ""), wishes) as job:
            sent = 0
            with job.photo.open("wb") as file:
                pieces = request.stream().__aiter__()
                late = asyncio.get_running_loop().time() + AT_MOST
                while piece := await _next(pieces):
                    sent += len(piece)
                    if sent > most:
                        raise _too_long(sent / 2**20, self.service.limits.megabytes)
                    if asyncio.get_running_loop().time() > late:
                        raise HTTPException(408, f"the photograph took more than {AT_MOST:g} seconds to arrive")
                    file.write(piece)
            if not sent:
                raise RequestError("the body is empty; expected the photograph itself")
        return job

    async def _file(self, job: Job, strength: float) -> Response:
        answer = self._answer(job)
        content = await run_in_threadpool(self.service.result, answer, strength)
        name = answer.name
        plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", name)
        return Response(
            content,
            media_type=MIME[SUFFIXES[Path(name).suffix.lower()].name],
            headers={
                "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
                "content-location": f"/v1/photos/{job.id}",
            },
        )

    def _answer(self, job: Job) -> Answer:
        if job.error is not None:
            raise HTTPException(422, job.error)
        if job.answer is None:
            raise HTTPException(409, "the photograph is not restored yet; ask again when its state is done")
        return job.answer

    async def refuse(self, request: Request, error: Exception) -> Response:
        """What is said where something cannot be done."""
        code = 503 if isinstance(error, FullError) else 404 if isinstance(error, GoneError) else 400
        return await self._refused(request, code, str(error), {"retry-after": "5"} if code == 503 else {})

    async def refuse_http(self, request: Request, error: Exception) -> Response:
        """Likewise, where the request itself is none."""
        assert isinstance(error, HTTPException)
        path, look = request.url.path, "GET /v1/ lists what there is"
        plain = {404: f"there is nothing at {path}; {look}", 405: f"{request.method} is not for {path}; {look}"}
        said = plain.get(error.status_code, error.detail)
        return await self._refused(request, error.status_code, said, dict(error.headers or {}))

    async def _refused(self, request: Request, code: int, said: str, headers: dict[str, str]) -> Response:
        # Many clients listen only after all is sent: so it is taken, and thrown away, for a while.
        with suppress(TimeoutError, HTTPException, ClientDisconnect, RuntimeError):  # the last: all is taken already
            async with asyncio.timeout(PATIENCE):
                pieces = request.stream().__aiter__()
                while await _next(pieces):
                    pass
        return JSONResponse({"error": said}, code, {**headers, "connection": "close"})

    def _told(self, job: Job) -> dict[str, Any]:
        return {
            "id": job.id,
            "state": job.state,
            "before_it": self.desk.place(job),
            "progress": round(job.done, 4),
            "error": job.error,
            "report": None if job.answer is None else job.answer.report,
        }


async def _next(pieces: Any) -> bytes:
    """The next piece of a body that has any bytes; none at its end."""
    try:
        while True:
            piece: bytes = await asyncio.wait_for(anext(pieces), PATIENCE)
            if piece:
                return piece
    except StopAsyncIteration:
        return b""
    except TimeoutError:
        raise HTTPException(408, f"no byte came for {PATIENCE:g} seconds; send the photograph again") from None


def _too_long(megabytes: float, most: int) -> HTTPException:
    return HTTPException(413, f"the file has {megabytes:.1f} MiB or more; expected at most {most}: give a smaller one")


def _parameters(request: Request, *known: str) -> dict[str, str]:
    """What stands behind the question mark of an address.

    Raises:
        RequestError: There is something unknown, or something twice.
    """
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"expected one of {', '.join(known)}"
                if known
                else "expected none"
            )
            raise RequestError(f"there is no parameter {name!r} here; {hint}")
        if name in given:
            raise RequestError(f"the parameter {name} is given twice; give it once")
        given[name] = value
    return given


def _strength(asked: Mapping[str, str]) -> float:
    text = asked.get("strength", "1")
    try:
        strength = float(text)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 1:
        raise RequestError(f"the strength is {text!r}; expected a number from 0 to 1")
    return strength


def _whole(asked: Mapping[str, str], name: str) -> int:
    text = asked.get(name, "")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise RequestError(
            f"{name} is {text!r}; expected a whole number of pixels: left, top, width and height of a part"
        )
    return int(text)


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _file(path: Path) -> Any:
    async def answer(request: Request) -> Response:
        return FileResponse(path, media_type=_TYPES[path.suffix])  # some systems' own lists make text of scripts

    return answer


async def _unheard(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # the client is gone


async def _bug(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed at this; what went wrong stands in its terminal"}, 500)
