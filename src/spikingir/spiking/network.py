"""The spiking network: a body of neurons and linear operations, a clock, a readout, an image formation."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from spikingir.errors import InputError
from spikingir.graph.graph import Graph, Node, Wave, Weights
from spikingir.graph.operations import Affine
from spikingir.inputs import with_level
from spikingir.schema import Range
from spikingir.spiking.coding import Coding, check_coding, levels, spike_trains, spikes_per_step
from spikingir.spiking.formation import IMAGE_FORMATIONS, ImageFormation, form_image
from spikingir.spiking.kinds import kind_of
from spikingir.spiking.neurons import Firing, IFNeuron
from spikingir.spiking.readout import PixelMapper, read_out
from spikingir.spiking.schedule import Schedule as Schedule

Window = tuple[slice, slice]
"""Rows and columns of a layer."""

WHOLE: Window = (slice(0, None), slice(0, None))


@dataclass(frozen=True)
class SpikingConfig:
    """How a spiking network runs; also its schema in a file, which holds numbers within the bounds named here.

    Attributes:
        time_steps: ``T``; energy and time are charged for T + 1 steps with the extended step.
        schedule: ``clocked`` (the paper's: all layers advance together), ``phased`` (a layer collects its whole
            window before it fires; the quantised ANN), or the number of inputs that a layer waits for before it
            fires (0 is clocked, T - 1 phased).
        formation: Image formation after the body.
        channels: Channels of the image.
        coding: ``unary``, or, on the phased schedule, ``binary``: the spike of step t counts ``2^(T-t)``, and T steps
            carry ``2^T - 1`` levels (:mod:`spikingir.spiking.coding`). A binary network runs at its own T alone.
        recycling: Whether the last layer's residual membrane is added to the output.
        method: Conversion method that made the network.
        takes_level: Whether the body is told the noise level, as one more channel behind the image's, though the image
            formation does without; that of ``level`` is told anyway.
    """

    time_steps: Annotated[int, Range(1, 1024)] = 10
    schedule: Schedule = "clocked"
    formation: ImageFormation = "identity"
    channels: Annotated[int, Range(1, 64)] = 1
    recycling: bool = True
    method: str = "spikingir"
    coding: Coding = "unary"
    takes_level: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.time_steps, bool) or not isinstance(self.time_steps, int) or self.time_steps < 1:
            raise InputError(f"time_steps is {self.time_steps!r}; a network needs a whole number T >= 1")
        if self.formation not in IMAGE_FORMATIONS:
            raise InputError(f"unknown image formation {self.formation!r}; known ones: {', '.join(IMAGE_FORMATIONS)}")
        if isinstance(self.schedule, str):
            if self.schedule not in ("clocked", "phased"):
                raise InputError(f"unknown schedule {self.schedule!r}; expected clocked, phased or a delay 0..T-1")
        elif isinstance(self.schedule, bool) or not isinstance(self.schedule, int):
            raise InputError(f"schedule is {self.schedule!r}; expected clocked, phased or a delay 0..T-1")
        elif not 0 <= self.schedule < self.time_steps:
            raise InputError(f"a delay of {self.schedule} does not fit {self.time_steps} time steps; 0..T-1 does")
        check_coding(self.coding, self.time_steps, self.schedule == "phased")

    @property
    def is_told_level(self) -> bool:
        """Whether the body reads a level map behind the image, whatever its image formation does with it."""
        return self.takes_level or self.formation == "level"

    @property
    def input_channels(self) -> int:
        """Channels that the body reads: the image's, and the level map where it is told one."""
        return self.channels + self.is_told_level

    def formed_from(self, given: Tensor) -> Tensor:
        """What the image is formed from: what the body reads, without a level that the formation does without."""
        return given[:, : self.channels] if self.takes_level else given

    @property
    def phased(self) -> bool:
        """Whether a layer sees its whole window before it fires."""
        return self.schedule == "phased" or (self.delay > 0 and self.delay == self.time_steps - 1)

    @property
    def clock(self) -> str:
        """Time steps, schedule and code as they stand beside every figure: ``T = 10, clocked``."""
        schedule = self.schedule if isinstance(self.schedule, str) else f"delay {self.schedule}"
        return f"T = {self.time_steps}, {schedule}{', binary' * (self.coding == 'binary')}"

    @property
    def delay(self) -> int:
        """Inputs that a layer waits for."""
        if isinstance(self.schedule, int):
            return self.schedule
        return self.time_steps - 1 if self.schedule == "phased" else 0


@dataclass(frozen=True)
class LayerTrace:
    """What one spiking layer did.

    Attributes:
        name: The layer's name in the body.
        spikes: Spikes per step, image and channel, (S, B, C), int64; S counts the extended step. A graded spike
            counts as its value.
        neurons: Neurons per image, C * H * W.
        residual_membrane: ``v(end)`` in units of the threshold, (B, C, H, W).
        trains: The spikes themselves in {-1, 0, 1} (graded ones: whole numbers), (S, B, C, H, W), int8, if they
            were asked for.
        counts: Spikes of each neuron over all steps, (B, C, H, W), int32, if they were asked for.
        membranes: ``v(t)`` after firing at each step in units of the threshold, (S, B, C, H, W), if they were asked
            for; the last is the residual membrane.
    """

    name: str
    spikes: Tensor
    neurons: int
    residual_membrane: Tensor
    trains: Tensor | None
    counts: Tensor | None = None
    membranes: Tensor | None = None

    @property
    def spikes_per_neuron(self) -> float:
        """Mean number of spikes of a neuron for one image."""
        return self.spikes.sum().item() / (self.spikes.shape[1] * self.neurons)

    def part(self, window: Window) -> "LayerTrace":
        """What the neurons of a window did; but for the whole, of a trace that has ``trains``, and not ``counts``."""
        if window == WHOLE:
            return self
        assert self.trains is not None
        assert self.counts is None
        trains = self.trains[(..., *window)]
        # step by step: torch sums bytes in a copy of eight times their size
        spikes = torch.stack([step.abs().sum((-2, -1)) for step in trains])
        return LayerTrace(self.name, spikes, trains[0, 0].numel(), self.residual_membrane[(..., *window)], trains)


@dataclass(frozen=True)
class Trace:
    """What a network did for one batch: its layers in order, at ``time_steps`` and ``schedule``."""

    time_steps: int
    schedule: Schedule
    image_size: tuple[int, int]
    layers: tuple[LayerTrace, ...]

    @property
    def spikes_per_neuron(self) -> float:
        """Mean number of spikes of a neuron for one image, over all layers."""
        total = sum(layer.spikes_per_neuron * layer.neurons for layer in self.layers)
        return total / sum(layer.neurons for layer in self.layers)

    def layer(self, name: str) -> LayerTrace:
        """The layer of a name.

        Raises:
            InputError: There is none.
        """
        found = {layer.name: layer for layer in self.layers}
        require_layers(found, (name,))
        return found[name]

    def within(self, windows: Mapping[str, Window]) -> "Trace":
        """What the neurons of each layer's window did, see :meth:`LayerTrace.part`."""
        return replace(self, layers=tuple(layer.part(windows[layer.name]) for layer in self.layers))

    def firing_rates(self) -> dict[str, float]:
        """Spikes per neuron and time step of each layer."""
        return {layer.name: layer.spikes_per_neuron / self.time_steps for layer in self.layers}


class SpikingNetwork(nn.Module):
    """A body of spiking neurons with its readout and image formation; image in, image out.

    Layers are simulated one after the other over all steps, which for a feed-forward network is the same as
    advancing them together. Without gradients no more than one layer's currents and spikes are alive at a time,
    besides what skips hold.

    Made by :func:`spikingir.convert`; nobody should need to call this constructor.

    Args:
        graph: The body; the last node is the output neuron. Its weights are copied.
        neurons: Neuron of each neuron node by name.
        config: Time steps, schedule, image formation.
        mapper: Pixel mapper, or None.

    Shape:
        ``(B, C, H, W)``, values in [0, 1], to the same; the output is not clipped.
    """

    def __init__(
        self,
        graph: Graph,
        neurons: Mapping[str, IFNeuron],
        config: SpikingConfig,
        mapper: PixelMapper | None = None,
    ) -> None:
        super().__init__()
        if not graph.nodes or graph.nodes[-1].role != "neuron":
            raise ValueError("a spiking network ends with its output neuron")
        self.nodes = graph.nodes
        self.config = config
        self.raw = dict(graph.raw)
        self.origin = graph.origin
        self.shares = dict(graph.shares)
        self.weight = nn.ParameterDict()
        self.bias = nn.ParameterDict()
        for name, (weight, bias) in graph.weights.items():
            self.weight[name] = nn.Parameter(weight.detach().clone())
            if bias is not None:
                self.bias[name] = nn.Parameter(bias.detach().clone())
        self.neurons = nn.ModuleDict(dict(neurons))
        self.mapper = mapper

    def at(
        self, *, time_steps: int | None = None, schedule: Schedule | None = None, coding: Coding | None = None
    ) -> "SpikingNetwork":
        """The same network, sharing its parameters, with other time steps, another schedule or another code.

        Raises:
            ValueError: ``time_steps`` below 1, an unknown schedule, a delay that does not fit; other time steps for a
                network that stays binary; neurons of a kind that has no equation for that schedule.
        """
        config = replace(
            self.config,
            time_steps=self.config.time_steps if time_steps is None else time_steps,
            schedule=self.config.schedule if schedule is None else schedule,
            coding=self.config.coding if coding is None else coding,
        )
        if config.coding == self.config.coding == "binary" and config.time_steps != self.config.time_steps:
            raise InputError(
                f"the network's binary code is for T = {self.config.time_steps}; it does not run at "
                f"T = {config.time_steps}"
            )
        if config.schedule != self.config.schedule:
            self._require_schedule(config)
        other = copy.copy(self)
        other.config = config
        return other

    def _require_schedule(self, config: SpikingConfig) -> None:
        """Refuse a schedule for neurons that would inherit another class's equation on it."""
        for name in self.layers:
            neuron = self.neuron(name)
            known = kind_of(neuron)
            fits = known is not None and (known[1].phased if config.phased else known[1].delayed or not config.delay)
            if not fits:
                what = type(neuron).__name__
                advice = "" if known else f", or register {what} in spikingir.spiking.kinds.NEURONS"
                raise InputError(
                    f"neuron '{name}' is of class {what}, which has no equation for the schedule {config.schedule!r}; "
                    f"keep {self.config.schedule!r}{advice}"
                )

    def levels(self, name: str) -> int:
        """Levels ``L`` of a layer's window on the phased schedule, see :func:`spikingir.spiking.coding.levels`."""
        return levels(self.config.coding, self.config.time_steps, self.neuron(name).activation_bits)

    @property
    def weights(self) -> Weights:
        """Weight and bias of each weighted operation by name."""
        names = {node.weights for node in self.nodes if node.weights is not None}
        return {name: (self.weight[name], self._bias(name)) for name in sorted(names)}

    @property
    def graph(self) -> Graph:
        """The body, with the parameters as they are now."""
        signed = frozenset(name for name in self.layers if self.neuron(name).signed)
        return Graph(
            self.nodes,
            self.weights,
            self.raw,
            self.config.input_channels,
            signed,
            origin=self.origin,
            shares=self.shares,
        )

    def _bias(self, name: str) -> Tensor | None:
        return self.bias[name] if name in self.bias else None  # noqa: SIM401 (ParameterDict.get is untyped)

    def neuron(self, name: str) -> IFNeuron:
        """The neuron of the node ``name``."""
        module = self.neurons[name]
        assert isinstance(module, IFNeuron)
        return module

    def add_current(self, name: str, current: Tensor) -> None:
        """Add a constant current to a layer: to the bias of what it reads, or through a node of its own.

        Shape:
            ``current``: (C,).
        """
        layer = next(node for node in self.nodes if node.name == name)
        source = next(node for node in self.nodes if node.name == layer.inputs[0])
        readers = sum(source.name in node.inputs for node in self.nodes)
        sharers = sum(node.weights == source.weights for node in self.nodes)
        if source.weights is not None and readers == 1 and sharers == 1:
            bias = self._bias(source.weights)
            self.bias[source.weights] = nn.Parameter(current.clone() if bias is None else bias.detach() + current)
            return
        added = Node(f"{name}_current", Affine.name, (source.name,), weights=f"{name}_current")
        self.weight[added.name] = nn.Parameter(torch.ones_like(current[:1]))
        self.bias[added.name] = nn.Parameter(current.clone())
        i = self.nodes.index(layer)
        self.nodes = (*self.nodes[:i], added, replace(layer, inputs=(added.name,)), *self.nodes[i + 1 :])

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the spiking layers, in order."""
        return tuple(node.name for node in self.nodes if node.role == "neuron")

    def compile_neurons(self, compiled: bool = True) -> None:
        """Run training through ``torch.compile``d neurons, or not; the numbers are the same."""
        for name in self.layers:
            self.neuron(name).compiled = compiled

    def forward(self, image: Tensor, level: Tensor | float | None = None) -> Tensor:
        """Restored image, not clipped.

        Args:
            image: Degraded image, or :func:`~spikingir.inputs.with_level` of it.
            level: Noise level in units of the image, where the network takes one and ``image`` does not hold it.
        """
        return self._restore(image if level is None else with_level(image, level), None, trains=False)

    def restore_and_count(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Restored image, and spikes a neuron of every layer, through which gradients flow as through the image.

        Shape:
            ``image`` and the restored image: (B, C, H, W); the counts: scalars, means over batch and neurons.
        """
        counts: dict[str, Tensor] = {}
        return self._restore(image, None, trains=False, counts=counts), counts

    @torch.no_grad()
    def trace(self, image: Tensor, *, trains: bool = False) -> tuple[Tensor, Trace]:
        """Restored image and what every layer did.

        Args:
            image: Degraded image.
            trains: Whether to keep the spikes themselves (memory: one byte per neuron and step).

        Shape:
            ``image`` and the restored image: (B, C, H, W).
        """
        layers: list[LayerTrace] = []
        restored = self._restore(image, layers, trains)
        return restored, Trace(
            self.config.time_steps, self.config.schedule, (image.shape[-2], image.shape[-1]), tuple(layers)
        )

    def _restore(
        self,
        image: Tensor,
        layers: list[LayerTrace] | None,
        trains: bool,
        counts: dict[str, Tensor] | None = None,
    ) -> Tensor:
        check_input(self.config, image.shape)
        fire = self._fire_phased if self.config.phased else self._fire_clocked
        output = self.nodes[-1].name
        read: list[Tensor] = []

        def neuron(node: Node, current: Wave, owned: bool) -> Wave:
            wave, decoded, leftover, spikes = fire(node, current, owned, layers, trains, last=node.name == output)
            if counts is not None:
                counts[node.name] = self._spikes_per_neuron(self.neuron(node.name), wave) if spikes is None else spikes
            if decoded is not None:
                with torch.autocast(image.device.type, enabled=False):  # pixels are worth float32
                    recycled = leftover if self.config.recycling else None
                    read.append(read_out(decoded, recycled, self.mapper, signed=self.neuron(node.name).signed))
            return wave

        graph = self.graph
        on_image = graph.on_image()

        def linear(node: Node, inputs: Sequence[Wave]) -> Wave:
            """Operations on the image itself stay in its precision: bfloat16 would cut it to 8 bits at once."""
            if node.name not in on_image:
                return graph.linear(node, inputs)
            with torch.autocast(image.device.type, enabled=False):
                return graph.linear(node, inputs)

        graph.run(image, neuron, linear)
        return form_image(self.config.formation, self.config.formed_from(image), read[0])

    def _spikes_per_neuron(self, neuron: IFNeuron, wave: Wave) -> Tensor:
        """Mean number of spikes, from their weighted sum."""
        steps, theta = self.config.time_steps, neuron.v_threshold.view(-1, 1, 1)
        if wave.spikes is None:
            assert wave.constant is not None
            if self.config.coding == "binary":
                raise ValueError("spikes of a binary network cannot be trained on: their number has no slope")
            return (wave.constant.abs() * steps / theta).mean()
        count = wave.spikes[:steps].abs().sum(0, dtype=theta.dtype) / theta
        if len(wave.spikes) > steps:
            count = count + wave.spikes[steps].abs() / (theta * neuron.beta.view(-1, 1, 1))
        return count.mean()

    def _fire_clocked(
        self,
        node: Node,
        current: Wave,
        owned: bool,
        layers: list[LayerTrace] | None,
        trains: bool,
        *,
        last: bool,
    ) -> tuple[Wave, Tensor | None, Tensor | None, Tensor | None]:
        """Spikes of one layer; for the last one also the decoded output and ``I``; spikes a neuron, with gradients."""
        neuron, config = self.neuron(node.name), self.config
        firing: Firing = neuron(*current, time_steps=config.time_steps, delay=config.delay, overwrite=owned)
        spikes, residual, count = firing
        mean_count = None if count is None else count / residual.numel()
        if layers is not None:
            theta = neuron.v_threshold.view(-1, 1, 1)
            layers.append(_clocked_trace(node.name, neuron, firing, residual / theta, trains))
        if not last:
            return Wave(spikes, None), None, None, mean_count
        decoded = spikes.to(residual.dtype).sum(0) / config.time_steps
        leftover = (residual - neuron.v0 * neuron.v_threshold.view(-1, 1, 1)) / config.time_steps
        return Wave(spikes, None), decoded, leftover, mean_count

    def _fire_phased(
        self,
        node: Node,
        current: Wave,
        owned: bool,
        layers: list[LayerTrace] | None,
        trains: bool,
        *,
        last: bool,
    ) -> tuple[Wave, Tensor | None, Tensor | None, Tensor | None]:
        """Decoded values of one layer, a whole window at once; for the last one also ``I``."""
        neuron = self.neuron(node.name)
        mean = current.constant
        assert mean is not None, "the phased schedule has no time-varying part"
        if last:
            mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
        decoded = neuron.quantise(mean, self.levels(node.name))
        if layers is not None:
            layers.append(_phased_trace(node.name, neuron, mean, decoded, self.config, trains))
        return Wave(None, decoded), decoded if last else None, mean - decoded if last else None, None


def _clocked_trace(name: str, neuron: IFNeuron, firing: Firing, residual: Tensor, trains: bool) -> LayerTrace:
    signs = neuron.spikes(firing.weighted_spikes)
    spikes = signs.abs().sum((-2, -1)).long()
    return LayerTrace(name, spikes, residual[0].numel(), residual, signs.to(torch.int8) if trains else None)


def _phased_trace(
    name: str, neuron: IFNeuron, mean: Tensor, decoded: Tensor, config: SpikingConfig, trains: bool
) -> LayerTrace:
    theta = neuron.v_threshold.view(-1, 1, 1)
    most = levels(config.coding, config.time_steps, neuron.activation_bits)
    counts = (decoded * most / theta).round()
    signs = spike_trains(counts, config.coding, config.time_steps).to(torch.int8) if trains else None
    residual = (mean - decoded) * most / theta
    spikes = spikes_per_step(counts, config.coding, config.time_steps)
    return LayerTrace(name, spikes, mean[0].numel(), residual, signs)


def require_layers(known: Iterable[str], wanted: Iterable[str]) -> None:
    """Whether a network has all layers of some names.

    Raises:
        InputError: It has not.
    """
    names = list(known)
    for name in wanted:
        if name not in names:
            raise InputError(f"there is no layer {name!r}; the network has {', '.join(names)}")


def check_input(config: SpikingConfig, shape: Sequence[int]) -> None:
    """Whether images of a shape have the channels that the body reads.

    Raises:
        ValueError: It has not.
    """
    channels = config.input_channels
    if len(shape) != 4 or shape[1] != channels:
        level = ", the last channel the noise level" if channels > config.channels else ""
        raise InputError(f"expected images of shape (B, {channels}, H, W){level}, got {tuple(shape)}")


def require_spiking(network: object) -> None:
    """Refuse what is no spiking network, such as a conventional or a folded one.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(network, SpikingNetwork):
        raise TypeError(f"expected a SpikingNetwork, as spikingir.convert makes it, got a {type(network).__name__}")
