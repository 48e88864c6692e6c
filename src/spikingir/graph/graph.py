"""A body as data: nodes in order of execution, each an operation of a closed set.

Between neurons everything is linear and acts on each time step alone, so a value is kept as two parts (a
:class:`Wave`): what the spikes carry, one tensor per step, and what is constant in time (the image through the
first convolution, biases, skips from the input). Operations run on both, without bias on the first. This is what makes
"the bias is the chain's response to zero spikes, applied at t <= T only" hold for every graph, and the first
convolution run once. A network without spikes (the ANN, the phased schedule) is the constant part alone.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from spikingir.errors import InputError
from spikingir.graph.operations import OPERATIONS, Operation, Role
from spikingir.graph.reach import Reach

Weights = Mapping[str, tuple[Tensor, Tensor | None]]
T = TypeVar("T")

_SIDES = (64, 128, 256, 360)  # powers of two serve most strides, 360 those of 3, 5 and 6 as well


class Wave(NamedTuple):
    """A value on a wire, in two parts; a part is None where it is zero.

    The spiking part is ``(S, B, C, H, W)``, the constant part ``(B, C, H, W)``, or ``(1, C, 1, 1)`` beside spikes.
    """

    spikes: Tensor | None
    constant: Tensor | None


class Carried(NamedTuple):
    """What each channel of a wire carries, (C,) booleans; it may be several of them.

    Attributes:
        image: Something of the image, constant in time.
        spikes: Spikes, 0/1 or -1/0/1.
        analog: Weighted sums of spikes.
    """

    image: Tensor
    spikes: Tensor
    analog: Tensor


@dataclass(frozen=True)
class Node:
    """One operation of a body.

    Attributes:
        name: Unique name, as in the network it came from.
        op: Name of its operation, a key of :data:`~spikingir.graph.operations.OPERATIONS`.
        inputs: Names of the nodes it reads.
        options: Its settings, plain values only.
        weights: Name of its weights (several nodes may share one), or None.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None

    @property
    def operation(self) -> Operation:
        """What is known of its operation."""
        return OPERATIONS[self.op]

    @property
    def role(self) -> Role:
        """What it does to spikes."""
        return self.operation.role_of(self)

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs whose values count."""
        return self.operation.reads(self)


Fire = Callable[[Node, Wave, bool], Wave]
"""What a neuron does with its current; told whether it is the last to read it and so may overwrite it."""


@dataclass(frozen=True)
class Graph:
    """A body.

    Attributes:
        nodes: Operations in order; the last is the output neuron.
        weights: Weight and bias by the name that nodes give.
        raw: Functions of the ``raw`` nodes by name: operations on the image before any weight.
        channels: Channels of the image; None where neither the network nor its first convolution says.
        signed: Names of signed neurons: the output, where the body does not end in a ReLU.
        quantisers: Clip level and number of steps of neurons that bring them from training (QCFS), by name.
        multiple: Heights and widths are rounded up to multiples of this, as the network pads its images.
        scalings: Operations that folding put in, which the conventional network does not have.
        origin: One (place, operation, fate) per operation of the traced module; fate is converted, kept, folded, or
            rewritten, and as what.
        shares: Of weighted operations that rewriting put in (0) or made wider, the share of their multiplications that
            the conventional network has.
    """

    nodes: tuple[Node, ...]
    weights: Weights
    raw: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    channels: int | None = None
    signed: frozenset[str] = frozenset()
    quantisers: Mapping[str, tuple[Tensor, int]] = field(default_factory=dict)
    multiple: int = 1
    scalings: frozenset[str] = frozenset()
    origin: tuple[tuple[str, str, str], ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def neurons(self) -> tuple[str, ...]:
        """Names of the neurons, in order."""
        return tuple(node.name for node in self.nodes if node.role == "neuron")

    def weight(self, node: Node) -> Tensor | None:
        """A node's weight, if it has one."""
        return None if node.weights is None else self.weights[node.weights][0]

    def each(self, visit: Callable[[Node, list[T]], T]) -> dict[str, T]:
        """Something of every wire, from the same of what its node reads."""
        found: dict[str, T] = {}
        for node in self.nodes:
            found[node.name] = visit(node, [found[name] for name in node.inputs])
        return found

    def walk(self, visit: Callable[[Node, list[T], bool], T]) -> T:
        """Value of the last node; each value is dropped after its last reader, which is told so."""
        last_reader = {name: i for i, node in enumerate(self.nodes) for name in node.inputs}
        values: dict[str, T] = {}
        for i, node in enumerate(self.nodes):
            inputs = [values[name] for name in node.inputs]
            spent = {name for name in node.inputs if last_reader[name] == i}
            for name in spent:
                del values[name]
            value = values[node.name] = visit(node, inputs, bool(spent))
        return value

    def run(self, image: Tensor, fire: Fire, linear: Callable[[Node, Sequence[Wave]], Wave] | None = None) -> Wave:
        """Value of the last node.

        Args:
            image: Input of the body.
            fire: What a neuron does.
            linear: What a linear operation does; :meth:`linear` unless given.

        Shape:
            ``image``: (B, C, H, W).
        """
        return self.walk(lambda node, inputs, owned: self.step(node, inputs, owned, image, fire, linear))

    def step(
        self,
        node: Node,
        inputs: Sequence[Wave],
        owned: bool,
        image: Tensor,
        fire: Fire,
        linear: Callable[[Node, Sequence[Wave]], Wave] | None = None,
    ) -> Wave:
        """Value of one node, see :meth:`run`."""
        if node.role == "neuron":
            return fire(node, inputs[0], owned)
        if node.role != "source":
            return (linear or self.linear)(node, inputs)
        function = self.raw.get(node.name)
        return Wave(None, image if function is None else function(*(wave.constant for wave in inputs)))

    def linear(self, node: Node, inputs: Sequence[Wave]) -> Wave:
        """One linear operation on both parts of its inputs."""
        weight, bias = (None, None) if node.weights is None else self.weights[node.weights]
        spikes = spiking_part(node, inputs, weight)
        constant = constant_part(node, inputs, weight)
        if bias is not None:
            shift = bias.view(1, -1, 1, 1)
            if constant is None:
                assert spikes is not None
                constant = shift.expand(1, spikes.shape[2], 1, 1)  # one number for all channels is a (1, C, 1, 1) too
            else:
                constant = constant + shift.to(constant.dtype)
        return Wave(spikes, constant)

    def activate(self, node: Node, current: Wave, owned: bool = False) -> Wave:
        """What a neuron stands for in the conventional network: a ReLU, or nothing where it is signed."""
        assert current.constant is not None
        return current if node.name in self.signed else Wave(None, torch.relu(current.constant))

    def shapes(self, size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
        """Shape (C, H, W) of every node's output, without computing it.

        Args:
            size: Height and width of the image, rounded up to multiples of :attr:`multiple`; unless given, 64 pixels a
                side, or more if strides ask for it.

        Raises:
            InputError: No size is given, and the network runs at none of those that are tried.
        """
        if size is not None:
            rows, columns = (side + -side % self.multiple for side in size)
            return self._shapes((rows, columns))
        for side in _SIDES:
            try:
                return self._shapes((side, side))
            except RuntimeError as error:  # branches that do not meet
                refused = error
        raise InputError(f"the network takes no image of {', '.join(map(str, _SIDES))} pixels a side ({refused})")

    def _shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        assert self.channels is not None
        image = (self.channels, *size)
        dtype = next((weight.dtype for weight, _ in self.weights.values()), torch.get_default_dtype())

        def shape(node: Node, inputs: list[tuple[int, ...]]) -> tuple[int, ...]:
            if node.role == "source":
                # a function of the user's own holds tensors of its own, so it is run for real
                function = self.raw.get(node.name)
                blank = (torch.zeros(1, *one, dtype=dtype) for one in inputs)
                return image if function is None else tuple(function(*blank).shape[1:])
            if node.role == "neuron":
                return inputs[0]
            weight = self.weight(node)
            return node.operation.shape(node, inputs, () if weight is None else weight.shape)

        return self.each(shape)

    def reaches(self) -> dict[str, tuple[Reach, Reach]]:
        """What a pixel of every wire depends on, along rows and columns.

        Raises:
            TilingError: A function of the user's own on the image, an operation with a fixed size or a position
                counted from an end, circular padding.
        """

        def visit(node: Node, inputs: list[tuple[Reach, Reach]]) -> tuple[Reach, Reach]:
            weight, read = self.weight(node), list(zip(*inputs, strict=True)) or [(Reach(),), (Reach(),)]
            kernel = () if weight is None else tuple(weight.shape)
            rows, columns = (node.operation.reach(node, axis, reaches, kernel) for axis, reaches in enumerate(read))
            return rows, columns

        return self.each(visit)

    def stride(self, reaches: Mapping[str, tuple[Reach, Reach]]) -> int:
        """Pixels by which an image must move for the answers to move with it; its sides are padded to multiples.

        Args:
            reaches: From :meth:`reaches`.
        """
        steps = [reach.stride for both in reaches.values() for reach in both]
        for node in self.nodes:  # what a network pads by itself falls on multiples that it leaves alone
            for reach, multiple in zip(reaches[node.name], node.operation.multiples(node), strict=True):
                steps.append(reach.stride * multiple)
        return math.lcm(*(step.numerator for step in steps))

    def carried(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Carried]:
        """What every wire carries.

        Where a weighted operation reads spikes alone it is driven by them: padding, cropping and nearest-neighbour
        resizing move spikes, other resizing weighs them.

        Args:
            shapes: From :meth:`shapes`.
        """

        def visit(node: Node, inputs: list[Carried]) -> Carried:
            channels = shapes[node.name][0]
            no = torch.zeros(channels, dtype=torch.bool)
            if node.role == "source":
                return Carried(~no, no, no)
            if node.role == "neuron":
                return Carried(no, ~no, no)
            if node.role == "moves":
                merged = (node.operation.per_channel(node, part, _any, _any) for part in zip(*inputs, strict=True))
                return Carried(*merged)
            read = inputs[0]
            groups = node.operation.groups(node, len(read.image))
            image, analog = (
                flags.view(groups, -1).any(1).repeat_interleave(channels // groups)
                for flags in (read.image, read.spikes | read.analog)
            )
            return Carried(image, no, analog)

        return self.each(visit)

    def analog_operations(self) -> tuple[str, ...]:
        """Weighted operations that read analog sums rather than spikes, and so cost multiply-accumulates."""
        carried = self.carried(self.shapes())
        weighing = (node for node in self.nodes if node.role == "weighs")
        return tuple(node.name for node in weighing if carried[node.inputs[0]].analog.any())

    def on_image(self) -> frozenset[str]:
        """Nodes that read the image alone, as it is or before its first weights."""
        image: set[str] = set()
        found: set[str] = set()
        for node in self.nodes:
            if image.issuperset(node.inputs):
                found.add(node.name)
                if node.operation.keeps_image:
                    image.add(node.name)
        return frozenset(found)

    def currents(self, channels: Mapping[str, int]) -> dict[str, str]:
        """The one neuron that a weighted operation, a sum, a pixel shuffle or a crop feeds, by the operation's name.

        ``I_l = sum over branches k of W_lk s_k + b_l`` (docs/method.md, section 1): the branches are weighted
        operations, and other wires, which are not listed; the sums and differences between them and the neuron are.

        Args:
            channels: Channels of every node's output; a sum that repeats a channel is not listed.
        """
        by_name = {node.name: node for node in self.nodes}
        readers = Counter(name for node in self.nodes for name in node.inputs)
        found: dict[str, str] = {}

        def visit(name: str, neuron: str) -> None:
            node = by_name[name]
            if readers[name] > 1:
                return
            if node.operation.cuts or node.operation.merges:
                found[name] = neuron
                visit(node.inputs[0], neuron)
            elif node.operation.sums and all(channels[part] == channels[name] for part in node.inputs):
                found[name] = neuron
                for part in node.inputs:
                    visit(part, neuron)
            elif node.weights is not None:
                found[name] = neuron

        for name in self.neurons:
            visit(by_name[name].inputs[0], name)
        return found


def _any(parts: Tensor) -> Tensor:
    return parts.any(-1)


def spiking_part(node: Node, inputs: Sequence[Wave], weight: Tensor | None) -> Tensor | None:
    """The operation on the spiking parts of its inputs, time steps as batch; None where there is none."""
    read = inputs[: len(node.reads)]  # of the others the size alone counts
    present = next((value.spikes for value in read if value.spikes is not None), None)
    if present is None:
        return None
    steps, batch = present.shape[:2]
    flat = []
    for value in inputs:
        if value.spikes is not None:
            flat.append(value.spikes.flatten(0, 1))
        else:
            assert value.constant is not None
            size = (1, 1, 1, *value.constant.shape)[-3:]  # of a number or a vector, too
            flat.append(present.new_zeros(()).expand(steps * batch, *size))
    joined = node.operation.run(node, flat, weight)
    return joined.view(steps, batch, *joined.shape[1:])


def constant_part(node: Node, inputs: Sequence[Wave], weight: Tensor | None) -> Tensor | None:
    """The operation on the constant parts of its inputs; None where there is none."""
    read = inputs[: len(node.reads)]  # of the others the size alone counts
    if all(value.constant is None for value in read):
        return None
    uniform = node.operation.pointwise and all(value.spikes is not None for value in inputs)
    uniform = uniform and all(value.constant is None or _is_uniform(value.constant) for value in inputs)
    parts = []
    for value in inputs:
        part = value.constant
        if value.spikes is not None:
            part = value.spikes.new_zeros(1, value.spikes.shape[2], 1, 1) if part is None else part
            part = part if uniform else part.expand(value.spikes.shape[1:])
        assert part is not None
        parts.append(part)
    return node.operation.run(node, parts, weight)


def _is_uniform(constant: Tensor) -> bool:
    """Whether a constant stands for all pixels of all images: ``(1, C, 1, 1)``, as a bias does."""
    return constant.shape[0] == 1 and constant.shape[-2:] == (1, 1)
