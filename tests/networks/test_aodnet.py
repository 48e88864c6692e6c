"""AOD-Net, its haze model and the names its weights have."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from spikingir.networks import AODNet
from spikingir.networks.aodnet import recognise_aodnet


@pytest.fixture
def network() -> AODNet:
    made = AODNet()
    made.reset_parameters(torch.Generator().manual_seed(1))
    return made


def test_weights_and_parameters(network: AODNet) -> None:
    assert sum(p.numel() for name, p in network.named_parameters() if name.endswith("weight")) == 1_746
    assert sum(p.numel() for p in network.parameters()) == 1_761
    assert (network.formation, network.channels, network.options) == ("atmospheric", 3, {})


def test_restores_as_the_paper_says(network: AODNet) -> None:
    image = torch.rand(2, 3, 12, 9)
    w = {name.removeprefix("body."): value for name, value in network.state_dict().items()}

    def layer(i: int, *inputs: Tensor) -> Tensor:
        joined = torch.cat(inputs, dim=1)
        return conv2d(joined, w[f"conv{i}.weight"], w[f"conv{i}.bias"], padding="same").relu()

    x1 = layer(1, image)
    x2 = layer(2, x1)
    x3 = layer(3, x1, x2)
    x4 = layer(4, x2, x3)
    k = layer(5, x1, x2, x3, x4)
    torch.testing.assert_close(network(image), (k * image - k + 1).relu())


def test_true_map_removes_the_haze() -> None:
    # Eq. 5: K = ((I - A) / t + A - b) / (I - 1), b = 1, solves I = J t + A (1 - t) for J.
    clean, t, airlight = torch.rand(1, 3, 5, 5) * 0.9, 0.4, 0.9
    hazy = clean * t + airlight * (1 - t)
    k = ((hazy - airlight) / t + airlight - 1) / (hazy - 1)
    network = AODNet()
    network.body = torch.nn.Identity()
    network.body.forward = lambda image: k
    torch.testing.assert_close(network(hazy), clean, atol=1e-5, rtol=1e-5)


def test_body_can_be_traced(network: AODNet) -> None:
    traced, image = torch.fx.symbolic_trace(network.body), torch.rand(1, 3, 16, 16)
    assert torch.equal(traced(image), network.body(image))
    called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert called == [f"{kind}{i}" for i in range(1, 6) for kind in ("conv", "relu")]


def test_reset_depends_on_the_generator_alone(network: AODNet) -> None:
    other, before = AODNet(), torch.get_rng_state()
    other.reset_parameters(torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_no_channel_starts_dead() -> None:
    image, dead = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.5, 0
    for seed in range(50):
        network = AODNet()
        network.reset_parameters(torch.Generator().manual_seed(seed))
        dead += int((network.body(image).amax((0, 2, 3)) == 0).any())
    assert dead <= 2  # of 50; a third of them with a last bias of zero


@pytest.mark.parametrize("prefix", ["body.conv", "conv", "e_conv"])
def test_known_names(network: AODNet, prefix: str) -> None:
    tensors = {name.replace("body.conv", prefix): value for name, value in network.state_dict().items()}
    found = recognise_aodnet(tensors)
    assert found is not None
    assert found.options == {}
    assert all(torch.equal(found.state[name], value) for name, value in network.state_dict().items())
    tensors.pop(f"{prefix}3.bias")
    assert recognise_aodnet(tensors) is None
