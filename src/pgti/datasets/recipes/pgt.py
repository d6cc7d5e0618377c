"""The files that PyTorch Geometric Temporal's loaders and DCRNN read."""

from pgti.datasets.recipes.prepared import Prepared, Request
from pgti.datasets.steps import clocked, without_zeros
from pgti.errors import DataError
from pgti.ingest import open_readings
from pgti.ingest.times import parse_start

__all__ = ["clocked_array", "frame", "json"]


def clocked_array(request: Request) -> Prepared:
    """METR-LA and PEMS-BAY: values [T, N, 2], speed and time of day, and a dense matrix [N, N].

    The time of day is no reading: it becomes the times of the rows, and a store computes it anew.
    """
    values, matrix = request.paths.values()
    options = request.options()
    readings = open_readings(values, options, has_graph=True)
    if readings.num_channels != 2:
        raise DataError(
            f"{readings.name} has {readings.num_channels} channels: the rule is speed and time of "
            "day"
        )
    start = request.dataset.start
    assert start is not None  # the catalogue says when these begin
    readings = clocked(readings, parse_start(start, None))
    if request.zeros_missing:
        readings = without_zeros(readings)
    return Prepared(readings=readings, options=options, graph=matrix)


def frame(request: Request) -> Prepared:
    """A DataFrame in HDF5, with times and sensor ids, and DCRNN's pickle of ids and matrix."""
    readings, graph = request.paths.values()
    missing = (0.0,) if request.zeros_missing else ()
    return Prepared(readings=readings, options=request.options(missing=missing), graph=graph)


def json(request: Request) -> Prepared:
    """Rows and edges in one JSON file, without times."""
    (readings,) = request.paths.values()
    options = request.options(
        interval=request.interval,
        start=request.dataset.start,
        missing=(0.0,) if request.zeros_missing else (),
    )
    return Prepared(readings=readings, options=options)
