"""Our IF neurons against SpikingJelly's, spike for spike; run by `make test-peers`.

The peer is built from the ANN's weights alone: plain convolutions on 0/1 spikes, the threshold of the layer that fired
them multiplied in, and SpikingJelly's neurons. From it come the small fixtures that `make test` checks without
SpikingJelly: run this again after changing them here, and commit what it writes.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from spikingir.conversion.convert import convert
from spikingir.data.haze import add_haze
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.deploy.fold import fold
from spikingir.energy.operations import count_operations
from spikingir.networks import build_network
from spikingir.spiking.network import SpikingNetwork, Trace
from spikingir.store import load_network

spikingjelly = pytest.importorskip("spikingjelly.activation_based.neuron", reason="made for `make test-peers`")
op_counter = pytest.importorskip("spikingjelly.activation_based.op_counter")

T = 8
FIXTURES = Path(__file__).parents[1] / "fixtures"
NODES = {"rueckauer": spikingjelly.IFNode, "if": spikingjelly.HalfThresholdIFNode}

Weights = Sequence[tuple[Tensor, Tensor]]


class Peer(NamedTuple):
    """What the peer did: hidden spikes of each layer, mean current of the last one, distance to a tie."""

    trains: list[Tensor]
    current: Tensor
    margin: float


def neuron(threshold: float, method: str) -> nn.Module:
    options = {} if method == "if" else {"v_reset": None}
    return NODES[method](v_threshold=threshold, step_mode="m", store_v_seq=True, **options).eval()


def run(
    weights: Weights,
    thresholds: Sequence[float],
    sources: Sequence[Sequence[int]],
    image: Tensor,
    mode: str,
    method: str,
) -> Peer:
    """Layers of which each reads the concatenated spikes of ``sources``; -1 is the image, a constant current."""
    trains: list[Tensor] = []
    margins = []
    for i, ((weight, bias), read) in enumerate(zip(weights, sources, strict=True)):
        side = weight.shape[-1] // 2
        if read == (-1,):
            current = conv2d(pad(image, (side,) * 4, mode=mode), weight, bias).expand(T, -1, -1, -1, -1)
        else:
            spikes = torch.cat([trains[source] for source in read], 2)
            scale = torch.cat([torch.full((weights[s][0].shape[0],), thresholds[s], dtype=torch.float64) for s in read])
            folded = weight * scale.view(1, -1, 1, 1)
            current = conv2d(pad(spikes.flatten(0, 1), (side,) * 4, mode=mode), folded, bias).unflatten(0, (T, -1))
        if i < len(thresholds):
            node = neuron(thresholds[i], method)
            trains.append(node(current.contiguous()))
            assert trains[-1].dtype == torch.float64
            charged = node.v_seq + thresholds[i] * trains[-1]
            margins.append((charged - thresholds[i]).abs().min().item())
    return Peer(trains, current.mean(0), min(margins))


def dncnn(weights: Weights, thresholds: Sequence[float], image: Tensor, method: str = "rueckauer") -> Peer:
    """A chain; its output neuron is signed, so its input current is compared."""
    sources = [(i - 1,) for i in range(len(weights))]
    return run(weights, thresholds[:-1], sources, image, "constant", method)


def aodnet(weights: Weights, thresholds: Sequence[float], image: Tensor, method: str = "rueckauer") -> Peer:
    return run(weights, thresholds, [(-1,), (0,), (0, 1), (1, 2), (0, 1, 2, 3)], image, "constant", method)


PEERS: dict[str, Callable[..., Peer]] = {"dncnn": dncnn, "aodnet": aodnet}


def ours(network: nn.Module, calibration: Tensor, image: Tensor, method: str) -> tuple[SpikingNetwork, Tensor, Trace]:
    """Our network without mapper, read with recycling: its output is then that of the mean current."""
    spiking = convert(
        network.double(), calibration, method, time_steps=T, per_channel=False, mapper=False, recycling=True
    )
    return spiking, *spiking.trace(image, trains=True)


def levels(spiking: SpikingNetwork) -> list[float]:
    return [spiking.neuron(name).v_threshold.item() for name in spiking.layers]


def compare(architecture: str, peer: Peer, image: Tensor, restored: Tensor, trace: Trace) -> None:
    signed = architecture == "dncnn"
    assert len(trace.layers) == len(peer.trains) + signed
    for layer, train in zip(trace.layers, peer.trains, strict=not signed):
        assert layer.trains is not None
        assert torch.equal(layer.trains, train.to(torch.int8)), layer.name
    k = peer.current
    formed = image - k if signed else (k.relu() * image - k.relu() + 1).relu()
    torch.testing.assert_close(restored, formed, rtol=0, atol=1e-12)


def read(path: Path, gray: bool) -> Tensor:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L" if gray else "RGB"), dtype=np.float64) / 255
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).movedim(2, 0)


def noisy(folder: Path, names: Sequence[str], size: int) -> Tensor:
    crops = [read(folder / name, gray=True)[:, 60 : 60 + size, 60 : 60 + size] for name in names]
    return torch.stack([add_gaussian_noise(crop, 25, sample_generator(0, i)) for i, crop in enumerate(crops)])


def hazy(folder: Path, names: Sequence[str], size: int, frame: int = 0) -> Tensor:
    """Crops of hazy rooms; ``frame`` is the white border that only the depth maps still have."""
    made = []
    for name in names:
        image = read(next(folder.glob(f"*/{name}.[pj]*g")), gray=False)
        with Image.open(next(folder.glob(f"depth/{name}.png"))) as depth:
            far = torch.from_numpy(np.asarray(depth, dtype=np.float64))
        far = far[frame : frame + image.shape[1], frame : frame + image.shape[2]]
        made.append(add_haze(image, far, 1.0)[:, 120 : 120 + size, 200 : 200 + size])
    return torch.stack(made)


@pytest.fixture(scope="module")
def photographs(data_root: Path) -> dict[str, tuple[str, Tensor, Tensor]]:
    """Weights, calibration images and others, of each architecture."""
    denoise, dehaze = data_root / "denoise", data_root / "dehaze"
    rooms = sorted(path.stem for path in (dehaze / "nyu/train/rgb").iterdir())
    gray = sorted(path.name for path in (denoise / "train400").iterdir())
    return {
        "dncnn": (
            "dncnn/kair_dncnn_25.pth",
            noisy(denoise / "train400", gray[:2], 48),
            noisy(denoise / "set12", ["01.png", "05.png"], 32),
        ),
        "aodnet": (
            "aodnet/AOD_Net_from_caffe.pth",
            hazy(dehaze / "nyu/train", rooms[::150], 64),
            hazy(dehaze / "sots_indoor", ["1400", "1412", "1424"], 64, frame=10),
        ),
    }


@pytest.mark.parametrize(
    ("architecture", "method"), [("dncnn", "rueckauer"), ("aodnet", "rueckauer"), ("aodnet", "if")]
)
def test_published_networks_fire_alike(
    data_root: Path,
    photographs: dict[str, tuple[str, Tensor, Tensor]],
    architecture: str,
    method: str,
) -> None:
    file, calibration, image = photographs[architecture]
    path = data_root / "weights" / file
    spiking, restored, trace = ours(load_network(path), calibration, image, method)
    state = torch.load(path, map_location="cpu", weights_only=True)
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    weights = [(state[f"{name}.weight"].double(), state[f"{name}.bias"].double()) for name in names]
    peer = PEERS[architecture](weights, levels(spiking), image, method)
    compare(architecture, peer, image, restored, trace)
    assert all(train.mean() > 0 for train in peer.trains)


def on_grid(shape: Sequence[int], spread: float, generator: torch.Generator, uniform: bool = False) -> Tensor:
    """Random multiples of 1/64: short in a file, and their sums are exact."""
    draw = torch.rand if uniform else torch.randn
    return (draw(tuple(shape), generator=generator) * spread * 64).round().clamp(-128, 127).double() / 64


def kept(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "int8": (tensor * 64).to(torch.int8).numpy().tobytes().hex()}


GOLDEN: dict[str, tuple[dict[str, int], int]] = {
    "dncnn": ({"channels": 1, "layers": 5, "width": 4, "batch_norm": False}, 1),
    "aodnet": ({}, 1),
}


@pytest.mark.parametrize("architecture", GOLDEN)
def test_small_networks_fire_alike_and_are_kept(architecture: str) -> None:
    options, seed = GOLDEN[architecture]
    generator = torch.Generator().manual_seed(seed)
    network = build_network(architecture, **options)
    state = {
        name: on_grid(tensor.shape, 0.1 if tensor.dim() == 1 else 1.3 * tensor[0].numel() ** -0.5, generator)
        for name, tensor in network.state_dict().items()
    }
    calibration = on_grid((1, network.channels, 9, 9), 1, generator, uniform=True)
    image = on_grid((2, network.channels, 7, 5), 1, generator, uniform=True)
    network.load_state_dict(state)
    spiking, restored, trace = ours(network, calibration, image, "rueckauer")
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    weights = [(state[f"{name}.weight"], state[f"{name}.bias"]) for name in names]
    peer = PEERS[architecture](weights, levels(spiking), image)
    compare(architecture, peer, image, restored, trace)
    # lively, and so far from a tie that no other machine's rounding can flip a spike
    assert all(0.02 < train.mean() < 0.9 for train in peer.trains)
    assert peer.margin > 1e-8
    fixture = {
        "made_by": "make test-peers, SpikingJelly 2.0.0: IFNode(v_threshold, v_reset=None), float64",
        "architecture": architecture,
        "options": options,
        "time_steps": T,
        "unit": 1 / 64,
        **{f"weights {name}": kept(tensor) for name, tensor in state.items()},
        "calibration": kept(calibration),
        "image": kept(image),
        **{
            f"layer {name}": {
                "v_threshold": threshold,
                "spikes_per_step": train.sum((1, 2, 3, 4)).int().tolist(),
                "sha256": hashlib.sha256(np.packbits(train.bool().numpy())).hexdigest(),
            }
            for name, threshold, train in zip(spiking.layers, levels(spiking), peer.trains, strict=False)
        },
        "mean_current": peer.current.round(decimals=9).tolist(),
    }
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fixture.items())
    FIXTURES.mkdir(exist_ok=True)
    (FIXTURES / f"spikes_{architecture}.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


@pytest.mark.parametrize(("padding", "mode"), [("circular", "circular"), ("zeros", "constant"), ("reflect", "reflect")])
def test_synaptic_operations(padding: str, mode: str) -> None:
    torch.manual_seed(0)
    widths = [2, 5, 4, 3]
    convolutions = [nn.Conv2d(before, after, 3, padding=1, padding_mode=padding) for before, after in pairwise(widths)]
    body = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])
    image = torch.rand(2, 2, 9, 8).double()
    spiking, _, trace = ours(body, torch.rand(2, 2, 9, 8), image, "rueckauer")
    weights = [(conv.weight.detach(), conv.bias.detach()) for conv in convolutions]
    counter = op_counter.SynOpCounter()
    with op_counter.DispatchCounterMode([counter]), torch.no_grad():
        run(weights, levels(spiking)[:-1], [(-1,), (0,), (1,)], image, mode, "rueckauer")
    folded = fold(spiking, grid=None, dtype=torch.float64)
    for network, traced in ((spiking, trace), (folded, folded.trace(image, trains=True)[1])):
        true = sum(count.synaptic_operations for count in count_operations(network, traced, "true"))
        assert true * 2 == counter.get_total()
        full = sum(count.synaptic_operations for count in count_operations(network, traced))
        assert full == pytest.approx(true) if padding == "circular" else full != true
