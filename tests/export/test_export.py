"""An exported network does what the folded one does, in the tool that reads the file."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikingir
from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.errors import InputError
from spikingir.export.drift import measure, sample_images, spikes_of
from spikingir.export.errors import ExportError
from spikingir.export.export import FORMATS, Format, export_network
from spikingir.export.npz import load_npz, npz_content, read_npz
from spikingir.networks.aodnet import AODNet
from spikingir.networks.dncnn import DnCNN
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.spiking.network import SpikingNetwork
from spikingir.zoo.pretrained import load_spiking

Run = Callable[..., tuple[int, str, str]]


class OwnNetwork(nn.Module):
    """A user's network: strides, groups, a mirrored border, sums of branches, a part of the channels, a difference."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 8, 3, padding=1, padding_mode="reflect")
        self.b, self.c = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4), nn.Conv2d(8, 8, 1)
        self.down, self.up = nn.Conv2d(8, 16, 2, stride=2), nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.a(x))
        b = torch.relu(self.b(a)) + torch.relu(self.c(a))
        up = nn.functional.pixel_shuffle(torch.relu(self.up(torch.relu(self.down(b)))), 2)
        return self.last(torch.cat([up, b[:, 2:6]], 1)) - x


class Difference(nn.Module):
    """What NIR can say: sums, a difference and a concatenation of spikes, and the image beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.Conv2d(4, 4, 3, padding=1)
        self.f = nn.Conv2d(4, 4, 1)
        self.c, self.d, self.e = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(1, 2, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.a(x))
        b = torch.relu(self.b(a) - self.f(a))
        return self.d(torch.relu(self.c(torch.cat([a, b], 1)))) - self.e(x)


def multiscale(form: str, **options: object) -> SpikingNetwork:
    network = MultiScaleNet(1, 4, (1, 1), form, activation_bits=(3, 3), top_residual=form == "soft").eval()
    network.reset_parameters(torch.Generator().manual_seed(1))
    reads = 1 + network.takes_level
    return convert(network, torch.rand(2, reads, 16, 16, generator=torch.Generator().manual_seed(2)), **options)  # type: ignore[arg-type]


def plain(network: nn.Module, channels: int = 1, **options: object) -> SpikingNetwork:
    images = torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(3))
    return convert(network.eval(), images, **options)  # type: ignore[arg-type]


PHASED = {"schedule": "phased", "time_steps": 3}
BINARY = {"schedule": "phased", "time_steps": 4, "coding": "binary"}
NETWORKS: dict[str, Callable[[], SpikingNetwork]] = {
    "dncnn phased": lambda: plain(DnCNN(layers=4, width=6), **PHASED),
    "dncnn many steps": lambda: plain(DnCNN(layers=3, width=4), schedule="phased", time_steps=300),
    "dncnn binary": lambda: plain(DnCNN(layers=4, width=6), **BINARY),
    "aodnet phased": lambda: plain(AODNet(), 3, **PHASED),
    "own phased": lambda: plain(OwnNetwork(), **PHASED),
    "own binary": lambda: plain(OwnNetwork(), **BINARY),
    "level phased": lambda: multiscale("level", **PHASED),
    "level binary": lambda: multiscale("level", **BINARY),
    "soft binary": lambda: multiscale("soft", **BINARY),
    "airlight binary": lambda: multiscale("airlight", **BINARY),
    "residual binary": lambda: multiscale("residual", **BINARY),
    "dncnn clocked": lambda: plain(DnCNN(layers=3, width=4), time_steps=3),
    "aodnet clocked": lambda: plain(AODNet(), 3, time_steps=3),
    "level clocked": lambda: multiscale("level", time_steps=3),
}
ON_PHASED = [name for name in NETWORKS if not name.endswith("clocked")]


@pytest.fixture(scope="module", params=list(NETWORKS))
def folded(request: pytest.FixtureRequest) -> FoldedNetwork:
    return made(request.param)


def made(name: str) -> FoldedNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fold(NETWORKS[name]()).eval()


def images(network: FoldedNetwork) -> Tensor:
    """Two, of another size than that of the sample and of values beyond [0, 1], too."""
    sample = sample_images(network)[..., :24, :40]
    return torch.cat([sample, sample.flip(-1) * 3 - 1])


def test_npz_gives_the_same_network(folded: FoldedNetwork) -> None:
    content = npz_content(folded)
    again = read_npz(content)
    x = images(folded)
    drift = measure(spikes_of(folded, x), *spikes_of(again, x))
    assert (drift.different, drift.values_different) == (0, 0)
    assert drift.spikes > 100
    assert npz_content(again) == content
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:  # what a reader of arrays alone sees
        header = json.loads(arrays["header"].tobytes())
        assert [node["name"] for node in header["nodes"]] == [node.name for node in folded.nodes]
        assert all(f"kernel.{node['weights']}.spike" in arrays for node in header["nodes"] if node["weights"])


@pytest.mark.parametrize("name", ON_PHASED)
def test_onnx_gives_the_same_bits(name: str) -> None:
    from spikingir.export.onnx import onnx_content, run_onnx

    network = made(name)
    x = images(network)
    drift = measure(spikes_of(network, x), *run_onnx(onnx_content(network), x, list(network.clocks)))
    assert (drift.different, drift.values_different) == (0, 0)
    assert drift.spikes > 100


def test_onnx_adds_spikes_as_integers() -> None:
    """No convolution has a floating-point number; a binary layer of 8-bit weights is one convolution of bytes."""
    import onnx

    from spikingir.export.onnx import onnx_content

    network = fold(NETWORKS["residual binary"](), weight_bits=8).eval()
    model = onnx.load_from_string(onnx_content(network))
    operations = [node.op_type for node in model.graph.node]
    assert not {"Conv", "MatMul", "Gemm", "Einsum"} & set(operations)
    read_spikes = [node for node in network.nodes if node.op == "conv2d" and network.kernel(node.name)]
    assert operations.count("ConvInteger") < 3 * len(read_spikes)


@pytest.mark.parametrize(
    "name", [pytest.param("level binary", marks=pytest.mark.slow), "dncnn clocked", "dncnn binary"]
)
def test_torch_program_gives_the_same_bits(name: str) -> None:
    from spikingir.export.program import program_content

    network = made(name)
    content = program_content(network, sample_images(network)[..., :16, :16])
    module = torch.export.load(io.BytesIO(content)).module()
    x = images(network)
    assert torch.equal(module(x), network(x))
    assert torch.equal(module(x[:1, :, :8, :12]), network(x[:1, :, :8, :12]))


@pytest.mark.parametrize("to", ["npz", "onnx", "nir"])
def test_command(run: Run, tiny_model: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / f"network{FORMATS[to].suffix}"
    schedule = "phased" if to == "onnx" else "clocked"
    arguments = ["export", tiny_model, "--to", to, "-o", out, "--schedule", schedule]
    code, said, notes = run(*arguments)
    assert code == 0
    assert said.startswith(f"{out}: 0 of ")
    assert ("0 of 4096 values" in said) == (to != "nir")
    assert ("no extended step" in notes) == (to == "nir")
    code, _, error = run(*arguments)
    assert code == 1
    assert "--overwrite" in error
    assert run(*arguments, "--overwrite")[0] == 0


def test_public_name(tmp_path: Path) -> None:
    done = spikingir.export_network(NETWORKS["level binary"](), tmp_path / "a.npz", "npz")
    assert str(done.drift).endswith(" spikes differ, 0 of 4096 values of the restored image differ")
    assert done.drift.different == 0
    assert isinstance(load_npz(done.path), FoldedNetwork)


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked, phased = made("dncnn clocked"), made("dncnn phased")
    for network, name, to, words in (
        (clocked, "a.onnx", "onnx", "phased schedule alone"),
        (phased, "a.nir", "nir", "layers; export with --schedule clocked, or to npz, onnx or torch"),
        (made("dncnn binary"), "a.nir", "nir", "phased, binary, and NIR .* layers; export to npz, onnx or torch"),
        (made("level clocked"), "a.nir", "nir", "no primitive"),
        (phased, "a.npy", "npz", r"ends in \.npz"),
        (phased, "a.npz", "csv", "expected npz, onnx, torch, nir"),
        (fold(NETWORKS["dncnn phased"](), grid=None, dtype=torch.float64), "a.npz", "npz", "no grid"),
    ):
        with pytest.raises(ExportError, match=words):
            export_network(network, tmp_path / name, to)  # type: ignore[arg-type]
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"pip install 'spikingir\[onnx\]'"):
        export_network(phased, tmp_path / "a.onnx", "onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "to"), [("denoise-gray-25", "npz"), ("denoise-gray-25", "onnx"), ("dehaze-aodnet", "npz")]
)
def test_shipped_networks(tmp_path: Path, name: str, to: Format) -> None:
    network = load_spiking(name, schedule="phased" if to == "onnx" else None).network
    drift = export_network(network, tmp_path / f"a{FORMATS[to].suffix}", to).drift
    assert (drift.different, drift.values_different) == (0, 0)
    assert drift.spikes > 1000


def test_sample(tmp_path: Path) -> None:
    network = made("level binary")
    sample = torch.rand(2, 2, 16, 24, dtype=torch.float64)
    assert export_network(network, tmp_path / "a.onnx", "onnx", sample=sample).drift.values == 2 * 16 * 24
    with pytest.raises(InputError, match="noise level"):
        export_network(network, tmp_path / "b.onnx", "onnx", sample=sample[:, :1])


class Resized(nn.Module):
    """An operation that ONNX has in floating point alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        small = torch.relu(self.a(x))
        return self.b(nn.functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False))


def test_onnx_names_the_operation_that_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"interpolate.*has no integer form"):
        export_network(plain(Resized(), **PHASED), tmp_path / "a.onnx", "onnx")


def test_damaged_npz(tmp_path: Path) -> None:
    content = npz_content(made("dncnn phased"))
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file.files}
    weight = next(name for name in arrays if name.startswith("kernel.") and name.endswith(".spike"))

    def changed(**changes: object) -> bytes:
        header = json.loads(arrays["header"].tobytes()) | changes
        return saved({**arrays, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})

    def saved(content: dict[str, np.ndarray], compressed: bool = False) -> bytes:
        file = io.BytesIO()
        (np.savez_compressed if compressed else np.savez)(file, **content)
        return file.getvalue()

    path = tmp_path / "a.npz"
    for bad, words in (
        (b"", "no npz file"),
        (content[:-200], "no npz file"),
        (content[:3000] + b"\xff" * 200 + content[3200:], "damaged"),
        (saved(arrays, compressed=True), "stored as it is"),
        (saved({**arrays, "theta": np.array([np.nan])}), "NaN"),
        (saved({**arrays, "theta": np.array(["a"])}), "expected float32 or float64"),
        (saved({name: array for name, array in arrays.items() if name != weight}), "missing"),
        (saved({**arrays, weight: arrays[weight][:1]}), "different shapes"),
        (saved({**arrays, "other": arrays["theta"]}), "no place"),
        (saved({"theta": arrays["theta"]}), "no header"),
        (changed(version=2), "version"),
        (changed(colour="red"), "unknown key"),
        (changed(clocks={}), "clocks"),
        (changed(nodes=[{"name": "a", "op": "wavelet", "inputs": [], "options": {}, "weights": None}] * 2), "wavelet"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ExportError, match=words) as caught:
            load_npz(path)
        assert str(caught.value).startswith(str(path))
    with pytest.raises(FileNotFoundError):
        load_npz(tmp_path / "none.npz")
