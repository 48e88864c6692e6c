"""Checkpoints that are complete or absent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spikingir.files import write_atomically
from spikingir.schema import SchemaError
from spikingir.store import StorageError, read_torch

CHECKPOINT = "checkpoint.pt"
"""Name of a checkpoint in the folder of its run."""

_MOST_BYTES = 2**40  # with an optimiser's moments, a checkpoint is several times its network


def save_checkpoint(state: Mapping[str, Any], path: Path) -> None:
    """Write ``state`` beside ``path`` and rename it into place, so that an interruption leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: torch.save(dict(state), file), overwrite=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; tensors and plain values only, never code.

    Raises:
        StorageError: It is damaged.
    """
    try:
        state = read_torch(path, _MOST_BYTES)
    except SchemaError as error:
        raise StorageError(f"{path}: {error}") from None
    if not isinstance(state, dict):
        raise StorageError(f"{path}: it holds a {type(state).__name__}; expected a checkpoint")
    return state
