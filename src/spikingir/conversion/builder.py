"""The building of a traced body: what has been met so far, and what an operation may add to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from spikingir.conversion.errors import ConversionError
from spikingir.spiking.graph import Node

_TAKEN = frozenset(dir(nn.ModuleDict) + dir(nn.ParameterDict))


@dataclass(frozen=True)
class TracedBody:
    """A body as data.

    Attributes:
        nodes: Operations in order; the last is the output neuron.
        weights: Weight and bias by name, batch norm folded in.
        raw: Functions on the raw image by node name.
        clip_levels: Clip levels that the network itself brings (QCFS), by neuron.
        levels: Number of quantiser levels of those (QCFS), by neuron.
        signed: Names of signed neurons: the output, where the body does not end in a ReLU.
        origin: One (place, operation, fate) per operation of the module; fate is converted, kept or folded.
    """

    nodes: tuple[Node, ...]
    weights: Mapping[str, tuple[Tensor, Tensor | None]]
    raw: Mapping[str, Callable[..., Tensor]]
    clip_levels: Mapping[str, Tensor]
    levels: Mapping[str, int]
    signed: frozenset[str]
    origin: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Value:
    """What an fx node stands for: a wire (``name``), a constant tensor, or the size of a wire; and its fate."""

    name: str | None = None
    constant: Tensor | None = None
    size_of: str | None = None
    fate: str = "kept"


class Tables(NamedTuple):
    """Handlers by module class, function and method name, and those whose refusal the raw image may ignore."""

    modules: Mapping[type, "Handler"]
    functions: Mapping[Any, "Handler"]
    methods: Mapping[str, "Handler"]
    anything_on_image: frozenset["Handler"]


class Builder:
    """A body under construction, node by node.

    Args:
        body: The module that was traced.
        graph: Its trace.
        tables: What turns an operation into nodes.

    Attributes:
        values: What each fx node met so far stands for.
        nodes: Operations so far, by name.
        weights: Weight and bias by name.
        image: Names of the wires that hold the raw image, or what was made of it before any weight.
        clip_levels: Clip levels of QCFS activations, by neuron.
        levels: Their number of levels.
    """

    def __init__(self, body: nn.Module, graph: fx.Graph, tables: Tables) -> None:
        self.tables = tables
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
        self.clip_levels: dict[str, Tensor] = {}
        self.levels: dict[str, int] = {}
        self.origin: list[tuple[str, str, str]] = []

    def build(self) -> TracedBody:
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
        if self.nodes[result].op != "neuron":
            signed.add(str(self.add("output", "neuron", (result,)).name))
            self.origin.append(("output", "output", "converted"))
        elif list(self.nodes)[-1] != result:  # the interpreter reads the image off the last node
            self.nodes[result] = self.nodes.pop(result)
        for name, tensors in self.weights.items():
            for tensor in tensors:
                if tensor is not None and not torch.isfinite(tensor).all():
                    raise ConversionError(
                        f"the weights of '{name}' hold NaN or infinite values; load a sound checkpoint"
                    )
        return TracedBody(
            nodes=tuple(self.nodes.values()),
            weights=self.weights,
            raw=self.raw,
            clip_levels=self.clip_levels,
            levels=self.levels,
            signed=frozenset(signed),
            origin=tuple(self.origin),
        )

    def _placeholder(self, node: fx.Node) -> None:
        if self.image:
            if node.args and not node.users:  # it has a default and nothing reads it
                return
            raise ConversionError(f"the body takes a second argument '{node.name}'; a body reads the image alone")
        self.values[node] = self.add(node.name, "input", ())
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
            self.keep_raw(node)
            self.origin.append((place, what, "kept"))
            return
        if handler is None:
            raise ConversionError(
                f"cannot convert '{what}' at '{place}': between spiking neurons only linear operations that act on "
                "each time step alone can stand (convolution, padding, sum, concatenation, slicing, average pooling, "
                "pixel shuffle, resizing, scaling), and ReLU; replace it or leave it out of the body"
            )
        try:
            self.values[node] = handler(self, node)
        except ConversionError as error:
            if not as_it_is or handler not in self.tables.anything_on_image:
                raise ConversionError(f"cannot convert '{what}' at '{place}': {error}") from None
            self.keep_raw(node)
        self.origin.append((place, what, self.values[node].fate))
        name = self.values[node].name
        weighted = name is not None and self.nodes[name].op in ("conv2d", "conv_transpose2d", "neuron")
        if on_image and name is not None and not weighted:
            self.image.add(name)

    def _reads_parameters(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return any(True for _ in self.modules[str(node.target)].parameters())
        parameters = dict(self.body.named_parameters())
        return any(n.op == "get_attr" and n.target in parameters for n in node.all_input_nodes)

    def _handler(self, node: fx.Node) -> tuple[str, str, "Handler | None"]:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            return str(node.target), type(module).__name__, self.tables.modules.get(type(module))
        what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        table: Mapping[Any, Handler] = self.tables.methods if node.op == "call_method" else self.tables.functions
        return node.name, what, table.get(node.target)

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

    def keep_raw(self, node: fx.Node) -> None:
        """Keep an operation on the raw image as it is."""
        wires = tuple(self.wire(n) for n in node.all_input_nodes if self.values[n].name)
        self.values[node] = self.add(node.name, "raw", wires)
        name = str(self.values[node].name)
        self.raw[name] = self.call(node)
        self.image.add(name)

    def call(self, node: fx.Node) -> Callable[..., Tensor]:
        """The operation itself, as a function of the wires that it reads."""
        wires = [n for n in node.all_input_nodes if self.values[n].name]
        constants = {n: self.values[n].constant for n in node.all_input_nodes}
        module = self.modules[str(node.target)] if node.op == "call_module" else None

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

    def alone(self, node: fx.Node, source: str) -> bool:
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


Handler = Callable[[Builder, fx.Node], Value]


def _attribute(module: nn.Module, target: str) -> Tensor:
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise ConversionError(f"attribute '{target}' is a {type(value).__name__}; expected a tensor")
    return value.detach()
