"""What to measure of a training step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import numpy as np
from cyclopts import Parameter
from scipy.spatial import cKDTree

from pgti.errors import ConfigError, require_whole_number
from pgti.graph import SensorGraph
from pgti.models import MODELS
from pgti.training.config import Precision
from pgti_bench.devices import Device, check_device
from pgti_bench.step.network import LAYER, resolve_options

__all__ = ["StepOptions", "nearest_graph"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOptions:
    """What to measure.

    Attributes:
        model: `layer`, which PGT has too, or one of pgti's models.
        model_options: of that model; the others have their defaults.
        nodes: Sensors of the random graph, if no graph is given.
        degree: Edges from each of its sensors.
        steps: Input steps of a window; equally many are forecast.
        batch_size: Windows per step.
        precision: Precision of pgti's step, or float32 and bfloat16 interleaved ("both"); PGT's is
            float32.
        activation_checkpointing: As `pgti train --activation-checkpointing on`.
        compile: Measure the compiled step, too, interleaved with the uncompiled one.
        device: Where to compute: cpu or cuda.
        threads: Threads of each process; torch's choice if not given.
        rounds: Measurements of each contender.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """

    model: Annotated[str, Parameter(parse=False)] = LAYER
    model_options: Annotated[Mapping[str, Any], Parameter(parse=False)] = field(
        default_factory=dict
    )
    nodes: int = 207
    degree: int = 8
    steps: int = 12
    batch_size: int = 64
    precision: Literal["float32", "tf32", "bfloat16", "both"] = "float32"
    activation_checkpointing: bool = False
    compile: bool = False
    device: Device = "cpu"
    threads: int | None = None
    rounds: int = 5

    def __post_init__(self) -> None:
        for name in ("nodes", "degree", "steps", "batch_size", "rounds"):
            require_whole_number(name, getattr(self, name), 1)
        if self.threads is not None:
            require_whole_number("threads", self.threads, 1)
        object.__setattr__(self, "model_options", resolve_options(self.model, self.model_options))
        for precision in self.precisions:
            if precision not in get_args(Precision):
                raise ConfigError(
                    f"precision is {precision!r}: it is one of float32, tf32, bfloat16, both"
                )
        if self.activation_checkpointing and not (
            self.model in MODELS and MODELS[self.model].model.can_checkpoint_activations
        ):
            raise ConfigError(
                f"activation_checkpointing is on and the model {self.model!r} cannot recompute "
                "its activations: leave it out"
            )
        check_device(self.device)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions of pgti's steps."""
        return ("float32", "bfloat16") if self.precision == "both" else (self.precision,)


def nearest_graph(num_nodes: int, degree: int = 8, seed: int = 0) -> SensorGraph:
    """Random points in a square, each with an edge to its nearest ones.

    As in the graphs of the traffic data sets, an edge to the point itself is among them, and
    weights are a Gaussian kernel of the distance. METR-LA has 8.3 edges per sensor so counted.

    Args:
        num_nodes: N, at least 1.
        degree: edges from each point, at least 1; all N if there are fewer points.
        seed: of the points.

    Raises:
        ConfigError: if a number is less than its minimum.
    """
    require_whole_number("nodes", num_nodes, 1)
    require_whole_number("degree", degree, 1)
    degree = min(degree, num_nodes)
    points = np.random.default_rng(seed).random((num_nodes, 2))
    found, nearest = cKDTree(points).query(points, k=np.arange(1, degree + 1))
    distances = np.asarray(found)
    scale = distances[:, -1].mean() or 1.0
    return SensorGraph.from_edges(
        num_nodes,
        np.repeat(np.arange(num_nodes), degree),
        np.asarray(nearest).reshape(-1),
        np.exp(-((distances / scale) ** 2)).reshape(-1),
    )
