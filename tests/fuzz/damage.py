"""Damage to the content of a file: of any bytes, of text, and of what its format holds."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import pickle
import pickletools
import random
import re
import struct
import tomllib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import scipy.io
import tomli_w

from .values import change_array, change_text, change_tree, limit, wrong_key, wrong_value

__all__ = ["damage"]

Change = Callable[[random.Random, bytes], bytes]


def damage(rng: random.Random, name: str, content: bytes, others: list[bytes]) -> tuple[str, bytes]:
    """Another content of a file, and what was done to it.

    That is "content" where what the file holds was changed, "few bytes" where a few bytes were
    overwritten or left out, or all after one; else "bytes".

    Args:
        rng: what is done depends on it alone.
        name: of the file; its suffix says what it holds.
        content: what it held.
        others: contents of files of the same kind, of which pieces may be taken.
    """
    change = _of_format(name)
    if change is not None and rng.random() < 0.55:
        with contextlib.suppress(Exception), warnings.catch_warnings():  # what it holds may not fit
            warnings.simplefilter("ignore")
            return "content", change(rng, content)
    few = rng.random() < 0.5
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(_FEW_BYTES if few else _BYTES)(rng, content, others)
    return "few bytes" if few else "bytes", content


# -- bytes ----------------------------------------------------------------------------------------


def _place(rng: random.Random, content: bytes) -> int:
    """Somewhere; often near an end, where headers and footers are."""
    length = len(content)
    reach = length if rng.random() < 0.6 else min(length, 128)
    place = rng.randrange(reach + 1)
    return place if rng.random() < 0.7 else length - place


def _piece(rng: random.Random, content: bytes) -> tuple[int, int]:
    first = _place(rng, content)
    return first, min(len(content), first + rng.choice((1, 2, 4, 8, 30, 300)))


def _flip(rng: random.Random, content: bytes, _: list[bytes]) -> bytes:
    place = min(_place(rng, content), len(content) - 1)
    if place < 0:
        return content
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _overwrite(rng: random.Random, content: bytes, _: list[bytes]) -> bytes:
    first, last = _piece(rng, content)
    length = last - first
    return (
        content[:first]
        + rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length))
        + (content[last:])
    )


def _truncate(rng: random.Random, content: bytes, _: list[bytes]) -> bytes:
    return content[: _place(rng, content)]


def _drop(rng: random.Random, content: bytes, _: list[bytes]) -> bytes:
    first, last = _piece(rng, content)
    return content[:first] + content[last:]


def _repeat(rng: random.Random, content: bytes, _: list[bytes]) -> bytes:
    first, last = _piece(rng, content)
    return content[:last] + content[first:last] * rng.choice((1, 1, 3, 1000)) + content[last:]


def _splice(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    first, last = _piece(rng, content)
    other = rng.choice(others or [content])
    begin, end = _piece(rng, other)
    return content[:first] + other[begin:end] + content[rng.choice((first, last)) :]


def _limit(rng: random.Random, content: bytes, _: list[bytes]) -> bytes:
    code = rng.choice(("<H", "<I", "<Q", ">I", ">Q", "<d", ">d"))
    value: float = rng.choice((0, 1, -1, limit(rng)))
    bits = struct.calcsize(code) * 8
    packed = struct.pack(code, float(value % 2**60) if code[1] == "d" else value % 2**bits)
    first = _place(rng, content)
    return content[:first] + packed + content[first + len(packed) :]


_NUMBER = re.compile(rb"[-+]?\d[\d.]*")
_WORD = re.compile(rb"[A-Za-z_]{2,}")


def _number(rng: random.Random, content: bytes, _: list[bytes]) -> bytes:
    return _replace(rng, _NUMBER, content, rng.choice((str(limit(rng)), "1e999", "nan", "-", "")))


def _word(rng: random.Random, content: bytes, _: list[bytes]) -> bytes:
    words = _WORD.findall(content[:100_000]) or [b"x"]
    return _replace(rng, _WORD, content, rng.choice(words).decode())


def _replace(rng: random.Random, pattern: re.Pattern[bytes], content: bytes, text: str) -> bytes:
    found = list(pattern.finditer(content[:100_000]))
    if not found:
        return content
    match = rng.choice(found)
    return content[: match.start()] + text.encode() + content[match.end() :]


_FEW_BYTES = (_flip, _flip, _overwrite, _truncate, _drop, _limit)
_BYTES = (_repeat, _splice, _splice, _number, _number, _word)


# -- text -----------------------------------------------------------------------------------------

_CELL = re.compile(r"[^,;\t|\n\r ]+")


def _text(rng: random.Random, content: bytes) -> bytes:
    """Lines and cells in another order, twice, missing, or of another kind."""
    text = content.decode()
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    changes: tuple[Callable[[], str], ...] = (
        lambda: "".join(lines[:at] + lines[at + 1 :]),
        lambda: "".join(lines[: at + 1] + lines[at:]),
        lambda: "".join(rng.sample(lines, len(lines))),
        lambda: "".join([*lines[:at], change_text(rng, lines[at]), *lines[at + 1 :]]),
        lambda: text.replace(*rng.choice(((",", ";"), ("\n", "\r\n"), (".", ","), ("\n", " ")))),
        lambda: _cell(rng, text),
        lambda: _cell(rng, text),
        lambda: _cell(rng, _cell(rng, text)),
    )
    return rng.choice(changes)().encode("utf-8", "surrogatepass")


def _cell(rng: random.Random, text: str) -> str:
    cells = list(_CELL.finditer(text))
    cell, other = rng.choice(cells), rng.choice(cells)
    value = rng.choice(
        (str(wrong_value(rng))[:100_000], other[0], f'"{cell[0]}', "", f"{cell[0]} ")
    )
    return text[: cell.start()] + value + text[cell.end() :]


_ENTITIES = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">{}<!ENTITY z SYSTEM "file:///etc/passwd">]>'


def _xml(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.8:
        return _text(rng, content)
    steps = zip("abcdefgh", "bcdefghi", strict=True)
    nested = "".join(f'<!ENTITY {to} "{f"&{of};" * 10}">' for of, to in steps)
    begin, end = content.decode().split("?>", 1)
    shown = _cell(rng, end).replace("north", rng.choice(("&i;", "&z;", "&nothing;")))
    return f"{begin}?>{_ENTITIES.format(nested)}{shown}".encode()


# -- trees ----------------------------------------------------------------------------------------


def _json(rng: random.Random, content: bytes) -> bytes:
    return json.dumps(change_tree(rng, json.loads(content))).encode()


def _json_lines(rng: random.Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    return b"".join([*lines[:at], _json(rng, lines[at]) + b"\n", *lines[at + 1 :]])


def _toml(rng: random.Random, content: bytes) -> bytes:
    return tomli_w.dumps(change_tree(rng, tomllib.loads(content.decode()))).encode()


def _pickle(rng: random.Random, content: bytes) -> bytes:
    """What it holds changed, or its opcodes in another order, twice or missing."""
    if rng.random() < 0.4:
        return pickle.dumps(change_tree(rng, pickle.loads(content)), protocol=rng.randrange(6))
    places = [place for _, _, place in pickletools.genops(content) if place is not None]
    pieces = [
        content[one:two] for one, two in zip(places, [*places[1:], len(content)], strict=True)
    ]
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(pieces))
        change = rng.randrange(4)
        if change == 0:
            del pieces[at]
        elif change == 1:
            pieces.insert(at, rng.choice(pieces))
        elif change == 2:
            pieces.insert(at, rng.choice(_OPCODES))
        else:
            pieces[at] = rng.choice(_OPCODES)
    return b"".join(pieces)


_OPCODES = (
    *(b"(", b".", b"0", b"1", b"2", b"N", b"\x88", b"}", b"]", b")", b"\x8f", b"\x85", b"\x86"),
    *(b"t", b"l", b"d", b"u", b"e", b"a", b"s", b"b", b"R", b"\x81", b"\x92", b"\x93", b"\x90"),
    *(b"\x94", b"h\x00", b"h\x01", b"j\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"q\x03", b"Q"),
    *(b"K\xff", b"J\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"G\x7f\xf0\0\0\0\0\0\0", b"Va\n"),
    *(b"\x8e" + b"\xff" * 8, b"\x96" + b"\xff" * 7 + b"\0", b"\x8c\x01a", b"cnumpy\nndarray\n"),
    *(b"cbuiltins\neval\n", b"cbuiltins\nbytearray\n", b"cnumpy\ndtype\n", b"I01\n", b"L5L\n"),
    *(b"\x97", b"\x98", b"P1\n", b"ibuiltins\nset\n", b"o", b"\x82\x01", b"\x95" + b"\xff" * 8),
)


# -- arrays ---------------------------------------------------------------------------------------


def _npy(rng: random.Random, content: bytes) -> bytes:
    """Another array, or another header of the same bytes."""
    if rng.random() < 0.6:
        return _written_npy(change_array(rng, np.load(io.BytesIO(content))))
    begin = content.index(b"{")
    end = content.index(b"\n", begin)
    header = change_text(rng, content[begin:end].decode("latin1"))
    if rng.random() < 0.7:
        header = content[begin:end].decode("latin1")
        shape = str(tuple(limit(rng) for _ in range(rng.randrange(5))))
        dtype = rng.choice(("|b1", "<f4", ">f8", "<U4000000", "|V8", "|O", "<M8[s]", "<f16", "<c8"))
        header = re.sub(r"\([\d, ]*\)", shape, header) if rng.random() < 0.5 else header
        header = re.sub(r"'[<>|=]\w+'", repr(dtype), header) if rng.random() < 0.5 else header
        header = header.replace("False", rng.choice(("False", "True", "2", "None")))
    text = header.strip().encode("latin1", "replace")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) % 2**16) + text + content[end + 1 :]


def _written_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _zip(rng: random.Random, content: bytes) -> bytes:
    """A member changed, renamed, twice or missing; and all packed in another way."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = rng.randrange(len(members))
    name, inner = members[at]
    change = rng.random()
    if change < 0.7:
        members[at] = name, damage(rng, name, inner, [each for _, each in members])[1]
    elif change < 0.8:
        del members[at]
    elif change < 0.9:
        suffix = Path(name).suffix
        members[at] = rng.choice((change_text(rng, name), wrong_key(rng) + suffix)), inner
    else:
        members.append((name, rng.choice(members)[1]))
    file, packing = io.BytesIO(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", packing) as archive:
        for each, inner in members:
            archive.writestr(each, inner)
    return file.getvalue()


_ATTRIBUTES = ("units", "calendar", "scale_factor", "add_offset", "_FillValue", "missing_value",
               "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "MATLAB_class", "pandas_type",
               "encoding", "errors", "nblocks", "axis0_variety", "coordinates")  # fmt: skip


def _hdf5(rng: random.Random, content: bytes) -> bytes:
    """A dataset or an attribute of another kind, missing, or a link that leads round."""
    stored = io.BytesIO(content)
    with h5py.File(stored, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(rng.choice((1, 1, 2))):
            _change_object(rng, file, rng.choice(names))
    return stored.getvalue()


def _change_object(rng: random.Random, file: h5py.File, name: str) -> None:
    item, change = file[name], rng.random()
    if change < 0.35 and isinstance(item, h5py.Dataset):
        kept = dict(item.attrs)
        array = change_array(rng, item[()])
        array = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        del file[name]
        file[name] = array
        file[name].attrs.update(kept)
    elif change < 0.8:
        keys = [*item.attrs] if rng.random() < 0.7 else []
        key = rng.choice(keys or _ATTRIBUTES)
        old = item.attrs.get(key, 1)
        if isinstance(old, np.ndarray) and rng.random() < 0.5:
            item.attrs[key] = change_array(rng, old)
        else:
            item.attrs[key] = change_tree(rng, old)
    elif change < 0.88:
        del file[name]
    elif change < 0.94:
        file[change_text(rng, name)] = item
    else:
        del file[name]
        file[name] = rng.choice((h5py.SoftLink(f"/{name}"), file["/"], h5py.SoftLink("/nothing")))


def _matlab(rng: random.Random, content: bytes) -> bytes:
    if content[:8] == b"\x89HDF\r\n\x1a\n" or content[512:520] == b"\x89HDF\r\n\x1a\n":
        return content[:512] + _hdf5(rng, content[512:])
    arrays = scipy.io.loadmat(io.BytesIO(content))
    arrays = {key: each for key, each in arrays.items() if not key.startswith("__")}
    key = rng.choice(list(arrays))
    arrays[key] = rng.choice((change_array(rng, arrays[key]), wrong_value(rng)))
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, do_compression=rng.random() < 0.5, format=rng.choice("455"))
    return file.getvalue()


# -- tables ---------------------------------------------------------------------------------------

_TYPES = (
    *(pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.string(), pa.binary()),
    *(pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.timestamp("us", "Europe/Berlin")),
    *(pa.date32(), pa.date64(), pa.time64("ns"), pa.duration("s"), pa.decimal128(38, 3), pa.null()),
    *(pa.list_(pa.float64()), pa.struct([("a", pa.int8())]), pa.large_string(), pa.string_view()),
    *(pa.dictionary(pa.int8(), pa.string()), pa.month_day_nano_interval()),
)


def _changed_table(rng: random.Random, table: pa.Table) -> pa.Table:
    at = rng.randrange(table.num_columns)
    field, column = table.field(at), table.column(at)
    change = rng.random()
    if change < 0.4:
        kind = rng.choice(_TYPES)
        try:
            column = column.cast(kind, safe=False)
        except pa.ArrowException:
            column = pa.nulls(len(column), kind)
        return table.set_column(at, field.name, column)
    if change < 0.6:
        values = [*column.to_pylist()]
        values[rng.randrange(len(values))] = rng.choice((None, *values))
        return table.set_column(at, field.name, pa.array(values, column.type))
    if change < 0.7:
        return table.remove_column(at)
    if change < 0.8:
        names = table.column_names
        names[at] = rng.choice((*names, change_text(rng, field.name), wrong_key(rng)))
        return table.rename_columns(names)
    if change < 0.9:
        return table.take(pa.array(rng.choices(range(len(table)), k=len(table))))
    return table.slice(0, rng.randrange(3))


def _with_pandas_metadata(rng: random.Random, table: pa.Table) -> pa.Table:
    """What pandas wrote about index and columns may say anything."""
    metadata = table.schema.metadata or {}
    if b"pandas" not in metadata or rng.random() < 0.6:
        return _changed_table(rng, table)
    changed = change_tree(rng, json.loads(metadata[b"pandas"]))
    return table.replace_schema_metadata({**metadata, b"pandas": json.dumps(changed)})


def _parquet(rng: random.Random, content: bytes) -> bytes:
    table = _with_pandas_metadata(rng, pq.read_table(io.BytesIO(content)))
    file = io.BytesIO()
    packing = rng.choice(("none", "snappy", "gzip", "zstd"))
    pq.write_table(table, file, compression=packing, row_group_size=rng.choice((1, 5, 1000)))
    return file.getvalue()


def _feather(rng: random.Random, content: bytes) -> bytes:
    table = _with_pandas_metadata(rng, pyarrow.feather.read_table(io.BytesIO(content)))
    file = io.BytesIO()
    pyarrow.feather.write_feather(table, file, compression=rng.choice(("zstd", "uncompressed")))
    return file.getvalue()


# -- formats --------------------------------------------------------------------------------------


def _unzstd(content: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
        return bytes(stream.read())


_PACKINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], Any]]] = {
    ".gz": (gzip.decompress, gzip.compress),
    ".bz2": (bz2.decompress, bz2.compress),
    ".xz": (lzma.decompress, lzma.compress),
    ".zst": (_unzstd, lambda content: pa.compress(content, codec="zstd", asbytes=True)),
}
_TEXTS = (".csv", ".tsv", ".txt", ".dat", ".dyna", ".rel", ".geo", ".mtx", ".gml")
_FORMATS: dict[str, Change] = {
    **dict.fromkeys(_TEXTS, _text),
    **dict.fromkeys((".json", ".geojson", ".zarray", ".zattrs", ".zgroup", ".zmetadata"), _json),
    **dict.fromkeys((".h5", ".nc"), _hdf5),
    **dict.fromkeys((".npz", ".zip"), _zip),
    ".graphml": _xml,
    ".jsonl": _json_lines,
    ".toml": _toml,
    ".pkl": _pickle,
    ".npy": _npy,
    ".mat": _matlab,
    ".parquet": _parquet,
    ".feather": _feather,
}


def _of_format(name: str) -> Change | None:
    """What changes the content of a file of this name."""
    path = Path(name)
    suffix = path.suffix or path.name
    if suffix not in _PACKINGS:
        return _FORMATS.get(suffix)
    unpack, pack = _PACKINGS[suffix]

    def change(rng: random.Random, content: bytes) -> bytes:
        inner = unpack(content)
        return bytes(pack(damage(rng, path.stem, inner, [inner])[1]))

    return change
