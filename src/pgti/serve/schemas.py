"""What requests and answers hold, as OpenAPI describes them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ForecastAnswer",
    "ForecastRequest",
    "Metadata",
    "ProblemAnswer",
    "Reading",
    "ReadingsTable",
]

_Value = Annotated[float, Field(allow_inf_nan=False, ge=-3e38, le=3e38)] | None
_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Sensor = _Name | int
_Time = Annotated[str, Field(min_length=1, max_length=64, examples=["2025-10-31T23:55:00"])]
_EPOCH = Field(description="whose parameters forecast, counted from 1 as training prints it")
_STRICT = ConfigDict(extra="forbid", strict=True)


class Reading(BaseModel):
    """One reading of one sensor."""

    model_config = _STRICT

    time: _Time = Field(description="ISO 8601; without an offset, on the clock of the series")
    sensor: _Sensor
    channel: _Name | None = Field(None, description="needed where the run has several")
    value: _Value = Field(description="null where it is missing")


class ReadingsTable(BaseModel):
    """Readings of some times x some sensors."""

    model_config = _STRICT

    times: Annotated[list[_Time], Field(fail_fast=True)]
    sensors: Annotated[list[_Sensor], Field(fail_fast=True)]
    channels: list[_Name] | None = Field(None, description="needed where the run has several")
    values: (
        Annotated[list[Annotated[list[_Value], Field(fail_fast=True)]], Field(fail_fast=True)]
        | Annotated[
            list[
                Annotated[
                    list[Annotated[list[_Value], Field(fail_fast=True)]], Field(fail_fast=True)
                ]
            ],
            Field(fail_fast=True),
        ]
    ) = Field(description="[times][sensors], or [times][sensors][channels]; null is missing")


class ReadOptions(BaseModel):
    """How to read the readings, where that is not as in training."""

    model_config = _STRICT

    scale: list[float] | None = Field(
        None, max_length=1000, description="factors from values to readings"
    )
    missing: list[float | _Name] | None = Field(
        None, max_length=1000, description="values that mean missing"
    )
    time_zone: _Name | None = Field(None, description="IANA name of the zone of times")


_Readings = Annotated[list[Reading], Field(fail_fast=True)] | ReadingsTable


class ForecastRequest(BaseModel):
    """What to forecast from; nothing for the run's store as it is now."""

    model_config = _STRICT

    readings: _Readings | None = None
    future: _Readings | None = Field(
        None, description="values of channels that are known in advance, after the last reading"
    )
    options: ReadOptions | None = None


class ForecastAnswer(BaseModel):
    """Forecasts of every sensor."""

    model: str
    epoch: int | None = _EPOCH
    origin: str | int | None = Field(description="time of the last input; its row without times")
    interval_seconds: float | None
    time_zone: str | None
    units: dict[str, str] = Field(description="of each channel")
    notes: list[str] = Field(description="what was put right, filled or left out")
    forecasts: list[dict[str, Any]] | dict[str, list[Any]] = Field(
        description="records, or columns by name: timestamp, horizon, sensor, channel, "
        "forecast, quantiles by level, lo-80 and hi-80 and so on, missing_inputs, missing_newest"
    )


class Metadata(BaseModel):
    """What the server forecasts, and what it takes."""

    run: str
    model: str
    parameters: int
    epoch: int | None = _EPOCH
    loaded: str = Field(description="when the model was loaded, ISO 8601")
    sensors: list[str]
    coordinates: list[list[float]] | None = Field(description="latitude, longitude of each sensor")
    channels: list[str]
    targets: list[str]
    known_future: list[str]
    units: dict[str, str]
    input_steps: int
    horizon: int
    history: list[str]
    interval_seconds: float | None
    time_zone: str | None
    intervals: list[float]
    quantiles: list[float]
    read_options: dict[str, Any] = Field(description="how readings are read unless options say so")
    limits: dict[str, float]
    versions: dict[str, str]


class ProblemAnswer(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
