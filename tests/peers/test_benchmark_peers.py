"""The peers that the benchmark times fire what our folded networks fire."""

import pytest
import torch
from torch import nn

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.networks import AODNet, DnCNN

pytest.importorskip("spikingjelly.activation_based.neuron", reason="made for `make test-peers`")
pytest.importorskip("snntorch", reason="made for `make test-peers`")

from benchmarks.peers import SnnTorch, SpikingJelly, expected


@pytest.mark.parametrize("method", ["spikingir", "if"])
@pytest.mark.parametrize(("network", "channels"), [(DnCNN(layers=4, width=6), 1), (AODNet(), 3)])
def test_same_spikes(network: nn.Module, channels: int, method: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, channels, 12, 14)
    folded = fold(convert(network.eval(), images, method, time_steps=5))
    wanted = expected(folded, images)
    for peer in (SpikingJelly(folded, "m"), SpikingJelly(folded, "s"), SnnTorch(folded)):
        for _ in range(2):  # nothing is left over from the images before
            torch.testing.assert_close(peer(images), wanted, rtol=0, atol=1e-5)


def test_other_schedules_are_refused() -> None:
    folded = fold(convert(DnCNN(layers=3, width=4).eval(), torch.rand(1, 1, 8, 8), time_steps=3).at(schedule="phased"))
    with pytest.raises(ValueError, match="phased"):
        SpikingJelly(folded, "m")
