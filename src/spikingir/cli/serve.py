"""The command that serves the page."""

import signal
import threading
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from spikingir.cli.console import complain, say

_LOCAL = ("127.0.0.1", "localhost", "::1")
_ENDINGS = ("SIGTERM", "SIGHUP")  # asked to end, terminal closed; the latter is unknown to Windows


def serve(
    *models: str,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=1, lte=65_535))] = 7860,
    allow_host: tuple[str, ...] = (),
    max_megabytes: Annotated[int, Parameter(validator=Number(gte=1))] = 64,
    max_megapixels: Annotated[float, Parameter(validator=Number(gt=0, lte=400))] = 64,
    max_waiting: Annotated[int, Parameter(validator=Number(gte=1))] = 10,
    max_time_steps: Annotated[int, Parameter(validator=Number(gte=1))] = 64,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: Literal["auto", "native", "torch"] = "auto",
    open: bool = False,
) -> None:
    """Serve a page, and a JSON API, that restore photographs, until Ctrl-C.

    Args:
        models: Models on offer: names, .safetensors files, or folders; those that ship unless given.
        host: Address to listen at; only this machine reaches the default, 0.0.0.0 is all of its addresses.
        port: Port to listen at.
        allow_host: Name under which the page may be asked for beside the address, such as that of a proxy before it.
        max_megabytes: Largest file that can be sent, in MiB.
        max_megapixels: Largest photograph.
        max_waiting: Photographs that may wait for their turn; one is restored at a time.
        max_time_steps: Largest number of time steps.
        device: Where the network runs; auto takes a CUDA device where there is one.
        engine: native follows the spikes on the CPU, torch simulates all of them, with the same result; auto is native
            where that can be done.
        open: Open the page in the browser.
    """
    from spikingir.web.server import from_elsewhere, serving
    from spikingir.web.service import Limits

    limits = Limits(max_megabytes, max_megapixels, max_waiting, max_time_steps)
    stop = threading.Event()
    for name in _ENDINGS:
        number = getattr(signal, name, None)
        # so that photographs are deleted then, too; nohup has the hang-up ignored, and so it stays
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: stop.set())
    with serving(
        models, host=host, port=port, allow_hosts=allow_host, limits=limits, device=device, engine=engine
    ) as address:
        if host.strip("[]") not in _LOCAL:
            complain(f"note: whoever reaches {from_elsewhere(host, port)} can use the page; it asks for no password")
        say(f"the page is at {address} (Ctrl-C ends it)")
        if open:
            import webbrowser

            webbrowser.open(address)
        stop.wait()
