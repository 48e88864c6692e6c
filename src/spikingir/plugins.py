"""What the package knows by name, and what other packages add to it.

A registry is a dictionary of records. A package of one's own adds to it by an entry point in its ``pyproject.toml``,
which names a record, or a class or function that is decorated by :meth:`Registry.register`::

    [project.entry-points."spikingir.neurons"]
    loud = "my_package.neurons:LoudNeuron"

Names are known without an import; a package is imported when what it adds is asked for. In a program of one's own the
decorator, or an assignment, is enough.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from spikingir.errors import SpikingIRError

Record = TypeVar("Record")
Decorated = TypeVar("Decorated")


class PluginError(SpikingIRError):
    """What another package adds cannot be used; the text names it and the package."""


class Registry(MutableMapping[str, Record], Generic[Record]):
    """Records by name: the package's own, those that were registered, and those of entry points.

    ``registry[name]`` imports the package that adds the record; names alone import nothing.

    Args:
        group: Group of the entry points.
        what: What a record stands for, in words.
        kind: Class of the records.
        make: Makes a record of a name and of what :meth:`register` decorates, with its options.
        own: The package's own records.

    Raises:
        PluginError: From ``registry[name]`` and what reads all records: the package that adds it cannot be imported,
            or adds something else.
    """

    def __init__(
        self, group: str, what: str, kind: type[Record], make: Callable[..., Record], own: Mapping[str, Record]
    ) -> None:
        self._group, self._what, self._kind, self._make = group, what, kind, make
        self._records = dict(own)
        self._told: set[str] = set()

    def register(self, name: str, **options: Any) -> Callable[[Decorated], Decorated]:
        """Decorator that adds a class or a function under a name.

        Args:
            name: The name.
            **options: What else the record has, by the names of its attributes.

        Raises:
            PluginError: The name is taken.
        """

        def add(decorated: Decorated) -> Decorated:
            if name in self._records:
                raise PluginError(f"there is a {self._what} {name!r} already; choose another name")
            self[name] = self._make(name, decorated, **options)
            return decorated

        return add

    @property
    def added(self) -> tuple[str, ...]:
        """Names that other packages add, loaded or not."""
        return tuple(self._entry_points)

    @property
    def loaded(self) -> Mapping[str, Record]:
        """Records that are there without an import."""
        return MappingProxyType(self._records)

    def usable(self) -> Iterator[tuple[str, Record]]:
        """Names and records, the package's own first; of a broken one a warning is logged, once."""
        for name in self:
            try:
                yield name, self[name]
            except PluginError as error:
                self._tell(str(error))

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=self._group), key=lambda point: point.name):
            taken = _package(found[point.name]) if point.name in found else "SpikingIR"
            if point.name in found or point.name in self._records:
                self._tell(
                    f"the package {_package(point)} adds the {self._what} {point.name!r}, which {taken} has already; "
                    "it is left out"
                )
            else:
                found[point.name] = point
        return found

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            logging.getLogger(__name__).warning(sentence)

    def __getitem__(self, name: str) -> Record:
        if name not in self._records and name in self._entry_points:
            self._load(self._entry_points[name])
        return self._records[name]

    def _load(self, point: EntryPoint) -> None:
        what = f"the {self._what} {point.name!r} of the package {_package(point)} ({point.value})"
        try:
            found = point.load()
        except Exception as error:  # whatever the code of others raises when it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(f"{what} cannot be loaded: {reason}; mend or uninstall that package") from error
        if isinstance(found, self._kind):
            self[point.name] = found
        elif point.name not in self._records:  # where it is decorated, the import has registered it
            raise PluginError(
                f"{what} is a {type(found).__name__}; expected a {self._kind.__name__}, or what is registered by that "
                "name"
            )

    def __setitem__(self, name: str, record: Record) -> None:
        if not isinstance(record, self._kind):
            raise TypeError(f"{name!r} is a {type(record).__name__}; expected a {self._kind.__name__}")
        if (own := getattr(record, "name", name)) != name:
            raise PluginError(f"the {self._what} {name!r} has the name {own!r} of its own; give it one name")
        self._records[name] = record

    def __delitem__(self, name: str) -> None:
        del self._records[name]

    def __contains__(self, name: object) -> bool:
        return name in self._records or name in self._entry_points

    def __iter__(self) -> Iterator[str]:
        points = self._entry_points
        yield from [*self._records, *(name for name in points if name not in self._records)]

    def __len__(self) -> int:
        return len(list(iter(self)))


def _package(point: EntryPoint) -> str:
    return "unknown" if point.dist is None else point.dist.name
