"""DnCNN, and the conventions in which its weights are published."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spikingir.networks import DnCNN
from spikingir.networks.base import Recognised
from spikingir.networks.dncnn import recognise_dncnn


def numbered(family: str, channels: int, layers: int, width: int, normed: bool) -> tuple[dict[str, Tensor], nn.Module]:
    """Random weights as a port of DnCNN names them, and that port's stack of modules."""
    first_bias, hidden_bias, last_bias, eps = {
        "kair": (True, True, True, 1e-4),
        "cszn": (True, False, False, 1e-4),
        "saoyan": (False, False, False, 1e-5),
    }[family]
    modules: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=first_bias), nn.ReLU()]
    for _ in range(layers - 2):
        modules.append(nn.Conv2d(width, width, 3, padding=1, bias=hidden_bias))
        if normed:
            modules.append(nn.BatchNorm2d(width, eps=eps))
        modules.append(nn.ReLU())
    modules.append(nn.Conv2d(width, channels, 3, padding=1, bias=last_bias))
    stack = nn.Sequential(*modules)
    for module in stack:
        if isinstance(module, nn.BatchNorm2d):
            # Tiny variances, where a wrong eps shows.
            nn.init.uniform_(module.running_var, 0, 1e-3)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    prefix = "model" if family == "kair" else "dncnn"
    return {f"{prefix}.{key}": value for key, value in stack.state_dict().items()}, stack.eval()


def test_weights_and_parameters() -> None:
    network = DnCNN()
    assert sum(p.numel() for name, p in network.named_parameters() if name.endswith("weight")) == 554_112
    assert sum(p.numel() for p in network.parameters()) == 555_137


def test_restores_by_subtraction() -> None:
    network, image = DnCNN(layers=4, width=8), torch.rand(2, 1, 9, 7)
    assert torch.equal(network(image), image - network.noise(image))


def test_module_names_and_options() -> None:
    network = DnCNN(channels=3, layers=4, width=8, batch_norm=True)
    names = [name for name, _ in network.body.named_children()]
    assert names == ["conv0", "relu0", "conv1", "norm1", "relu1", "conv2", "norm2", "relu2", "conv3"]
    assert network.options == {"channels": 3, "layers": 4, "width": 8, "batch_norm": True}


def test_body_can_be_traced() -> None:
    network, image = DnCNN(layers=4, width=8, batch_norm=True).eval(), torch.rand(1, 1, 8, 8)
    assert torch.equal(torch.fx.symbolic_trace(network.body)(image), network.noise(image))


def test_reset_depends_on_the_generator_alone() -> None:
    one, two = DnCNN(layers=4, width=8, batch_norm=True), DnCNN(layers=4, width=8, batch_norm=True)
    before = torch.get_rng_state()
    for network in (one, two):
        network.reset_parameters(torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_too_few_layers() -> None:
    with pytest.raises(ValueError, match="layers is 2; DnCNN has at least 3"):
        DnCNN(layers=2)


@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(["kair", "cszn", "saoyan"]),
    channels=st.integers(1, 3),
    layers=st.integers(3, 12),
    width=st.integers(1, 5),
    normed=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_every_convention_gives_the_same_function(
    family: str, channels: int, layers: int, width: int, normed: bool, seed: int
) -> None:
    if family == "kair" and layers == 7 and not normed:
        return  # IRCNN's shape, refused
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tensors, stack = numbered(family, channels, layers, width, normed)
        image = torch.rand(1, channels, 6, 5)
    found = recognise_dncnn(tensors)
    assert isinstance(found, Recognised)
    # With a single hidden layer and nothing else a batch norm is still seen, because its statistics are there.
    assert found.options == {"channels": channels, "layers": layers, "width": width, "batch_norm": normed}
    network = DnCNN(**found.options).eval()
    network.load_state_dict(found.state)
    # float64, because a batch norm with a tiny variance blows up the rounding of the two orders.
    expected = copy.deepcopy(stack).double()(image.double())
    torch.testing.assert_close(network.double().noise(image.double()), expected, rtol=1e-3, atol=1e-5)
    assert set(found.source.values()) == set(tensors)


@pytest.mark.parametrize("prefix", ["body.", ""])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_own_names(prefix: str, batch_norm: bool) -> None:
    network = DnCNN(layers=5, width=4, batch_norm=batch_norm)
    tensors = {prefix + name: value for name, value in network.body.state_dict().items()}
    found = recognise_dncnn(tensors)
    assert found is not None
    assert found.options == network.options
    assert found.state.keys() == network.state_dict().keys()
    assert all(torch.equal(found.state[name], value) for name, value in network.state_dict().items())


def test_ircnn_is_refused() -> None:
    tensors, _ = numbered("kair", 1, 7, 4, normed=False)
    with pytest.raises(ValueError, match="IRCNN"):
        recognise_dncnn(tensors)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"fc.weight": torch.zeros(2, 2)},
        {"model.0.weight": torch.zeros(2, 2), "model.2.weight": torch.zeros(2, 2)},
        {f"model.{i}.weight": torch.zeros(4, 4, 3, 3) for i in (0, 1, 2, 3)},
        {f"model.{i}.weight": torch.zeros(4, 4, 3, 3) for i in (0, 2)},
        {f"{family}.0.weight": torch.zeros(4, 4, 3, 3) for family in ("model", "dncnn")},
        {f"{body}conv{i}.weight": torch.zeros(4, 4, 3, 3) for i in range(4) for body in ("body.", "")},
        {f"body.conv{i}.weight": torch.zeros(0, 4, 3, 3) for i in range(4)},
        {f"body.conv{i}.weight": torch.zeros(3, 3, 3, 3) for i in range(1, 6)},
    ],
)
def test_other_networks_are_not_dncnn(tensors: dict[str, Tensor]) -> None:
    assert recognise_dncnn(tensors) is None
