"""Checkpoints that are complete or absent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spikingir.files import write_atomically

CHECKPOINT = "checkpoint.pt"
"""Name of a checkpoint in the folder of its run."""


def save_checkpoint(state: Mapping[str, Any], path: Path) -> None:
    """Write ``state`` beside ``path`` and rename it into place, so that an interruption leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: torch.save(dict(state), file), overwrite=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; tensors and plain values only, never code."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
