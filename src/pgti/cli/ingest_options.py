"""The options of reading files as flags, which `pgti ingest` and `pgti predict` take."""

from typing import TYPE_CHECKING, Any, TypedDict

from pgti.cli.flags import flags_of
from pgti.ingestion.options import IngestOptions

__all__ = ["IngestFlags", "ReadingsFlags"]

_GROUPS = {
    **dict.fromkeys(("start", "interval", "time_zone", "time_format", "gaps"), "Times"),
    **dict.fromkeys(
        ("graph_kind", "graph_values", "edges", "edge_values", "threshold", "sigma", "coordinates",
         "neighbours"),
        "Graph",
    ),
    **dict.fromkeys(("known_future", "categorical"), "Covariates"),
    "budget_bytes": "Machine",
    **dict.fromkeys(("exact", "overwrite"), "Output"),
}  # fmt: skip

if TYPE_CHECKING:
    IngestFlags = dict[str, Any]
    ReadingsFlags = dict[str, Any]
else:
    _FLAGS = dict(flags_of(IngestOptions, "Readings", groups=_GROUPS))
    IngestFlags = TypedDict("IngestFlags", _FLAGS, total=False)
    # Those of readings alone: the rest is the run's, and nothing is overwritten.
    _OTHER = ("Graph", "Covariates", "Output")
    _OF_READINGS = {n: f for n, f in _FLAGS.items() if _GROUPS.get(n) not in _OTHER}
    ReadingsFlags = TypedDict("ReadingsFlags", _OF_READINGS, total=False)
