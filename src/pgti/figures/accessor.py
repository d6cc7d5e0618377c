"""What objects with several figures have in common: they list them."""

from typing import Any

from pgti.display import Display
from pgti.figures.panels import stack_figures

__all__ = ["Plots"]


class Plots(Display):
    """Base of what `run.plot` and `store.plot` are: a method for each figure.

    Called, it gives the most useful ones as panels of one figure.

    Args:
        are_panels: leave figures as `stack_figures` takes them, without room for their title.
    """

    def __init__(self, *, are_panels: bool = False) -> None:
        self._are_panels = are_panels

    def describe(self) -> tuple[str, dict[str, str]]:
        """A title, and the first line of each method by its name."""
        methods = {"()": type(self).__call__} | {
            f".{name}()": each
            for kind in reversed(type(self).__mro__)
            for name, each in vars(kind).items()
            if not name.startswith("_") and callable(each) and name != "describe"
        }
        lines = {name: (each.__doc__ or "").partition("\n")[0] for name, each in methods.items()}
        return f"{type(self).__name__}, each a plotly figure", lines

    def _finish(self, figure: Any) -> Any:
        return figure if self._are_panels else stack_figures([figure])
