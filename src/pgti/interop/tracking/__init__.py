"""Trackers of runs: `pgti.train(..., track="mlflow")`, or a class with options.

Each imports its library when it is used. Addresses and keys come from the library's own
environment variables (docs/tracking.md).
"""

from collections.abc import Sequence

from pgti.forecasting import Report
from pgti.interop.tracking.mlflow import MLflowTracker
from pgti.interop.tracking.tensorboard import TensorBoardTracker
from pgti.interop.tracking.trackio import TrackioTracker
from pgti.interop.tracking.wandb import WandbTracker
from pgti.run import Run
from pgti.run.trackers import TRACKERS, TrackedRun, Tracker, TrackerLike
from pgti.run.tracking import Tracking

__all__ = [
    "MLflowTracker",
    "TensorBoardTracker",
    "TrackedRun",
    "Tracker",
    "TrackioTracker",
    "WandbTracker",
    "log_test",
]


def log_test(run: Run, report: Report, track: TrackerLike | Sequence[TrackerLike]) -> None:
    """Add test metrics to a run that is tracked, as `pgti train` does at its end.

    Args:
        run: the run.
        report: of `run.evaluate("test")`.
        track: the trackers, as `pgti.train` got them.

    Raises:
        PgtiError: if a tracker cannot be reached.
        KeyError: if the report has no errors of the test split.
    """
    with Tracking(track) as tracking:
        tracking.check()
        tracking.observers()(run.directory)
        tracking.log_test(report.to_dict()["test"])


def register() -> None:
    """Add the trackers to those that `track` names."""
    for tracker in (MLflowTracker, TensorBoardTracker, TrackioTracker, WandbTracker):
        TRACKERS.register(tracker.kind, tracker)
