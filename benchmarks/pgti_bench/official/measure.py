"""A training step of a model beside the same function, computed as its released code does."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.graph import SensorGraph, from_dense
from pgti.memory import LiveBytes
from pgti.models import MODELS, AbstractModel, ModelShape, build_model
from pgti.run.results import Machine, Spread
from pgti_bench.errors import DifferenceError
from pgti_bench.interleave import interleave, spread_of_ratios
from pgti_bench.official.rivals import RIVALS

__all__ = ["OfficialOptions", "OfficialResult", "StepBeside", "measure_official"]

_EDGES_PER_SENSOR = 8
_ROWS_PER_DAY = 288


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficialOptions:
    """What to measure; the defaults are the sizes of METR-LA.

    Attributes:
        sensors: N.
        batch_size: windows of a step.
        input_steps: L.
        horizon: H.
        threads: of torch.
        rounds: steps of each that are measured, in turn.
        tolerance: of the difference of their forecasts, as a share of the largest.
    """

    sensors: int = 207
    batch_size: int = 32
    input_steps: int = 12
    horizon: int = 12
    threads: int = 2
    rounds: int = 9
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("sensors", "batch_size", "input_steps", "horizon", "threads", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBeside:
    """One model.

    Attributes:
        model: its name.
        code: how the other computes.
        own_seconds: of a step of pgti.
        official_seconds: of a step of the other.
        ratio: the other's over pgti's, of steps next to one another.
        own_peak_bytes: the most that tensors of a pass forward and backward take.
        official_peak_bytes: the same of the other.
        difference: of their forecasts with the same weights, over the largest.
    """

    model: str
    code: str
    own_seconds: Spread
    official_seconds: Spread
    ratio: Spread
    own_peak_bytes: int
    official_peak_bytes: int
    difference: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficialResult:
    """The result of `measure_official`.

    Attributes:
        machine: where it was measured.
        options: what was measured.
        load: of the machine in the last minute, before.
        models: in the given order.
    """

    machine: Machine
    options: OfficialOptions
    load: float
    models: tuple[StepBeside, ...]


def measure_official(
    models: Sequence[str],
    options: OfficialOptions,
    *,
    load: float = 0.0,
    log: Callable[[str], None] = lambda _: None,
) -> OfficialResult:
    """Time steps of models and of their rivals in turn, with the same weights at first.

    A step is a pass forward and backward of a batch of random windows, and Adam. The graph is
    random, sensors on a plane with about eight edges each, as METR-LA's.

    Args:
        models: names, of `RIVALS`.
        options: what to measure.
        load: of the machine, for the record.
        log: receives one line for each model.

    Raises:
        ConfigError: there is no such model, or no rival of it.
        DifferenceError: a model and its rival differ in their forecasts.
    """
    for name in models:
        if name not in MODELS:
            raise ConfigError(f"there is no model {name!r}: it is one of {', '.join(RIVALS)}")
        if name not in RIVALS:
            raise ConfigError(
                f"model {name!r} has no rival here: those that have are {', '.join(RIVALS)}"
            )
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        found = []
        for name in models:
            log(f"timing {name}")
            found.append(_beside(name, options))
    finally:
        torch.set_num_threads(threads)
    return OfficialResult(machine=Machine.here(), options=options, load=load, models=tuple(found))


def _beside(name: str, options: OfficialOptions) -> StepBeside:
    """One model."""
    model_class = MODELS[name].model
    assert isinstance(model_class, type)  # a network of the user's own has no rival
    uses = {
        "time-of-day": model_class.uses_time_of_day,
        "day-of-week": model_class.uses_day_of_week,
    }
    calendar = tuple(feature for feature, is_used in uses.items() if is_used)
    shape = ModelShape(
        input_steps=options.input_steps,
        horizon=options.horizon,
        num_nodes=options.sensors,
        input_channels=1 + len(calendar),
        target_channels=1,
        target_indices=(0,),
        calendar=calendar,
        steps_per_day=_ROWS_PER_DAY,
    )
    torch.manual_seed(0)
    model = build_model(name, {}, shape)
    assert isinstance(model, AbstractModel)
    supports = model.build_supports(_random_graph(options.sensors))
    rival = RIVALS[name].build(model, supports)
    x, y = _windows(shape, options.batch_size)
    networks: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "own": (model, lambda: model(x, supports)),
        "official": (rival, lambda: rival(x)),
    }
    difference = _difference(networks)
    if difference > options.tolerance:
        raise DifferenceError(
            f"{name} and its rival differ by {difference:.1e} of the largest forecast, more than "
            f"{options.tolerance:.1e}: they do not compute the same function"
        )
    steps, peaks = {}, {}
    for key, (network, forward) in networks.items():
        network.train()
        steps[key] = _step(network, forward, y)
        with LiveBytes() as memory:
            torch.autograd.backward((forward() - y).abs().mean())
        peaks[key] = memory.peak_bytes
    seconds = interleave(steps, options.rounds, warmups=2)
    return StepBeside(
        model=name,
        code=RIVALS[name].code,
        own_seconds=Spread.of(seconds["own"]),
        official_seconds=Spread.of(seconds["official"]),
        ratio=spread_of_ratios(seconds["official"], seconds["own"]),
        own_peak_bytes=peaks["own"],
        official_peak_bytes=peaks["official"],
        difference=difference,
    )


def _difference(networks: dict[str, tuple[nn.Module, Callable[[], Tensor]]]) -> float:
    """Of the forecasts of two networks, over the largest number in them."""
    forecasts = []
    for network, forward in networks.values():
        network.eval()
        with torch.no_grad():
            forecasts.append(forward())
    own, official = forecasts
    return float((own - official).abs().max() / own.abs().max())


def _step(network: nn.Module, forward: Callable[[], Tensor], y: Tensor) -> Callable[[], float]:
    """A training step that returns its seconds."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        torch.autograd.backward((forward() - y).abs().mean())
        optimizer.step()
        return time.perf_counter() - began

    return step


def _random_graph(num_nodes: int) -> SensorGraph:
    """The nearest pairs of sensors on a plane, both directions of each with its own weight."""
    generator = np.random.default_rng(0)
    places = generator.random((num_nodes, 2))
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    number = min(_EDGES_PER_SENSOR * num_nodes, num_nodes * (num_nodes - 1))
    limit = np.partition(distances.ravel(), number - 1)[number - 1] if number else 0.0
    weights = generator.uniform(0.1, 1.0, distances.shape)
    return from_dense(np.where(distances <= limit, weights, 0.0))


def _windows(shape: ModelShape, batch: int) -> tuple[Tensor, Tensor]:
    """Random inputs with a calendar, and targets."""
    x = torch.randn(batch, shape.input_steps, shape.num_nodes, shape.input_channels)
    rows = torch.arange(batch)[:, None] * 97 + torch.arange(shape.input_steps)
    features = {
        "time-of-day": rows % _ROWS_PER_DAY / _ROWS_PER_DAY,
        "day-of-week": rows // _ROWS_PER_DAY % 7 / 7,
    }
    for name in shape.calendar:
        position = shape.calendar_position(name)
        x[..., position] = features[name][..., None]
    return x, torch.randn(batch, shape.horizon, shape.num_nodes, shape.target_channels)
