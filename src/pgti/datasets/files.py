"""The files of a data set: downloaded into a cache, or found in a folder of the user's."""

import logging
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgti.datasets.archives import member_of, unpack_member
from pgti.datasets.checksums import CHECKSUMS_FILE, Checksums
from pgti.datasets.dataset import Dataset, Download, FileSet
from pgti.datasets.download import ResumingDownloader, import_pooch
from pgti.errors import DataError, FetchError
from pgti.storage import file_lock

__all__ = ["Files", "Watch", "by_hand", "cached_files", "default_cache", "files_in"]

_LOCK_FILE = ".pgti.lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """Who is told how things go.

    Args:
        log: called with one line that a user should read.
        downloaded: called with a file's name, the bytes that have come and, where known, all.
        rows: called with the rows written and, where known, all.
    """

    log: Callable[[str], None] | None = None
    downloaded: Callable[[str, int, int | None], None] | None = None
    rows: Callable[[int, int | None], None] | None = None

    def tell(self, line: str) -> None:
        """Say a line to whoever listens."""
        if self.log is not None:
            self.log(line)


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Where each file of one form of a data set is.

    Args:
        form: which one.
        paths: path of each file by its name.
    """

    form: FileSet
    paths: dict[str, Path]


def by_hand(dataset: Dataset, years: tuple[int, ...]) -> str:
    """What a user can do where nothing can be downloaded."""
    return (
        f"get the files by hand (see {dataset.source_page}) and say --from FOLDER, which holds "
        f"{_forms(dataset, years)}"
    )


def default_cache() -> Path:
    """Where downloads are kept unless the user names a place.

    Raises:
        MissingExtraError: if pooch, which knows the customary place, is not installed.
    """
    return Path(import_pooch().os_cache("pgti"))


@contextmanager
def cached_files(
    dataset: Dataset, cache: Path | None, unpacked_beside: Path, watch: Watch
) -> Iterator[Files]:
    """The files in the cache, downloaded if need be and checked; one process at a time.

    When the block ends well, the checksums of files that were new are written down.

    Args:
        dataset: the data set, which can be downloaded.
        cache: the cache; None takes the customary place.
        unpacked_beside: what comes out of archives is put beside it until the block ends.
        watch: who is told.

    Raises:
        DataError: if a file in the cache is not the one that it was.
        FetchError: if a file cannot be downloaded.
        MissingExtraError: if pooch is needed and not installed.
    """
    folder = (default_cache() if cache is None else cache) / dataset.name.lower()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(
            f"{folder} cannot be made ({error.strerror}): choose another place with --cache"
        ) from error
    busy = f"another process is fetching {dataset.name}: waiting for it"
    with file_lock(folder / _LOCK_FILE, on_busy=lambda: watch.tell(busy)) as is_alone:
        checksums = Checksums(folder)
        for download in dataset.downloads:
            path = folder / download.name
            if not path.exists():
                _download(download, folder, checksums.sha256(download.name), dataset, watch,
                          is_alone=is_alone)  # fmt: skip
            checksums.check(path, download)
        try:
            with files_in(folder, dataset, dataset.default_years, unpacked_beside) as files:
                yield files
        except DataError as error:
            if checksums.has_new:
                raise DataError(f"{error}; if it is damaged, remove it from {folder}") from error
            raise
        checksums.write()


@contextmanager
def files_in(
    folder: Path, dataset: Dataset, years: tuple[int, ...], unpacked_beside: Path
) -> Iterator[Files]:
    """The files in a folder, in the first form that is complete there; zip files are looked into.

    Args:
        folder: the folder, in which nothing is changed.
        dataset: the data set.
        years: years wanted, where the files are by year.
        unpacked_beside: what comes out of archives is put beside it until the block ends.

    Raises:
        DataError: if the folder has no complete form, or an archive is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist or is no folder: check the path")
    for form in dataset.file_sets:
        found = {name: _find(folder, name, form.archives) for name in form.names(years)}
        places = {name: place for name, place in found.items() if place is not None}
        if len(places) == len(found):
            break
    else:
        raise DataError(
            f"{folder} does not hold the files of {dataset.name} (see {dataset.source_page}): they "
            f"are {_forms(dataset, years)}"
        )
    with ExitStack() as stack:
        unpacked: Path | None = None
        paths: dict[str, Path] = {}
        for name, (place, is_archive) in places.items():
            if not is_archive:
                paths[name] = place
                continue
            if unpacked is None:
                unpacked = stack.enter_context(_temporary_folder(unpacked_beside))
            paths[name] = unpacked / Path(name).name
            member = member_of(place, Path(name).name)
            assert member is not None  # `_find` looked
            unpack_member(place, member, paths[name])
        yield Files(form=form, paths=paths)


def _forms(dataset: Dataset, years: tuple[int, ...]) -> str:
    shown = []
    for form in dataset.file_sets:
        names = " and ".join(form.names(years))
        archives = f" (zipped in {' or '.join(form.archives)}, too)" if form.archives else ""
        shown.append(names + archives)
    return ", or ".join(shown)


def _find(folder: Path, name: str, archives: tuple[str, ...]) -> tuple[Path, bool] | None:
    """Where a file is, and whether that is an archive that holds it."""
    base = Path(name).name
    for candidate in (folder / name, folder / base):
        if candidate.is_file():
            return candidate, False
    alike = [path for path in folder.iterdir() if path.name.lower() == base.lower()]
    if len(alike) == 1 and alike[0].is_file():
        return alike[0], False
    for archive in (folder / f"{base}.zip", *(folder / each for each in archives)):
        if archive.is_file() and member_of(archive, base) is not None:
            return archive, True
    return None


@contextmanager
def _temporary_folder(beside: Path) -> Iterator[Path]:
    """A folder beside a path, for as long as the block lasts."""
    parent = next(parent for parent in beside.absolute().parents if parent.exists())
    path = Path(tempfile.mkdtemp(prefix=f".{beside.name}.unpacked-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _download(
    download: Download,
    folder: Path,
    sha256: str | None,
    dataset: Dataset,
    watch: Watch,
    *,
    is_alone: bool,
) -> None:
    """Download a file; it gets its name when it is complete and is the one that was expected."""
    pooch = import_pooch()
    own = "" if is_alone else f".{uuid.uuid4().hex}"
    part = folder / f"{download.name}{own}.part"
    known_hash = None if download.md5 is None else f"md5:{download.md5}"
    if sha256 is not None:
        known_hash = f"sha256:{sha256}"
    progress = None
    if watch.downloaded is not None:
        told = watch.downloaded
        progress = lambda done, total: told(download.name, done, total)  # noqa: E731 - bound here
    watch.tell(f"downloading {download.name} from {download.url} to {folder}")
    downloader = ResumingDownloader(
        download, part, by_hand(dataset, dataset.default_years), progress
    )
    try:
        with _quiet(pooch.get_logger()):
            pooch.retrieve(
                download.url,
                known_hash=known_hash,
                fname=download.name,
                path=folder,
                downloader=downloader,
            )
    except ValueError as error:  # a checksum that does not match; all else is a FetchError
        source, cure = "its publisher states", "try again, or get it elsewhere"
        if sha256 is not None:
            source = "was written down when it was first used"
            cure = f"remove its entry in {folder / CHECKSUMS_FILE} to trust what is there now"
        raise FetchError(
            f"{download.name} that came from {download.url} has not the checksum {known_hash} that "
            f"{source}, and was not kept: {cure}"
        ) from error
    finally:
        if not is_alone:
            part.unlink(missing_ok=True)
            part.with_name(f"{part.name}.json").unlink(missing_ok=True)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Let a logger speak of warnings alone."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
