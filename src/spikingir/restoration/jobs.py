"""Which photographs are meant, and where the result of each goes."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path

from spikingir.errors import UsageError
from spikingir.files import Identity, OutputError, check_replaceable, identities, require_file
from spikingir.photo.formats import EXPECTED_NAME, SUFFIXES, Format, format_of_name
from spikingir.photo.images import default_output

STREAM = "-"
"""Stands for stdin among the inputs, and for stdout as the output."""

COMPARISON = "compare"
"""What is added to the name of a result for the picture of before and after."""


@dataclass(frozen=True)
class Job:
    """One photograph to restore.

    Attributes:
        source: Its file; None is stdin.
        target: File of the result; None is stdout.
        format: Format of the result; by the suffix of the target unless given, on stdout that of the photograph.
        comparison: File of the picture of before and after, or None.
        named: Whether the user named the file of the result, so that what is there is not known to be one.
        makes_folder: Whether the folder of the result is made where it is missing.
        error: Why it cannot be restored, known beforehand; None where nothing speaks against it.
    """

    source: Path | None
    target: Path | None
    format: Format | None = None
    comparison: Path | None = None
    makes_folder: bool = False
    error: str | None = None
    named: bool = False

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
    inputs: Sequence[str],
    out: str | None,
    word: str,
    *,
    format: Format | None = None,
    compare: bool = False,
    keep: Iterable[Path] = (),
    note: Callable[[str], object] = lambda text: None,
) -> list[Job]:
    """The work that a command line asks for, in its order; folders and patterns in alphabetical order.

    Folders are searched with all that is below them, and the tree is kept. What lies there of earlier runs (results
    beside their photographs, and the folder ``out``) is left alone. Whatever else is passed over is told: files that
    do not end like a photograph, hidden ones, and links to folders, which are not followed. No photograph is ever
    replaced, and no two results go to one file: such jobs carry an error.

    Args:
        inputs: Files, folders, patterns (``*``, ``?``, ``**``), or ``-`` for stdin.
        out: A folder where it is one, ends in a slash, or there are several inputs; else a file; ``-`` for stdout.
            Without it, results go beside the photographs, that of stdin to stdout.
        word: Word that is added to the names.
        format: Format of the results; that of the photographs unless given.
        compare: Whether pictures of before and after are made, as PNG files beside the results.
        keep: Other files that are read, such as those of the model: no result goes there.
        note: Told in a sentence what is passed over.

    Raises:
        UsageError: Inputs and outputs do not go together.
    """
    first: dict[Path | None, _Found] = {}
    search = _Search(word, out)
    for one in search.find(inputs):
        first.setdefault(one.source and place(one.source), one)
    found = list(first.values())
    for name, passed in search.skipped.items():
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(passed.items()))
        note(f"{name}: passed over {what}; photographs end in one of {', '.join(SUFFIXES)}")
    several = len(found) > 1 or any(os.path.isdir(name) or _is_pattern(name) for name in inputs)
    folder = None
    if out not in (None, STREAM) and (several or out.endswith(("/", os.sep)) or os.path.isdir(out)):
        if os.path.lexists(Path(out)) and not os.path.isdir(out):
            raise UsageError(f"{out} is a file, but several results need a folder; give another with -o")
        if not os.path.isdir(out) and not out.endswith(("/", os.sep)) and format_of_name(Path(out)) is not None:
            raise UsageError(
                f"{out} is named like one photograph, but several results need a folder; end its name in /"
            )
        folder = Path(out)
    elif out == STREAM and several:
        raise UsageError("several results cannot go to stdout; give a folder with -o")
    elif out not in (None, STREAM):
        named = format_of_name(Path(out))
        if format is None and named is None:
            raise UsageError(f"{out} cannot be written; {EXPECTED_NAME}, or in / for a folder")
        if format is not None and named not in (None, format):
            raise UsageError(f"{out} is named like a {named.name} file, but --format asks for {format.name}")
    read = identities([*(one.source for one in found if one.source is not None), *keep])
    taken: dict[Path, str] = {}
    jobs = []
    for one in found:
        if one.error is not None:
            jobs.append(Job(one.source, None, error=one.error))
            continue
        target = _target(one, out, folder, word, format)
        comparison = target and target.with_name(f"{target.stem}_{COMPARISON}.png") if compare else None
        if compare and comparison is None:
            raise UsageError("--compare writes beside the result, which goes to stdout; give a file with -o")
        job = Job(one.source, target, format, comparison, folder is not None, named=out is not None and folder is None)
        for path in (target, comparison):
            if path is not None and job.error is None:
                job = replace(job, error=_objection(path, read, taken.get(place(path))))
                taken.setdefault(place(path), job.name)
        jobs.append(job)
    return jobs


def _target(one: _Found, out: str | None, folder: Path | None, word: str, format: Format | None) -> Path | None:
    if folder is not None:
        return folder / default_output(one.within, word, format)
    if out == STREAM or (out is None and one.source is None):
        return None
    return Path(out) if out is not None else default_output(one.source or one.within, word, format)


def _objection(path: Path, read: frozenset[Identity], owner: str | None) -> str | None:
    """What speaks against writing to ``path``."""
    try:
        check_replaceable(path, read)
    except OutputError as error:
        return str(error)
    if owner is not None:
        return f"{path} is where the result of {owner} goes; rename one of the two, or restore them apart"
    return None


def place(path: Path) -> Path:
    """Where a path leads, whichever way it takes there; a file that is a link stays one."""
    return Path(os.path.realpath(path.parent), path.name)


class _Search:
    """Finds the photographs that are meant; every folder is listed once, so that the work is linear in the files.

    Attributes:
        skipped: What was passed over, counted by kind, for each input.
    """

    def __init__(self, word: str, out: str | None) -> None:
        self.skipped: dict[str, Counter[str]] = {}
        self._endings = (f"_{word}", f"_{word}_{COMPARISON}")
        self._results = None if out in (None, STREAM) else os.path.realpath(out)
        self._stems = cache(_stems)  # for one search: files come and go

    def find(self, inputs: Sequence[str]) -> Iterator[_Found]:
        """All that is meant, in the order of the inputs; some perhaps twice."""
        for name in inputs:
            path = Path(name)
            if name == STREAM:
                yield _Found(None, Path("stdin"))
            elif not name:
                yield _Found(path, path, "an empty name was given; name a photograph")
            elif os.path.isdir(name):
                yield from self._in_folder(path)
            elif _is_pattern(name):
                yield from self._matching(name)
            else:
                yield _checked(path, Path(path.name))

    def _matching(self, pattern: str) -> Iterator[_Found]:
        base = Path(*takewhile(lambda part: glob.escape(part) == part, Path(pattern).parts))
        within = os.path.realpath(base)
        # a pattern within the folder of the results names what lies there
        results = None if self._results is None or _is_below(within, self._results) else self._results
        found = []
        for path in map(Path, _matches(pattern)):
            if os.path.isdir(path):
                if "**" not in pattern:
                    self._skip(pattern, "folders")
            elif not self._is_result(path) and (results is None or not _is_below(_folder(path), results)):
                found.append(_checked(path, path.relative_to(base)))
        yield from found or [_Found(Path(pattern), Path(), "no photograph matches this pattern; check the path")]

    def _in_folder(self, folder: Path) -> Iterator[_Found]:
        errors: list[OSError] = []
        empty = True
        for here, folders, names in os.walk(folder, onerror=errors.append):
            kept = []
            for name in sorted(folders):
                below = os.path.join(here, name)
                if name[0] == ".":
                    self._skip(str(folder), "hidden")
                elif os.path.islink(below):
                    self._skip(str(folder), "links to folders")
                elif self._results is None or os.path.realpath(below) != self._results:
                    kept.append(name)
            folders[:] = kept
            for path in (Path(here, name) for name in sorted(names)):
                if path.name[0] == ".":
                    self._skip(str(folder), "hidden")
                elif path.suffix.lower() not in SUFFIXES:
                    self._skip(str(folder), path.suffix.lower() or "without an ending")
                elif not self._is_result(path):
                    empty = False
                    yield _checked(path, path.relative_to(folder))
        for error in errors:
            yield _Found(Path(error.filename), Path(), f"the folder cannot be searched ({error.strerror})")
        if empty and not errors:
            known = ", ".join(SUFFIXES)
            yield _Found(folder, Path(), f"the folder holds no photographs; expected files that end in one of {known}")

    def _skip(self, place: str, kind: str) -> None:
        self.skipped.setdefault(place, Counter())[kind] += 1

    def _is_result(self, path: Path) -> bool:
        """Whether a file is the result of an earlier run, beside its photograph."""
        for ending in self._endings:
            bare = path.stem.removesuffix(ending)
            if bare != path.stem and bare in self._stems(path.parent):
                return True
        return False


def _stems(folder: Path) -> frozenset[str]:
    """Names of a folder's photographs before the suffix."""
    try:
        return frozenset(
            stem for stem, suffix in map(os.path.splitext, os.listdir(folder)) if suffix.lower() in SUFFIXES
        )
    except OSError:
        return frozenset()


def _checked(path: Path, within: Path) -> _Found:
    """A photograph, unless it is a file of a kind that reading would wait for, or a link that leads nowhere."""
    try:
        require_file(path)
    except PermissionError:  # reading says it, with what to do
        pass
    except OSError as error:
        return _Found(path, within, f"{error.strerror}; give a file, or pipe the photograph in and name it {STREAM}")
    return _Found(path, within)


def _is_pattern(name: str) -> bool:
    return glob.escape(name) != name and not os.path.lexists(name)


def _matches(pattern: str) -> list[str]:
    """What a pattern matches, in order.

    ``**`` is any folder below; links, which may lead in circles, are not followed there.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        return sorted(glob.glob(pattern))
    at = parts.index("**")
    rest = tuple(dropwhile(lambda part: part == "**", parts[at:])) or ("*",)
    found: set[str] = set()
    for head in glob.glob(str(Path(*parts[:at]))) if at else ["."]:
        for here, folders, _ in os.walk(head):
            folders[:] = [name for name in folders if name[0] != "."]
            found.update(_matches(str(Path(glob.escape(here), *rest))))
    return sorted(found)


def _folder(path: Path) -> str:
    return os.path.realpath(path.parent)


def _is_below(folder: str, other: str) -> bool:
    """Whether a folder is another one or lies within it."""
    return folder == other or folder.startswith(other.rstrip(os.sep) + os.sep)
