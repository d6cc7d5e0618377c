"""Ingest a large file of every format within a memory limit.

Each `pgti ingest` runs in its own control group: its memory, page cache included, cannot exceed the
limit, and the file is several times as large.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from pgti.cli.output import log as log_line
from pgti.cli.output import print_results
from pgti.errors import ConfigError
from pgti.memory.available import parse_bytes
from pgti.run.results import Machine, to_json
from pgti_bench.large_files import FORMATS, options_of
from pgti_bench.limited_run import LimitedRun, run_limited
from pgti_bench.output import binary_size, finish
from pgti_bench.synthetic_stores import disk_usage, scratch_directory

__all__ = ["FormatMemory", "FormatsResult", "formats_command", "measure_formats"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatMemory:
    """One file, ingested within the limit.

    Attributes:
        format: its name.
        file_bytes: size of the file.
        seconds: of the command.
        peak_pss_bytes: peak memory of its process; None where it is not reported.
        group_peak_bytes: peak memory charged to its control group; None without a group.
        outcome: done, or why it is not.
    """

    format: str
    file_bytes: int
    seconds: float
    peak_pss_bytes: int | None
    group_peak_bytes: int | None
    outcome: str

    @classmethod
    def of(cls, name: str, file_bytes: int, ended: LimitedRun) -> "FormatMemory":
        """What a finished command says."""
        return cls(
            format=name,
            file_bytes=file_bytes,
            seconds=ended.seconds,
            peak_pss_bytes=ended.peak_bytes,
            group_peak_bytes=ended.group_peak_bytes,
            outcome=ended.outcome,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatsResult:
    """The result of `measure_formats`.

    Attributes:
        machine: where it was measured.
        limit_bytes: of each command.
        formats: one entry for each file.
    """

    machine: Machine
    limit_bytes: int
    formats: tuple[FormatMemory, ...]


def measure_formats(
    workdir: Path,
    *,
    names: Sequence[str],
    file_bytes: int,
    limit_bytes: int,
    log: Callable[[str], None] | None = None,
) -> FormatsResult:
    """Write a file of each format and ingest it within a limit, one after the other.

    Args:
        workdir: where files are written; they are removed.
        names: of the formats (`FORMATS`).
        file_bytes: about the size of each file.
        limit_bytes: of each command's control group.
        log: receives a line before each.

    Raises:
        ConfigError: if a format is unknown.
    """
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"the format {name!r} is unknown: choose of {'; '.join(FORMATS)}")
    found = []
    for name in names:
        file_name, write = FORMATS[name]
        path, store = workdir / file_name, workdir / "store"
        if log is not None:
            log(name)
        write(path, file_bytes)
        size = disk_usage(path) if path.is_dir() else path.stat().st_size
        command = [sys.executable, "-m", "pgti", "ingest", str(path), "--out", str(store)]
        ended = run_limited([*command, *options_of(name), "--json"], limit_bytes)
        found.append(FormatMemory.of(name, size, ended))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(store, ignore_errors=True)
    return FormatsResult(machine=Machine.here(), limit_bytes=limit_bytes, formats=tuple(found))


def formats_command(
    *,
    size: str = "2GiB",
    limit: str = "512MiB",
    formats: tuple[str, ...] = (),
    workdir: Path | None = None,
    json: bool = False,
) -> None:
    """Ingest a large file of every format within a memory limit, and report memory and time.

    Args:
        size: Size of each file.
        limit: Memory limit of each command's control group, page cache included.
        formats: Formats to measure; by default all.
        workdir: Directory for temporary files.
        json: Print one JSON object on standard output, and no table.
    """
    with scratch_directory(workdir) as scratch:
        result = measure_formats(
            Path(scratch),
            names=formats or tuple(FORMATS),
            file_bytes=parse_bytes("size", size),
            limit_bytes=parse_bytes("limit", limit),
            log=log_line,
        )
    table = Table(title=f"within {binary_size(result.limit_bytes)}", title_justify="left")
    for heading in ("format", "file", "s", "MB/s", "peak PSS", "peak of the group", "outcome"):
        table.add_column(heading, justify="left" if heading in ("format", "outcome") else "right")
    for each in result.formats:
        table.add_row(
            each.format,
            binary_size(each.file_bytes),
            f"{each.seconds:,.1f}",
            f"{each.file_bytes / each.seconds / 1e6:,.0f}",
            binary_size(each.peak_pss_bytes),
            binary_size(each.group_peak_bytes),
            each.outcome,
        )
    print_results(to_json(result), table, as_json=json)
    finish("Formats within a memory limit", result.machine, ())
