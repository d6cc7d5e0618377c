"""`Tracker`: what shows runs elsewhere (MLflow, W&B, ...), and the trackers by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import ClassVar, Literal, TypeAlias

from pgti.errors import ConfigError
from pgti.options import check_names, require_type
from pgti.registry import Registry

__all__ = ["TRACKERS", "TrackedRun", "Tracker", "TrackerLike", "TrackingStatus", "find_trackers"]

TrackingStatus: TypeAlias = Literal["finished", "failed", "killed"]
"""How a training ended: by itself, by an error, or by a signal (it can be resumed)."""

Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """What a tracker is shown of a run when it begins or resumes.

    Attributes:
        directory: of the run.
        params: every option by dotted name ("training.learning_rate"), and under "run." the
            store, its sensors and edges, numbers of windows and parameters, and versions.
        tags: "pgti", "model", "recipe" and "group", where there is one.
        group: what the run is one of: a study, a backtest, a search.
    """

    directory: Path
    params: Mapping[str, Value]
    tags: Mapping[str, str]
    group: str | None = None


class Tracker(ABC):
    """Shows runs in one tracking library, which it imports when it is used.

    Training never waits for it: but for `check`, one thread of its own calls all methods, one after
    the other. An error that a method raises does not end the training: one line names it, and
    what was not sent is sent later.

    Args:
        name: of the run where it is tracked; by default that of its directory.
        tags: further tags by name.
        checkpoint: whether the best parameters, `best.pt`, are uploaded at the end.
    """

    kind: ClassVar[str]
    """Name of the tracker."""

    def __init__(
        self,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        checkpoint: bool = True,
    ) -> None:
        require_type("name", name, (str, NoneType), "text")
        require_type("tags", tags, (Mapping, NoneType), "tags by name")
        require_type("checkpoint", checkpoint, bool, "True or False")
        self.name = name
        self.tags = dict(tags or {})
        self.checkpoint = checkpoint

    @abstractmethod
    def check(self) -> str:
        """Where runs will be tracked, as text, found out before any work.

        Raises:
            MissingExtraError: the library is not installed.
            ConfigError: the place cannot be reached or used, in one line that says what to do.
        """

    @abstractmethod
    def begin(self, run: TrackedRun, run_id: str | None) -> tuple[str, str]:
        """Begin a run, or continue it.

        Args:
            run: what it is.
            run_id: what this returned before the run was resumed; None for a new run.

        Returns:
            The tracker's identifier of the run, and where to look at it.
        """

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics at a step; steps never decrease."""

    def log_horizon(self, errors: Mapping[int, Mapping[str, float]]) -> None:
        """Test metrics of each horizon step, from 1: a curve over the horizon."""
        for step, metrics in errors.items():
            self.log_metrics({f"test_by_horizon/{name}": x for name, x in metrics.items()}, step)

    @abstractmethod
    def log_file(self, path: Path) -> None:
        """Upload a file of the run's directory."""

    @abstractmethod
    def end(self, status: TrackingStatus) -> None:
        """The run has ended; it may be resumed."""


TrackerLike: TypeAlias = str | Tracker
"""A tracker, or its name."""

TRACKERS: Registry[type[Tracker]] = Registry("pgti.trackers", {})
"""The trackers by name, to which packages add theirs through entry points."""


def find_trackers(track: TrackerLike | Sequence[TrackerLike]) -> tuple[Tracker, ...]:
    """The trackers that a user names or passes.

    Raises:
        ConfigError: if there is none of that name, or two of a kind.
    """
    given: Iterable[TrackerLike] = [track] if isinstance(track, str | Tracker) else track
    require_type("track", given, Sequence, "names of trackers, or trackers")
    found = []
    for each in given:
        require_type("track", each, (str, Tracker), "names of trackers, or trackers")
        if isinstance(each, str):
            check_names([each], TRACKERS, owner="track")
            each = TRACKERS[each]()  # noqa: PLW2901 - the tracker of that name
        found.append(each)
    kinds = [each.kind for each in found]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ConfigError(f"track names {kind} twice: give it once")
    return tuple(found)
