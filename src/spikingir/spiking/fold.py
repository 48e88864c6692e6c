"""The deployment form: every spike on a wire is 0 or 1 (or -1), every number on a grid.

In units of the receiving neuron's threshold: ``W' = W theta_k / theta_l`` for steps 1..T, ``W'' = beta_k W'`` for the
extended step, bias ``b / theta_l``, threshold 1, reset ``beta_l`` at the extended step. Weights, bias and beta are
multiples of ``2^-k`` and the image of ``2^-20``; ``k`` is lowered, channel by channel, until the largest membrane that
any image can cause fits a float32 exactly. A sum of spikes is then exact in any order: the same image gives the same
spikes, bit for bit, on every machine, thread count, tiling and batch order (METHOD section 5).

A threshold follows its channel through what only moves spikes, to the next weights. Where it cannot (sums of branches
with thresholds of their own, average pooling, resizing), a scaling of its own is put in. Weighted operations on the
image or on analog sums run in float64, where they are exact too, and are rounded to the grid once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from spikingir.spiking.firing import Clock, clocked_inference
from spikingir.spiking.formation import form_image
from spikingir.spiking.graph import LINEAR, Node, Wave, constant_part, moves_spikes, run_graph, spiking_part
from spikingir.spiking.network import LayerTrace, SpikingConfig, SpikingNetwork, Trace, channel_counts, phased_slots
from spikingir.spiking.readout import PixelMapper

GRID_BITS = 14
IMAGE_BITS = 20
MAPPER_BITS = 30
MAX_IMAGE = 8.0
_MANTISSA = 24


class FoldError(ValueError):
    """A network that has no deployment form; the text says why."""


class _Kernel(nn.Module):
    """Weights of one operation: for spikes, for spikes of the extended step, for constants and analog sums; bias.

    ``grid`` holds ``2^k`` per output channel, or nothing where numbers are left as they are.
    """

    spike: Tensor
    extended: Tensor
    analog: Tensor
    bias: Tensor | None
    grid: Tensor | None

    def __init__(
        self, spike: Tensor, extended: Tensor, analog: Tensor, bias: Tensor | None, grid: Tensor | None
    ) -> None:
        super().__init__()
        for name, tensor in (
            ("spike", spike),
            ("extended", extended),
            ("analog", analog),
            ("bias", bias),
            ("grid", grid),
        ):
            self.register_buffer(name, tensor)

    def round(self, x: Tensor) -> Tensor:
        """``x`` (..., C, H, W) on the grid."""
        return x if self.grid is None else _on_grid(x, self.grid.view(-1, 1, 1))


@dataclass(frozen=True)
class _Scale:
    """What one spike on a wire is worth, per channel, at steps 1..T and at the extended step."""

    regular: Tensor
    extended: Tensor


@dataclass(frozen=True)
class _Bound:
    """Largest magnitude of a wire at one step, per channel: of its spiking part and of its constant part."""

    spikes: Tensor
    constant: Tensor


def _moved(node: Node, vectors: Sequence[Tensor]) -> Tensor:
    """What a moving operation does to one number per channel: the operation itself, on a map of one pixel."""
    if node.op in ("pad", "interpolate", "add", "sub"):
        return vectors[0]
    side = node.options["factor"] if node.op == "pixel_unshuffle" else 1
    options = {**node.options, **({"rows": (None,) * 3, "columns": (None,) * 3} if node.op == "slice" else {})}
    maps = [vector.view(1, -1, 1, 1).expand(1, -1, side, side) for vector in vectors]
    return LINEAR[node.op].run(maps, options, None)[0, :, 0, 0]


def fold(
    network: SpikingNetwork, *, bits: int | None = GRID_BITS, dtype: torch.dtype = torch.float32
) -> "FoldedNetwork":
    """Fold thresholds and betas away: pure 0/1 (or -1/0/1) spikes, on a grid.

    Args:
        network: A network of IF or MPR neurons; its time steps and schedule become those of the folded form.
        bits: Grid ``2^-bits``, an upper bound on the fineness per channel; None leaves numbers as they are
            (float64 only), which equals the trained network spike for spike away from ties.
        dtype: float32 or float64; on the grid both give the same bits.

    Raises:
        FoldError: Neurons of another kind, NaN weights, ``bits`` out of 1..20, no grid in float32.

    Source:
        SpikingIR, Eq. 8; METHOD section 5.
    """
    if bits is None and dtype != torch.float64:
        raise FoldError("without a grid only float64 keeps spikes as they are; pass bits or dtype=torch.float64")
    if bits is not None and not 1 <= bits <= 20:
        raise FoldError(f"bits is {bits}; expected 1..20, or None for no grid")
    if dtype not in (torch.float32, torch.float64):
        raise FoldError(f"dtype is {dtype}; expected float32 or float64")
    for name in network.layers:
        if type(network.neuron(name)).__name__ not in ("IFNeuron", "MembranePotentialReuseNeuron"):
            raise FoldError(f"neuron '{name}' is a {type(network.neuron(name)).__name__}; only IF and MPRN fold")
    return _Folder(network, bits, dtype).fold()


class _Folder:
    """One pass over the nodes that pushes thresholds to the weights and bounds every sum."""

    def __init__(self, network: SpikingNetwork, bits: int | None, dtype: torch.dtype) -> None:
        self.network = network
        self.bits = bits
        self.dtype = dtype
        self.steps = network.config.time_steps
        self.channels = channel_counts(network)
        self.readers: dict[str, list[Node]] = {}
        for node in network.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.nodes: list[Node] = []
        self.kernels: dict[str, _Kernel] = {}
        self.scales: dict[str, _Scale] = {}
        self.analog: set[str] = set()
        self.bounds: dict[str, _Bound] = {}
        self.normalised: set[str] = set()
        self.betas: dict[str, Tensor] = {}

    def fold(self) -> "FoldedNetwork":
        """Fold every node in order."""
        for node in self.network.nodes:
            if node.op in ("input", "raw"):
                self.nodes.append(node)
                one = self._one(node.name)
                self.bounds[node.name] = _Bound(0 * one, MAX_IMAGE * one)
            elif node.op == "neuron":
                self._neuron(node)
            elif moves_spikes(node):
                self._moving(node)
            else:
                self._weighted(node)
        last = self.network.nodes[-1].name
        mapper = _fold_mapper(self.network.mapper, self._theta(last), self._beta(last), self.bits)
        return FoldedNetwork(
            self.network, self.nodes, self.kernels, self.betas, mapper, self._theta(last), self.bits, self.dtype
        )

    def _theta(self, name: str) -> Tensor:
        return self.network.neuron(name).v_threshold.detach().double().expand(self.channels[name]).clone()

    def _beta(self, name: str) -> Tensor:
        return self.network.neuron(name).beta.detach().double().expand(self.channels[name]).clone()

    def _one(self, name: str) -> Tensor:
        return torch.ones(self.channels[name], dtype=torch.float64)

    def _neuron(self, node: Node) -> None:
        source = node.inputs[0]
        theta, beta = self._theta(node.name), self._beta(node.name)
        if source not in self.normalised:
            source = self._scaling(source, f"{node.name}_threshold", 1 / theta, neuron=True)
        self.nodes.append(replace(node, inputs=(source,)))
        grid = self.kernels[source].grid
        self.betas[node.name] = beta if grid is None else _on_grid(beta, grid)
        self.scales[node.name] = _Scale(theta, theta * beta)
        self.bounds[node.name] = _Bound(self._one(node.name), 0 * theta)

    def _moving(self, node: Node) -> None:
        """Sums, concatenations and the like: thresholds move along, or are multiplied in where they cannot."""
        spiking = [name for name in node.inputs if name in self.scales]
        inputs = node.inputs
        if spiking and not self._can_carry(node, spiking):
            inputs = tuple(
                self._scaling(name, f"{name}_to_{node.name}", None) if name in self.scales else name
                for name in node.inputs
            )
            spiking = []
        self.nodes.append(replace(node, inputs=inputs))
        if any(name in self.analog for name in inputs):
            self.analog.add(node.name)
        if spiking:
            scales = [self.scales.get(name, _Scale(self._one(name), self._one(name))) for name in inputs]
            if node.op in ("add", "sub"):  # equal where both spike; a constant has none
                scales = [self.scales[name] for name in spiking]
            self.scales[node.name] = _Scale(
                _moved(node, [s.regular for s in scales]), _moved(node, [s.extended for s in scales])
            )
        bounds = [self.bounds[name] for name in inputs]
        if node.op in ("add", "sub"):
            first, second = bounds
            self.bounds[node.name] = _Bound(first.spikes + second.spikes, first.constant + second.constant)
        else:
            self.bounds[node.name] = _Bound(
                _moved(node, [b.spikes for b in bounds]), _moved(node, [b.constant for b in bounds])
            )

    def _can_carry(self, node: Node, spiking: Sequence[str]) -> bool:
        if any(name in self.analog for name in node.inputs):
            return False
        if node.op in ("add", "sub"):
            first, *rest = (self.scales[name] for name in spiking)
            return all(torch.equal(first.regular, s.regular) and torch.equal(first.extended, s.extended) for s in rest)
        if node.op == "pixel_shuffle":
            factor = node.options["factor"] ** 2
            scale = self.scales[spiking[0]]
            return all(
                bool((v.view(-1, factor) == v.view(-1, factor)[:, :1]).all()) for v in (scale.regular, scale.extended)
            )
        return True

    def _scaling(self, source: str, name: str, gain: Tensor | None, *, neuron: bool = False) -> str:
        """A per-channel factor of its own: the wire's scale, times ``gain``."""
        self.channels[name] = self.channels[source]
        one = self._one(source)
        self._put(Node(name, "affine", (source,)), one, None, one if gain is None else gain, neuron)
        return name

    def _weighted(self, node: Node) -> None:
        if node.weights is None:
            self._pooling(node)
            return
        readers = self.readers.get(node.name, [])
        one = self._one(node.name)
        neuron = len(readers) == 1 and readers[0].op == "neuron"
        weight, bias = self.network.weights[node.weights]
        weight = weight.detach().double()
        if node.op == "affine":
            weight = weight.expand(len(one))
        bias = None if bias is None else bias.detach().double().expand(len(one))
        self._put(node, weight, bias, 1 / self._theta(readers[0].name) if neuron else one, neuron)

    def _pooling(self, node: Node) -> None:
        """Average pooling and resizing weigh spikes alike: thresholds are multiplied in before them."""
        source = node.inputs[0]
        if source in self.scales:
            source = self._scaling(source, f"{source}_to_{node.name}", None)
        self.nodes.append(replace(node, inputs=(source, *node.inputs[1:])))
        self.analog.add(node.name)
        overshoot = 2 if node.options.get("mode") == "bicubic" else 1
        bound = self.bounds[source]
        self.bounds[node.name] = _Bound(overshoot * bound.spikes, overshoot * bound.constant)
        one = self._one(node.name)
        window = self.steps * overshoot * (bound.spikes + bound.constant) + overshoot * bound.spikes
        self.kernels[node.name] = _Kernel(one, one, one, None, self._grid(window, node.name))

    def _put(self, node: Node, weight: Tensor, bias: Tensor | None, gain: Tensor, neuron: bool) -> None:
        """Add a weighted operation whose output is multiplied by ``gain``, with all of its kernels on their grid."""
        source = node.inputs[0]
        incoming = self.bounds[source]
        scale = self.scales.get(source, _Scale(self._one(source), self._one(source)))
        analog = _times_output(node, weight, gain)
        regular = _times_input(node, analog, scale.regular)
        extended = _times_input(node, analog, scale.extended)
        if not all(torch.isfinite(t).all() for t in (regular, extended)):
            raise FoldError(f"the weights of '{node.name}' are not finite")
        bias = None if bias is None else bias * gain
        constant = _reach(node, analog, incoming.constant) + (0 if bias is None else bias.abs())
        spikes, last = _reach(node, regular, incoming.spikes), _reach(node, extended, incoming.spikes)
        grid = self._grid(self.steps * (spikes + constant) + last + 1, node.name)
        if grid is not None:
            fine = _times_output(node, torch.ones_like(weight), grid)
            analog, regular, extended = (_on_grid(w, fine) for w in (analog, regular, extended))
            bias = None if bias is None else _on_grid(bias, grid)
        self.kernels[node.name] = _Kernel(regular.to(self.dtype), extended.to(self.dtype), analog, bias, grid)
        self.nodes.append(replace(node, weights=None))
        self.bounds[node.name] = _Bound(torch.maximum(spikes, last), constant)
        if neuron:
            self.normalised.add(node.name)
        else:
            self.analog.add(node.name)

    def _grid(self, window: Tensor, name: str) -> Tensor | None:
        """``2^k`` per channel: as fine as ``bits``, as coarse as a window's largest sum demands in float32."""
        if self.bits is None:
            return None
        exponent = (_MANTISSA - window.clamp_min(1).log2().ceil()).clamp_max(self.bits)
        if (exponent < 1).any():
            raise FoldError(
                f"the membranes that '{name}' feeds may reach {window.max().item():.3g} thresholds, too far for exact "
                "sums; a threshold is far too small for its currents"
            )
        return torch.exp2(exponent)


def _on_grid(x: Tensor, grid: Tensor) -> Tensor:
    return (x * grid).round() / grid


def _times_output(node: Node, weight: Tensor, gain: Tensor) -> Tensor:
    """Weights of an operation whose output channels are multiplied by ``gain``."""
    if node.op == "conv_transpose2d":
        groups, per_group = node.options["groups"], weight.shape[1]
        rows = gain.view(groups, 1, per_group).expand(groups, weight.shape[0] // groups, per_group)
        return weight * rows.reshape(weight.shape[0], per_group, 1, 1)
    return weight * (gain if node.op == "affine" else gain.view(-1, 1, 1, 1))


def _times_input(node: Node, weight: Tensor, scale: Tensor) -> Tensor:
    """Weights of an operation whose input channels are multiplied by ``scale``."""
    if node.op == "affine":
        return weight * scale
    if node.op == "conv_transpose2d":
        return weight * scale.view(-1, 1, 1, 1)
    groups = node.options["groups"]
    columns = scale.view(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
    return weight * columns.reshape(weight.shape[0], weight.shape[1], 1, 1)


def _reach(node: Node, weight: Tensor, bound: Tensor) -> Tensor:
    """Largest magnitude of each output channel while inputs stay within ``bound``."""
    worst = _times_input(node, weight.abs(), bound)
    if node.op == "affine":
        return worst
    if node.op == "conv_transpose2d":
        groups = node.options["groups"]
        return worst.view(groups, -1, *worst.shape[1:]).sum((1, 3, 4)).flatten()
    return worst.sum((1, 2, 3))


def _fold_mapper(mapper: PixelMapper | None, theta: Tensor, beta: Tensor, bits: int | None) -> _Kernel:
    """The mapper with the output neuron's thresholds in its weights; the identity where there is none.

    Its grid is finer than the spikes' own: it is summed once, in float64.
    """
    count = len(theta)
    if mapper is None:
        weight, bias = torch.eye(count, dtype=torch.float64).view(count, count, 1, 1), None
    else:
        weight = mapper.weight.detach().double()
        bias = None if mapper.bias is None else mapper.bias.detach().double()
    regular, extended = weight * theta.view(1, -1, 1, 1), weight * (beta * theta).view(1, -1, 1, 1)
    if bits is not None:
        grid = torch.tensor(2.0**MAPPER_BITS, dtype=torch.float64)
        regular, extended = _on_grid(regular, grid), _on_grid(extended, grid)
    return _Kernel(regular, extended, weight, bias, None)


class FoldedNetwork(nn.Module):
    """The deployment form of a spiking network; made by :func:`fold`. For inference.

    Attributes:
        config: Time steps, schedule, image formation.
        nodes: The body.
        kernels: Weights by node.

    Shape:
        ``(B, C, H, W)``, values in [0, 1] (magnitudes to 8 are exact), to the same dtype and shape; not clipped.
    """

    theta: Tensor

    def __init__(
        self,
        network: SpikingNetwork,
        nodes: Sequence[Node],
        kernels: Mapping[str, _Kernel],
        betas: Mapping[str, Tensor],
        mapper: _Kernel,
        theta: Tensor,
        bits: int | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.config: SpikingConfig = network.config
        self.nodes = tuple(nodes)
        self.raw = {name: _in_precision(f, next(network.parameters()).dtype) for name, f in network.raw.items()}
        self.kernels = nn.ModuleDict(dict(kernels))
        self.mapper = mapper
        self.dtype = dtype
        self._clocks = {name: _clock(network, name, bits) for name in network.layers}
        for name, beta in betas.items():
            self.register_buffer(f"beta_{name}", beta)
        self.register_buffer("theta", theta)
        self._gridded = bits is not None
        self._spiking = _spike_wires(self.nodes)

    @property
    def exponents(self) -> dict[str, tuple[int, int]]:
        """Coarsest and finest grid exponent ``k`` of each weighted operation; empty without a grid."""
        found = {}
        for name, kernel in self.kernels.items():
            if isinstance(kernel, _Kernel) and kernel.grid is not None:
                exponent = kernel.grid.log2()
                found[name] = (int(exponent.min()), int(exponent.max()))
        return found

    def forward(self, image: Tensor) -> Tensor:
        """Restored image, not clipped."""
        return self._restore(image, None, trains=False)

    def trace(self, image: Tensor, *, trains: bool = False) -> tuple[Tensor, Trace]:
        """Restored image and what every layer did; see :meth:`SpikingNetwork.trace`."""
        layers: list[LayerTrace] = []
        restored = self._restore(image, layers, trains)
        size = (image.shape[-2], image.shape[-1])
        return restored, Trace(self.config.time_steps, self.config.schedule, size, tuple(layers))

    @torch.no_grad()
    def _restore(self, image: Tensor, layers: list[LayerTrace] | None, trains: bool) -> Tensor:
        if image.dim() != 4 or image.shape[1] != self.config.channels:
            raise ValueError(f"expected images of shape (B, {self.config.channels}, H, W), got {tuple(image.shape)}")
        exact = image.double()
        if self._gridded:
            if not exact.abs().max() <= MAX_IMAGE:
                raise ValueError(f"image values must be finite and within {MAX_IMAGE:g} in magnitude")
            exact = _on_grid(exact, exact.new_tensor(2.0**IMAGE_BITS))
        read: list[Tensor] = []
        last = self.nodes[-1].name

        def neuron(node: Node, current: Wave, owned: bool) -> Wave:
            spikes, residual = self._fire(node, current, owned)
            if layers is not None:
                layers.append(self._layer_trace(node, spikes, residual, trains))
            if node.name == last:
                read.append(self._read(spikes, residual, signed=self._clocks[last].signed))
            return Wave(spikes, None)

        with _exact_convolutions():
            run_graph(self.nodes, {}, exact, neuron, self.raw, self._linear)
        restored = form_image(self.config.formation, image.double(), read[0])
        return restored.to(image.dtype)

    def _kernel(self, name: str) -> _Kernel | None:
        kernel = self.kernels[name] if name in self.kernels else None  # noqa: SIM401 (ModuleDict has no get)
        assert kernel is None or isinstance(kernel, _Kernel)
        return kernel

    def _linear(self, node: Node, inputs: Sequence[Wave], weights: object) -> Wave:
        operation, kernel = LINEAR[node.op], self._kernel(node.name)
        if kernel is None:
            if any(w.spikes is not None and w.spikes.dtype != torch.float64 for w in inputs) and any(
                w.spikes is not None and w.spikes.dtype == torch.float64 for w in inputs
            ):
                inputs = [Wave(None if w.spikes is None else w.spikes.double(), w.constant) for w in inputs]
            constant = constant_part(operation, node, inputs, None)
            return Wave(spiking_part(operation, node, inputs, None), constant)
        constant = constant_part(operation, node, inputs, kernel.analog)
        if kernel.bias is not None:
            shift = kernel.bias.view(1, -1, 1, 1)
            constant = shift if constant is None else constant + shift
        constant = None if constant is None else kernel.round(constant)
        if all(name in self._spiking for name in node.inputs) and node.op not in ("avg_pool2d", "interpolate"):
            return Wave(self._weigh(node, inputs, kernel), constant)
        analog = [Wave(None if w.spikes is None else w.spikes.double(), w.constant) for w in inputs]
        spikes = spiking_part(operation, node, analog, kernel.analog)
        return Wave(None if spikes is None else kernel.round(spikes), constant)

    def _weigh(self, node: Node, inputs: Sequence[Wave], kernel: _Kernel) -> Tensor:
        """Weighted sums of 0/1 spikes, with weights of their own at the extended step."""
        operation, steps = LINEAR[node.op], self.config.time_steps
        regular = [Wave(None if w.spikes is None else w.spikes[:steps], w.constant) for w in inputs]
        sums = spiking_part(operation, node, regular, kernel.spike)
        assert sums is not None
        if all(w.spikes is None or len(w.spikes) <= steps for w in inputs):
            return sums
        extended = [Wave(None if w.spikes is None else w.spikes[steps:], w.constant) for w in inputs]
        last = spiking_part(operation, node, extended, kernel.extended)
        assert last is not None
        return torch.cat([sums, last])

    def _fire(self, node: Node, current: Wave, owned: bool) -> tuple[Tensor, Tensor]:
        """Spikes in {-1, 0, 1}, (S, B, C, H, W); phased: their number in the window, (1, B, C, H, W). And v(end)."""
        clock, config = self._clocks[node.name], self.config
        spikes = None if current.spikes is None else current.spikes.to(self.dtype)
        constant = None if current.constant is None else current.constant.to(self.dtype)
        if config.phased:
            total: Tensor | float = 0.0 if spikes is None else spikes[0]
            v = total if constant is None else constant * config.time_steps + total
            assert isinstance(v, Tensor)
            lowest = -config.time_steps if clock.signed else 0
            counts = (v + 0.5).floor().clamp(lowest, config.time_steps)
            return counts[None], v - counts
        shape = spikes.shape[1:] if spikes is not None else constant.shape  # type: ignore[union-attr]
        batch, channels, height, width = shape
        flat = None if spikes is None else spikes.movedim(2, -1).reshape(len(spikes), -1, channels)
        if constant is None:
            still = self.theta.new_zeros(1, channels, dtype=self.dtype)
        elif constant.shape == (1, channels, 1, 1):
            still = constant.view(1, channels)
        else:
            still = constant.expand(shape).movedim(1, -1).reshape(-1, channels)
        one, beta = still.new_ones(1), getattr(self, f"beta_{node.name}").to(self.dtype)
        fired, residual = clocked_inference(flat, still, one, beta, clock, overwrite=owned)
        if clock.extended:
            fired[-1].sign_()
        return (
            fired.view(-1, batch, height, width, channels).permute(0, 1, 4, 2, 3),
            residual.view(batch, height, width, channels).permute(0, 3, 1, 2),
        )

    def _read(self, spikes: Tensor, residual: Tensor, *, signed: bool) -> Tensor:
        """Body output in float64: mapper on the counted spikes, and ``I``."""
        steps, kernel = self.config.time_steps, self.mapper
        padding = kernel.spike.shape[-1] // 2
        counts = spikes[:steps].double().sum(0)
        total = nn.functional.conv2d(counts, kernel.spike, padding=padding)
        if len(spikes) > steps:
            total = total + nn.functional.conv2d(spikes[steps].double(), kernel.extended, padding=padding)
        output = total / steps
        if kernel.bias is not None:
            output = output + kernel.bias.view(1, -1, 1, 1)
        if self.config.recycling:
            start = 0.0 if self.config.phased else self._clocks[self.nodes[-1].name].v0
            output = output + (residual.double() - start) * self.theta.view(1, -1, 1, 1) / steps
        return output if signed else torch.relu(output)

    def _layer_trace(self, node: Node, spikes: Tensor, residual: Tensor, trains: bool) -> LayerTrace:
        signs = phased_slots(spikes[0], self.config.time_steps) if self.config.phased else spikes
        counts = signs.abs().sum((-2, -1)).long()
        return LayerTrace(node.name, counts, residual[0].numel(), residual, signs.to(torch.int8) if trains else None)


def _clock(network: SpikingNetwork, name: str, bits: int | None) -> Clock:
    neuron, config = network.neuron(name), network.config
    alpha = neuron.alpha if bits is None else round(neuron.alpha * 2**bits) / 2**bits
    return Clock(config.time_steps, neuron.extended, alpha, neuron.v0, neuron.signed, config.delay, neuron.surrogate)


def _in_precision(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    """A user's function on the image, run in the precision of the user's network and put on the image's grid."""

    def run(*images: Tensor) -> Tensor:
        result = function(*(image.to(dtype) for image in images)).double()
        return _on_grid(result, result.new_tensor(2.0**IMAGE_BITS))

    return run


def _spike_wires(nodes: Sequence[Node]) -> set[str]:
    """Nodes whose output carries nothing but whole numbers of spikes."""
    wires: set[str] = set()
    for node in nodes:
        moved = node.op in LINEAR and moves_spikes(node) and all(name in wires for name in node.inputs)
        if node.op == "neuron" or moved:
            wires.add(node.name)
    return wires


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """Convolutions as plain sums of products: no Winograd, no reduced precision, whatever is set outside."""
    settings: Any = getattr(torch.backends.mkldnn, "conv", None)  # torch >= 2.9; before, nothing lowers it
    outside = getattr(settings, "fp32_precision", None)
    if outside is not None:
        settings.fp32_precision = "ieee"
    try:
        with (
            torch.backends.nnpack.flags(enabled=False),
            torch.backends.cudnn.flags(enabled=False),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
        ):
            yield
    finally:
        if outside is not None:
            settings.fp32_precision = outside
