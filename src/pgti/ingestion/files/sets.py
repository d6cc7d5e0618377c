"""Several sources that a user gives as one: paths, a pattern, a directory, an archive, frames."""

import glob
import re
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from pgti.display import count_of, shorten
from pgti.errors import ConfigError, DataError, StoreError
from pgti.ingestion.arrays.window_pairs import window_files
from pgti.ingestion.files.basicts import find_basicts
from pgti.ingestion.formats import (
    ARROW_SUFFIXES,
    HDF5_SUFFIXES,
    MATLAB_SUFFIXES,
    NETCDF_SUFFIXES,
    PARQUET_SUFFIXES,
    TEXT_SUFFIXES,
)
from pgti.ingestion.labelled.files import is_zarr
from pgti.ingestion.readings import reraise_read_errors
from pgti.ingestion.remote import as_url, copy_of, is_zarr_url
from pgti.ingestion.scratch import call_after_scratch, scratch_directory
from pgti.ingestion.tables.text_files import COMPRESSED_SUFFIXES
from pgti.storage import reraise_os_errors

__all__ = ["SourceSet", "find_sources"]

Source = TypeVar("Source")

_SUFFIXES = (
    *(*TEXT_SUFFIXES, *PARQUET_SUFFIXES, *ARROW_SUFFIXES, *HDF5_SUFFIXES, *NETCDF_SUFFIXES),
    *(*MATLAB_SUFFIXES, ".npy", ".npz", ".json"),
)
_COMPRESSED = tuple(each for each in COMPRESSED_SUFFIXES if each != ".zip")
_PATTERN = re.compile(r"[*?\[]")
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class SourceSet(Generic[Source]):
    """Several sources of readings that make one series.

    Attributes:
        name: what messages call them together.
        sources: those, by what they are called: the paths of files below the directory that they
            share, names that the user gave to frames, or their numbers.
        are_named: whether those are names, and not numbers.
        are_ordered: whether the user put them in an order, which a pattern does not.
        held: sets that they are from, whose temporary files live as long.
    """

    name: str
    sources: Mapping[str, Source]
    are_named: bool = True
    are_ordered: bool = False
    held: tuple[Any, ...] = ()


def find_sources(source: Any) -> Any:
    """The one source that a user gives, or a `SourceSet` of several.

    Args:
        source: a path, a pattern such as "readings/*.csv" ("**" for directories below), a directory
            of files, a zip of several files, a list of sources, sources by name, or anything else,
            which is returned.

    Raises:
        ConfigError: if a list is empty, or what it holds is a series of its own.
        DataError: if a pattern, a directory or an archive has no files of readings.
        StoreError: if the files of an archive find no room.
    """
    if isinstance(source, SourceSet):
        return source
    if isinstance(source, dict):
        if not source:
            raise ConfigError("the source is empty: give sources by name")
        named = {str(name): each for name, each in source.items()}
        return SourceSet(f"the {count_of(len(named), 'source')}", named)
    if isinstance(source, list | tuple):
        return _from_list(source)
    return _from_path(source) if isinstance(source, str | Path) else source


def _from_path(source: str | Path) -> Any:
    url = as_url(source)
    if url is not None:
        return url if is_zarr_url(url) else find_sources(copy_of(url))
    path = Path(source)
    if path.is_dir() and not _is_array(path):
        return _one_or_all(path.name, _files_in(path))
    if path.is_file() and path.suffix.lower() == ".zip" and not is_zarr(path):
        return _from_archive(path)
    if path.exists() or not _PATTERN.search(str(source)):
        return source
    found = map(Path, glob.glob(str(source), recursive=True))  # noqa: PTH207 - absolute ones too
    files = sorted((each for each in found if each.is_file()), key=_natural)
    if not files:
        raise DataError(f"no file is called {source}: check the pattern")
    return _one_or_all(path.name, files)


def _one_or_all(name: str, files: list[Path]) -> Any:
    return files[0] if len(files) == 1 else _named_set(name, files)


def _from_list(given: "list[Any] | tuple[Any, ...]") -> Any:
    if not given:
        raise ConfigError("the source is empty: give at least one file of readings")
    if len(given) == 1:
        return find_sources(given[0])
    if not any(isinstance(each, str | Path) for each in given):
        sources = {str(number): each for number, each in enumerate(given, 1)}
        name = f"the set of {count_of(len(given), 'source')}"
        return SourceSet(name, sources, are_named=False, are_ordered=True)
    files: list[Path] = []
    held = []
    for each in given:
        if not isinstance(each, str | Path):
            raise ConfigError(f"the source has files and a {type(each).__name__}: give one kind")
        found = find_sources(each)
        if isinstance(found, SourceSet):
            files += found.sources.values()
            held.append(found)
        else:
            files.append(Path(found))
    twice = next((each for each in files if files.count(each) > 1), None)
    if twice is not None:
        raise DataError(f"the file {twice} is given twice: give each once")
    name = f"the set of {count_of(len(files), 'file')}"
    return replace(_named_set(name, files), are_ordered=True, held=tuple(held))


def _named_set(name: str, files: list[Path]) -> "SourceSet[Path]":
    """Files by the shortest of their paths that tells them apart."""
    names = [each.name for each in files]
    if len(set(names)) < len(names):
        shared = Path(*_shared_parts([each.absolute() for each in files]))
        names = [str(each.absolute().relative_to(shared)) for each in files]
    return SourceSet(name, dict(zip(names, files, strict=True)))


def _shared_parts(paths: list[Path]) -> Iterator[str]:
    for parts in zip(*(each.parent.parts for each in paths), strict=False):
        if len(set(parts)) > 1:
            return
        yield parts[0]


def _is_array(path: Path) -> bool:
    """Whether a directory is one source: a Zarr store, BasicTS's data, or windows of all splits."""
    return is_zarr(path) or find_basicts(path) is not None or bool(window_files(path))


def _files_in(directory: Path) -> list[Path]:
    """The files of readings in a directory.

    Raises:
        DataError: if it has none, or files of several formats.
    """
    if (directory / "meta.json").exists() and (directory / "series.npy").exists():
        raise DataError(f"the source {directory} is a store already: give files of readings")
    found = [each for each in directory.iterdir() if each.is_file() and _is_readings(each)]
    if not found:
        deeper = directory / "**" / "*.csv"
        raise DataError(
            f"the directory {directory} holds no file of readings: give a file, or a pattern such "
            f"as {deeper}"
        )
    suffixes = sorted({_suffix(each) for each in found})
    if len(suffixes) > 1:
        raise DataError(
            f"the directory {directory} holds files of several formats ({', '.join(suffixes)}): "
            f"say which with a pattern such as {directory / f'*{suffixes[0]}'}"
        )
    return sorted(found, key=_natural)


def _is_readings(path: Path) -> bool:
    return not path.name.startswith((".", "_")) and _suffix(path) in _SUFFIXES


def _suffix(path: Path) -> str:
    """The suffix of a file without compression."""
    inner = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    return inner.suffix.lower()


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key of order in which part2 comes before part10."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(each), "") if each.isdigit() else (-1, each.casefold()) for each in parts]


def _from_archive(path: Path) -> Any:
    """The files of a zip; the archive itself if it has one of them alone.

    They are extracted beside the store, and removed with the set that is returned.
    """
    with reraise_read_errors(path.name, "a zip"), zipfile.ZipFile(path) as archive:
        members = [
            each
            for each in archive.infolist()
            if not each.is_dir()
            and "__MACOSX" not in each.filename
            and _is_readings(Path(each.filename))
        ]
        return path if len(members) < 2 else _extract(archive, members, path)


def _extract(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], path: Path) -> Any:
    names = [each.filename for each in members]
    if len(set(names)) < len(names):
        raise DataError(f"{path.name} holds files of one name twice: {shorten(names)}")
    num_bytes, room = sum(each.file_size for each in members), _free_bytes()
    if num_bytes > room:
        raise StoreError(
            f"the files of {path.name} have {num_bytes:,} bytes and {scratch_directory()} has room "
            f"for {room:,}: make room"
        )
    short = [Path(name).name for name in names]
    names = short if len(set(short)) == len(short) else names
    order = sorted(range(len(names)), key=lambda place: _natural(Path(names[place])))
    sources: dict[str, Path] = {}
    found = SourceSet(path.name, sources)
    with reraise_os_errors(f"the files of {path.name} cannot be extracted", StoreError):
        directory = Path(tempfile.mkdtemp(prefix=".unzipped-", dir=scratch_directory()))
        call_after_scratch(weakref.finalize(found, shutil.rmtree, directory, ignore_errors=True))
        for place in order:
            name, member = names[place], members[place]
            inside = directory / str(place) / Path(name).name  # not a path that the archive chose
            inside.parent.mkdir()
            with archive.open(member) as packed, inside.open("wb") as file:
                shutil.copyfileobj(packed, file, _COPY_BYTES)
            sources[name] = inside
    return found


def _free_bytes() -> int:
    return shutil.disk_usage(scratch_directory()).free
