"""What activation bits cost and bring: one conventional network, quantised to many choices of bits, none of it trained.

A binary network has bits for each scale. Each choice is a conversion of the conventional network of a model, measured
as it is; beside them stands the network that ships, which was trained with its bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spikingir.conversion.convert import convert
from spikingir.evaluation.evaluate import evaluate
from spikingir.evaluation.testsets import open_testset
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.network import SpikingNetwork
from spikingir.training.follow import calibration_patches
from spikingir.training.recipe import load_recipe
from spikingir.zoo.pretrained import load_ann, load_spiking

CHOICES = ((4, 3, 3), (4, 4, 4), (5, 3, 3), (5, 4, 3), (5, 5, 5), (6, 4, 3), (6, 5, 4))
"""Bits at each scale, finest first."""

SIGMAS = (15.0, 25.0, 50.0)


@dataclass(frozen=True)
class Row:
    """One choice of bits on a test set.

    Attributes:
        name: What was measured.
        psnr: Mean PSNR in dB at each noise level.
        loss: Mean loss to the conventional network in dB, likewise.
        mj: Mean energy of an image in mJ, column A, likewise.
    """

    name: str
    psnr: tuple[float, ...]
    loss: tuple[float, ...]
    mj: tuple[float, ...]


def measure(
    model: str, data: str, root: Path, *, limit: int | None, tell: Callable[[str], None] = lambda text: None
) -> list[Row]:
    """Measure every choice of bits, and the network that ships.

    Args:
        model: Name of a model for Gaussian noise whose recipe ships.
        data: Name of the test set, or a folder.
        root: Folder of the image collection.
        limit: Take at most so many images, spread evenly over the set.
        tell: Told the name of each row that is done.
    """
    recipe, trained = load_recipe(model), load_spiking(model)
    ann = load_ann(trained.model)
    assert ann is not None
    patches = calibration_patches(recipe, recipe.stages[0], root, 64)
    networks: list[tuple[str, SpikingNetwork]] = [
        (
            ", ".join(map(str, bits)),
            convert(
                ann,
                patches,
                time_steps=max(bits),
                schedule="phased",
                coding="binary",
                activation_bits=bits,
                percentile=recipe.conversion.percentile,
                v0=recipe.conversion.v0,
            ),
        )
        for bits in CHOICES
    ]
    shipped = next(stage for stage in recipe.stages if stage.publish == recipe.default)
    own = ", ".join(map(str, shipped.activation_bits))
    rows = []
    for name, network in [*networks, (f"{own}, trained: what ships", trained.network)]:
        restorer = Restorer(network)
        means = []
        for sigma in SIGMAS:
            pairs = open_testset(
                data, root, task=recipe.task, channels=network.config.channels, sigma=sigma, limit=limit
            )
            means.append(evaluate(restorer, pairs, ann, task=recipe.task).mean)
        losses = tuple(mean.psnr_loss for mean in means if mean.psnr_loss is not None)
        rows.append(Row(name, tuple(m.psnr for m in means), losses, tuple(m.snn_mj for m in means)))
        tell(name)
    return rows


def page(rows: Sequence[Row], model: str, data: str, command: str, version: str) -> str:
    """The page docs/bits.md."""

    def three(values: Sequence[float]) -> str:
        return " / ".join(f"{value:.2f}" for value in values)

    lines = [
        "# Bits of the activations",
        "",
        f"`{command}`, version {version}. `{model}` on {data}, noise of sigma {' / '.join(f'{s:g}' for s in SIGMAS)}. "
        "Bits are those of each scale, finest first; a network takes as many time steps as its finest scale has bits. "
        "All rows but the last are its conventional network, converted and not trained further. Energy is column A of "
        "one image ([energy](energy.md)), loss is to the conventional network.",
        "",
        "| bits | PSNR, dB | loss, dB | mJ |",
        "|---|---:|---:|---:|",
    ]
    lines += [f"| {row.name} | {three(row.psnr)} | {three(row.loss)} | {three(row.mj)} |" for row in rows]
    return "\n".join(lines) + "\n"
