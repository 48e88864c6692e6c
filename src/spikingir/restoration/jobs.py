"""Which photographs are meant, and where the result of each goes."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from spikingir.restoration.formats import SUFFIXES, Format, format_of_name
from spikingir.restoration.images import default_output

STREAM = "-"
"""Stands for stdin among the inputs, and for stdout as the output."""

COMPARISON = "compare"
"""What is added to the name of a result for the picture of before and after."""


class UsageError(ValueError):
    """Inputs and outputs that do not go together."""


@dataclass(frozen=True)
class Job:
    """One photograph to restore.

    Attributes:
        source: Its file; None is stdin.
        target: File of the result; None is stdout.
        format: Format of the result; by the suffix of the target unless given, on stdout that of the photograph.
        comparison: File of the picture of before and after, or None.
        makes_folder: Whether the folder of the result is made where it is missing.
        error: Why it cannot be restored, known beforehand; None where nothing speaks against it.
    """

    source: Path | None
    target: Path | None
    format: Format | None = None
    comparison: Path | None = None
    makes_folder: bool = False
    error: str | None = None

    @property
    def name(self) -> str:
        """What the user calls the photograph."""
        return STREAM if self.source is None else str(self.source)


@dataclass(frozen=True)
class _Found:
    """A photograph, its path within what the user named, and why it cannot be had."""

    source: Path | None
    within: Path
    error: str | None = None


def plan(
    inputs: Sequence[str], out: str | None, task: str, *, format: Format | None = None, compare: bool = False
) -> list[Job]:
    """The work that a command line asks for, in its order; folders and patterns in alphabetical order.

    Folders are searched with all that is below them, and the tree is kept. What lies there of earlier runs (results
    beside their photographs, and the folder ``out``) is left alone, and so are hidden files. No photograph is ever
    replaced, and no two results go to one file: such jobs carry an error.

    Args:
        inputs: Files, folders, patterns (``*``, ``?``, ``**``), or ``-`` for stdin.
        out: A folder where it is one, ends in a slash, or there are several inputs; else a file; ``-`` for stdout.
            Without it, results go beside the photographs, that of stdin to stdout.
        task: Word that is added to the names.
        format: Format of the results; that of the photographs unless given.
        compare: Whether pictures of before and after are made, as PNG files beside the results.

    Raises:
        UsageError: Inputs and outputs do not go together.
    """
    first: dict[Path | None, _Found] = {}
    for one in _find(inputs, out, task):
        first.setdefault(one.source and _place(one.source), one)
    found = list(first.values())
    several = len(found) > 1 or any(os.path.isdir(name) or _is_pattern(name) for name in inputs)
    folder = None
    if out not in (None, STREAM) and (several or out.endswith(("/", os.sep)) or os.path.isdir(out)):
        if os.path.lexists(Path(out)) and not os.path.isdir(out):
            raise UsageError(f"{out} is a file, but several results need a folder; give another with -o")
        folder = Path(out)
    elif out == STREAM and several:
        raise UsageError("several results cannot go to stdout; give a folder with -o")
    elif out not in (None, STREAM):
        named = format_of_name(Path(out))
        if format is not None and named not in (None, format):
            raise UsageError(f"{out} is named like a {named.name} file, but --format asks for {format.name}")
    photographs = {identity for one in found if (identity := _identity(one.source)) is not None}
    taken: dict[Path, str] = {}
    jobs = []
    for one in found:
        if one.error is not None:
            jobs.append(Job(one.source, None, error=one.error))
            continue
        target = _target(one, out, folder, task, format)
        comparison = target and target.with_name(f"{target.stem}_{COMPARISON}.png") if compare else None
        if compare and comparison is None:
            raise UsageError("--compare writes beside the result, which goes to stdout; give a file with -o")
        job = Job(one.source, target, format, comparison, folder is not None)
        for path in (target, comparison):
            if path is not None and job.error is None:
                job = replace(job, error=_objection(path, photographs, taken.get(_place(path))))
                taken.setdefault(_place(path), job.name)
        jobs.append(job)
    return jobs


def _target(one: _Found, out: str | None, folder: Path | None, task: str, format: Format | None) -> Path | None:
    if folder is not None:
        return folder / default_output(one.within, task, format)
    if out == STREAM or (out is None and one.source is None):
        return None
    return Path(out) if out is not None else default_output(one.source or one.within, task, format)


def _objection(path: Path, photographs: set[tuple[int, int]], owner: str | None) -> str | None:
    """What speaks against writing to ``path``."""
    if _identity(path) in photographs:
        return f"{path} is itself a photograph of these, and none is ever replaced; give another name with -o"
    if owner is not None:
        return f"{path} is where the result of {owner} goes; rename one of the two, or restore them apart"
    return None


def _place(path: Path) -> Path:
    """Where a path leads, whichever way it takes there; a file that is a link stays one."""
    return Path(os.path.realpath(path.parent), path.name)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """What a file has in common with all its names, if it is there."""
    try:
        status = os.stat(path) if path is not None else None
    except OSError:
        return None
    return status and (status.st_dev, status.st_ino)


def _find(inputs: Sequence[str], out: str | None, task: str) -> Iterator[_Found]:
    for name in inputs:
        path = Path(name)
        if name == STREAM:
            yield _Found(None, Path("stdin"))
        elif not name:
            yield _Found(path, path, "an empty name was given; name a photograph")
        elif os.path.isdir(name):
            yield from _in_folder(path, out, task)
        elif _is_pattern(name):
            yield from _matching(name, out, task)
        else:
            yield _Found(path, Path(path.name))


def _is_pattern(name: str) -> bool:
    return glob.escape(name) != name and not os.path.lexists(name)


def _matching(pattern: str, out: str | None, task: str) -> Iterator[_Found]:
    base = Path(*takewhile(lambda part: glob.escape(part) == part, Path(pattern).parts))
    files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(name)]
    results = None if out is None else Path(os.path.realpath(out))
    if results in _place(base / "*").parents:  # a pattern within that folder names what lies there
        results = None
    found = [
        _Found(path, path.relative_to(base))
        for path in files
        if not _is_result(path, task) and results not in _place(path).parents
    ]
    yield from found or [_Found(Path(pattern), Path(), "no photograph matches this pattern; check the path")]


def _in_folder(folder: Path, out: str | None, task: str) -> Iterator[_Found]:
    errors: list[OSError] = []
    results = None if out is None else os.path.realpath(out)
    empty = True
    for here, folders, names in os.walk(folder, onerror=errors.append):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and os.path.realpath(os.path.join(here, name)) != results
        )
        for path in (Path(here, name) for name in sorted(names) if name[0] != "."):
            if path.suffix.lower() in SUFFIXES and not _is_result(path, task):
                empty = False
                yield _Found(path, path.relative_to(folder))
    for error in errors:
        yield _Found(Path(error.filename), Path(), f"the folder cannot be searched ({error.strerror})")
    if empty and not errors:
        known = ", ".join(SUFFIXES)
        yield _Found(folder, Path(), f"the folder holds no photographs; expected files that end in one of {known}")


def _is_result(path: Path, task: str) -> bool:
    """Whether a file is the result of an earlier run, beside its photograph."""
    for ending in (f"_{task}", f"_{task}_{COMPARISON}"):
        bare = path.stem.removesuffix(ending)
        if bare != path.stem and any(
            other.suffix.lower() in SUFFIXES for other in path.parent.glob(f"{glob.escape(bare)}.*")
        ):
            return True
    return False
