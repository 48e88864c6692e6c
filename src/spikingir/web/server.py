"""Runs the page: on this machine alone unless told otherwise, and without a word to any other."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikingir.environment import environment
from spikingir.errors import SpikingIRError
from spikingir.restoration.choice import Device
from spikingir.web.service import Limits, Service

if TYPE_CHECKING:
    from spikingir.engine import Engine

LOCAL = "127.0.0.1"
"""Address that only this machine reaches."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Content security policy: whatever a release of Gradio may ask for elsewhere, the browser refuses to fetch it."""

# an address in the place of a file's path; Gradio has two routes to files, /file= and the older /file/
_ELSEWHERE = re.compile(r"file[=/]\s*(https?|ftp):", re.IGNORECASE)

# read by Gradio, some when it is imported
_SILENCE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}


class ServerError(SpikingIRError, OSError):
    """The page cannot be served there."""


class _Here:
    """Adds the policy to every answer, and gives none about files of other hosts, which Gradio would fetch."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if _ELSEWHERE.search(scope.get("path", "")):
            from starlette.responses import PlainTextResponse

            await PlainTextResponse("this server fetches nothing from others", 403)(scope, receive, send)
            return

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"content-security-policy", POLICY.encode())]
                message = {**message, "headers": [*headers, (b"referrer-policy", b"no-referrer")]}
            await send(message)

        await self.app(scope, receive, send_with_policy)


@contextmanager
def serving(
    models: Sequence[str] = (),
    *,
    host: str = LOCAL,
    port: int = 7860,
    limits: Limits | None = None,
    device: Device = "auto",
    engine: "Engine" = "auto",
) -> Iterator[str]:
    """Serve the page as long as the context is open; then every photograph and result is deleted.

    Args:
        models: See :class:`~spikingir.web.service.Service`.
        host: Address to listen at; ``0.0.0.0`` is all of this machine's.
        port: Port to listen at.
        limits: What a visitor may ask for.
        device: Where the networks run.
        engine: What runs them on the CPU.

    Yields:
        The page's address.

    Raises:
        ModuleNotFoundError: Gradio is missing; the ``web`` extra has it.
        ModelError: There is no such model.
        ServerError: The port is taken, or the address not this machine's.
    """
    with tempfile.TemporaryDirectory(prefix="spikingir-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        # Gradio keeps there what visitors send, and serves nothing from elsewhere
        with environment({**_SILENCE, "GRADIO_TEMP_DIR": str(folder)}):
            from spikingir.web import page

            service = Service(folder, models, limits=limits, device=device, engine=engine)
            blocks = page.build(service)
            try:
                yield _launch(blocks, page, host, port, service.limits.megabytes)
            finally:
                blocks.close(verbose=False)


def _launch(blocks: Any, page: Any, host: str, port: int, megabytes: int) -> str:
    from starlette.middleware import Middleware

    bare = host.strip("[]")
    try:
        _, url, _ = blocks.launch(
            server_name=f"[{bare}]" if ":" in bare else bare,  # as addresses of IPv6 stand in a URL
            server_port=port,
            max_file_size=megabytes * 2**20,
            theme=page.theme(),
            css=page.CSS,
            footer_links=["api"],
            app_kwargs={"middleware": [Middleware(_Here)]},
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            inline=False,
        )
    except OSError as error:
        raise ServerError(
            f"{host} port {port} cannot be listened at: it is taken, or not this machine's or this user's; "
            "give another with --port or --host"
        ) from error
    return str(url)
