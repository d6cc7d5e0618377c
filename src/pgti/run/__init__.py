"""The composition root: options in, built objects and trained runs out.

The one package that knows all others below it.
"""

from typing import TYPE_CHECKING

from pgti.lazy import lazy_names

if TYPE_CHECKING:
    from pgti.run.build import resolve_device as resolve_device
    from pgti.run.config import ModelConfig as ModelConfig
    from pgti.run.config import RunConfig as RunConfig
    from pgti.run.config import read_toml as read_toml
    from pgti.run.execute import train_run as train_run
    from pgti.run.model_study import study as study
    from pgti.run.planning import PlanResult as PlanResult
    from pgti.run.planning import plan as plan
    from pgti.run.results import Machine as Machine
    from pgti.run.results import Spread as Spread
    from pgti.run.results import to_json as to_json
    from pgti.run.resume import Job as Job
    from pgti.run.run import Run as Run
    from pgti.run.study_result import StudyResult as StudyResult
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
