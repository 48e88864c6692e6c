"""From a module to its graph: torch.fx tracing, batch-norm folding, refusal of what is not linear."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikingir.errors import InputError
from spikingir.graph.errors import ConversionError, NotLinear
from spikingir.graph.graph import Graph, Node
from spikingir.graph.operations import (
    OPERATIONS,
    Conv2d,
    ConvTranspose2d,
    Input,
    Neuron,
    QuantisedReLU,
    Raw,
)

_TAKEN = frozenset(dir(nn.ModuleDict) + dir(nn.ParameterDict))


def trace_body(body: nn.Module) -> Graph:
    """Trace a body to its graph.

    Args:
        body: Convolutional network in eval mode; its parameters are copied, not shared.

    Raises:
        ConversionError: It cannot be traced, or holds an operation that a spiking network cannot do.
    """
    try:
        graph = _Tracer().trace(body)
    except ConversionError:
        raise
    except Exception as error:  # fx raises what the body's own code raises on a proxy
        raise ConversionError(
            f"cannot trace {type(body).__name__}: {error}. Its forward must neither branch on values nor write into "
            "slices; give convert a module whose forward is a fixed sequence of operations"
        ) from error
    return Builder(body, graph).build()


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
    graph = trace_body(copy.deepcopy(getattr(network, "body", network)).eval())
    return replace(graph, channels=channels, multiple=getattr(network, "multiple", 1))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, QuantisedReLU) or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class Value:
    """What an fx node stands for: a wire (``name``), a constant tensor, or the size of a wire; and its fate."""

    name: str | None = None
    constant: Tensor | None = None
    size_of: str | None = None
    fate: str = "kept"


class Builder:
    """A body under construction, node by node.

    Args:
        body: The module that was traced.
        graph: Its trace.

    Attributes:
        values: What each fx node met so far stands for.
        nodes: Operations so far, by name.
        weights: Weight and bias by name.
        image: Names of the wires that hold the raw image, or what was made of it before any weight.
        quantisers: Clip level and number of steps of the neurons that bring them.
    """

    def __init__(self, body: nn.Module, graph: fx.Graph) -> None:
        module = fx.GraphModule(body, graph)
        module.graph.eliminate_dead_code()
        self.graph = module.graph
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

    def build(self) -> Graph:
        """Go through the trace in order.

        Raises:
            ConversionError: An operation is refused, or the weights are not finite.
        """
        result: str | None = None
        for node in self.graph.nodes:
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
        )

    def _channels(self) -> int | None:
        """Channels that the first convolution reads, if it reads the image itself."""
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
        place, what, handler = self._handler(node)
        if not node.args and "input" in node.kwargs:
            rest = dict(node.kwargs)
            node.args = (rest.pop("input"),)
            node.kwargs = rest
        readers = [self.values[n] for n in node.all_input_nodes]
        if readers and all(v.constant is not None for v in readers):
            self.values[node] = Value(constant=self.call(node)())
            return
        on_image = all(v.name in self.image for v in readers if v.constant is None and v.size_of is None)
        as_it_is = on_image and all(v.name or v.constant is not None for v in readers)
        if handler is None and as_it_is:
            if self._reads_parameters(node):
                raise ConversionError(
                    f"cannot convert '{what}' at '{place}': it has weights of its own, whose cost nobody would count; "
                    "put an nn.Conv2d or nn.ConvTranspose2d in its place (parametrizations such as a weight norm: "
                    "torch.nn.utils.parametrize.remove_parametrizations)"
                )
            self.values[node] = self.keep_raw(node)
            self.origin.append((place, what, "kept"))
            return
        if handler is None:
            raise ConversionError(
                f"cannot convert '{what}' at '{place}': between spiking neurons only linear operations that act on "
                "each time step alone can stand (convolution, padding, sum, concatenation, slicing, average pooling, "
                "pixel shuffle, resizing, scaling), and ReLU; replace it or leave it out of the body"
            )
        try:
            value = handler(self, node)
        except ConversionError as error:
            if not (as_it_is and isinstance(error, NotLinear)):
                raise ConversionError(f"cannot convert '{what}' at '{place}': {error}") from None
            value = self.keep_raw(node)
        self.values[node] = value
        self.origin.append((place, what, value.fate))
        if on_image and value.name is not None and self.nodes[value.name].operation.keeps_image:
            self.image.add(value.name)

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
        return node.name, what, HANDLERS.get(node.target)

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
        """A number or a ``(1, C, 1, 1)`` constant as a vector."""
        if isinstance(value, (int, float)):
            return torch.tensor([float(value)], dtype=self.dtype)
        assert isinstance(value, Tensor)
        if value.numel() == 1 or (value.dim() in (3, 4) and value.shape[-3] == value.numel()):
            return value.flatten().to(self.dtype)
        raise NotLinear(f"a constant of shape {tuple(value.shape)}; expected a number or one value per channel")

    def operands(self, node: fx.Node) -> tuple[list[Any], list[bool]]:
        """The two operands, each a wire's name or a constant, and which are wires."""
        found = []
        for operand in (self.argument(node, 0, "input", None), self.argument(node, 1, "other", None)):
            value = self.values.get(operand) if isinstance(operand, fx.Node) else None
            if value is not None and value.size_of is not None:
                raise NotLinear("it computes with sizes; use fixed ones")
            found.append(operand if value is None else value.name if value.name is not None else value.constant)
        return found, [isinstance(operand, str) for operand in found]

    def wire(self, argument: Any) -> str:
        """Name of the wire that an argument stands for."""
        value = self.values.get(argument) if isinstance(argument, fx.Node) else None
        if value is None or value.name is None:
            raise ConversionError(f"expected a feature map where {argument!r} stands")
        return value.name

    def add(self, name: str, op: str, inputs: tuple[str, ...], weights: str | None = None, **options: Any) -> Value:
        """Add a node; its name is made unique."""
        while name in self.nodes or name in _TAKEN:
            name += "_"
        self.nodes[name] = Node(name, op, inputs, options, weights)
        return Value(name=name)

    def same(self, source: str) -> Value:
        """A wire that is there already."""
        return Value(name=source)

    def keep_raw(self, node: fx.Node) -> Value:
        """Keep an operation on the raw image as it is."""
        value = self.add(node.name, Raw.name, tuple(self.wire(n) for n in node.all_input_nodes if self.values[n].name))
        name = str(value.name)
        self.raw[name] = self.call(node)
        self.image.add(name)
        return value

    def call(self, node: fx.Node) -> Callable[..., Tensor]:
        """The operation itself, as a function of the wires that it reads."""
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
            assert isinstance(result, Tensor), f"'{node.name}' must give one tensor"
            return result

        return run

    def fold_into(self, node: fx.Node, source: str, gain: Tensor, shift: Tensor) -> Value | None:
        """Fold a scaling into the convolution that it reads; None where something else reads that one too."""
        below = self.nodes[source]
        key, operation = below.weights, below.operation
        if key is None or operation.keeps_image or not self._alone(node, source):
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


def _attribute(module: nn.Module, target: str) -> Tensor:
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise ConversionError(f"attribute '{target}' is a {type(value).__name__}; expected a tensor")
    return value.detach()


def _identity(b: Builder, node: fx.Node) -> Value:
    return b.same(b.wire(node.args[0]))


def _dropout(b: Builder, node: fx.Node) -> Value:
    if b.argument(node, 2, "training", True):
        raise ConversionError("it is active; trace the network in eval mode and pass training=self.training")
    return _identity(b, node)


def _size(b: Builder, node: fx.Node) -> Value:
    if node.op == "call_function" and node.args[1] != "shape":
        raise ConversionError(f"attribute {node.args[1]!r} of a feature map is not supported")
    if node.op == "call_method" and len(node.args) + len(node.kwargs) > 1:
        raise ConversionError("it computes with sizes; only a whole spatial size, x.shape[-2:], can be used")
    return Value(size_of=b.wire(node.args[0]))


Handler = Callable[[Builder, fx.Node], Value]

HANDLERS: MappingProxyType[Any, Handler] = MappingProxyType(
    {
        **{key: handler for operation in OPERATIONS.values() for key, handler in operation.handlers().items()},
        **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout2d, "contiguous", "clone"), _identity),
        **dict.fromkeys((functional.dropout, functional.dropout2d), _dropout),
        **dict.fromkeys((getattr, "size"), _size),
    }
)
"""What an operation of a module becomes, by module class, function or name of a method."""
