"""Rate -> ANN as T grows, for every operation that can stand between neurons."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.spiking.network import SpikingNetwork

WIDTH = 6


def conv(inputs: int, outputs: int, size: int = 3, **options: object) -> nn.Conv2d:
    options.setdefault("padding", size // 2)
    return nn.Conv2d(inputs, outputs, size, **options)  # type: ignore[arg-type]


def dncnn() -> nn.Module:
    """DnCNN with batch norm, in small."""
    hidden = [layer for _ in range(3) for layer in (conv(WIDTH, WIDTH, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())]
    return nn.Sequential(conv(1, WIDTH), nn.ReLU(inplace=True), *hidden, conv(WIDTH, 1))


class UNet(nn.Module):
    """Average pooling, resizing, skip by concatenation."""

    def __init__(self, mode: str = "bilinear", like: bool = False) -> None:
        super().__init__()
        self.down, self.deep = conv(1, WIDTH), conv(WIDTH, WIDTH)
        self.up, self.out = conv(2 * WIDTH, WIDTH), conv(WIDTH, 1)
        self.mode, self.like = mode, like

    def forward(self, x: Tensor) -> Tensor:
        skip = functional.relu(self.down(x))
        deep = functional.relu(self.deep(functional.avg_pool2d(skip, 2)))
        corners = None if self.mode.startswith("nearest") else False
        size = {"size": skip.shape[-2:]} if self.like else {"scale_factor": 2}
        deep = functional.interpolate(deep, mode=self.mode, align_corners=corners, **size)
        return self.out(torch.relu(self.up(torch.cat([skip, deep], 1))))


def ffdnet() -> nn.Module:
    return nn.Sequential(
        nn.PixelUnshuffle(2), conv(4, WIDTH), nn.ReLU(),
        conv(WIDTH, WIDTH), nn.ReLU(),
        conv(WIDTH, 4), nn.PixelShuffle(2),
    )  # fmt: skip


class EDSR(nn.Module):
    """Residual blocks, residual scaling 0.1, long skip, shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(1, WIDTH), conv(WIDTH, 1)
        self.blocks = nn.ModuleList(nn.ModuleList([conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)]) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        head = y = self.head(x)
        for first, second in self.blocks:
            y = y + second(functional.relu(first(y))) * 0.1
        return self.tail(y + head)


class Transposed(nn.Module):
    """Strided and dilated, grouped and transposed convolutions, a last ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = conv(1, WIDTH, stride=2), conv(WIDTH, WIDTH, groups=2, dilation=2, padding=2)
        self.up = nn.ConvTranspose2d(WIDTH, WIDTH, 3, stride=2, padding=1, output_padding=1, groups=3)
        self.norm, self.out = nn.BatchNorm2d(WIDTH), conv(WIDTH, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.middle(torch.relu(self.down(x))))
        return torch.relu(self.out(torch.relu(self.norm(self.up(x)))))


class Padded(nn.Module):
    """Padding as a module, as a function and as a mode of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.reflect, self.replicate, self.zero = (
            nn.ReflectionPad2d(2),
            nn.ReplicationPad2d((1, 2, 0, 1)),
            nn.ZeroPad2d(1),
        )
        self.a, self.b = conv(1, WIDTH, 5, padding=0), conv(WIDTH, WIDTH, padding_mode="circular")
        self.c, self.d = (
            conv(WIDTH, WIDTH, 4, padding="same"),
            conv(WIDTH, WIDTH, padding="same", padding_mode="reflect"),
        )
        self.e = conv(WIDTH, 1, 3, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(self.reflect(x)))
        x = torch.relu(self.b(x))
        x = torch.relu(self.c(self.zero(x)))
        x = torch.relu(self.d(functional.pad(x, (1, 1, 1, 1), mode="replicate")))
        return self.e(self.replicate(x))[..., 1:-1, 2:-2]


class Slices(nn.Module):
    """Channels, rows and columns taken out, differences, a quotient, a negative, one number for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(1, 2 * WIDTH), conv(WIDTH, WIDTH), conv(2 * WIDTH, 1)
        self.register_buffer("shift", torch.linspace(-0.2, 0.2, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        both = self.a(x).relu()
        first, second = both[:, :WIDTH], both[:, WIDTH:, 0::1]
        change = torch.relu(self.b(first - second / 2) + self.shift.view(1, -1, 1, 1))
        moved = functional.pad(change[:, :, 1:, :-1], (1, 0, 0, 1))
        return self.c(torch.cat([0.3 - moved, -(change + 0.5)], dim=1))


class PreActivation(nn.Module):
    """Batch norm on a sum, before the ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(1, WIDTH), conv(WIDTH, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(WIDTH) for _ in range(3))
        self.convs = nn.ModuleList(conv(WIDTH, WIDTH) for _ in range(2))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for norm, layer in zip(self.norms, self.convs, strict=False):
            x = x + layer(self.relu(norm(x)))
        return self.tail(self.relu(self.norms[2](x)))


class InputSkip(nn.Module):
    """The image itself, joined to features and added to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(1, WIDTH), conv(WIDTH + 1, WIDTH), conv(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        y = torch.relu(self.b(torch.cat((y, x), 1)))
        return x - self.c(y)


class Preprocessed(nn.Module):
    """Anything at all on the image before its first weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, WIDTH), conv(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = (x * 2 - 1).clamp(-0.8, 0.8)
        y = torch.cat([y, x * x, torch.sigmoid(x).relu_()], 1)
        return (self.b(torch.relu(self.a(y))) + 1) / 2


class Shared(nn.Module):
    """One convolution called twice, the second time under batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.twice, self.tail = conv(1, WIDTH), conv(WIDTH, WIDTH), conv(WIDTH, 1)
        self.norm, self.relu = nn.BatchNorm2d(WIDTH), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.head(x))
        x = self.relu(self.twice(x))
        return self.tail(self.relu(self.norm(self.twice(x))))


BODIES: dict[str, Callable[[], nn.Module]] = {
    "dncnn": dncnn,
    "unet bilinear": UNet,
    "unet bicubic": lambda: UNet("bicubic"),
    "unet nearest": lambda: UNet("nearest"),
    "unet to the skip's size": lambda: UNet(like=True),
    "ffdnet": ffdnet,
    "edsr": EDSR,
    "transposed": Transposed,
    "padded": Padded,
    "slices": Slices,
    "preactivation": PreActivation,
    "input skip": InputSkip,
    "preprocessed": Preprocessed,
    "shared": Shared,
}


def make(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A body with random weights, biases and batch-norm statistics."""
    body = BODIES[kind]()
    generator = torch.Generator().manual_seed(5)
    for module in body.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.1, 0.2, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                nn.init.uniform_(tensor, low, high, generator=generator)
    return body.to(dtype).eval()


def images(count: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 1, 12, 16, generator=torch.Generator().manual_seed(6), dtype=dtype)


@torch.no_grad()
def error(spiking: SpikingNetwork, body: nn.Module, image: Tensor) -> float:
    """RMS error over the RMS of the network's own output."""
    wanted = body(image)
    return ((spiking(image) - wanted).square().mean() / wanted.square().mean()).sqrt().item()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch's, of the network
@pytest.mark.parametrize("kind", BODIES)
def test_rate_becomes_the_network(kind: str) -> None:
    body, batch = make(kind), images()
    spiking = convert(body, batch, "rueckauer", percentile=100)
    errors = [error(spiking.at(time_steps=steps), body, batch[:1]) for steps in (8, 32, 128, 512)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.015
    assert errors[-1] < errors[0] / 32  # proportional to 1/T


@pytest.mark.parametrize("kind", ["unet bilinear", "edsr", "input skip"])
@pytest.mark.parametrize("method", ["spikingir", "if"])
def test_other_neurons_have_the_same_limit(method: str, kind: str) -> None:
    body, batch = make(kind), images()
    spiking = convert(body, batch, method, percentile=100)
    errors = [error(spiking.at(time_steps=steps), body, batch[:1]) for steps in (8, 64, 512)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.005


@pytest.mark.parametrize("kind", ["unet bilinear", "edsr", "input skip"])
def test_limit_of_the_phased_schedule(kind: str) -> None:
    body, batch = make(kind), images()
    spiking = convert(body, batch, percentile=100, schedule="phased")
    errors = [error(spiking.at(time_steps=steps), body, batch[:1]) for steps in (8, 64, 512)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.004


def test_float32_has_the_same_limit() -> None:
    body, batch = make("dncnn", torch.float32), images(dtype=torch.float32)
    spiking = convert(body, batch, "rueckauer", percentile=100, time_steps=512)
    assert error(spiking, body, batch[:1]) < 0.015


def test_too_low_a_percentile_leaves_clipping() -> None:
    body, batch = make("dncnn"), images()
    spiking = convert(body, batch, "rueckauer", percentile=90, time_steps=512)
    assert error(spiking, body, batch[:1]) > 0.05
