"""Growth: more blocks, the same images, and new blocks that learn; and an image that is read by smaller kernels."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikingir.conversion.qcfs import QCFS, quantise_activations, release_activations
from spikingir.inputs import with_level
from spikingir.networks.growth import grown, pointwise_inject
from spikingir.networks.multiscale import MultiScaleNet

IMAGES = with_level(torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(1)), 0.1)


def network(**options: object) -> MultiScaleNet:
    """Random weights, with mean and variance of its own activations in its batch norms."""
    net = MultiScaleNet(**{"width": 8, "blocks": (1, 1, 1), "batch_norm": True, **options})
    net.reset_parameters(torch.Generator().manual_seed(0))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    net.train()(IMAGES)
    return net.eval()


@pytest.mark.parametrize("blocks", [(2, 1, 1), (1, 2, 1), (1, 1, 2), (3, 3, 3)])
@pytest.mark.parametrize("options", [{}, {"top_residual": True}, {"blocks": (0, 0, 1)}])
def test_a_network_that_grew_restores_as_before(blocks: tuple[int, ...], options: dict[str, object]) -> None:
    before = network(**options)
    after = grown(before, blocks, IMAGES, torch.Generator().manual_seed(0))
    assert after.blocks == blocks
    with torch.no_grad():
        torch.testing.assert_close(after(IMAGES), before(IMAGES), atol=1e-4, rtol=0)
    assert before.blocks == options.get("blocks", (1, 1, 1))


@pytest.mark.parametrize("blocks", [(2, 1, 1), (3, 3, 3)])
def test_it_does_so_in_training_too(blocks: tuple[int, ...]) -> None:
    """Where batch norms take mean and variance from the images: here those that were given."""
    before = network()
    after = grown(before, blocks, IMAGES, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(after.train()(IMAGES), before.train()(IMAGES), atol=2e-3, rtol=0)


def test_a_quantised_network_grows_too() -> None:
    before = quantise_activations(network(), IMAGES, percentile=99.9, per_channel=True, bits=(5, 4, 3))
    before.activation_bits = (5, 4, 3)
    after = grown(before, (2, 2, 2), IMAGES)
    assert after.activation_bits == (5, 4, 3)
    assert sum(isinstance(module, QCFS) for module in after.modules()) == len(after.activations())
    with torch.no_grad():  # a membrane on a threshold may fall to the other side
        assert (after(IMAGES) - before(IMAGES)).abs().mean() < 1e-3
    free = release_activations(after)
    assert not any(isinstance(module, QCFS) for module in free.modules())
    assert sum(isinstance(module, nn.ReLU) for module in free.modules()) == len(after.activations())


def test_all_kernels_learn_and_have_one_norm() -> None:
    after = grown(network(), (2, 2, 2), IMAGES, torch.Generator().manual_seed(0)).train()
    norms = [
        module.conv.weight.norm() / min(module.conv.weight.flatten(1).shape) ** 0.5
        for module in after.modules()
        if isinstance(module, nn.Sequential)
    ]
    assert len(norms) > 20
    assert all(torch.isclose(a, b, rtol=0.01) for a, b in pairwise(norms))
    optimiser = torch.optim.SGD(after.parameters(), 1e-2)
    for _ in range(2):  # a scale of 0 lets its kernel learn from the second step on
        optimiser.zero_grad()
        (after(IMAGES) - 0.5).square().mean().backward()
        optimiser.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in after.parameters())


@pytest.mark.parametrize(
    ("options", "blocks", "message"),
    [
        ({"batch_norm": False}, (2, 2, 2), "no batch norm"),
        ({}, (2, 2), "expected 3 numbers"),
        ({}, (2, 0, 1), r"blocks is \(2, 0, 1\); expected 3 numbers, at least \(1, 1, 1\)"),
    ],
)
def test_what_cannot_grow_is_refused(options: dict[str, object], blocks: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grown(network(**options), blocks, IMAGES)


@pytest.mark.parametrize("blocks", [(2, 1, 1), (0, 1)])
def test_kernels_that_read_one_pixel_lose_nothing_by_being_small(blocks: tuple[int, ...]) -> None:
    before = network(blocks=blocks)
    with torch.no_grad():
        for name, weight in before.named_parameters():
            if name.endswith("inject.conv.weight"):
                weight *= torch.tensor([0.0, 1.0, 0.0]).outer(torch.tensor([0.0, 1.0, 0.0]))
    after = pointwise_inject(before, IMAGES)
    assert (before.inject_kernel, after.inject_kernel) == (3, 1)
    sides = {weight.shape[-2:] for name, weight in after.named_parameters() if name.endswith("inject.conv.weight")}
    assert sides == ({(1, 1)} if blocks[0] else set())
    with torch.no_grad():
        torch.testing.assert_close(after(IMAGES), before(IMAGES), atol=1e-4, rtol=0)


def test_smaller_kernels_are_the_nearest_to_what_was_read() -> None:
    before = network()
    after = pointwise_inject(before, IMAGES)
    read = torch.cat([functional.pixel_unshuffle(IMAGES[:, :1], 2), functional.avg_pool2d(IMAGES[:, 1:], 2)], 1)
    with torch.no_grad():
        for name in ("encoder.0.0.inject", "decoder.0.0.inject"):
            wide, small = before.body.get_submodule(name), after.body.get_submodule(name)
            given, given_now = (part(read) for part in (wide, small))
            torch.testing.assert_close(given_now.mean((0, 2, 3)), given.mean((0, 2, 3)), atol=1e-5, rtol=0)
            error = given_now - given
            inputs = read - read.mean((0, 2, 3), keepdim=True)
            assert torch.einsum("bohw,bihw->oi", error, inputs).abs().max() < 1e-3 * given.abs().max() * len(read[0, 0])
            assert 0 < error.square().mean() < (given - given.mean((0, 2, 3), keepdim=True)).square().mean()


def test_smaller_kernels_learn_as_the_others_do() -> None:
    after = pointwise_inject(network(), IMAGES)
    norms = [
        conv.weight.flatten(1).norm() / min(conv.weight.flatten(1).shape) ** 0.5
        for conv, norm in (tuple(m.children()) for m in after.modules() if isinstance(m, nn.Sequential))
    ]
    torch.testing.assert_close(torch.stack(norms), torch.full((len(norms),), 4.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_norm": False}, "has no batch norm"), ({"inject_kernel": 1}, "inject_kernel is 1; expected 3")],
)
def test_what_cannot_read_less_is_refused(options: dict[str, object], message: str) -> None:
    made = MultiScaleNet(**{"width": 4, "blocks": (1, 1), "batch_norm": True, **options})
    with pytest.raises(ValueError, match=message):
        pointwise_inject(made, IMAGES)
