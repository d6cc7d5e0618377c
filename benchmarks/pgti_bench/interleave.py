"""Run contenders interleaved, so that whatever disturbs the machine disturbs all of them alike."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from pgti.errors import require_whole_number
from pgti.run.results import Spread
from pgti_bench.errors import BenchError

__all__ = ["interleave", "interleave_dropping", "spread_of_ratios"]


def interleave(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    warmups: int = 1,
    after_round: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:
    """Run every contender once in each round and collect what each run returns.

    The order rotates from round to round, so that no contender is always first or always follows
    the same other one. Contenders time themselves, so that their preparation does not count.

    Args:
        contenders: by name, each a call that does the work once and returns its measurement
            (usually seconds).
        rounds: measured runs of each contender.
        warmups: rounds before them whose results are discarded.
        after_round: called after each measured round with the number of rounds done.

    Returns:
        For each name, `rounds` measurements in the order of the rounds. Entries at the same
        position were measured next to one another, so slow drifts cancel in their ratios.

    Raises:
        ConfigError: `rounds` is less than 1, or `warmups` less than 0.
    """
    require_whole_number("rounds", rounds, 1)
    require_whole_number("warmups", warmups, 0)
    names = list(contenders)
    measurements: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warmups + rounds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            measurement = contenders[name]()
            if number >= warmups:
                measurements[name].append(measurement)
        if after_round is not None and number >= warmups:
            after_round(number - warmups + 1)
    return measurements


def interleave_dropping(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    *,
    may_fail: Collection[str],
    warmups: int = 1,
    after_round: Callable[[int], None] | None = None,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Like `interleave`, but drop contenders that fail and continue with the rest.

    Args:
        contenders: as for `interleave`.
        rounds: measured runs of each contender.
        may_fail: names of those that are dropped at their first BenchError.
        warmups: rounds before them whose results are discarded.
        after_round: called after each measured round with the number of rounds done.

    Returns:
        Measurements of those that never failed, and the errors of the others, both by name.

    Raises:
        ConfigError: as `interleave`.
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
    measurements = interleave(runs, rounds, warmups, after_round)
    return {n: values for n, values in measurements.items() if n not in failures}, failures


def spread_of_ratios(values: Sequence[float], others: Sequence[float]) -> Spread:
    """The spread of the ratios value / other of each round, in which slow drifts cancel.

    Raises:
        ValueError: there is no value, or not one of the others for each.
    """
    return Spread.of([value / other for value, other in zip(values, others, strict=True)])
