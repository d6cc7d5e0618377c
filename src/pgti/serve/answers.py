"""Forecasts as JSON or Arrow."""

import json
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydantic_core import to_json

from pgti.serve.arrow_streams import MEDIA_TYPE as ARROW
from pgti.serve.arrow_streams import write_stream
from pgti.serve.problems import RequestError

__all__ = ["JSON", "Layout", "choose_media_type", "encode_forecasts", "plain_columns"]

JSON = "application/json"
Layout: TypeAlias = Literal["records", "columns"]

_DIGITS = 7  # that float32 has


def choose_media_type(accept: str) -> str:
    """The type of an answer that a client prefers.

    Raises:
        RequestError: if it takes none of them.
    """
    found: list[tuple[float, str]] = []
    for part in accept.lower().split(",") if accept.strip() else ["*/*"]:
        name, *parameters = (each.strip() for each in part.split(";"))
        if name in (JSON, ARROW, "*/*", "application/*"):
            chosen = ARROW if name == ARROW else JSON
            found.append((_weight_of(parameters), chosen))
    best = max(found, key=lambda each: each[0], default=(0.0, JSON))
    if best[0] <= 0:
        raise RequestError(406, f"the request accepts {accept[:100]!r}: ask for {JSON} or {ARROW}")
    return best[1]


def _weight_of(parameters: list[str]) -> float:
    for each in parameters:
        if each.startswith("q="):
            try:
                return float(each[2:])
            except ValueError:
                return 0.0
    return 1.0


def encode_forecasts(
    frame: pd.DataFrame, about: dict[str, Any], media_type: str, layout: Layout
) -> bytes:
    """What `run.forecast` returns, as the body of an answer.

    Args:
        frame: of the forecasts.
        about: what else the answer says.
        media_type: JSON or Arrow.
        layout: of JSON.
    """
    frame = frame.drop(columns="observed")
    if media_type == ARROW:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        return write_stream(table.replace_schema_metadata({"pgti": json.dumps(about)}))
    columns = plain_columns(frame.drop(columns="origin"))  # the answer says it once
    forecasts: Any = columns
    if layout == "records":
        names = list(columns)
        rows = zip(*columns.values(), strict=True)
        forecasts = [dict(zip(names, row, strict=True)) for row in rows]
    return to_json({**about, "forecasts": forecasts}, inf_nan_mode="null")


def plain_columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns of forecasts as lists of texts and numbers; NaN where one is not known."""
    return {str(name): _plain(frame[name]) for name in frame.columns}


def _plain(column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        words = [str(each) for each in column.cat.categories]
        return [words[code] for code in column.cat.codes]
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        codes, times = pd.factorize(column)
        texts = [pd.Timestamp(each).isoformat() for each in times]
        return [texts[code] for code in codes]
    if column.dtype == np.float32:
        shortened: list[Any] = _shorten(column.to_numpy()).tolist()
        return shortened
    values: list[Any] = column.tolist()
    return values


def _shorten(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Values in float64 with the digits that float32 has: 61.3, not 61.29999923706055."""
    wide = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = _DIGITS - 1 - np.floor(np.log10(np.abs(wide)))
        usual = np.isfinite(places) & (np.abs(places) < 15)
        factor = 10.0 ** np.where(usual, places, 0)
        return np.where(usual, np.rint(wide * factor) / factor, wide)
