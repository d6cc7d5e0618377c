"""Packages that import their names when they are first used."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
LAZY = [
    ".".join(init.parent.relative_to(SOURCE).parts)
    for init in sorted(SOURCE.rglob("__init__.py"))
    if "= lazy_names(__name__)" in init.read_text()
]


@pytest.mark.parametrize("package", LAZY)
def test_every_name_is_there_and_hides_no_module(package: str) -> None:
    module = import_module(package)
    modules = {path.stem for directory in module.__path__ for path in Path(directory).iterdir()}
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is getattr(module, name)
        assert name in dir(module)
        assert name not in modules, f"the module {package}.{name} would stand in its place"


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'pgti\.run' has no attribute 'Rune'"):
        _ = import_module("pgti.run").Rune


def test_importing_pgti_and_its_options_imports_no_large_library() -> None:
    imports = (
        "import sys, pgti, pgti.run.config, pgti.ingestion.options, pgti.datasets.options;"
        "print({'torch', 'pandas', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", imports], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
