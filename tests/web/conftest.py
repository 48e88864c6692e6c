"""A server of its own for what asks it over HTTP: the command itself, as people run it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

START = 120  # seconds that a busy machine may take


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def port() -> int:
    """One that nothing listens at."""
    return free_port()


@pytest.fixture(scope="session")
def tiny_dehazer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spiking dehazer that knows nothing: T = 2, folder with ``snn.safetensors``."""
    import torch

    from spikingir.conversion.convert import convert
    from spikingir.networks.aodnet import AODNet
    from spikingir.store import save_pretrained

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AODNet().eval()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("dehazer")
    save_pretrained(convert(network, images, time_steps=2), folder / "snn.safetensors")
    return folder


def offers(*options: object, folder: Path) -> subprocess.Popen[str]:
    """The command, as people run it, that serves the page; what it keeps lies in ``folder``."""
    command = [sys.executable, "-m", "spikingir.cli", "serve", *map(str, options)]
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}

    # a shell's background job and nohup have their children ignore these signals, and a server that ignores them stays
    def heeding() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=heeding)


@pytest.fixture(scope="session")
def address(tiny_model: Path, tiny_dehazer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a page that offers two tiny models, within tight limits; after SIGTERM nothing is left of it."""
    if find_spec("uvicorn") is None:
        pytest.skip("Uvicorn is not installed: pip install 'spikingir[web]'")
    port = free_port()
    folder = tmp_path_factory.mktemp("served")
    limits = ["--port", port, "--max-megabytes", 1, "--max-megapixels", 0.01, "--max-time-steps", 5]
    with offers(tiny_model, tiny_dehazer, *limits, folder=folder) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            assert f"http://127.0.0.1:{port}/" in line
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(START)
    assert code == 0
    assert not list(folder.glob("spikingir-*"))
