"""The deployment form: every spike on a wire is 0 or 1 (or -1), every number on a grid.

In units of the receiving neuron's threshold: ``W' = W theta_k / theta_l`` for steps 1..T, ``W'' = beta_k W'`` for the
extended step, bias ``b / theta_l``, threshold 1, reset ``beta_l`` at the extended step. Weights, bias, beta and v0 are
multiples of ``2^-k`` and the image of ``2^-20``; ``k`` is lowered, channel by channel, until the largest membrane that
any image can cause fits a float32 exactly; a layer whose grid would be coarse then is summed in float64
(:mod:`spikingir.deploy.grids`). A sum of spikes is exact in any order: the same image gives the same spikes, bit for
bit, on every machine, thread count, tiling and batch order (docs/method.md, section 5).

Without a grid weights are in the units of the image, ``W theta_k``, and a neuron compares with its own threshold by the
arithmetic that the trained one has, so that ties fall alike in float64.

A threshold follows its channel through what only moves spikes, to the next weights. Where it cannot (branches with
thresholds of their own in a sum, average pooling, resizing), a scaling of its own is put in. All branches of a neuron's
current are in units of its threshold and on one grid, so that their sum is exact too. Weighted operations on the image
or on analog sums run in float64, where they are exact as well, and are rounded to the grid once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from spikingir.deploy.folded import MAX_IMAGE, FoldedNetwork, Kernel, image_bits, on_grid
from spikingir.deploy.grids import (
    DOUBLE_BITS,
    GRID_BITS,
    INTEGER_BITS,
    SINGLE_BITS,
    Bound,
    Sums,
    choose_grid,
    moved,
    together,
)
from spikingir.errors import InputError, SpikingIRError
from spikingir.graph.graph import Node
from spikingir.graph.operations import Affine
from spikingir.spiking.firing import Clock
from spikingir.spiking.kinds import kind_of
from spikingir.spiking.network import SpikingNetwork, require_spiking
from spikingir.spiking.neurons import IFNeuron
from spikingir.spiking.readout import PixelMapper

MAPPER_BITS = 30
WEIGHT_BITS = 12
"""Of a binary network at most, unless asked. Rounding to 12 costs nothing, to the nearest of 8 .11 to .17 dB. Networks
that ship have 8, see :func:`spikingir.round_weights`, and take a fifth less time for it."""


class FoldError(SpikingIRError, ValueError):
    """A network that has no deployment form; the text says why."""


@dataclass(frozen=True)
class _Scale:
    """What one spike on a wire is worth, per channel, at steps 1..T and at the extended step.

    ``levels`` of them make a full window: ``T``, or ``L`` of a binary code, where one is worth ``T / L`` of that.
    """

    regular: Tensor
    extended: Tensor
    levels: Tensor


@dataclass(frozen=True)
class _Weights:
    """Weights of an operation before they are put on a grid, and what its sums reach."""

    node: Node
    regular: Tensor
    extended: Tensor
    analog: Tensor
    bias: Tensor | None
    sums: Sums


def fold(
    network: SpikingNetwork,
    *,
    grid: int | None = GRID_BITS,
    weight_bits: int | Literal["auto"] | None = "auto",
    dtype: torch.dtype = torch.float32,
) -> FoldedNetwork:
    """Fold thresholds and betas away: pure 0/1 (or -1/0/1) spikes, on a grid.

    Args:
        network: A network of IF or MPR neurons; its time steps and schedule become those of the folded form.
        grid: Exponent ``k`` of the grid ``2^-k``, an upper bound on the fineness per channel; None leaves numbers as
            they are (float64 only), which equals the trained network spike for spike.
        weight_bits: Most bits of the weights that spikes meet: those of an output channel are whole multiples of one
            number on the grid, of magnitude below ``2^(weight_bits - 1)``, so that a layer is an integer convolution
            (docs/method.md, section 10); on the clocked schedule those of the extended step are among them. Weights
            that have no more, as :func:`spikingir.round_weights` leaves them, stay as they are; others are rounded to
            the nearest. ``auto``: 12 for a binary network on a grid, none otherwise.
        dtype: float32 or float64; on the grid both give the same bits. A layer whose sums float32 cannot hold has
            float64 all the same; with ``weight_bits`` every layer has.

    Raises:
        FoldError: Neurons of another kind, NaN weights, ``grid`` out of 1..20, no grid in float32, ``weight_bits``
            out of 2..16 or without a grid.
        TypeError: It is no spiking network.

    Source:
        SpikingIR, Eq. 8; docs/method.md, section 5.
    """
    require_spiking(network)
    if grid is None and dtype != torch.float64:
        raise FoldError("without a grid only float64 keeps spikes as they are; pass grid or dtype=torch.float64")
    if grid is not None and not (type(grid) is int and 1 <= grid <= 20):
        raise FoldError(f"grid is {grid}; expected a whole number from 1 to 20, or None for no grid")
    if weight_bits == "auto":
        weight_bits = WEIGHT_BITS if network.config.coding == "binary" and grid is not None else None
    if weight_bits is not None:
        if grid is None:
            raise FoldError("weight_bits needs a grid; pass grid too")
        if not (type(weight_bits) is int and 2 <= weight_bits <= 16):
            raise FoldError(f"weight_bits is {weight_bits}; expected a whole number from 2 to 16, or None")
        dtype = torch.float64
    if dtype not in (torch.float32, torch.float64):
        raise FoldError(f"dtype is {dtype}; expected float32 or float64")
    return _Folder(network, grid, weight_bits, dtype).fold()


def weight_grid(largest: Tensor, grid: Tensor) -> Tensor:
    """``2^k`` that weights up to ``largest`` are whole multiples of, at most ``grid``.

    They stay below 2^16, so that float32, in which weights and thresholds are kept, tells each from its neighbours.
    """
    return torch.minimum(torch.exp2((16 - largest.clamp_min(1e-30).log2()).floor()), grid)


def least_unit(largest: Tensor, weight_bits: int) -> Tensor:
    """The least whole number whose multiples of ``weight_bits``, sign among them, reach ``largest``."""
    most = 2.0 ** (weight_bits - 1) - 0.5  # up to half a unit is rounded off
    return (largest / most).floor() + 1


def _folding(name: str, neuron: IFNeuron) -> IFNeuron:
    """The IF or MPR neuron that a neuron folds to, as its kind says."""
    known = kind_of(neuron)
    if known is None or known[1].folds is None:
        what = type(neuron).__name__
        raise FoldError(
            f"neuron '{name}' is of class {what}, which does not say how it folds; run the network itself, "
            f"or register {what} in spikingir.spiking.kinds.NEURONS with the IF or MPR neuron that fires as it does"
        )
    return known[1].folds(neuron)


class _Folder:
    """One pass over the nodes that pushes thresholds to the weights and bounds every sum."""

    def __init__(self, network: SpikingNetwork, bits: int | None, weight_bits: int | None, dtype: torch.dtype) -> None:
        self.network = network
        self.firing = {name: _folding(name, network.neuron(name)) for name in network.layers}
        self.bits = bits
        self.weight_bits = weight_bits
        self.dtype = dtype
        self.steps = network.config.time_steps
        graph = network.graph
        try:
            self.channels = {name: shape[0] for name, shape in graph.shapes().items()}
        except InputError as error:
            raise FoldError(str(error)) from error
        self.nodes: list[Node] = []
        self.kernels: dict[str, Kernel] = {}
        self.scales: dict[str, _Scale] = {}
        self.analog: set[str] = set()
        self.bounds: dict[str, Bound] = {}
        self.bits_of_image = image_bits(network.config)
        self.neurons = graph.currents(self.channels)
        self.currents: dict[str, list[_Weights]] = {}
        self.betas: dict[str, Tensor] = {}
        self.clocks: dict[str, Clock] = {}

    def fold(self) -> FoldedNetwork:
        """Fold every node in order."""
        for node in self.network.nodes:
            match node.role:
                case "source":
                    self.nodes.append(node)
                    one = self._one(node.name)
                    self.bounds[node.name] = Bound(0 * one, MAX_IMAGE * one, self.bits_of_image)
                case "neuron":
                    self._neuron(node)
                case "moves":
                    self._moving(node)
                case "weighs":
                    self._weighted(node)
        last = self.network.nodes[-1].name
        mapper = _fold_mapper(self.network.mapper, self._theta(last), self._beta(last), self.bits)
        return FoldedNetwork(
            self.network.config,
            self.nodes,
            self.kernels,
            self.betas,
            self.clocks,
            frozenset(self.scales),
            mapper,
            self._theta(last),
            {name: self.network.levels(name) for name in self.network.layers} if self.network.config.phased else {},
            self.bits is not None,
            self.dtype,
            frozenset(node.name for node in self.nodes) - {node.name for node in self.network.nodes},
            self.network.raw,
            next(self.network.parameters()).dtype,
            self.network.shares,
            {} if self.bits is not None else {name: self._theta(name) for name in self.network.layers},
        )

    def _theta(self, name: str) -> Tensor:
        return self.firing[name].v_threshold.detach().double().expand(self.channels[name]).clone()

    def _beta(self, name: str) -> Tensor:
        return self.firing[name].beta.detach().double().expand(self.channels[name]).clone()

    def _levels(self, neuron: str | None) -> int:
        """Spikes of a full window: ``T``, or ``L`` of a neuron on the phased schedule."""
        return self.steps if neuron is None or not self.network.config.phased else self.network.levels(neuron)

    def _one(self, name: str) -> Tensor:
        return torch.ones(self.channels[name], dtype=torch.float64)

    def _neuron(self, node: Node) -> None:
        source = node.inputs[0]
        theta, beta = self._theta(node.name), self._beta(node.name)
        if node.name not in self.currents:
            source = self._scaling(source, f"{node.name}_threshold", node.name)
        self.nodes.append(replace(node, inputs=(source,)))
        grid = self._on_one_grid(self.currents.pop(node.name), self.channels[node.name])
        self.betas[node.name] = beta if grid is None else on_grid(beta, grid)
        self.clocks[node.name] = self._clock(node.name, grid)
        self.scales[node.name] = _Scale(theta, theta * beta, self._levels(node.name) * self._one(node.name))
        self.bounds[node.name] = Bound(self._one(node.name), 0 * theta, 0)

    def _clock(self, name: str, grid: Tensor | None) -> Clock:
        config = self.network.config
        clock = self.firing[name].clock(config.time_steps, config.delay)
        if self.bits is not None and grid is not None:
            # the level is only compared with, so it may be finer than sums are; the initial membrane is added to them
            alpha = round(clock.alpha * 2**self.bits) / 2**self.bits
            coarsest = int(grid.min())
            clock = replace(clock, alpha=alpha, v0=min(round(clock.v0 * coarsest), coarsest - 1) / coarsest)
        return clock

    def _moving(self, node: Node) -> None:
        """Sums, concatenations and the like: thresholds move along, or are multiplied in where they cannot."""
        spiking = [name for name in node.reads if name in self.scales]
        inputs, neuron = node.inputs, self.neurons.get(node.name)
        if neuron is not None:
            spiking = [name for name in node.reads if self.neurons.get(name) != neuron]
        if spiking and (neuron is not None or not self._can_carry(node, spiking)):
            inputs = tuple(
                self._scaling(name, f"{name}_to_{node.name}", neuron) if name in spiking else name
                for name in node.inputs
            )
            spiking = []
        self.nodes.append(replace(node, inputs=inputs))
        if not self.analog.isdisjoint(self.nodes[-1].reads):
            self.analog.add(node.name)
        if spiking:
            merged = (node.operation.per_channel(node, part, _first, _first) for part in self._scales(node, spiking))
            self.scales[node.name] = _Scale(*merged)
        self.bounds[node.name] = moved(self.nodes[-1], [self.bounds[name] for name in inputs])

    def _scales(self, node: Node, spiking: Sequence[str]) -> tuple[list[Tensor], ...]:
        """Scales of the inputs, field by field; in a sum, of those that spike, as a constant has no spikes."""
        scales = [
            self.scales.get(name, self._plain(name)) for name in (spiking if node.operation.sums else node.inputs)
        ]
        return [s.regular for s in scales], [s.extended for s in scales], [s.levels for s in scales]

    def _can_carry(self, node: Node, spiking: Sequence[str]) -> bool:
        """Whether what comes together in one channel is worth the same."""
        if not self.analog.isdisjoint(node.reads):
            return False

        def merged(part: list[Tensor], merge: Callable[[Tensor], Tensor]) -> Tensor:
            return node.operation.per_channel(node, part, merge, merge)

        return all(
            torch.equal(merged(part, lambda parts: parts.amin(-1)), merged(part, lambda parts: parts.amax(-1)))
            for part in self._scales(node, spiking)
        )

    def _plain(self, name: str) -> _Scale:
        """The scale of a wire that carries no spikes of one neuron's threshold."""
        one = self._one(name)
        return _Scale(one, one, self.steps * one)

    def _scaling(self, source: str, name: str, neuron: str | None) -> str:
        """A per-channel factor of its own: the wire's scale, in units of the threshold of the neuron it feeds."""
        self.channels[name] = self.channels[source]
        self._put(Node(name, Affine.name, (source,)), self._one(source), None, neuron)
        return name

    def _weighted(self, node: Node) -> None:
        if node.operation.fixed:
            self._pooling(node)
            return
        assert node.weights is not None
        one = self._one(node.name)
        weight, bias = self.network.weights[node.weights]
        weight = weight.detach().double()
        if weight.dim() == 1:  # one factor for all channels
            weight = weight.expand(len(one))
        bias = None if bias is None else bias.detach().double().expand(len(one))
        self._put(node, weight, bias, self.neurons.get(node.name))

    def _pooling(self, node: Node) -> None:
        """Average pooling and resizing weigh spikes alike: thresholds are multiplied in before them."""
        source = node.inputs[0]
        if source in self.scales:
            source = self._scaling(source, f"{source}_to_{node.name}", None)
        self.nodes.append(replace(node, inputs=(source, *node.inputs[1:])))
        one, incoming = self._one(node.name), self.bounds[source]
        if incoming.spikes.any():
            self.analog.add(node.name)
        spikes, constant = (node.operation.bound(node, one, bound) for bound in (incoming.spikes, incoming.constant))
        window = self.steps * (spikes + constant) + spikes
        exact = prod(node.options.get("kernel_size", ())) * self._at_once(torch.maximum(spikes, constant))
        grid, _ = self._grid(Sums(window, exact, incoming.bits), node.name)
        self.kernels[node.name] = Kernel(one, one, one, None, grid)
        self.bounds[node.name] = Bound(spikes, constant, _finest(grid), analog=True)

    def _put(self, node: Node, weight: Tensor, bias: Tensor | None, neuron: str | None) -> None:
        """Add a weighted operation, in units of the threshold of the neuron whose current it is (a part of), if any."""
        source = node.inputs[0]
        incoming = self.bounds[source]
        scale = self.scales.get(source, self._plain(source))
        most, operation = self._levels(neuron), node.operation
        gain, whole = self._one(node.name), most
        if neuron is not None and self.bits is not None:
            gain = self._spread(1 / self._theta(neuron), node.name)
        elif neuron is not None and self.network.config.phased:
            whole = 1  # the mean current, which the neuron multiplies by its levels
        analog = operation.scale_output(node, weight, gain)
        regular = operation.scale_input(node, analog, scale.regular * (whole / scale.levels))
        extended = operation.scale_input(node, analog, scale.extended)
        bias = None if bias is None else bias * gain
        if not all(torch.isfinite(t).all() for t in (regular, extended, bias) if t is not None):
            raise FoldError(f"the weights of '{node.name}' are not finite")
        constant = operation.bound(node, analog, incoming.constant) + (0 if bias is None else bias.abs())
        # of a window: per step, as all steps are alike, but for a binary code, whose counts are summed at once
        spikes = operation.bound(node, regular, incoming.spikes * (scale.levels / self.steps))
        last = operation.bound(node, extended, incoming.spikes)
        self.nodes.append(replace(node, weights=node.name))
        window = self.steps * (spikes + constant * (most / self.steps)) + last
        spikes = torch.maximum(spikes, last)
        exact = torch.maximum(constant, self._at_once(spikes)) if incoming.analog else constant
        weights = _Weights(node, regular, extended, analog, bias, Sums(window, exact, incoming.bits))
        self.bounds[node.name] = Bound(spikes, constant, 0)
        if neuron is None:
            grid = self._on_one_grid([weights], self.channels[node.name], double=True)
            self.bounds[node.name] = Bound(spikes, constant, _finest(grid), analog=True)
            if incoming.spikes.any():
                self.analog.add(node.name)
        else:
            self.currents.setdefault(neuron, []).append(weights)

    def _spread(self, of_neuron: Tensor, name: str) -> Tensor:
        """A number for each channel of a neuron, for those of an operation that reaches it through a pixel shuffle."""
        return of_neuron.repeat_interleave(self.channels[name] // len(of_neuron))

    def _at_once(self, bound: Tensor) -> Tensor:
        """Bound of what one tensor holds, where ``bound`` is that of a step: a phased window is summed at once."""
        return bound * self.steps if self.network.config.phased else bound

    def _on_one_grid(self, parts: Sequence[_Weights], channels: int, *, double: bool = False) -> Tensor | None:
        """Kernels of operations whose sum is exact: all on the grid that it demands, by channel of the sum.

        Analog sums are kept in float64: what adds them up, or weighs them, knows no bound of its own.
        """
        sums = together([part.sums for part in parts], channels)
        grid, dtype = self._grid(sums, " and ".join(part.node.name for part in parts))
        dtype = torch.float64 if double else dtype
        unit = None if grid is None or self.weight_bits is None else self._unit(parts, grid)
        for part in parts:
            analog, regular, extended, bias = part.analog, part.regular, part.extended, part.bias
            own = None
            if grid is not None:
                own, ones, operation = self._spread(grid, part.node.name), torch.ones_like(analog), part.node.operation
                fine = operation.scale_output(part.node, ones, own)
                if unit is None or operation.pointwise:
                    regular, extended = (on_grid(w, fine) for w in (regular, extended))
                else:
                    units = operation.scale_output(part.node, ones, self._spread(unit, part.node.name))
                    regular, extended = ((w / units).round() * units for w in (regular, extended))
                analog = on_grid(analog, fine)
                bias = None if bias is None else on_grid(bias, own)
            self.kernels[part.node.name] = Kernel(regular.to(dtype), extended.to(dtype), analog, bias, own)
        return grid

    def _unit(self, parts: Sequence[_Weights], grid: Tensor) -> Tensor:
        """A number on the grid for each channel: its convolutions of spikes have multiples of ``weight_bits`` of it.

        Skips, one number for each channel, stay on the grid: they are added as whole multiples of it.
        """
        assert self.weight_bits is not None
        weights = [
            part.node.operation.by_output(part.node, weight).reshape(len(grid), -1)
            for part in parts
            if not part.node.operation.pointwise and part.node.inputs[0] in self.scales
            for weight in ((part.regular,) if self.network.config.phased else (part.regular, part.extended))
        ]
        if not weights:
            return 1 / grid
        together = torch.cat(weights, 1)
        grid = weight_grid(together.abs().amax(1), grid)
        whole = (together * grid.view(-1, 1)).round().abs()
        largest = whole.amax(1)
        shared = torch.from_numpy(np.gcd.reduce(whole.long().numpy(), axis=1)).clamp_min(1)
        few = largest / shared < 2 ** (self.weight_bits - 1)
        return torch.where(few, shared, least_unit(largest, self.weight_bits)) / grid

    def _grid(self, sums: Sums, name: str) -> tuple[Tensor | None, torch.dtype]:
        """``2^k`` per channel, as fine as ``bits`` and as coarse as the sums demand, and what holds them."""
        if self.bits is None:
            return None, self.dtype

        def refuse(most: float) -> FoldError:
            return FoldError(
                f"the membranes that '{name}' feeds may reach {most:.3g} thresholds, too far for exact sums; a "
                "threshold is far too small for its currents"
            )

        held_in = (INTEGER_BITS, DOUBLE_BITS) if self.weight_bits else (SINGLE_BITS, INTEGER_BITS, DOUBLE_BITS)
        grid, bits = choose_grid(sums, self.bits, held_in, refuse, any_grid=self.weight_bits is not None)
        return grid, self.dtype if bits == SINGLE_BITS else torch.float64


def _finest(grid: Tensor | None) -> int:
    """Bits behind the point of numbers on a grid."""
    return 0 if grid is None else int(grid.log2().max())


def _first(parts: Tensor) -> Tensor:
    return parts[..., 0]


def _fold_mapper(mapper: PixelMapper | None, theta: Tensor, beta: Tensor, bits: int | None) -> Kernel:
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
        regular, extended = on_grid(regular, grid), on_grid(extended, grid)
    return Kernel(regular, extended, weight, bias, None)
