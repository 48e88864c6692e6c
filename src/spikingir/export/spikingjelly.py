"""A clocked network as a Python file of SpikingJelly's modules, and back; and networks of SpikingJelly's made ours.

The file holds a program (:mod:`spikingir.export.spikingjelly_program`) and the plain dump of the network
(docs/format.md) as text, so that one import of it gives the network, with SpikingJelly and without this package. To
read it back nothing is run: the dump alone is.
"""

import ast
import base64
import binascii
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikingir.deploy.folded import FoldedNetwork
from spikingir.environment import install_command
from spikingir.export import npz
from spikingir.export.errors import ExportError
from spikingir.graph.activations import QuantisedReLU
from spikingir.graph.trace import trace_body
from spikingir.schema import SchemaError
from spikingir.spiking.network import SpikingConfig, SpikingNetwork
from spikingir.spiking.neurons import IFNeuron

_PROGRAM = Path(__file__).with_name("spikingjelly_program.py")
_OPERATIONS = frozenset(
    ("input", "neuron", "conv2d", "affine", "add", "sub", "concat", "pixel_shuffle", "pixel_unshuffle")
)
_CONTENT = "CONTENT"
_EXTENDED = (
    "SpikingJelly has no extended step: the file runs steps 1..T, and its image lacks what the extended step adds"
)


def spikingjelly_content(network: FoldedNetwork) -> tuple[bytes, tuple[str, ...]]:
    """A clocked network as the bytes of a Python file, and what the file cannot say.

    Raises:
        ExportError: Another schedule, or an operation that the file's program does not have.
    """
    npz.require_plain(network)
    npz.require_clocked(network, "SpikingJelly's layers advance together")
    for node in network.nodes:
        weighs_sums = node.weights is not None and node.inputs[0] not in (*network.spiking, network.nodes[0].name)
        if node.op not in _OPERATIONS or weighs_sums:
            why = "reads weighted sums, not spikes" if weighs_sums else f"is a {node.op}"
            raise ExportError(f"'{node.name}' {why}, which the export to spikingjelly does not hold; export to npz")
    text = base64.encodebytes(npz.npz_content(network)).decode()
    program = _PROGRAM.read_text(encoding="utf-8")
    content = f'{program}\n\n{_CONTENT} = """\n{text}"""\n\n\ndef load() -> Network:\n    """The network."""\n'
    content += f"    import base64\n\n    return Network(base64.b64decode({_CONTENT})).eval()\n"
    extended = any(clock.extended for clock in network.clocks.values())
    return content.encode(), (_EXTENDED,) if extended else ()


def load_spikingjelly(path: str | Path) -> FoldedNetwork:
    """Read a network that :func:`spikingir.export_network` wrote for SpikingJelly, in eval mode. Nothing is run.

    Raises:
        FileNotFoundError: There is no such file.
        ExportError: The file is damaged or holds something else.
    """
    path = Path(path)
    try:
        return npz.read_npz(_dump(path.read_bytes()))
    except (ExportError, SchemaError) as error:
        raise ExportError(f"{path}: {error}") from None


def _dump(content: bytes) -> bytes:
    """The plain dump in the text of a program."""
    try:
        lines = ast.parse(content.decode()).body
        texts = [
            ast.literal_eval(line.value)
            for line in lines
            if isinstance(line, ast.Assign) and [ast.unparse(target) for target in line.targets] == [_CONTENT]
        ]
        return base64.b64decode("".join(texts[-1].split()), validate=True)
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError, IndexError, AttributeError, binascii.Error):
        raise ExportError(
            "it is no Python file that holds a network; expected one of spikingir export --to spikingjelly"
        ) from None


def run_spikingjelly(content: bytes, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Restored image, and spikes of every layer at steps 1..T, of a file by its own program.

    Args:
        content: The file, as :func:`spikingjelly_content` makes it: its program is run.
        image: The image.
    """
    module: dict[str, Any] = {"__name__": "spikingjelly_network"}
    exec(compile(content, "spikingjelly_network", "exec"), module)
    network = module["load"]()
    return network(image), dict(network.spikes)


class _Fire(QuantisedReLU):
    """A neuron of SpikingJelly's in a body that is traced."""

    levels = 1

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    @property
    def clip_level(self) -> Tensor:
        return torch.tensor([self.threshold], dtype=torch.float64)


class _Neuron(nn.Module):
    """Spikes of 1, where ours weigh as much as their threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.fire, self.threshold = _Fire(threshold), threshold

    def forward(self, current: Tensor) -> Tensor:
        fired: Tensor = self.fire(current)
        return fired if self.threshold == 1 else fired * (1 / self.threshold)


def from_spikingjelly(module: nn.Module, channels: int, time_steps: int) -> SpikingNetwork:
    """A network of SpikingJelly's layers and IF neurons as one of ours, to fold, measure, save and restore with.

    Its spikes are the same; what it returns is the mean of its output over T steps, as the restored image. A network
    that ends in a convolution gets a signed output neuron, read with its membrane: the mean is exact.

    Args:
        module: Layers (``Conv2d``, ``ConvTranspose2d``, ``BatchNorm2d``, ``AvgPool2d``, ``Upsample``) and ``IFNode``
            with ``v_reset=None``, in a fixed sequence or with sums, concatenations and the like between them. Its
            membranes are reset.
        channels: Of the image, which it reads as a current that is the same at every step.
        time_steps: ``T``.

    Raises:
        ExportError: SpikingJelly is not there; a neuron of another kind.
        ConversionError: Another operation that no spiking network of ours has.
    """
    layers = _layers()
    from spikingjelly.activation_based import functional

    functional.reset_net(module)  # membranes of an earlier run cannot be copied
    body = _ours(copy.deepcopy(module).cpu().eval(), "", layers)
    graph = trace_body(body)
    neurons: dict[str, IFNeuron] = {}
    for name in graph.neurons:
        theta = graph.quantisers[name][0] if name in graph.quantisers else torch.ones(1)
        neurons[name] = IFNeuron(theta.to(next(body.parameters()).dtype), signed=name in graph.signed)
    config = SpikingConfig(time_steps, "clocked", "identity", channels, bool(graph.signed), "if")
    return SpikingNetwork(graph, neurons, config).eval()


def _layers() -> Mapping[type[nn.Module], type[nn.Module]]:
    """Layers of SpikingJelly's that are torch's on all steps at once."""
    try:
        from spikingjelly.activation_based import layer
    except ModuleNotFoundError:
        command = install_command("spikingjelly", alone=True)
        raise ExportError(f"spikingjelly is not there; install it with: {command}") from None
    names = ("Conv2d", "ConvTranspose2d", "BatchNorm2d", "AvgPool2d", "Upsample")
    return {getattr(layer, name): getattr(nn, name) for name in names}


def _ours(module: nn.Module, place: str, layers: Mapping[type[nn.Module], type[nn.Module]]) -> nn.Module:
    """A module with layers of torch's and neurons that can be traced, in place."""
    from spikingjelly.activation_based import neuron

    if isinstance(module, neuron.BaseNode):
        if type(module) is not neuron.IFNode or module.v_reset is not None:
            raise ExportError(
                f"'{place}' is a {type(module).__name__}{_reset(module)}; expected an IFNode with v_reset=None"
            )
        return _Neuron(float(module.v_threshold))
    if type(module) in layers:
        module.__class__ = layers[type(module)]
        return module
    for name, child in list(module.named_children()):
        setattr(module, name, _ours(child, f"{place}.{name}".lstrip("."), layers))
    return module


def _reset(module: Any) -> str:
    return "" if module.v_reset is None else f" that resets to {module.v_reset:g}"
