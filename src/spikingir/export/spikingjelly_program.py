"""A spiking network of SpikingJelly's layers and neurons, as SpikingIR wrote it.

It needs torch, numpy and spikingjelly, and nothing else; ``load()`` gives the network.

Its neurons have threshold 1 and reset by subtraction; spikes are those of steps 1..T. All is in float64, where sums of
numbers on the network's grid are exact. The arrays are those of docs/format.md of SpikingIR, "Plain dumps".
"""

import io
import json
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

Part = Tensor | None
Wire = tuple[Part, Part]
"""What spikes carry, (T, B, C, H, W), and what is constant in time, (B, C, H, W)."""


class Network(nn.Module):
    """Image in, restored image out.

    Args:
        content: The bytes of a plain dump.

    Attributes:
        spikes: Spikes of each layer at steps 1..T in the last run, (T, B, C, H, W), by name.

    Shape:
        (B, C, H, W) to the restored image.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        with np.load(io.BytesIO(content)) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays.pop("header").tobytes())
        self.config: dict[str, Any] = head["config"]
        self.nodes: list[dict[str, Any]] = head["nodes"]
        self.clocks: dict[str, dict[str, Any]] = head["clocks"]
        for name, array in arrays.items():
            self.register_buffer(name.replace(".", "__"), torch.from_numpy(array).double())
        self.layers = nn.ModuleDict()
        for node in self.nodes:
            self.layers[node["name"]] = self._module(node)
        functional.set_step_mode(self, "m")
        self.spikes: dict[str, Tensor] = {}

    def _module(self, node: dict[str, Any]) -> nn.Module:
        name, o = node["name"], node["options"]
        if node["op"] == "neuron":
            kind = neuron.TernaryIFNode if self.clocks[name]["signed"] else neuron.IFNode
            fires: nn.Module = kind(v_threshold=1.0, v_reset=None)
            return fires
        if node["op"] == "conv2d":
            weight = self._array(f"kernel__{name}__spike")
            outputs, inputs, *side = weight.shape
            convolution: nn.Module = layer.Conv2d(
                inputs * o["groups"],
                outputs,
                side,
                o["stride"],
                o["padding"],
                o["dilation"],
                o["groups"],
                bias=False,
            ).double()
            with torch.no_grad():
                convolution.get_parameter("weight").copy_(weight)
            return convolution
        return nn.Identity()

    def _array(self, name: str) -> Tensor:
        found: Tensor = self.get_buffer(name)
        return found

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Restored image, not clipped."""
        functional.reset_net(self)
        self.spikes = {}
        exact = (image.double() * 2.0**20).round() / 2.0**20
        wires: dict[str, Wire] = {}
        for node in self.nodes:
            read = [wires[name] for name in node["inputs"]]
            wires[node["name"]] = (None, exact) if node["op"] == "input" else self._value(node, read)
        last = self.nodes[-1]["name"]
        membrane: Any = self.layers[last].v
        output = self._read(self.spikes[last], membrane, self.clocks[last])
        if self.config.get("takes_level", False):  # which lies behind the image's own channels
            image = image[:, : self.config["channels"]]
        return form_image(self.config.get("formation", "identity"), image.double(), output).to(image.dtype)

    def _value(self, node: dict[str, Any], read: list[Wire]) -> Wire:
        name, module = node["name"], self.layers[node["name"]]
        match node["op"]:
            case "neuron":
                (spikes, constant), steps = read[0], self.config["time_steps"]
                module.v = self.clocks[name]["v0"]
                if spikes is None:
                    assert constant is not None
                    current = constant.expand(steps, *constant.shape)
                else:
                    current = spikes if constant is None else spikes + constant
                self.spikes[name] = module(current.contiguous())
                return self.spikes[name], None
            case "concat":
                return _both(lambda *parts: torch.cat(parts, -3), read)
            case "add":
                return _both(torch.add, read)
            case "sub":
                return _both(torch.sub, read)
            case "pixel_shuffle":
                return _both(lambda x: nn.functional.pixel_shuffle(x, node["options"]["factor"]), read)
            case "pixel_unshuffle":
                return _both(lambda x: nn.functional.pixel_unshuffle(x, node["options"]["factor"]), read)
        spikes, constant = read[0]
        if constant is not None:
            constant = self._weighed(node, constant)
        bias = getattr(self, f"kernel__{name}__bias", None)
        if bias is not None:
            shift = bias.view(1, -1, 1, 1)
            constant = shift if constant is None else constant + shift
        if constant is not None:
            grid = self._array(f"kernel__{name}__grid").view(-1, 1, 1)
            constant = (constant * grid).round() / grid
        if spikes is not None:
            factor = None if node["op"] == "conv2d" else self._array(f"kernel__{name}__spike").view(-1, 1, 1)
            spikes = module(spikes) if factor is None else spikes * factor
        return spikes, constant

    def _weighed(self, node: dict[str, Any], constant: Tensor) -> Tensor:
        """What is constant in time, with weights of its own."""
        weight, o = self._array(f"kernel__{node['name']}__analog"), node["options"]
        if node["op"] == "affine":
            return constant * weight.view(-1, 1, 1)
        return nn.functional.conv2d(constant, weight, None, o["stride"], o["padding"], o["dilation"], o["groups"])

    def _read(self, spikes: Tensor, membrane: Tensor, clock: dict[str, Any]) -> Tensor:
        """The image in the spikes of the last layer, and what is left in its membranes."""
        steps, weight = self.config["time_steps"], self._array("mapper__spike")
        output: Tensor = nn.functional.conv2d(spikes.sum(0), weight, padding=weight.shape[-1] // 2) / steps
        if (bias := getattr(self, "mapper__bias", None)) is not None:
            output = output + bias.view(-1, 1, 1)
        if self.config.get("recycling", True):
            output = output + (membrane - clock["v0"]) * self._array("theta").view(-1, 1, 1) / steps
        return output if clock["signed"] else output.relu()


def _both(function: Any, read: list[Wire]) -> Wire:
    """An operation without weights on both parts of its inputs; a part that is missing is zero."""
    found: list[Part] = []
    for which in (0, 1):
        parts = [wire[which] for wire in read]
        if all(part is None for part in parts):
            found.append(None)
            continue
        full = []
        for (spikes, constant), part in zip(read, parts, strict=True):
            other = spikes if spikes is not None else constant
            assert other is not None
            shape = other.shape[-4:] if which else (*_steps(read), *other.shape[-4:])
            full.append(other.new_zeros(()).expand(shape) if part is None else part.expand(shape))
        found.append(function(*full))
    return found[0], found[1]


def _steps(read: list[Wire]) -> tuple[int, ...]:
    return next((spikes.shape[:1] for spikes, _ in read if spikes is not None), ())


def form_image(formation: str, image: Tensor, output: Tensor) -> Tensor:
    """Restored image from the degraded one and what the spikes say."""
    match formation:
        case "residual":
            return image - output
        case "atmospheric":
            return torch.relu(output * image - output + 1)
        case "level":
            return image[:, :-1] - image[:, -1:] * output
        case "soft" | "airlight":
            k, b = output.chunk(2, 1)
            if formation == "airlight":
                k = torch.relu((k * 2**20).round().sum(1, keepdim=True) / 2**20 / k.shape[1])
                above, below = ((k * part * 2**20).round().mean((2, 3), keepdim=True) / 2**20 for part in (b, k))
                b = ((above + 0.8 / 1024) / (below + 1 / 1024)).clamp(0, 1) * k
            return k * image - b + image
    return output
