"""JSON that people can read: an entry a line, and a list on one line; and reading it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgti.errors import PARSER_ERRORS, PgtiError

__all__ = ["json_text", "parse_json_object"]


def json_text(content: Mapping[str, Any]) -> bytes:
    """Content of a JSON file.

    Raises:
        ValueError: if a number is not finite.
    """
    return f"{_indented(content, '')}\n".encode()


def parse_json_object(text: str, path: Path, error_type: type[PgtiError]) -> dict[str, Any]:
    """The object that a text of a file holds.

    Args:
        text: of the file, or a line of it.
        path: of the file, for messages.
        error_type: of what is raised.

    Raises:
        PgtiError: if it is anything else.
    """
    try:
        content = json.loads(text)
    except PARSER_ERRORS as error:
        raise error_type(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise error_type(f"{path} is damaged: it is not a JSON object")
    return content


def _indented(value: Any, indent: str) -> str:
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, allow_nan=False)
    inner = f"{indent}  "
    entries = (f"{inner}{json.dumps(key)}: {_indented(each, inner)}" for key, each in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
