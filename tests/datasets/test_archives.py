"""Single files out of zip archives that are not trusted."""

import zipfile
from pathlib import Path

import pytest

from pgti.datasets.archives import find_member, unpack_member
from pgti.errors import DataError

from .published_files import zipped


def test_a_member_is_found_in_any_folder(tmp_path: Path) -> None:
    """Also beside what macOS adds under the same names; its content comes out whole."""
    archive = tmp_path / "a.zip"
    content = bytes(range(256)) * 9000
    archive.write_bytes(
        zipped({"METR-LA/": b"", "METR-LA/x.npy": content, "__MACOSX/METR-LA/x.npy": b"other"})
    )
    member = find_member(archive, "x.npy")
    assert member is not None
    unpack_member(archive, member, tmp_path / "x.npy")
    assert (tmp_path / "x.npy").read_bytes() == content
    assert find_member(archive, "y.npy") is None


def test_a_member_cannot_choose_where_it_goes(tmp_path: Path) -> None:
    """A path that leads out of the archive is never followed."""
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = inner / "a.zip"
    archive.write_bytes(zipped({"../x.npy": b"evil", "/etc/y.npy": b"evil"}))
    for name in ("x.npy", "y.npy"):
        member = find_member(archive, name)
        assert member is not None
        unpack_member(archive, member, inner / name)
    assert sorted(path.name for path in inner.iterdir()) == ["a.zip", "x.npy", "y.npy"]
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


def test_two_members_of_a_name_are_refused(tmp_path: Path) -> None:
    """It is unclear which one is meant."""
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"one/x.npy": b"1", "two/x.npy": b"2"}))
    with pytest.raises(DataError, match=r"has 2 files x.npy \(one/x.npy, two/x.npy\)"):
        find_member(archive, "x.npy")


def test_damaged_archives(tmp_path: Path) -> None:
    """No zip, a zip that was cut off, and a member whose bytes have changed."""
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"a.zip cannot be unpacked: File is not a zip file"):
        find_member(archive, "x")
    content = bytearray(zipped({"x": bytes(range(256)) * 100}))
    archive.write_bytes(content[:-30])
    with pytest.raises(DataError, match="cannot be unpacked"):
        find_member(archive, "x")
    content[60] ^= 0xFF
    archive.write_bytes(content)
    member = find_member(archive, "x")
    assert member is not None
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack_member(archive, member, tmp_path / "x")


def test_a_member_for_which_there_is_no_room(tmp_path: Path) -> None:
    """What the archive announces is compared with what is free before anything is written."""
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"x": b"content"}))
    member = zipfile.ZipInfo("x")
    member.file_size = 1 << 62
    with pytest.raises(DataError, match=r"x of a.zip has 4,611,686,018,427,387,904 bytes and .* f"):
        unpack_member(archive, member, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
