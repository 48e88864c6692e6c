"""The commands that write a model for other tools, and read it back."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from spikingir.cli.console import CommandError, complain, say


def _known_format(kind: object, value: str) -> None:
    from spikingir.export.export import FORMATS

    if value not in FORMATS:
        raise ValueError(f"Must be one of {', '.join(FORMATS)}.")


def export(
    model: str,
    /,
    *,
    to: Annotated[str, Parameter(validator=_known_format)],
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    schedule: Literal["clocked", "phased"] | int | None = None,
    time_steps: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    overwrite: bool = False,
) -> None:
    """Write a model for other tools, run what was written, and say what differs from the folded network.

    npz: plain arrays and the graph as JSON. onnx: integers, for onnxruntime; phased models alone. torch: a program of
    torch.export. nir: the spiking body, for neuromorphic tools; spikingjelly: a Python file of its modules; both of
    clocked models alone.

    Args:
        model: Name of a model that ships, or a .safetensors file, or a folder with one.
        to: The format: npz, onnx, torch, nir, spikingjelly, or one that a package of yours adds.
        out: File to write; its name ends in .npz, .onnx, .pt2, .nir or .py, or as the package says.
        schedule: clocked, phased, or the number of inputs that a layer waits for; as the model was made unless given.
        time_steps: Time steps; as it was trained unless given.
        overwrite: Replace the file to write if it exists.
    """
    from spikingir.export.export import export_network
    from spikingir.zoo.pretrained import load_spiking

    if os.path.lexists(out) and not overwrite:
        raise CommandError(f"{out} exists already; --overwrite replaces it")
    loaded = load_spiking(model, time_steps=time_steps, schedule=schedule)
    for note in loaded.notes:
        complain(f"note: {note}")
    done = export_network(loaded.network, out, to, overwrite=overwrite)
    for note in done.notes:
        complain(f"note: {note}")
    say(f"{done.path}: {done.drift}, on a sample of random values")


def import_(
    file: Path,
    /,
    *,
    source: Annotated[str, Parameter(name="--from", validator=_known_format)],
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    overwrite: bool = False,
) -> None:
    """Make a model of a file of spikingir export, or of one that another tool has changed since.

    Says what differs between the file and the model, run on a sample.

    Args:
        file: The file.
        source: Its format: npz, nir, spikingjelly, or one that a package of yours adds.
        out: Model to write, a .safetensors file.
        overwrite: Replace the file to write if it exists.
    """
    from spikingir.export.export import import_network
    from spikingir.store import save_pretrained

    if os.path.lexists(out) and not overwrite:
        raise CommandError(f"{out} exists already; --overwrite replaces it")
    done = import_network(file, source)
    save_pretrained(done.network, out, overwrite=overwrite)
    say(f"{out}: {done.drift}, on a sample of random values")
