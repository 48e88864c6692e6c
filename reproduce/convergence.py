"""Whether a conversion approaches the network that it was made of as T grows, whatever either makes of the image.

    python -m reproduce.convergence --data-root DATA

PSNR against the clean image does not tell: where the conventional network errs, a network that has not come near it
yet may err less. So this prints the PSNR between the two restored images as well, and the mean of their pixels, which
shows haze that is left or removed too much. The middles of 12 images of each hazy set, 256 x 256 pixels; of 4 noisy
ones, 128 x 128. QCFS is set against its own quantised ANN.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from reproduce import WEIGHTS
from reproduce.contenders import METHODS, Subject
from spikingir.evaluation.testsets import open_testset
from spikingir.measures import psnr

HAZY = ("testset-a-like", "sots-indoor", "sots-outdoor", "middlebury")
REFERENCES = {"rueckauer": "ann", "if": "ann", "qcfs": "qcfs-ann"}
STEPS = (10, 50, 200, 1000)
LEVELS = 8  # of the quantised ANN that QCFS's network is made of: its T = L


def rows(model: str, data: str, root: Path, methods: tuple[str, ...], limit: int, crop: int) -> Iterator[str]:
    """A line for each method: PSNR to its reference's images, to the clean ones, and mean pixel, as T grows."""
    subject = Subject.open(model, None, WEIGHTS, root)
    task, channels, sigma = subject.task, subject.channels, subject.sigma
    pairs = list(open_testset(data, root, task=task, channels=channels, sigma=sigma, limit=limit, crop=crop))
    clean = [pair.clean for pair in pairs]

    def restored(method: str, time_steps: int | None = None) -> list[Tensor]:
        contender = METHODS[method].make(subject, time_steps)
        return [contender(pair.degraded).image.clamp(0, 1) for pair in pairs]

    for method in methods:
        target = restored(REFERENCES[method])
        steps = (LEVELS, *STEPS[1:]) if method == "qcfs" else STEPS
        found = [restored(method, time_steps) for time_steps in steps]
        yield (
            f"| {model}, {data} | {METHODS[method].label}, T = {', '.join(map(str, steps))} "
            f"| {', '.join(decibels(images, target) for images in found)} "
            f"| {', '.join(decibels(images, clean) for images in found)} ({decibels(target, clean)}) "
            f"| {', '.join(map(mean_pixel, found))} ({mean_pixel(target)}; {mean_pixel(clean)}) |"
        )


def mean_pixel(images: list[Tensor]) -> str:
    """Of all images alike."""
    return f"{fmean(image.mean().item() for image in images):.3f}"


def decibels(images: list[Tensor], others: list[Tensor]) -> str:
    """Mean PSNR."""
    return f"{fmean(psnr(one[None], other[None]).item() for one, other in zip(images, others, strict=True)):.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the image collection")
    root = parser.parse_args().data_root
    print("| model, test set | network | PSNR to its ANN's | PSNR to the clean (its ANN's) | mean pixel (ANN; clean) |")
    print("|---|---|---|---|---|")
    torch.set_grad_enabled(False)
    for data in HAZY:
        for line in rows("dehaze-aodnet", data, root, ("rueckauer", "qcfs"), limit=12, crop=256):
            print(line, flush=True)
    for line in rows("denoise-gray-15", "bsd68", root, ("rueckauer", "if"), limit=4, crop=128):
        print(line, flush=True)


if __name__ == "__main__":
    main()
