"""Networks in the shapes of published ones, written afresh and small: which convert, which run natively.

``python -m tests.conversion.zoo`` writes the table ``docs/networks.md``. Widths and depths are cut down to what a test
can run; the operations, and how they are joined, are those of the published networks. A network whose published form
is refused stands here in that form; where a form without the refused part is known, it stands here as well.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import FoldError, fold
from spikingir.deploy.integers import NotNativeError
from spikingir.deploy.native import NativeNetwork
from spikingir.graph.errors import ConversionError
from spikingir.spiking.network import SpikingNetwork

PAGE = Path(__file__).parents[2] / "docs/networks.md"
W = 4
"""Width of most layers."""


class Net(nn.Module):
    """Layers, and what a forward does with them."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def conv(inputs: int = W, outputs: int = W, size: int = 3, **options: Any) -> nn.Conv2d:
    options.setdefault("padding", options.get("dilation", 1) * (size // 2))
    return nn.Conv2d(inputs, outputs, size, **options)


def up(inputs: int = W, outputs: int = W, **options: Any) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 2, 2, **options)


def seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def conv_relu(inputs: int = W, outputs: int = W, size: int = 3, **options: Any) -> nn.Sequential:
    return seq(conv(inputs, outputs, size, **options), nn.ReLU(inplace=True))


def conv_bn_relu(inputs: int = W, outputs: int = W, **options: Any) -> nn.Sequential:
    return seq(conv(inputs, outputs, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def plus(*layers: nn.Module, scale: float = 1.0) -> Net:
    """``x + scale f(x)``."""
    return Net(lambda n, x: x + (n.body(x) if scale == 1.0 else n.body(x) * scale), body=seq(*layers))


def gated(gate: nn.Module) -> Net:
    """``x g(x)``."""
    return Net(lambda n, x: x * n.gate(x), gate=gate)


def channel_attention(width: int = W) -> Net:
    return gated(seq(nn.AdaptiveAvgPool2d(1), conv(width, 2, 1), nn.ReLU(), conv(2, width, 1), nn.Sigmoid()))


def padded(net: nn.Module, multiple: int, mode: str = "reflect") -> Net:
    """A network behind padding to a multiple, cropped after."""

    def run(n: Any, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        below, right = (multiple - height % multiple) % multiple, (multiple - width % multiple) % multiple
        x = functional.pad(x, (0, right, 0, below), mode=mode)
        return n.net(x)[:, :, :height, :width]

    return Net(run, net=net)


def minus(body: nn.Module) -> Net:
    return Net(lambda n, x: x - n.body(x), body=body)


def dncnn(channels: int = 1, depth: int = 4) -> nn.Module:
    hidden = [conv_bn_relu() for _ in range(depth - 2)]
    return minus(seq(conv_relu(channels), *hidden, conv(W, channels)))


def ffdnet(channels: int) -> nn.Module:
    """An even size by repeating the border, a noise level of 25 as a map of half the size."""

    def run(n: Any, x: Tensor) -> Tensor:
        height, width = x.size(2), x.size(3)
        bottom, right = int(math.ceil(height / 2) * 2 - height), int(math.ceil(width / 2) * 2 - width)
        x = functional.pad(x, (0, right, 0, bottom), mode="replicate")
        x = functional.pixel_unshuffle(x, 2)
        level = torch.full((x.size(0), 1, x.size(2), x.size(3)), 25 / 255, dtype=x.dtype, device=x.device)
        x = functional.pixel_shuffle(n.body(torch.cat((x, level), 1)), 2)
        return x[..., :height, :width]

    body = seq(conv_relu(4 * channels + 1, 8), conv_relu(8, 8), conv(8, 4 * channels))
    return Net(run, body=body)


def ircnn() -> nn.Module:
    middle = [conv_relu(dilation=d) for d in (2, 3, 4, 3, 2)]
    return minus(seq(conv_relu(1), *middle, conv(W, 1)))


def fsrcnn() -> nn.Module:
    return seq(
        conv(1, 6, 5), nn.PReLU(6), conv(6, 3, 1), nn.PReLU(3), conv(3, 3), nn.PReLU(3),
        conv(3, 6, 1), nn.PReLU(6), nn.ConvTranspose2d(6, 1, 9, 3, 4, 2),
    )  # fmt: skip


def vdsr() -> nn.Module:
    return plus(conv_relu(1), conv_relu(), conv_relu(), conv(W, 1))


def drrn() -> nn.Module:
    """One residual unit before its activations, run three times with the same weights."""

    def run(n: Any, x: Tensor) -> Tensor:
        first = y = n.head(x)
        for _ in range(3):
            y = n.two(n.one(y)) + first
        return n.tail(y) + x

    before = [seq(nn.BatchNorm2d(i), nn.ReLU(), conv(i, o)) for i, o in ((1, W), (W, W), (W, W), (W, 1))]
    return Net(run, head=before[0], one=before[1], two=before[2], tail=before[3])


def srmd() -> nn.Module:
    return seq(conv_relu(19, W), conv_relu(), conv_relu(), conv(W, 12), nn.PixelShuffle(2))


def edsr(block: Callable[[], nn.Module], scale: int = 2, head: int = 3) -> nn.Module:
    def run(n: Any, x: Tensor) -> Tensor:
        x = n.head(x)
        return n.tail(n.body(x) + x)

    tail = seq(conv(W, W * scale**2), nn.PixelShuffle(scale), conv(W, head)) if scale > 1 else conv(W, head)
    return Net(run, head=conv(head), body=seq(block(), block(), conv()), tail=tail)


def msrresnet(activation: Callable[[], nn.Module]) -> nn.Module:
    """Residual blocks after an activated head; the picture enlarged is added."""

    def run(n: Any, x: Tensor) -> Tensor:
        y = n.tail(n.body(n.head(x)))
        return y + functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    blocks = [plus(conv(), nn.ReLU(), conv()) for _ in range(2)]
    tail = seq(conv(W, 4 * W), nn.PixelShuffle(2), activation(), conv(), activation(), conv(W, 3))
    return Net(run, head=seq(conv(3), activation()), body=seq(*blocks), tail=tail)


def srresnet() -> nn.Module:
    def run(n: Any, x: Tensor) -> Tensor:
        x = n.head(x)
        return n.tail(n.body(x) + x)

    def block() -> nn.Module:
        return plus(conv(), nn.BatchNorm2d(W), nn.PReLU(), conv(), nn.BatchNorm2d(W))

    tail = seq(conv(W, 4 * W), nn.PixelShuffle(2), nn.PReLU(), conv(W, 3, 9))
    head = seq(conv(3, W, 9), nn.PReLU())
    return Net(run, head=head, body=seq(block(), block(), conv(), nn.BatchNorm2d(W)), tail=tail)


def dense(activation: Callable[[], nn.Module], scale: float = 1.0, fuse: int = 1) -> nn.Module:
    """Dense block: each convolution reads all before it; a last one fuses them; residual."""

    def run(n: Any, x: Tensor) -> Tensor:
        found = [x]
        for layer in (n.one, n.two):
            found.append(n.act(layer(torch.cat(found, 1))))
        y = n.fuse(torch.cat(found, 1))
        return x + (y if scale == 1.0 else y * scale)

    return Net(run, one=conv(W, 2), two=conv(W + 2, 2), act=activation(), fuse=conv(W + 4, W, fuse))


def rdn() -> nn.Module:
    def run(n: Any, x: Tensor) -> Tensor:
        first = n.first(x)
        a = n.second(first)
        b = n.a(a)
        c = n.b(b)
        return n.tail(n.fuse(torch.cat([b, c], 1)) + first)

    fuse = seq(conv(2 * W, W, 1), conv())
    tail = seq(conv(W, 4 * W), nn.PixelShuffle(2), conv(W, 3))
    blocks = [dense(nn.ReLU) for _ in range(2)]
    return Net(run, first=conv(3), second=conv(), a=blocks[0], b=blocks[1], fuse=fuse, tail=tail)


def rrdb() -> nn.Module:
    def block() -> nn.Module:
        return plus(*(dense(lambda: nn.LeakyReLU(0.2), 0.2, 3) for _ in range(2)), scale=0.2)

    def run(n: Any, x: Tensor) -> Tensor:
        x = n.head(x)
        x = x + n.trunk(x)
        for layer in (n.up1, n.up2):
            x = n.act(layer(functional.interpolate(x, scale_factor=2, mode="nearest")))
        return n.last(n.act(n.wide(x)))

    layers = {"head": conv(3), "trunk": seq(block(), conv()), "up1": conv(), "up2": conv(), "wide": conv()}
    return Net(run, act=nn.LeakyReLU(0.2), last=conv(W, 3), **layers)


def rcan(attention: bool) -> nn.Module:
    def block() -> nn.Module:
        return plus(conv(), nn.ReLU(), conv(), *([channel_attention()] if attention else []))

    return edsr(lambda: plus(block(), block(), conv()))


def drunet() -> nn.Module:
    """Residual blocks without biases, strided convolutions down, transposed ones up, skips by sum."""

    def block() -> nn.Module:
        return plus(conv(bias=False), nn.ReLU(), conv(bias=False))

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.head(x)
        b = n.down1(a)
        c = n.down2(b)
        return n.tail(n.up1(n.up2(n.body(c) + c) + b) + a)

    down = [seq(block(), nn.Conv2d(W, W, 2, 2, bias=False)) for _ in range(2)]
    back = [seq(up(bias=False), block()) for _ in range(2)]
    head, tail = conv(2, W, bias=False), conv(W, 1, bias=False)
    net = Net(run, head=head, tail=tail, down1=down[0], down2=down[1], body=block(), up1=back[0], up2=back[1])
    return padded(net, 4, "replicate")


def unet(activation: Callable[[], nn.Module], enlarge: Callable[[], nn.Module], channels: int = 3) -> nn.Module:
    """Two convolutions a scale, max pooling down, skips joined; a border where sizes do not meet."""

    def pair(inputs: int) -> nn.Module:
        return seq(conv(inputs), activation(), conv(), activation())

    def join(small: Tensor, skip: Tensor) -> Tensor:
        below, right = skip.size(2) - small.size(2), skip.size(3) - small.size(3)
        small = functional.pad(small, [right // 2, right - right // 2, below // 2, below - below // 2])
        return torch.cat([skip, small], 1)

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.enc1(x)
        b = n.enc2(functional.max_pool2d(a, 2))
        c = n.enc3(functional.max_pool2d(b, 2))
        b = n.dec2(join(n.up2(c), b))
        return n.tail(n.dec1(join(n.up1(b), a)))

    layers = {"enc1": pair(channels), "enc2": pair(W), "enc3": pair(W), "dec2": pair(2 * W), "dec1": pair(2 * W)}
    return Net(run, up2=enlarge(), up1=enlarge(), tail=conv(W, channels, 1), **layers)


def resize_unet(activation: Callable[[], nn.Module]) -> nn.Module:
    """Max pooling down; nearest resizing, a convolution and an activation up; skips joined."""

    def block(inputs: int) -> nn.Module:
        return seq(conv(inputs), nn.BatchNorm2d(W), activation())

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.enc1(x)
        b = n.enc2(n.pool(a))
        c = n.enc3(n.pool(b))
        b = n.dec2(torch.cat((b, n.up2(c)), dim=1))
        return n.tail(n.dec1(torch.cat((a, n.up1(b)), dim=1)))

    layers = {f"up{i}": seq(nn.Upsample(scale_factor=2), block(W)) for i in (1, 2)}
    layers |= {"enc1": block(3), "enc2": block(W), "enc3": block(W), "dec2": block(2 * W), "dec1": block(2 * W)}
    return padded(Net(run, pool=nn.MaxPool2d(2, 2), tail=conv(W, 3, 1), **layers), 4)


def image_prior() -> nn.Module:
    """Strided convolutions and batch norm down, skips of one pixel, bilinear resizing up, a sigmoid."""

    def layer(inputs: int, outputs: int, **options: Any) -> nn.Module:
        return seq(nn.ReflectionPad2d(1), conv(inputs, outputs, padding=0, **options), nn.BatchNorm2d(outputs),
                   nn.LeakyReLU(0.2))  # fmt: skip

    def run(n: Any, x: Tensor) -> Tensor:
        y = n.deep(n.down(x))
        y = functional.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return torch.sigmoid(n.last(n.back(torch.cat([y, n.skip(x)], 1))))

    skip = seq(conv(3, 2, 1), nn.BatchNorm2d(2), nn.LeakyReLU(0.2))
    layers = {"down": layer(3, W, stride=2), "deep": layer(W, W), "back": seq(nn.BatchNorm2d(W + 2), layer(W + 2, W))}
    return Net(run, skip=skip, last=conv(W, 3, 1), **layers)


def noise2noise() -> nn.Module:
    """Leaky ReLUs, max pooling, nearest resizing, transposed convolutions, the image joined at the end."""

    def act() -> nn.Module:
        return nn.LeakyReLU(0.1)

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.enc1(x)
        b = n.up2(n.enc2(a))
        c = n.up1(n.dec2(torch.cat((b, a), 1)))
        return n.last(n.dec1(torch.cat((c, x), 1)))

    enc1 = seq(conv(3), act(), conv(), act(), nn.MaxPool2d(2))
    enc2 = seq(conv(), act(), nn.MaxPool2d(2))
    layers = {"enc1": enc1, "enc2": enc2, "up2": nn.Upsample(scale_factor=2), "up1": up()}
    dec1 = seq(conv(W + 3), act(), conv(), act())
    return padded(Net(run, dec2=seq(conv(2 * W), act()), dec1=dec1, last=conv(W, 3), **layers), 4, "replicate")


def see_in_the_dark() -> nn.Module:
    """A Bayer mosaic in four channels; a U-Net; colour at twice the size."""
    net = unet(lambda: nn.LeakyReLU(0.2), up, 4)
    return seq(net, conv(4, 12, 1), nn.PixelShuffle(2))


def post(width: int = W) -> Net:
    """``relu(x + f(x))``: a residual block with its activation at the end."""
    return Net(lambda n, x: torch.relu(x + n.body(x)), body=seq(conv(width, width), nn.ReLU(), conv(width, width)))


def resunet() -> nn.Module:
    def run(n: Any, x: Tensor) -> Tensor:
        a = n.enc1(x)
        b = n.enc2(a)
        return n.tail(n.dec(torch.relu(n.up(b) + a)))

    enc2 = seq(conv_relu(stride=2), post())
    net = Net(run, enc1=seq(conv_relu(1), post()), enc2=enc2, up=up(), dec=post(), tail=conv(W, 1))
    return padded(net, 8)


def mprnet(attention: bool) -> nn.Module:
    """One stage: PReLU blocks, bilinear halving and doubling before convolutions of one pixel, skips by sum."""

    def block() -> nn.Module:
        return plus(conv(bias=False), nn.PReLU(), conv(bias=False), *([channel_attention()] if attention else []))

    def resize(factor: float) -> nn.Module:
        return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.enc1(n.head(x))
        b = n.enc2(n.down(a))
        return n.tail(n.dec1(n.up(b) + n.skip(a))) + x

    ends = {"down": seq(resize(0.5), conv(W, W, 1)), "up": seq(resize(2), conv(W, W, 1))}
    net = Net(run, head=conv(3), enc1=block(), enc2=block(), dec1=block(), skip=block(), tail=conv(W, 3), **ends)
    return padded(net, 8)


def prn(recurrent: bool) -> nn.Module:
    """The same residual network again and again, each time with the rainy image beside the last result."""

    def run(n: Any, image: Tensor) -> Tensor:
        x = image
        for _ in range(2):
            y = n.head(torch.cat([image, x], 1))
            for block in (n.first,) * 3 if recurrent else (n.first, n.second):
                y = torch.relu(block(y) + y)
            x = n.tail(y)
        return x

    def block() -> nn.Module:
        return seq(conv_relu(), conv_relu())

    return Net(run, head=conv_relu(6), first=block(), second=block(), tail=conv(W, 3))


def aodnet() -> nn.Module:
    def run(n: Any, x: Tensor) -> Tensor:
        a = torch.relu(n.c1(x))
        b = torch.relu(n.c2(a))
        c = torch.relu(n.c3(torch.cat([a, b], 1)))
        d = torch.relu(n.c4(torch.cat([b, c], 1)))
        return torch.relu(n.c5(torch.cat([a, b, c, d], 1)))

    shapes = {"c1": (3, 3, 1), "c2": (3, 3, 3), "c3": (6, 3, 5), "c4": (6, 3, 7), "c5": (12, 3, 3)}
    return Net(run, **{name: conv(*shape) for name, shape in shapes.items()})


def gcanet(gate: bool, norm: Callable[[int], nn.Module]) -> nn.Module:
    """Smoothed dilated convolutions (a depthwise one before each), three levels fused by gates or by a convolution."""

    def block(dilation: int) -> nn.Module:
        smooth = conv(W, W, 2 * dilation - 1, groups=W, bias=False)
        body = seq(smooth, conv(dilation=dilation, bias=False), norm(W), nn.ReLU(), conv(bias=False), norm(W))
        return Net(lambda n, x: torch.relu(x + n.body(x)), body=body)

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.head(x)
        b = n.first(a)
        c = n.second(b)
        if gate:
            gates = n.gate(torch.cat((a, b, c), 1))
            y = a * gates[:, [0]] + b * gates[:, [1]] + c * gates[:, [2]]
        else:
            y = n.fuse(torch.cat((a, b, c), 1))
        return n.tail(y)

    head = seq(conv(3, bias=False), norm(W), nn.ReLU(), conv(stride=2, bias=False), norm(W), nn.ReLU())
    tail = seq(nn.ConvTranspose2d(W, W, 4, 2, 1), norm(W), nn.ReLU(), conv(W, 3, 1))
    net = Net(run, head=head, first=block(2), second=block(4), gate=conv(3 * W, 3), fuse=conv_relu(3 * W), tail=tail)
    return padded(net, 4)


def gunet() -> nn.Module:
    gate = Net(lambda n, x: n.value(x) * torch.sigmoid(n.gate(x)), value=conv(W, W, 1), gate=conv(W, W, 5, groups=W))
    block = plus(nn.BatchNorm2d(W), gate, conv(W, W, 1))
    return seq(conv(3), block, conv(W, 3))


def memnet() -> nn.Module:
    """Memory blocks: batch norm and ReLU before each convolution; a gate of one pixel on all that came before."""

    def unit(inputs: int = W, size: int = 3) -> nn.Module:
        return seq(nn.BatchNorm2d(inputs), nn.ReLU(), conv(inputs, W, size))

    def run(n: Any, x: Tensor) -> Tensor:
        first = n.head(x)
        kept, y = [first], first
        for i in (0, 1):
            inner = n.units[2 * i](y) + y
            y = n.gates[i](torch.cat([inner, n.units[2 * i + 1](inner) + inner, *kept], 1))
            kept.append(y)
        return n.tail(y) + x

    tail = seq(nn.BatchNorm2d(W), nn.ReLU(), conv(W, 1))
    gates = nn.ModuleList([unit(3 * W, 1), unit(4 * W, 1)])
    return Net(run, head=seq(nn.BatchNorm2d(1), nn.ReLU(), conv(1)), units=nn.ModuleList(unit() for _ in range(4)),
               gates=gates, tail=tail)  # fmt: skip


def carn() -> nn.Module:
    def residual() -> nn.Module:
        return Net(lambda n, x: torch.relu(n.body(x) + x), body=seq(conv_relu(), conv()))

    def run(n: Any, x: Tensor) -> Tensor:
        kept = y = n.head(x)
        for block, fuse in zip(n.blocks, n.fuses, strict=True):
            kept = torch.cat([kept, block(y)], 1)
            y = fuse(kept)
        return n.tail(y)

    fuses = nn.ModuleList(conv_relu(i * W, W, 1) for i in (2, 3))
    blocks = nn.ModuleList(residual() for _ in range(2))
    tail = seq(conv(W, 4 * W), nn.ReLU(), nn.PixelShuffle(2), conv(W, 3))
    return Net(run, head=conv(3), blocks=blocks, fuses=fuses, tail=tail)


def imdn(attention: bool) -> nn.Module:
    """Channels split step by step: some are kept, the others refined."""

    def run(n: Any, x: Tensor) -> Tensor:
        x = first = n.head(x)
        kept, rest = torch.split(n.act(n.c1(x)), (2, 4), dim=1)
        more, rest = torch.split(n.act(n.c2(rest)), (2, 4), dim=1)
        y = torch.cat([kept, more, n.c3(rest)], dim=1)
        y = n.attention(y) if attention else y
        return n.tail(n.fuse(y) + x + first)

    convs = {"c1": conv(W, 6), "c2": conv(4, 6), "c3": conv(4, 2), "fuse": conv(6, W, 1)}
    tail = seq(conv(W, 12), nn.PixelShuffle(2))
    return Net(run, head=conv(3), act=nn.LeakyReLU(0.05), attention=channel_attention(6), tail=tail, **convs)


def lapsrn() -> nn.Module:
    """Two levels of a pyramid; the picture itself is enlarged by transposed convolutions, and details are added."""

    def level() -> nn.Module:
        act = [nn.LeakyReLU(0.2) for _ in range(3)]
        return seq(conv(), act[0], conv(), act[1], nn.ConvTranspose2d(W, W, 4, 2, 1), act[2])

    def run(n: Any, x: Tensor) -> Tensor:
        features = n.head(x)
        for i in (0, 1):
            features = n.levels[i](features)
            x = n.enlarge[i](x) + n.detail[i](features)
        return x

    enlarge = nn.ModuleList(nn.ConvTranspose2d(1, 1, 4, 2, 1, bias=False) for _ in range(2))
    levels, detail = nn.ModuleList(level() for _ in range(2)), nn.ModuleList(conv(W, 1) for _ in range(2))
    return Net(run, head=seq(conv(1), nn.LeakyReLU(0.2)), levels=levels, detail=detail, enlarge=enlarge)


def cbdnet() -> nn.Module:
    """A noise estimate of five convolutions beside the image; a U-Net with average pooling and skips by sum."""

    def run(n: Any, x: Tensor) -> Tensor:
        noise = n.estimate(x)
        a = n.enc1(torch.cat([x, noise], 1))
        b = n.enc2(functional.avg_pool2d(a, 2))
        return n.tail(n.dec(n.up(b) + a)) + x

    estimate = seq(conv_relu(3), conv_relu(), conv_relu(W, 3))
    net = Net(run, estimate=estimate, enc1=conv_relu(6), enc2=conv_relu(), up=up(), dec=conv_relu(), tail=conv(W, 3, 1))
    return padded(net, 2)


def ridnet(attention: bool) -> nn.Module:
    """Two dilated branches merged, residual blocks with the activation at the end."""

    def run(n: Any, x: Tensor) -> Tensor:
        y = n.block(n.head(x))
        return n.tail(y) + x

    def block(n: Any, x: Tensor) -> Tensor:
        y = n.merge(torch.cat([n.one(x), n.two(x)], 1)) + x
        y = torch.relu(n.residual(y) + y)
        y = torch.relu(n.enhanced(y) + y)
        return n.attention(y) if attention else y

    one = seq(conv_relu(), conv_relu(dilation=2))
    two = seq(conv_relu(dilation=3), conv_relu(dilation=4))
    enhanced = seq(conv_relu(), conv_relu(), conv(W, W, 1))
    inner = Net(block, one=one, two=two, merge=conv_relu(2 * W), residual=seq(conv_relu(), conv()), enhanced=enhanced,
                attention=channel_attention())  # fmt: skip
    return Net(run, head=conv_relu(3), block=inner, tail=conv(W, 3))


def pmrid() -> nn.Module:
    """Separable convolutions of 5 x 5 pixels in residual blocks, a U-Net of two scales, a Bayer mosaic."""

    def separable(inputs: int = W, outputs: int = W, stride: int = 1, relu: bool = True) -> nn.Module:
        depth = conv(inputs, inputs, 5, groups=inputs, stride=stride, bias=False)
        return seq(depth, conv(inputs, outputs, 1), *([nn.ReLU()] if relu else []))

    def block(inputs: int = W, stride: int = 1) -> nn.Module:
        body = seq(separable(inputs, W, stride), separable(relu=False))
        plain = seq() if stride == 1 else separable(inputs, W, stride, relu=False)
        return Net(lambda n, x: torch.relu(n.body(x) + n.plain(x)), body=body, plain=plain)

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.head(x)
        b = n.enc(a)
        return x + n.last(n.dec(n.up(b) + n.skip(a)))

    layers = {"head": conv_relu(4), "enc": seq(block(stride=2), block()), "dec": block(), "skip": separable()}
    return padded(Net(run, up=seq(up(), nn.ReLU()), last=conv(W, 4), **layers), 2)


def mimo_unet() -> nn.Module:
    """Smaller copies of the image enter at their scales; features of all scales meet at each."""

    def run(n: Any, x: Tensor) -> Tensor:
        small = functional.interpolate(x, scale_factor=0.5)
        a = n.enc1(n.head(x))
        b = n.enc2(n.fuse(torch.cat([n.down(a), n.shallow(small)], 1)))
        both = n.meet(torch.cat([a, functional.interpolate(b, scale_factor=2)], 1))
        return n.tail(n.dec(torch.cat([n.up(b), both], 1))) + x

    enlarge = seq(nn.ConvTranspose2d(W, W, 4, 2, 1), nn.ReLU())
    layers = {"head": conv_relu(3), "enc1": plus(conv_relu(), conv()), "enc2": plus(conv_relu(), conv())}
    layers |= {"down": conv_relu(stride=2), "shallow": seq(conv_relu(3), conv_relu(W, W, 1)), "fuse": conv(2 * W)}
    layers |= {"meet": seq(conv_relu(2 * W, W, 1), conv()), "up": enlarge, "dec": conv_relu(2 * W, W, 1)}
    return padded(Net(run, tail=conv(W, 3), **layers), 4)


class LayerNorm2d(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        return (x - mean) / ((x - mean).pow(2).mean(1, keepdim=True) + 1e-6).sqrt()


def nafnet(norm: bool) -> nn.Module:
    def gate(n: Any, x: Tensor) -> Tensor:
        one, two = x.chunk(2, dim=1)
        return one * two

    block = plus(*([LayerNorm2d()] if norm else []), conv(W, 2 * W, 1), conv(2 * W, 2 * W, groups=2 * W), Net(gate),
                 conv(W, W, 1))  # fmt: skip
    return padded(seq(conv(3), block, conv(W, 3)), 4)


def hinet() -> nn.Module:
    def run(n: Any, x: Tensor) -> Tensor:
        one, two = torch.chunk(n.c1(x), 2, dim=1)
        y = n.act(torch.cat([n.norm(one), two], dim=1))
        return n.act(n.c2(y)) + n.identity(x)

    block = Net(run, c1=conv(), c2=conv(), act=nn.LeakyReLU(0.2), norm=nn.InstanceNorm2d(W // 2, affine=True),
                identity=conv(W, W, 1))  # fmt: skip
    return seq(conv(3), block, conv(W, 3))


def restormer() -> nn.Module:
    def attention(n: Any, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = n.qkv(x).chunk(3, dim=1)
        q, k, v = (it.reshape(batch, channels, height * width) for it in (q, k, v))
        weights = torch.softmax(q @ k.transpose(1, 2), -1)
        return n.out((weights @ v).reshape(batch, channels, height, width))

    block = plus(Net(attention, qkv=conv(W, 3 * W, 1), out=conv(W, W, 1)))
    return seq(conv(3), block, conv(W, 3))


def swinir() -> nn.Module:
    def window(n: Any, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = n.norm(x.flatten(2).transpose(1, 2))
        return (tokens + n.mlp(tokens)).transpose(1, 2).reshape(batch, channels, height, width)

    return seq(conv(3), plus(Net(window, norm=nn.LayerNorm(W), mlp=nn.Linear(W, W))), conv(W, 3))


def rednet(depth: int) -> nn.Module:
    """Convolutions, then transposed ones, with every second feature map added before an activation."""

    def run(n: Any, x: Tensor) -> Tensor:
        kept, y = [x], x
        for i, layer in enumerate(n.down):
            y = torch.relu(layer(y))
            if i % 2 == 1 and i + 1 < len(n.down):
                kept.append(y)
        for i, layer in enumerate(n.up):
            y = layer(y)
            if i % 2 == 1 and kept:
                y = y + kept.pop()
            y = torch.relu(y) if i + 1 < len(n.up) else y
        return y + x

    down = nn.ModuleList(conv(1 if i == 0 else W) for i in range(depth))
    back = nn.ModuleList(nn.ConvTranspose2d(W, W if i + 1 < depth else 1, 3, padding=1) for i in range(depth))
    return Net(run, down=down, up=back)


def mwcnn() -> nn.Module:
    """Haar wavelets down and up: sums and differences of every second row and column."""

    def down(x: Tensor) -> Tensor:
        a, b, c, d = (x[:, :, i::2, j::2] / 2 for j in (0, 1) for i in (0, 1))
        return torch.cat((a + b + c + d, -a - b + c + d, -a + b - c + d, a - b - c + d), 1)

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.enc1(x)
        b = n.enc2(down(a))
        return n.tail(functional.pixel_shuffle(n.dec(b), 2) + a) + x

    net = Net(run, enc1=conv_relu(1), enc2=conv_relu(4 * W, 8), dec=conv(8, 4 * W), tail=seq(conv_relu(), conv(W, 1)))
    return padded(net, 2)


def dehazenet() -> nn.Module:
    """Maxout over groups of channels, three sizes of kernels, a maximum over 7 x 7 pixels, a ReLU with two sides."""

    def run(n: Any, x: Tensor) -> Tensor:
        y = n.first(x)
        y = torch.max(torch.max(y[:, :2], y[:, 2:4]), torch.max(y[:, 4:6], y[:, 6:8]))
        y = n.pool(torch.cat([n.c3(y), n.c5(y), n.c7(y)], 1))
        return torch.clamp(n.last(y), 0.0, 1.0)

    sizes = {"c3": conv(2, 2), "c5": conv(2, 2, 5), "c7": conv(2, 2, 7)}
    return Net(run, first=conv(3, 8, 5), pool=nn.MaxPool2d(7, 1, 3), last=conv(6, 1), **sizes)


def mscnn() -> nn.Module:
    """A coarse map of transmission with pooling and nearest enlarging, refined by a fine one; sigmoids."""

    def coarse(inputs: int) -> nn.Module:
        layers = [
            (conv_relu(inputs, W, 7), nn.MaxPool2d(2), nn.Upsample(scale_factor=2)),
            (conv_relu(W, W, 5), nn.MaxPool2d(2), nn.Upsample(scale_factor=2)),
        ]
        return seq(*(it for layer in layers for it in layer), conv(W, 1))

    def run(n: Any, x: Tensor) -> Tensor:
        first = torch.sigmoid(n.coarse(x))
        y = torch.cat([n.fine1(x), first], 1)
        return torch.sigmoid(n.fine2(y))

    fine2 = seq(conv_relu(W + 1), conv(W, 1))
    return padded(Net(run, coarse=coarse(3), fine1=conv_relu(3), fine2=fine2), 2, "replicate")


def griddehazenet() -> nn.Module:
    """Rows of dense blocks and columns of resizing that meet by sums with trained factors."""

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.row1(n.head(x))
        b = n.row2(n.down(a))
        a = n.factors[0][None, :, None, None] * n.row3(a) + n.factors[1][None, :, None, None] * n.up(b, a.size()[2:])
        return torch.relu(n.tail(a))

    def enlarge(n: Any, x: Tensor) -> Tensor:
        return torch.relu(n.conv(n.deconv(x)))

    class Up(Net):
        def forward(self, x: Tensor, size: Any) -> Tensor:
            y = self.run(self, x)
            return y[:, :, : size[0], : size[1]]

    back = Up(enlarge, deconv=nn.ConvTranspose2d(W, W, 3, 2, 1, 1), conv=conv())
    net = Net(run, head=conv(3), row1=dense(nn.ReLU), row2=dense(nn.ReLU), row3=dense(nn.ReLU), tail=conv(W, 3),
              down=seq(conv_relu(stride=2), conv_relu()), up=back)  # fmt: skip
    net.factors = nn.Parameter(torch.rand(2, W))
    return net


def msbdn() -> nn.Module:
    """Strengthen, operate, subtract: a decoder that boosts what is below; skips brought to size."""

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.enc1(x)
        b = n.enc2(a)
        large = n.up(b)
        large = functional.interpolate(large, size=a.shape[2:], mode="bilinear", align_corners=False)
        y = n.dec(large + a) - large
        return n.tail(y)

    enc2 = seq(conv_relu(stride=2), plus(conv_relu(), conv()))
    return Net(run, enc1=seq(conv(3), nn.LeakyReLU(0.2)), enc2=enc2, up=nn.ConvTranspose2d(W, W, 3, 2, 1),
               dec=plus(conv(), nn.LeakyReLU(0.2), conv()), tail=conv(W, 3))  # fmt: skip


def gfn() -> nn.Module:
    """Three versions of the image weighed by maps of confidence."""

    def run(n: Any, x: Tensor) -> Tensor:
        bright = x**0.5
        maps = n.body(torch.cat([x, bright], 1))
        return x * maps[:, :3] + bright * maps[:, 3:]

    return Net(run, body=seq(conv_relu(6), conv_relu(dilation=2), conv(W, 6)))


def ddn() -> nn.Module:
    """A residual network on the detail of the image: what a mean over a window leaves."""

    def run(n: Any, x: Tensor) -> Tensor:
        detail = x - functional.avg_pool2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), 5, 1)
        return x + n.tail(n.body(n.head(detail)))

    head = seq(conv(3, bias=False), nn.BatchNorm2d(W), nn.ReLU())
    body = plus(conv_bn_relu(), conv_bn_relu())
    return Net(run, head=head, body=body, tail=seq(conv(W, 3), nn.BatchNorm2d(3)))


def brdnet() -> nn.Module:
    """Two branches, one of them dilated, each with the image subtracted; joined, subtracted again."""

    def run(n: Any, x: Tensor) -> Tensor:
        return x - n.tail(torch.cat([x - n.plain(x), x - n.wide(x)], 1))

    plain = seq(conv_bn_relu(3), conv_bn_relu(), conv(W, 3))
    wide = seq(conv_bn_relu(3), conv_relu(dilation=2), conv_relu(dilation=2), conv(W, 3))
    return Net(run, plain=plain, wide=wide, tail=conv(6, 3))


def adnet() -> nn.Module:
    def run(n: Any, x: Tensor) -> Tensor:
        y = n.enhance(torch.cat([x, n.sparse(x)], 1))
        return x - n.attention(y) * torch.tanh(y)

    sparse = seq(conv_bn_relu(1), conv_bn_relu(dilation=2), conv_bn_relu(), conv(W, 1))
    return Net(run, sparse=sparse, enhance=conv(2, 1), attention=conv(1, 1, 1))


def cresmd() -> nn.Module:
    """Residual blocks at half resolution, their outputs weighed by fixed degrees of degradation."""

    def run(n: Any, x: Tensor) -> Tensor:
        y = torch.relu(n.head(x))
        for i, block in enumerate(n.blocks):
            y = y + n.degrees[i].view(1, -1, 1, 1) * block(y)
        return functional.pixel_shuffle(torch.relu(n.enlarge(y)), 2).mul(0.5)[:, :3] + x

    net = Net(run, head=conv(3, stride=2), blocks=nn.ModuleList(seq(conv_relu(), conv()) for _ in range(2)),
              enlarge=conv(W, 12))  # fmt: skip
    net.register_buffer("degrees", torch.rand(2, W))
    return padded(net, 2)


def dbpn() -> nn.Module:
    """Up- and down-projections: what a map lost by being enlarged and brought back is enlarged and added."""

    def project(first: Callable[[], nn.Module], back: Callable[[], nn.Module]) -> Net:
        def run(n: Any, x: Tensor) -> Tensor:
            large = n.first(x)
            return n.second(n.back(large) - x) + large

        return Net(run, first=first(), back=back(), second=first())

    def enlarge() -> nn.Module:
        return seq(nn.ConvTranspose2d(W, W, 6, 2, 2), nn.PReLU())

    def shrink() -> nn.Module:
        return seq(nn.Conv2d(W, W, 6, 2, 2), nn.PReLU())

    head = seq(conv(3), nn.PReLU())
    return seq(head, project(enlarge, shrink), project(shrink, enlarge), project(enlarge, shrink), conv(W, 3))


def wdsr() -> nn.Module:
    """Wide activations, narrow skips; the mean of the training images taken out and put back."""

    def run(n: Any, x: Tensor) -> Tensor:
        x = (x - n.mean) * 2
        y = functional.pixel_shuffle(n.tail(n.body(n.head(x))), 2)
        return (y + functional.pixel_shuffle(n.skip(x), 2)) / 2 + n.mean

    blocks = [plus(conv(W, 4 * W, 1), nn.ReLU(), conv(4 * W, 3, 1), conv(3, W)) for _ in range(2)]
    net = Net(run, head=conv(3), body=seq(*blocks), tail=conv(W, 12), skip=conv(3, 12, 5))
    net.register_buffer("mean", torch.tensor([0.45, 0.44, 0.4]).view(1, 3, 1, 1))
    return net


def zero_dce(curve: bool) -> nn.Module:
    """Symmetric joins; maps of curves between -1 and 1. With the curve itself: products of the image and the maps."""

    def run(n: Any, x: Tensor) -> Tensor:
        a = torch.relu(n.c1(x))
        b = torch.relu(n.c2(a))
        c = torch.relu(n.c3(torch.cat([a, b], 1)))
        maps = torch.tanh(n.c4(torch.cat([a, c], 1)))
        return x + maps * (x * x - x) if curve else maps

    return Net(run, c1=conv(3), c2=conv(), c3=conv(2 * W), c4=conv(2 * W, 3))


def deblurgan(norm: Callable[[int], nn.Module]) -> nn.Module:
    """Reflected borders, strided convolutions, residual blocks, transposed convolutions, tanh; the result clipped."""

    def block() -> nn.Module:
        pad = [nn.ReflectionPad2d(1) for _ in range(2)]
        return plus(pad[0], conv(padding=0), norm(W), nn.ReLU(), pad[1], conv(padding=0), norm(W))

    def run(n: Any, x: Tensor) -> Tensor:
        y = n.tail(n.body(n.head(x)))
        return torch.clamp(x + torch.tanh(y), min=-1, max=1)

    head = seq(nn.ReflectionPad2d(3), conv(3, W, 7, padding=0), norm(W), nn.ReLU(), conv(stride=2), norm(W), nn.ReLU())
    grow = nn.ConvTranspose2d(W, W, 3, 2, 1, 1)
    tail = seq(grow, norm(W), nn.ReLU(), nn.ReflectionPad2d(3), conv(W, 3, 7, padding=0))
    return padded(Net(run, head=head, body=block(), tail=tail), 4)


def srn_deblur() -> nn.Module:
    """Residual blocks with activations in them, strided and transposed convolutions, skips by sum."""

    def run(n: Any, x: Tensor) -> Tensor:
        a = n.enc1(x)
        b = n.enc2(a)
        return n.tail(n.up(n.dec(b)) + a)

    enc1 = seq(conv_relu(3, W, 5), plus(conv_relu(W, W, 5), conv(W, W, 5)))
    enc2 = seq(conv_relu(W, W, 5, stride=2), plus(conv_relu(W, W, 5), conv(W, W, 5)))
    enlarge = seq(nn.ConvTranspose2d(W, W, 4, 2, 1), nn.ReLU())
    net = Net(run, enc1=enc1, enc2=enc2, dec=plus(conv_relu(W, W, 5), conv()), up=enlarge, tail=conv(W, 3, 5))
    return padded(net, 2)


def srdensenet() -> nn.Module:
    """Dense blocks of ReLUs, joined by a convolution of one pixel, enlarged by a transposed convolution."""

    def run(n: Any, x: Tensor) -> Tensor:
        found = [n.head(x)]
        for layer in n.layers:
            found.append(layer(torch.cat(found, 1)))
        return n.tail(n.up(n.fuse(torch.cat(found, 1))))

    layers = nn.ModuleList(conv_relu(W + 2 * i, 2) for i in range(3))
    enlarge = seq(nn.ConvTranspose2d(W, W, 4, 2, 1), nn.ReLU())
    return Net(run, head=conv_relu(1), layers=layers, fuse=conv_relu(W + 6, W, 1), up=enlarge, tail=conv(W, 1))


def dcscn() -> nn.Module:
    """PReLU features of all depths joined, two ways of one pixel and of three; the picture enlarged is added."""

    def run(n: Any, x: Tensor) -> Tensor:
        found, y = [], x
        for layer in n.layers:
            y = layer(y)
            found.append(y)
        y = torch.cat(found, 1)
        y = torch.cat([n.a(y), n.b(y)], 1)
        y = n.tail(functional.pixel_shuffle(n.up(y), 2))
        return y + functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)

    def act(inputs: int, outputs: int, size: int = 3) -> nn.Module:
        return seq(conv(inputs, outputs, size), nn.PReLU(outputs))

    layers = nn.ModuleList([act(1, W), act(W, 3), act(3, 2)])
    b = seq(act(W + 5, 2, 1), act(2, 2))
    return Net(run, layers=layers, a=act(W + 5, 2, 1), b=b, up=seq(conv(4, 8), nn.ReLU()), tail=conv(2, 1))


def mbllen() -> nn.Module:
    """A chain of ReLUs, each of which feeds a small network of its own; all results joined by one pixel."""

    def enhance() -> nn.Module:
        return seq(conv_relu(W, 2), conv_relu(2, 3, 5, padding=0), conv_relu(3, 3, 5, padding=0),
                   nn.ConvTranspose2d(3, 3, 5), nn.ReLU(), nn.ConvTranspose2d(3, 3, 5), nn.ReLU())  # fmt: skip

    def run(n: Any, x: Tensor) -> Tensor:
        found, y = [], x
        for layer, branch in zip(n.layers, n.branches, strict=True):
            y = layer(y)
            found.append(branch(y))
        return n.fuse(torch.cat(found, 1))

    branches = nn.ModuleList(enhance() for _ in range(2))
    return Net(run, layers=nn.ModuleList([conv_relu(3), conv_relu()]), branches=branches, fuse=conv(6, 3, 1))


def retinexnet() -> nn.Module:
    """Reflectance and illumination: the image and its brightest channel, plain ReLUs, a sigmoid."""

    def run(n: Any, x: Tensor) -> Tensor:
        brightest = torch.max(x, dim=1, keepdim=True)[0]
        return torch.sigmoid(n.body(torch.cat([brightest, x], 1)))

    return Net(run, body=seq(conv_relu(4, W, 9), conv_relu(), conv_relu(), conv(W, 4)))


def mobile() -> nn.Module:
    """Inverted residual blocks: ReLU6 around depthwise convolutions, strided; enlarged by nearest resizing."""

    def block(stride: int = 1) -> nn.Module:
        body = (conv(W, 2 * W, 1), nn.BatchNorm2d(2 * W), nn.ReLU6(), conv(2 * W, 2 * W, groups=2 * W, stride=stride),
                nn.BatchNorm2d(2 * W), nn.ReLU6(), conv(2 * W, W, 1), nn.BatchNorm2d(W))  # fmt: skip
        return plus(*body) if stride == 1 else seq(*body)

    return padded(seq(conv(3), block(2), block(), nn.Upsample(scale_factor=2), conv(W, 3)), 2)


def global_context() -> nn.Module:
    """The mean of each channel over the whole image, enlarged and joined to its features."""

    def run(n: Any, x: Tensor) -> Tensor:
        y = n.head(x)
        mean = torch.relu(n.context(functional.adaptive_avg_pool2d(y, 1)))
        mean = functional.interpolate(mean, size=y.shape[2:], mode="nearest")
        return n.tail(torch.cat([y, n.wide(y), mean], 1))

    layers = {"head": conv_relu(3), "wide": conv_relu(dilation=3), "context": conv(W, 2, 1)}
    return Net(run, tail=conv(2 * W + 2, 3), **layers)


def gelu_net(activation: Callable[[], nn.Module]) -> nn.Module:
    """Blocks of a modern convolutional network without its norm: depthwise, wide, activation, narrow."""
    blocks = [plus(conv(W, W, 5, groups=W), conv(W, 2 * W, 1), activation(), conv(2 * W, W, 1)) for _ in range(2)]
    return seq(conv(3), *blocks, conv(W, 3))


@dataclass(frozen=True)
class Entry:
    """A network of the table.

    Attributes:
        make: Makes it.
        channels: Channels of its image.
        pieces: Straight pieces for its smooth activations, if it has some.
    """

    make: Callable[[], nn.Module]
    channels: int = 3
    pieces: int | None = None


NETWORKS: dict[str, Entry] = {
    "DnCNN": Entry(dncnn, 1),
    "DnCNN, colour, blind": Entry(lambda: dncnn(3, 5)),
    "FDnCNN": Entry(lambda: seq(conv_relu(2), conv_relu(), conv_relu(), conv(W, 1)), 2),
    "FFDNet": Entry(lambda: ffdnet(1), 1),
    "FFDNet, colour": Entry(lambda: ffdnet(3)),
    "IRCNN": Entry(ircnn, 1),
    "DnSNN": Entry(lambda: minus(seq(conv_relu(1), conv_relu(), conv_relu(), conv(W, 1))), 1),
    "BRDNet": Entry(brdnet),
    "ADNet": Entry(adnet, 1, 8),
    "REDNet-10": Entry(lambda: rednet(3), 1),
    "REDNet-30": Entry(lambda: rednet(5), 1),
    "MemNet": Entry(memnet, 1),
    "CBDNet": Entry(cbdnet),
    "RIDNet without attention": Entry(lambda: ridnet(False)),
    "RIDNet": Entry(lambda: ridnet(True), 3, 8),
    "PMRID": Entry(pmrid, 4),
    "DRUNet": Entry(drunet, 2),
    "MWCNN": Entry(mwcnn, 1),
    "Noise2Noise": Entry(noise2noise),
    "Deep Image Prior": Entry(image_prior, 3, 8),
    "U-Net, transposed convolutions": Entry(lambda: unet(nn.ReLU, up)),
    "U-Net, bilinear": Entry(lambda: unet(nn.ReLU, lambda: nn.Upsample(scale_factor=2, mode="bilinear"))),
    "U-Net, leaky": Entry(lambda: unet(lambda: nn.LeakyReLU(0.2), up)),
    "See-in-the-Dark": Entry(see_in_the_dark, 4),
    "U-Net, nearest": Entry(lambda: resize_unet(nn.ReLU)),
    "U-Net, nearest, leaky": Entry(lambda: resize_unet(lambda: nn.LeakyReLU(0.1))),
    "ResUNet": Entry(resunet, 1),
    "SRCNN": Entry(lambda: seq(conv_relu(1, W, 9), conv_relu(W, W, 1), conv(W, 1, 5)), 1),
    "FSRCNN": Entry(fsrcnn, 1),
    "ESPCN": Entry(lambda: seq(conv(1, W, 5), nn.Tanh(), conv(), nn.Tanh(), conv(W, 4), nn.PixelShuffle(2)), 1, 8),
    "ESPCN with ReLU": Entry(lambda: seq(conv_relu(1, W, 5), conv_relu(), conv(W, 4), nn.PixelShuffle(2)), 1),
    "VDSR": Entry(vdsr, 1),
    "DRRN": Entry(drrn, 1),
    "SRMD": Entry(srmd, 19),
    "EDSR": Entry(lambda: edsr(lambda: plus(conv(), nn.ReLU(), conv(), scale=0.1))),
    "MSRResNet": Entry(lambda: msrresnet(lambda: nn.LeakyReLU(0.1))),
    "DPSR's prior": Entry(lambda: msrresnet(nn.ReLU)),
    "SRResNet": Entry(srresnet),
    "RDN": Entry(rdn),
    "RRDB (ESRGAN)": Entry(rrdb),
    "RCAN without attention": Entry(lambda: rcan(False)),
    "RCAN": Entry(lambda: rcan(True), 3, 8),
    "CARN": Entry(carn),
    "IMDN without attention": Entry(lambda: imdn(False)),
    "IMDN": Entry(lambda: imdn(True), 3, 8),
    "SRDenseNet": Entry(srdensenet, 1),
    "DCSCN": Entry(dcscn, 1),
    "LapSRN": Entry(lapsrn, 1),
    "DBPN": Entry(dbpn),
    "WDSR": Entry(wdsr),
    "ARCNN": Entry(lambda: seq(conv_relu(1, W, 9), conv_relu(W, W, 7), conv_relu(W, W, 1), conv(W, 1, 5)), 1),
    "WIN5-RB": Entry(lambda: plus(conv_bn_relu(1), conv_bn_relu(), conv_bn_relu(), conv(W, 1), nn.BatchNorm2d(1)), 1),
    "DMCNN": Entry(lambda: seq(conv_relu(4, W, 9), conv_relu(W, W, 1), conv(W, 12, 5), nn.PixelShuffle(2)), 4),
    "MBLLEN": Entry(mbllen),
    "RetinexNet's decomposition": Entry(retinexnet, 3, 8),
    "PRN": Entry(lambda: prn(False)),
    "PRN_r": Entry(lambda: prn(True)),
    "DDN": Entry(ddn),
    "CResMD": Entry(cresmd),
    "AOD-Net": Entry(aodnet),
    "DehazeNet": Entry(dehazenet),
    "MSCNN": Entry(mscnn, 3, 8),
    "GCANet": Entry(lambda: gcanet(True, nn.InstanceNorm2d)),
    "GCANet with batch norm, without gates": Entry(lambda: gcanet(False, nn.BatchNorm2d)),
    "GridDehazeNet without attention": Entry(griddehazenet),
    "MSBDN": Entry(msbdn),
    "GFN": Entry(gfn),
    "gUNet": Entry(gunet, 3, 8),
    "MPRNet without attention": Entry(lambda: mprnet(False)),
    "MPRNet": Entry(lambda: mprnet(True), 3, 8),
    "MIMO-UNet": Entry(mimo_unet),
    "SRN-Deblur": Entry(srn_deblur),
    "DeblurGAN": Entry(lambda: deblurgan(nn.InstanceNorm2d), 3, 8),
    "DeblurGAN with batch norm": Entry(lambda: deblurgan(nn.BatchNorm2d), 3, 8),
    "Zero-DCE": Entry(lambda: zero_dce(True), 3, 8),
    "Zero-DCE, its maps alone": Entry(lambda: zero_dce(False), 3, 8),
    "MobileNetV2 blocks": Entry(mobile),
    "Global context": Entry(global_context),
    "ConvNeXt blocks without norm": Entry(lambda: gelu_net(nn.GELU), 3, 8),
    "NAFNet": Entry(lambda: nafnet(True)),
    "NAFNet without norm": Entry(lambda: nafnet(False)),
    "HINet": Entry(hinet),
    "Restormer": Entry(restormer),
    "SwinIR": Entry(swinir),
}
"""The table."""


def make(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network with random weights, biases and norms."""
    torch.manual_seed(0)
    network = NETWORKS[name].make()
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.2, 0.3),
                                      (module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 2.0)):  # fmt: skip
                nn.init.uniform_(tensor, low, high, generator=generator)
    return network.to(dtype).eval()


def images(name: str, size: tuple[int, int] = (16, 16), count: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images that the network takes."""
    shape = (count, NETWORKS[name].channels, *size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(size)), dtype=dtype)


@dataclass(frozen=True)
class Row:
    """What became of a network.

    Attributes:
        rewrites: What it was rewritten by.
        refused: Why it is refused, if it is.
        refused_natively: Why the native engine does not run it, if it does not.
    """

    rewrites: tuple[str, ...] = ()
    refused: str = ""
    refused_natively: str = ""

    @property
    def native(self) -> bool:
        """Whether the native engine runs it."""
        return not self.refused and not self.refused_natively

    def cells(self) -> str:
        """Its columns of the table, after the name."""
        if self.refused:
            return f"no | | {self.refused}"
        return f"yes | {self.refused_natively or 'yes'} | {'; '.join(self.rewrites)}"


def converted(name: str, **options: Any) -> SpikingNetwork:
    """A network as a spiking one, on the phased schedule; calibrated to the maximum.

    Raises:
        ConversionError: It is refused.
    """
    options = {"schedule": "phased", "time_steps": 8, "percentile": 100, "pieces": NETWORKS[name].pieces} | options
    return convert(make(name), images(name), **options)


def why_not_natively(spiking: SpikingNetwork) -> str:
    """Why the native engine does not take the folded network; nothing where it does."""
    try:
        NativeNetwork(fold(spiking))
    except (NotNativeError, FoldError) as error:
        return str(error)
    return ""


def row_of(name: str, spiking: SpikingNetwork) -> Row:
    """The row of a network that converts."""
    fates = [fate for place, _, fate in spiking.origin if place != "output"]
    found = dict.fromkeys(fate.split(":", 1)[1].strip() for fate in fates if fate.startswith("rewritten"))
    if any(fate.startswith("replaced") for fate in fates):
        found[f"{NETWORKS[name].pieces} straight pieces for each smooth activation"] = None
    if any(node.op in ("pad_to", "crop") for node in spiking.nodes):
        found["padding and cropping by the size"] = None
    return Row(tuple(found), refused_natively=why_not_natively(spiking))


def try_out(name: str) -> Row:
    """Convert a network, and see whether it runs natively."""
    try:
        return row_of(name, converted(name))
    except ConversionError as error:
        return Row(refused=str(error))


def page(rows: Mapping[str, Row]) -> str:
    """The text of ``docs/networks.md``."""
    convert_, native = sum(not row.refused for row in rows.values()), sum(row.native for row in rows.values())
    smooth = sum(not row.refused and NETWORKS[name].pieces is not None for name, row in rows.items())
    lines = [
        "# Networks that convert",
        "",
        f"{len(rows)} networks in the shapes of published ones, written afresh and small, with random weights: "
        f"{convert_} convert, {native} of them run in the native engine, {len(rows) - convert_} are refused. "
        f"Of those that convert, {smooth} have smooth activations and need `pieces`.",
        "",
        "- *converts*: the trace gives what the network gives, and the spiking network comes nearer to it with every "
        "time step: below 1e-4 of its output at last.",
        "- *native*: the native engine runs the folded network on the phased schedule, with the same bits as torch; "
        "or what it has no kernel for. Torch runs such a network.",
        "- *how*: what was rewritten, or the sentence that refuses the network. Rewrites are exact. Straight pieces "
        "are not: `spikingir.report` prints the worst error of each.",
        "",
        "Written by `python -m tests.conversion.zoo`; `tests/conversion/test_network_table.py` holds each row.",
        "",
        "| network | converts | native | how |",
        "|---|---|---|---|",
        *(f"| {name} | {row.cells()} |" for name, row in rows.items()),
        "",
        "## Residual networks without activations between convolutions",
        "",
        "The native engine adds spikes. In EDSR, RDN, DRUNet and their like a convolution reads a sum of other "
        "convolutions, on which no neuron fires. Its kernel could be composed with theirs, so that it reads their "
        "spikes:",
        "",
        "- A convolution of one pixel after any other is one convolution, exactly. So is any convolution after one of "
        "one pixel without bias.",
        "- Two of 3x3 are one of 5x5 only where nothing is padded between them. Along the border the first one's sums "
        "beyond the image are zeros for the second, and the composed kernel computes them: the restored image would "
        "differ there. The same holds for a bias and a padding behind it. "
        "`tests/conversion/test_network_table.py::test_which_pairs_of_convolutions_are_one` shows all four.",
        "",
        "EDSR, RDN, DRUNet, MSRResNet, SRResNet, RRDB, WDSR, RCAN, CResMD and MIMO-UNet all have a pair of 3x3, at "
        "the latest in the convolutions behind their last sum. So they stay with torch. To run natively, train them "
        "with an activation after each sum, as `multiscale` has it.",
        "",
        "Where composing is exact it costs more than it saves, and is left undone: a depthwise 5x5 and a pointwise "
        "convolution from C to N channels (PMRID) have 25 C + C N weights, composed 25 C N; a bottleneck of expansion "
        "t (MobileNetV2) has t / 2 times its weights; and where K neurons read one growing sum (DRRN, MemNet), each "
        "would have convolutions of its own for all terms, K (K - 1) / 2 for K - 1.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page({name: try_out(name) for name in NETWORKS}), encoding="utf-8")
