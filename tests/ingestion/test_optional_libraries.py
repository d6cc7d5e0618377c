"""Formats whose library is not installed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pgti.errors import MissingExtraError
from pgti.ingestion import ingest


@pytest.mark.parametrize(("library", "suffix", "extra"), [("h5py", ".h5", "hdf5")])
def test_missing_library_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, suffix: str, extra: str
) -> None:
    """The message says what to install; nothing else of ingest needs the library."""
    monkeypatch.setitem(sys.modules, library, None)  # importing it now fails
    (tmp_path / f"a{suffix}").write_bytes(b"content")
    with pytest.raises(MissingExtraError, match=rf"{library} .*pgti\[{extra}\]"):
        ingest(tmp_path / f"a{suffix}", tmp_path / "s")
    ingest(np.ones((3, 2)), tmp_path / "s")
