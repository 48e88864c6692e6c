"""A network in one file: what comes back is what was saved, and nothing else is accepted."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spikingir.conversion.convert import convert, correct_biases
from spikingir.networks.dncnn import DnCNN
from spikingir.networks.registry import save_network
from spikingir.spiking.network import SpikingNetwork
from spikingir.spiking.storage import StorageError, from_pretrained, save_pretrained


def network(method: str = "spikingir", **arguments: object) -> SpikingNetwork:
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1),
        nn.PixelShuffle(2),
    )
    return convert(body, torch.rand(2, 1, 16, 16), method, time_steps=6, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["spikingir", "if", "rueckauer"])
def test_saved_and_loaded_gives_the_same_output(method: str, tmp_path: Path) -> None:
    saved = network(method, schedule=2)
    save_pretrained(saved, tmp_path / "a.safetensors")
    loaded = from_pretrained(tmp_path / "a.safetensors")
    image = torch.rand(2, 1, 16, 16)
    assert torch.equal(loaded(image), saved(image))
    assert loaded.config == saved.config
    assert loaded.nodes == saved.nodes
    assert loaded.origin == saved.origin
    assert not loaded.training


def test_what_a_sharing_network_added_is_not_kept(tmp_path: Path) -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, image: Tensor) -> Tensor:
            x = torch.relu(self.first(image))
            return torch.relu(x + self.last(x))

    images = torch.rand(2, 1, 16, 16)
    saved = convert(Skip(), images, time_steps=6)
    correct_biases(saved.at(time_steps=5), images)
    save_pretrained(saved, tmp_path / "a.safetensors")
    assert torch.equal(from_pretrained(tmp_path / "a.safetensors")(images), saved(images))


def test_parameters_keep_their_order(tmp_path: Path) -> None:
    """An optimiser's moments, and gradients between processes, go by it."""
    saved = convert(DnCNN(layers=9, width=4), torch.rand(2, 1, 16, 16))
    save_pretrained(saved, tmp_path / "a.safetensors")
    loaded = from_pretrained(tmp_path / "a.safetensors")
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in saved.named_parameters()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_storage_is_of_kernels_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = network()
    save_pretrained(saved, tmp_path / "a.safetensors", dtype=dtype)
    loaded = from_pretrained(tmp_path / "a.safetensors")
    kernels = {f"weight.{name}" for name in saved.weight}
    for name, tensor in loaded.state_dict().items():
        wanted = saved.state_dict()[name]
        assert torch.equal(tensor, wanted.to(dtype).float() if name in kernels else wanted)
    stored = load_file(tmp_path / "a.safetensors")
    assert {name for name, tensor in stored.items() if tensor.dtype == dtype} == kernels


def test_double_precision_survives(tmp_path: Path) -> None:
    saved = network().double()
    save_pretrained(saved, tmp_path / "a.safetensors")
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(from_pretrained(tmp_path / "a.safetensors")(image), saved(image))


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_pretrained(network(), path)
    with pytest.raises(FileExistsError):
        save_pretrained(network(), path)
    save_pretrained(network(), path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.sigmoid(x))

    with pytest.raises(StorageError, match="sigmoid"):
        save_pretrained(convert(Own(), torch.rand(1, 1, 8, 8)), tmp_path / "a.safetensors")
    with pytest.raises(StorageError, match="AdaptiveThresholdNeuron"):
        save_pretrained(network("lan"), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="no file"):
        from_pretrained(path)
    save_pretrained(network(), path)
    whole = path.read_bytes()
    for content in (b"", b"not weights", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"a\.safetensors"):
            from_pretrained(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(StorageError, match="something else"):
        from_pretrained(path)


def test_a_conventional_network_is_told_apart(tmp_path: Path) -> None:
    save_network(DnCNN(layers=3, width=4), tmp_path / "ann.safetensors")
    with pytest.raises(StorageError, match=r"conventional network; spikingir\.convert"):
        from_pretrained(tmp_path / "ann.safetensors")


def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_pretrained(network(), path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["spikingir"])

    def write(**changes: object) -> None:
        save_file(tensors, path, {"spikingir": json.dumps({**header, **changes})})

    write(version=99)
    with pytest.raises(StorageError, match="version 99"):
        from_pretrained(path)
    write(nodes=[{**node, "op": "os.system"} if node["op"] == "conv2d" else node for node in header["nodes"]])
    with pytest.raises(StorageError, match=r"os\.system"):
        from_pretrained(path)
    write(config={**header["config"], "time_steps": 0})
    with pytest.raises(StorageError, match="time_steps"):
        from_pretrained(path)
    write(config={**header["config"], "formation": "import os"})
    with pytest.raises(StorageError):
        from_pretrained(path)
    del tensors[next(name for name in tensors if name.startswith("weight."))]
    write()
    with pytest.raises(StorageError, match="KeyError"):
        from_pretrained(path)
