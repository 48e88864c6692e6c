"""A folded network step by step: its state in the open, and images that change with the step.

:meth:`spikingir.FoldedNetwork.record` says what it gives. Clocked, the whole network advances by one step at a time and
keeps a membrane for each neuron and nothing else, as hardware does. On a grid all sums are exact, so that spikes and
images are those of :meth:`~spikingir.FoldedNetwork.forward`, which takes all steps of a layer at once, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spikingir.deploy.folded import FoldedNetwork, exact_convolutions
from spikingir.errors import InputError
from spikingir.graph.graph import Node, Wave
from spikingir.spiking.firing import fire
from spikingir.spiking.formation import form_image
from spikingir.spiking.network import LayerTrace, Trace, check_input, require_layers


def record(network: FoldedNetwork, image: Tensor, layers: Sequence[str], membranes: bool) -> tuple[Tensor, Trace]:
    """See :meth:`spikingir.FoldedNetwork.record`."""
    require_layers(network.clocks, layers)
    config = network.config
    if config.phased:
        return _windows(network, image, layers, membranes)
    if config.delay:
        raise InputError(
            f"the network runs {config.clock}, where each layer has steps of its own; record it clocked or phased"
        )
    return _clocked(network, _frames(network, image), layers, membranes)


def _frames(network: FoldedNetwork, image: Tensor) -> Sequence[Tensor]:
    """The image of each step 1..T."""
    steps = network.config.time_steps
    if image.dim() != 5:
        check_input(network.config, image.shape)
        return [image] * steps
    if len(image) != steps:
        raise InputError(
            f"there are {len(image)} frames for T = {steps} steps; give one for each, or fold "
            f"network.at(time_steps={len(image)})"
        )
    return image.unbind()


def _windows(network: FoldedNetwork, image: Tensor, layers: Sequence[str], membranes: bool) -> tuple[Tensor, Trace]:
    """Of the phased schedule: what spikes take off the membrane at each step of a layer's window."""
    if image.dim() == 5:
        raise InputError(
            f"the network runs {network.config.clock}: a layer fires after its whole window and knows the mean of the "
            "frames alone; give that as an image, or run clocked"
        )
    restored, trace = network.trace(image, trains=True)
    steps = network.config.time_steps
    each = torch.tensor([2 ** (steps - 1 - t) if network.config.coding == "binary" else 1 for t in range(steps)])

    def of(layer: LayerTrace) -> LayerTrace:
        if layer.name not in layers:
            return replace(layer, trains=None)
        assert layer.trains is not None
        left = layer.residual_membrane
        later = (layer.trains * each.view(-1, 1, 1, 1, 1)).flip(0).cumsum(0).flip(0)[1:].to(left.dtype)
        return replace(layer, membranes=torch.cat([left + later, left[None]]) if membranes else None)

    return restored[None], replace(trace, layers=tuple(of(layer) for layer in trace.layers))


class _State:
    """The membranes of a clocked network, in the units of its sums, and the spikes of its last step."""

    def __init__(self, network: FoldedNetwork) -> None:
        self.network = network
        self.graph = network.graph
        self.membranes: dict[str, Tensor] = {}
        self.spikes: dict[str, Tensor] = {}

    def advance(self, exact: Tensor, extended: bool) -> None:
        """One step.

        Args:
            exact: The image on its grid; at the extended step its size alone counts.
            extended: Whether it is the extended step.
        """

        def linear(node: Node, inputs: Sequence[Wave]) -> Wave:
            return self.network.linear(node, inputs, extended)

        def neuron(node: Node, current: Wave, owned: bool) -> Wave:
            spikes = self.spikes[node.name] = self._fire(node.name, current, extended)
            return Wave(spikes[None], None)

        self.graph.run(exact, neuron, linear)

    def _fire(self, name: str, current: Wave, extended: bool) -> Tensor:
        """Spikes in {-1, 0, 1} of one layer."""
        network, clock = self.network, self.network.clocks[name]
        dtype = network.dtype_of(name)
        theta, beta = (number.to(dtype).view(-1, 1, 1) for number in (network.threshold(name), network.beta(name)))
        parts = (None if current.spikes is None else current.spikes[0], None if extended else current.constant)
        read = sum((part.to(dtype) for part in parts if part is not None), theta.new_zeros(()))
        v = self.membranes.get(name, clock.v0 * theta) + read
        level, amplitude = (clock.alpha * theta, beta * theta) if extended else (theta, theta)
        weighted = fire(v, level, amplitude, clock.signed)
        self.membranes[name] = v - weighted
        return weighted.sign()

    def in_thresholds(self, name: str) -> Tensor:
        """A layer's membranes in units of its threshold."""
        return self.membranes[name] / self.network.threshold(name).to(self.membranes[name].dtype).view(-1, 1, 1)


@torch.no_grad()
def _clocked(
    network: FoldedNetwork, frames: Sequence[Tensor], layers: Sequence[str], membranes: bool
) -> tuple[Tensor, Trace]:
    config, last, state = network.config, network.nodes[-1].name, _State(network)
    mean = exact = torch.empty(0)
    read: list[Tensor] = []
    outputs: list[Tensor] = []
    kept: dict[str, list[tuple[Tensor, Tensor | None]]] = {name: [] for name in layers}
    counts: dict[str, list[Tensor]] = {name: [] for name in network.clocks}
    for step in range(network.clocks[last].steps):
        extended = step == config.time_steps
        if not extended:
            if step == 0 or frames[step] is not frames[step - 1]:
                exact = network.on_image_grid(frames[step])
            double = frames[step].double()
            mean = double if step == 0 else mean + (double - mean) / (step + 1)  # of frames alike the frame, exactly
        with exact_convolutions():
            state.advance(exact, extended)
            read.append(state.spikes[last])
            output = network.read(torch.stack(read), state.in_thresholds(last), min(step + 1, config.time_steps))
        outputs.append(form_image(config.formation, config.formed_from(mean), output).to(frames[0].dtype))
        for name, count in counts.items():
            count.append(state.spikes[name].abs().sum((-2, -1)).long())
        for name, kept_steps in kept.items():
            kept_steps.append((state.spikes[name].to(torch.int8), state.in_thresholds(name) if membranes else None))
    traces = tuple(_layer_trace(state, name, counts[name], kept.get(name)) for name in network.clocks)
    size = (frames[0].shape[-2], frames[0].shape[-1])
    return torch.stack(outputs), Trace(config.time_steps, config.schedule, size, traces)


def _layer_trace(
    state: _State, name: str, counts: Sequence[Tensor], kept: Sequence[tuple[Tensor, Tensor | None]] | None
) -> LayerTrace:
    residual = state.in_thresholds(name)
    trace = LayerTrace(name, torch.stack(list(counts)), residual[0].numel(), residual, None)
    if kept is None:
        return trace
    membranes = [v for _, v in kept if v is not None]
    return replace(
        trace,
        trains=torch.stack([spikes for spikes, _ in kept]),
        membranes=torch.stack(membranes) if membranes else None,
    )
