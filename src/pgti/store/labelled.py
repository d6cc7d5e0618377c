"""A store as an xarray Dataset, whose readings are read when they are indexed.

Its dimensions are `time` and `sensor`, its variables the channels, in the order of its attribute
`channels`. Times are in UTC, and their attribute `time_zone` is the zone of the store, or "wall
clock" where it has none. A missing reading is NaN. `pgti.ingest` reads a store back from it, with
the graph that it is given; known-future values after the last row and static features are not in
it.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from pgti.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from pgti.store.store import SeriesStore

__all__ = ["WALL_CLOCK", "to_dataset"]

WALL_CLOCK = "wall clock"
"""The attribute time_zone of times that are on a clock without a name."""

_COORDINATES = ("time", "sensor", "latitude", "longitude")


def to_dataset(store: "SeriesStore") -> Any:
    """The readings of a store as an `xarray.Dataset`.

    Raises:
        ConfigError: if a channel is called as a coordinate is.
        MissingExtraError: if xarray is not installed.
    """
    try:
        import xarray as xr  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MissingExtraError("xarray", "netcdf") from None
    from pgti.store.xarray_backend import lazy_channel  # noqa: PLC0415 - it imports xarray

    meta, axis = store.meta, store.time_axis
    for name in meta.channels:
        if name in _COORDINATES:
            raise ConfigError(
                f"the channel {name!r} of {store.path} has the name of a coordinate of a Dataset: "
                "ingest it with another name"
            )
    coords: dict[str, Any] = {"sensor": ("sensor", np.array(meta.node_ids, dtype=object))}
    if axis.is_dated:
        seconds = axis.seconds_at(np.arange(meta.num_steps))
        zone = meta.time_zone or WALL_CLOCK
        coords["time"] = ("time", seconds.astype("datetime64[s]"), {"time_zone": zone})
    if store.graph.coordinates is not None:
        for place, (name, unit) in enumerate(
            (("latitude", "degrees_north"), ("longitude", "degrees_east"))
        ):
            attributes = {"standard_name": name, "units": unit}
            coords[name] = ("sensor", store.graph.coordinates[:, place], attributes)
    variables = {
        name: (("time", "sensor"), lazy_channel(store, place), {"units": unit} if unit else {})
        for place, (name, unit) in enumerate(zip(meta.channels, meta.units, strict=True))
    }
    return xr.Dataset(variables, coords, attrs={"channels": ",".join(meta.channels)})
