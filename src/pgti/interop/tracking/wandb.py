"""Runs in Weights & Biases."""

import os
import uuid
from collections.abc import Mapping
from netrc import NetrcParseError, netrc
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pgti.errors import ConfigError, MissingExtraError
from pgti.interop.tracking.addresses import require_answer
from pgti.options import require_type
from pgti.run.trackers import TrackedRun, Tracker, TrackingStatus

__all__ = ["WandbTracker"]

_EXIT_CODES = {"finished": 0, "failed": 1, "killed": 255}
"""W&B shows them as finished, failed and killed."""


class WandbTracker(Tracker):
    """Shows runs in Weights & Biases; WANDB_MODE, WANDB_API_KEY and others say where and how.

    Args:
        project: name of the project; by default WANDB_PROJECT, or "pgti".
        name: as `Tracker`.
        tags: as `Tracker`; each becomes "name:value".
        checkpoint: as `Tracker`.
    """

    kind: ClassVar[str] = "wandb"

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
        self._wandb: Any = None
        self._run: Any = None
        self._directory = Path()

    def check(self) -> str:
        """Whether there is a key, and the server answers, unless W&B is offline."""
        try:
            import wandb  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtraError("wandb", "wandb") from None
        self._wandb = wandb
        settings = wandb.Settings()
        self._project = self._project or os.environ.get("WANDB_PROJECT") or "pgti"
        mode = os.environ.get("WANDB_MODE") or settings.mode
        if mode != "online":
            return f"{mode}, project {self._project}"
        if not _has_key(settings.base_url):
            raise ConfigError(
                f"W&B has no key for {settings.base_url}: run `wandb login`, set WANDB_API_KEY, or "
                "set WANDB_MODE=offline and sync later"
            )
        remedy = "try again, or set WANDB_MODE=offline and sync later"
        require_answer("W&B", settings.base_url, remedy)
        return f"{settings.base_url}, project {self._project}"

    def begin(self, run: TrackedRun, run_id: str | None) -> tuple[str, str]:
        """A run of W&B; what it keeps locally is in `wandb/` of the run's directory."""
        wandb = self._wandb
        self._directory = run.directory
        run_id = run_id or uuid.uuid4().hex[:8]
        self._run = wandb.init(
            project=self._project,
            name=self.name or run.directory.name,
            id=run_id,
            resume="allow",
            dir=str(run.directory),
            config=dict(run.params),
            tags=[f"{name}:{value}"[:64] for name, value in run.tags.items()],
            group=run.group,
            settings=wandb.Settings(console="off", silent=True),
        )
        # W&B's own steps only increase: a curve over the horizon has other steps.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step", step_sync=True)
        self._run.define_metric("horizon_step", hidden=True)
        self._run.define_metric("test_by_horizon/*", step_metric="horizon_step")
        return run_id, self._run.url or f"`wandb sync {Path(self._run.dir).parent}` sends it"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """At our step."""
        self._run.log({"step": step, **metrics})

    def log_horizon(self, errors: Mapping[int, Mapping[str, float]]) -> None:
        """Over a step of their own."""
        for step, metrics in errors.items():
            named = {f"test_by_horizon/{name}": value for name, value in metrics.items()}
            self._run.log({"horizon_step": step, **named})

    def log_file(self, path: Path) -> None:
        """Among the files of the run."""
        self._run.save(str(path), base_path=str(self._directory), policy="now")

    def end(self, status: TrackingStatus) -> None:
        """Send what is left."""
        self._run.finish(exit_code=_EXIT_CODES[status])


def _has_key(address: str) -> bool:
    """Whether the environment, or the file that `wandb login` writes, has a key."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    home = Path.home()
    names = (os.environ.get("NETRC"), home / ".netrc", home / "_netrc")
    for path in (Path(each) for each in names if each is not None):
        try:
            if path.is_file() and netrc(path).authenticators(urlsplit(address).hostname or ""):
                return True
        except (NetrcParseError, OSError):
            continue
    return False
