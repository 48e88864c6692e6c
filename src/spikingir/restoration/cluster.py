"""Restoring many photographs on the machines of a Ray cluster.

Photographs are read, and results are written, by the machine that asks: to the others travels what is in the files. So
they need no disk in common, every check and promise about files holds as without them, and a machine that dies leaves
nothing half-written. What it was at is done once more elsewhere, and comes out the same, bit for bit.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from spikingir.environment import environment
from spikingir.errors import SpikingIRError
from spikingir.restoration.batch import (
    FAILURES,
    Options,
    Outcome,
    Result,
    check_outputs,
    done_before,
    failed,
    process,
    read_content,
    read_job,
)
from spikingir.restoration.batch import store as write
from spikingir.restoration.choice import AUTO, Chooser, Wishes
from spikingir.restoration.jobs import Job
from spikingir.version import __version__
from spikingir.zoo.catalogue import CONFIG_FILE, model_names
from spikingir.zoo.pretrained import load_spiking

LOCAL = "local"
"""Stands for a cluster on this machine alone, made for the occasion, as with Ray itself."""

RETRIES = 3
"""How often a photograph is begun anew when the machine or the process that was at it dies."""

# Ray would tell its makers how it is used, and say on stdout, where a photograph may go, that a process died.
_SILENCE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
_AHEAD = 2  # photographs under way for each processor: one that is worked on, and the next


class ClusterError(SpikingIRError):
    """The cluster cannot be reached, or cannot do the work; the message is one sentence."""


def restore_on_cluster(jobs: Sequence[Job], wishes: Wishes, options: Options, address: str) -> Iterator[Outcome]:
    """:func:`~spikingir.restoration.batch.restore_all` on a cluster; outcomes come as they are known.

    Every processor of the cluster restores a photograph of its own; with ``cuda`` as the device, every GPU.

    Args:
        jobs: The photographs.
        wishes: What restores them. A model of one's own is sent along.
        options: How results are written.
        address: ``HOST:PORT`` of the cluster's head where this machine is one of the cluster's, ``ray://HOST:PORT``
            where it is not, ``auto`` for the one that runs on this machine, or ``local``.

    Raises:
        ModuleNotFoundError: Ray is missing; the ``ray`` extra has it.
        ClusterError: The cluster cannot be reached, or has another version of this package.
        ValueError: Whatever is wrong with the model: it would be for every photograph.
    """
    own_model = _own_model(wishes)
    wanted = replace(wishes, model=Path(wishes.model).resolve().name) if own_model else wishes
    with _connected(address) as ray:
        gpus = int(wishes.device == "cuda")
        restore = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_restore)
        model = ray.put(own_model)
        under_way: dict[Any, Job] = {}

        def next_outcome() -> Outcome:
            (done,), _ = ray.wait(list(under_way), num_returns=1)
            job = under_way.pop(done)
            outcome = write(_result(done, job), job, options)
            return replace(outcome, model=wishes.model) if own_model and outcome.model is not None else outcome

        for job in jobs:
            while len(under_way) >= _AHEAD * max(1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1))):
                yield next_outcome()
            if (before := done_before(job, options)) is not None:
                yield before
                continue
            try:
                content = read_content(job, options)
                check_outputs(job, options)
            except FAILURES as error:
                yield failed(job, error)
            else:
                # the model is in a list, so that Ray passes on the reference and not what it stands for
                under_way[restore.remote(__version__, content, job, wanted, options, [model])] = job
        while under_way:
            yield next_outcome()


def _own_model(wishes: Wishes) -> dict[str, bytes]:
    """Files of a model that does not ship, by their names from the folder around it; what is wrong with it is said."""
    if wishes.model == AUTO or wishes.model in model_names():
        return {}
    model = load_spiking(wishes.model, time_steps=wishes.time_steps, schedule=wishes.schedule).model
    place = Path(wishes.model).resolve()
    if place.is_file():
        return {place.name: place.read_bytes()}
    files = [place / name for name in (CONFIG_FILE, *(variant.file for variant in model.variants))]
    return {f"{place.name}/{file.name}": file.read_bytes() for file in files if file.is_file()}


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    with environment(_SILENCE):
        import ray

        local = {"include_dashboard": False} if address == LOCAL else {}
        try:
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **local)
        except Exception as error:  # of many kinds, and many lines
            reason = str(error).partition("\n")[0]
            raise ClusterError(
                f"no Ray cluster can be reached at {address!r} ({reason}); "
                f"expected HOST:PORT, ray://HOST:PORT, auto or {LOCAL}"
            ) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def _result(done: Any, job: Job) -> Result:
    """What a machine of the cluster made of a photograph."""
    from ray import exceptions, get

    try:
        result: Result = get(done)
    except exceptions.RayTaskError as error:  # raised by what it ran: one of ours, or a bug
        if isinstance(error.cause, SpikingIRError):
            raise error.cause from None
        raise
    except exceptions.RayError as error:
        reason = f"what restored it died {RETRIES + 1} times ({type(error).__name__}); give the cluster more memory"
        return Result(Outcome(job.name, error=f"{job.name}: {reason}"))
    return result


# What the machines of the cluster do


def _restore(version: str, content: bytes, job: Job, wishes: Wishes, options: Options, model: list[Any]) -> Result:
    if version != __version__:
        raise ClusterError(
            f"a machine of the cluster has spikingir {__version__}, this one {version}; install the same"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            photo, format = read_job(content, job, options)
        except FAILURES as error:
            return Result(failed(job, error))
        result = process(content, photo, format, job, _chooser(wishes, model[0]), options)
    notes = (*result.outcome.notes, *(" ".join(str(warning.message).split()) for warning in caught))
    return replace(result, outcome=replace(result.outcome, notes=notes))


@lru_cache(1)
def _chooser(wishes: Wishes, model: Any) -> Chooser:
    """What one process restores with, photograph after photograph."""
    from ray import get

    files: dict[str, bytes] = get(model)
    if not files:
        return Chooser(wishes)
    with tempfile.TemporaryDirectory(prefix="spikingir-") as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        chooser = Chooser(replace(wishes, model=str(Path(folder, wishes.model))))
        chooser.restorer(chooser.wishes.model)  # while the files are there
        return chooser
