"""Which windows to evaluate: of splits, between two times, or of newer readings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from pgti.batching import WindowSource
from pgti.display import count_of
from pgti.errors import ConfigError, option
from pgti.options import require_type
from pgti.run.loaded import LoadedRun
from pgti.run.newer import NEWER_TYPES, NewerOptions, NewerReadings, open_newer
from pgti.run.selection import TimeLike, wall_clock
from pgti.windows import SPLIT_NAMES, SplitName, Starts

__all__ = ["EvaluatedWindows"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class EvaluatedWindows:
    """Which windows to evaluate; by default those of the test split.

    Attributes:
        splits: the windows of these splits of the run's own series.
        newer: the windows of newer readings of the run's sensors, instead.
        between: only windows whose first forecast step lies in [first, last], on the clock of the
            series; None for an end that is open.
        options: how to read newer readings that are a file, a table or an array.

    Raises:
        ConfigError: if the choices contradict one another.
    """

    splits: tuple[SplitName, ...] = ()
    newer: NewerReadings | None = None
    between: tuple[TimeLike | None, TimeLike | None] | None = None
    options: NewerOptions = None

    @classmethod
    def of(
        cls,
        what: SplitName | Sequence[SplitName] | NewerReadings | None,
        between: tuple[TimeLike | None, TimeLike | None] | None = None,
        options: NewerOptions = None,
    ) -> Self:
        """From what a user of Python gives: splits by name, or newer readings."""
        if what is None or isinstance(what, NEWER_TYPES):
            return cls(newer=what, between=between, options=options)
        if isinstance(what, list | tuple) and any(not isinstance(each, str) for each in what):
            return cls(newer=what, between=between, options=options)
        if isinstance(what, str) and what not in SPLIT_NAMES:
            if not Path(what).exists() and not set(what) & set("*?["):
                raise ConfigError(
                    f"there is no split {what!r}, and no file or store of that name: the splits "
                    f"are {', '.join(SPLIT_NAMES)}"
                )
            return cls(newer=what, between=between, options=options)
        names = [what] if isinstance(what, str) else what
        require_type("splits", names, Sequence, "a split, a list of them, or newer readings")
        if not names:
            raise ConfigError("splits is empty: name train, val or test")
        splits: Any = tuple(names)  # whether they are splits is known when they are looked up
        return cls(splits=splits, between=between, options=options)

    def __post_init__(self) -> None:
        between: object = self.between
        if between is not None and not (isinstance(between, tuple | list) and len(between) == 2):
            raise ConfigError(f"between is {between!r}: it must be two times, (first, last)")
        if self.splits and self.between is not None:
            raise ConfigError("evaluate either a split or the windows between two times, not both")
        if self.splits and self.newer is not None:
            raise ConfigError(f"newer readings have no splits: leave {option('split')} out")
        if self.newer is None and self.options:
            raise ConfigError(
                f"options of ingest say how newer readings are read, and there are none: give "
                f"{option('readings')}, or leave them out"
            )

    @contextmanager
    def open(
        self, run: LoadedRun
    ) -> Iterator[tuple[WindowSource, dict[str, Starts], tuple[str, ...]]]:
        """What the windows hold, their starts by name, and notes; newer readings exist inside.

        Raises:
            ConfigError: if there is no such split or no window, or options cannot be used.
            DataError: if newer readings are not of the run's sensors and channels, or break a rule.
            RunError: if the run's own series is needed and its store is gone.
            StoreError: if a store of newer readings cannot be opened.
        """
        newer = run.newer if self.newer is None and not self.splits else self.newer
        before: tuple[str, ...] = ()
        if newer is None and self.between is None:
            run.require_rows()
            names = self.splits or ("test",)
            notes = (*run.splits.notes, *_growth(run))
            yield run.source, {name: run.splits.starts(name) for name in names}, notes
            return
        if newer is None:
            store, note = run.newest_store()
            if note is None:
                source = replace(run.source, store=store)
                starts, notes = self._starts(source, run, 0)
                yield source, {"between": starts}, notes
                return
            newer, before = store, (note,)
        with open_newer(run, newer, self.options) as opened:
            source = replace(run.source, store=opened.store)
            starts, notes = self._starts(source, run, opened.num_earlier)
            yield source, {"newer": starts}, (*before, *opened.notes, *notes)

    def _starts(
        self, source: WindowSource, run: LoadedRun, first_row: int
    ) -> tuple[Starts, tuple[str, ...]]:
        """Windows whose horizon lies in the series, and whose first step lies between; notes.

        Rows before the first are there for history alone.
        """
        spec, num_steps = source.spec, source.store.meta.num_steps - first_row
        of_readings = spec.starts(num_steps)
        chosen: Starts = range(
            first_row + of_readings.start, first_row + of_readings.stop, of_readings.step
        )
        if self.between is not None:
            axis, numbers = source.store.time_axis, np.asarray(chosen, dtype=np.int64)
            times = axis.at(numbers + spec.input_steps)
            first, last = (
                None if time is None else wall_clock(time, axis.time_zone) for time in self.between
            )
            inside = np.ones(len(numbers), dtype=np.bool_)
            if first is not None:
                inside &= times >= first
            if last is not None:
                inside &= times <= last
            chosen = numbers[inside]
        starts = run.config.windows.whole(source.store, chosen)
        if not len(starts):
            raise ConfigError(
                f"there is no window to evaluate{self._between_text()}: the series has "
                f"{count_of(num_steps, 'step')}{source.store.time_axis.extent(first_row)}, and "
                f"a window takes {spec.input_steps} and the {spec.horizon} after them, without "
                "missing rows between"
            )
        notes = _seen_in_training(run, source, starts)
        num_left_out = len(chosen) - len(starts)
        if num_left_out:
            reach = "reaches" if num_left_out == 1 else "reach"
            windows = count_of(num_left_out, "more window")
            notes = (f"{windows} {reach} across missing rows: left out", *notes)
        return starts, notes

    def _between_text(self) -> str:
        """What the times ask of the first step of a window, for a message."""
        first, last = self.between or (None, None)
        if first is None and last is None:
            return ""
        if first is None or last is None:
            return f" whose first step is {'after' if last is None else 'before'} {first or last}"
        return f" whose first step lies between {first} and {last}"


def _growth(run: LoadedRun) -> tuple[str, ...]:
    """A line if the run's store has grown."""
    num_newer = run.latest.meta.num_steps - run.store.meta.num_steps
    if num_newer <= 0:
        return ()
    rows = f"{count_of(num_newer, 'row')} of the store are newer than the run"
    if not run.latest.time_axis.is_dated:
        return (rows,)
    first = run.latest.time_axis.isoformat(run.store.meta.num_steps)
    evaluates = f"{option('between', flag='from')} evaluates them"
    return (f"{rows}, the first at {first}: {evaluates}",)


def _seen_in_training(run: LoadedRun, source: WindowSource, starts: Starts) -> tuple[str, ...]:
    """A line if windows lie in the time that the run was trained on."""
    axes = (run.store.time_axis, source.store.time_axis)
    if run.problem is not None or not all(axis.is_dated for axis in axes):
        return ()
    spec = source.spec
    last = int(run.splits.train[-1]) + spec.span - 1
    (end,) = axes[0].seconds_at(np.array([last]))
    firsts = axes[1].seconds_at(np.asarray(starts, dtype=np.int64) + spec.input_steps)
    num_seen = int((firsts <= end).sum())
    if not num_seen:
        return ()
    return (
        f"{num_seen:,} of {count_of(len(starts), 'window')} begin in the time that the run was "
        f"trained on, which ends at {axes[0].isoformat(last)}",
    )
