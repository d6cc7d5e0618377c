"""The public names."""

import pkgutil
import pydoc
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import pgti
from pgti.models import MODELS

ROOT = Path(__file__).parents[1]


def test_public_names_are_the_documented_ones() -> None:
    """Each name exported by the package has a line in docs/api.md, and no other."""
    cells = re.findall(r"^\| (`.+?) \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    documented = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(pgti.__all__) == sorted(documented)
    for name in pgti.__all__:
        assert getattr(pgti, name).__doc__
        assert name in dir(pgti)


def test_every_model_is_exported() -> None:
    own = [each for each in MODELS.values() if each.model.__module__.startswith("pgti.models.")]
    for entry in own:
        assert getattr(pgti, entry.model.__name__) is entry.model
        assert getattr(pgti, entry.config.__name__) is entry.config


def test_no_public_name_hides_a_package() -> None:
    packages = {each.name for each in pkgutil.iter_modules(pgti.__path__)}
    assert not packages & set(pgti.__all__)


def test_a_star_import_brings_the_public_names_alone() -> None:
    names: dict[str, object] = {}
    exec("from pgti import *", names)
    assert set(names) - {"__builtins__"} == set(pgti.__all__)


def test_help_lists_the_public_names() -> None:
    text = pydoc.render_doc(pgti, renderer=pydoc.plaintext)
    for name in ("train(", "class Run", "class SeriesStore", "class STID("):
        assert name in text
    assert pgti.__version__ == version("pgti")


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
