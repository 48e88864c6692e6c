"""What became of each operation, as a table."""

from collections import Counter
from dataclasses import dataclass

from spikingir.spiking.network import SpikingNetwork, require_spiking


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        method: Conversion method.
        operations: (place, operation, fate) of every operation of the network; fate is converted (a neuron took its
            place), kept (runs as it was), folded (into the weights before it), rewritten (exactly, and as what) or
            replaced (by straight pieces, with the worst error over the calibrated range).
        thresholds: Layer, smallest and largest threshold, number of thresholds.
        analog: Weighted operations that read analog sums rather than spikes, and so cost multiply-accumulates.
    """

    method: str
    operations: tuple[tuple[str, str, str], ...]
    thresholds: tuple[tuple[str, float, float, int], ...]
    analog: tuple[str, ...]

    def __str__(self) -> str:
        fates = Counter(fate.split()[0].rstrip(":") for _, _, fate in self.operations)
        lines = [f"method {self.method}: " + ", ".join(f"{n} {fate}" for fate, n in fates.items())]
        width = max((len(place) for place, _, _ in self.operations), default=0)
        lines += [f"  {place:<{width}}  {what:<16} {fate}" for place, what, fate in self.operations]
        lines.append("thresholds")
        lines += [f"  {name:<{width}}  {low:.4g} to {high:.4g} ({n})" for name, low, high, n in self.thresholds]
        if self.analog:
            lines.append(f"multiply-accumulates on analog sums: {', '.join(self.analog)}")
        return "\n".join(lines)


def report(network: SpikingNetwork) -> ConversionReport:
    """Report of a converted network.

    Raises:
        TypeError: It is no spiking network.
    """
    require_spiking(network)
    thresholds = []
    for name in network.layers:
        theta = network.neuron(name).v_threshold
        thresholds.append((name, theta.min().item(), theta.max().item(), theta.numel()))
    return ConversionReport(network.config.method, network.origin, tuple(thresholds), network.graph.analog_operations())
