"""Where the peer is: PyTorch Geometric Temporal (PGT) lives in an environment of its own."""

from collections.abc import Sequence
from pathlib import Path

from pgti.errors import ConfigError

__all__ = ["DEFAULT_PGT", "NO_PGT", "PGT_VARIANTS", "find_pgt", "pgt_command"]

DEFAULT_PGT = Path(".venv-pgt/bin/python")
NO_PGT = f"PGT: there is no {DEFAULT_PGT} here; `make bench-pgt` installs it"

PGT_VARIANTS = {"PGT": False, "PGT, freed memory kept": True}
"""As its users run it, and with the allocator set as this library sets its own: name, and whether
freed memory is kept for the next step."""


def find_pgt(path: Path | None) -> Path | None:
    """The interpreter of PGT's environment; None where none is named and none is here.

    Args:
        path: the interpreter, if the user named one.

    Raises:
        ConfigError: if the one named does not exist.
    """
    if path is None:
        return DEFAULT_PGT if DEFAULT_PGT.is_file() else None
    if not path.is_file():
        raise ConfigError(
            f"pgt is {path}, which is no file: name the Python interpreter of an environment "
            "with torch-geometric-temporal, as `make bench-pgt` builds it"
        )
    return path


def pgt_command(python: Path) -> Sequence[str]:
    """How to start the process that runs PGT: isolated from this one's Python settings."""
    # Absolute, but not resolved: a virtual environment's interpreter is a link.
    return [str(python.absolute()), "-I", str(Path(__file__).with_name("pgt_worker.py"))]
