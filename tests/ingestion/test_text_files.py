"""Encodings and compressed text."""

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pgti.errors import ConfigError, DataError
from pgti.ingestion import IngestOptions, append, ingest
from pgti.store import SeriesStore

IDS = ("Søry", "Århus", "Zürich")
BODY = "2020-01-01 00:00,1.5,2.5,3.5\n2020-01-01 01:00,4.5,5.5,6.5\n"
VALUES = [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]]


def written(path: Path, ids: tuple[str, ...], encoding: str, body: str = BODY) -> Path:
    """A file of readings in an encoding."""
    path.write_bytes((f"time,{','.join(ids)}\n{body}").encode(encoding))
    return path


def check(store: SeriesStore, ids: tuple[str, ...]) -> None:
    """The readings and the ids are those that were written."""
    assert store.meta.node_ids == ids
    np.testing.assert_array_equal(store.read(0, 2)[..., 0], VALUES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_and_utf8_need_no_option(tmp_path: Path, encoding: str) -> None:
    """UTF-8, and what begins with a byte order mark."""
    source = written(tmp_path / "a.csv", IDS, encoding)
    check(ingest(source, tmp_path / "s", IngestOptions(budget_bytes=1)), IDS)


@pytest.mark.parametrize(
    ("encoding", "ids"),
    [
        ("latin-1", IDS),
        ("gb18030", ("朝阳", "海淀", "东城")),
        ("cp932", ("東京", "大阪", "名古屋")),
        ("utf-16-le", IDS),
    ],
)
def test_other_encodings_are_asked_for(tmp_path: Path, encoding: str, ids: tuple[str, ...]) -> None:
    """The refusal shows what encodings make of the header; the one named is remembered."""
    source = written(tmp_path / "a.csv", ids, encoding)
    with pytest.raises(DataError, match="encoding") as caught:
        ingest(source, tmp_path / "s")
    if encoding != "utf-16-le":
        assert ids[0] in str(caught.value)
    assert "\n" not in str(caught.value)
    store = ingest(source, tmp_path / "s", IngestOptions(encoding=encoding))
    check(store, ids)
    assert store.meta.read_options["encoding"] == encoding
    newer = written(
        tmp_path / "b.csv", ids, encoding, BODY.replace("00:00", "02:00").replace("01:00", "03:00")
    )
    assert append(store, newer).meta.num_steps == 4


def test_an_encoding_far_from_the_header_is_not_guessed(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused wherever they stand."""
    rows = "".join(f"{row}.5,{row}.25\n" for row in range(20_000))
    (tmp_path / "a.csv").write_bytes(f"a,b\n{rows}".encode() + "1.5,ü\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        ingest(tmp_path / "a.csv", tmp_path / "s")


def test_encodings_that_do_not_fit(tmp_path: Path) -> None:
    """A name that is unknown, and one that is not the file's."""
    with pytest.raises(ConfigError, match="rot13"):
        IngestOptions(encoding="rot13")
    source = written(tmp_path / "a.csv", IDS, "latin-1")
    with pytest.raises(DataError, match="not text in ascii"):
        ingest(source, tmp_path / "s", IngestOptions(encoding="ascii"))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".zip"])
def test_compressed(tmp_path: Path, suffix: str) -> None:
    """Compressed text is read as it is, whatever the suffix's case."""
    content = written(tmp_path / "plain.csv", IDS, "utf-8").read_bytes()
    path = tmp_path / f"a.csv{suffix.upper()}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("deep/readings.csv", content)
            archive.writestr("__MACOSX/deep/._readings.csv", b"\0\1")
    elif suffix == ".zst":
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(content)
    else:
        compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
        path.write_bytes(compress(content))
    check(ingest(path, tmp_path / "s"), IDS)


@pytest.mark.parametrize("cut", [0.5, 0.9])
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_truncated_compressed_text(tmp_path: Path, suffix: str, cut: float) -> None:
    """What is cut off is refused, not taken for the end of the file."""
    rows = np.random.default_rng(1).random((2_000, 3))
    content = ("a,b,c\n" + "\n".join(",".join(map(str, row)) for row in rows)).encode()
    path = tmp_path / f"a.csv{suffix}"
    with pa.output_stream(
        str(path), compression={".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(suffix)
    ) as stream:
        stream.write(lzma.compress(content) if suffix == ".xz" else content)
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(DataError, match=f"a.csv{suffix}"):
        ingest(path, tmp_path / "s")
