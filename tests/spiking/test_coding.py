"""The binary code: counts, bits and laws (docs/method.md, section 10)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikingir import SpikingNetwork, convert, fold, from_pretrained, save_pretrained
from spikingir.conversion.qcfs import quantise_activations
from spikingir.graph.errors import ConversionError
from spikingir.inputs import with_level
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.restoration.tiling import restore_tiled
from spikingir.spiking.coding import spike_trains, spikes_per_step


def _network(blocks: tuple[int, ...] = (1, 1), form: str = "level") -> MultiScaleNet:
    network = MultiScaleNet(width=4, blocks=blocks, form=form, batch_norm=True)
    generator = torch.Generator().manual_seed(0)
    network.reset_parameters(generator)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def _images(count: int = 2, height: int = 16, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, 1, height, width, generator=generator)
    return with_level(image, 0.2 * torch.rand(count, 1, height, width, generator=generator))


def _binary(**how: object) -> SpikingNetwork:
    options = {"time_steps": 5, "schedule": "phased", "coding": "binary", "percentile": 100} | how
    return convert(_network(), _images(), **options)


def test_bits_leave_most_significant_first() -> None:
    counts = torch.tensor([0.0, 1.0, 6.0, -5.0]).view(1, 1, 1, 4)
    trains = spike_trains(counts, "binary", 4)
    assert trains[:, 0, 0, 0].T.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0], [0, -1, 0, -1]]
    weights = torch.tensor([8.0, 4.0, 2.0, 1.0]).view(-1, 1, 1, 1, 1)
    assert torch.equal((trains * weights).sum(0), counts)
    assert torch.equal(spikes_per_step(counts, "binary", 4), trains.abs().sum((-2, -1)).long())


@given(time_steps=st.integers(1, 8), scales=st.integers(2, 3))
@settings(max_examples=6)
def test_binary_is_unary_of_as_many_levels_bit_for_bit(time_steps: int, scales: int) -> None:
    network, images = _network((1,) * scales), _images()
    how = {"schedule": "phased", "percentile": 100}
    unary = convert(network, images, time_steps=2**time_steps - 1, **how)
    binary = convert(network, images, time_steps=time_steps, coding="binary", **how)
    folded, reference = fold(binary, weight_bits=8), fold(unary, weight_bits=8)
    reference.image_bits = folded.image_bits
    for (restored, trace), (expected, other) in (
        (binary.trace(images, trains=True), unary.trace(images, trains=True)),
        (folded.trace(images, trains=True), reference.trace(images, trains=True)),
    ):
        assert torch.equal(restored, expected)
        weights = 2 ** torch.arange(time_steps).flip(0).view(-1, 1, 1, 1, 1)
        for layer, counted in zip(trace.layers, other.layers, strict=True):
            assert torch.equal((layer.trains.int() * weights).sum(0), counted.trains.int().sum(0))


def test_a_layer_of_m_bits_is_the_layer_alone_at_m_steps() -> None:
    mixed = _binary(activation_bits=(5, 3))
    head = mixed.layers[0]
    assert [mixed.levels(name) for name in (head, "down_0_relu")] == [31, 7]
    current = torch.linspace(-1, 3, 64).view(1, 1, 8, 8).expand(1, 8, 8, 8) * mixed.neuron("down_0_relu").v_threshold[0]
    alone = mixed.neuron("down_0_relu").quantise(current, 2**3 - 1)
    assert torch.equal(mixed.neuron("down_0_relu").quantise(current, mixed.levels("down_0_relu")), alone)
    _, trace = mixed.trace(_images(), trains=True)
    layer = next(layer for layer in trace.layers if layer.name == "down_0_relu")
    assert not layer.trains[:2].any(), "a layer of three bits is silent in the first two of five steps"
    assert layer.trains[2:].any()


def test_it_is_the_quantised_network() -> None:
    network, images = _network(), _images()
    quantised = quantise_activations(network, images, percentile=100, per_channel=True, bits=(5, 3))
    assert isinstance(quantised, MultiScaleNet)
    spiking = convert(quantised.double(), images.double(), time_steps=5, schedule="phased", coding="binary")
    torch.testing.assert_close(spiking(images.double()), quantised(images.double()), rtol=0, atol=1e-9)


def test_folded_without_a_grid_is_trained_spike_for_spike() -> None:
    network = _binary(activation_bits=(5, 3)).double()
    image = _images().double()
    restored, trace = fold(network, grid=None, dtype=torch.float64).trace(image, trains=True)
    expected, reference = network.trace(image, trains=True)
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-9)
    for layer, other in zip(trace.layers, reference.layers, strict=True):
        assert (layer.trains != other.trains).float().mean() < 1e-3  # ties, on calibration images


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_weights_that_spikes_meet_are_integers(bits: int) -> None:
    folded = fold(_binary(activation_bits=(5, 3)), weight_bits=bits)
    for node in folded.nodes:
        if node.op != "conv2d" or node.inputs[0] == "cat":
            continue
        whole = folded.kernel(node.name).spike.flatten(1) * 2.0**14
        assert torch.equal(whole, whole.round())
        shared = np.gcd.reduce(whole.long().numpy(), axis=1, keepdims=True)
        assert np.abs(whole.numpy() / shared).max() < 2 ** (bits - 1)


@pytest.mark.parametrize("tile", [8, 16])
def test_tiles_are_the_whole_image(tile: int) -> None:
    folded = fold(_binary(activation_bits=(5, 3)))
    image = _images(1, 40, 56)
    assert torch.equal(restore_tiled(folded, image, tile, engine="torch"), folded(image))


def test_a_file_keeps_code_and_bits(tmp_path) -> None:
    network = _binary(activation_bits=(5, 3))
    save_pretrained(network, tmp_path / "n.safetensors")
    loaded = from_pretrained(tmp_path / "n.safetensors")
    assert loaded.config == network.config
    assert [loaded.levels(name) for name in loaded.layers] == [network.levels(name) for name in network.layers]
    assert torch.equal(loaded(_images()), network(_images()))


def test_it_runs_at_its_own_time_steps_alone() -> None:
    network = _binary()
    with pytest.raises(ValueError, match="binary code is for T = 5; it does not run at T = 6"):
        network.at(time_steps=6)
    with pytest.raises(ValueError, match="needs the phased schedule"):
        network.at(schedule="clocked")
    assert network.at(time_steps=8, schedule="clocked", coding="unary").config.time_steps == 8


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"time_steps": 9}, "the binary code has at most 8"),
        ({"schedule": "clocked"}, "needs the phased schedule"),
        ({"coding": "gray"}, "unknown coding 'gray'"),
        ({"activation_bits": (6, 5)}, "activation_bits is 6; a binary layer has 1 to T = 5"),
    ],
)
def test_what_does_not_fit_is_refused(how: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _binary(**how)


def test_levels_of_a_quantiser_that_no_bits_carry_are_refused() -> None:
    quantised = quantise_activations(_network(), _images(), levels=6)
    with pytest.raises(ConversionError, match=r"has 6 levels; a binary layer has 2\^m - 1"):
        convert(quantised, _images(), time_steps=5, schedule="phased", coding="binary")


def test_an_image_without_its_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, 2, H, W\), the last channel the noise level"):
        _binary()(torch.rand(1, 1, 16, 16))
