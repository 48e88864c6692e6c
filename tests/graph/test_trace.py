"""The traced body computes what the network computes; the report tells what became of it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.conversion.report import report
from spikingir.graph.trace import trace_body

IMAGES = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def conv(inputs: int = 4, outputs: int = 4, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)  # type: ignore[arg-type]


def norm(channels: int = 4) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(channels)
    for tensor, low, high in (
        (module.weight, -1.5, 1.5),
        (module.bias, -0.5, 0.5),
        (module.running_mean, -0.5, 0.5),
        (module.running_var, 0.2, 3.0),
    ):
        nn.init.uniform_(tensor, low, high)
    return module


def check(body: nn.Module, images: Tensor = IMAGES) -> dict[str, list[str]]:
    """Trace, compare with the module itself, and give the fates by place."""
    body = body.double().eval()
    traced = trace_body(body)
    with torch.no_grad():
        found = traced.run(images, traced.activate)
        torch.testing.assert_close(found.constant, body(images), rtol=0, atol=1e-10)
    fates: dict[str, list[str]] = {}
    for place, _, fate in traced.origin:
        fates.setdefault(place, []).append(fate)
    return fates


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_folds_into_the_convolution(bias: bool, affine: bool) -> None:
    normed = norm() if affine else nn.BatchNorm2d(4, affine=False)
    normed.running_mean.fill_(0.2)
    body = nn.Sequential(conv(1, bias=bias), normed, nn.ReLU(), conv(4, 2, groups=2), norm(2), norm(2))
    fates = check(body)
    assert fates == {
        "0": ["kept"],
        "1": ["folded"],
        "2": ["converted"],
        "3": ["kept"],
        "4": ["folded"],
        "5": ["folded"],
        "output": ["converted"],
    }


@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_after_a_transposed_convolution(groups: int) -> None:
    up = nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=groups)
    fates = check(nn.Sequential(conv(1), nn.ReLU(), up, norm(6), nn.ReLU(), conv(6, 1)))
    assert fates["3"] == (["folded"] if groups == 1 else ["kept"])


class Branches(nn.Module):
    """Batch norm on a convolution that somebody else reads, before or after, directly or behind an identity."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.head, self.middle, self.tail = conv(1), conv(), conv(4, 1)
        self.norm, self.drop = norm(), nn.Dropout2d()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.middle(torch.relu(self.head(x)))
        if self.kind == "alone":
            z = self.norm(self.drop(y))
        elif self.kind == "direct":
            z = self.norm(y) + y
        elif self.kind == "behind an identity":
            z = self.norm(self.drop(y)) + y
        elif self.kind == "another identity":
            z = self.norm(y) + self.drop(y)
        else:  # called again later, without batch norm
            z = self.middle(self.norm(y))
        return self.tail(torch.relu(z))


@pytest.mark.parametrize(
    ("kind", "fate"),
    [
        ("alone", "folded"),
        ("direct", "kept"),
        ("behind an identity", "kept"),
        ("another identity", "kept"),
        ("called again", "folded"),
    ],
)
def test_batch_norm_is_folded_only_where_nobody_else_reads(kind: str, fate: str) -> None:
    assert check(Branches(kind))["norm"] == [fate]


def test_shared_convolution_keeps_one_set_of_weights() -> None:
    shared = conv()
    relu = nn.ReLU()
    body = nn.Sequential(conv(1), relu, shared, relu, shared, relu, conv(4, 1))
    check(body)
    spiking = convert(body, IMAGES)
    assert len(spiking.layers) == 4  # each call of the one ReLU is a layer of its own
    assert sum(node.op == "conv2d" for node in spiking.nodes) == 4
    assert len(spiking.weight) == 3


class Constants(nn.Module):
    """Parameters and buffers reshaped, negated, sliced in forward; functional convolution on them."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.weight = nn.Parameter(torch.rand(8) + 0.5), nn.Parameter(torch.randn(4, 4, 3, 3) / 4)
        self.register_buffer("shift", torch.tensor([1, 2, 3, 4]))
        self.head, self.tail = conv(1), conv(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.head(x)) * self.gain[:4].exp().view(1, -1, 1, 1)
        y = functional.conv2d(input=y, weight=self.weight / 2, padding=1, bias=-self.gain[4:])
        return self.tail(functional.relu(input=y - self.shift.reshape(4, 1, 1)))


def test_constants_are_computed_once() -> None:
    check(Constants())
    assert {node.op for node in convert(Constants(), IMAGES.float()).nodes} <= {"input", "conv2d", "affine", "neuron"}


class Names(nn.Module):
    """Names that torch's containers, fx or the body's own nodes want for themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.update, self.output, self.conv_pad = conv(1), nn.ReLU(), conv(), nn.ReLU()
        self.conv, self.pop, self.values = conv(4, 4, padding_mode="reflect"), nn.ReLU(), conv(4, 1)

    def forward(self, values: Tensor) -> Tensor:
        x = self.conv_pad(self.output(self.update(self.keys(values))))
        return self.values(self.pop(self.conv(x)))


class NamedOutput(nn.Sequential):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("input", conv(1))
        self.add_module("neuron", nn.ReLU())
        self.add_module("output", conv(4, 1))


@pytest.mark.parametrize("body", [Names, NamedOutput])
def test_any_names_will_do(body: type[nn.Module]) -> None:
    network = body()
    check(network)
    images = IMAGES.float()
    network.float()
    spiking = convert(network, images, percentile=100, time_steps=64, schedule="phased")
    wanted = network(images)
    assert (spiking(images) - wanted).abs().mean() < 0.05 * wanted.abs().mean()
    spiking.load_state_dict(spiking.state_dict())


class OneNumber(nn.Module):
    """A number added to all channels of a spiking map, which is then joined to another."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(1), conv(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.head(x))
        return self.tail(torch.cat([y + 0.5, 1 - y], 1))


@pytest.mark.parametrize("size", [1, 12])
def test_one_number_for_all_channels(size: int) -> None:
    body = OneNumber().double()
    images = IMAGES[:1, :, :size, :size]
    spiking = convert(body, images, "rueckauer", percentile=100, time_steps=400)
    torch.testing.assert_close(spiking(images), body(images), rtol=0, atol=0.02)


class Statistics(nn.Module):
    """A number computed from the image, used among features."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = conv(1), conv(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean, least = x.mean(), x.amin((0, 2, 3)).view(-1, 1, 1)
        y = torch.relu(self.head(x - mean))
        return self.tail(torch.relu(y + mean) - least)


def test_numbers_from_the_image() -> None:
    body = Statistics().double()
    check(body)
    image = IMAGES[:1]
    spiking = convert(body, image, "rueckauer", percentile=100, time_steps=400)
    torch.testing.assert_close(spiking(image), body(image), rtol=0, atol=0.02)


class WritesIntoTheImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = conv(1), nn.ReLU(inplace=True), conv(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.first(self.relu(x - 0.5).clamp_(0, 0.3))))


class WritesIntoTheImageItself(WritesIntoTheImage):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.first(x.clamp_(0.2, 0.7))))


@pytest.mark.parametrize("body", [WritesIntoTheImage, WritesIntoTheImageItself])
def test_the_callers_image_is_left_alone(body: type[nn.Module]) -> None:
    spiking = convert(body().double(), IMAGES.clone(), time_steps=3)
    image = IMAGES.clone()
    with torch.no_grad():
        spiking(image)
    assert torch.equal(image, IMAGES)


def test_float64_network_with_preprocessing_stays_float64() -> None:
    class Body(WritesIntoTheImage):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.relu(self.first((x * 2 - 1) / 3))) * 0.1

    spiking = convert(Body().double(), IMAGES)
    assert {parameter.dtype for parameter in spiking.parameters()} == {torch.float64}
    assert spiking(IMAGES).dtype == torch.float64


class EDSRBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.conv1, self.conv2 = conv(1), conv(), conv()
        self.conv3, self.tail = conv(), conv(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        x = x + self.conv2(torch.relu(self.conv1(x))) * 0.1
        return self.tail(torch.relu(self.conv3(x)))


class Resized(nn.Module):
    def __init__(self, mode: str, weights_first: bool) -> None:
        super().__init__()
        self.head, self.conv, self.tail = conv(1), conv(), conv(4, 1)
        self.mode, self.weights_first = mode, weights_first

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.head(x))
        x = self.conv(x) if self.weights_first else x
        x = functional.interpolate(x, scale_factor=2, mode=self.mode)
        x = x if self.weights_first else self.conv(x)
        return self.tail(torch.relu(x))


class ResizedImage(Resized):
    """The image brought to the size of a map of analog sums, which is not what is read."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(torch.relu(self.head(x)))
        return self.tail(torch.relu(y)) + functional.interpolate(x, size=y.shape[-2:], mode="bilinear")


@pytest.mark.parametrize(
    ("body", "analog"),
    [
        (EDSRBlock(), ("mul", "conv3")),
        (Resized("bilinear", weights_first=False), ("conv",)),
        (Resized("nearest", weights_first=False), ()),
        (Resized("bilinear", weights_first=True), ("interpolate",)),
        (Resized("nearest", weights_first=True), ()),
        (ResizedImage("bilinear", weights_first=True), ()),
        (nn.Sequential(conv(1), conv(), nn.ReLU(), conv(), conv(4, 1)), ("_4",)),
        (nn.Sequential(conv(1), nn.ReLU(), nn.AvgPool2d(2), conv(4, 1)), ("_3",)),
        (nn.Sequential(conv(1), nn.ReLU(), nn.PixelShuffle(2), nn.ReflectionPad2d(1), conv(1, 1)), ()),
    ],
)
def test_operations_on_analog_sums_are_named(body: nn.Module, analog: tuple[str, ...]) -> None:
    """docs/method.md, section 1: the second convolution of a chain, one after a bilinear resize."""
    spiking = convert(body, IMAGES.float())
    assert spiking.graph.analog_operations() == analog
    assert report(spiking).analog == analog
    assert ("multiply-accumulates on analog sums: " + ", ".join(analog) in str(report(spiking))) == bool(analog)


def test_report_lists_every_operation() -> None:
    body = nn.Sequential(
        nn.ReplicationPad2d(1), nn.Conv2d(1, 4, 3, bias=False), norm(), nn.ReLU(), nn.Dropout(),
        nn.Sequential(conv(), nn.ReLU()), conv(4, 4), nn.PixelShuffle(2),
    ).eval()  # fmt: skip
    spiking = convert(body, IMAGES.float(), "rueckauer")
    found = report(spiking)
    assert found.method == "rueckauer"
    assert found.operations == (
        ("0", "ReplicationPad2d", "kept"),
        ("1", "Conv2d", "kept"),
        ("2", "BatchNorm2d", "folded"),
        ("3", "ReLU", "converted"),
        ("4", "Dropout", "kept"),
        ("5.0", "Conv2d", "kept"),
        ("5.1", "ReLU", "converted"),
        ("6", "Conv2d", "kept"),
        ("7", "PixelShuffle", "kept"),
        ("output", "output", "converted"),
    )
    assert [name for name, *_ in found.thresholds] == list(spiking.layers)
    for name, low, high, count in found.thresholds:
        theta = spiking.neuron(name).v_threshold
        assert (low, high, count) == (theta.min().item(), theta.max().item(), 1)
    text = str(found)
    assert text.startswith("method rueckauer: 6 kept, 1 folded, 3 converted\n")
    assert all(f"{place} " in text and what in text for place, what, _ in found.operations)


def test_last_relu_or_not_decides_the_output_neuron() -> None:
    signed = convert(nn.Sequential(conv(1), nn.ReLU(), conv(4, 1)), IMAGES.float())
    unsigned = convert(nn.Sequential(conv(1), nn.ReLU(), conv(4, 1), nn.ReLU(), nn.Dropout()).eval(), IMAGES.float())
    assert [signed.neuron(name).signed for name in signed.layers] == [False, True]
    assert [unsigned.neuron(name).signed for name in unsigned.layers] == [False, False]
    assert (unsigned(IMAGES.float()) >= 0).all()
    assert (signed(IMAGES.float()) < 0).any()
