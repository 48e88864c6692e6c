"""Networks as SpikingJelly's modules, and SpikingJelly's networks as ours: the same spikes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.export.drift import measure, spikes_of
from spikingir.export.errors import ExportError
from spikingir.export.export import export_network
from spikingir.export.spikingjelly import from_spikingjelly, load_spikingjelly
from spikingir.graph.errors import ConversionError
from spikingir.inputs import with_level
from spikingir.networks import AODNet, DnCNN
from spikingir.spiking.network import SpikingNetwork
from spikingir.zoo.pretrained import load_spiking
from tests.export.test_export import Difference, plain
from tests.restoration.test_scaling import Told

neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="made for `make test-peers`")
functional = pytest.importorskip("spikingjelly.activation_based.functional")
layer = pytest.importorskip("spikingjelly.activation_based.layer")


def made(name: str, method: str) -> SpikingNetwork:
    torch.manual_seed(0)
    network, channels = {
        "dncnn": lambda: (DnCNN(layers=4, width=6), 1),
        "aodnet": lambda: (AODNet(), 3),
        "difference": lambda: (Difference(), 1),
    }[name]()
    return plain(network, channels, time_steps=6, method=method)


@pytest.mark.parametrize("method", ["spikingir", "if"])
@pytest.mark.parametrize("name", ["dncnn", "aodnet", "difference"])
def test_no_spike_differs(tmp_path: Path, name: str, method: str) -> None:
    network, path = made(name, method), tmp_path / "a.py"
    done = export_network(network, path, "spikingjelly")
    assert done.drift.spikes > 500
    assert done.drift.different == 0
    assert any("extended" in note for note in done.notes) == (method == "spikingir")
    assert done.drift.values_different == (None if method == "spikingir" else 0)
    image = torch.rand(2, network.config.channels, 9, 12)
    again = load_spikingjelly(path)
    drift = measure(spikes_of(fold(network), image), *spikes_of(again, image))
    assert (drift.different, drift.values_different) == (0, 0)


def test_a_level_map(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ann = Told("residual").eval()
    network = convert(ann, with_level(torch.rand(2, 3, 12, 12), 0.1), "if", time_steps=4)
    drift = export_network(network, tmp_path / "a.py", "spikingjelly").drift
    assert (drift.different, drift.values_different) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["denoise-gray-25", "dehaze-aodnet"])
def test_shipped_networks(tmp_path: Path, name: str) -> None:
    drift = export_network(load_spiking(name, schedule="clocked").network, tmp_path / "a.py", "spikingjelly").drift
    assert drift.spikes > 1000
    assert drift.different == 0


def test_the_file_runs_without_this_package(tmp_path: Path) -> None:
    network = made("dncnn", "if")
    export_network(network, tmp_path / "network.py", "spikingjelly")
    image = torch.rand(1, 1, 8, 8)
    torch.save(image, tmp_path / "image.pt")
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); import network; "
        "torch.save(network.load()(torch.load(sys.argv[1] + '/image.pt')), sys.argv[1] + '/restored.pt'); "
        "sys.exit('spikingir' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
    assert torch.equal(torch.load(tmp_path / "restored.pt"), fold(network)(image))


def test_refusals(tmp_path: Path) -> None:
    phased = made("dncnn", "if").at(schedule="phased")
    with pytest.raises(ExportError, match="runs T = 6, phased, and SpikingJelly's layers advance together"):
        export_network(phased, tmp_path / "a.py", "spikingjelly")
    body = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.PixelShuffle(2)
    )
    with pytest.raises(ExportError, match="which the export to spikingjelly does not hold"):
        export_network(plain(body, 1), tmp_path / "a.py", "spikingjelly")
    for content in (b"", b"CONTENT = 3", b"x = (", b'CONTENT = "!"', b'CONTENT = "AAAA"', b"\xff"):
        (tmp_path / "b.py").write_bytes(content)
        with pytest.raises(ExportError, match=r"b\.py: it is no (Python|npz) file"):
            load_spikingjelly(tmp_path / "b.py")


class Theirs(nn.Module):
    """A network as SpikingJelly's users write it: layers, norms, neurons of several thresholds, a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(
            layer.Conv2d(1, 6, 3, padding=1, bias=False), layer.BatchNorm2d(6), neuron.IFNode(0.3, v_reset=None)
        )
        self.body = nn.Sequential(layer.Conv2d(6, 6, 3, padding=1), neuron.IFNode(v_reset=None))
        self.tail = layer.Conv2d(6, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(x)
        out: Tensor = self.tail(first + self.body(first))
        return out


def test_their_network_as_ours() -> None:
    torch.manual_seed(1)
    theirs = Theirs()
    theirs.head[1].running_var.fill_(0.1)
    theirs = theirs.double().eval()
    functional.set_step_mode(theirs, "m")
    image = torch.rand(2, 1, 10, 11, dtype=torch.float64)
    spikes: list[Tensor] = []
    for module in theirs.modules():
        if isinstance(module, neuron.IFNode):
            module.register_forward_hook(lambda module, inputs, output: spikes.append(output))
    expected = theirs(image.expand(8, *image.shape)).mean(0)
    ours = from_spikingjelly(theirs, channels=1, time_steps=8)
    for network in (ours, fold(ours, grid=None, dtype=torch.float64)):
        restored, trace = network.trace(image, trains=True)
        for found, wanted in zip(trace.layers, spikes, strict=False):
            assert found.trains is not None
            assert 0 < wanted.mean() < 1
            assert torch.equal(found.trains, wanted.to(torch.int8))
        torch.testing.assert_close(restored, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (lambda: neuron.LIFNode(v_reset=None), "'1' is a LIFNode; expected an IFNode with v_reset=None"),
        (lambda: neuron.IFNode(), "'1' is a IFNode that resets to 0; expected"),
    ],
)
def test_neurons_of_other_kinds(node: type[nn.Module], words: str) -> None:
    with pytest.raises(ExportError, match=words):
        from_spikingjelly(nn.Sequential(layer.Conv2d(1, 2, 3), node()), 1, 4)


def test_layers_of_other_kinds() -> None:
    with pytest.raises(ConversionError, match="Sigmoid"):
        from_spikingjelly(nn.Sequential(layer.Conv2d(1, 2, 3), nn.Sigmoid()), 1, 4)
