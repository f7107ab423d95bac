"""How `ckpt.yaml` is checked: it becomes the values of `policy`, or a complaint that names the key."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import typing
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from ckptvcs.domain.policy import Config, Save
from ckptvcs.domain.policy_values import BadValue

T = TypeVar("T", Config, Save)


class Malformed(ValueError):
    """A key or value is wrong; `location` is the path of the key."""

    def __init__(self, location: tuple[Any, ...], why: str) -> None:
        super().__init__(why)
        self.location = location
        self.why = why


def parse(document: Any) -> Config:
    """Check the document that `ckpt.yaml` holds and return its values.

    Raises:
        Malformed: something in it is wrong.
    """
    return _parse(document, Config)


def parse_save(document: Any) -> Save:
    """Check a policy of saves that was given as plain values, as under the key `save` of `ckpt.yaml`.

    Raises:
        Malformed: something in it is wrong.
    """
    return _parse(document, Save)


def _parse(document: Any, cls: type[T]) -> T:
    try:
        # By way of JSON, because what is strict for JSON is what is strict for YAML: dates and such become text.
        adapter = _adapter(cls)  # type: ignore[arg-type]  # mypy takes the hash of its values for that of the class
        found: T = adapter.validate_json(json.dumps(_written_out(document, cls), default=str))
    except (TypeError, RecursionError) as err:
        raise Malformed((), f"it holds what JSON has not: {err}") from err
    except ValidationError as err:
        raise _malformed(err) from err
    return found


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)  # to make one takes longer than to use it


def _malformed(err: ValidationError) -> Malformed:
    errors = err.errors()
    # A misspelt key is also one that is missing: the spelling is what to mend.
    first = next((one for one in errors if one["type"] == _UNKNOWN), errors[0])
    cause = first.get("ctx", {}).get("error")
    key = (cause.key,) if isinstance(cause, BadValue) else ()
    why = first["msg"].removeprefix("Value error, ")
    if first["type"] == _UNKNOWN:
        similar = difflib.get_close_matches(str(first["loc"][-1]), sorted(_keys(Config)), n=1)
        why = f"there is no such key; did you mean '{similar[0]}'?" if similar else "there is no such key"
    return Malformed(
        (*first["loc"], *key), why.replace("an object", "a section with keys").replace("valid array", "list")
    )


_UNKNOWN: Final = "unexpected_keyword_argument"


def _keys(cls: Any) -> set[str]:
    """The keys of a section and of those in it."""
    kinds = typing.get_type_hints(cls)
    inner = [
        kind for field in kinds.values() for kind in (field, *typing.get_args(field)) if dataclasses.is_dataclass(kind)
    ]
    return {field.name for field in dataclasses.fields(cls)}.union(*(_keys(kind) for kind in inner))


def _written_out(document: Any, cls: type) -> Any:
    """The document with what stands there in short, such as `interval: auto`, written out."""
    if not isinstance(document, dict):
        return document
    written, kinds = dict(document), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name in document:
            written[field.name] = _value_written_out(document[field.name], field, kinds[field.name])
    return written


def _value_written_out(value: Any, field: dataclasses.Field[Any], kind: Any) -> Any:
    for short, long in field.metadata["short"]:
        if value is short or (isinstance(value, str) and value == short):
            return long
    section = next((k for k in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(k)), None)
    return value if section is None else _written_out(value, section)  # type: ignore[arg-type]
