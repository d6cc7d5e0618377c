"""Names of a package that are imported when they are first used.

Torch and pandas take longer to import than most commands take to run, so a package from which
others import can defer its own imports:

    if TYPE_CHECKING:
        from pgti.run.run import Run as Run
    else:
        __getattr__, __dir__, __all__ = lazy_names(__name__)
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]

LazyNames = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def lazy_names(package: str) -> LazyNames:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the imports that it defers.

    Those are the imports below `if TYPE_CHECKING` in its source. None may have the name of a module
    of the package, which Python would put in its place.

    Args:
        package: name of the package, whose `__init__` calls this.
    """
    module = sys.modules[package]
    homes = _deferred_imports(module.__loader__.get_source(package))  # type: ignore[union-attr]

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(module, name, value)
        return value

    return get, lambda: sorted({*vars(module), *homes}), sorted(homes)


def _deferred_imports(source: str) -> dict[str, str]:
    """The module of each name that is imported below `if TYPE_CHECKING`."""
    return {
        alias.name: str(statement.module)
        for block in ast.parse(source).body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
