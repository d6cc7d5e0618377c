"""The tensors that an exported program takes and returns."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from pgti.batching import WindowSource
from pgti.forecasting import NetworkForecaster

__all__ = ["ProgramInterface", "TensorSpec"]

_HOLIDAY = "holiday:"
_MISSING = "in original units, NaN where missing"
_CLOCK = "wall-clock seconds since 1970-01-01 00:00"


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """A tensor of the program.

    Attributes:
        name: of the tensor.
        dtype: "float32", "float64" or "int64".
        axes: what each axis counts.
        shape: its sizes; None for the batch, which may have any.
        meaning: what it holds.
    """

    name: str
    dtype: str
    axes: tuple[str, ...]
    shape: tuple[int | None, ...]
    meaning: str

    def to_plain(self) -> dict[str, Any]:
        """Its fields by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramInterface:
    """What a program takes and returns.

    Attributes:
        inputs: in the order of its arguments.
        outputs: in order.
        channels: positions, among the channels of the series, of those that it reads.
        holidays: calendar features that it takes and cannot compute.
        uses_typical: whether it holds what each sensor usually reads.
        uses_times: whether what it computes depends on the time.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    channels: tuple[int, ...]
    holidays: tuple[str, ...]
    uses_typical: bool
    uses_times: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(each.name for each in self.inputs)

    @classmethod
    def of_run(cls, source: WindowSource, forecaster: NetworkForecaster) -> Self:
        """The interface of a run's program.

        Args:
            source: what its windows hold.
            forecaster: its network with the un-scaling.
        """
        channels = source.input_indices or tuple(range(source.store.meta.num_channels))
        holidays = tuple(name for name in source.calendar if name.startswith(_HOLIDAY))
        typical = source.typical
        is_typical = typical is not None and (source.fill == "last" or source.climatology)
        has_bins = typical is not None and is_typical and typical.num_days > 1
        uses_times = has_bins or len(source.calendar) > len(holidays)
        return cls(
            inputs=_inputs(source, forecaster, channels, holidays, (uses_times, has_bins)),
            outputs=_outputs(source, forecaster),
            channels=channels,
            holidays=holidays,
            uses_typical=is_typical,
            uses_times=uses_times,
        )


def _inputs(
    source: WindowSource,
    forecaster: NetworkForecaster,
    channels: tuple[int, ...],
    holidays: tuple[str, ...],
    times: tuple[bool, bool],
) -> tuple[TensorSpec, ...]:
    uses_times, has_bins = times
    spec, nodes, dtype = source.spec, source.num_nodes, _dtype(source)
    span, length, horizon = spec.span, spec.input_steps, spec.horizon
    specs = [
        _tensor("readings", dtype, "the last L readings of each channel and sensor, " + _MISSING,
                batch=None, input_steps=length, sensors=nodes, channels=len(channels)),
    ]  # fmt: skip
    if uses_times:
        meaning = f"of the L rows of readings and then the H rows to forecast: {_CLOCK}"
        specs.append(_tensor("times", "int64", meaning, batch=None, steps=span))
    if holidays:
        meaning = "1 on a public holiday, else 0: of the L + H rows, a column for each calendar"
        specs.append(
            _tensor("holidays", "float32", meaning, batch=None, steps=span, calendars=len(holidays))
        )
    if source.known_indices and forecaster.uses_future:
        specs.append(
            _tensor("future", dtype, "channels known in advance at the H rows to forecast, "
                    + _MISSING, batch=None, horizon=horizon, sensors=nodes,
                    channels=len(source.known_indices)),
        )  # fmt: skip
    if spec.history:
        rows = spec.history_steps
        specs.append(
            _tensor("history", dtype, "readings of earlier rows, rising, " + _MISSING,
                    batch=None, rows=rows, sensors=nodes, channels=len(channels)),
        )  # fmt: skip
        if source.fills_history and has_bins:
            meaning = f"of the rows of history: {_CLOCK}"
            specs.append(_tensor("history_times", "int64", meaning, batch=None, rows=rows))
    return tuple(specs)


def _outputs(source: WindowSource, forecaster: NetworkForecaster) -> tuple[TensorSpec, ...]:
    sizes = {
        "batch": None,
        "horizon": source.spec.horizon,
        "sensors": source.num_nodes,
        "targets": len(source.target_indices),
    }
    dtype, levels = _dtype(source), len(forecaster.quantile_levels)
    what = "forecasts, in original units"
    if not levels:
        return (_tensor("forecast", dtype, what, **sizes),)
    return (
        _tensor("forecast", dtype, f"{what}: the median", **sizes),
        _tensor("quantiles", dtype, f"{what}: every quantile, rising", **sizes, quantiles=levels),
    )


def _tensor(name: str, dtype: str, meaning: str, **sizes: int | None) -> TensorSpec:
    return TensorSpec(
        name=name, dtype=dtype, axes=tuple(sizes), shape=tuple(sizes.values()), meaning=meaning
    )


def _dtype(source: WindowSource) -> str:
    """Of readings and forecasts."""
    return "float64" if source.is_exact else "float32"
