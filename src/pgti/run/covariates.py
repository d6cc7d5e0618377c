"""Covariates of a run, and of one that starts from it: they must mean the same."""

from pathlib import Path

from pgti.batching import WindowSource
from pgti.errors import RunError, option

__all__ = ["check_covariates"]


def check_covariates(
    path: Path,
    before: WindowSource,
    read_before: frozenset[str],
    now: WindowSource,
    read_now: frozenset[str],
) -> None:
    """Refuse covariates of another meaning, where one of two networks reads them.

    Args:
        path: directory of the run to start from.
        before: what its windows hold.
        read_before: names of the inputs of a batch that it reads.
        now: what the windows of the new run hold.
        read_now: names of those that the new run reads.

    Raises:
        RunError: saying what differs, and what to do.
    """
    kinds = {
        "channels known in advance": ({"future", "future_mask"}, _known_names),
        "features of the sensors": ({"static", "static_codes"}, _features),
    }
    for what, (names, find) in kinds.items():
        one, two = find(before), find(now)
        if one == two or not names & (read_before | read_now):
            continue
        leave = ""
        if not names & read_before:
            leave = f", or leave them out with {option('windows.covariates', value=False)}"
        raise RunError(
            f"the run {path} has other {what} ({_list(one)}) than the store {now.store.path} "
            f"({_list(two)}), and its network reads them: ingest the readings with those of the "
            f"run{leave}"
        )


def _known_names(source: WindowSource) -> list[str]:
    return [source.store.meta.channels[index] for index in source.known_indices]


def _features(source: WindowSource) -> list[str]:
    """Features of the sensors, each with its categories."""
    if source.static is None:
        return []
    pairs = zip(source.static.names, source.static.categories, strict=True)
    return [f"{name}: {'/'.join(words)}" if words else name for name, words in pairs]


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
