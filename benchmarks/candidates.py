"""What is measured: a model that ships, as its ANN and as its folded networks, on a photograph made noisy."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.samples import noisy_sample
from spikingir.deploy import engine
from spikingir.deploy.fold import fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.spiking.network import Schedule, SpikingNetwork
from spikingir.zoo.pretrained import load_ann, load_spiking, open_model

ANN = "ANN, float32"
ANN_HALF = "ANN, bfloat16"
NATIVE, TORCH = "SpikingIR native, clocked", "SpikingIR torch, clocked"
NATIVE_PHASED, TORCH_PHASED = "SpikingIR native, phased", "SpikingIR torch, phased"
JELLY_M, JELLY_S = "SpikingJelly, mode m", "SpikingJelly, mode s"
SNNTORCH = "snnTorch"
NAMES = (ANN, ANN_HALF, NATIVE, TORCH, NATIVE_PHASED, TORCH_PHASED, JELLY_M, JELLY_S, SNNTORCH)


@dataclass(frozen=True)
class Workload:
    """One model on one batch of images.

    Attributes:
        model: Name or folder of a denoiser.
        height: Rows of an image.
        width: Columns of an image.
        batch: Images at a time.
        time_steps: ``T`` of the spiking networks, the clocked one's extended step not counted.
    """

    model: str = "denoise-gray-25"
    height: int = 321
    width: int = 481
    batch: int = 1
    time_steps: int = 8

    def __str__(self) -> str:
        return f"{self.batch} of {self.width}x{self.height}, T = {self.time_steps}"

    def asdict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def images(self) -> Tensor:
        """Noisy photographs, (B, C, H, W), channels last: the demo's, mirrored until it is large enough."""
        model = open_model(self.model)
        photograph = noisy_sample().original
        clean = photograph if model.channels == 3 else photograph.mean(0, keepdim=True)
        for axis, size in ((1, self.height), (2, self.width)):
            while clean.shape[axis] < size:
                clean = torch.cat([clean, clean.flip(axis)], axis)
        clean = clean[:, : self.height, : self.width]
        sigma = 25.0 if model.sigma is None else model.sigma
        noisy = [add_gaussian_noise(clean, sigma, sample_generator(0, i)) for i in range(self.batch)]
        return torch.stack(noisy).contiguous(memory_format=torch.channels_last)

    def spiking(self, schedule: Schedule) -> SpikingNetwork:
        """The model's network for a schedule."""
        return load_spiking(self.model, time_steps=self.time_steps, schedule=schedule).network

    def folded(self, schedule: Schedule) -> FoldedNetwork:
        """The same in its deployment form; made once, whatever the images."""
        return _folded(self.model, self.time_steps, schedule)

    def ann(self) -> nn.Module:
        """The model's conventional network, channels last."""
        ann = load_ann(open_model(self.model))
        if ann is None:
            raise SystemExit(f"the model {self.model} has no conventional network (ann.safetensors) to compare with")
        return ann.eval().to(memory_format=torch.channels_last)


@cache
def _folded(model: str, time_steps: int, schedule: Schedule) -> FoldedNetwork:
    return fold(Workload(model, time_steps=time_steps).spiking(schedule))


def candidate(name: str, workload: Workload) -> Callable[[Tensor], Tensor]:
    """A candidate by its name, one of :data:`NAMES`, ready to restore.

    Raises:
        KeyError: Another name.
    """
    make: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        ANN: lambda: workload.ann(),
        ANN_HALF: lambda: _half(workload.ann()),
        NATIVE: lambda: restorer(workload.folded("clocked"), "native"),
        TORCH: lambda: restorer(workload.folded("clocked"), "torch"),
        NATIVE_PHASED: lambda: restorer(workload.folded("phased"), "native"),
        TORCH_PHASED: lambda: restorer(workload.folded("phased"), "torch"),
        JELLY_M: lambda: _peers().SpikingJelly(workload.folded("clocked"), "m"),
        JELLY_S: lambda: _peers().SpikingJelly(workload.folded("clocked"), "s"),
        SNNTORCH: lambda: _peers().SnnTorch(workload.folded("clocked")),
    }
    return make[name]()


def check(workload: Workload, names: tuple[str, ...]) -> None:
    """Make sure that all candidates compute the same thing, so that no time is that of a wrong result.

    Raises:
        SystemExit: One of them does not.
    """
    image = Workload(workload.model, 40, 48, 2, workload.time_steps).images()
    clocked = workload.folded("clocked")
    peers = (JELLY_M, JELLY_S, SNNTORCH)
    with torch.inference_mode():
        wanted = {
            NATIVE: clocked(image),
            NATIVE_PHASED: workload.folded("phased")(image),
            ANN_HALF: workload.ann()(image),
        }
        if not set(peers).isdisjoint(names):
            wanted |= dict.fromkeys(peers, _peers().expected(clocked, image))
        for name in set(names) & set(wanted):
            difference = (candidate(name, workload)(image) - wanted[name]).abs().max().item()
            # spikes are equal, the peers' last sum is rounded; bfloat16 has 8 bits
            allowed = 0.05 if name == ANN_HALF else 1e-5 if name in peers else 0.0
            if not difference <= allowed:
                raise SystemExit(f"{name} differs by {difference:.3g} from what it should give; nothing was timed")


def restorer(folded: FoldedNetwork, how: engine.Engine) -> Callable[[Tensor], Tensor]:
    """A folded network in one of the engines."""
    return lambda images: engine.restore(folded, images, engine=how)


def density_of(network: FoldedNetwork, images: Tensor) -> float:
    """Spikes per neuron and step, the extended step included, of the layers whose spikes meet weights."""
    layers = engine.trace(network, images)[1].layers[:-1]
    spikes = sum(layer.spikes_per_neuron * layer.neurons for layer in layers)
    return spikes / sum(layer.neurons * len(layer.spikes) for layer in layers)


def at_density(network: SpikingNetwork, wanted: float, images: Tensor) -> FoldedNetwork:
    """The folded network with the thresholds of its hidden layers multiplied until they fire about that much."""
    network = copy.deepcopy(network)
    thresholds = [network.neuron(name).log_threshold for name in network.layers[:-1]]
    starts = [threshold.detach().clone() for threshold in thresholds]
    low, high = -2.5, 2.5  # of the factor's logarithm
    for _ in range(8):
        middle = (low + high) / 2
        for threshold, start in zip(thresholds, starts, strict=True):
            threshold.data.copy_(start + middle)
        folded = fold(network)
        low, high = (middle, high) if density_of(folded, images) > wanted else (low, middle)
    return folded


def _half(ann: nn.Module) -> Callable[[Tensor], Tensor]:
    ann = ann.to(torch.bfloat16)
    return lambda images: ann(images.to(torch.bfloat16)).float()


def _peers() -> Any:
    from benchmarks import peers  # SpikingJelly and snnTorch are not everywhere

    return peers
