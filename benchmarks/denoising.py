"""PSNR, SSIM, spikes and energy of a shipped denoiser on a folder of clean gray images, beside its ANN.

    python benchmarks/denoising.py --data-root ../shared/data --folder denoise/set12 --time-steps 4 6 8 10 15

What is measured is the deployment form (0/1 spikes on the grid). Noise is additive, unclipped, and seeded by the
image's number; PSNR and SSIM are those of the clipped output, averaged over images. Prints a Markdown table.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from spikingir.data.folders import list_images, read_gray
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.evaluation.energy import ann_energy, paper_energy
from spikingir.evaluation.metrics import psnr, ssim
from spikingir.networks.registry import load_network
from spikingir.spiking.fold import fold
from spikingir.spiking.storage import from_pretrained

Result = tuple[Tensor, float, float]  # restored image, spikes per neuron, energy in mJ


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--folder", default="denoise/set12")
    parser.add_argument("--model", type=Path, default=Path("src/spikingir/models/denoise-gray-25"))
    parser.add_argument("--sigma", type=float, default=25)
    parser.add_argument("--time-steps", type=int, nargs="+", default=[10])
    parser.add_argument("--schedule", default="clocked")
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    images = list_images(arguments.data_root / arguments.folder)[: arguments.limit]
    ann = load_network(arguments.model / "ann.safetensors")
    spiking = from_pretrained(arguments.model / "snn.safetensors")

    def conventional(noisy: Tensor) -> Result:
        return ann(noisy), float("nan"), ann_energy(ann, (noisy.shape[-2], noisy.shape[-1]))

    def row(name: str, restore: Callable[[Tensor], Result]) -> None:
        sums = torch.zeros(4, dtype=torch.float64)
        for i, path in enumerate(images):
            clean = torch.from_numpy(read_gray(path))[None, None].float() / 255
            noisy = add_gaussian_noise(clean, arguments.sigma, sample_generator(0, i))
            with torch.inference_mode():
                restored, spikes, energy = restore(noisy)
            quality = [psnr(restored, clean).item(), ssim(restored, clean).item()]
            sums += torch.tensor([*quality, spikes, energy], dtype=torch.float64)
        mean = (sums / len(images)).tolist()
        print(f"| {name} | {mean[0]:.2f} | {mean[1]:.4f} | {mean[2]:.2f} | {mean[3]:.1f} |", flush=True)

    print(f"{len(images)} images of {arguments.folder}, sigma {arguments.sigma:g}\n")
    print("| network | PSNR, dB | SSIM | spikes per neuron | energy, mJ |\n|---|---|---|---|---|", flush=True)
    row("noisy image", lambda noisy: (noisy, float("nan"), float("nan")))
    row("ANN", conventional)
    for steps in arguments.time_steps:
        folded = fold(spiking.at(time_steps=steps, schedule=arguments.schedule))

        def fire(noisy: Tensor, folded: torch.nn.Module = folded) -> Result:
            restored, trace = folded.trace(noisy)
            return restored, trace.spikes_per_neuron, paper_energy(folded, trace).snn_mj

        row(f"SNN, {arguments.schedule}, T = {steps}", fire)


if __name__ == "__main__":
    main()
