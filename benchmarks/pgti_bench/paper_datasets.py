"""The data sets of the index-batching paper: their shapes, and their memory by its formulas.

Shapes and formulas are those of Ockerman et al., "PGT-I" (arXiv 2507.11683), and of its published
code. The series themselves are not needed: a simulated one of the same shape takes the same memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pgti
from pgti.errors import ConfigError

__all__ = [
    "DATASETS",
    "PAPER_DATASETS",
    "SPLIT_FRACTIONS",
    "DatasetShape",
    "MemoryNeeds",
    "find_datasets",
]

SPLIT_FRACTIONS = (0.7, 0.1, 0.2)
"""Training, validation and test windows, as the paper and PGT split them."""

_FLOAT64, _FLOAT32, _INT16 = 8, 4, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryNeeds:
    """Bytes that a data set takes, by formula.

    Attributes:
        windows: number of windows of the series, all splits together, S = T - (2 h - 1).
        standard: every window, inputs and targets, as the paper's code holds them: 2 S h N F
            numbers in float64.
        standard_peak: the peak while they are built: both lists of windows are alive while the
            first is stacked.
        paper_index: the paper's index-batching: the series T N F in float64 and the starts.
        paper_device: the paper's GPU-index-batching: the series T N F in float32.
        series: pgti's series, T N C in int16: stored once, memory-mapped for index batches and
            copied for device batches. Observations that no int16 grid holds take twice that.
    """

    windows: int
    standard: int
    standard_peak: int
    paper_index: int
    paper_device: int
    series: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetShape:
    """The shape of a data set and of its windows.

    Attributes:
        name: its name here.
        title: its name in the paper.
        num_steps: time steps, T.
        num_nodes: sensors, N.
        num_features: features that the paper's code stores for each observation, F; if it is 2,
            the second is the time of day, which pgti computes and never stores.
        window_steps: input steps, and equally many forecast steps, h.
        interval_seconds: between time steps, of the simulated series.
        is_sparse: whether a series of this shape is a short simulated one followed by a hole.
    """

    name: str
    title: str
    num_steps: int
    num_nodes: int
    num_features: int
    window_steps: int
    interval_seconds: int = 300
    is_sparse: bool = False

    @property
    def needs(self) -> MemoryNeeds:
        """Its memory by formula."""
        windows = self.num_steps - (2 * self.window_steps - 1)
        readings = self.num_steps * self.num_nodes
        numbers = 2 * windows * self.window_steps * self.num_nodes * self.num_features
        return MemoryNeeds(
            windows=windows,
            standard=numbers * _FLOAT64,
            standard_peak=numbers * _FLOAT64 * 3 // 2,
            paper_index=readings * self.num_features * _FLOAT64 + windows * _FLOAT64,
            paper_device=readings * self.num_features * _FLOAT32,
            series=readings * _INT16,
        )


def _shape(name: str, published: str, window_steps: int, title: str = "") -> DatasetShape:
    """The shape of a data set that `pgti datasets` knows as `published`."""
    known = pgti.DATASETS[published]
    is_traffic = known.interval == "5min"
    return DatasetShape(
        name=name,
        title=title or published,
        num_steps=known.num_steps,
        num_nodes=known.num_nodes,
        num_features=2 if is_traffic else 1,
        window_steps=window_steps,
        interval_seconds=300 if is_traffic else 3600,
    )


PAPER_DATASETS = (
    _shape("chickenpox", "Chickenpox-Hungary", 4),
    _shape("windmill", "Windmill-Large", 8),
    _shape("metr-la", "METR-LA", 12),
    _shape("pems-bay", "PEMS-BAY", 12, "PeMS-BAY"),
    _shape("pems-all-la", "PeMS-All-LA", 12),
    _shape("pems", "PeMS", 12),
)
"""The six data sets of the paper, the smallest first."""

_TEN_YEARS = replace(
    PAPER_DATASETS[-1],
    name="pems-ten-years",
    title="ten years of PeMS",
    num_steps=10 * PAPER_DATASETS[-1].num_steps,
    is_sparse=True,
)

DATASETS = {shape.name: shape for shape in (*PAPER_DATASETS, _TEN_YEARS)}
"""By name: those of the paper, and one ten times as long as the largest of them."""


def find_datasets(names: Sequence[str]) -> tuple[DatasetShape, ...]:
    """The data sets of these names, each once, in the order given.

    Raises:
        ConfigError: a name is unknown, or there is none.
    """
    for name in names:
        if name not in DATASETS:
            raise ConfigError(f"there is no data set {name!r}: it is one of {', '.join(DATASETS)}")
    if not names:
        raise ConfigError(f"datasets is empty: name some of {', '.join(DATASETS)}")
    return tuple(DATASETS[name] for name in dict.fromkeys(names))
