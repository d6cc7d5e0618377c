"""JSON that people can read: an entry a line, and a list on one line."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["json_text"]


def json_text(content: Mapping[str, Any]) -> bytes:
    """Content of a JSON file.

    Raises:
        ValueError: if a number is not finite.
    """
    return f"{_indented(content, '')}\n".encode()


def _indented(value: Any, indent: str) -> str:
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, allow_nan=False)
    inner = f"{indent}  "
    entries = (f"{inner}{json.dumps(key)}: {_indented(each, inner)}" for key, each in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
