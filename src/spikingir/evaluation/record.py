"""From an evaluation to a row of the tests that a model's card shows."""

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import fmean

from spikingir.energy.columns import COLUMNS
from spikingir.evaluation.evaluate import Assessment, Evaluation, finite
from spikingir.provenance import commit
from spikingir.zoo.measured import TestRow


def row_of(
    found: Evaluation | Assessment,
    *,
    data: str,
    network: str,
    clock: str,
    sigma: float | None = None,
    seed: int = 0,
    limit: int | None = None,
    crop: int | None = None,
) -> TestRow:
    """The row of an evaluation.

    Args:
        found: The evaluation, with the energy by all columns.
        data: Name of the test set.
        network: File of the spiking network.
        clock: Its time steps, schedule and code.
        sigma: Level of the noise that was added, of 255.
        seed: Its seed.
        limit: Most images that were asked for.
        crop: Side of what was cut out of each.
    """
    if isinstance(found, Assessment):
        mean = found.mean
        quality = {"e": mean["e"], "r": mean["r"], "saturated": mean["sigma"]}
        spikes = mean["spikes_per_neuron"]
    else:
        measures = found.mean
        names = ("degraded_psnr", "ann_psnr", "ann_ssim", "psnr", "ssim")
        quality = {name: finite(getattr(measures, name)) for name in names}
        quality["conversion_rate"] = finite(measures.conversion_rate_uncapped)
        spikes = measures.spikes_per_neuron
    twins = [columns.int8_twin.mj for columns in found.columns if columns.int8_twin is not None]
    return TestRow(
        data,
        len(found.images),
        network,
        clock,
        commit(),
        datetime.now(UTC).date().isoformat(),
        sigma,
        seed,
        limit,
        crop,
        **quality,
        spikes_per_neuron=spikes,
        spikes_per_synapse=fmean(columns.spikes_per_synapse["true"] for columns in found.columns),
        ann_mj=_mean([columns.ann_mj for columns in found.columns]),
        snn_mj=_mean([columns.snn_mj for columns in found.columns]),
        int8_twin_mj=fmean(twins) if twins else None,
    )


def _mean(energies: Sequence[dict[str, float]]) -> dict[str, float]:
    return {column: fmean(energy[column] for energy in energies) for column in COLUMNS}
