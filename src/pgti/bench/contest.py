"""Measuring contenders in alternation, so that what disturbs a machine disturbs them alike."""

from collections.abc import Callable, Mapping

from pgti.errors import require_whole_number

__all__ = ["alternate"]


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
