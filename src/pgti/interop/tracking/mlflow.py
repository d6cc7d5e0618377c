"""Runs in MLflow."""

import os
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar

from pgti.errors import ConfigError, MissingExtraError
from pgti.interop.tracking.addresses import require_answer, without_password
from pgti.options import require_type
from pgti.run.trackers import TrackedRun, Tracker, TrackingStatus

__all__ = ["MLflowTracker"]

_PARAMS_AT_ONCE = 100  # of MLflow's REST interface
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MLflowTracker(Tracker):
    """Shows runs in MLflow, at MLFLOW_TRACKING_URI.

    Args:
        experiment: name of the experiment, which is created where it is missing; by default
            MLFLOW_EXPERIMENT_NAME, or "pgti".
        name: as `Tracker`.
        tags: as `Tracker`.
        checkpoint: as `Tracker`.
    """

    kind: ClassVar[str] = "mlflow"

    def __init__(
        self,
        *,
        experiment: str | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        checkpoint: bool = True,
    ) -> None:
        super().__init__(name=name, tags=tags, checkpoint=checkpoint)
        require_type("experiment", experiment, (str, NoneType), "text")
        self._experiment = experiment
        self._client: Any = None
        self._run_id = self._uri = ""

    def check(self) -> str:
        """Reach the server and the experiment's name; what is local is created later."""
        # Retries of minutes are for work that needs an answer; what fails here is sent later.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        try:
            import mlflow  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtraError("mlflow", "mlflow") from None
        self._uri = str(mlflow.get_tracking_uri())
        if self._uri.startswith(("http://", "https://")):
            remedy = "start it, or set MLFLOW_TRACKING_URI to the address of one that runs"
            require_answer("MLflow", self._uri.rstrip("/") + "/health", remedy)
        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "pgti"
        try:
            self._client = mlflow.MlflowClient()
            self._client.get_experiment_by_name(name)
        except Exception as error:  # noqa: BLE001 - MLflow, and what it calls, raise anything
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"MLflow cannot be used at {without_password(self._uri)} ({reason}): check "
                "MLFLOW_TRACKING_URI and what it needs"
            ) from None
        self._experiment = name
        return f"{without_password(self._uri)}, experiment {name}"

    def begin(self, run: TrackedRun, run_id: str | None) -> tuple[str, str]:
        """Create the run, or set it to run again; options that changed become a tag."""
        from mlflow.entities import Param, RunTag  # noqa: PLC0415 - an extra
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        before: Any = None
        if run_id is not None:
            try:
                before = self._client.get_run(run_id)
                self._client.update_run(run_id, status="RUNNING")
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise  # an answer will come later
                before = None  # somebody has deleted it
        if before is None:
            before = self._client.create_run(
                self._find_experiment(), run_name=self.name or run.directory.name
            )
        self._run_id = before.info.run_id
        known, tags = before.data.params, dict(run.tags)
        params = {key: str(value) for key, value in run.params.items()}
        changed = sorted(key for key in known.keys() & params.keys() if known[key] != params[key])
        if changed:  # MLflow's parameters stay as they are
            tags["changed"] = ", ".join(f"{key}={params[key]}" for key in changed)
        new = iter(Param(key, params[key]) for key in params.keys() - known.keys())
        pairs = [RunTag(key, str(value)) for key, value in tags.items()]
        self._client.log_batch(self._run_id, tags=pairs)
        while several := list(islice(new, _PARAMS_AT_ONCE)):
            self._client.log_batch(self._run_id, params=several)
        return self._run_id, self._address(before.info.experiment_id)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """In one message."""
        from mlflow.entities import Metric  # noqa: PLC0415 - an extra

        now = time.time_ns() // 1_000_000
        points = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=points)

    def log_file(self, path: Path) -> None:
        """As an artifact."""
        self._client.log_artifact(self._run_id, str(path))

    def end(self, status: TrackingStatus) -> None:
        """Set the status."""
        self._client.set_terminated(self._run_id, _STATUS[status])

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - an extra

        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment))
            except MlflowException:  # another process was faster
                found = self._client.get_experiment_by_name(self._experiment)
        return str(found.experiment_id)

    def _address(self, experiment: str) -> str:
        if not self._uri.startswith(("http://", "https://")):
            return f"run {self._run_id} in {self._uri}"
        place = without_password(self._uri).rstrip("/")
        return f"{place}/#/experiments/{experiment}/runs/{self._run_id}"
