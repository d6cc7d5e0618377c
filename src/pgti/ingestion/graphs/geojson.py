"""Sensors as points in a GeoJSON file or a GeoPandas frame."""

from pathlib import Path
from typing import Any

import numpy as np

from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates
from pgti.ingestion.readings import ID_NAMES, ids_to_text, reraise_read_errors
from pgti.ingestion.tables.text_files import open_text, parse_json

__all__ = ["geo_frame_graph", "read_geojson_graph"]

_NO_LINES = (
    "a sensor is a point, and which sensors a line joins is not in it; give a list of edges "
    "(from,to,distance), or points"
)


def read_geojson_graph(path: Path, options: IngestOptions) -> RawCoordinates:
    """The points of a GeoJSON file (RFC 7946: longitude, latitude), with ids of their properties.

    Raises:
        DataError: if the file is damaged, or a feature is no point.
    """
    name = path.name
    with reraise_read_errors(name, "GeoJSON"), open_text(path) as file:
        content = parse_json(file, name)
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list) or not features:
        raise DataError(f"{name} is not a GeoJSON FeatureCollection of sensors: give it features")
    latlon = np.empty((len(features), 2))
    for place, feature in enumerate(features):
        geometry: Any = feature.get("geometry") if isinstance(feature, dict) else None
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind != "Point":
            what = "has no geometry" if kind is None else f"is a {kind}"
            raise DataError(f"feature {place} of {name} {what}: {_NO_LINES}")
        try:
            longitude, latitude, *_ = geometry["coordinates"]
            latlon[place] = float(latitude), float(longitude)
        except (KeyError, OverflowError, TypeError, ValueError):
            raise DataError(
                f"feature {place} of {name} has the coordinates "
                f"{str(geometry.get('coordinates'))[:40]}: the rule is [longitude, latitude]"
            ) from None
    columns = [feature.get("properties") or {} for feature in features]
    odd = next((place for place, each in enumerate(columns) if not isinstance(each, dict)), None)
    if odd is not None:
        raise DataError(
            f"feature {odd} of {name} has the properties {str(columns[odd])[:40]}: the rule is an "
            "object"
        )
    labels = _labels(columns, [feature.get("id") for feature in features], options, name)
    return RawCoordinates(name=name, latlon=latlon, node_ids=labels)


def _labels(
    properties: list[dict[str, Any]], own: list[Any], options: IngestOptions, name: str
) -> tuple[str, ...] | None:
    """Ids of the features: a property that is named or has a usual name, else their own."""
    usual = (*ID_NAMES, "sensor", "node", "name")
    for key in (options.ids,) if options.ids else usual:
        lower = [{str(title).lower(): cell for title, cell in each.items()} for each in properties]
        found = [each.get(key.lower()) for each in lower]
        if all(isinstance(label, str | int | float) for label in found):
            return ids_to_text(found)
    if options.ids:
        raise DataError(
            f"not every feature of {name} has the property {options.ids!r} ({option('ids')}); the "
            f"first has {', '.join(map(str, properties[0])) or 'none'}"
        )
    return ids_to_text(own) if all(isinstance(each, str | int) for each in own) else None


def geo_frame_graph(frame: Any, name: str, options: IngestOptions) -> RawCoordinates:
    """The points of a GeoPandas frame, in any coordinate reference system.

    Ids are those of a column that is named or has a usual name, else of an index that does not
    count rows.

    Raises:
        DataError: if a geometry is no point, or the frame does not say its reference system.
    """
    kinds = frame.geometry.geom_type
    others = frame.index[(kinds != "Point").to_numpy()]
    if len(others):
        raise DataError(f"row {others[0]} of {name} is a {kinds.loc[others[0]]}: {_NO_LINES}")
    if frame.crs is None:
        raise DataError(
            f"{name} does not say its coordinate reference system: set it with set_crs, to 4326 "
            "if its points are longitude and latitude"
        )
    points = frame.geometry.to_crs(4326)
    latlon = np.stack([points.y.to_numpy(), points.x.to_numpy()], axis=1).astype(np.float64)
    own = [None] * len(frame)
    if type(frame.index).__name__ != "RangeIndex":
        own = frame.index.tolist()
    rows = frame.drop(columns=frame.geometry.name).to_dict("records")
    return RawCoordinates(name=name, latlon=latlon, node_ids=_labels(rows, own, options, name))
