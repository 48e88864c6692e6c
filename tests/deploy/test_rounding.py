"""Weights rounded to a few bits so that the sums of a network stay as they were."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from spikingir import SpikingNetwork, convert, fold, from_pretrained, round_weights, save_pretrained
from spikingir.deploy import engine
from spikingir.deploy.folded import FoldedNetwork
from spikingir.errors import InputError
from spikingir.graph.graph import Node, Wave
from spikingir.inputs import with_level
from spikingir.networks.multiscale import MultiScaleNet
from tests.deploy.test_engine import assert_same
from tests.deploy.test_networks import Moves, UNet, disturbed

PHASED: dict[str, Any] = {"time_steps": 4, "schedule": "phased", "coding": "binary"}


def smooth(seed: int, count: int = 4, channels: int = 1, side: int = 32) -> Tensor:
    """Images whose neighbouring pixels are alike, as those of photographs."""
    noise = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))
    return functional.avg_pool2d(functional.pad(noise, (2, 2, 2, 2), "reflect"), 5, 1) * 2 - 0.5


def chain(seed: int, width: int = 12) -> SpikingNetwork:
    """Convolutions in a row."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise([1, width, width, width, 1])]
    body = [module for layer in layers[:-1] for module in (layer, nn.ReLU())]
    return convert(nn.Sequential(*body, layers[-1]), smooth(seed), mapper=False, **PHASED)


def multiscale() -> SpikingNetwork:
    network = MultiScaleNet(width=4, blocks=(1, 1), batch_norm=True)
    network.reset_parameters(torch.Generator().manual_seed(0))
    return convert(disturbed(network, 0, 0.1), leveled(0), activation_bits=(4, 3), **PHASED)


def leveled(seed: int) -> Tensor:
    return with_level(smooth(seed).clamp(0, 1), 0.1)


@torch.no_grad()
def currents(network: SpikingNetwork, image: Tensor) -> dict[str, Tensor]:
    """What each neuron is given, its mean over the window."""
    found: dict[str, Tensor] = {}

    def fire(node: Node, current: Wave, owned: bool) -> Wave:
        assert current.constant is not None
        found[node.name] = current.constant
        return Wave(None, network.neuron(node.name).quantise(current.constant, network.levels(node.name)))

    network.graph.run(image, fire)
    return found


def nearest(network: SpikingNetwork, weight_bits: int) -> SpikingNetwork:
    """Each weight rounded by itself."""
    fine, other = fold(network), fold(network, weight_bits=weight_bits)  # on one grid
    found = from_copy(network)
    for name, weight in found.weight.items():
        node = next(node for node in network.nodes if node.weights == name)
        if node.inputs[0] in fine.spiking:
            few, many = other.kernel(node.name).spike, fine.kernel(node.name).spike
            weight.data *= torch.where(many == 0, 1.0, few / many).float()
    return found


def from_copy(network: SpikingNetwork) -> SpikingNetwork:
    return SpikingNetwork(network.graph, network.neurons, network.config, network.mapper).eval()


def bits_of_weights(folded: FoldedNetwork) -> int:
    """Most bits, sign among them, of the weights of spikes as multiples of one number on the grid for each output."""
    most = 0
    for node in folded.nodes:
        if node.op not in ("conv2d", "conv_transpose2d") or node.inputs[0] not in folded.spiking:
            continue
        kernel = folded.kernel(node.name)
        every = [kernel.spike] if folded.config.phased else [kernel.spike, kernel.extended]
        whole = torch.cat([node.operation.by_output(node, weight).flatten(1) for weight in every], 1) * 2.0**14
        assert torch.equal(whole, whole.round()), node.name
        unit = torch.from_numpy(np.gcd.reduce(whole.long().numpy(), axis=1)).clamp_min(1)
        most = max(most, int((whole.abs().amax(1) / unit).max()))
    return most.bit_length() + 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), weight_bits=st.integers(3, 8), width=st.integers(2, 20))
def test_every_sum_keeps_its_mean(seed: int, weight_bits: int, width: int) -> None:
    network, images = chain(seed, width), smooth(seed)
    rounded = round_weights(network, images, weight_bits=weight_bits)
    expected, found = currents(network, images), currents(rounded, images)
    for name, current in expected.items():
        scale = current.abs().mean()
        torch.testing.assert_close(
            found[name].mean((0, 2, 3)), current.mean((0, 2, 3)), rtol=0, atol=1e-4 * float(scale), msg=name
        )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), weight_bits=st.integers(4, 8), width=st.integers(6, 20))
def test_sums_stay_nearer_than_with_the_nearest_weights(seed: int, weight_bits: int, width: int) -> None:
    """On images that the weights were not rounded on."""
    network, images = chain(seed, width), smooth(seed + 1000, 8)
    expected = currents(network, images)["output"]
    errors = [
        (currents(other, images)["output"] - expected).square().mean()
        for other in (round_weights(network, smooth(seed, 8), weight_bits=weight_bits), nearest(network, weight_bits))
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("weight_bits", [4, 8])
def test_weights_have_few_bits_and_nothing_else_changes(weight_bits: int) -> None:
    network = multiscale()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rounded = round_weights(network, leveled(1), weight_bits=weight_bits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert bits_of_weights(fold(rounded)) == weight_bits
    after = rounded.state_dict()
    assert set(after) == set(before)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in changed} == {"weight", "bias"}
    assert not {"weight.head_conv", "weight.last_of_image"} & changed, "they meet the image, not spikes"


@pytest.mark.parametrize("weight_bits", [3, 8, 12])
def test_fold_rounds_clocked_weights_with_those_of_the_extended_step(weight_bits: int) -> None:
    network = chain(0).at(schedule="clocked", coding="unary")
    assert any(clock.extended for clock in fold(network).clocks.values())
    assert bits_of_weights(fold(network, weight_bits=weight_bits)) == weight_bits


@pytest.mark.parametrize("body", [Moves(2, 3, 2), UNet(5, True, True), UNet(5, False, False)])
def test_other_convolutions(body: nn.Module) -> None:
    """Groups, strides, transposed ones, several in one sum."""
    channels = 2 if isinstance(body, Moves) else 1
    network = convert(disturbed(body, 3), smooth(0, 2, channels).clamp(0, 1), **PHASED)
    for name in network.layers[:-1]:
        network.neuron(name).log_threshold.data.fill_(-1.0)
    assert bits_of_weights(fold(round_weights(network, smooth(1, 2, channels)))) == 8


def test_fold_keeps_the_bits_of_a_network_and_so_does_a_file(tmp_path: Path) -> None:
    network, image = multiscale(), leveled(2)
    assert [bits_of_weights(fold(network, weight_bits=bits)) for bits in ("auto", 8, 5)] == [12, 8, 5]
    rounded = round_weights(network, leveled(1))
    save_pretrained(rounded, tmp_path / "snn.safetensors")
    expected = fold(rounded, weight_bits=8)(image)
    for other in (rounded, from_pretrained(tmp_path / "snn.safetensors")):
        folded = fold(other)
        assert bits_of_weights(folded) == 8
        assert torch.equal(folded(image), expected)
        # a hair off, as another machine's exponential would make of a threshold
        for name in other.layers:
            other.neuron(name).log_threshold.data *= 1 + 2**-22
        assert bits_of_weights(fold(other)) == 8


@pytest.mark.skipif(not engine.native_available(), reason="SpikingIR was installed without a compiler")
def test_engines_give_the_same_bits_in_one_digit_a_weight() -> None:
    from spikingir.deploy.integers import plan_layers

    folded = fold(round_weights(multiscale(), leveled(1)))
    assert {layer.digits for layer in plan_layers(folded).layers} == {1}
    assert_same(folded, leveled(3))


def test_what_cannot_be_rounded_is_refused() -> None:
    network, images = chain(0), smooth(0)
    with pytest.raises(InputError, match=r"the network is clocked: give network\.at\(schedule='phased'\)"):
        round_weights(convert(nn.Conv2d(1, 1, 3, padding=1), images), images)
    with pytest.raises(InputError, match=r"weight_bits is 1; expected 2\.\.16"):
        round_weights(network, images, weight_bits=1)
    with pytest.raises(TypeError, match="expected a SpikingNetwork"):
        round_weights(nn.Conv2d(1, 1, 3), images)  # type: ignore[arg-type]
    layer, first, last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 1)
    twice = convert(nn.Sequential(first, nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), last), images, **PHASED)
    with pytest.raises(InputError, match="2 operations share the weights '_2'; give each its own first"):
        round_weights(twice, images)
