"""One value in a YAML file of the user, changed in place: comments, order and quotes stay as they are."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from ckptvcs.storage.plain_yaml import plain_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence


def with_value(text: str, path: Sequence[str], value: Any) -> str:
    """The text of a document in which one key has a value.

    Args:
        text: the document; it may be empty.
        path: the keys that lead to the value; mappings that are missing are made.
        value: the value; None takes the key away, and mappings that are empty then.

    Raises:
        ValueError: it is no mapping on the way, or cannot be changed without changing more.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    expected = _changed(plain_yaml(text) or {}, path, value)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 16
    yaml.indent(mapping=_indent(text))
    try:
        document = yaml.load(text)
        if document is None:
            return _appended(text, yaml, expected)
        _change(document, path, value)
        written = StringIO()
        yaml.dump(document, written)
    except YAMLError as err:
        raise ValueError(str(err)) from err
    return _checked(written.getvalue(), expected)


def _indent(text: str) -> int:
    """By how much the user indents: as the first line that is indented."""
    blanks = (
        len(line) - len(line.lstrip(" ")) for line in text.splitlines() if line.lstrip(" ")[:1] not in ("", "#", "-")
    )
    return next((count for count in blanks if count), 2)


def _appended(text: str, yaml: Any, expected: Any) -> str:
    """A document without any value may have comments all the same."""
    written = StringIO()
    if expected:
        yaml.dump(expected, written)
    start = text if not text or text.endswith("\n") else f"{text}\n"
    return _checked(start + written.getvalue(), expected)


def _checked(text: str, expected: Any) -> str:
    if (plain_yaml(text) or {}) != expected:
        raise ValueError("it cannot be changed without changing more than that")
    return text


def _changed(document: Any, path: Sequence[str], value: Any) -> Any:
    """The same with plain values: what has to come out."""
    if not isinstance(document, dict):
        raise ValueError("it is no mapping")
    key, rest = path[0], path[1:]
    inner = _changed(document.get(key) or {}, rest, value) if rest else value
    kept = {name: one for name, one in document.items() if name != key}
    return kept if inner is None or inner == {} else {**kept, key: inner}


def _change(document: Any, path: Sequence[str], value: Any) -> None:
    key, rest = path[0], path[1:]
    if rest:
        if not document.get(key):
            document[key] = {}
        _change(document[key], rest, value)
        if not document[key]:
            del document[key]
    elif value is None:
        document.pop(key, None)
    else:
        document[key] = value
