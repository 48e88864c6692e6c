"""The kinds of neurons: what the package must know of one beyond its equation.

A class that is not in :data:`NEURONS`, by a decorator or by an entry point (:mod:`spikingir.plugins`), runs in a
network on the schedule that it was put in with. It is not folded, saved or given another schedule, since its own
equation would then be replaced by that of the class it derives from. A subclass is a kind of its own.

Example:
    A neuron that fires as an IF neuron does, and so folds to one::

        @NEURONS.register("loud", settings=IFSettings, folds=lambda neuron: neuron, phased=True)
        class LoudNeuron(IFNeuron): ...
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any

from torch import Tensor

from spikingir.plugins import Registry
from spikingir.schema import Range, SchemaError, parse
from spikingir.spiking.neurons import IFNeuron, MembranePotentialReuseNeuron, if_equation, mpr_equation
from spikingir.spiking.surrogate import Surrogate


@dataclass(frozen=True, kw_only=True)
class IFSettings:
    """Settings of an IF neuron in a file.

    A field without a default is an argument of the neuron's class, one with a default an attribute that is set
    afterwards: an optional key, left out where it has that value.
    """

    v0: Annotated[float, Range(0, 1, open_most=True)]
    signed: bool
    surrogate: Surrogate
    activation_bits: Annotated[int, Range(1, 8)] | None = None


@dataclass(frozen=True, kw_only=True)
class MPRSettings(IFSettings):
    """Settings of an MPR neuron in a file."""

    alpha: Annotated[float, Range(0.5, 1, open_least=True)]


@dataclass(frozen=True)
class NeuronKind:
    """A kind of neurons.

    Attributes:
        neuron: Its class, made from thresholds and, as keywords, its settings that have no default.
        settings: Dataclass of what a file keeps of it beside its tensors, each field an attribute of the neuron; None
            where files cannot hold it.
        folds: The IF or MPR neuron that fires the same spikes, for :func:`spikingir.fold`; None where there is none.
        phased: Whether its ``quantise`` is the phased schedule of its equation.
        delayed: Whether its ``forward`` takes a delay.
        takes: Names of the settings that conversion makes it with, beside the threshold.
        adapts: Whether calibration sets more of it than its threshold, through a method ``adapt``.
        equation: Its clocked equation for one pixel, step by step in Python's numbers, as the paper has it: weighted
            spikes from currents, one for each step. Tests hold its ``forward`` to it.
    """

    neuron: type[IFNeuron]
    settings: type[Any] | None = None
    folds: Callable[[Any], IFNeuron] | None = None
    phased: bool = False
    delayed: bool = False
    takes: tuple[str, ...] = ("v0", "signed", "surrogate")
    adapts: bool = False
    equation: Callable[[Any, Sequence[float]], list[float]] | None = None

    def to_json(self, neuron: IFNeuron) -> dict[str, Any]:
        """Settings of a neuron of this kind, as plain values."""
        assert self.settings is not None
        found = {field.name: (getattr(neuron, field.name), field.default) for field in fields(self.settings)}
        return {key: value for key, (value, default) in found.items() if default is MISSING or value != default}

    def from_json(self, threshold: Tensor, settings: Mapping[str, Any], where: str) -> IFNeuron:
        """The neuron of thresholds and settings.

        Raises:
            SchemaError: Settings that are unknown, missing, of the wrong type or out of range.
        """
        assert self.settings is not None
        found = parse(self.settings, settings, where)
        required = {f.name: getattr(found, f.name) for f in fields(self.settings) if f.default is MISSING}
        try:
            neuron = self.neuron(threshold, **required)
        except ValueError as error:
            raise SchemaError(f"{where}: {error}") from None
        for field in fields(self.settings):
            if field.name not in required:
                setattr(neuron, field.name, getattr(found, field.name))
        return neuron


_OWN = {
    "if": NeuronKind(IFNeuron, IFSettings, lambda neuron: neuron, phased=True, delayed=True, equation=if_equation),
    "mprn": NeuronKind(
        MembranePotentialReuseNeuron,
        MPRSettings,
        lambda neuron: neuron,
        phased=True,
        delayed=True,
        takes=("v0", "signed", "surrogate", "alpha", "beta"),
        equation=mpr_equation,
    ),
}

NEURONS: Registry[NeuronKind] = Registry(
    "spikingir.neurons", "neuron", NeuronKind, lambda name, neuron, **options: NeuronKind(neuron, **options), _OWN
)
"""The kinds that are known, by the name that files give them."""


def kind_of(neuron: IFNeuron) -> tuple[str, NeuronKind] | None:
    """Name and kind of a neuron, by its class alone; None where it is not registered."""
    return next(((name, kind) for name, kind in NEURONS.usable() if kind.neuron is type(neuron)), None)
