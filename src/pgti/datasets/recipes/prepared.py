"""What a recipe is asked for, and what it gives to `pgti.ingest`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pgti.datasets.dataset import Dataset
from pgti.ingest import GraphSource, IngestOptions, ReadingsSource

__all__ = ["Prepared", "Request"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a recipe is asked for.

    Args:
        dataset: the data set.
        paths: path of each of its files, by name.
        zeros_missing: whether a zero in the first channel is a missing reading.
        years: years wanted, where the files are by year.
        interval: time between the steps of the store.
        overwrite: whether a store of the target's name is replaced.
    """

    dataset: Dataset
    paths: dict[str, Path]
    zeros_missing: bool
    years: tuple[int, ...] = ()
    interval: str
    overwrite: bool = False

    def options(self, **others: Any) -> IngestOptions:
        """What is always said: names and units of the channels, gaps filled.

        Gaps can only be filled where the readings have times: `interval` says that they have not.
        """
        dataset = self.dataset
        options = IngestOptions(
            channels=dataset.channels,
            units=dataset.units,
            overwrite=self.overwrite,
            gaps="error" if "interval" in others else "fill",
        )
        return replace(options, **others)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What `pgti.ingest` is called with.

    Args:
        readings: the readings.
        options: what they do not say themselves.
        graph: the graph; None takes that of the readings.
    """

    readings: ReadingsSource
    options: IngestOptions
    graph: GraphSource | None = None
