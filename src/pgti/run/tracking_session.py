"""A run in one tracker: a thread sends what is due, however long the tracker takes."""

import json
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from queue import Queue
from time import monotonic
from typing import Any

from pgti.errors import RunError, option
from pgti.forecasting import BASELINES, Observer
from pgti.run.config import read_toml
from pgti.run.trackers import TrackedRun, Tracker, TrackingStatus, Value
from pgti.storage import json_text, parse_json_object, write_atomically
from pgti.store import StoreMeta
from pgti.training import RunDirectory
from pgti.training.compatibility import flat_settings

__all__ = ["TrackingSession", "horizon_metrics", "metrics_of_test", "record_metrics"]

_SECONDS_TO_WAIT = 60.0  # for a tracker that makes no progress, when a run begins and ends
_SECONDS_TO_RETRY = 15.0
_FACTS = ("pgti", "torch", "numpy", "python", "platform", "store", "fingerprint", "parameters",
          "batching", "placement", "world_size", "device")  # fmt: skip

Record = Mapping[str, Any]
Task = Callable[[], None]


@dataclass(kw_only=True, slots=True)
class _Position:
    """What a tracker has of a run.

    Attributes:
        place: where that is.
        id: of the run there.
        step: up to which the lines of steps were sent.
        epoch_step: the same for those of epochs.
        test_step: at which step the test metrics were sent.
    """

    place: str
    id: str | None = None
    step: int = -1
    epoch_step: int = -1
    test_step: int = -1

    def has(self, record: Record) -> bool:
        """Whether a line was sent."""
        last = self.epoch_step if record["kind"] == "epoch" else self.step
        return bool(record["step"] <= last)


_file_lock = threading.Lock()  # trackers share `tracking.json`


class TrackingSession(Observer):
    """A run in one tracker, whose methods a thread calls in order.

    What fails is tried again, later: the training does not notice.

    Args:
        tracker: shows the run.
        place: where, as `Tracker.check` found it.
        directory: of the run.
        group: what the run is one of.
        log: receives one line for each thing that the user should know.
    """

    def __init__(
        self,
        tracker: Tracker,
        place: str,
        directory: RunDirectory,
        group: str | None,
        log: Callable[[str], None],
    ) -> None:
        self._tracker = tracker
        self._directory = directory
        self._group = group
        self._log = log
        self._position = _Position(place=place)
        self._tasks: Queue[Task | None] = Queue()
        self._thread: threading.Thread | None = None
        self._begun, self._is_ending = threading.Event(), threading.Event()
        self._moved_at = monotonic()
        self._is_failing = self._has_lost = False
        self._best_mae = float("inf")
        self._last_step = 0

    # -- what the training calls ------------------------------------------------------------------

    def begin(self, label: str, num_windows: int, done: int = 0, step: int | None = None) -> None:
        """The first pass begins: so does the run, which the tracker may know already."""
        if self._thread is not None:
            return
        self._tasks.put(self._begin)
        self._thread = threading.Thread(target=self._work, name=self._tracker.kind, daemon=True)
        self._thread.start()
        self._begun.wait(_SECONDS_TO_WAIT)

    def record(self, record: Record) -> None:
        """A line was added to `metrics.jsonl`."""
        self._tasks.put(lambda: self._send(record))

    def log_test(self, test: Record) -> None:
        """The test windows were evaluated."""
        self.begin("", 0)
        self._tasks.put(lambda: self._send_test(test))

    def end(self, status: TrackingStatus) -> None:
        """Send the files and end the run; `wait` waits for that."""
        if status == "finished" and RunDirectory.exists(self._directory.path):
            self.begin("", 0)  # there was nothing to train: the tracker may miss a part
        if self._thread is not None:
            self._tasks.put(self._send_files)
            self._tasks.put(lambda: self._end(status))
            self._tasks.put(None)
            self._moved_at = monotonic()
            self._is_ending.set()

    def wait(self) -> None:
        """Wait until all is sent, or the tracker makes no progress any more."""
        if self._thread is None:
            return
        output = sys.stdout
        while self._thread.is_alive() and monotonic() - self._moved_at < _SECONDS_TO_WAIT:
            self._thread.join(0.05)
        if self._thread.is_alive():
            sys.stdout = output  # the thread may have redirected it
            self._log(f"{self._tracker.kind} does not answer; {self._remedy()}")

    # -- the thread -------------------------------------------------------------------------------

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._do(task)
        if self._has_lost:
            self._log(f"{self._tracker.kind} misses a part of the run; {self._remedy()}")

    def _do(self, task: Task) -> None:
        """Do it, again and again until it succeeds; once only where the run ends."""
        while True:
            is_last = self._is_ending.is_set()
            try:
                task()
            except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
                self._note_failure(error)
                if is_last:
                    self._has_lost = True
                    return
                self._is_ending.wait(_SECONDS_TO_RETRY)
            else:
                self._moved_at = monotonic()
                self._is_failing = self._has_lost
                return

    def _note_failure(self, error: Exception) -> None:
        self._begun.set()
        if not self._is_failing:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._log(
                f"{self._tracker.kind} fails ({reason}): training goes on, and what is missing "
                "there is sent when it works again"
            )
        self._is_failing = True

    def _remedy(self) -> str:
        return (
            f"{self._directory.metrics_file} has all of it, and resuming the run with "
            f"{option('track', self._tracker.kind)} sends it"
        )

    # -- tasks ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the run in the tracker, or continue it, and send what it does not have yet."""
        known = self._read_positions().get(self._tracker.kind)
        if known is not None and known["place"] == self._position.place:
            self._position = _Position(**known)
        with redirect_stdout(sys.stderr):  # standard output is for results
            self._position.id, address = self._tracker.begin(self._describe(), self._position.id)
        self._write_position()
        self._log(f"tracked by {self._tracker.kind}: {address}")
        self._begun.set()
        for record in self._directory.read_metrics():
            self._send(record)

    def _send(self, record: Record) -> None:
        """Send a line, unless the tracker has it."""
        is_epoch, step = record["kind"] == "epoch", int(record["step"])
        metrics = record_metrics(record)
        if is_epoch:
            self._best_mae = min(self._best_mae, metrics.get("val/mae", self._best_mae))
            metrics["val/best_mae"] = self._best_mae
            if self._position.step == step:  # a line of the step has said the rest
                metrics = {k: v for k, v in metrics.items() if k.startswith("val/")}
        self._last_step = max(self._last_step, step)
        if self._position.id is None or self._has_lost or self._position.has(record):
            return
        self._tracker.log_metrics(metrics, step)
        if is_epoch:
            self._position.epoch_step = step
        else:
            self._position.step = step
        self._write_position()

    def _send_test(self, test: Record) -> None:
        if self._position.id is None or self._position.test_step >= self._last_step:
            return
        self._tracker.log_metrics(metrics_of_test(test), self._last_step)
        self._tracker.log_horizon(horizon_metrics(test))
        self._position.test_step = self._last_step
        self._write_position()

    def _send_files(self) -> None:
        run = self._directory
        if self._position.id is None or self._has_lost:
            return
        files = [run.config_file, run.info_file, run.metrics_file, run.test_file, run.report_file]
        if self._tracker.checkpoint:
            files.append(run.best_checkpoint)
        for path in files:
            if path.is_file():
                self._tracker.log_file(path)
                self._moved_at = monotonic()

    def _end(self, status: TrackingStatus) -> None:
        if self._position.id is not None:
            with redirect_stdout(sys.stderr):
                self._tracker.end(status)

    def _describe(self) -> TrackedRun:
        config, info = read_toml(self._directory.config_file), self._directory.read_info()
        facts = {f"run.{name}": info[name] for name in _FACTS if info.get(name) is not None}
        facts |= {f"run.windows.{name}": count for name, count in info["windows"].items()}
        if self._directory.data_directory.is_dir():
            meta = StoreMeta.read(self._directory.data_directory)
            facts |= {"run.sensors": meta.num_nodes, "run.edges": meta.num_edges}
        tags = {"pgti": info["pgti"], "model": config["model"]["name"]}
        tags |= {"recipe": config["recipe"]} if "recipe" in config else {}
        tags |= {} if self._group is None else {"group": self._group}
        return TrackedRun(
            directory=self._directory.path,
            params={name: _plain(value) for name, value in (flat_settings(config) | facts).items()},
            tags=tags | self._tracker.tags,
            group=self._group,
        )

    # -- tracking.json ----------------------------------------------------------------------------

    def _read_positions(self) -> dict[str, Any]:
        path = self._directory.tracking_file
        if not path.exists():
            return {}
        return parse_json_object(path.read_text("utf-8", "replace"), path, RunError)

    def _write_position(self) -> None:
        with _file_lock:
            positions = self._read_positions() | {self._tracker.kind: asdict(self._position)}
            write_atomically(self._directory.tracking_file, json_text(positions))


# -- metrics --------------------------------------------------------------------------------------


def record_metrics(record: Record) -> dict[str, float]:
    """The metrics of a line of `metrics.jsonl`, by the name that every tracker has for them."""
    found = {
        "train/loss": record["train_loss"],
        "lr": record["lr"],
        "windows_per_second": record["windows_per_second"],
        "epoch": record["epoch"],
        **{f"val/{name}": value for name, value in record.get("val", {}).items()},
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def metrics_of_test(test: Record) -> dict[str, float]:
    """Test metrics over all horizon steps: "test/mae", and of baselines "test/persistence/mae"."""
    tables = {"test": test} | {f"test/{name}": test[name] for name in BASELINES if name in test}
    return {
        f"{prefix}/{metric}": float(values["mean"])
        for prefix, table in tables.items()
        for metric, values in table.items()
        if _is_by_step(values) and values["mean"] is not None
    }


def horizon_metrics(test: Record) -> dict[int, dict[str, float]]:
    """Test metrics of each horizon step, from 1, by name."""
    found: dict[int, dict[str, float]] = {}
    for metric, values in test.items():
        for step, value in values.items() if _is_by_step(values) else ():
            if step.isdigit() and value is not None:
                found.setdefault(int(step), {})[metric] = float(value)
    return found


def _is_by_step(values: object) -> bool:
    return isinstance(values, Mapping) and "mean" in values


def _plain(value: Any) -> Value:
    return value if isinstance(value, str | int | float) else json.dumps(value)
