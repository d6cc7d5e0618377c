"""Which arrays of a file are meant."""

from collections.abc import Iterable, Mapping

from pgti.display import shorten
from pgti.errors import DataError, option

__all__ = ["choose_keys"]


def choose_keys(
    name: str,
    candidates: Mapping[str, str],
    wanted: tuple[str, ...],
    what: str,
    several: str,
    chosen_by: str = "values",
    others: Iterable[str] | None = None,
) -> tuple[str, ...]:
    """The wanted keys, or the only candidate.

    Args:
        name: what messages call the source.
        candidates: description (a shape) of each key that can be chosen.
        wanted: keys that the user named; empty for "the only one".
        what: what messages call a key.
        several: the same in the plural.
        chosen_by: the option that names keys.
        others: what the source of readings has, described; None if it is one of something else.

    Raises:
        DataError: if a key is unknown, or none was named where there are several or none.
    """
    listing = ", ".join(f"{key} {shape}" for key, shape in candidates.items()) or "none"
    for key in wanted:
        if key not in candidates:
            raise DataError(f"{name} has no {what} {key!r} that could be used; it has {listing}")
    if not wanted and not candidates:
        if others is not None:
            raise DataError(
                f"{name} holds no {what} that could be meant; it has "
                f"{shorten(list(others)) or 'none'}: readings are real numbers along two or three "
                f"axes, or along others that {option('axes')} names"
            )
        raise DataError(f"{name} holds none of the {several} that could be meant")
    if not wanted and len(candidates) > 1:
        number = "one or several" if chosen_by == "values" else "one"
        raise DataError(
            f"{name} holds {len(candidates)} {several} that could be meant: name {number} with "
            f"{option(chosen_by)}, of {listing}"
        )
    return wanted or tuple(candidates)
