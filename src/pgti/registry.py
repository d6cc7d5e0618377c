"""`Registry`: entries by name, to which installed packages add their own."""

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from pgti.errors import ConfigError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Entries by name, in alphabetical order whatever their capitals.

    A package adds entries through an entry point of `group`, a function without arguments that
    calls `register`. The functions run once in a process, when a name is looked up that is not
    here yet or the names are listed: importing this package imports none of them.

    Args:
        group: the group of the entry points, such as "pgti.models".
        entries: those of this package.
    """

    def __init__(self, group: str, entries: Mapping[str, T]) -> None:
        self._group = group
        self._entries = dict(entries)
        self._refusals: dict[str, str] = {}
        self._is_complete = False

    def register(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            ConfigError: if there is one of that name.
        """
        if name in self._entries:
            raise ConfigError(f"{name!r} is registered twice in {self._group}: rename one of them")
        self._entries[name] = entry

    def refuse(self, name: str, reason: str) -> None:
        """State why a name that users may ask for has no entry."""
        self._refusals[name] = reason

    def refusal(self, name: str) -> str | None:
        """The reason why `name` has no entry; None if none was stated."""
        self._complete()
        return self._refusals.get(name)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._complete()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._complete()
        return iter(sorted(self._entries, key=str.lower))

    def __len__(self) -> int:
        self._complete()
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({', '.join(self)})"

    def _complete(self) -> None:
        """Let every installed package add its entries, once."""
        if self._is_complete:
            return
        self._is_complete = True
        for point in entry_points(group=self._group):
            try:
                register = point.load()
            except (ImportError, AttributeError) as error:
                package = point.dist.name if point.dist else point.value
                raise ConfigError(
                    f"{package} cannot add to {self._group} ({error}): update or uninstall it"
                ) from error
            register()
