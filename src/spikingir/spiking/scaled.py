"""Weights of an operation with a factor for each of its channels, and how far its output reaches."""

from torch import Tensor

from spikingir.spiking.graph import Node


def times_output(node: Node, weight: Tensor, gain: Tensor) -> Tensor:
    """Weights of an operation whose output channels are multiplied by ``gain``."""
    if node.op == "conv_transpose2d":
        groups, per_group = node.options["groups"], weight.shape[1]
        rows = gain.view(groups, 1, per_group).expand(groups, weight.shape[0] // groups, per_group)
        return weight * rows.reshape(weight.shape[0], per_group, 1, 1)
    return weight * (gain if node.op == "affine" else gain.view(-1, 1, 1, 1))


def times_input(node: Node, weight: Tensor, scale: Tensor) -> Tensor:
    """Weights of an operation whose input channels are multiplied by ``scale``."""
    if node.op == "affine":
        return weight * scale
    if node.op == "conv_transpose2d":
        return weight * scale.view(-1, 1, 1, 1)
    groups = node.options["groups"]
    columns = scale.view(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
    return weight * columns.reshape(weight.shape[0], weight.shape[1], 1, 1)


def reach(node: Node, weight: Tensor, bound: Tensor) -> Tensor:
    """Largest magnitude of each output channel while inputs stay within ``bound``."""
    worst = times_input(node, weight.abs(), bound)
    if node.op == "affine":
        return worst
    if node.op == "conv_transpose2d":
        groups = node.options["groups"]
        return worst.view(groups, -1, *worst.shape[1:]).sum((1, 3, 4)).flatten()
    return worst.sum((1, 2, 3))
