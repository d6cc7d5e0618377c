"""Which earlier rows of a series the texts of `windows.history` name."""

import re
from collections.abc import Sequence

from pgti.errors import ConfigError, option
from pgti.store import SECONDS_PER_DAY, TimeAxis, format_interval
from pgti.windows import unite_ranges

__all__ = ["check_history", "history_ranges"]

_UNITS = {"w": 7 * SECONDS_PER_DAY, "d": SECONDS_PER_DAY, "h": 3600, "min": 60, "s": 1}
_LENGTH = r"([1-9][0-9]{0,8})(w|d|h|min|s)?"
_TEXT = re.compile(rf"{_LENGTH}(?:\.\.{_LENGTH})?")
_MAX_PERIODS = 10_000  # 27 years of days: each is a range of rows


def check_history(texts: Sequence[str]) -> None:
    """Refuse what names no history.

    Raises:
        ConfigError: naming the text and the rule.
    """
    for text in texts:
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"history is {text!r}: it must be a span before the forecast, such as 14d, 12h or "
                "a number of rows, or the same hours of earlier days or weeks, such as 1d..7d or "
                "1w..4w"
            )
        first, unit, last, last_unit = found.groups()
        if last is None:
            continue
        if unit != last_unit or unit not in ("d", "w", None) or int(first) > int(last):
            raise ConfigError(
                f"history is {text!r}: periods are days or weeks from a number of them to one not "
                "below it, such as 1d..7d, or multiples of a number of rows, such as 288..2016"
            )
        num_periods = int(last) - int(first) + 1 if unit else int(last) // int(first)
        if num_periods > _MAX_PERIODS:
            raise ConfigError(
                f"history is {text!r}, {num_periods:,} periods: they must be at most "
                f"{_MAX_PERIODS:,}, so give a smaller last one"
            )


def history_ranges(
    texts: Sequence[str], axis: TimeAxis, input_steps: int, horizon: int
) -> tuple[range, ...]:
    """The rows that texts name, relative to the first input, as `WindowSpec.history` takes them.

    A span such as `14d` ends at the last input: it is the rows before the first one that complete
    it. Periods such as `1d..7d` are, for each of these days, the rows of inputs and horizon so many
    days earlier; a number of rows, such as `288..2016`, counts its multiples.

    Args:
        texts: the option.
        axis: the times of the series, whose interval says how many rows a day has.
        input_steps: L.
        horizon: H.

    Raises:
        ConfigError: if a text is none of these, a length is not a whole number of rows, a span is
            not longer than the inputs, or a period ends after the last input.
    """
    check_history(texts)
    ranges: list[range] = []
    for text in texts:
        first, unit, last, _ = _TEXT.fullmatch(text).groups()  # type: ignore[union-attr] # checked
        fewest = input_steps + 1 if last is None else horizon
        length = _num_rows(text, int(first), unit, axis, fewest)
        if last is None:
            if length <= input_steps:
                raise ConfigError(
                    f"history is {text!r}, {length} rows that end at the last input, and "
                    f"{option('windows.input_steps')} are {input_steps} of them: it must be longer"
                )
            ranges.append(range(input_steps - length, 0))
            continue
        if length < horizon:
            step = length // int(first)
            fits = -(-horizon // step) if unit else horizon
            raise ConfigError(
                f"history is {text!r}, and the {horizon} rows of the horizon, {length} rows "
                f"earlier, end after the last input: it must begin at {fits}{unit or ''} or later"
            )
        step = length // int(first) if unit else length
        end = step * int(last) if unit else int(last)
        ranges += [
            range(-back, input_steps + horizon - back) for back in range(length, end + 1, step)
        ]
    return unite_ranges(ranges)


def _num_rows(text: str, number: int, unit: str | None, axis: TimeAxis, fewest: int) -> int:
    """Rows of a length; where it has none, a refusal that suggests rows, `fewest` at least."""
    if unit is None:
        return number
    interval, seconds = axis.interval_seconds, number * _UNITS[unit]
    rows = option("windows.history", max(fewest, seconds // (interval or seconds)))
    reason = ""
    if interval is None:
        reason = "the series has no interval"
    elif axis.rule is not None or not axis.continues:
        reason = f"the times are not evenly spaced ({axis.describe()})"
    elif seconds % interval:
        reason = f"{number}{unit} are not a whole number of rows of {format_interval(interval)}"
    if interval is None or reason:
        raise ConfigError(
            f"history is {text!r} and {reason}: give a number of rows"
            + ("" if interval is None else f", such as {rows}")
        )
    return seconds // interval
