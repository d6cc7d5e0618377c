"""Runs in Trackio."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar

from pgti.errors import MissingExtraError
from pgti.interop.tracking.addresses import require_answer, without_password
from pgti.options import require_type
from pgti.run.trackers import TrackedRun, Tracker, TrackingStatus

__all__ = ["TrackioTracker"]


class TrackioTracker(Tracker):
    """Shows runs in Trackio: on this machine, or where TRACKIO_SERVER_URL or TRACKIO_SPACE_ID say.

    Args:
        project: name of the project; by default TRACKIO_PROJECT, or "pgti".
        name: as `Tracker`.
        tags: as `Tracker`; options of the run show them.
        checkpoint: as `Tracker`.
    """

    kind: ClassVar[str] = "trackio"

    def __init__(
        self,
        *,
        project: str | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        checkpoint: bool = True,
    ) -> None:
        super().__init__(name=name, tags=tags, checkpoint=checkpoint)
        require_type("project", project, (str, NoneType), "text")
        self._project = project
        self._trackio: Any = None
        self._run: Any = None
        self._run_name = ""

    def check(self) -> str:
        """Whether it is installed, and its server answers, if there is one."""
        try:
            import trackio  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtraError("trackio", "trackio") from None
        self._trackio = trackio
        self._project = self._project or os.environ.get("TRACKIO_PROJECT") or "pgti"
        server = os.environ.get("TRACKIO_SERVER_URL")
        space = os.environ.get("TRACKIO_SPACE_ID")
        if server and not space:
            require_answer("Trackio", server, "start it, or unset TRACKIO_SERVER_URL")
            server = without_password(server).partition("?")[0]
        return f"{space or server or 'this machine'}, project {self._project}"

    def begin(self, run: TrackedRun, run_id: str | None) -> tuple[str, str]:
        """Trackio continues the run of a name: an ending makes it that of this run alone."""
        self._run_name = run_id or f"{self.name or run.directory.name}-{uuid.uuid4().hex[:8]}"
        self._run = self._trackio.init(
            project=self._project,
            name=self._run_name,
            group=run.group,
            config={**run.params, **{f"tag.{name}": value for name, value in run.tags.items()}},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return self._run_name, f"`trackio show --project {self._project}`, run {self._run_name}"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """At our step."""
        self._run.log(dict(metrics), step=step)

    def log_file(self, path: Path) -> None:
        """As an artifact."""
        kind = "model" if path.suffix == ".pt" else "run"
        self._run.log_artifact(str(path), name=f"{self._run_name}-{path.name}", type=kind)

    def end(self, status: TrackingStatus) -> None:
        """Trackio has no status but finished, so the run says which."""
        self._run.config["status"] = status
        self._run.finish()
