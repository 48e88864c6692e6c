"""Time and memory of whole photographs in colour, beside OpenCV's non-local means and a float32 DnCNN, in one run.

    python -m benchmarks.photographs --megapixels 1 12        # within make bench: --only photographs

Each restores the same photograph once, from 8 bits to 8 bits, in a process of its own and after a small one. DnCNN has
the layers of the paper's, for colours; its weights are random, on which its time does not depend, and it runs tile by
tile. OpenCV's settings are those of its documentation. The bar: faster than both at every size, and less than 1 GiB
above what the network takes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.resident import resident_peak

Picture = NDArray[np.uint8]

OURS, MEANS, DNCNN = "SpikingIR, denoise-photo", "non-local means, OpenCV", "DnCNN, float32"
SIZES = (1.0, 12.0, 48.0)
SIGMA = 10
_SMALL = 64
_TILE = 512


@dataclass(frozen=True)
class Took:
    """What a photograph took.

    Attributes:
        seconds: Time, once all is loaded.
        total: Largest resident memory in MB (10^6 bytes): libraries, network, photograph and all.
        added: What the photograph added to what a small one had taken.
    """

    seconds: float
    total: float
    added: float


def photographs(megapixels: Sequence[float] = SIZES, threads: int = 1) -> dict[str, Any]:
    """Time and memory of every candidate at every size; printed, too.

    Raises:
        SystemExit: A candidate failed.
    """
    print(f"\nphotographs in colour, {threads} threads; MB at the peak, and those above a small photograph's\n")
    print("| megapixels | | seconds | peak, MB | above, MB |\n|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in megapixels:
            path = Path(folder, "photograph.npy")
            picture = photograph(size)
            np.save(path, picture)
            for name in CANDIDATES:
                took = _in_a_process(name, path, threads)
                print(f"| {size:g} | {name} | {took.seconds:.1f} | {took.total:.0f} | {took.added:.0f} |", flush=True)
                rows.append({"megapixels": size, "size": picture.shape[1::-1], "name": name, **asdict(took)})
    return {"threads": threads, "rows": rows}


def photograph(megapixels: float) -> Picture:
    """A noisy photograph of 4 : 3: the demo's, mirrored until it is large enough.

    Shape:
        (H, W, 3).
    """
    from spikingir.data.samples import noisy_sample

    clean = noisy_sample().original.movedim(0, -1).numpy() * np.float32(255)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    for axis, size in ((0, height), (1, width)):
        while clean.shape[axis] < size:
            clean = np.concatenate([clean, np.flip(clean, axis)], axis)
    noisy = np.random.default_rng(0).standard_normal((height, width, 3), np.float32)
    noisy *= SIGMA
    noisy += clean[:height, :width]
    return noisy.round().clip(0, 255).astype(np.uint8)


def _ours(threads: int) -> Callable[[Picture], Picture]:
    import torch

    from spikingir.restoration.restorer import Restorer

    torch.set_num_threads(threads)
    return Restorer.from_pretrained("denoise-photo", engine="native")


def _dncnn(threads: int) -> Callable[[Picture], Picture]:
    import torch

    from spikingir.conversion.convert import convert
    from spikingir.networks.registry import build_network
    from spikingir.restoration.restorer import Restorer

    torch.set_num_threads(threads)
    network = build_network("dncnn", channels=3).eval()
    # of the spiking network that it would become the restorer takes the tiles alone
    tiles = Restorer(convert(network, torch.rand(1, 3, 16, 16), time_steps=4, schedule="phased"), tile=_TILE)
    network.to(memory_format=torch.channels_last)
    return lambda picture: tiles.by_ann(network, picture)


def _means(threads: int) -> Callable[[Picture], Picture]:
    import cv2

    cv2.setNumThreads(threads)
    return lambda picture: cv2.fastNlMeansDenoisingColored(picture, None, SIGMA, SIGMA, 7, 21)


CANDIDATES = {OURS: _ours, MEANS: _means, DNCNN: _dncnn}


def _in_a_process(name: str, photograph: Path, threads: int) -> Took:
    order = json.dumps({"name": name, "photograph": str(photograph), "threads": threads})
    command = [sys.executable, "-m", "benchmarks.photographs", "--measure", order]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed with exit code {done.returncode}; see above")
    return Took(**json.loads(done.stdout.splitlines()[-1]))


def _measure(order: str) -> Took:
    asked = json.loads(order)
    restore = CANDIDATES[asked["name"]](asked["threads"])
    picture: Picture = np.load(asked["photograph"])
    restore(np.ascontiguousarray(picture[:_SMALL, :_SMALL]))
    before, start = resident_peak(), time.perf_counter()
    restored = restore(picture)
    seconds, total = time.perf_counter() - start, resident_peak()
    if restored.shape != picture.shape or np.array_equal(restored, picture):
        raise SystemExit(f"{asked['name']} gave back no restored photograph")
    return Took(seconds, total, total - before)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="+", default=SIZES)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(asdict(_measure(given.measure))))
    else:
        photographs(given.megapixels, given.threads)


if __name__ == "__main__":
    main()
