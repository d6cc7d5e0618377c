"""The files of a data set: downloaded into a cache, or found in a folder of the user's."""

import logging
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pgti.datasets.archives import find_member, unpack_member
from pgti.datasets.checksums import CHECKSUMS_FILE, Checksums
from pgti.datasets.dataset import Dataset, Download, FileSet
from pgti.datasets.download import ResumingDownloader, import_pooch
from pgti.errors import DataError, FetchError, RunError, option
from pgti.storage import StagedDirectory, file_lock, reraise_os_errors

__all__ = ["FetchCallbacks", "advise_manual_download", "cached_files", "files_in"]

_LOCK_FILE = ".pgti.lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchCallbacks:
    """What a fetch calls while it runs.

    Attributes:
        log: called with one line that a user should read.
        download_progress: called with a file's name, the bytes that have arrived and, where known,
            their total.
        row_progress: called with the rows written and, where known, their total.
    """

    log: Callable[[str], None] = lambda _: None
    download_progress: Callable[[str, int, int | None], None] | None = None
    row_progress: Callable[[int, int | None], None] | None = None


Files = tuple[FileSet, dict[str, Path]]  # one form of a data set, and the path of each file


def advise_manual_download(dataset: Dataset, years: tuple[int, ...]) -> str:
    """What a user can do where nothing can be downloaded."""
    return (
        f"download the files by hand (see {dataset.source_page}) and pass "
        f"{option('source', 'FOLDER', flag='from')}, which "
        f"holds {_describe_forms(dataset, years)}"
    )


@contextmanager
def cached_files(
    dataset: Dataset, cache: Path | None, unpacked_beside: Path, callbacks: FetchCallbacks
) -> Iterator[Files]:
    """The files in the cache, downloaded if need be and checked; one process at a time.

    When the block succeeds, the checksums of new files are recorded.

    Args:
        dataset: the data set, which can be downloaded.
        cache: the cache; None takes the user's cache directory.
        unpacked_beside: files from archives are put beside it until the block ends.
        callbacks: called on the way.

    Raises:
        DataError: if a file in the cache has changed.
        FetchError: if a file cannot be downloaded.
        MissingExtraError: if pooch is needed and not installed.
    """
    folder = (cache or Path(import_pooch().os_cache("pgti"))) / dataset.name.lower()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(
            f"{folder} cannot be created ({error.strerror}): choose another place with "
            f"{option('cache')}"
        ) from error
    busy = f"another process is fetching {dataset.name}: waiting for it"
    with file_lock(folder / _LOCK_FILE, on_busy=partial(callbacks.log, busy)) as is_alone:
        checksums = Checksums(folder)
        for download in dataset.downloads:
            path = folder / download.name
            if not path.exists():
                token = "" if is_alone else f".{uuid.uuid4().hex}"
                part = folder / f"{download.name}{token}.part"
                sha256 = checksums.sha256(download.name)
                try:
                    with StagedDirectory(folder / "new", check_target=lambda _: None) as staged:
                        _download(download, part, staged.path, sha256, dataset, callbacks)
                        (staged.path / download.name).replace(path)
                finally:
                    if not is_alone:
                        part.unlink(missing_ok=True)
                        part.with_name(f"{part.name}.json").unlink(missing_ok=True)
            checksums.check(path, download)
        try:
            with files_in(folder, dataset, dataset.default_years, unpacked_beside) as files:
                yield files
        except DataError as error:
            if checksums.has_new:
                raise DataError(f"{error}; if it is damaged, remove it from {folder}") from error
            raise
        try:
            checksums.write()
        except RunError as error:  # what was fetched is whole: the next time records them
            callbacks.log(str(error))


@contextmanager
def files_in(
    folder: Path, dataset: Dataset, years: tuple[int, ...], unpacked_beside: Path
) -> Iterator[Files]:
    """The files in a folder, in the first form that is complete there, also in zip archives.

    Args:
        folder: the folder, in which nothing is changed.
        dataset: the data set.
        years: years wanted, where the files are by year.
        unpacked_beside: files from archives are put beside it until the block ends.

    Raises:
        DataError: if the folder has no complete form, or an archive is damaged.
    """
    if folder.is_file():
        raise DataError(
            f"{folder} is a file: give the folder that holds the files of {dataset.name}, or make "
            "a store of this file alone with pgti ingest"
        )
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist: check the path")
    for form in dataset.file_sets:
        found = {name: _find(folder, name, form.archives) for name in form.names(years)}
        places = {name: place for name, place in found.items() if place is not None}
        if len(places) == len(found):
            break
    else:
        raise DataError(
            f"{folder} does not hold the files of {dataset.name} (see {dataset.source_page}): they "
            f"are {_describe_forms(dataset, years)}"
        )
    with ExitStack() as stack:
        unpacked: Path | None = None
        paths: dict[str, Path] = {}
        for name, (place, member) in places.items():
            if member is None:
                paths[name] = place
                continue
            if unpacked is None:
                folder = unpacked_beside.with_name(f"{unpacked_beside.name}.unpacked")
                staged = StagedDirectory(folder, check_target=lambda _: None)
                unpacked = stack.enter_context(staged).path
            paths[name] = unpacked / Path(name).name
            unpack_member(place, member, paths[name])
        yield form, paths


def _describe_forms(dataset: Dataset, years: tuple[int, ...]) -> str:
    shown = []
    for form in dataset.file_sets:
        names = " and ".join(form.names(years))
        archives = f" (zipped in {' or '.join(form.archives)}, too)" if form.archives else ""
        shown.append(names + archives)
    return ", or ".join(shown)


def _find(
    folder: Path, name: str, archives: tuple[str, ...]
) -> tuple[Path, zipfile.ZipInfo | None] | None:
    """Where a file is: itself, or an archive and the member of it."""
    base = Path(name).name
    alike = [path for path in folder.iterdir() if path.name.lower() == base.lower()]
    for candidate in (folder / name, folder / base, *(alike if len(alike) == 1 else ())):
        if candidate.is_file():
            return candidate, None
    for archive in (folder / f"{base}.zip", *(folder / each for each in archives)):
        member = find_member(archive, base) if archive.is_file() else None
        if member is not None:
            return archive, member
    return None


def _download(
    download: Download,
    part: Path,
    directory: Path,
    sha256: str | None,
    dataset: Dataset,
    callbacks: FetchCallbacks,
) -> None:
    """Download a file into a directory, which has it when it has the expected checksum."""
    pooch = import_pooch()
    folder = part.parent
    known_hash = None if download.md5 is None else f"md5:{download.md5}"
    source, cure = "its publisher states", "try again, or get it elsewhere"
    if sha256 is not None:
        known_hash, source = f"sha256:{sha256}", "was recorded when it was first used"
        cure = f"remove its entry in {folder / CHECKSUMS_FILE} to trust the new file"
    progress = callbacks.download_progress
    callbacks.log(f"downloading {download.name} from {download.url} to {folder}")
    downloader = ResumingDownloader(
        download,
        part,
        advise_manual_download(dataset, dataset.default_years),
        None if progress is None else partial(progress, download.name),
    )
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with reraise_os_errors(f"{folder / download.name} cannot be written", FetchError):
            pooch.retrieve(
                download.url,
                known_hash=known_hash,
                fname=download.name,
                path=directory,
                downloader=downloader,
            )
    except ValueError as error:  # a checksum that does not match; all else is a FetchError
        raise FetchError(
            f"{download.name} from {download.url} does not have the checksum {known_hash} that "
            f"{source}, and was discarded: {cure}"
        ) from error
    finally:
        logger.setLevel(level)
