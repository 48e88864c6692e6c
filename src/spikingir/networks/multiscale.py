"""A multi-scale network with the image and the noise level as currents: few operations a pixel, any noise level.

``denoised = y - level * body(y, level)``; ``dehazed = K y - B + y`` with ``K, B = body(y)``, perhaps with one airlight
``A``, ``dehazed = y + K (y - A)``.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.qcfs import QCFS
from spikingir.errors import InputError
from spikingir.networks.base import Recognised, RestorationNetwork, reset_convolutions
from spikingir.spiking.formation import ESTIMATES_MAPS

Form = Literal["level", "residual", "soft", "airlight"]

_MOMENTUM = 0.02
_SMALL = 0.1  # of the last layer's first weights: training starts near the identity
_BRANCH = 0.2  # of a residual branch's first scale


class MultiScaleNet(RestorationNetwork):
    """Multi-scale restoration network whose top scale reads the image again in every block.

    ``u = [unshuffle2(y), level]`` at half resolution; ``head = relu(conv3(u))``; at scale ``i`` of width ``w 2^i``
    blocks ``relu(conv3(relu(conv3(x))) + x)``, at the top scale with ``conv(u)`` added and, unless
    ``top_residual``, without ``x``; down ``relu(conv2x2, stride 2)``; up ``relu(shuffle2(conv1x1) + skip)``; last
    ``shuffle2(conv3(x) + conv3(u))``. Every convolution but those of ``u`` reads activations, so all are spike-driven
    after conversion. Each has batch norm in training.

    Args:
        channels: 1 for gray, 3 for colour.
        width: Features at the top scale.
        blocks: Blocks at each scale, top first; the last scale has them once, the others before and after it.
        form: Image formation: ``level`` (``y - level net``, the network has a level input), ``residual`` (``y - net``,
            blind), ``soft`` (``K y - B + y``, two maps of ``channels`` each) or ``airlight`` (``y + K (y - A)``,
            of the same two maps).
        top_residual: Whether blocks of the top scale add what they read.
        inject_kernel: Side of the kernels by which the blocks of the top scale read the image: 3, or 1, which costs a
            ninth. The first and the last layer read it by 3.
        batch_norm: Whether the convolutions have batch norm, as in training.
        activation_bits: Bits of the activations at each scale, top first, where they are quantised to
            ``2^bits - 1`` levels; empty where they are not.

    Shape:
        ``(B, channels, H, W)`` in [0, 1] to the same; ``level`` a number, (B,), or a map (B, 1, H, W), in units of the
        image (sigma / 255). Any size: the image is padded to :attr:`multiple` by repeating the last row and column.

    Raises:
        ValueError: An option out of range.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        blocks: Sequence[int] = (2, 2, 2),
        form: str = "level",
        top_residual: bool = False,
        batch_norm: bool = False,
        activation_bits: Sequence[int] = (),
        inject_kernel: int = 3,
    ) -> None:
        blocks, bits = tuple(blocks), tuple(activation_bits)
        if channels not in (1, 3):
            raise InputError(f"channels is {channels}; a multi-scale network has 1 or 3")
        if width < 1:
            raise InputError(f"width is {width}; a multi-scale network has at least 1")
        if not 2 <= len(blocks) <= 6 or min(blocks) < 0 or blocks[-1] < 1:
            raise InputError(f"blocks is {blocks}; expected 2 to 6 scales with at least one block at the last")
        if form not in get_args(Form):
            raise InputError(f"form is {form!r}; expected level, residual, soft or airlight")
        if inject_kernel not in (1, 3):
            raise InputError(f"inject_kernel is {inject_kernel}; expected 1 or 3")
        if bits and (len(bits) != len(blocks) or not all(1 <= b <= 8 for b in bits)):
            raise InputError(f"activation_bits is {bits}; expected 1 to 8 bits for each of {len(blocks)} scales")
        body = _Body(channels, width, blocks, form, top_residual, batch_norm, inject_kernel)
        super().__init__(body, cast(Form, form), channels)
        self.width, self.blocks, self.form = width, blocks, form
        self.top_residual, self.batch_norm, self.activation_bits = top_residual, batch_norm, bits
        self.inject_kernel = inject_kernel
        self.takes_level = form == "level"
        self.multiple = 2 ** len(blocks)
        if bits:
            for name, scale in self.activations().items():
                features = self.width * 2**scale
                body.set_submodule(name, QCFS(2 ** bits[scale] - 1, torch.ones(features)))

    @property
    def options(self) -> dict[str, object]:
        """Arguments that build this network anew."""
        return {
            "channels": self.channels,
            "width": self.width,
            "blocks": self.blocks,
            "form": self.form,
            "top_residual": self.top_residual,
            "batch_norm": self.batch_norm,
            "activation_bits": self.activation_bits,
            "inject_kernel": self.inject_kernel,
        }

    def activations(self) -> dict[str, int]:
        """Scale of each activation by its name in the body, 0 the top one."""
        found = {}
        for name, module in self.body.named_modules():
            if isinstance(module, nn.ReLU | QCFS):
                part, _, rest = name.partition(".")
                place = rest.partition(".")[0]
                found[name] = {
                    "relu": 0,
                    "down": int(place or 0) + 1,
                    "middle": len(self.blocks) - 1,
                }.get(part, int(place or 0))
        return found

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew (He et al. 2015, fan-in); branches and the last layer start small."""
        reset_convolutions(self.body, generator)
        for name, module in self.body.named_modules():
            if isinstance(module, nn.Conv2d) and name.startswith("last"):
                module.weight.data.mul_(_SMALL)
            elif isinstance(module, nn.BatchNorm2d) and name.endswith("conv2.norm"):
                nn.init.constant_(module.weight, _BRANCH)


@torch.no_grad()
def without_level(network: MultiScaleNet, level: float) -> MultiScaleNet:
    """The blind network that computes what ``network`` does at a fixed level: ``y - level body(y, level)``.

    The level's weights become part of the biases of the convolutions that read it, or of their batch norm's running
    mean; the factor ``level`` becomes part of the last layer. At the frame the two differ by what a convolution reads
    beyond it, where the level's map was padded with zeros.

    Args:
        network: A network of the form ``level``; it stays as it is.
        level: sigma / 255.

    Raises:
        ValueError: The network has another form, or the level is not positive.
    """
    if network.form != "level":
        raise InputError(f"the network has the form {network.form}; one with a level input has the form level")
    if not 0 < level < math.inf:
        raise InputError(f"level is {level}; expected sigma / 255, above 0")
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    reads = [
        name.removesuffix(".weight")
        for name, tensor in state.items()
        if tensor.dim() == 4 and tensor.shape[1] == 4 * network.channels + 1 and _READS_IMAGE.search(name)
    ]
    for name in reads:
        weight = state[f"{name}.weight"]
        constant = level * weight[:, -1].sum((1, 2))
        state[f"{name}.weight"] = weight[:, :-1].clone()
        norm = name.removesuffix("conv") + "norm.running_mean"
        if norm in state:
            state[norm] -= constant
        else:
            state["body.last.bias" if name == "body.last_of_image" else f"{name}.bias"] += constant
    for name in ("last.weight", "last.bias", "last_of_image.weight"):
        state[f"body.{name}"] *= level
    blind = MultiScaleNet(**{**network.options, "form": "residual"})  # type: ignore[arg-type]
    blind.load_state_dict(state)
    return blind.train(network.training)


_READS_IMAGE = re.compile(r"^body\.(head\.conv|(encoder|decoder)\.0\.\d+\.inject\.conv|last_of_image)\.weight$")


class _Body(nn.Module):
    """From ``[y, level]`` to the estimate, at sizes that are multiples of ``2 ^ scales``."""

    def __init__(
        self,
        channels: int,
        width: int,
        blocks: tuple[int, ...],
        form: str,
        top_residual: bool,
        batch_norm: bool,
        inject_kernel: int,
    ) -> None:
        super().__init__()
        self.channels, self.takes_level = channels, form == "level"
        reads = 4 * channels + self.takes_level
        gives = 4 * channels * (2 if form in ESTIMATES_MAPS else 1)
        scales = len(blocks)
        widths = [width * 2**i for i in range(scales)]

        def chain(i: int) -> nn.ModuleList:
            inject = (reads, inject_kernel) if i == 0 else None
            residual = top_residual or i > 0
            return nn.ModuleList(_Block(widths[i], inject, residual, batch_norm) for _ in range(blocks[i]))

        self.head = _convolution(reads, width, 3, batch_norm)
        self.relu = nn.ReLU()
        self.encoder = nn.ModuleList(chain(i) for i in range(scales - 1))
        self.down = nn.ModuleList(_Down(widths[i], widths[i + 1], batch_norm) for i in range(scales - 1))
        self.middle = chain(scales - 1)
        self.up = nn.ModuleList(_Up(widths[i + 1], widths[i], batch_norm) for i in range(scales - 1))
        self.decoder = nn.ModuleList(chain(i) for i in range(scales - 1))
        self.last = nn.Conv2d(width, gives, 3, padding=1)
        self.last_of_image = nn.Conv2d(reads, gives, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.takes_level:
            image = functional.pixel_unshuffle(x[:, : self.channels], 2)
            u = torch.cat([image, functional.avg_pool2d(x[:, self.channels :], 2)], 1)
        else:
            u = functional.pixel_unshuffle(x, 2)
        h = self.relu(self.head(u))
        skips = []
        for chain, down in zip(self.encoder, self.down, strict=True):
            for block in cast(nn.ModuleList, chain):
                h = block(h, u)
            skips.append(h)
            h = down(h)
        for block in self.middle:
            h = block(h, u)
        for i in reversed(range(len(skips))):
            h = self.up[i](h, skips[i])
            for block in cast(nn.ModuleList, self.decoder[i]):
                h = block(h, u)
        return functional.pixel_shuffle(self.last(h) + self.last_of_image(u), 2)


class _Block(nn.Module):
    """``relu(conv3(relu(conv3(x))) [+ x] [+ conv(u)])``; ``inject`` is what that reads, and the side of its kernel."""

    def __init__(self, width: int, inject: tuple[int, int] | None, residual: bool, batch_norm: bool) -> None:
        super().__init__()
        self.conv1, self.relu1 = _convolution(width, width, 3, batch_norm), nn.ReLU()
        self.conv2, self.relu2 = _convolution(width, width, 3, batch_norm), nn.ReLU()
        self.inject = _convolution(inject[0], width, inject[1], batch_norm) if inject else None
        self.residual = residual

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        z = self.conv2(self.relu1(self.conv1(x)))
        if self.residual:
            z = z + x
        if self.inject is not None:
            z = z + self.inject(u)
        return cast(Tensor, self.relu2(z))


class _Down(nn.Module):
    def __init__(self, before: int, after: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv, self.relu = _convolution(before, after, 2, batch_norm, stride=2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.relu(self.conv(x)))


class _Up(nn.Module):
    def __init__(self, before: int, after: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv, self.relu = _convolution(before, 4 * after, 1, batch_norm), nn.ReLU()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return cast(Tensor, self.relu(functional.pixel_shuffle(self.conv(x), 2) + skip))


def _convolution(before: int, after: int, kernel: int, batch_norm: bool, stride: int = 1) -> nn.Sequential:
    """Convolution, and batch norm behind it where there is one."""
    padding = kernel // 2 if stride == 1 else 0
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(before, after, kernel, stride, padding, bias=not batch_norm)
    if batch_norm:
        parts["norm"] = nn.BatchNorm2d(after, momentum=_MOMENTUM)
    return nn.Sequential(parts)


def recognise_multiscale(tensors: Mapping[str, Tensor]) -> Recognised | None:
    """Read a multi-scale network out of named tensors, or None where the names are not one's.

    Args:
        tensors: Tensors by name, without wrappers' prefixes.
    """
    state = {name if name.startswith("body.") else f"body.{name}": tensor for name, tensor in tensors.items()}
    head, last = state.get("body.head.conv.weight"), state.get("body.last.weight")
    if head is None or last is None or head.dim() != 4 or last.dim() != 4 or "body.last_of_image.weight" not in state:
        return None
    channels, takes_level = divmod(head.shape[1], 4)
    blocks = []
    for i in range(sum(bool(re.fullmatch(r"body\.down\.\d\.conv\.conv\.weight", name)) for name in state)):
        blocks.append(_count(state, rf"body\.encoder\.{i}\.(\d+)\.conv1\.conv\.weight"))
    blocks.append(_count(state, r"body\.middle\.(\d+)\.conv1\.conv\.weight"))
    if channels not in (1, 3) or takes_level > 1:
        return None
    twice = last.shape[0] == 8 * channels
    width = head.shape[0]
    options: dict[str, object] = {
        "channels": channels,
        "width": width,
        "blocks": tuple(blocks),
        "batch_norm": "body.head.norm.weight" in state,
    }
    inject = next((w for name, w in state.items() if name.endswith("inject.conv.weight")), None)
    if inject is not None and inject.shape[-1] != 3:
        options["inject_kernel"] = inject.shape[-1]
    if not twice:
        options["form"] = "level" if takes_level else "residual"
    # of top_residual, activation_bits and the one airlight the tensors say nothing: the header does, or they have
    # their defaults
    guessed = {"form": "soft"} if twice else {}
    return Recognised(options, state, {own: own for own in state}, guessed)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in state)
