"""Where a store may be written: nowhere but where nothing is, or another store."""

import json
import os
from pathlib import Path

from pgti.errors import PARSER_ERRORS, StoreError, machine_fault, option
from pgti.store.meta import META_FILE

__all__ = ["check_target"]


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse to write a store where something exists; `overwrite` accepts another store.

    Raises:
        StoreError: naming the path.
    """
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise StoreError(
            f"{path} exists already: choose another name, remove it, or pass "
            f"{option('overwrite', value=True)}"
        )
    if not _is_store(path):
        raise StoreError(f"{path} is not a store: choose another name; only stores are overwritten")


def _is_store(path: Path) -> bool:
    """Whether the directory holds a description with a format version, damaged or not."""
    try:
        content = json.loads((path / META_FILE).read_text(encoding="utf-8"))
    except PARSER_ERRORS as error:
        if fault := machine_fault(error):
            raise StoreError(f"{path} cannot be read: {fault}") from None
        return False
    return isinstance(content, dict) and "format_version" in content
