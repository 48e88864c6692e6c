"""Untrained AOD-Net as a spiking network: what neuron and membrane recycling do before any fine-tuning.

    python benchmarks/untrained_aodnet.py --data-root ../shared/data

Published weights, converted on hazy NYU images, measured on SOTS-indoor images made anew as RESIDE made them
(``A = 1``, ``beta = 0.6 .. 1.5``, depth over the image's largest, rounded to 8 bit). Writes docs/untrained-aodnet.md.
"""

import argparse
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spikingir.conversion.convert import convert
from spikingir.data.folders import list_images
from spikingir.data.haze import add_haze
from spikingir.data.noise import sample_generator
from spikingir.energy.paper import ann_energy, paper_energy
from spikingir.measures import psnr, ssim
from spikingir.networks import RestorationNetwork
from spikingir.spiking.network import SpikingNetwork
from spikingir.store import load_network

T = 5
ALPHA = 0.501
PERCENTILES = (99.9, 100.0)
# the default of convert: what the first table shows
PERCENTILE = 99.9
WEIGHTS = {
    "aodnet/AOD_Net_from_caffe.pth": "the authors' own (Boyiliee/AOD-Net, converted from Caffe)",
    "aodnet/mayanksingal_dehazer.pth": "a PyTorch port's (MayankSingal/PyTorch-Image-Dehazing)",
}
CALIBRATION_IMAGES = 20
# NYU frames have a white border, which RESIDE cut off
INSIDE = (slice(10, 470), slice(10, 630))
MIDDLE = (slice(120, 360), slice(160, 480))
DOCUMENT = Path(__file__).parents[1] / "docs" / "untrained-aodnet.md"


@dataclass(frozen=True)
class Neuron:
    """A neuron to compare: its name in the tables, conversion method, initial membrane, time steps."""

    name: str
    method: str
    v0: float
    time_steps: int = T


PLAIN = Neuron("IF, v0 = 0", "if", 0.0)
HALF = Neuron("IF, v0 = 1/2", "if", 0.5)
REUSE = Neuron(f"MPRN, alpha = {ALPHA}", "spikingir", 0.0)
LONGER = Neuron(f"IF, v0 = 0, T = {T + 1}", "if", 0.0, T + 1)
NEURONS = (PLAIN, REUSE, HALF, LONGER)

Results = dict[tuple[str, bool], "Result"]


@dataclass(frozen=True)
class Result:
    """Means over the test images."""

    psnr: float
    ssim: float
    to_ann: float
    mj: float
    spikes: float


def read(path: Path) -> Tensor:
    """Image as (C, H, W), or map as (H, W), values as stored."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32))
    return pixels.movedim(2, 0) if pixels.dim() == 3 else pixels


def calibration_images(root: Path) -> list[Tensor]:
    """Middles of hazy rooms of nyu/train: ``A`` from [0.6, 1], ``beta`` of 0.4, 0.6 .. 1.6, as one would train on."""
    folder = root / "dehaze/nyu/train"
    paths = list_images(folder / "rgb")
    images = []
    for i, path in enumerate(paths[:: len(paths) // CALIBRATION_IMAGES][:CALIBRATION_IMAGES]):
        generator = sample_generator(0, i)
        airlight = 0.6 + 0.4 * torch.rand((), generator=generator).item()
        beta = 0.4 + 0.2 * int(torch.randint(7, (), generator=generator))
        clean, depth = read(path)[:, *MIDDLE] / 255, read(folder / "depth" / f"{path.stem}.png")
        images.append(add_haze(clean, depth[MIDDLE], beta, airlight, farthest=depth[INSIDE].max().item())[None])
    return images


def sots_indoor(root: Path, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(hazy, clean): each scene with the haze it was published with, then again with the next, up to ten times."""
    folder = root / "dehaze/sots_indoor"
    scenes = list_images(folder / "gt")
    for i in range(limit):
        turn, scene = divmod(i, len(scenes))
        suffix = (scene + turn) % 10 + 1
        clean = read(scenes[scene]) / 255
        hazy = add_haze(clean, read(folder / "depth" / scenes[scene].name)[INSIDE], 0.5 + 0.1 * suffix)
        yield ((hazy * 255).round() / 255)[None], clean[None]


def spiking_networks(
    network: RestorationNetwork, images: Sequence[Tensor], percentile: float
) -> dict[tuple[str, bool], SpikingNetwork]:
    """All that are compared, by neuron and recycling; thresholds per channel, the same for all."""
    made = {}
    for neuron, recycling in product(NEURONS, (False, True)):
        made[neuron.name, recycling] = convert(
            network,
            images,
            neuron.method,
            time_steps=neuron.time_steps,
            v0=neuron.v0,
            alpha=ALPHA,
            percentile=percentile,
            per_channel=True,
            mapper=False,
            recycling=recycling,
        )
    return made


@torch.no_grad()
def measure(
    networks: dict[tuple[str, bool], SpikingNetwork], ann: RestorationNetwork, root: Path, limit: int
) -> Results:
    """Means over the images."""
    rows: dict[tuple[str, bool], list[tuple[float, ...]]] = {key: [] for key in networks}
    for hazy, clean in sots_indoor(root, limit):
        exact = ann(hazy)
        for key, network in networks.items():
            restored, trace = network.trace(hazy)
            rows[key].append(
                (
                    psnr(restored, clean).item(),
                    ssim(restored, clean).item(),
                    psnr(restored, exact.clamp(0, 1)).item(),
                    paper_energy(network, trace).snn_mj,
                    trace.spikes_per_neuron,
                )
            )
    return {key: Result(*(mean(column) for column in zip(*values, strict=True))) for key, values in rows.items()}


@torch.no_grad()
def measure_ann(ann: RestorationNetwork | None, root: Path, limit: int) -> tuple[float, float]:
    """Mean PSNR and SSIM of the ANN, or of the hazy images themselves."""
    pairs = [(hazy if ann is None else ann(hazy), clean) for hazy, clean in sots_indoor(root, limit)]
    return mean(psnr(*pair).item() for pair in pairs), mean(ssim(*pair).item() for pair in pairs)


def section(file: str, root: Path, limit: int, percentiles: Sequence[float], hazy: tuple[float, float]) -> str:
    """Tables of one file of weights."""
    ann = load_network(root / "weights" / file)
    images = calibration_images(root)
    quality = measure_ann(ann, root, limit)
    size = next(sots_indoor(root, 1))[0].shape[-2:]
    results = {}
    for percentile in percentiles:
        results[percentile] = measure(spiking_networks(ann, images, percentile), ann, root, limit)
        print(f"{file}: percentile {percentile:g} done", file=sys.stderr)
    at_default = results[PERCENTILE]
    lines = [
        f"## {WEIGHTS.get(file, file)}",
        "",
        f"`weights/{file}`, clip levels at percentile {PERCENTILE:g}.",
        "",
        "| | recycling | PSNR | SSIM | PSNR to the ANN | spikes per neuron | mJ |",
        "|---|---|---|---|---|---|---|",
        f"| hazy image | | {hazy[0]:.2f} | {hazy[1]:.4f} | | | |",
        f"| ANN | | {quality[0]:.2f} | {quality[1]:.4f} | | | {ann_energy(ann, (size[0], size[1])):.3f} |",
    ]
    for (name, recycling), r in at_default.items():
        lines.append(
            f"| {name} | {'yes' if recycling else 'no'} | {r.psnr:.2f} | {r.ssim:.4f} | {r.to_ann:.2f} "
            f"| {r.spikes:.2f} | {r.mj:.3f} |"
        )
    lines += ["", *differences(at_default)]
    if len(results) > 1:
        lines += ["", *by_percentile(results, quality)]
    return "\n".join(lines)


def differences(results: Results) -> list[str]:
    """What the table says, in dB."""

    def gain(one: Neuron, other: Neuron, recycling: bool) -> str:
        return f"{results[one.name, recycling].psnr - results[other.name, recycling].psnr:+.2f}"

    def recycled(neuron: Neuron) -> str:
        return f"{results[neuron.name, True].psnr - results[neuron.name, False].psnr:+.2f}"

    return [
        f"- MPRN against IF with v0 = 0: {gain(REUSE, PLAIN, False)} dB, with recycling {gain(REUSE, PLAIN, True)} dB;",
        f"  against one more step of that IF: {gain(REUSE, LONGER, False)} dB, with recycling "
        f"{gain(REUSE, LONGER, True)} dB.",
        f"- MPRN against IF with v0 = 1/2: {gain(REUSE, HALF, False)} dB, with recycling {gain(REUSE, HALF, True)} dB.",
        f"- Recycling adds {recycled(PLAIN)} dB to IF with v0 = 0, {recycled(REUSE)} dB to MPRN, "
        f"{recycled(HALF)} dB to IF with v0 = 1/2.",
    ]


def by_percentile(results: dict[float, Results], quality: tuple[float, float]) -> list[str]:
    """PSNR and SSIM with clip levels at each percentile."""
    lines = [
        f"Clip levels at other percentiles, 100 being the maximum (PSNR / SSIM; the ANN has {quality[0]:.2f} / "
        f"{quality[1]:.4f}):",
        "",
        "| | recycling | " + " | ".join(f"{percentile:g}" for percentile in results) + " |",
        "|---|---|" + "---|" * len(results),
    ]
    for name, recycling in results[PERCENTILE]:
        row = (result[name, recycling] for result in results.values())
        cells = " | ".join(f"{r.psnr:.2f} / {r.ssim:.4f}" for r in row)
        lines.append(f"| {name} | {'yes' if recycling else 'no'} | {cells} |")
    return lines


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the image collection")
    parser.add_argument("--limit", type=int, default=25, help="number of test images, 20..250 (default: %(default)s)")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=list(WEIGHTS),
        help="files below DATA_ROOT/weights; percentiles are compared on the first",
    )
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="document to write (default: %(default)s)")
    arguments = parser.parse_args()
    if not 20 <= arguments.limit <= 250:
        parser.error(f"--limit is {arguments.limit}; expected 20..250 images")
    start = time.perf_counter()
    hazy = measure_ann(None, arguments.data_root, arguments.limit)
    tables = []
    for i, file in enumerate(arguments.weights):
        percentiles = (PERCENTILE,) if i else PERCENTILES
        tables.append(section(file, arguments.data_root, arguments.limit, percentiles, hazy))
    command = f"python benchmarks/untrained_aodnet.py --data-root {arguments.data_root} --limit {arguments.limit}"
    text = "\n\n".join([INTRODUCTION.format(limit=arguments.limit, count=CALIBRATION_IMAGES, t=T), *tables])
    text += (
        f"\n\nMade by `{command}` on {date.today()}, torch {torch.__version__} on {platform.machine()}, float32, "
        f"in {(time.perf_counter() - start) / 60:.0f} minutes.\n"
    )
    print(text)
    arguments.output.write_text(text, encoding="utf-8")


INTRODUCTION = """# Untrained AOD-Net, T = {t}

Published weights turned into a spiking network, with nothing trained: what the neuron and membrane recycling do by
themselves. Mean over {limit} SOTS-indoor images (scenes 1400-1424), each measured alone, peak 1, output clipped.

- **Test images** are RESIDE's, made anew from clean image and depth: `I = J t + 1 - t`, `t = exp(-beta d / max d)`,
  `beta` from 0.6 to 1.5, rounded to 8 bit. They differ from the published ones by at most one level.
- **Calibration images**: the middles (320x240) of {count} NYU rooms of the training split, `A` from [0.6, 1], `beta`
  of 0.4, 0.6 .. 1.6, `d / max d`. No test scene is among them.
- **All networks** share weights, thresholds (per channel) and schedule (clocked); the mapper is left out, since
  untrained it is the identity. MPRN runs an extended step after step T, which its spikes and energy include: IF with
  T = {t} + 1 is there for comparison.
- **PSNR to the ANN** compares with what the ANN makes of the image. **mJ** is the paper's column A, border rule "full",
  620x460 pixels."""


if __name__ == "__main__":
    main()
