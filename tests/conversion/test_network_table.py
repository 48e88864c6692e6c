"""Every row of docs/networks.md: networks in the shapes of published ones convert, or are refused by a sentence."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from spikingir.deploy import engine
from spikingir.deploy.fold import fold
from spikingir.graph.errors import ConversionError
from tests.conversion.zoo import NETWORKS, PAGE, converted, images, make, row_of

DOCUMENT = PAGE.read_text(encoding="utf-8")
ROWS = {cells[1].strip(): cells for cells in (line.split("|") for line in DOCUMENT.splitlines() if "|" in line)}
CONVERT = [name for name in NETWORKS if ROWS[name][2].strip() == "yes"]
SIZED = [name for name in CONVERT if "padding and cropping by the size" in ROWS[name][4]]
NATIVE = [name for name in CONVERT if ROWS[name][3].strip() == "yes"]


@pytest.mark.parametrize("name", CONVERT)
def test_network_converts(name: str) -> None:
    """The trace is the network (convert compares them); the phased limit is the trace; native is torch."""
    spiking = converted(name)
    row = row_of(name, spiking)
    if engine.native_available():
        assert f"| {name} | {row.cells()} |" in DOCUMENT
    graph, image = spiking.graph, images(name)[:1]
    with torch.no_grad():
        wanted = graph.run(image, graph.activate).constant
        assert wanted is not None
        for size in [(16, 16), *([(17, 30), (33, 41)] if name in SIZED else [])]:  # calibrated at the first alone
            other = images(name, size, 1)
            found = graph.run(other, graph.activate).constant
            if NETWORKS[name].pieces is None:
                torch.testing.assert_close(found, make(name)(other), rtol=0, atol=1e-6)
        scale = wanted.square().mean().sqrt()
        errors = [
            ((spiking.at(time_steps=steps)(image) - wanted).square().mean().sqrt() / scale).item()
            for steps in (2**4, 2**10, 2**18)
        ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4
    if row.native and engine.native_available():
        folded, picture = fold(spiking), images(name, (32, 24), 1, torch.float32)
        with torch.no_grad():
            assert torch.equal(engine.restore(folded, picture, engine="native"), folded(picture))


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - set(CONVERT)))
def test_network_is_refused(name: str) -> None:
    with pytest.raises(ConversionError) as caught:
        converted(name)
    sentence = str(caught.value)
    assert f"| {name} | no | | {sentence} |" in DOCUMENT
    assert "cannot convert '" in sentence
    assert "' at '" in sentence
    assert any(advice in sentence for advice in ("train the network with", "; use ")), "it says what would convert"


def test_which_pairs_of_convolutions_are_one() -> None:
    """Why the engine does not compose them: a kernel of one pixel composes exactly, two of 3x3 not at the border."""

    def conv(outputs: int, inputs: int, side: int) -> Tensor:
        return torch.randn(outputs, inputs, side, side, dtype=torch.float64)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    def composed(second: Tensor, first: Tensor) -> Tensor:
        """Kernel of both: each output of the second is a sum of shifted kernels of the first."""
        return functional.conv2d(first.transpose(0, 1), second.flip(2, 3), padding=second.shape[-1] - 1).transpose(0, 1)

    torch.manual_seed(0)
    x, bias = torch.rand(1, 3, 9, 11, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    first, second, one_first, one_second = conv(4, 3, 3), conv(5, 4, 3), conv(4, 3, 1), conv(5, 4, 1)
    # a kernel of one pixel behind any, with its bias
    found = run(x, composed(one_second, first), one_second[:, :, 0, 0] @ bias)
    torch.testing.assert_close(found, run(run(x, first, bias), one_second))
    # any behind a kernel of one pixel, without its bias
    torch.testing.assert_close(run(x, composed(second, one_first)), run(run(x, one_first), second))
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    for wanted, found in (
        (run(run(x, first), second), run(x, composed(second, first))),
        (run(run(x, one_first, bias), second), run(x, composed(second, one_first), second.sum((2, 3)) @ bias)),
    ):
        torch.testing.assert_close(found[inside], wanted[inside])
        ring = (found - wanted).abs()
        ring[inside] = 0
        assert ring.max() > 0.1


def test_as_many_convert_as_the_page_says() -> None:
    assert f"{len(NETWORKS)} networks" in DOCUMENT
    assert f"{len(CONVERT)} convert, {len(NATIVE)} of them run in the native engine" in DOCUMENT
    assert len(CONVERT) >= 40
    assert len(NATIVE) >= 25
    assert len(SIZED) >= 15
