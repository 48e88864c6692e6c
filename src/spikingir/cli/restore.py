"""Commands that restore photographs."""

import os
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spikingir.cli.console import CommandError, complain, progress_bar, say


def denoise(
    photo: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    model: str = "denoise-gray-25",
    time_steps: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    quality: Annotated[int, Parameter(validator=Number(gte=1, lte=100))] = 95,
) -> None:
    """Remove noise from a photograph (PNG or JPEG), which itself is never changed.

    Args:
        photo: The photograph.
        out: File to write, .png or .jpg; PHOTO_denoised beside it unless given.
        model: Name of a model that ships, or a .safetensors file, or a folder with snn.safetensors.
        time_steps: Time steps of the spiking network; as the model was made unless given.
        overwrite: Replace the file to write if it exists.
        quality: Quality of a JPEG, 1 to 100.
    """
    from spikingir.restoration.images import check_output, default_output, read_image, write_image

    # All that can be wrong is found out before the long work, and before torch is loaded.
    picture = read_image(photo)
    target = default_output(photo, "denoised") if out is None else out
    if _same_file(photo, target):
        raise CommandError(f"{target} is the photograph itself, which is never replaced; give another name with -o")
    check_output(target, overwrite=overwrite)
    if not os.access(target.parent, os.W_OK):
        raise CommandError(f"{target} cannot be written: the folder is not writable for this user; choose another")

    from spikingir.restoration.restorer import Restorer

    restorer = Restorer.from_pretrained(model, time_steps=time_steps)
    start = time.monotonic()
    with progress_bar("denoising") as progress:
        restored = restorer(picture, progress=progress)
    seconds = time.monotonic() - start
    notes = write_image(restored, target, quality=quality, overwrite=overwrite)
    for note in (*picture.notes, *notes):
        complain(f"note: {note}")
    height, width = picture.pixels.shape[:2]
    say(f"{target}: {width} x {height}, {restorer.network.config.clock}, {seconds:.1f} s")


def demo(*, out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("demo")) -> None:
    """Restore a noisy sample photograph and show what it gains and costs.

    Args:
        out: Folder for the pictures; those of an earlier demo are replaced.
    """
    from spikingir.restoration.demo import SIGMA, run_demo

    with progress_bar("restoring") as progress:
        found = run_demo(out, progress=progress)
    took = found.restoration
    say(f"original    {'':8}  {found.original}")
    say(f"noisy       {found.noisy_db:5.2f} dB  {found.noisy} (Gaussian noise, sigma {SIGMA})")
    say(f"restored    {found.restored_db:5.2f} dB  {found.restored} ({found.clock}, {took.seconds:.1f} s)")
    say(f"gain        {found.restored_db - found.noisy_db:5.2f} dB  {found.comparison} shows them side by side")
    say(f"spikes      {took.spikes_per_neuron:5.2f} per neuron")
    say(
        f"energy      {took.snn_mj:.1f} mJ, against {took.ann_mj:.1f} mJ of the conventional network "
        "(operations alone, as the paper counts)"
    )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return False
