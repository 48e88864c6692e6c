"""Tracing at several sizes: what a forward computes from the size of its image, told from what is fixed.

A body runs on torch's meta device while torch.fx traces it, so that every feature map has a size and a forward may
compute with it, and branch on it. If it does, it is traced at several sizes. A number that is the same in all traces is
a setting; one that differs follows from the size, and the operation that reads it says what it is: a padding to a
multiple, a crop or a resizing to the size of another feature map.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikingir.graph.activations import QuantisedReLU
from spikingir.graph.errors import ConversionError

Size = tuple[int, int]

_SIZES: tuple[Size, ...] = (
    # 32 k - 1 stays odd through five halvings, so that every correction of odd sizes runs
    *((63, 95), (95, 127), (159, 63), (127, 191)),
    *((61, 83), (70, 101), (85, 74), (101, 58), (67, 97), (73, 89)),
    *((64, 96), (96, 128), (128, 64), (60, 72), (80, 60)),
)
"""Heights and widths at which bodies are traced: never square, so that rows are told from columns."""


class DoesNotRun(ConversionError):
    """A body does not run at a size."""


class _ReadsSizes(ConversionError):
    """A body reads the size of a feature map, which is not known yet."""


class _Proxy(fx.Proxy):
    """A value under trace whose size is known."""

    tracer: "_Tracer"

    @property
    def shape(self) -> Any:
        """Its size, as plain numbers where they are known."""
        return self.tracer.size(self, "shape")

    def size(self, dim: int | None = None) -> Any:
        """Its size, or one side of it."""
        known = self.tracer.size(self, None)
        if known is None:
            return self.tracer.create_proxy("call_method", "size", (self,) if dim is None else (self, dim), {})
        return known if dim is None else known[dim]

    def dim(self) -> Any:
        """Its number of dimensions."""
        known = self.tracer.size(self, None)
        return self.tracer.create_proxy("call_method", "dim", (self,), {}) if known is None else len(known)

    @property
    def ndim(self) -> Any:
        """Its number of dimensions."""
        return self.dim()

    @property
    def device(self) -> torch.device:
        """Where constants that meet it are made."""
        return torch.device("cpu")

    @property
    def dtype(self) -> Any:
        """Its type."""
        known = self.node.meta.get("example")
        return known.dtype if isinstance(known, Tensor) else fx.proxy.Attribute(self, "dtype")


class _Tracer(fx.Tracer):
    """Traces a body, and runs it on torch's meta device at the same time if it is given one there."""

    def __init__(self, twin: nn.Module | None = None, image: Tensor | None = None, *, strict: bool = False) -> None:
        super().__init__()
        self.twin, self.image = twin, image
        self.strict = strict
        self._running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, QuantisedReLU) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def size(self, proxy: _Proxy, attribute: str | None) -> Any:
        """A size that is read; an attribute to be refused later where it is not known."""
        known = proxy.node.meta.get("example")
        if isinstance(known, Tensor):
            return known.shape
        if self.strict:
            raise _ReadsSizes
        return None if attribute is None else fx.proxy.Attribute(proxy, attribute)

    def create_node(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> fx.Node:
        node = super().create_node(kind, target, args, kwargs, *rest, **more)
        if self.twin is not None and kind != "output":
            node.meta["example"] = self._example(node)
        return node

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _example(self, node: fx.Node) -> Any:
        assert self.twin is not None
        assert self.image is not None
        self._running = True  # so that what runs makes no nodes
        try:
            return _example(node, self.root, self.twin, self.image)
        finally:
            self._running = False


def _example(node: fx.Node, body: nn.Module, twin: nn.Module, image: Tensor) -> Any:
    """The value of a node on torch's meta device; None where there is none.

    Raises:
        DoesNotRun: What it reads does not fit it.
    """
    if node.op == "placeholder":
        return None if node.prev.op == "placeholder" else image  # a body reads the image alone
    if node.op == "get_attr":
        value = attribute(body, str(node.target))
        return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else None
    if any(read.meta.get("example") is None for read in node.all_input_nodes):
        return None
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda read: read.meta["example"])
    try:
        if node.op == "call_module":
            module = twin.get_submodule(str(node.target))
            return args[0] if isinstance(module, QuantisedReLU) else module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)
    except NotImplementedError:  # no kernel on the meta device
        return None
    except RuntimeError as error:
        raise DoesNotRun(f"at '{node.name}': {error}") from error


def attribute(module: nn.Module, target: str) -> Any:
    """What stands under a dotted name."""
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    return value


@dataclass(frozen=True)
class Traces:
    """Traces of one body that differ in numbers alone.

    Attributes:
        body: The body.
        channels: Channels of its image, if they are known.
        main: The first; all others correspond to it node by node.
        others: For each other size, its node for each node of the first.
        reads_sizes: Whether the body reads the size of a feature map.
        constants: Tensors that the body makes as it runs, by node.
    """

    main: fx.Graph
    body: nn.Module
    channels: int | None
    others: tuple[Mapping[fx.Node, fx.Node], ...] = ()
    reads_sizes: bool = False
    constants: Mapping[fx.Node, Tensor] = field(default_factory=dict)

    def variants(self, node: fx.Node) -> list[fx.Node]:
        """A node, and what it is at the other sizes."""
        return [node, *(other[node] for other in self.others)]

    def varies(self, node: fx.Node) -> bool:
        """Whether its settings follow from the size."""

        def plain(it: fx.Node) -> str:
            return str(fx.map_arg((it.args, it.kwargs), lambda _: None))

        return len({plain(it) for it in self.variants(node)}) > 1

    def shapes(self, node: fx.Node) -> list[torch.Size] | None:
        """Its shape at each size, if it is known."""
        if not self.reads_sizes:
            self._run()
        examples = [it.meta.get("example") for it in self.variants(node)]
        known = [example.shape for example in examples if isinstance(example, Tensor)]
        return known if len(known) == len(examples) else None

    def _run(self) -> None:
        """Run the trace of a body that reads no size, at the first that it takes."""
        if "example" in next(iter(self.main.nodes)).meta:
            return
        twin = _on_meta(self.body)
        for image in _images(self.body, twin, self.channels):
            assert twin is not None
            try:
                for node in self.main.nodes:
                    if node.op != "output":
                        node.meta["example"] = _example(node, self.body, twin, image)
            except DoesNotRun:
                continue
            return
        for node in self.main.nodes:
            node.meta["example"] = None


@contextmanager
def traces(body: nn.Module, channels: int | None = None) -> Iterator[Traces]:
    """Traces of a body, at several sizes if it reads them. It is left as it was.

    Args:
        body: The body.
        channels: Channels of its image, if they are known.

    Raises:
        ConversionError: It cannot be traced.
    """
    before = set(vars(body))
    try:
        yield _traces(body, channels)
    finally:
        for name in set(vars(body)) - before:  # constants that the traces found, which torch.fx puts there
            delattr(body, name)


def _traces(body: nn.Module, channels: int | None) -> Traces:
    try:
        return Traces(_trace(_Tracer(strict=True), body), body, channels)
    except _ReadsSizes:
        pass
    twin = _on_meta(body)
    found: list[fx.Graph] = []
    runs = None  # with how many channels
    for image in _images(body, twin, channels):
        if runs not in (None, image.shape[1]):
            break
        try:
            found.append(_trace(_Tracer(twin, image), body))
        except DoesNotRun:
            continue
        runs = image.shape[1]
    if not found:
        return Traces(_trace(_Tracer(), body), body, channels)
    alike: dict[Any, list[fx.Graph]] = {}
    for graph in found:
        alike.setdefault(_structure(graph), []).append(graph)
    # the longest corrects most sizes; at the others the same corrections change nothing
    main, *others = max(alike.values(), key=lambda graphs: (len(graphs[0].nodes), len(graphs)))
    constants = {
        node: attribute(body, str(node.target)) for graph in (main, *others) for node in graph.nodes if _made(node)
    }
    pairs = tuple(dict(zip(main.nodes, other.nodes, strict=True)) for other in others)
    return Traces(main, body, runs, pairs, reads_sizes=True, constants=constants)


def trace_at(body: nn.Module, image: Tensor) -> fx.Graph:
    """The trace of a body at one size.

    Raises:
        ConversionError: It cannot be traced.
    """
    twin = _on_meta(body)
    try:
        return _trace(_Tracer(twin, None if twin is None else image.to("meta")), body)
    except DoesNotRun as error:
        raise ConversionError(f"{type(body).__name__} does not run on an image {tuple(image.shape)}: {error}") from None


def _trace(tracer: _Tracer, body: nn.Module) -> fx.Graph:
    try:
        graph = tracer.trace(body)
    except ConversionError:
        raise
    except Exception as error:  # fx raises what the body's own code raises on a proxy
        raise ConversionError(
            f"cannot trace {type(body).__name__}: {error}. Its forward must neither branch on values nor write into "
            "slices; give convert a module whose forward is a fixed sequence of operations"
        ) from error
    module = fx.GraphModule(body, graph)
    module.graph.eliminate_dead_code()
    return module.graph


def _structure(graph: fx.Graph) -> Any:
    index = {node: i for i, node in enumerate(graph.nodes)}
    return tuple(
        (node.op, "" if _made(node) else node.target, tuple(index[read] for read in node.all_input_nodes))
        for node in graph.nodes
    )


def _made(node: fx.Node) -> bool:
    """Whether a node is a tensor that the body made, to which torch.fx gives a number."""
    return node.op == "get_attr" and str(node.target).startswith("_tensor_constant")


def _on_meta(body: nn.Module) -> nn.Module | None:
    try:
        return copy.deepcopy(body).to("meta")
    except RuntimeError:  # weights that a hook computes cannot be copied
        return None


def _images(body: nn.Module, twin: nn.Module | None, channels: int | None) -> Iterator[Tensor]:
    """Images of all sizes that are tried, for each number of channels that it may have."""
    if twin is None:
        return
    dtype = next((p.dtype for p in body.parameters() if p.is_floating_point()), torch.get_default_dtype())
    for count in dict.fromkeys([*([channels] if channels else []), *_channels(body)]):
        for size in _SIZES:
            yield torch.empty(1, count, *size, device="meta", dtype=dtype)


def _channels(body: nn.Module) -> list[int]:
    """Channels that the image may have, by the first convolution: its own, or those before an unshuffling."""
    first = next((m.in_channels for m in body.modules() if isinstance(m, nn.Conv2d)), 1)
    return list(dict.fromkeys([first, *(first // n for n in (4, 16) if first % n == 0), 1, 3, 4]))


def same_for_all(values: Sequence[Any]) -> bool:
    """Whether a setting is the same at every size."""
    return all(value == values[0] for value in values)


def multiple_of(lengths: Sequence[int], totals: Sequence[int]) -> int | None:
    """The least number whose multiples these lengths become with so much added to each; None if there is none."""
    return next(
        (m for m in range(1, 513) if all(total == -n % m for n, total in zip(lengths, totals, strict=True))), None
    )


ANCHORS: Mapping[str, Callable[[int], int]] = MappingProxyType(
    {"start": lambda total: 0, "middle": lambda total: total // 2, "end": lambda total: total}
)
"""Where a map lies in one that is larger by so much in all: pixels before it."""


def anchors_of(before: Sequence[int], totals: Sequence[int]) -> list[str]:
    """Which anchors a map has that lies so far into ones that are larger by so much."""
    pairs = list(zip(before, totals, strict=True))
    return [name for name, rule in ANCHORS.items() if all(found == rule(total) for found, total in pairs)]
