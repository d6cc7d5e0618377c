"""The files of a run.

config.toml      every option, resolved
run.json         versions, platform, store, parameter count, when it started and ended
metrics.jsonl    one line per epoch, and one each time the loss is logged in between
checkpoints/     last.pt and best.pt
test.json        metrics of the test windows
intervals.npz    conformal intervals, once they were asked for
data/            what a forecast of newer readings needs of the store: description, graph, typical
                 readings
tracking.json    for each tracker, which run this is there and up to which step it was sent
report.html      a report of the run, on request
tensorboard/     event files, on request
lock             exists while a process trains
"""

from pathlib import Path

__all__ = ["RunFiles"]


class RunFiles:
    """Where the files of a run are.

    Args:
        path: the run's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def config_file(self) -> Path:
        """Every option of the run, resolved, as TOML."""
        return self.path / "config.toml"

    @property
    def info_file(self) -> Path:
        """Versions, platform, store and times of the run."""
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def last_checkpoint(self) -> Path:
        """The state to resume from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best_checkpoint(self) -> Path:
        """The state with the lowest validation MAE."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def test_file(self) -> Path:
        """Metrics of the test windows."""
        return self.path / "test.json"

    @property
    def intervals_file(self) -> Path:
        """Ends of conformal intervals, and what they are of."""
        return self.path / "intervals.npz"

    @property
    def data_directory(self) -> Path:
        """What the run holds of its store."""
        return self.path / "data"

    @property
    def tracking_file(self) -> Path:
        """What trackers have of the run."""
        return self.path / "tracking.json"

    @property
    def report_file(self) -> Path:
        """A report in one HTML file."""
        return self.path / "report.html"

    @property
    def tensorboard_directory(self) -> Path:
        """Event files of TensorBoard."""
        return self.path / "tensorboard"

    @property
    def lock_file(self) -> Path:
        """Locked by the process that trains."""
        return self.path / "lock"
