"""The public names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pgti

ROOT = Path(__file__).parents[1]


def test_public_names_are_the_documented_ones() -> None:
    """Each name exported by the package has a line in docs/api.md, and no other."""
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    source = (ROOT / "src/pgti/__init__.py").read_text()
    exported = re.findall(r"^ *from \S+ import (\w+) as \1$", source, re.MULTILINE)
    assert sorted(exported) == sorted(documented)
    for name in exported:
        assert getattr(pgti, name).__doc__
        assert name in dir(pgti)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SeriesStor'"):
        _ = pgti.SeriesStor  # type: ignore[attr-defined]


def test_what_looks_at_files_alone_does_not_import_torch() -> None:
    """`pgti info` answers at once: torch takes longer to import than all the rest."""
    imports = (
        "import sys, pgti.cli.main, pgti.cli.info, pgti.cli.ingest; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", imports], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
