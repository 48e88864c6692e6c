"""Conversion of a network to a spiking one: SpikingIR's method and its baselines."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from spikingir.conversion.calibrate import CalibrationImages, calibrate, channel_means, image_batches
from spikingir.conversion.lan import AdaptiveThresholdNeuron
from spikingir.errors import InputError
from spikingir.graph.activations import Smooth
from spikingir.graph.errors import ConversionError
from spikingir.graph.graph import Fire, Graph, Node, Wave
from spikingir.graph.trace import trace_body
from spikingir.plugins import PluginError, Registry
from spikingir.spiking.coding import Coding
from spikingir.spiking.firing import phased_forward
from spikingir.spiking.formation import ImageFormation
from spikingir.spiking.kinds import NEURONS
from spikingir.spiking.network import Schedule, SpikingConfig, SpikingNetwork
from spikingir.spiking.neurons import IFNeuron
from spikingir.spiking.readout import PixelMapper
from spikingir.spiking.surrogate import Surrogate


@dataclass(frozen=True)
class Method:
    """Defaults of a conversion method; ``convert`` takes each of them as an argument.

    Attributes:
        neuron: Key of :data:`~spikingir.spiking.kinds.NEURONS`.
        v0: Initial membrane in thresholds.
        percentile: Of the activations, for the clip level.
        per_channel: One threshold per channel, or per layer.
        mapper: Whether a pixel mapper reads the last layer.
        recycling: Whether the residual membrane is added to the output.
        source: Publication.
        own_levels: Whether the network must bring clip levels and steps that it was trained with.
    """

    neuron: str
    v0: float
    percentile: float
    per_channel: bool
    mapper: bool
    recycling: bool
    source: str
    own_levels: bool = False


def _method(name: str, neuron: type[IFNeuron], **options: Any) -> Method:
    """A method that puts in the neurons of a registered class."""
    key = next((key for key, kind in NEURONS.usable() if kind.neuron is neuron), None)
    if key is None:
        raise PluginError(
            f"the conversion method {name!r} puts in {neuron.__name__}, which is no registered neuron; decorate it by "
            "NEURONS.register first"
        )
    return Method(key, **options)


METHODS: Registry[Method] = Registry(
    "spikingir.methods",
    "conversion method",
    Method,
    _method,
    {
        "spikingir": Method("mprn", 0.0, 99.9, True, True, True, "SpikingIR (Ouyang, Xu, Yu, Lin)"),
        "if": Method("if", 0.5, 99.9, True, False, False, "IF neuron with v0 = 1/2; not in the paper"),
        "rueckauer": Method("if", 0.0, 99.9, False, False, False, "Rueckauer et al. 2017"),
        "qcfs": Method("if", 0.5, 100.0, False, False, False, "Bu et al. 2022", own_levels=True),
        "lan": Method("lan", 0.0, 99.9, False, False, False, "Lan et al. 2023 (reconstruction)"),
        # with neither mapper nor spikes to decode, recycling reads the output's membrane
        "dnsnn": Method("if", 0.0, 99.9, True, False, True, "DnSNN / SPIDEN 2023: trained from random weights"),
    },
)
"""The methods by name. A package of one's own adds to them by an entry point, or by a decorator of the class of its
neurons (:mod:`spikingir.plugins`)."""


def convert(
    network: nn.Module,
    calibration_images: CalibrationImages,
    method: str = "spikingir",
    *,
    time_steps: int = 10,
    schedule: Schedule = "clocked",
    coding: Coding = "unary",
    activation_bits: Sequence[int] = (),
    percentile: float | None = None,
    per_channel: bool | None = None,
    v0: float | None = None,
    alpha: float | None = None,
    beta: float = 1.0,
    mapper: bool | None = None,
    recycling: bool | None = None,
    bias_correction: bool = False,
    surrogate: Surrogate = "triangle",
    pieces: int | None = None,
) -> SpikingNetwork:
    """Convert a trained network to a spiking one.

    Batch norm is folded, each ReLU becomes a spiking neuron with ``theta = lambda`` from calibration, weights stay
    raw; a body that does not end in a ReLU gets a signed output neuron. What cannot be converted is refused by name
    and place. The network itself is not changed. It is converted as it is in eval mode (a warning says so where that
    makes a difference), in float32 where it is in half precision or bfloat16, and without what only runs it
    (``DataParallel``, ``torch.compile``).

    Args:
        network: A :class:`~spikingir.networks.base.RestorationNetwork`, or any module from image to image, which is
            then a body whose image formation is the identity.
        calibration_images: Degraded images, in [0, 1]: a tensor or an iterable of tensors.
        method: ``spikingir``; or a baseline: ``if`` (v0 = 1/2), ``rueckauer``, ``qcfs`` (the network must have been
            trained with :class:`~spikingir.conversion.qcfs.QCFS` activations), ``lan``, ``dnsnn`` (what is trained by
            surrogate gradients alone starts so, from random weights).
        time_steps: ``T``.
        schedule: See :class:`~spikingir.spiking.network.SpikingConfig`.
        coding: Likewise.
        activation_bits: Of a binary network, bits of its layers by resolution, finest first, the last for all that
            are coarser; ``time_steps`` of each unless given. Layers that the network itself quantises
            (:class:`~spikingir.conversion.qcfs.QCFS`) keep their own levels.
        percentile: Of the activations, in (0, 100]; 100 is the exact maximum. Default by method.
        per_channel: Thresholds per channel or per layer. Default by method.
        v0: Initial membrane in thresholds. Default by method.
        alpha: Firing level of the extended step, in (0.5, 1], at least ``v0 + 1/2`` (MPRN); by default a little above
            that, its optimum.
        beta: Initial amplitude of the extended step (MPRN).
        mapper: Whether to add a pixel mapper, initialised to the identity. Default by method.
        recycling: Whether to add the residual membrane to the output. Default by method.
        bias_correction: Whether to run :func:`correct_biases` on the calibration images.
        surrogate: ``triangle``, ``rectangle`` or ``arctan``, for fine-tuning.
        pieces: Straight pieces that replace each smooth activation (GELU, SiLU, tanh, sigmoid, ...), over the range
            that it reads on the calibration images; :func:`~spikingir.report` tells the worst error of each, and of
            the whole network. Unless given, they are refused. Leaky ReLUs, clamps and max pooling need none: they
            are rewritten exactly.

    Shape:
        ``calibration_images``: (B, C, H, W), or pieces of that shape or (C, H, W).

    Raises:
        ConversionError: The network cannot be traced or holds an operation that is not linear, NaN weights; images
            that are missing, of the wrong channel count, not finite or not in [0, 1]; QCFS without QCFS activations;
            what is no network to convert (spiking already, TorchScript, a file's name).
        InputError: ``pieces`` out of range.
        ValueError: Time steps, alpha, v0, beta, percentile, surrogate or schedule out of range; unknown method.

    Source:
        SpikingIR, section "ANN-SNN conversion"; Rueckauer et al. 2017 for the clip levels.

    Example:
        >>> body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
        >>> snn = convert(body, torch.rand(2, 1, 16, 16), time_steps=8)
        >>> snn(torch.rand(1, 1, 16, 16)).shape
        torch.Size([1, 1, 16, 16])
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known ones: {', '.join(METHODS)}")
    preset = METHODS[method]
    kind = NEURONS[preset.neuron]
    percentile = preset.percentile if percentile is None else percentile
    per_channel = preset.per_channel if per_channel is None else per_channel
    v0 = preset.v0 if v0 is None else v0
    mapper = preset.mapper if mapper is None else mapper
    recycling = preset.recycling if recycling is None else recycling
    body, formation = _body_and_formation(network)
    body = _plain_copy(body)
    smooth = None
    if pieces is not None:
        if not 2 <= pieces <= 64:
            raise InputError(f"pieces is {pieces}; expected 2 to 64 straight pieces for a smooth activation")
        calibration_images = list(image_batches(calibration_images))
        dtype = next((p.dtype for p in body.parameters()), torch.float32)
        smooth = Smooth(pieces, [batch.cpu().to(dtype) for batch in calibration_images])
    graph = trace_body(body, _channels_of(calibration_images), smooth)
    if not graph.weights:
        raise ConversionError(f"{type(body).__name__} has no weights to convert")
    weight = next(iter(graph.weights.values()))[0]
    batches = [batch.cpu().to(weight.dtype) for batch in image_batches(calibration_images, graph.channels)]
    told = formation != "level" and bool(getattr(_unwrapped(network), "takes_level", False))
    given = batches[0].shape[1] - (told or formation == "level")
    config = SpikingConfig(time_steps, schedule, formation, given, recycling, method, coding, told)
    output, distance = _check_trace(graph, body, batches[0][:1], exact=smooth is None or not smooth.replaced)
    if smooth is not None and smooth.replaced:
        note = f"replaced activations change the output by {100 * distance:.2g} % (RMS, first calibration image)"
        graph = replace(graph, origin=(*graph.origin, ("output", "pieces", note)))
    levels = dict(calibrate(graph, batches, percentile, per_channel))
    for name, (own, _) in graph.quantisers.items():
        levels[name] = own.expand(max(len(own), len(levels[name]))).clone()
    missing = [name for name in levels if name not in graph.quantisers and name not in graph.signed]
    if preset.own_levels and missing:
        raise ConversionError(
            f"method {method} needs QCFS activations, but '{missing[0]}' is a ReLU; put spikingir.QCFS in its place, "
            "train the network with it, and convert again"
        )
    neurons: dict[str, IFNeuron] = {}
    for name, theta in levels.items():
        signed = name in graph.signed
        start = 0.0 if signed else v0  # an initial membrane rounds up, and a signed output has two sides
        how: dict[str, Any] = {"v0": start, "alpha": alpha, "beta": beta, "signed": signed, "surrogate": surrogate}
        neurons[name] = kind.neuron(theta, **{key: how[key] for key in kind.takes})
    reader = PixelMapper(output.shape[1]).to(weight.dtype) if mapper else None
    spiking = SpikingNetwork(graph, neurons, config, reader)
    if coding == "binary":
        _set_bits(spiking, activation_bits, {name: steps for name, (_, steps) in graph.quantisers.items()})
    if kind.adapts:
        _adapt(spiking, batches)
    if bias_correction:
        correct_biases(spiking, batches)
    return spiking.eval()


def _channels_of(images: CalibrationImages) -> int | None:
    """Channels of calibration images that can be looked at without reading an iterator."""
    first = images[0] if isinstance(images, list | tuple) and images else images
    return first.shape[-3] if isinstance(first, Tensor) and first.dim() in (3, 4) else None


def _set_bits(network: SpikingNetwork, by_scale: Sequence[int], own: Mapping[str, int]) -> None:
    """Bits of each layer of a binary network: its quantiser's, or those of its resolution.

    Raises:
        ConversionError: A quantiser's levels are not ``2^m - 1``, or more than the time steps carry.
    """
    shapes = network.graph.shapes()
    hidden = [name for name in network.layers if not network.neuron(name).signed]
    scales = sorted({shapes[name][-2] for name in hidden}, reverse=True)
    for name in network.layers:
        bits = None
        if name in own:
            bits = (own[name] + 1).bit_length() - 1
            if own[name] != 2**bits - 1 or bits > network.config.time_steps:
                raise ConversionError(
                    f"'{name}' has {own[name]} levels; a binary layer has 2^m - 1 with m of 1 to "
                    f"T = {network.config.time_steps}"
                )
        elif by_scale and name in hidden:
            bits = by_scale[min(scales.index(shapes[name][-2]), len(by_scale) - 1)]
        network.neuron(name).activation_bits = bits
        network.levels(name)  # whether they fit


def _body_and_formation(network: object) -> tuple[nn.Module, ImageFormation]:
    """A restoration network is recognised by what it has, not by its class: ``body`` and ``formation``."""
    if isinstance(network, SpikingNetwork):
        raise ConversionError("it is a spiking network already; give the conventional one that it was made from")
    if isinstance(network, torch.jit.ScriptModule):
        raise ConversionError("it is a TorchScript program, which cannot be traced; give the module it was made from")
    if not isinstance(network, nn.Module):
        raise ConversionError(
            f"it is a {type(network).__name__}; expected a torch.nn.Module, as spikingir.load_network reads it"
        )
    network = _unwrapped(network)
    body, formation = getattr(network, "body", None), getattr(network, "formation", None)
    if isinstance(body, nn.Module) and formation is not None:
        return _unwrapped(body), formation
    return network, "identity"


def _unwrapped(network: nn.Module) -> nn.Module:
    """The network inside what only runs it: on several devices, averaged, or compiled."""
    while True:
        if isinstance(network, nn.DataParallel | DistributedDataParallel | AveragedModel):
            network = network.module
        elif isinstance(compiled := getattr(network, "_orig_mod", None), nn.Module):  # torch.compile's
            network = compiled
        else:
            return network


def _unwrap_within(network: nn.Module) -> None:
    for name, module in network.named_children():
        setattr(network, name, _unwrapped(module))
        _unwrap_within(_unwrapped(module))


def _plain_copy(body: nn.Module) -> nn.Module:
    """A copy in eval mode on the CPU, in float32 or, where a parameter is, in float64; nothing in it compiled."""
    trains = [module for module in body.modules() if module.training and _differs_in_training(module)]
    if trains:
        warnings.warn(
            f"{type(body).__name__} is in training mode, where its {type(trains[0]).__name__} acts otherwise; it is "
            "converted as it is in eval mode: call network.eval() first to say so yourself",
            stacklevel=3,
        )
    try:
        body = copy.deepcopy(body).cpu().eval()
    except RuntimeError as error:  # torch copies no tensor that is computed, as those hooks leave them
        raise ConversionError(
            f"{type(body).__name__} cannot be copied ({error}); weights that a hook computes must be made plain first "
            "(torch.nn.utils.remove_weight_norm, remove_spectral_norm)"
        ) from None
    _unwrap_within(body)
    dtype = torch.float32
    for tensor in body.state_dict().values():
        if tensor.is_complex() or tensor.is_quantized:
            raise ConversionError(f"{type(body).__name__} has weights of {tensor.dtype}; expected real floats")
        if tensor.is_floating_point():
            dtype = torch.promote_types(dtype, tensor.dtype)
    for module in body.modules():
        module._compiled_call_impl = None  # of Module.compile
    return body.to(dtype)


def _differs_in_training(module: nn.Module) -> bool:
    """Batch norm with running statistics, and dropout."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.running_mean is not None
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0


@torch.no_grad()
def _check_trace(graph: Graph, body: nn.Module, image: Tensor, *, exact: bool) -> tuple[Tensor, float]:
    """The body's output, after making sure that the trace computes the same if it should; and their distance.

    Quantised activations are compared in float64: in float32 rounding pushes some over a step, and later layers spread
    that over the image.
    """
    checked, original = graph, body
    if graph.quantisers:
        original = copy.deepcopy(body).double()
        checked, image = trace_body(original, image.shape[1]), image.double()

    def neuron(node: Node, current: Wave, owned: bool) -> Wave:
        if node.name not in checked.quantisers:
            return checked.activate(node, current)
        assert current.constant is not None
        level, levels = checked.quantisers[node.name]
        return Wave(None, phased_forward(current.constant, level.view(-1, 1, 1), levels, False))

    try:
        expected: Tensor = original(image)
    except RuntimeError as error:
        raise ConversionError(f"the network cannot run on a calibration image {tuple(image.shape)}: {error}") from error
    traced_output = checked.run(image, neuron).constant
    assert traced_output is not None
    same, relative = traced_output.shape == expected.shape, 0.0
    if same:
        scale = expected.square().mean().sqrt().clamp_min(1e-6)
        difference = (traced_output - expected).abs()
        # a tie may still fall on either side, here and there
        distance = difference.square().mean().sqrt() if graph.quantisers else difference.max()
        relative = (difference.square().mean().sqrt() / scale).item()
        same = bool(distance <= 1e-2 * scale) or not exact
    if not same:
        raise ConversionError(
            f"the trace of {type(body).__name__} does not give what the network gives; operations that write in place "
            "on a value that is read again, or randomness in forward, do that: remove them"
        )
    return expected, relative


def _layer_by_layer(
    graph: Graph, images: Sequence[Tensor], visit: Callable[[Node, Sequence[Wave]], None], fire: Fire
) -> None:
    """Advance all images together, node by node; ``visit`` sees the input currents of a layer before it fires."""

    def step(node: Node, inputs: list[list[Wave]], owned: bool) -> list[Wave]:
        waves = list(zip(*inputs, strict=True)) or [()] * len(images)
        if node.role == "neuron":
            visit(node, [wave for (wave,) in waves])
        return [graph.step(node, read, False, image, fire) for read, image in zip(waves, images, strict=True)]

    graph.walk(step)


def _fire(network: SpikingNetwork) -> Fire:
    def fire(node: Node, current: Wave, owned: bool) -> Wave:
        firing = network.neuron(node.name)(*current, time_steps=network.config.time_steps, delay=network.config.delay)
        return Wave(firing.weighted_spikes, None)

    return fire


@torch.no_grad()
def _adapt(network: SpikingNetwork, images: Sequence[Tensor], rho: float = 0.1) -> None:
    """Lan: set the thresholds of each step, layer by layer, each seeing the spikes of the adapted ones before it."""

    def visit(node: Node, currents: Sequence[Wave]) -> None:
        neuron = network.neuron(node.name)
        assert isinstance(neuron, AdaptiveThresholdNeuron)
        neuron.adapt([(wave.spikes, wave.constant) for wave in currents], network.config.time_steps, rho)

    _layer_by_layer(network.graph, images, visit, _fire(network))


@torch.no_grad()
def correct_biases(network: SpikingNetwork, calibration_images: CalibrationImages) -> None:
    """Correct each layer's bias for the mean error of its current, in place, layer by layer.

    ``b_l += mean(z_l) - mean(1/T sum_t I_l(t))`` per channel, with ``z_l`` the ANN's pre-activation and ``I_l`` the
    SNN's current (extended step included) with the earlier layers already corrected. All images are held at once:
    a handful of crops is enough.

    Args:
        network: A converted network on a clocked or delayed schedule.
        calibration_images: Degraded images.

    Raises:
        ValueError: The schedule is phased, which has no such error.
        ConversionError: The images, see :func:`convert`.

    Source:
        docs/method.md, section 1; after Li et al. 2021, "A Free Lunch From ANN".
    """
    if network.config.phased:
        raise ValueError("bias correction compares currents over time; the phased schedule has none")
    weight = next(network.parameters())
    images = [batch.to(weight) for batch in image_batches(calibration_images, network.config.input_channels)]
    means: dict[str, Tensor] = {}

    def note(node: Node, currents: Sequence[Wave]) -> None:
        means[node.name] = channel_means([wave.constant for wave in currents if wave.constant is not None])

    def correct(node: Node, currents: Sequence[Wave]) -> None:
        spiking = [
            (0 if wave.spikes is None else wave.spikes.sum(0) / network.config.time_steps)
            + (0 if wave.constant is None else wave.constant)
            for wave in currents
        ]
        corrections[node.name] = means[node.name] - channel_means([x for x in spiking if isinstance(x, Tensor)])

    def corrected_fire(node: Node, current: Wave, owned: bool) -> Wave:
        shift = corrections[node.name].view(1, -1, 1, 1)
        shifted = Wave(current.spikes, shift if current.constant is None else current.constant + shift)
        return fire(node, shifted, owned)

    corrections: dict[str, Tensor] = {}
    fire, graph = _fire(network), network.graph
    _layer_by_layer(graph, images, note, graph.activate)
    _layer_by_layer(graph, images, correct, corrected_fire)
    for name, shift in corrections.items():
        network.add_current(name, shift)
