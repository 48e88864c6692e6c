"""The tasks: all that the package knows of what its networks remove from images.

A further task is one more record and one more name in :data:`TASKS`, by a decorator or an entry point of a package of
one's own (:mod:`spikingir.plugins`); nothing else in the package asks which task it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spikingir.data.sets import HAZE_SETS, NOISE_SETS, TestSet
from spikingir.errors import InputError
from spikingir.plugins import Registry

if TYPE_CHECKING:
    from spikingir.data.testsets import Degradation

TaskName = str
"""A key of :data:`TASKS`."""


@dataclass(frozen=True)
class Task:
    """What a network removes from an image.

    Attributes:
        name: The verb: the command on the command line, the task in a model's ``config.json``, the key in
            :data:`TASKS`.
        done: The participle, which the files of results have in their names.
        removes: What is removed.
        sigma_of: What of it ``sigma`` is the level of, on the 0..255 scale; None where nothing has a level.
        formations: Image formations of its networks, see :func:`~spikingir.spiking.formation.form_image`. They tell
            the task of a network that comes without a configuration.
        default_models: Models that restore unless another is asked for: the first of them that ships.
        conversion_rate: What a spiking network keeps of its conventional network's quality, from the ratios of their
            PSNRs and SSIMs; 1 where nothing is lost.
        degradation: Loads the way from clean images to degraded ones, which needs torch: test sets, folders of
            one's own, and the sample of the demonstration.
        testsets: Its test sets by name.
    """

    name: TaskName
    done: str
    removes: str
    sigma_of: str | None
    formations: tuple[str, ...]
    default_models: tuple[str, ...]
    conversion_rate: Callable[[float, float], float]
    degradation: "Callable[[], Degradation]"
    testsets: Mapping[str, TestSet] = field(default_factory=dict)


def _noise() -> "Degradation":
    from spikingir.data.testsets import NOISE

    return NOISE


def _haze() -> "Degradation":
    from spikingir.data.testsets import HAZE

    return HAZE


DENOISE = Task(
    name="denoise",
    done="denoised",
    removes="noise",
    sigma_of="Gaussian noise",
    formations=("residual", "level", "identity"),
    default_models=("denoise-photo", "denoise-color", "denoise-gray-25"),
    conversion_rate=lambda psnr, ssim: psnr,
    degradation=_noise,
    testsets=NOISE_SETS,
)

DEHAZE = Task(
    name="dehaze",
    done="dehazed",
    removes="haze",
    sigma_of=None,
    formations=("atmospheric", "soft", "airlight"),
    default_models=("dehaze", "dehaze-aodnet"),
    conversion_rate=lambda psnr, ssim: (psnr + ssim) / 2,
    degradation=_haze,
    testsets=HAZE_SETS,
)

TASKS: Registry[Task] = Registry(
    "spikingir.tasks",
    "task",
    Task,
    lambda name, degradation, **options: Task(name=name, degradation=degradation, **options),
    {task.name: task for task in (DENOISE, DEHAZE)},
)
"""The tasks by name. One that is added here is known everywhere, on the command line if it is there before that is."""


RENAMED = {
    DEHAZE.name: "dehaze is a new network from this version on; the one of the paper, AOD-Net, is now dehaze-aodnet"
}
"""What the user of a model is told, for one version long, because its name stood for another network before."""


def task_of(formation: str) -> Task:
    """The task of an image formation, for a network that comes without a configuration.

    Raises:
        InputError: No task has it.
    """
    for _, task in TASKS.usable():
        if formation in task.formations:
            return task
    raise InputError(f"no task has the image formation {formation!r}; name the task in config.json")


def find_task(name: TaskName) -> Task:
    """The task of a name.

    Raises:
        InputError: There is none.
    """
    if name not in TASKS:
        raise InputError(f"the task is {name!r}; expected {' or '.join(TASKS)}")
    return TASKS[name]
