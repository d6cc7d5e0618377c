"""Text files as streams of UTF-8: decompressed by their suffix, decoded from their encoding.

An encoding is found in this order: what the user says; the byte order mark of UTF-8, UTF-16 or
UTF-32; UTF-8. Other bytes could be text of several encodings, which the user settles.
"""

import bz2
import codecs
import gzip
import json
import lzma
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from pgti.display import shorten
from pgti.errors import DataError, option
from pgti.memory import available_bytes

__all__ = [
    "COMPRESSED_SUFFIXES",
    "Utf8",
    "check_utf8",
    "find_encoding",
    "inner_name",
    "last_suffixes",
    "open_text",
    "parse_json",
]

COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zip", ".zst")
"""Of text files that are read compressed."""

_MARKS = (  # the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CANDIDATES = ("cp1252", "cp1250", "cp1251", "gb18030", "big5", "cp932", "cp949")
_SHOWN_CHARACTERS = 30
_MAX_JSON_BYTES, _BYTES_OF_JSON = 128 << 20, 32  # Python takes up to 32 bytes for one of the text


def open_text(path: Path) -> BinaryIO:
    """Open a text file as bytes, decompressed if its suffix says so.

    Raises:
        DataError: if it is an archive of no file, or of several.
    """
    match path.suffix.lower():
        case ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        case ".bz2":
            return cast(BinaryIO, bz2.open(path, "rb"))
        case ".xz":
            return cast(BinaryIO, lzma.open(path, "rb"))
        case ".zip":
            return cast(BinaryIO, zipfile.ZipFile(path).open(_only_member(path)))
        case ".zst":
            import pyarrow as pa  # noqa: PLC0415 - only such files need it

            return cast(BinaryIO, pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def parse_json(file: BinaryIO, name: str) -> Any:
    """The content of a JSON file, which is read whole: its objects take many times its bytes.

    Raises:
        DataError: if it has more bytes than fit into memory then, compressed or not.
        ValueError: if it is not JSON.
    """
    most = min(_MAX_JSON_BYTES, available_bytes() // _BYTES_OF_JSON)
    text = file.read(most + 1)
    if len(text) > most:
        raise DataError(
            f"{name} has more than {most >> 20} MiB of JSON, which is the most that is read whole: "
            "save it in another format, such as .npz or CSV"
        )
    return json.loads(text)


def inner_name(path: Path) -> str:
    """The name of a file without its compression: that of the only member of a `.zip` archive."""
    suffix = path.suffix.lower()
    if suffix == ".zip" and path.is_file() and zipfile.is_zipfile(path):
        return PurePosixPath(_only_member(path)).name
    return path.stem if suffix in COMPRESSED_SUFFIXES else path.name


def last_suffixes(source: Path | str) -> tuple[str, str]:
    """The suffix of a file without its compression, and that of the file, in lower case."""
    path = Path(source)
    return Path(inner_name(path)).suffix.lower(), path.suffix.lower()


def _only_member(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        members = [
            each.filename
            for each in archive.infolist()
            # macOS adds what it knows about each file.
            if not each.is_dir() and not each.filename.startswith("__MACOSX/")
        ]
    if len(members) != 1:
        what = f"{len(members)} files ({shorten(members)})" if members else "no file"
        raise DataError(
            f"{path.name} holds {what}: an archive of one file is read, so extract the files "
            "and give those that are meant"
        )
    return members[0]


def find_encoding(beginning: bytes, name: str, given: str | None) -> str | None:
    """The encoding of a text file: the one given, or that of its mark; else None, for UTF-8.

    Raises:
        DataError: if it is not text.
    """
    marked = next((each for mark, each in _MARKS if beginning.startswith(mark)), None)
    if given is None and marked is None and b"\0" in beginning:
        raise DataError(
            f"{name} is not text (it holds NUL bytes): give the file its right suffix, or name "
            f"its encoding ({option('encoding', 'utf-16-le')})"
        )
    return given or marked


def check_utf8(text: bytes, name: str) -> None:
    """Refuse bytes that are not UTF-8.

    Raises:
        DataError: naming encodings that they could be in, and what each would make of them.
    """
    try:
        text.decode()
    except UnicodeDecodeError as error:
        start = max(text.rfind(b"\n", 0, error.start) + 1, error.start - 3 * _SHOWN_CHARACTERS)
        stop = text.find(b"\n", error.start)
        line = text[start : stop if stop > 0 else None].rstrip(b"\r")
        readings = [
            f"{encoding} reads {_around(decoded)!r}"
            for encoding in _CANDIDATES
            if (decoded := _decode(line, encoding)) is not None
        ]
        known = "; ".join(readings) or "it may not be text at all"
        raise DataError(
            f"{name} is not UTF-8 and does not say its encoding: name the one that reads it right "
            f"with {option('encoding')}: {known}"
        ) from None


def _decode(text: bytes, encoding: str) -> str | None:
    try:
        decoded = text.decode(encoding)
    except UnicodeDecodeError:
        return None
    return decoded if decoded.replace("\t", "").isprintable() else None


def _around(text: str) -> str:
    """The part of a text about its first character that is not ASCII."""
    place = next((place for place, letter in enumerate(text) if not letter.isascii()), 0)
    start = max(0, place - _SHOWN_CHARACTERS // 2)
    return text[start : start + _SHOWN_CHARACTERS].strip()


class Utf8:
    """A stream of text as UTF-8 without a mark.

    Args:
        file: bytes of text, from its beginning.
        encoding: of the text; None for UTF-8, which is not checked here.
        name: what messages call it.
        has_returns: whether lines end with carriage returns alone, as on old Macintoshes.
    """

    def __init__(
        self, file: BinaryIO, encoding: str | None, name: str, *, has_returns: bool = False
    ) -> None:
        self._file = file
        self._encoding = encoding
        self._name = name
        self._decoder = None if encoding is None else codecs.getincrementaldecoder(encoding)()
        self._begins = True
        self._has_returns = has_returns

    def read(self, size: int) -> bytes:
        """About so many bytes more; none at the end.

        Raises:
            DataError: if they are not text in the encoding.
        """
        text, data = b"", b"_"
        while data and not text:
            data = self._file.read(size)
            text = data if self._decoder is None else self._decode(data)
            if self._begins and text:
                text, self._begins = text.removeprefix(codecs.BOM_UTF8), False
        return text.replace(b"\r", b"\n") if self._has_returns else text

    def _decode(self, data: bytes) -> bytes:
        assert self._decoder is not None
        problem = "it holds NUL bytes"
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeError as error:
            text, problem = "\0", getattr(error, "reason", None) or str(error)
        if "\0" in text:
            raise DataError(
                f"{self._name} is not text in {self._encoding}: {problem}; name its encoding "
                f"({option('encoding', 'cp1252')})"
            )
        return text.encode()
