"""Which operations of a body make up a neuron's current: those that it reads, through sums and differences."""

from collections import Counter
from collections.abc import Mapping, Sequence

from spikingir.spiking.graph import Node


def neurons_of_currents(nodes: Sequence[Node], channels: Mapping[str, int]) -> dict[str, str]:
    """The neuron that a weighted operation, a sum or a pixel shuffle feeds and nothing else, by the operation's name.

    ``I_l = sum over branches k of W_lk s_k + b_l`` (METHOD section 1): the branches are weighted operations, and other
    wires, which are not listed; the sums and differences between them and the neuron are.

    Args:
        nodes: The body.
        channels: Channels of every node's output; a sum that repeats a channel is not listed.
    """
    by_name = {node.name: node for node in nodes}
    readers = Counter(name for node in nodes for name in node.inputs)
    found: dict[str, str] = {}

    def visit(name: str, neuron: str) -> None:
        node = by_name[name]
        if readers[name] > 1:
            return
        if node.op == "pixel_shuffle":  # one channel of the neuron's for each square of the operation's
            found[name] = neuron
            visit(node.inputs[0], neuron)
        elif node.op in ("add", "sub") and all(channels[part] == channels[name] for part in node.inputs):
            found[name] = neuron
            for part in node.inputs:
                visit(part, neuron)
        elif node.weights is not None:
            found[name] = neuron

    for node in nodes:
        if node.op == "neuron":
            visit(node.inputs[0], node.name)
    return found
