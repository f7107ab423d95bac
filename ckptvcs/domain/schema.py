"""How `ckpt.yaml` is checked: it becomes the values of `policy`, or a complaint that names the key."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ckptvcs.domain.policy import Config


class Malformed(ValueError):
    """A key or value is wrong; `location` is the path of the key."""

    def __init__(self, location: tuple[Any, ...], why: str) -> None:
        super().__init__(why)
        self.location = location
        self.why = why


def parse(document: Any) -> Config:
    """Check a document and return its values.

    Raises:
        Malformed: something in it is wrong.
    """
    try:
        # By way of JSON, because what is strict for JSON is what is strict for YAML: dates and such become text.
        return TypeAdapter(Config).validate_json(json.dumps(document, default=str))
    except (TypeError, RecursionError) as err:
        raise Malformed((), f"it holds what JSON has not: {err}") from err
    except ValidationError as err:
        first = err.errors()[0]
        raise Malformed(first["loc"], first["msg"].removeprefix("Value error, ")) from err
