"""What tests of several folders share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# machines are shared: how long an example takes says nothing
settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the image collection; tests that ask for it skip where it is absent."""
    beside_the_repository = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("SPIKINGIR_DATA", beside_the_repository))
    if not root.is_dir():
        pytest.skip(f"no image collection at {root}; name it with SPIKINGIR_DATA")
    return root


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spiking denoiser for gray images that is small and knows nothing: T = 3, folder with ``snn.safetensors``."""
    import torch

    from spikingir.conversion.convert import convert
    from spikingir.networks.dncnn import DnCNN
    from spikingir.store import save_pretrained

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DnCNN(layers=3, width=4).eval()
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("model")
    save_pretrained(convert(network, images, time_steps=3), folder / "snn.safetensors")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr of a command; whatever it says, it is never a traceback."""

    from spikingir.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call
