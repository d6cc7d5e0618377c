"""`Tracking`: shows the runs of a job in trackers, without ever holding or ending a training.

What is sent is what `metrics.jsonl` holds. `tracking.json` says, for each tracker, which run it is
there and up to which step it was sent: a resumed run continues there, a step that is repeated is
not sent twice, and what could not be sent before is sent then.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from pgti.distributed import Communicator, SingleProcess
from pgti.forecasting import Observer
from pgti.run.prepare import ObserverFactory
from pgti.run.trackers import TrackerLike, TrackingStatus, find_trackers
from pgti.run.tracking_session import TrackingSession
from pgti.training import RunDirectory

__all__ = ["Tracking"]


class Tracking:
    """Shows the runs of a job in trackers, one run after the other.

    Left, it ends the run that is tracked: as killed after a `KeyboardInterrupt`, as failed after
    any other error.

    Args:
        track: trackers, or their names.
        log: receives one line for each thing that the user should know.
        group: what the runs are parts of.

    Raises:
        ConfigError: if there is no such tracker.
    """

    def __init__(
        self,
        track: TrackerLike | Sequence[TrackerLike] = (),
        *,
        log: Callable[[str], None] = lambda _: None,
        group: str | None = None,
    ) -> None:
        self._trackers = find_trackers(track)
        self._log = log
        self._group = group
        self._places: dict[str, str] = {}
        self._sessions: list[TrackingSession] = []

    def check(self, communicator: Communicator | None = None) -> None:
        """Find out whether the trackers can be reached, before any work.

        Args:
            communicator: the ranks, of which the first alone tracks; one process by default.

        Raises:
            PgtiError: if one cannot, in one line.
        """
        ranks = SingleProcess() if communicator is None else communicator
        with ranks.raise_together():
            if ranks.is_main:
                self._places = {each.kind: each.check() for each in self._trackers}

    def observers(self, others: Sequence[Observer] = ()) -> ObserverFactory:
        """What follows the training of each run of the job, and tracks it.

        A run appears in the trackers when its first pass begins; the one before it is finished.

        Args:
            others: further observers of each run.
        """

        def observe(directory: RunDirectory) -> list[Observer]:
            self.end("finished")
            self._sessions = [
                TrackingSession(each, self._places[each.kind], directory, self._group, self._log)
                for each in self._trackers
            ]
            return [*others, *self._sessions]

        return observe

    def log_test(self, test: Mapping[str, Any]) -> None:
        """Send test metrics, as `test.json` holds them."""
        for session in self._sessions:
            session.log_test(test)

    def end(self, status: TrackingStatus) -> None:
        """Send the files of the run, and end it; wait for that, but not for ever."""
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.end(status)
        for session in sessions:
            session.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.end("finished")
        else:
            self.end("killed" if issubclass(kind, KeyboardInterrupt) else "failed")
