"""Runs in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pgti.errors import MissingExtraError
from pgti.run.trackers import TrackedRun, Tracker, TrackingStatus

__all__ = ["TensorBoardTracker"]


class TensorBoardTracker(Tracker):
    """Writes events into `tensorboard/` of the run's directory; its files stay where they are."""

    kind: ClassVar[str] = "tensorboard"

    def __init__(self) -> None:
        super().__init__(checkpoint=False)
        self._make_writer: Any = None
        self._directory = Path()
        self._writer: Any = None

    def check(self) -> str:
        """Whether TensorBoard is installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard") from None
        self._make_writer = SummaryWriter
        return ""

    def begin(self, run: TrackedRun, run_id: str | None) -> tuple[str, str]:
        """A new file of events, which appears with the first."""
        self._directory, self._writer = run.directory / "tensorboard", None
        self._params = run.params if run_id is None else {}
        return "tensorboard", f"tensorboard --logdir {self._directory}"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Flushed, so that a killed process loses none."""
        if self._writer is None:
            # Later events of a killed process, which the run repeats, are discarded.
            self._writer = self._make_writer(str(self._directory), purge_step=step)
            if self._params:
                rows = (f"| {name} | {value} |" for name, value in self._params.items())
                table = "\n".join(("| option | value |", "| --- | --- |", *rows))
                self._writer.add_text("options", table)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_file(self, path: Path) -> None:
        """It is beside the events."""

    def end(self, status: TrackingStatus) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
