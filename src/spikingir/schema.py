"""Checked data: a frozen dataclass says which keys a table has, of which type and range, and nothing else passes.

Recipes (TOML) and the headers of weights files (JSON) are read through it. ``Annotated[int, Range(1, 8)]`` is a number
with bounds, ``Annotated[str, Name()]`` one that may name a file. A field with a default is an optional key.
"""

import difflib
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from spikingir.errors import InputError

Data = TypeVar("Data")


class SchemaError(InputError):
    """Data that does not fit its schema; the text names the key and says what was expected."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number; ``least`` and ``most`` belong to it unless they are open."""

    least: float
    most: float
    open_least: bool = False
    open_most: bool = False

    def require(self, value: Any, where: str) -> None:
        """Refuse a number outside."""
        low = value > self.least if self.open_least else value >= self.least
        high = value < self.most if self.open_most else value <= self.most
        if not (low and high):
            raise SchemaError(f"{where} is {shown(value)}; expected a number {self}")

    def __str__(self) -> str:
        start = f"above {self.least:g}" if self.open_least else f"from {self.least:g}"
        return f"{start} to below {self.most:g}" if self.open_most else f"{start} to {self.most:.10g}"


@dataclass(frozen=True)
class Name:
    """A text that names one file or folder and cannot lead out of the folder that it is in."""

    longest = 100

    def require(self, value: Any, where: str) -> None:
        """Refuse separators, control characters, a leading dot and what is too long."""
        if not value or len(value) > self.longest or value.startswith(".") or re.search(r"[/\\:\x00-\x1f\x7f]", value):
            raise SchemaError(
                f"{where} is {shown(value)}; expected a name of 1 to {self.longest} characters that does not start "
                "with a dot and has no /, \\, : or control character"
            )


def nearest(word: object, known: Iterable[str]) -> str:
    """What to add to a complaint about an unknown word: the nearest known one, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.65)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"


def shown(value: object) -> str:
    """A value as it stands in a sentence, cut where it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    try:
        return short.repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"


def parse(kind: type[Data], table: object, where: str, **given: Any) -> Data:
    """A dataclass from a table, checked throughout.

    Args:
        kind: The dataclass.
        table: What TOML or JSON gave.
        where: Place of the table, for messages; empty for the whole.
        **given: Fields that the table does not hold, as they are.

    Raises:
        SchemaError: An unknown or missing key; a value of another type, out of range or not finite; what the
            dataclass itself refuses.
    """
    if not isinstance(table, Mapping):
        raise SchemaError(f"{where or 'it'} is {shown(table)}; expected a table")
    hints = get_type_hints(kind, include_extras=True)
    known = [field for field in fields(kind) if field.init and field.name not in given]  # type: ignore[arg-type]
    names = [field.name for field in known]
    prefix = f"{where}: " if where else ""
    for key in table:
        if key not in names:
            raise SchemaError(f"{prefix}unknown key {shown(key)}{nearest(key, names)}")
    for field in known:
        if field.name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise SchemaError(f"{prefix}the key {field.name!r} is missing")
    values = {key: check(hints[key], value, _within(where, key)) for key, value in table.items()}
    try:
        return kind(**values, **given)
    except InputError as error:  # what the dataclass checks beyond types and ranges
        raise SchemaError(f"{prefix}{error}") from None


def require_valid(data: object) -> None:
    """Check every field of a dataclass that was made by hand, as :func:`parse` does.

    Raises:
        SchemaError: As there.
    """
    hints = get_type_hints(type(data), include_extras=True)
    for field in fields(data):  # type: ignore[arg-type]
        check(hints[field.name], getattr(data, field.name), field.name)


def check(kind: Any, value: Any, where: str) -> Any:
    """A value of a type, checked; lists become tuples, whole numbers floats, tables dataclasses.

    Raises:
        SchemaError: As :func:`parse`.
    """
    kind, limits = _parted(kind)
    alternatives = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for one in alternatives:
        base, own = _parted(one)
        fits, found = _fitted(base, value, where)
        if fits:
            for limit in (*own, *limits):
                limit.require(found, where)
            return found
    wanted = " or ".join(_in_words(_parted(one)[0]) for one in alternatives if one is not NoneType)
    raise SchemaError(f"{where} is {shown(value)}; expected {wanted}")


def _fitted(kind: Any, value: Any, where: str) -> tuple[bool, Any]:
    """Whether a value is of a type, and the value as that type has it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True, value
    if kind is NoneType:
        return value is None, None
    if is_dataclass(kind):
        if isinstance(value, Mapping):
            return True, parse(kind, value, where)  # type: ignore[arg-type]
        return isinstance(value, kind), value  # type: ignore[arg-type]
    if origin is Literal:
        same = [known for known in arguments if type(known) is type(value)]
        if same and value not in same:
            raise SchemaError(f"{where} is {shown(value)}; expected {_in_words(kind)}")
        return bool(same), value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False, value
        if Ellipsis not in arguments and len(value) != len(arguments):
            raise SchemaError(f"{where} is {shown(value)}; expected a list of {len(arguments)}")
        kinds = (arguments[0],) * len(value) if Ellipsis in arguments else arguments
        return True, tuple(check(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is Mapping:
        return isinstance(value, Mapping), value
    if kind is float and type(value) in (int, float):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise SchemaError(f"{where} is {shown(value)}; expected a finite number")
        return True, found
    return type(value) is kind, value


def _parted(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type and its limits."""
    if get_origin(kind) is Annotated:
        base, *limits = get_args(kind)
        return base, tuple(limits)
    return kind, ()


def _within(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _in_words(kind: Any) -> str:
    """What a type is called in a sentence."""
    origin = get_origin(kind)
    if is_dataclass(kind) or origin is Mapping:
        return "a table"
    if origin is tuple:
        return "a list"
    if origin is Literal:
        return ", ".join(map(str, get_args(kind)))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, str(kind))
