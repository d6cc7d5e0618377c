"""Measuring contenders in alternation, so that what disturbs a machine disturbs them alike."""

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial

from pgti.errors import BenchError, require_whole_number

__all__ = ["alternate", "alternate_dropping"]


def alternate(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    warmups: int = 1,
    after_round: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:
    """Run every contender once in each round, and keep what each run returns.

    The order rotates from round to round: nobody is always first, or always after the same one.
    Contenders measure themselves, so that what they prepare does not count.

    Args:
        contenders: by name, each a call that does the work once and returns its measure
            (seconds, as a rule).
        rounds: runs of each that are kept.
        warmups: rounds before them that are not.
        after_round: told how many of the rounds that are kept are done.

    Returns:
        For each name, `rounds` measures in the order of the rounds: entries of the same position
        were measured next to one another, so their ratios are free of slow drifts.

    Raises:
        ConfigError: `rounds` is less than 1, or `warmups` less than 0.
    """
    require_whole_number("rounds", rounds, 1)
    require_whole_number("warmups", warmups, 0)
    names = list(contenders)
    measures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warmups + rounds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            measure = contenders[name]()
            if number >= warmups:
                measures[name].append(measure)
        if after_round is not None and number >= warmups:
            after_round(number - warmups + 1)
    return measures


def alternate_dropping(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    *,
    may_fail: Collection[str],
    warmups: int = 1,
    after_round: Callable[[int], None] | None = None,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """As `alternate`, but some contenders may fail: they are dropped, and the rest goes on.

    Args:
        contenders: as `alternate` takes them.
        rounds: runs of each that are kept.
        may_fail: names of those that are dropped at their first BenchError.
        warmups: rounds before them that are not.
        after_round: told how many of the rounds that are kept are done.

    Returns:
        Measures of those that never failed, and the errors of the others, both by name.

    Raises:
        ConfigError: as `alternate`.
        BenchError: another contender failed.
    """
    failures: dict[str, str] = {}

    def run(name: str) -> float:
        if name not in failures:
            try:
                return contenders[name]()
            except BenchError as error:
                if name not in may_fail:
                    raise
                failures[name] = str(error)
        return math.nan

    runs = {name: partial(run, name) for name in contenders}
    measures = alternate(runs, rounds, warmups, after_round)
    return {name: kept for name, kept in measures.items() if name not in failures}, failures
