"""From a module to its graph: torch.fx tracing, exact rewrites, batch-norm folding, refusal of what is not linear."""

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikingir.errors import InputError
from spikingir.graph.activations import QuantisedReLU, Smooth
from spikingir.graph.errors import ConversionError, NotLinear
from spikingir.graph.graph import Graph, Node
from spikingir.graph.operations import (
    OPERATIONS,
    PLAIN,
    Affine,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Input,
    Interpolate,
    Neuron,
    Operation,
    Pad,
    Raw,
    Slice,
)
from spikingir.graph.rewrites import REWRITES, SIZED, advice
from spikingir.graph.sizes import Size, Traces, attribute, traces

_TAKEN = frozenset(dir(nn.ModuleDict) + dir(nn.ParameterDict))
_CHECKED: tuple[Size, ...] = ((24, 32), (33, 47), (40, 37), (64, 96), (63, 70), (127, 95))
_CHECKS = 3
_MOST_BRANCHES = 8
"""Summed branches that a convolution reads one by one; of more it reads the sum."""


def trace_body(body: nn.Module, channels: int | None = None, smooth: Smooth | None = None) -> Graph:
    """Trace a body to its graph.

    Args:
        body: Convolutional network in eval mode; its parameters are copied, not shared.
        channels: Channels of its image, if they are known.
        smooth: How smooth activations are replaced by straight pieces; they are refused without.

    Raises:
        ConversionError: It cannot be traced, or holds an operation that a spiking network cannot do.
    """
    with traces(body, channels) as found:
        graph = Builder(body, found, smooth).build()
        if found.reads_sizes and not graph.quantisers and (smooth is None or not smooth.replaced):
            assert found.channels is not None
            _check_other_sizes(body, graph, found.channels)
    return graph


@torch.no_grad()
def _check_other_sizes(body: nn.Module, graph: Graph, channels: int) -> None:
    """Whether a graph gives what its body gives at a few sizes that the body takes.

    Raises:
        ConversionError: It does not.
    """
    dtype = next(weight.dtype for weight, _ in graph.weights.values())
    generator = torch.Generator().manual_seed(0)
    checked = 0
    for size in _CHECKED:
        image = torch.rand(1, channels, *size, generator=generator, dtype=dtype)
        try:
            expected = body(image.clone())
        except RuntimeError:  # it takes no image of this size
            continue
        try:
            given = graph.run(image, graph.activate).constant
        except RuntimeError:
            given = None
        same = given is not None and given.shape == expected.shape
        if not same or (given - expected).abs().max() > 1e-3 * expected.square().mean().sqrt().clamp_min(1e-6):
            raise ConversionError(
                f"the trace of {type(body).__name__} does not give what the network gives on an image of {size[0]} x "
                f"{size[1]} pixels: it computes with sizes in a way that is neither a padding to a multiple, a crop "
                "nor a resizing to the size of another feature map, or branches on them; do that outside of the "
                "network that you convert"
            )
        checked += 1
        if checked == _CHECKS:
            return


def graph_of(network: nn.Module, channels: int | None = None) -> Graph:
    """The graph of a network.

    Args:
        network: A spiking or folded network, which has one; a body or restoration network, which is traced.
        channels: Channels of the image, where the network does not say.

    Raises:
        InputError: The number of channels is not known.
        ConversionError: The body cannot be traced.
    """
    own = getattr(network, "graph", None)
    if isinstance(own, Graph):
        return own
    if channels is None:
        given: int | None = getattr(network, "channels", None)
        channels = None if given is None else given + getattr(network, "takes_level", False)
    if channels is None:
        raise InputError(f"a {type(network).__name__} does not say how many channels its image has; pass channels")
    graph = trace_body(copy.deepcopy(getattr(network, "body", network)).eval(), channels)
    return replace(graph, channels=channels, multiple=getattr(network, "multiple", 1))


@dataclass(frozen=True)
class Value:
    """What an fx node stands for: a feature map or a constant tensor, and its fate.

    Attributes:
        name: The wire that carries the map.
        constant: The constant.
        fate: What became of the operation: converted, kept, folded, or rewritten, and as what.
        mix: Of a mixture of the wire's channels: channel c of the map is the sum of ``mix[c, p]`` times channel p of
            the wire. A convolution that reads it takes it into its weights, so that it reads the wire itself: spikes.
        branches: Of a sum or difference of two maps: its sign, and both.
        several: What gives several results, of which an index takes one.
        halves: Of such a wire, where the map grows with each of its channels (1) or falls with it (-1).
        bounds: First and last channel of each part that the map is split into.
    """

    name: str | None = None
    constant: Tensor | None = None
    fate: str = "kept"
    mix: Tensor | None = None
    halves: Tensor | None = None
    branches: tuple[int, fx.Node, fx.Node] | None = None
    several: fx.Node | None = None
    bounds: tuple[tuple[int, int], ...] = ()

    @property
    def wire(self) -> str:
        """The wire."""
        assert self.name is not None
        return self.name


class Builder:
    """A body under construction, node by node.

    Args:
        body: The module that was traced.
        found: Its traces.
        smooth: How smooth activations are replaced, if at all.

    Attributes:
        values: What each fx node met so far stands for.
        nodes: Operations so far, by name.
        weights: Weight and bias by name.
        image: Names of the wires that hold the raw image, or what was made of it before any weight.
        quantisers: Clip level and number of steps of the neurons that bring them.
        shares: Of operations that rewriting put in or made wider, the share that the conventional network computes.
    """

    def __init__(self, body: nn.Module, found: Traces, smooth: Smooth | None = None) -> None:
        self.traces = found
        self.smooth = smooth
        self.modules = dict(body.named_modules())
        self.body = body
        self.dtype = next((p.dtype for p in body.parameters() if p.is_floating_point()), torch.get_default_dtype())
        self.values: dict[fx.Node, Value] = {}
        self.nodes: dict[str, Node] = {}
        self.weights: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.owners: dict[int, str] = {}
        self.raw: dict[str, Callable[..., Tensor]] = {}
        self.image: set[str] = set()
        self.quantisers: dict[str, tuple[Tensor, int]] = {}
        self.origin: list[tuple[str, str, str]] = []
        self.shares: dict[str, float] = {}
        self._unmixed: dict[tuple[str, bytes], str] = {}

    def build(self) -> Graph:
        """Go through the trace in order.

        Raises:
            ConversionError: An operation is refused, or the weights are not finite.
        """
        result: str | None = None
        for node in self.traces.main.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "get_attr":
                self.values[node] = Value(constant=_attribute(self.body, str(node.target)))
            elif node.op == "output":
                result = self._output(node)
            else:
                self._operation(node)
        assert result is not None
        if result in self.image:
            raise ConversionError(f"{type(self.body).__name__} has no convolution between its input and its output")
        signed = set()
        if self.nodes[result].role != "neuron":
            signed.add(str(self.add("output", Neuron.name, (result,)).name))
            self.origin.append(("output", "output", "converted"))
        elif list(self.nodes)[-1] != result:  # the interpreter reads the image off the last node
            self.nodes[result] = self.nodes.pop(result)
        self._prune()
        for name, tensors in self.weights.items():
            for tensor in tensors:
                if tensor is not None and not torch.isfinite(tensor).all():
                    raise ConversionError(
                        f"the weights of '{name}' hold NaN or infinite values; load a sound checkpoint"
                    )
        return Graph(
            nodes=tuple(self.nodes.values()),
            weights=self.weights,
            raw=self.raw,
            channels=self._channels(),
            signed=frozenset(signed),
            quantisers=self.quantisers,
            origin=tuple(self.origin),
            shares=self.shares,
        )

    def _prune(self) -> None:
        """Take out what the last node does not need: sums whose branches are read one by one."""
        needed: set[str] = set()
        for name, node in reversed(list(self.nodes.items())):
            if name in needed or not needed or node.op == Input.name:
                needed |= {name, *node.inputs}
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}
        kept = {node.weights for node in self.nodes.values()}
        self.weights = {name: both for name, both in self.weights.items() if name in kept}
        self.raw = {name: function for name, function in self.raw.items() if name in needed}
        self.shares = {name: share for name, share in self.shares.items() if name in needed}

    def _channels(self) -> int | None:
        """Channels of the image: those that the first convolution reads, if it reads the image itself."""
        image = next(iter(self.nodes))
        for node in self.nodes.values():
            if node.op == Conv2d.name and node.inputs == (image,):
                assert node.weights is not None
                return self.weights[node.weights][0].shape[1] * int(node.options["groups"])
        return None

    def _placeholder(self, node: fx.Node) -> None:
        if self.image:
            if node.args and not node.users:  # it has a default and nothing reads it
                return
            raise ConversionError(f"the body takes a second argument '{node.name}'; a body reads the image alone")
        self.values[node] = self.add(node.name, Input.name, ())
        self.image.add(self.wire(node))

    def _output(self, node: fx.Node) -> str:
        value = node.args[0]
        if not isinstance(value, fx.Node) or self.values[value].name is None:
            raise ConversionError("the body must return one tensor")
        return self.wire(value)

    def _operation(self, node: fx.Node) -> None:
        whole = self.values.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        if whole is not None and whole.several is not None:
            self.values[node] = self.keep_raw(whole.several, int(node.args[1]))  # type: ignore[arg-type]
            return
        place, what, handler = self._handler(node)
        for it in self.traces.variants(node):
            if not it.args and "input" in it.kwargs:
                rest = dict(it.kwargs)
                it.args = (rest.pop("input"),)
                it.kwargs = rest
        readers = [self.values[n] for n in node.all_input_nodes]
        if readers and all(v.constant is not None for v in readers):
            self.values[node] = Value(constant=self.call(node)())
            return
        on_image = all(v.name in self.image for v in readers if v.constant is None)
        as_it_is = on_image and not any(v.bounds for v in readers)
        try:
            value = self._handled(node, handler, as_it_is)
        except ConversionError as error:
            raise ConversionError(f"cannot convert '{what}' at '{place}': {error}") from None
        self.values[node] = value
        self.origin.append((place, what, value.fate))
        if on_image and value.name is not None and self.nodes[value.name].operation.keeps_image:
            self.image.add(value.name)

    def _handled(self, node: fx.Node, handler: "Handler | None", as_it_is: bool) -> Value:
        if self.traces.varies(node) and handler not in _READ_SIZES:
            raise ConversionError(
                "its settings follow from the size of the image, and are no padding to a multiple, no crop and no "
                "resizing to the size of another feature map; use fixed ones"
            )
        if handler is None and as_it_is:
            if self._reads_parameters(node):
                raise ConversionError(
                    "it has weights of its own, whose cost nobody would count; put an nn.Conv2d or nn.ConvTranspose2d "
                    "in its place (parametrizations such as a weight norm: "
                    "torch.nn.utils.parametrize.remove_parametrizations)"
                )
            return self.keep_raw(node)
        if handler is None:
            raise ConversionError(advice(self.module(node), node.target))
        try:
            return handler(self, node)
        except NotLinear:
            if not as_it_is or self.traces.varies(node):
                raise
            return self.keep_raw(node)

    def _reads_parameters(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return any(True for _ in self.modules[str(node.target)].parameters())
        parameters = dict(self.body.named_parameters())
        return any(n.op == "get_attr" and n.target in parameters for n in node.all_input_nodes)

    def _handler(self, node: fx.Node) -> tuple[str, str, "Handler | None"]:
        module = self.module(node)
        if module is not None:
            kind = QuantisedReLU if isinstance(module, QuantisedReLU) else type(module)
            return str(node.target), type(module).__name__, HANDLERS.get(kind)
        what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        within = stack[-1][0] if stack else ""
        return f"{within}.{node.name}" if within else node.name, what, HANDLERS.get(node.target)

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if it calls one."""
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def argument(self, node: fx.Node, position: int, name: str, default: Any) -> Any:
        """An argument of a function or method."""
        return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)

    def settings(self, node: fx.Node, **defaults: Any) -> list[Any]:
        """Settings of an operation after its input: attributes of a module, arguments of a function in this order."""
        module = self.module(node)
        if module is not None:
            return [getattr(module, name, default) for name, default in defaults.items()]
        return [self.argument(node, i, name, default) for i, (name, default) in enumerate(defaults.items(), 1)]

    def constant(self, argument: Any) -> Tensor | None:
        """A weight that is a parameter, if there is one."""
        if argument is None or isinstance(argument, Tensor):
            return argument
        value = self.values[argument].constant if isinstance(argument, fx.Node) else None
        if value is None:
            raise ConversionError("its weights are computed in forward; expected parameters")
        return value

    def per_channel(self, value: Any) -> Tensor:
        """A number, or a constant that is the same at every pixel, as a vector."""
        if isinstance(value, (int, float)):
            return torch.tensor([float(value)], dtype=self.dtype)
        if isinstance(value, fx.Node):
            value = self.values[value].constant
        assert isinstance(value, Tensor)
        if value.numel() == 1 or (value.dim() in (3, 4) and value.shape[-3] == value.numel()):
            return value.flatten().to(self.dtype)
        raise NotLinear(f"a constant of shape {tuple(value.shape)}; expected a number or one value per channel")

    def is_wire(self, argument: Any) -> bool:
        """Whether an argument is a feature map."""
        return isinstance(argument, fx.Node) and self.values[argument].name is not None

    def operands(self, node: fx.Node) -> tuple[list[Any], list[bool]]:
        """The two operands, each a feature map or a constant, and which are maps."""
        found = [self.argument(node, 0, "input", None), self.argument(node, 1, "other", None)]
        return found, [self.is_wire(operand) for operand in found]

    def mixed(self, argument: Any) -> Value:
        """The feature map that an argument stands for, as a mixture of a wire's channels where it is one."""
        value = self.values.get(argument) if isinstance(argument, fx.Node) else None
        if value is None or value.name is None or value.bounds:
            raise ConversionError(f"expected a feature map where {argument!r} stands")
        return replace(value, fate="kept")

    def wire(self, argument: Any) -> str:
        """Name of the wire that carries the feature map that an argument stands for."""
        return self.unmixed(self.mixed(argument))

    def unmixed(self, value: Value, bias: Tensor | None = None) -> str:
        """The wire of a map; a mixture gets one of its own, by a convolution of one pixel."""
        if value.mix is None:
            return value.wire
        key = (value.wire, value.mix.numpy().tobytes())
        if bias is not None or key not in self._unmixed:
            kernel = value.mix[:, :, None, None].to(self.dtype)
            name = f"{value.wire}_mix"
            made = self.add(name, Conv2d.name, (value.wire,), self.register(name, None, kernel, bias), **PLAIN)
            self.shares[made.wire] = 0.0
            if bias is not None:
                return made.wire
            self._unmixed[key] = made.wire
        return self._unmixed[key]

    def convolve(
        self,
        node: fx.Node,
        operation: Conv2d | ConvTranspose2d,
        source: Value,
        weight: Tensor,
        bias: Tensor | None,
        options: dict[str, Any],
    ) -> Value:
        """Add a convolution; of a mixture, one of the channels that it is made of."""
        if source.mix is None or options["groups"] > 1:
            weights = self.register(node.name, self.module(node), weight, bias)
            return self.add(node.name, operation.name, (self.unmixed(source),), weights, **options)
        wide = operation.mixed(weight.double(), source.mix).to(weight.dtype)
        weights = self.register(node.name, None, wide, bias)
        made = self.add(node.name, operation.name, (source.wire,), weights, **options)
        self.shares[made.wire] = source.mix.shape[0] / source.mix.shape[1]
        return made

    def spread(self, argument: Any) -> Value:
        """The feature map that an argument stands for, for a convolution; a sum of spikes as a mixture of all of them.

        So the convolution reads spikes, with its weights once for each of them, and not their sums.
        """
        value = self.mixed(argument)
        if value.mix is not None or value.branches is None or not self._spreads(argument):
            return value
        name = f"{value.wire}_branches"
        sign, *both = value.branches
        parts = [self.spread(it) for it in both]
        first, second = (self._mix(part, it) for part, it in zip(parts, both, strict=True))
        if len(first) != len(second) or first.shape[1] + second.shape[1] > _MOST_BRANCHES * len(first):
            return value
        if name not in self.nodes:
            self.add(name, Concat.name, tuple(part.wire for part in parts))
        return Value(name=name, mix=torch.cat([first, sign * second], 1))

    def _spreads(self, argument: Any) -> bool:
        """Whether a map is made of spikes by sums alone."""
        value = self.values[argument]
        if value.mix is None and value.branches is not None:
            return all(self._spreads(it) for it in value.branches[1:])
        return value.wire not in self.image and self.of_spikes(value.wire)

    def side_by_side(self, arguments: Sequence[Any], values: Sequence[Value]) -> Tensor | None:
        """The mixture that several maps side by side are; None where none of them is one."""
        if all(value.mix is None for value in values):
            return None
        mixes = [self._mix(value, argument) for value, argument in zip(values, arguments, strict=True)]
        joined: Tensor = torch.block_diag(*mixes)  # type: ignore[no-untyped-call]
        return joined

    def used(self, node: fx.Node, value: Value) -> Value:
        """A mixture without the channels that it does not use."""
        assert value.mix is not None
        kept = (value.mix != 0).any(0).tolist()
        ends = [i for i in range(len(kept) + 1) if (i > 0 and kept[i - 1]) != (i < len(kept) and kept[i])]
        spans = list(zip(ends[::2], ends[1::2], strict=True))
        if len(spans) == 1 and spans[0] == (0, len(kept)):
            return value
        every: Any = [None] * 3
        parts = [
            self.add(f"{node.name}_part", Slice.name, (value.wire,), channels=[*span, None], rows=every, columns=every)
            for span in spans
        ]
        wires = tuple(part.wire for part in parts)
        joined = parts[0] if len(parts) == 1 else self.add(f"{node.name}_parts", Concat.name, wires)
        return replace(joined, mix=value.mix[:, torch.tensor(kept)])

    def _mix(self, value: Value, argument: Any) -> Tensor:
        if value.mix is not None:
            return value.mix
        channels = self.channels(argument) if self.is_wire(argument) else len(self.constant_of_map(argument))
        return torch.eye(channels, dtype=torch.float64)

    def channels(self, argument: Any) -> int:
        """Channels of the feature map that an argument stands for.

        Raises:
            ConversionError: They are not known.
        """
        return int(self.shapes(argument)[0][1])

    def shapes(self, argument: Any) -> list[torch.Size]:
        """Shape of a feature map at each size that the body was traced at.

        Raises:
            ConversionError: It is not known.
        """
        found = self.traces.shapes(argument)
        if found is None or any(len(shape) != 4 for shape in found):
            raise ConversionError(
                "the size of what it reads is not known, as the network ran at none of the sizes that were tried"
            )
        return found

    def sizes(self, argument: Any) -> list[Size]:
        """Height and width of a feature map at each size."""
        return [(int(shape[2]), int(shape[3])) for shape in self.shapes(argument)]

    def like(self, wanted: Sequence[Size], does: str) -> str:
        """A wire of these sizes."""
        return self.like_times(wanted, does, (1,))[0]

    def like_times(self, wanted: Sequence[Size], does: str, scales: Sequence[int] = (1, 2, 3, 4, 8)) -> tuple[str, int]:
        """A wire of these sizes or of ones that are a few times smaller, the image before all others; how many times.

        Raises:
            NotLinear: There is none.
        """
        known = [node for node, value in self.values.items() if value.name is not None and not value.bounds]
        for scale in scales:
            for node in (*known[:1], *reversed(known[1:])):
                if (shapes := self.traces.shapes(node)) is not None and all(
                    shape[2:] == (height / scale, width / scale)
                    for shape, (height, width) in zip(shapes, wanted, strict=True)
                ):
                    return self.values[node].wire, scale
        raise NotLinear(
            f"it {does} to a size that is computed, and that no feature map before it has; use a scale factor, a "
            "padding to a multiple, or the size of another feature map"
        )

    def constant_of_map(self, argument: Any) -> Tensor:
        """Of a constant that is the same at every pixel of every size, its number for each channel.

        Raises:
            NotLinear: It is none.
        """
        found = [self.traces.constants[it] for it in self.traces.variants(argument) if it in self.traces.constants]
        if (constant := self.values[argument].constant) is not None and not found:
            found = [constant]
        if found and found[0].dim() == 4 and len(found[0]) == 1:
            each = found[0][0, :, 0, 0]
            if all(torch.equal(it, each.view(1, -1, 1, 1).expand_as(it)) for it in found):
                return each
        raise NotLinear("a constant of its own at each pixel; expected one for each channel")

    def constant_map(self, node: fx.Node, argument: Any, like: str) -> Value:
        """A map that is the same at every pixel, of the size of another one."""
        each = self.constant_of_map(argument)
        one = self.add(
            f"{node.name}_level", Slice.name, (like,), channels=[0, 1, None], rows=[None] * 3, columns=[None] * 3
        )
        name = f"{node.name}_constant"
        weights = self.register(name, None, each.new_zeros(len(each), 1, 1, 1).to(self.dtype), each.to(self.dtype))
        made = self.add(name, Conv2d.name, (one.wire,), weights, **PLAIN)
        self.shares[made.wire] = 0.0
        return made

    def of_spikes(self, name: str) -> bool:
        """Whether a wire carries spikes or the image, as they are or moved, and no sums."""
        node = self.nodes[name]
        if node.role in ("neuron", "source"):
            return True
        return node.role == "moves" and not node.operation.sums and all(self.of_spikes(read) for read in node.reads)

    def nonnegative(self, name: str) -> bool:
        """Whether a wire carries no number below zero, whatever the image."""
        node = self.nodes[name]
        if node.role == "neuron":
            return True
        if node.role == "source" or node.op == "sub" or node.options.get("mode") == "bicubic":
            return False
        if node.weights is not None:
            weight, bias = self.weights[node.weights]
            if bool((weight < 0).any()) or (bias is not None and bool((bias < 0).any())):
                return False
        return all(self.nonnegative(read) for read in node.reads)

    def relu(self, name: str, source: str) -> str:
        """A layer of neurons; what fires already stays as it is."""
        return source if self.nodes[source].role == "neuron" else self.add(name, Neuron.name, (source,)).wire

    def scaled(self, name: str, source: str, gain: Tensor, shift: float = 0.0) -> str:
        """``gain x + shift``."""
        offset = None if shift == 0 else torch.full_like(gain, shift)
        weights = self.register(name, None, gain.to(self.dtype), None if offset is None else offset.to(self.dtype))
        made = self.add(name, Affine.name, (source,), weights)
        self.shares[made.wire] = 0.0
        return made.wire

    def shifted(self, name: str, source: str, sign: int, shift: float) -> str:
        """``sign x + shift``: where ``x`` sums spikes, a current of its own of the same spikes."""
        if sign == 1 and shift == 0:
            return source
        return self._copied(name, source, sign, shift) or self.scaled(
            name, source, torch.full((1,), float(sign), dtype=self.dtype), shift
        )

    def _copied(self, name: str, source: str, sign: int, shift: float) -> str | None:
        """A copy of the operations that sum spikes to a wire; None where they sum anything else."""
        node = self.nodes[source]
        if node.weights is not None and self.of_spikes(node.inputs[0]):
            weight, bias = self.weights[node.weights]
            channels = self.outputs(node, weight)
            moved = weight.new_zeros(channels) if bias is None else sign * bias.expand(channels)
            offset = None if bias is None and shift == 0 else moved + shift
            weights = self.register(name, None, sign * weight, offset)
            made = self.add(name, node.op, node.inputs, weights, **node.options)
        elif node.operation.merges and (below := self._copied(name, node.inputs[0], sign, shift)):
            made = self.add(f"{name}_moved", node.op, (below,), **node.options)
        elif node.operation.sums:
            first = int(self.nodes[node.inputs[0]].weights is None)  # the one to copy is one with weights
            of_second = -1 if node.op == "sub" else 1
            signs = (sign, sign * of_second)
            below = self._copied(name, node.inputs[first], signs[first], shift)
            rest = node.inputs[1 - first]
            plain = self.nodes[rest].weights is not None or self.nodes[rest].operation.sums
            if below is None:
                return None
            if plain and (copied := self._copied(f"{name}_part", rest, 1, 0.0)) is not None:
                rest = copied
            op = "add" if signs[1 - first] == 1 else "sub"
            made = self.add(f"{name}_sum", op, (below, rest))
        else:
            return None
        self.shares[made.wire] = 0.0
        return made.wire

    def outputs(self, node: Node, weight: Tensor) -> int:
        """Output channels of a weighted operation."""
        return len(weight) if node.op != ConvTranspose2d.name else weight.shape[1] * int(node.options["groups"])

    def before_neurons(self, node: fx.Node, operation: Operation, **options: Any) -> Value | None:
        """Put an operation before the neurons that it reads; None where it cannot be, or where they are read again."""
        source = self.mixed(node.args[0])
        name = source.wire
        fires = self.nodes[name].role == "neuron" and source.mix is None and name not in self.quantisers
        if not fires or not self._alone(node, name) or sum(name in it.inputs for it in self.nodes.values()):
            return None
        neuron = self.nodes.pop(name)
        for it in [it for it, value in self.values.items() if value.name == name]:
            self.values[it] = Value()  # nobody reads it, and it has another size from here on
        moved = self.add(node.name, operation.name, neuron.inputs, **options)
        return self.add(name, Neuron.name, (moved.wire,))

    def value(self, name: str, mix: Tensor | None) -> Value:
        """A feature map on a wire."""
        return Value(name=name, mix=mix)

    def add(self, name: str, op: str, inputs: tuple[str, ...], weights: str | None = None, **options: Any) -> Value:
        """Add a node; its name is made unique."""
        while name in self.nodes or name in _TAKEN:
            name += "_"
        self.nodes[name] = Node(name, op, inputs, options, weights)
        return Value(name=name)

    def keep_raw(self, node: fx.Node, of_several: int | None = None) -> Value:
        """Keep an operation on the raw image as it is; of one with several results, each that is read."""
        if of_several is None and any(_takes_one(user) for user in node.users):
            return Value(several=node)
        value = self.add(node.name, Raw.name, tuple(self.wire(n) for n in node.all_input_nodes if self.values[n].name))
        name = str(value.name)
        self.raw[name] = self.call(node, of_several)
        self.image.add(name)
        return value

    def call(self, node: fx.Node, of_several: int | None = None) -> Callable[..., Tensor]:
        """The operation itself, as a function of the wires that it reads; or one of its several results."""
        wires = [n for n in node.all_input_nodes if self.values[n].name]
        constants = {n: self.values[n].constant for n in node.all_input_nodes}
        module = self.module(node)

        def run(*images: Tensor) -> Tensor:
            # copies, so that an operation that writes in place leaves the caller's image alone
            wired = {n: image.clone() for n, image in zip(wires, images, strict=True)}

            def fill(n: fx.Node) -> Any:
                constant = constants[n]
                if constant is None:
                    return wired[n]
                return constant.to(images[0].device) if images else constant

            args, kwargs = fx.map_arg(node.args, fill), fx.map_arg(node.kwargs, fill)
            if module is not None:
                result = module(*args, **kwargs)
            elif node.op == "call_method":
                result = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            else:
                assert callable(node.target)
                result = node.target(*args, **kwargs)
            result = result if of_several is None else result[of_several]
            if not isinstance(result, Tensor):
                raise ConversionError(f"'{node.name}' gives a {type(result).__name__}; expected one tensor")
            return result

        return run

    def fold_into(self, node: fx.Node, source: str, gain: Tensor, shift: Tensor) -> Value | None:
        """Fold a scaling into the convolution that it reads; None where something else reads that one too."""
        below = self.nodes[source]
        key, operation = below.weights, below.operation
        if key is None or operation.keeps_image or not self._alone(node, source) or source in self._unmixed.values():
            return None
        grouped = below.op == ConvTranspose2d.name and below.options["groups"] > 1
        if grouped or sum(other.weights == key for other in self.nodes.values()) > 1:
            return None
        weight, bias = self.weights[key]
        old = 0 if bias is None else bias.double() * gain
        scaled = operation.scale_output(below, weight.double(), gain)
        self.weights[key] = (scaled.to(weight.dtype), (shift + old).to(weight.dtype))
        for owner in [k for k, v in self.owners.items() if v == key]:
            del self.owners[owner]  # a later call of the convolution alone needs its own weights
        return Value(name=source, fate="folded")

    def _alone(self, node: fx.Node, source: str) -> bool:
        """Whether ``node`` is the only reader of a wire, under whatever names identities gave it."""
        aliases = {n for n, value in self.values.items() if value.name == source}
        return {user for n in aliases for user in n.users} <= aliases | {node}

    def register(self, name: str, owner: nn.Module | None, weight: Tensor, bias: Tensor | None) -> str:
        """Register a copy of the weights; a module that is called twice keeps one."""
        if owner is not None and id(owner) in self.owners:
            return self.owners[id(owner)]
        while name in self.weights or name in _TAKEN:
            name += "_"
        self.weights[name] = (weight.detach().clone(), None if bias is None else bias.detach().clone())
        if owner is not None:
            self.owners[id(owner)] = name
        return name


def _takes_one(node: fx.Node) -> bool:
    """Whether it takes one of several results."""
    return node.target is operator.getitem and isinstance(node.args[1], int)


def _attribute(module: nn.Module, target: str) -> Tensor:
    value = attribute(module, target)
    if not isinstance(value, Tensor):
        raise ConversionError(f"attribute '{target}' is a {type(value).__name__}; expected a tensor")
    return value.detach()


Handler = Callable[[Builder, fx.Node], Value]

HANDLERS: MappingProxyType[Any, Handler] = MappingProxyType(
    {key: handler for operation in OPERATIONS.values() for key, handler in operation.handlers().items()} | REWRITES
)
"""What an operation of a module becomes, by module class, function or name of a method."""
_READ_SIZES: frozenset[Any] = frozenset(
    [*(OPERATIONS[operation.name].trace for operation in (Slice, Pad, Interpolate, Concat)), *SIZED]
)
"""Those that know what to do with settings that follow from the size."""
