"""Methods of conversion: defaults, bias correction, QCFS, Lan."""

import pytest
import torch
from torch import Tensor, nn

from spikingir.conversion.convert import METHODS, convert, correct_biases
from spikingir.conversion.lan import AdaptiveThresholdNeuron
from spikingir.conversion.qcfs import QCFS, quantise_activations
from spikingir.graph.errors import ConversionError
from spikingir.networks.base import RestorationNetwork
from spikingir.spiking.network import SpikingNetwork
from spikingir.spiking.neurons import MPRN


def conv(inputs: int = 6, outputs: int = 6) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def body(depth: int = 3, activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    hidden = [layer for _ in range(depth) for layer in (conv(), activation())]
    module = nn.Sequential(conv(1), activation(), *hidden, conv(6, 1))
    for layer in module:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return module.double()


def images(count: int = 3, seed: int = 1) -> Tensor:
    return torch.rand(count, 1, 14, 14, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def error(spiking: SpikingNetwork, network: nn.Module, image: Tensor) -> float:
    return (spiking(image) - network(image)).square().mean().sqrt().item()


def test_defaults_by_method() -> None:
    """docs/method.md, section 7."""
    network = body()
    for method in ("spikingir", "if", "rueckauer", "lan"):
        spiking = convert(network, images(), method)
        first, last = (spiking.neuron(spiking.layers[i]) for i in (0, -1))
        assert isinstance(first, MPRN) == (method == "spikingir")
        assert isinstance(first, AdaptiveThresholdNeuron) == (method == "lan")
        assert first.v0 == (0.5 if method == "if" else 0)
        assert last.v0 == 0
        assert last.signed
        assert first.v_threshold.numel() == (6 if method in ("spikingir", "if") else 1)
        assert (spiking.mapper is not None) == (method == "spikingir")
        assert spiking.config.recycling == (method == "spikingir")
        assert spiking.config.method == method
        assert spiking.config.time_steps == 10
        assert not spiking.training
        assert METHODS[method].percentile == 99.9
        assert METHODS[method].source


def test_signed_output_starts_from_zero_whatever_v0() -> None:
    spiking = convert(body(), images(), v0=0.5, alpha=1.0)
    assert [spiking.neuron(name).v0 for name in spiking.layers] == [0.5, 0.5, 0.5, 0.5, 0]


def test_settings_reach_the_neurons() -> None:
    spiking = convert(
        body(), images(), v0=0.2, alpha=0.9, beta=1.5, surrogate="arctan", time_steps=4, schedule=2, mapper=False
    )
    neuron = spiking.neuron(spiking.layers[1])
    assert (neuron.v0, neuron.alpha, neuron.surrogate) == (0.2, 0.9, "arctan")
    torch.testing.assert_close(neuron.beta, torch.full((6,), 1.5, dtype=torch.float64))
    assert (spiking.config.time_steps, spiking.config.schedule, spiking.mapper) == (4, 2, None)


def test_restoration_network_keeps_its_image_formation() -> None:
    network = RestorationNetwork(body(), "residual", 1)
    spiking = convert(network, images(), "rueckauer", percentile=100, time_steps=400)
    assert spiking.config.formation == "residual"
    assert error(spiking, network, images()) < 0.05
    assert error(convert(network.body, images(), "rueckauer", percentile=100), network, images()) > 0.2


def test_a_networks_own_attribute_channels_is_not_the_images() -> None:
    network = body()
    network.channels = 64
    assert convert(network, images()).config.channels == 1


def test_mapper_and_recycling_before_training_are_the_mean_current() -> None:
    """The mapper is the identity, so that fine-tuning starts from the converted network."""
    spiking = convert(body(), images())
    without = convert(body(), images(), mapper=False)
    assert torch.equal(spiking(images()), without(images()))


def test_method_spikingir_and_if_are_close_before_training() -> None:
    """docs/method.md, section 2: untrained, MPRN is IF with v0 = 1/2 within .01 dB of the restored image."""
    network = RestorationNetwork(body(), "residual", 1)
    reused, half = (
        convert(network, images(), method, percentile=100, time_steps=8, recycling=True)
        for method in ("spikingir", "if")
    )
    first, second = error(reused, network, images()), error(half, network, images())
    assert first == pytest.approx(second, rel=0.15)
    assert error(convert(network, images(), "rueckauer", percentile=100, time_steps=8), network, images()) > 1.5 * first


@pytest.mark.parametrize(
    ("method", "schedule"), [("rueckauer", "clocked"), ("rueckauer", 1), ("spikingir", "clocked"), ("lan", "clocked")]
)
def test_bias_correction_lowers_the_error(method: str, schedule: str | int) -> None:
    network = body()
    settings = {"time_steps": 4, "schedule": schedule, "percentile": 100}
    plain = convert(network, images(), method, **settings)
    corrected = convert(network, images(), method, bias_correction=True, **settings)
    assert error(corrected, network, images()) < 0.95 * error(plain, network, images())


@pytest.mark.parametrize("method", ["rueckauer", "spikingir"])
def test_bias_correction_matches_the_mean_currents(method: str) -> None:
    """After it every layer's mean input current, over calibration images and time, is the ANN's pre-activation."""
    network = body()
    spiking = convert(network, images(), method, percentile=100, time_steps=4, bias_correction=True)
    wanted: list[Tensor] = []
    found: list[Tensor] = []
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda module, _, output: wanted.append(output.mean((0, 2, 3))))

    def note(module: nn.Module, waves: tuple[Tensor | None, Tensor]) -> None:
        varying = 0 if waves[0] is None else waves[0].sum(0) / 4
        found.append((varying + waves[1]).mean((0, 2, 3)))

    for name in spiking.layers:
        spiking.neuron(name).register_forward_pre_hook(note)
    with torch.no_grad():
        network(images())
        spiking(images())
    assert len(found) == len(wanted) == 5
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_bias_correction_keeps_the_limit() -> None:
    """At large T there is little to correct; a correction for small T does not spoil large T beyond its own size."""
    network = body()
    settings = {"percentile": 100, "bias_correction": True}
    plain = convert(network, images(), "rueckauer", percentile=100, time_steps=4)
    at_4 = error(plain, network, images())
    at_128 = error(convert(network, images(), "rueckauer", time_steps=128, **settings), network, images())
    assert at_128 <= 1.05 * error(plain.at(time_steps=128), network, images())
    kept = convert(network, images(), "rueckauer", time_steps=4, **settings).at(time_steps=128)
    assert error(kept, network, images()) < at_4


def test_bias_correction_where_the_convolution_has_other_readers() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.middle, self.tail = conv(1), conv(), conv(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.middle(torch.relu(self.head(x)))
            return self.tail(torch.relu(y) + y)

    torch.manual_seed(1)
    network = Skip().double()
    for module in network.children():
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    plain, corrected = (
        convert(network, images(), "rueckauer", percentile=100, time_steps=4, bias_correction=correct)
        for correct in (False, True)
    )
    assert len(corrected.nodes) == len(plain.nodes) + 1
    assert error(corrected, network, images()) < 0.95 * error(plain, network, images())
    corrected.load_state_dict(corrected.state_dict())


def test_correct_biases_checks_its_images() -> None:
    spiking = convert(body(), images())
    with pytest.raises(ValueError, match="no calibration image"):
        correct_biases(spiking, [])
    with pytest.raises(ValueError, match="the phased schedule has none"):
        correct_biases(spiking.at(schedule="phased"), images())


def trained_qcfs(levels: int) -> nn.Sequential:
    """A small network with QCFS activations after one step of training."""
    network = body(activation=lambda: QCFS(levels, clip_level=1.5))  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    network.double()(images()).sub(0.3).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    return network.eval()


@pytest.mark.parametrize("levels", [1, 4, 8])
def test_qcfs_network_is_its_phased_schedule(levels: int) -> None:
    network = trained_qcfs(levels)
    spiking = convert(network, images(), "qcfs", time_steps=levels, schedule="phased", recycling=True)
    fresh = images(seed=5)
    torch.testing.assert_close(spiking(fresh), network(fresh), rtol=0, atol=1e-9)
    theta = [spiking.neuron(name).v_threshold for name in spiking.layers[:-1]]
    wanted = [layer.log_clip_level.exp() for layer in network if isinstance(layer, QCFS)]
    for a, b in zip(theta, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_qcfs_clocked_has_half_a_threshold_and_its_own_limit() -> None:
    """Bu et al.: theta = lambda, v0 = 1/2; the clocked schedule nears the network with its levels let go."""
    network = trained_qcfs(8)
    spiking = convert(network, images(), "qcfs", time_steps=512)
    assert [spiking.neuron(name).v0 for name in spiking.layers] == [0.5, 0.5, 0.5, 0.5, 0]
    for layer in network:
        if isinstance(layer, QCFS):
            layer.levels = 4096
    assert error(spiking, network, images()) < 0.02 * network(images()).square().mean().sqrt().item()


def test_qcfs_values_and_gradients() -> None:
    """Bu et al., Eq. 15, with a straight-through floor; in any memory format."""
    layer = QCFS(levels=4, clip_level=2.0).double()
    x = 3 * torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    wanted = 2 * (torch.floor(x.detach() * 4 / 2 + 0.5) / 4).clamp(0, 1)
    torch.testing.assert_close(y, wanted)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    assert x.grad is not None
    # inside: from the middle of the first step to the middle beyond the last
    assert torch.equal(x.grad, ((x >= -0.25) & (x < 2.25)).double())
    low, high = x.detach() < -0.25, x.detach() >= 2.25
    rise = torch.where(low, 0, torch.where(high, 1, (wanted - x.detach()) / 2))  # dy/d lambda
    torch.testing.assert_close(layer.log_clip_level.grad, 2 * rise.sum().view(1))


def test_qcfs_by_channel_is_qcfs_of_each_channel() -> None:
    clips = torch.tensor([0.5, 1.0, 2.0])
    x = 2 * torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    layer, each = QCFS(4, clips), [QCFS(4, clip.item()) for clip in clips]
    y = layer(x)
    wanted = torch.cat([one(x[:, [i]]) for i, one in enumerate(each)], 1)
    torch.testing.assert_close(y, wanted)
    y.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(layer.log_clip_level.grad, torch.cat([one.log_clip_level.grad for one in each]))


@pytest.mark.parametrize(("levels", "clip", "complaint"), [(0, 1, "levels is 0"), (4, 0, "clip_level is 0")])
def test_qcfs_refuses(levels: int, clip: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        QCFS(levels, clip)


def test_lan_error_falls_with_time() -> None:
    network = body()
    errors = [
        error(convert(network, images(), "lan", time_steps=steps), network, images(seed=4)) for steps in (2, 8, 32)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3


def test_lan_beats_rueckauer_at_few_steps() -> None:
    network = body()
    lan, rueckauer = (convert(network, images(), method, time_steps=8) for method in ("lan", "rueckauer"))
    assert error(lan, network, images(seed=4)) < error(rueckauer, network, images(seed=4))


def test_lan_is_adapted_to_one_schedule() -> None:
    spiking = convert(body(), images(), "lan", time_steps=6)
    with pytest.raises(ValueError, match="adapted for T = 6; convert it again for T = 8"):
        spiking.at(time_steps=8)(images())
    for schedule in (2, "phased"):
        with pytest.raises(ValueError, match="has no equation for the schedule"):
            spiking.at(schedule=schedule)(images())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="exist on the clocked schedule alone"):
            convert(body(), images(), "lan", time_steps=6, schedule=schedule)  # type: ignore[arg-type]


def test_lan_thresholds_and_graded_spikes() -> None:
    """docs/method.md, section 7: theta(t) is the .9 quantile of positive membranes, at most lambda; s is at most 2."""
    spiking = convert(body(), images(), "lan", time_steps=6, percentile=100)
    _, trace = spiking.trace(images(), trains=True)
    for name, layer in zip(spiking.layers, trace.layers, strict=True):
        neuron = spiking.neuron(name)
        assert isinstance(neuron, AdaptiveThresholdNeuron)
        assert neuron.step_thresholds.shape == (6, 1)
        assert (neuron.step_thresholds <= neuron.v_threshold.max()).all()
        assert layer.trains.abs().max() == 2
        assert (layer.trains.min() < 0) == neuron.signed
        assert torch.equal(layer.spikes, layer.trains.abs().sum((-2, -1), dtype=torch.int64))
    first = network_current = body()[0](images())
    positive = network_current[network_current > 0]
    reached = (first >= spiking.neuron(spiking.layers[0]).step_thresholds[0]).sum() / len(positive)
    assert reached.item() == pytest.approx(0.1, abs=0.01)


def test_lan_recycling_gives_the_mean_current() -> None:
    spiking = convert(body(), images(), "lan", time_steps=6, recycling=True)
    seen: list[Tensor] = []
    last = spiking.neuron(spiking.layers[-1])
    last.register_forward_pre_hook(lambda module, waves: seen.append(waves[0].sum(0) / 6 + waves[1]))
    torch.testing.assert_close(spiking(images()), seen[0], rtol=0, atol=1e-10)


def test_conversion_is_deterministic() -> None:
    for method in ("spikingir", "lan"):
        first, second = (convert(body(), images(), method, bias_correction=True) for _ in range(2))
        assert torch.equal(first(images()), second(images()))


def test_relus_give_way_to_qcfs_at_calibrated_clip_levels() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Sequential(nn.Conv2d(6, 1, 3, padding=1), nn.ReLU())
    )
    images = torch.rand(4, 1, 16, 16)
    quantised = quantise_activations(network, images, levels=256, percentile=100)
    activations = [m for m in quantised.modules() if isinstance(m, QCFS)]
    assert [m.levels for m in activations] == [256, 256]
    assert activations[0].log_clip_level.exp().item() == pytest.approx(network[:2](images).max().item())
    torch.testing.assert_close(quantised(images), network(images), rtol=0, atol=0.01)
    assert isinstance(network[1], nn.ReLU), "the network itself is not changed"
    each = quantise_activations(network, images, levels=256, percentile=100, per_channel=True)
    maxima = network[:2](images).amax((0, 2, 3))
    torch.testing.assert_close(each[1].log_clip_level.exp(), maxima.clamp_min(1e-3 * maxima.max()))
    spiking = convert(each, images, "qcfs", time_steps=256, schedule="phased")
    torch.testing.assert_close(spiking(images), each(images), rtol=0, atol=1e-4)
    with pytest.raises(ConversionError, match=r"no nn\.ReLU"):
        quantise_activations(nn.Conv2d(1, 1, 3), images)


def test_clip_levels_become_thresholds_of_every_channel() -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), QCFS(8, 0.5), nn.Conv2d(6, 1, 3, padding=1))
    spiking = convert(network, torch.rand(2, 1, 8, 8), time_steps=8)
    assert torch.allclose(spiking.neuron(spiking.layers[0]).v_threshold, torch.full((6,), 0.5))
