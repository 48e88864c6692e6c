"""What a network that is told the noise level would make of real cameras, beside the blind one.

    python -m benchmarks.told --data-root ../shared/data

The level is the best that one number can be: all are tried, against the clean photograph, which no user has.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from spikingir.data.testsets import TestPair
from spikingir.evaluation.testsets import open_testset
from spikingir.measures import psnr
from spikingir.restoration.restorer import Restorer

LEVELS = (1, 2, 3, 4, 5, 6, 8, 10, 13)
"""Levels that are tried, of 255; the noise of these cameras is 2 to 6."""


def best(blind: Restorer, told: Restorer, pair: TestPair) -> tuple[float, float, int]:
    """PSNR of the blind network and of the other at its best level, in dB, and that level."""

    def quality(image: Tensor) -> float:
        return psnr(image[None], pair.clean[None]).item()

    found = {level: quality(told(pair.degraded, sigma=level)) for level in LEVELS}
    level = max(found, key=found.__getitem__)
    return quality(blind(pair.degraded)), found[level], level


@torch.no_grad()
def lines(root: Path, limit: int | None) -> Iterator[str]:
    """A line for each photograph of PolyU's test cameras, and one for the means."""
    blind, told = Restorer.from_pretrained("denoise-photo"), Restorer.from_pretrained("denoise-color")
    rows = []
    for pair in open_testset("polyu", root, task="denoise", channels=3, limit=limit):
        rows.append(best(blind, told, pair))
        yield f"{pair.name}: blind {rows[-1][0]:.2f} dB, told {rows[-1][2]} {rows[-1][1]:.2f} dB"
    yield f"mean: blind {mean(row[0] for row in rows):.2f} dB, told {mean(row[1] for row in rows):.2f} dB"


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the image collection")
    parser.add_argument("--limit", type=int, help="take at most so many photographs")
    given = parser.parse_args()
    for line in lines(given.data_root, given.limit):
        print(line, flush=True)


if __name__ == "__main__":
    main()
