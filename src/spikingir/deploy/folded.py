"""A folded network at work: pure 0/1 (or -1/0/1) spikes, sums that are exact in any order.

Made by :func:`spikingir.fold`, which explains the form.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from spikingir.errors import InputError
from spikingir.graph.graph import Graph, Node, Wave, constant_part, spiking_part
from spikingir.inputs import with_level
from spikingir.spiking.coding import spike_trains, spikes_per_step
from spikingir.spiking.firing import Clock, clocked_inference
from spikingir.spiking.formation import form_image
from spikingir.spiking.network import LayerTrace, SpikingConfig, Trace, check_input

IMAGE_BITS = 20
BINARY_IMAGE_BITS = 12
"""Of binary networks: below any photograph's noise, and short enough for sums of integers."""
MAX_IMAGE = 8.0


def image_bits(config: SpikingConfig) -> int:
    """Bits behind the point of the image, as a body on a grid sees it."""
    return BINARY_IMAGE_BITS if config.coding == "binary" else IMAGE_BITS


def on_grid(x: Tensor, grid: Tensor) -> Tensor:
    """``x`` rounded to multiples of ``1 / grid``."""
    return (x * grid).round() / grid


class Kernel(nn.Module):
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

    @property
    def weight(self) -> Tensor:
        """Weights in the conventional network."""
        return self.analog

    def round(self, x: Tensor) -> Tensor:
        """``x`` (..., C, H, W) on the grid."""
        return x if self.grid is None else on_grid(x, self.grid.view(-1, 1, 1))


class FoldedNetwork(nn.Module):
    """The deployment form of a spiking network; made by :func:`fold`. For inference.

    Attributes:
        config: Time steps, schedule, image formation.
        nodes: The body.
        scalings: Nodes that folding put in: factors of wires whose thresholds cannot follow them.
        shares: See :attr:`~spikingir.graph.graph.Graph.shares`.
        kernels: Weights by node.
        clocks: What each layer does at each of its steps, by name.
        levels: Levels ``L`` of each layer on the phased schedule, by name.
        gridded: Whether all numbers lie on a grid, so that sums are exact. If not, weights are in units of the image.
        wide: Layers whose sums float32 does not hold; they have float64.

    Shape:
        ``(B, C, H, W)``, values in [0, 1] (magnitudes to 8 are exact), to the same dtype and shape; not clipped.
    """

    theta: Tensor

    def __init__(
        self,
        config: SpikingConfig,
        nodes: Sequence[Node],
        kernels: Mapping[str, Kernel],
        betas: Mapping[str, Tensor],
        clocks: Mapping[str, Clock],
        spiking: frozenset[str],
        mapper: Kernel,
        theta: Tensor,
        levels: Mapping[str, int],
        gridded: bool,
        dtype: torch.dtype,
        scalings: frozenset[str] = frozenset(),
        raw: Mapping[str, Callable[..., Tensor]] = MappingProxyType({}),
        precision: torch.dtype = torch.float32,
        shares: Mapping[str, float] = MappingProxyType({}),
        thresholds: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.config = config
        self.nodes = tuple(nodes)
        self.scalings = scalings
        self.shares = dict(shares)
        self.kernels = nn.ModuleDict(dict(kernels))
        self.mapper = mapper
        self.dtype = dtype
        self.clocks = dict(clocks)
        for name, beta in betas.items():
            self.register_buffer(f"beta_{name}", beta)
        self.register_buffer("theta", theta)
        for name, threshold in thresholds.items():
            self.register_buffer(f"threshold_{name}", threshold)
        self.levels = dict(levels)
        self.gridded = gridded
        self.image_bits = image_bits(config)
        self.raw = {name: _in_precision(name, f, precision, gridded, self.image_bits) for name, f in raw.items()}
        self.spiking = spiking  # wires whose spiking part is whole numbers of spikes, whatever constant is beside it
        self.wide = self._wide_layers()

    @property
    def graph(self) -> Graph:
        """The body, with the weights of its conventional network."""
        # pooling and resizing have weights of their own; this form keeps no more than a grid for them
        kernels = {node.name: self.kernel(node.name) for node in self.nodes if node.weights is not None}
        weights = {
            name: (kernel.spike.double() if name in self.scalings else kernel.analog, kernel.bias)
            for name, kernel in kernels.items()
            if kernel is not None
        }
        signed = frozenset(name for name, clock in self.clocks.items() if clock.signed)
        return Graph(
            self.nodes,
            weights,
            self.raw,
            self.config.input_channels,
            signed,
            scalings=self.scalings,
            shares=self.shares,
        )

    def without_formation(self) -> "FoldedNetwork":
        """The body alone, which gives what it makes of the image: the same weights, not copied."""
        body = copy.copy(self)  # a module's parts are in dictionaries, which the two then share
        body.config = replace(self.config, formation="identity")
        return body

    @property
    def exponents(self) -> dict[str, tuple[int, int]]:
        """Coarsest and finest grid exponent ``k`` of each weighted operation; empty without a grid."""
        found = {}
        for name, kernel in self.kernels.items():
            if isinstance(kernel, Kernel) and kernel.grid is not None:
                exponent = kernel.grid.log2()
                found[name] = (int(exponent.min()), int(exponent.max()))
        return found

    def forward(self, image: Tensor, level: Tensor | float | None = None) -> Tensor:
        """Restored image, not clipped; see :meth:`SpikingNetwork.forward`."""
        return self._restore(image if level is None else with_level(image, level), None, trains=False)

    def trace(self, image: Tensor, *, trains: bool = False) -> tuple[Tensor, Trace]:
        """Restored image and what every layer did; see :meth:`SpikingNetwork.trace`."""
        layers: list[LayerTrace] = []
        restored = self._restore(image, layers, trains)
        size = (image.shape[-2], image.shape[-1])
        return restored, Trace(self.config.time_steps, self.config.schedule, size, tuple(layers))

    @torch.no_grad()
    def record(
        self, image: Tensor, *, layers: Iterable[str] | None = None, membranes: bool = True
    ) -> tuple[Tensor, Trace]:
        """The image so far at every step, and the state of layers; the image may change from step to step.

        On the clocked schedule all layers advance together: a spike passes all of them within its step. Output t is
        that of the network stopped after step t: ``Mapper(sum_{u<=t} s(u)) / t``, and with recycling
        ``(v(t) - v(0)) / t``; after the extended step it is the network's own. Of frames, step t has frame t as its
        current, the image is formed of the mean of the frames so far, and the extended step has no current, as ever.

        On the phased schedule a step is one of a layer's own window, in which its spikes leave; its membrane starts
        with all that it collected, and there is one output, behind the last layer's window.

        Args:
            image: Degraded image, or one frame for each of the T steps (clocked alone).
            layers: Names of layers whose spikes (``trains``) and membranes are kept; all unless given.
            membranes: Whether to keep membranes.

        Returns:
            Outputs, the last of which is ``network(image)``, on a grid bit for bit; and what :meth:`trace` gives,
            with ``trains`` in {-1, 0, 1} and ``membranes`` after firing, in units of the threshold, of the layers
            named.

        Shape:
            ``image``: (B, C, H, W), or frames (T, B, C, H, W). Outputs: (S, B, C, H, W), S with the extended step;
            phased (1, B, C, H, W). Trains and membranes: (S, B, C', H', W') of each layer.

        Raises:
            InputError: No such layer; another number of frames than T; frames on the phased schedule; a delay.

        Source:
            SpikingIR, Eq. 1-7; docs/method.md, sections 2 and 3.
        """
        from spikingir.deploy.steps import record  # which runs this class

        return record(self, image, tuple(self.clocks) if layers is None else tuple(layers), membranes)

    def on_image_grid(self, image: Tensor) -> Tensor:
        """The image as the body sees it: float64, on a grid of ``2^-20`` (a binary network's: ``2^-12``) if gridded.

        Raises:
            ValueError: An image of another shape, or values beyond what is exact.
        """
        check_input(self.config, image.shape)
        exact = image.double()
        if self.gridded:
            exact = _on_image_grid(exact, "image values", self.image_bits)
        return exact

    @torch.no_grad()
    def _restore(self, image: Tensor, layers: list[LayerTrace] | None, trains: bool) -> Tensor:
        exact = self.on_image_grid(image)
        with exact_convolutions():
            return self.run(image, exact, layers, trains)

    def run(self, image: Tensor, exact: Tensor, layers: list[LayerTrace] | None, trains: bool) -> Tensor:
        """Restored image of an image and its values :meth:`on_image_grid`; nothing is checked, settings are as outside.

        ``layers`` collects what every layer did, with the spikes themselves if ``trains``.
        """
        read: list[Tensor] = []
        last = self.nodes[-1].name

        def neuron(node: Node, current: Wave, owned: bool) -> Wave:
            spikes, residual = self._fire(node, current, owned)
            if layers is not None:
                layers.append(self._layer_trace(node, spikes, residual, trains))
            if node.name == last:
                read.append(self.read(spikes, residual))
            return Wave(spikes, None)

        self.graph.run(exact, neuron, self.linear)
        restored = form_image(self.config.formation, self.config.formed_from(image).double(), read[0])
        return restored.to(image.dtype)

    def _wide_layers(self) -> frozenset[str]:
        """Layers that read a kernel in float64, between them and the layers before."""
        held: dict[str, bool] = {}
        wide = set()
        for node in self.nodes:
            kernel, read = self.kernel(node.name), any(held[name] for name in node.reads)
            if node.role == "neuron" and read:
                wide.add(node.name)
            if kernel is not None:
                read = kernel.spike.dtype == torch.float64
            held[node.name] = read and node.role != "neuron"
        return frozenset(wide)

    def kernel(self, name: str) -> Kernel | None:
        """Weights of the node ``name``, if it has any."""
        kernel = self.kernels[name] if name in self.kernels else None  # noqa: SIM401 (ModuleDict has no get)
        assert kernel is None or isinstance(kernel, Kernel)
        return kernel

    def linear(self, node: Node, inputs: Sequence[Wave], extended: bool = False) -> Wave:
        """What an operation between neurons makes of its inputs: of all steps, or of the extended one alone."""
        kernel = self.kernel(node.name)
        if kernel is None:
            inputs = _in_one_precision(inputs)
            constant = constant_part(node, inputs, None)
            return Wave(spiking_part(node, inputs, None), constant)
        constant = constant_part(node, inputs, kernel.analog)
        if kernel.bias is not None:
            shift = kernel.bias.view(1, -1, 1, 1)
            constant = shift if constant is None else constant + shift
        constant = None if constant is None else kernel.round(constant)
        if not node.operation.fixed and self.spiking.issuperset(node.inputs):
            return Wave(self._weigh(node, inputs, kernel, extended), constant)
        analog = [Wave(None if w.spikes is None else w.spikes.double(), w.constant) for w in inputs]
        spikes = spiking_part(node, analog, kernel.spike.double())
        return Wave(None if spikes is None else kernel.round(spikes), constant)

    def _weigh(self, node: Node, inputs: Sequence[Wave], kernel: Kernel, extended: bool) -> Tensor:
        """Weighted sums of 0/1 spikes, with weights of their own at the extended step, the last or the only one."""
        steps, dtype = self.config.time_steps, kernel.spike.dtype
        inputs = [Wave(None if w.spikes is None else w.spikes.to(dtype), w.constant) for w in inputs]
        if extended:
            only = spiking_part(node, inputs, kernel.extended)
            assert only is not None
            return only
        regular = [Wave(None if w.spikes is None else w.spikes[:steps], w.constant) for w in inputs]
        sums = spiking_part(node, regular, kernel.spike)
        assert sums is not None
        if all(w.spikes is None or len(w.spikes) <= steps for w in inputs):
            return sums
        last_step = [Wave(None if w.spikes is None else w.spikes[steps:], w.constant) for w in inputs]
        last = spiking_part(node, last_step, kernel.extended)
        assert last is not None
        return torch.cat([sums, last])

    def _fire(self, node: Node, current: Wave, owned: bool) -> tuple[Tensor, Tensor]:
        """Spikes in {-1, 0, 1}, (S, B, C, H, W); phased: their number in the window, (1, B, C, H, W). And v(end)."""
        clock, config = self.clocks[node.name], self.config
        dtype = self.dtype_of(node.name)
        spikes = None if current.spikes is None else current.spikes.to(dtype)
        constant = None if current.constant is None else current.constant.to(dtype)
        if config.phased:
            total: Tensor | float = 0.0 if spikes is None else spikes[0]
            most = self.levels[node.name]
            if self.gridded:
                v = total if constant is None else constant * most + total
            else:
                mean = total if constant is None else constant + total
                v = mean * most / self.threshold(node.name).view(-1, 1, 1)
            assert isinstance(v, Tensor)
            counts = (v + 0.5).floor().clamp(-most if clock.signed else 0, most)
            return counts[None], v - counts
        shape = spikes.shape[1:] if spikes is not None else constant.shape  # type: ignore[union-attr]
        batch, channels, height, width = shape
        flat = None if spikes is None else spikes.movedim(2, -1).reshape(len(spikes), -1, channels)
        if constant is None:
            still = self.theta.new_zeros(1, channels, dtype=dtype)
        elif constant.shape == (1, channels, 1, 1):
            still = constant.view(1, channels)
        else:
            still = constant.expand(shape).movedim(1, -1).reshape(-1, channels)
        theta, beta = self.threshold(node.name).to(dtype), self.beta(node.name).to(dtype)
        fired, residual = clocked_inference(flat, still, theta, beta, clock, overwrite=owned)
        if not self.gridded:
            fired, residual = fired.sign_(), residual / theta
        elif clock.extended:
            fired[-1].sign_()
        return (
            fired.view(-1, batch, height, width, channels).permute(0, 1, 4, 2, 3),
            residual.view(batch, height, width, channels).permute(0, 3, 1, 2),
        )

    def beta(self, name: str) -> Tensor:
        """Amplitude of a layer's extended step in units of the threshold, (C,), float64."""
        beta: Tensor = getattr(self, f"beta_{name}")
        return beta

    def dtype_of(self, name: str) -> torch.dtype:
        """What holds the membranes of a layer."""
        return torch.float64 if name in self.wide else self.dtype

    def threshold(self, name: str) -> Tensor:
        """What a layer's membrane is compared with, (C,), float64: 1 on a grid."""
        if self.gridded:
            return self.theta.new_ones(1)
        threshold: Tensor = getattr(self, f"threshold_{name}")
        return threshold

    def read(self, spikes: Tensor, residual: Tensor, time_steps: int | None = None) -> Tensor:
        """Body output in float64, from the spikes and residual membranes of the last layer: the mapper, and ``I``.

        Args:
            spikes: Its spikes.
            residual: What is left on its membranes.
            time_steps: Steps that the spikes are of, clocked; all T unless given.

        Shape:
            ``spikes``: (S, B, C, H, W) in {-1, 0, 1}, phased (1, B, C, H, W) their number; ``residual`` and the
            result: (B, C, H, W).
        """
        steps, kernel, last = time_steps or self.config.time_steps, self.mapper, self.nodes[-1].name
        clock, most = self.clocks[last], self.levels.get(last, steps)
        padding = kernel.spike.shape[-1] // 2
        counts = spikes[:steps].double().sum(0)
        total = nn.functional.conv2d(counts, kernel.spike, padding=padding)
        if len(spikes) > steps:
            total = total + nn.functional.conv2d(spikes[steps].double(), kernel.extended, padding=padding)
        output = total / most
        if kernel.bias is not None:
            output = output + kernel.bias.view(1, -1, 1, 1)
        if self.config.recycling:
            start = 0.0 if self.config.phased else clock.v0
            output = output + (residual.double() - start) * self.theta.view(1, -1, 1, 1) / most
        return output if clock.signed else torch.relu(output)

    def _layer_trace(self, node: Node, spikes: Tensor, residual: Tensor, trains: bool) -> LayerTrace:
        steps = self.config.time_steps
        if self.config.phased:
            counts = spikes_per_step(spikes[0], self.config.coding, steps)
            spikes = spike_trains(spikes[0], self.config.coding, steps) if trains else spikes
        else:
            counts = spikes.abs().sum((-2, -1)).long()
        return LayerTrace(node.name, counts, residual[0].numel(), residual, spikes.to(torch.int8) if trains else None)


def _in_one_precision(inputs: Sequence[Wave]) -> Sequence[Wave]:
    """Spiking parts in float64 where one of them is."""
    if all(wave.spikes is None or wave.spikes.dtype != torch.float64 for wave in inputs):
        return inputs
    return [Wave(None if wave.spikes is None else wave.spikes.double(), wave.constant) for wave in inputs]


def _in_precision(
    name: str, function: Callable[..., Tensor], dtype: torch.dtype, gridded: bool, bits: int
) -> Callable[..., Tensor]:
    """A user's function on the image, run in the precision of the network and put on the image's grid, if any."""

    def run(*images: Tensor) -> Tensor:
        result = function(*(image.to(dtype) for image in images)).double()
        return _on_image_grid(result, f"what '{name}' makes of the image", bits) if gridded else result

    return run


def _on_image_grid(values: Tensor, what: str, bits: int) -> Tensor:
    """Values as a body sees them, multiples of ``2^-bits``, within what its sums are exact for.

    Raises:
        ValueError: They are beyond it.
    """
    if not values.abs().max() <= MAX_IMAGE:
        raise InputError(f"{what} must be finite and within {MAX_IMAGE:g} in magnitude")
    return on_grid(values, values.new_tensor(2.0**bits))


@contextmanager
def exact_convolutions() -> Iterator[None]:
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
