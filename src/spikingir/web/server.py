"""Runs the page: on this machine alone unless told otherwise, and without a word to any other."""

import ipaddress
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spikingir.errors import SpikingIRError
from spikingir.restoration.choice import Device
from spikingir.web.service import Limits, Service

if TYPE_CHECKING:
    from spikingir.deploy.engine import Engine

LOCAL = "127.0.0.1"
"""Address that only this machine reaches."""

_CONNECTIONS = 256  # at a time; further ones are told to come again


class ServerError(SpikingIRError, OSError):
    """The page cannot be served there."""


@contextmanager
def serving(
    models: Sequence[str] = (),
    *,
    host: str = LOCAL,
    port: int = 7860,
    allow_hosts: Sequence[str] = (),
    limits: Limits | None = None,
    device: Device = "auto",
    engine: "Engine" = "auto",
) -> Iterator[str]:
    """Serve the page as long as the context is open; then every photograph and result is deleted.

    Args:
        models: See :class:`~spikingir.web.service.Service`.
        host: Address to listen at; ``0.0.0.0`` is all of this machine's.
        port: Port to listen at.
        allow_hosts: Further names by which browsers may ask for the page, such as that of a proxy before it.
        limits: What a visitor may ask for.
        device: Where the networks run.
        engine: What runs them on the CPU.

    Yields:
        The page's address.

    Raises:
        ModuleNotFoundError: Starlette or Uvicorn is missing; the ``web`` extra has them.
        ModelError: There is no such model.
        RequestError: Two models have the same name, or ``allow_hosts`` holds something that is no name.
        ServerError: The port is taken, or the address not this machine's.
    """
    import uvicorn

    from spikingir.web.app import build, names_of
    from spikingir.web.desk import Desk

    names = names_of(host, tuple(allow_hosts))
    service = Service(models, limits=limits, device=device, engine=engine)
    with (
        listening(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="spikingir-", ignore_cleanup_errors=True) as folder,
    ):
        desk = Desk(service, Path(folder).resolve())
        server = uvicorn.Server(
            uvicorn.Config(
                build(desk, names),
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=1,
            )
        )
        # a thread of its own, in which Uvicorn leaves the signals to whoever serves
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server", daemon=True)
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            if not server.started:
                raise ServerError(f"the server at {host} port {port} did not start; what went wrong stands above")
            yield address(host, port)
        finally:
            server.should_exit = True
            desk.close()
            thread.join()


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens, as long as the context is open.

    Raises:
        ServerError: The port is taken, or the address not this machine's.
    """
    bare = host.strip("[]")
    try:
        family, *_, place = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        both = bare == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(place[:2], family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ServerError(
            f"{host} port {port} cannot be listened at: it is taken, or not this machine's or this user's; "
            "give another with --port or --host"
        ) from error
    with listener:
        yield listener


def from_elsewhere(host: str, port: int) -> str:
    """What to type into a browser of another device, such as a phone, for a server that listens at ``host``.

    For all addresses of the machine it is the one that others know it by; where it has no network, its name.
    """
    bare = host.strip("[]")
    if bare in ("0.0.0.0", "::"):
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
                route.connect(("192.0.2.1", 9))  # for documentation: nobody's, and nothing is sent
                bare = route.getsockname()[0]
        except OSError:
            bare = socket.gethostname()
    return address(bare, port)


def address(host: str, port: int) -> str:
    """What to type into a browser of this machine, for a server that listens at ``host``."""
    bare = host.strip("[]")
    try:
        number = ipaddress.ip_address(bare)
    except ValueError:
        return f"http://{bare}:{port}/"
    if number.is_unspecified:  # all addresses of the machine: not one that browsers go to
        return f"http://localhost:{port}/"
    return f"http://[{bare}]:{port}/" if number.version == 6 else f"http://{bare}:{port}/"
