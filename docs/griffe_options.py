"""Griffe reads sources; functions that take the options of a class list them when they are run."""

import inspect
from pydoc import locate
from typing import Any

import griffe


class ListedOptions(griffe.Extension):
    """Take the docstring of a function that `accept_options` decorates from the function itself."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace the docstring; its signature keeps `**options`."""
        names = {str(each.callable_path).rpartition(".")[2] for each in func.decorators}
        if "accept_options" not in names or func.docstring is None:
            return
        func.docstring.value = inspect.getdoc(locate(func.path)) or ""
