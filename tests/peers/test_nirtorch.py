"""A NIR file of ours read, wired and stepped by nirtorch, the executor of NIR's own authors.

It has no modules for NIR's integrator, threshold and scaling: those stand here, by the equations of NIR's docstrings.
Convolutions, the order of nodes, sums of edges and the step back in a loop are nirtorch's.
"""

from pathlib import Path

import nir
import nirtorch
import pytest
import torch
from torch import Tensor, nn

from spikingir.deploy.fold import fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.export.drift import Drift, measure, spikes_of
from spikingir.export.nir import image_currents, load_nir, nir_content
from spikingir.zoo.pretrained import load_spiking
from tests.export.test_nir import SIZE, image, made, signed_spikes


class Integrator(nn.Module):
    """``dv/dt = R I``, a unit of time a step."""

    def __init__(self, node: nir.I) -> None:
        super().__init__()
        self.register_buffer("r", torch.from_numpy(node.r))

    def forward(self, current: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v = self.r * current if state is None else state + self.r * current
        return v, v


class Heaviside(nn.Module):
    """``z = 1`` where ``v > v_thr``."""

    def __init__(self, node: nir.Threshold) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.from_numpy(node.threshold))

    def forward(self, v: Tensor) -> Tensor:
        return (v > self.threshold).to(v.dtype)


class Scale(nn.Module):
    """``s I``."""

    def __init__(self, node: nir.Scale) -> None:
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(node.scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


def drift_in_nirtorch(network: FoldedNetwork, x: Tensor, path: Path, raised: float = 0.0) -> Drift:
    """What differs between a network and its NIR file in nirtorch, with thresholds raised to see that it matters."""
    path.write_bytes(nir_content(network, (x.shape[-2], x.shape[-1]))[0])
    module = nirtorch.nir_to_torch(path, {nir.I: Integrator, nir.Threshold: Heaviside, nir.Scale: Scale})
    trains: dict[str, list[Tensor]] = {}
    for name, part in module.named_modules():
        if isinstance(part, Heaviside):
            part.threshold += raised
            trains[name] = []
            part.register_forward_hook(lambda module, inputs, fired, own=trains[name]: own.append(fired))
    (current,) = image_currents(load_nir(path), x).values()
    state = None
    with torch.no_grad():
        for _ in range(network.config.time_steps):
            *_, state = module(current.float(), state)
    found = signed_spikes(network, {name: torch.stack(train) for name, train in trains.items()})
    return measure(spikes_of(network, x), None, found)


@pytest.mark.parametrize("method", ["spikingir", "if"])
@pytest.mark.parametrize("name", ["dncnn", "aodnet"])
def test_no_spike_differs(tmp_path: Path, name: str, method: str) -> None:
    network = made(name, method)
    drift = drift_in_nirtorch(network, image(network), tmp_path / "a.nir")
    assert drift.spikes > 1000
    assert drift.different == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["denoise-gray-25", "dehaze-aodnet"])
def test_no_spike_of_a_shipped_network_differs(tmp_path: Path, name: str) -> None:
    network = fold(load_spiking(name, schedule="clocked").network).eval()
    x = torch.rand(1, network.config.channels, *SIZE, generator=torch.Generator().manual_seed(5))
    drift = drift_in_nirtorch(network, x, tmp_path / "a.nir")
    assert drift.spikes > 1000
    assert drift.different == 0


def test_a_difference_is_seen(tmp_path: Path) -> None:
    network = made("dncnn", "if")
    different = drift_in_nirtorch(network, image(network), tmp_path / "a.nir", raised=0.01).different
    assert different is not None
    assert different > 0
