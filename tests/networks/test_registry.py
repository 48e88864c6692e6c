"""Networks by name."""

import inspect
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch

from spikingir.networks import (
    ARCHITECTURES,
    DnCNN,
    build_network,
    describe,
)
from spikingir.plugins import PluginError


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_descriptor_tells_the_truth(name: str) -> None:
    architecture = ARCHITECTURES[name]
    network = build_network(name)
    assert architecture.name == name
    assert type(network) is architecture.builder
    assert network.channels in architecture.channels
    assert network.options.keys() == inspect.signature(architecture.builder).parameters.keys()
    assert describe(network) == {"architecture": name, "options": network.options}
    image = torch.rand(1, network.channels, network.multiple, 2 * network.multiple)
    assert network(image, 0.1 if network.takes_level else None).shape == image.shape
    others = [other for other in ARCHITECTURES.values() if other is not architecture]
    assert architecture.recognise(network.state_dict()) is not None
    assert all(other.recognise(network.state_dict()) is None for other in others)


def test_descriptor_is_frozen_and_has_one_name() -> None:
    with pytest.raises(FrozenInstanceError):
        ARCHITECTURES["dncnn"].paper = ""
    with pytest.raises(PluginError, match="the network 'mine' has the name 'dncnn' of its own"):
        ARCHITECTURES["mine"] = ARCHITECTURES["dncnn"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "dncn",
            {},
            "unknown architecture 'dncn'; did you mean 'dncnn'",
        ),
        ("multiscale", {"blocks": (1,)}, r"blocks is \(1,\); expected 2 to 6 scales"),
        ("multiscale", {"form": "hard"}, "form is 'hard'; expected level, residual, soft or airlight"),
        ("multiscale", {"activation_bits": (5, 4)}, r"activation_bits is \(5, 4\); expected 1 to 8 bits"),
        ("dncnn", {"layer": 17}, "dncnn has no option 'layer'; did you mean 'layers'?"),
        ("dncnn", {"zoom": 2}, "no option 'zoom'; known: channels, layers, width, batch_norm"),
        ("aodnet", {"layers": 5}, "aodnet has no option 'layers'; known: none"),
        ("dncnn", {"layers": 17.0}, "option 'layers' of dncnn is 17.0; expected a whole number"),
        ("dncnn", {"width": True}, "option 'width' of dncnn is True; expected a whole number"),
        ("dncnn", {"batch_norm": 1}, "option 'batch_norm' of dncnn is 1; expected true or false"),
        ("dncnn", {"channels": 2}, "channels is 2; dncnn is for images of 1 or 3"),
        ("dncnn", {"layers": 2}, "option 'layers' of dncnn is 2; expected a number from 3 to 256"),
        ("dncnn", {"layers": 10**9}, "option 'layers' of dncnn is 1000000000; expected a number from 3 to 256"),
        ("dncnn", {"width": 10**30}, "expected a number from 1 to 4096"),
        ("multiscale", {"blocks": (2, 10**9)}, "option 'blocks' of multiscale is 1000000000; expected a number from 0"),
        ("multiscale", {"blocks": (2, "2")}, r"option 'blocks' of multiscale\[1\] is '2'; expected a whole number"),
        ("unet", {}, "unknown architecture 'unet'; known: dncnn, aodnet, multiscale"),
        ("dncnn", {"width": 0}, "option 'width' of dncnn is 0; expected a number from 1 to 4096"),
    ],
)
def test_build_errors(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(name, **options)


def test_only_known_architectures_are_described() -> None:
    class Mine(DnCNN):
        pass

    with pytest.raises(ValueError, match=r"Mine is of no known architecture; known: dncnn"):
        describe(Mine())
