"""HDF5 files that hold their own numbers, and which the library comes back from."""

from pathlib import Path
from typing import Any

from pgti.display import shorten
from pgti.errors import DataError, MissingExtraError
from pgti.ingestion.arrays.hdf5_walk import check_walk

__all__ = ["open_hdf5_file"]

_SCALES = "DIMENSION_LIST"


def open_hdf5_file(path: Path) -> Any:
    """The file as h5py opens it.

    Raises:
        DataError: if it leads to other files, which it may name at will: readings that a virtual
            dataset does not find are its fill value, and any file can be raw storage; or if its
            descriptions have no end, or a dataset has scales of other axes than its own: HDF5
            writes beyond its memory then.
        MissingExtraError: if h5py is not installed.
    """
    try:
        import h5py  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MissingExtraError("h5py", "hdf5") from None

    def find_link(key: str, link: Any) -> str | None:
        if isinstance(link, h5py.ExternalLink):
            return f"{key} of {path.name} is a link to the file {link.filename}: give that file"
        return None

    def find_dataset(key: str, item: Any) -> str | None:
        if not isinstance(item, h5py.Dataset):
            return None
        if not _has_own_scales(item):
            return (
                f"{key} of {path.name} names scales of other axes than its "
                f"{item.ndim}: it is damaged; copy it again"
            )
        if not (item.external or item.is_virtual):
            return None
        sources = [each[0] for each in item.external or ()]
        sources = sources or [each.file_name for each in item.virtual_sources()]
        return (
            f"{key} of {path.name} has its numbers in other files "
            f"({shorten(list(dict.fromkeys(sources)))}): give those files, or write its numbers "
            "into one file"
        )

    check_walk(path)
    file = h5py.File(path, "r")
    try:
        found = file.visititems_links(find_link) or file.visititems(find_dataset)
        if found:
            raise DataError(found)
    except BaseException:
        file.close()
        raise
    return file


def _has_own_scales(dataset: Any) -> bool:
    """Whether a dataset names scales for each of its axes, or none."""
    import h5py  # noqa: PLC0415 - an optional library

    if _SCALES not in dataset.attrs:
        return True
    listed = dataset.attrs.get_id(_SCALES)
    kind = h5py.check_vlen_dtype(listed.dtype)
    is_list = kind is not None and h5py.check_ref_dtype(kind) is h5py.Reference
    return is_list and bool(listed.shape == (dataset.ndim,))
