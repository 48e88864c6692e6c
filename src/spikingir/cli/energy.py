"""The command that counts energy."""

import json as json_
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from spikingir.cli.console import CommandError, complain, progress_bar, say
from spikingir.cli.evaluate import MAX_MEGAPIXELS, MaxMegapixels
from spikingir.cli.tables import table
from spikingir.errors import UsageError
from spikingir.tasks import TASKS

if TYPE_CHECKING:
    from torch import Tensor

    from spikingir.energy.columns import EnergyColumns

_WIDTH = 100
_VIDEO = 30  # images a second


def energy(
    network: str,
    /,
    *,
    size: str | None = None,
    image: Path | None = None,
    sigma: Annotated[float | None, Parameter(validator=Number(gte=0))] = None,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    schedule: Literal["clocked", "phased"] | int | None = None,
    time_steps: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    explain: bool = False,
    json: bool = False,
) -> None:
    """Count the energy of a network for one image: as the paper does, complete, in integers, with memory.

    An architecture needs a size. A spiking network needs an image, because its energy follows from its spikes; it is
    charged in its deployment form, beside its conventional network and that network's int8 twin.

    Args:
        network: aodnet or dncnn, for the conventional network; or a model: name of one that ships, or a .safetensors
            file, or a folder with snn.safetensors.
        size: Width and height, such as 481x321; of an image, its middle is cut out.
        image: Image that the spiking network restores.
        sigma: Level of the Gaussian noise to add first, of 255; none unless given. A network with a level input is
            told it.
        seed: Seed of the noise.
        schedule: clocked, phased, or the number of inputs that a layer waits for; as the model was made unless given.
        time_steps: Time steps of the spiking network; as it was trained unless given.
        max_megapixels: Largest image that is read.
        explain: Print each layer, what an operation costs and what the figures assume as well; JSON always has all.
        json: Print JSON.
    """
    from spikingir.networks.registry import ARCHITECTURES

    wanted = None if size is None else _size(size)
    if network not in ARCHITECTURES:
        if image is None:
            raise UsageError(
                f"the energy of {network} follows from its spikes; give an image with --image, or one of "
                f"{', '.join(ARCHITECTURES)} with --size"
            )
        _spiking(network, wanted, image, sigma, seed, schedule, time_steps, max_megapixels * 10**6, json, explain)
        return
    if image is not None or sigma is not None or schedule is not None or time_steps is not None:
        raise UsageError(f"{network} is an architecture, which has no spikes; give it --size alone, or name a model")
    if wanted is None:
        raise UsageError(f"the energy of {network} depends on the image's size; give it with --size, such as 481x321")
    from spikingir.energy.columns import ann_columns
    from spikingir.networks.registry import build_network
    from spikingir.restoration.tiling import memory_errors

    built, notes = build_network(network), []
    if any(side % built.multiple for side in wanted):
        notes.append(_counted_at(*(side + -side % built.multiple for side in wanted)))
        complain(f"note: {notes[0]}")
    with memory_errors():
        found = ann_columns(built, (wanted[1], wanted[0]))
    head = {"architecture": network, "size": list(wanted), "notes": notes}
    _print(head, found, json, f"{network}, {wanted[0]} x {wanted[1]}", explain=explain)


def _spiking(
    model: str,
    size: tuple[int, int] | None,
    path: Path,
    sigma: float | None,
    seed: int,
    schedule: Literal["clocked", "phased"] | int | None,
    time_steps: int | None,
    max_pixels: int,
    json: bool,
    explain: bool,
) -> None:
    from spikingir.data.folders import require_size
    from spikingir.energy.columns import energy_columns
    from spikingir.restoration.restorer import Restorer
    from spikingir.restoration.tiling import memory_errors, trace_tiled
    from spikingir.zoo.pretrained import load_ann, load_spiking

    require_size(path, max_pixels)
    loaded = load_spiking(model, time_steps=time_steps, schedule=schedule)
    task = TASKS[loaded.model.task]
    if sigma is not None and task.sigma_of is None:
        raise UsageError(f"{model} removes {task.removes}, to which no noise is added; leave --sigma out")
    config, ann, notes = loaded.network.config, load_ann(loaded.model), list(loaded.notes)
    if config.is_told_level and sigma is None:
        raise UsageError(f"{model} is told the level of the noise, on which its spikes depend; give it with --sigma")
    if ann is None:
        notes.append("the model has no conventional network; its own weights with ReLUs stand for it")
    picture = _read(path, config.channels, size, sigma, seed)
    if config.channels == 1 and _has_colours(path):
        notes.append("counted on the image's gray version; to restore its colours takes three such inferences")
    height, width = picture.shape[-2:]
    restorer = Restorer(loaded.network)
    folded = restorer.network
    picture = restorer.seen(picture, sigma if config.is_told_level else None)  # as restoring does
    if picture.shape[-2:] != (height, width):
        notes.append(_counted_at(picture.shape[-1], picture.shape[-2]))
    for note in notes:
        complain(f"note: {note}")
    with memory_errors():
        with progress_bar("restoring") as progress:
            _, trace = trace_tiled(folded, picture, counts=True, progress=progress)
        found = energy_columns(folded, trace, picture, ann or loaded.network)
    head = {
        "model": model,
        "schedule": config.schedule,
        "time_steps": config.time_steps,
        "steps": len(trace.layers[0].spikes),
        "image": str(path),
        "size": [width, height],
        "sigma": sigma,
        "seed": seed,
        "notes": notes,
        "spikes_per_neuron": trace.spikes_per_neuron,
    }
    noise = "" if sigma is None else f", noise of sigma {sigma:g}, seed {seed}"
    spikes = found.spikes_per_synapse
    counted = (
        f"{trace.spikes_per_neuron:.3f} spikes per neuron; per synapse and inference {spikes['true']:.3f} "
        f"(border rule full: {spikes['full']:.3f}); {found.synaptic_operations:.4g} synaptic operations"
    )
    title = f"{model} ({config.clock}) on {path}, {width} x {height}{noise}"
    _print(head, found, json, title, counted, explain=explain)


def _counted_at(width: int, height: int) -> str:
    return f"counted at {width} x {height}, the size at which the network sees it"


def _size(text: str) -> tuple[int, int]:
    """Width and height."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"the size is {text!r}; expected width x height in pixels, such as 481x321")
    return int(width), int(height)


def _has_colours(path: Path) -> bool:
    from PIL import Image

    with Image.open(path) as image:
        return image.mode not in ("1", "L", "LA")  # a palette has colours, as in restoring


def _read(path: Path, channels: int, size: tuple[int, int] | None, sigma: float | None, seed: int) -> "Tensor":
    """The image as the network takes it, (1, C, H, W)."""
    from spikingir.data.folders import read_gray, read_rgb, to_tensor
    from spikingir.data.noise import add_gaussian_noise, sample_generator

    picture = to_tensor(read_gray(path) if channels == 1 else read_rgb(path))
    if size is not None:
        width, height = size
        top, left = (picture.shape[1] - height) // 2, (picture.shape[2] - width) // 2
        if top < 0 or left < 0:
            raise CommandError(
                f"{path} is {picture.shape[2]} x {picture.shape[1]}; {width} x {height} cannot be cut out of it"
            )
        picture = picture[:, top : top + height, left : left + width]
    if sigma is not None:
        picture = add_gaussian_noise(picture, sigma, sample_generator(seed, 0))
    return picture[None]


def _print(
    head: dict[str, Any], found: "EnergyColumns", json: bool, title: str, counted: str = "", *, explain: bool
) -> None:
    from spikingir.energy.columns import COLUMNS, border_rule
    from spikingir.energy.prices import ASSUMPTIONS, PRICES

    if json:
        say(json_.dumps({**head, **found.as_dict()}, indent=2))
        return
    say(f"{title}\n")
    ann, snn, even = found.ann_mj, found.snn_mj, found.break_even
    rows = [["energy for one image", "border", "ANN mJ", *(["SNN mJ", "SNN/ANN", "pays below"] if snn else [])]]
    for column, name in COLUMNS.items():
        row = [name, border_rule(column), f"{ann[column]:.3f}"]
        if snn:
            below = f"{even[column]:.3f}" if column in even else "-"
            row += [f"{snn[column]:.3f}", f"{snn[column] / ann[column]:.3f}", below]
        rows.append(row)
    say(table(rows, words=2))
    if snn:
        say("pays below: spikes per synapse and inference at which the SNN costs what the ANN does")
        say(counted)
    if (twin := found.int8_twin) is not None:
        video = f"at {_VIDEO} images a second {twin.milliwatts(_VIDEO):.4g} mW"
        say(f"int8 twin of the ANN, zeros skipped: {twin.mj:.4g} mJ, {twin.nj_per_pixel:.4g} nJ a pixel, {video}")
        over = found.over_twin
        say(f"column C of the SNN over it: {over['int8']:.3f} (accumulates of 8 bits), {over['int32']:.3f} (of 32)")
    if not explain:
        say("\nlayer by layer, what an operation costs, and what these figures assume: --explain")
        return
    say("")
    rows = [
        ["mJ by layer", *(f"{name} {column}" for column in COLUMNS for name in (["ANN", "SNN"] if snn else ["ANN"]))]
    ]
    for layer in found.layers:
        cells = [layer.name]
        for column in COLUMNS:
            cells.append(f"{layer.ann_mj[column]:.4f}" if column in layer.ann_mj else "-")
            if snn:
                cells.append(f"{layer.snn_mj[column].total:.4f}" if column in layer.snn_mj else "-")
        rows.append(cells)
    say(table(rows))
    say("\nConstants, pJ")
    for price in PRICES.values():
        say(f"  {price.pj:6.2f}  {price.what}")
    sources = dict.fromkeys(price.source for price in PRICES.values())
    say("\n".join(f"  all from {source}" for source in sources))
    say("\nAssumptions")
    for assumption in ASSUMPTIONS:
        say(textwrap.fill(assumption, _WIDTH, initial_indent="- ", subsequent_indent="  "))
