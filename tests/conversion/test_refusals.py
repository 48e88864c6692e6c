"""What cannot be converted is refused in a sentence that names the operation and its place."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikingir.conversion.convert import convert
from spikingir.graph.errors import ConversionError
from spikingir.graph.trace import trace_body
from spikingir.networks.dncnn import DnCNN

IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def conv(inputs: int = 4, outputs: int = 4) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Body(nn.Module):
    """Convolution, ReLU, something in between, convolution."""

    def __init__(self, between: Callable[..., Tensor], *, outputs: int = 4, act: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = conv(1), conv(), conv(outputs, 1)
        self.act = act or nn.ReLU()
        self.between = between

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.between(self, torch.relu(self.first(image))))


def in_place_sum(body: Body, x: Tensor) -> Tensor:
    y = body.second(x)
    z = y + 1
    y.mul_(3)
    return torch.relu(y) + z


def in_place_relu(body: Body, x: Tensor) -> Tensor:
    y = body.second(x)
    return functional.relu_(y) - y


def in_place_slice(body: Body, x: Tensor) -> Tensor:
    x[:, :1] = 0
    return x


def branch(body: Body, x: Tensor) -> Tensor:
    return body.second(x) if x.mean() > 0.1 else x


OPERATIONS: dict[str, tuple[Body, str, str]] = {
    "sigmoid": (Body(lambda b, x: torch.sigmoid(x)), "sigmoid", "sigmoid"),
    "method": (Body(lambda b, x: x.tanh()), "tanh", "tanh"),
    "instance norm": (Body(lambda b, x: b.act(x), act=nn.InstanceNorm2d(4)), "InstanceNorm2d", "act"),
    "pooling to a size": (Body(lambda b, x: b.act(x), act=nn.AdaptiveAvgPool2d(8)), "AdaptiveAvgPool2d", "act"),
    "product of maps": (Body(lambda b, x: x * b.second(x)), "mul", "mul"),
    "product, in place": (Body(lambda b, x: x.mul_(b.second(x))), "mul_", "mul_"),
    "quotient": (Body(lambda b, x: 1 / (x + 1)), "truediv", "truediv"),
    "dropout that is active": (Body(lambda b, x: functional.dropout(x, 0.5)), "dropout", "dropout"),
    "concatenation of rows": (Body(lambda b, x: torch.cat([x, x], 2)), "cat", "cat"),
    "padding with ones": (Body(lambda b, x: functional.pad(x, (1, 1, 1, 1), value=1.0)), "pad", "pad"),
    "pixels of their own": (Body(lambda b, x: x + torch.rand(1, 1, 8, 8)), "add", "add"),
    "one image of the batch": (Body(lambda b, x: x[:1]), "getitem", "getitem"),
    "weights from the image": (Body(lambda b, x: functional.conv2d(x, b.second(x))), "conv2d", "conv2d"),
    "resizing by area": (
        Body(lambda b, x: functional.interpolate(x, scale_factor=2, mode="area")), "interpolate", "interpolate"
    ),
    "statistics of the batch": (
        Body(lambda b, x: b.act(x), act=nn.BatchNorm2d(4, track_running_stats=False)), "BatchNorm2d", "act"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operation_is_refused_by_name_and_place(kind: str) -> None:
    body, what, place = OPERATIONS[kind]
    with pytest.raises(ConversionError, match=f"^cannot convert '{what}' at '{place}': ") as caught:
        convert(body, IMAGES)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400


class OnImage(nn.Module):
    """A weighted operation of no known kind, of an image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.last = nn.Parameter(torch.rand(8, 8)), conv(1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(torch.relu(functional.linear(image, self.weight)))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv(1)), nn.ReLU(), conv(4, 1)), "at '0'"),
        (OnImage, "'linear'"),
    ],
)
def test_weights_on_the_image_are_not_kept_as_they_are(body: Callable[[], nn.Module], what: str) -> None:
    with pytest.raises(ConversionError, match=f"{what}.*weights of its own"):
        convert(body(), IMAGES)


def test_weights_that_a_hook_computes() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        first = nn.utils.weight_norm(conv(1))
    with pytest.raises(ConversionError, match="remove_weight_norm"):
        convert(nn.Sequential(first, nn.ReLU(), conv(4, 1)), IMAGES)


def test_place_within_modules() -> None:
    body = nn.Sequential(conv(1), nn.Sequential(conv(), nn.Sigmoid()), conv(4, 1))
    with pytest.raises(ConversionError, match=re.escape("cannot convert 'Sigmoid' at '1.1'")):
        convert(body, IMAGES)


@pytest.mark.parametrize("between", [in_place_sum, in_place_relu])
def test_writing_in_place_on_what_is_read_again(between: Callable[..., Tensor]) -> None:
    with pytest.raises(ConversionError, match=r"the trace of Body does not give what the network gives; .* in place"):
        convert(Body(between), IMAGES)


def test_randomness_in_forward() -> None:
    body = Body(lambda b, x: x)
    body.forward = lambda image: body.last(torch.relu(body.first(image + torch.rand_like(image))))  # type: ignore
    with pytest.raises(ConversionError, match="or randomness in forward"):
        convert(body, IMAGES)


def test_control_flow_on_values() -> None:
    with pytest.raises(ConversionError, match=r"cannot trace Body: .*control flow.* must neither branch on values nor"):
        convert(Body(branch), IMAGES)


def test_writing_into_a_slice() -> None:
    with pytest.raises(ConversionError, match=r"cannot trace Body: .*item assignment.* nor write into slices"):
        convert(Body(in_place_slice), IMAGES)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(2), conv(4, 1)

    def forward(self, image: Tensor, sigma: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(torch.cat([image, sigma], 1))))


class SecondWithDefault(TwoInputs):
    def forward(self, image: Tensor, sigma: float = 1.0) -> Tensor:
        return self.last(torch.relu(self.first(torch.cat([image, image * sigma], 1))))


class SecondUnused(TwoInputs):
    def forward(self, image: Tensor, verbose: bool = False) -> Tensor:
        return self.last(torch.relu(self.first(torch.cat([image, image], 1))))


@pytest.mark.parametrize("body", [TwoInputs(), SecondWithDefault()])
def test_second_input_that_is_used(body: nn.Module) -> None:
    with pytest.raises(ConversionError, match="the body takes a second argument 'sigma'; a body reads the image alone"):
        convert(body, IMAGES)


def test_second_input_that_nothing_reads() -> None:
    assert convert(SecondUnused(), IMAGES)(IMAGES).shape == IMAGES.shape


class Pair(TwoInputs):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.last(self.first(torch.cat([image, image], 1))), image


def test_two_outputs() -> None:
    with pytest.raises(ConversionError, match="the body must return one tensor"):
        convert(Pair(), IMAGES)


@pytest.mark.parametrize("body", [nn.Identity(), nn.Sigmoid(), nn.ReLU()])
def test_no_weights(body: nn.Module) -> None:
    with pytest.raises(ConversionError, match=f"{type(body).__name__} has no convolution between its input and its"):
        convert(body, IMAGES)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["weight", "bias"])
def test_weights_that_are_not_finite(which: str, value: float) -> None:
    body = Body(lambda b, x: x)
    with torch.no_grad():
        getattr(body.last, which).view(-1)[0] = value
    with pytest.raises(ConversionError, match="the weights of 'last' hold NaN or infinite values; load a sound"):
        convert(body, IMAGES)


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (torch.rand(2, 3, 8, 8), r"image 0 has shape \(2, 3, 8, 8\); expected \(B, 1, H, W\) or \(1, H, W\)"),
        (torch.rand(8, 8), r"image 0 has shape \(8,\); expected \(B, 1, H, W\)"),
        ([torch.rand(1, 8, 8), torch.rand(3, 8, 8)], r"image 1 has shape \(3, 8, 8\)"),
        (torch.full((1, 1, 8, 8), float("nan")), "image 0 holds NaN or infinite values; leave it out"),
        (torch.full((1, 1, 8, 8), float("inf")), "image 0 holds NaN or infinite values"),
        (torch.zeros(0, 1, 8, 8), "there is no calibration image; give at least one"),
        ([], "there is no calibration image"),
        (iter(()), "there is no calibration image"),
        (
            torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
            r"image 0 is torch.uint8; expected a tensor of floats in \[0, 1\]",
        ),
        (["a.png"], "image 0 is str; expected a tensor"),
    ],
)
def test_calibration_images(images: Tensor | list[Tensor], complaint: str) -> None:
    with pytest.raises(ConversionError, match=f"calibration {complaint}|^{complaint}"):
        convert(Body(lambda b, x: x), images)


def test_images_that_the_network_cannot_take() -> None:
    body = nn.Sequential(nn.ReflectionPad2d(8), conv(1), nn.ReLU(), conv(4, 1))
    with pytest.raises(ConversionError, match=r"the network cannot run on a calibration image \(1, 1, 8, 8\): "):
        convert(body, IMAGES)


@pytest.mark.parametrize("percentile", [0, -1, 100.5, float("nan")])
def test_percentile(percentile: float) -> None:
    with pytest.raises(ValueError, match=rf"percentile is {percentile}; it must lie in \(0, 100\]"):
        convert(Body(lambda b, x: x), IMAGES, percentile=percentile)


def test_method() -> None:
    with pytest.raises(ValueError, match="unknown method 'ruckauer'; known ones: spikingir, if, rueckauer, qcfs, lan"):
        convert(Body(lambda b, x: x), IMAGES, "ruckauer")


def test_qcfs_on_relus() -> None:
    with pytest.raises(ConversionError, match=r"method qcfs needs QCFS activations, but 'relu' is a ReLU; put .*QCFS"):
        convert(Body(lambda b, x: x), IMAGES, "qcfs")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"time_steps": 0}, "time_steps is 0"),
        ({"schedule": "slow"}, "unknown schedule 'slow'"),
        ({"time_steps": 4, "schedule": 7}, "a delay of 7 does not fit 4 time steps"),
        ({"alpha": 0.2}, "alpha is 0.2"),
        ({"v0": 0.5, "alpha": 0.501}, "alpha 0.501 with v0 0.5 rounds twice"),
        ({"beta": 0.0}, "beta must be positive"),
        ({"surrogate": "step"}, "unknown surrogate 'step'"),
        ({"schedule": "phased", "bias_correction": True}, "the phased schedule has none"),
    ],
)
def test_settings(arguments: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        convert(Body(lambda b, x: x), IMAGES, **arguments)  # type: ignore[arg-type]


def test_the_network_itself_is_not_changed() -> None:
    body = Body(lambda b, x: b.second(x)).train()
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    modules = set(body.__dict__)
    spiking = convert(body, IMAGES)
    for parameter in spiking.parameters():
        parameter.data.zero_()
    assert body.training
    assert set(body.__dict__) == modules
    assert all(torch.equal(before[name], tensor) for name, tensor in body.state_dict().items())


def test_trace_names_the_first_place_alone() -> None:
    body = nn.Sequential(conv(1), nn.Tanh(), conv(), nn.Sigmoid())
    with pytest.raises(ConversionError, match="'Tanh' at '1'"):
        trace_body(body)


def trained() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(conv(1), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 1)).eval()


@pytest.mark.parametrize("scale", [255.0, 4.0])
def test_images_of_0_to_255_are_refused(scale: float) -> None:
    with pytest.raises(
        ConversionError, match=r"calibration image 0 has a mean of .*, so it is not in \[0, 1\]; divide"
    ):
        convert(trained(), scale * IMAGES)
    dark = torch.cat([torch.zeros(1, 1, 8, 8), 255 * IMAGES])
    with pytest.raises(ConversionError, match="divide images of 0 to 255"):
        convert(trained(), dark)


def test_noisy_images_may_pass_1() -> None:
    convert(trained(), 1 + 0.5 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype: torch.dtype) -> None:
    network = trained().to(dtype)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    spiking = convert(network, IMAGES, time_steps=64)
    assert {parameter.dtype for parameter in spiking.parameters()} == {kept}
    assert torch.equal(spiking(IMAGES.to(kept)), convert(network.to(kept), IMAGES, time_steps=64)(IMAGES.to(kept)))
    assert next(network.parameters()).dtype == kept  # by .to above alone: convert changes nothing


def test_mixed_precisions_are_converted() -> None:
    network = trained()
    network[0].half()
    assert convert(network, IMAGES)(IMAGES).dtype == torch.float32


# torch's own, on the first use of its compiler
COMPILES = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")


@COMPILES
@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        torch.compile,
        lambda network: nn.DataParallel(torch.compile(network)),
    ],
)
def test_what_only_runs_a_network_is_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network = DnCNN(layers=3, width=4).eval()
    wanted = convert(network, IMAGES)
    spiking = convert(wrap(network), IMAGES)
    assert spiking.config.formation == "residual"  # and not that of a body of its own
    assert torch.equal(spiking(IMAGES), wanted(IMAGES))
    inside = nn.Sequential(conv(1), nn.ReLU(), conv(4, 1)).eval()
    wanted = convert(inside, IMAGES)
    assert torch.equal(convert(nn.Sequential(wrap(inside)).eval(), IMAGES)(IMAGES), wanted(IMAGES))


@COMPILES
def test_a_network_compiled_in_place() -> None:
    network, plain = trained(), trained()
    network.compile()
    network[0].compile()
    assert torch.equal(convert(network, IMAGES)(IMAGES), convert(plain, IMAGES)(IMAGES))


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4), nn.Dropout2d(0.5)])
def test_training_mode_is_left_with_a_note(layer: nn.Module) -> None:
    network = nn.Sequential(conv(1), layer, nn.ReLU(), conv(4, 1)).train()
    with pytest.warns(
        UserWarning, match="Sequential is in training mode, where its .* acts otherwise; it is converted as"
    ):
        spiking = convert(network, IMAGES)
    assert network.training
    assert torch.equal(spiking(IMAGES), convert(network.eval(), IMAGES)(IMAGES))


def test_what_is_no_network_to_convert() -> None:
    for given, message in (
        ("weights.pth", "it is a str; expected a torch.nn.Module, as spikingir.load_network reads it"),
        (convert(trained(), IMAGES), "it is a spiking network already"),
    ):
        with pytest.raises(ConversionError, match=message):
            convert(given, IMAGES)  # type: ignore[arg-type]
    complex_weights = nn.Sequential(conv(1), nn.ReLU(), nn.Conv2d(4, 1, 3, dtype=torch.complex64))
    with pytest.raises(ConversionError, match=r"has weights of torch\.complex64; expected real floats"):
        convert(complex_weights, IMAGES)
