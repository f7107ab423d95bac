"""YAML of strangers: plain values only, and no aliases, which name themselves or expand without end."""

from __future__ import annotations

from typing import Any


def plain_yaml(data: str | bytes) -> Any:
    """Parse a document.

    Raises:
        ValueError: it is no YAML, uses aliases, or is nested too deeply; a `yaml.YAMLError` is its cause if it has a place.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("aliases are not read")
            return super().compose_node(parent, index)

    try:
        return yaml.load(data, Loader)
    except yaml.YAMLError as err:
        raise ValueError(str(err)) from err
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err
