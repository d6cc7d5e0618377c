"""A published data set: its shape, where its files are, what they mean, how they are read."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pgti.datasets.options import Zeros
from pgti.datasets.protocol import Protocol
from pgti.ingestion import GraphSource, IngestOptions, ReadingsSource
from pgti.ingestion.options import Gaps

__all__ = ["Dataset", "Download", "FileSet", "Prepared", "Request"]

_STORED_BYTES = 4  # float32; int16, where the readings lie on a grid, takes half


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A file that can be downloaded.

    Attributes:
        name: file name.
        url: https address.
        num_bytes: reported size; shown, never relied on.
        md5: MD5 that its publisher states, if any.
    """

    name: str
    url: str
    num_bytes: int | None = None
    md5: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSet:
    """The files of a data set in one of the forms in which people have them.

    Attributes:
        recipe: function that reads them.
        files: their names; `{year}` stands for each year that is wanted, `{years}` for all of
            them joined by underscores. A file of a folder may also be outside of it.
        archives: zip files that may hold them.
    """

    recipe: Callable[["Request"], "Prepared"]
    files: tuple[str, ...]
    archives: tuple[str, ...] = ()

    def names(self, years: tuple[int, ...]) -> tuple[str, ...]:
        """The names of the files for some years."""
        joined = "_".join(map(str, years))
        return tuple(
            name.format(year=year, years=joined)
            for name in self.files
            for year in (years if "{year}" in name else (0,))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A published data set.

    Attributes:
        name: its usual name.
        summary: what was read, where and when.
        num_steps: time steps, T, of the default form.
        num_nodes: sensors, N.
        channels: names of the channels, the one that papers forecast first.
        units: unit of each channel.
        interval: time between steps, such as "5min".
        start: wall-clock time of the first step; None where it is not known.
        zeros: what a zero in the first channel means by default.
        zeros_note: why, in one line; may be empty.
        licence: terms that its publishers state.
        source_page: page that describes it, and where its files can be found by hand.
        file_sets: forms in which its files come, the preferred one first.
        downloads: files that `fetch` can download; empty: they must be downloaded by hand.
        years: years with files; empty where files are not by year.
        default_years: years that papers use.
        gaps: what becomes of rows that its times show to be missing: "fill" inserts missing
            readings, "keep" leaves them out, as official code does.
        notes: what a user should know of the readings, one line each.
        protocol: how papers evaluate on it; None where no paper states windows.
    """

    name: str
    summary: str
    num_steps: int
    num_nodes: int
    channels: tuple[str, ...]
    units: tuple[str, ...]
    interval: str
    start: str | None
    zeros: Zeros
    licence: str
    source_page: str
    file_sets: tuple[FileSet, ...]
    downloads: tuple[Download, ...] = ()
    years: tuple[int, ...] = ()
    default_years: tuple[int, ...] = ()
    gaps: Gaps = "fill"
    zeros_note: str = ""
    notes: tuple[str, ...] = ()
    protocol: Protocol | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, N, C."""
        return self.num_steps, self.num_nodes, len(self.channels)

    @property
    def store_bytes_at_most(self) -> int:
        """Bytes of the series in a store if no grid holds the readings, which halves them."""
        return math.prod(self.shape) * _STORED_BYTES

    @property
    def download_bytes(self) -> int | None:
        """Bytes of the downloads whose size is known; None if there are none."""
        known = [each.num_bytes for each in self.downloads if each.num_bytes is not None]
        return sum(known) if known else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a recipe has to prepare.

    Attributes:
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
        """Options with channels, units and, unless `interval` is given, what becomes of gaps.

        `interval` is given for readings without times, in which no gap shows.
        """
        dataset = self.dataset
        options = IngestOptions(
            channels=dataset.channels,
            units=dataset.units,
            overwrite=self.overwrite,
            gaps="error" if "interval" in others else dataset.gaps,
        )
        return replace(options, **others)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What `pgti.ingest` is called with.

    Attributes:
        readings: the readings.
        options: how to read them.
        graph: the graph; None takes that of the readings.
    """

    readings: ReadingsSource
    options: IngestOptions
    graph: GraphSource | None = None
