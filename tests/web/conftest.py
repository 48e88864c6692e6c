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

START = 120  # seconds; Gradio alone takes ten to import on a busy machine


@pytest.fixture(scope="session")
def address(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a page that offers one tiny model, within tight limits; after SIGTERM nothing is left of it."""
    if find_spec("gradio") is None:
        pytest.skip("Gradio is not installed: pip install 'spikingir[web]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "spikingir.cli", "serve", str(tiny_model), "--port", str(port)]
    limits = ["--max-megabytes", "1", "--max-megapixels", "0.01", "--max-time-steps", "5"]
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, *limits], stdout=subprocess.PIPE, text=True, env=environment) as server:
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
