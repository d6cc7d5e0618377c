"""The file of a checkpoint: torch's archive with a digest, of which nothing is trusted."""

import hashlib
import io
import pickle
import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from pgti.display import size_text
from pgti.errors import PARSER_ERRORS, RunError, machine_fault
from pgti.memory import available_bytes

__all__ = ["parse_archive", "read_checkpoint", "sealed"]

_SEAL = b"sha256:"
_SEAL_BYTES = len(_SEAL) + 2 * hashlib.sha256().digest_size
_BEGIN, _END = b"PK\x03\x04", b"PK\x05\x06"
_END_BYTES = 22  # of the record that ends a zip file, without its comment
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_FLAGS = (0, 0x8, 0x800, 0x808)  # sizes behind the content, names in UTF-8

_OPCODES = re.compile(
    r"PROTO|STOP|MARK|NONE|NEWFALSE|NEWTRUE|BININT[12]?|LONG1|BINFLOAT|BINUNICODE|EMPTY_TUPLE"
    r"|TUPLE[123]?|EMPTY_LIST|APPENDS?|EMPTY_DICT|SETITEMS?|(LONG_)?BINPUT|(LONG_)?BINGET|GLOBAL"
    r"|REDUCE|BUILD|BINPERSID"
)
"""What torch writes for tensors, numbers, texts, lists and mappings."""

_MOST_OPCODES = 1 << 20
_MOST_BITS = 64  # of a number: longer ones that have one hash are easily found
_ATOMS = ("torch._utils ", "torch.serialization ")
"""Functions that give tensors and layouts."""

_GLOBALS = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\.storage UntypedStorage|torch (Size|u?int\d+)"
    r"|torch\._utils _rebuild_(tensor_v2|tensor_v3|parameter|sparse_tensor)"
    r"|torch\.serialization _get_layout"
)


def sealed(archive: io.BytesIO) -> memoryview:
    """The bytes of torch's archive, with their digest as its comment.

    Any zip reader takes them, and so do earlier versions.
    """
    archive.seek(-2, io.SEEK_END)
    archive.write(_SEAL_BYTES.to_bytes(2, "little"))
    with archive.getbuffer() as content:
        seal = _seal_of(content)
    archive.write(seal)
    return archive.getbuffer()


def _seal_of(content: bytes | memoryview) -> bytes:
    return _SEAL + hashlib.sha256(content).hexdigest().encode()


def read_checkpoint(path: Path) -> bytes:
    """The bytes of a checkpoint's file.

    Raises:
        RunError: if there is none, it cannot be read, or memory is too small for it.
    """
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}: the run was stopped before its first one")
    try:
        with path.open("rb") as file:
            size, free = file.seek(0, io.SEEK_END), available_bytes()
            if size > free:
                raise RunError(
                    f"the checkpoint {path} has {size_text(size)} and {size_text(free)} of memory "
                    "are free: it is damaged, or belongs to a larger machine"
                )
            file.seek(max(0, size - _END_BYTES - _SEAL_BYTES))
            _check_ends(path, file.read(), size)  # before all of it is read
            file.seek(0)
            return file.read()
    except OSError as error:
        raise RunError(f"the checkpoint {path} cannot be read: {error.strerror}") from error


def parse_archive(path: Path, archive: bytes, device: torch.device | str) -> dict[str, Any]:
    """What is in the bytes of a file, if they are as they were written.

    Files of earlier versions have no digest: of them every member's checksum is compared.

    Args:
        path: the file, for messages.
        archive: its content.
        device: where its tensors go.

    Raises:
        RunError: if it is damaged, or not torch's.
    """
    is_sealed = _check_ends(path, archive[-_END_BYTES - _SEAL_BYTES :], len(archive))
    if is_sealed and _seal_of(memoryview(archive)[:-_SEAL_BYTES]) != archive[-_SEAL_BYTES:]:
        raise damaged(path, "its content fails its checksum (SHA-256)")
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            _check_members(file, archive)
            failed = None if is_sealed else file.testzip()
            if failed is not None:
                raise damaged(path, f"{failed} fails its checksum")
            _check_pickle(file)
        content = torch.load(io.BytesIO(archive), map_location=device, weights_only=True)
    except (*PARSER_ERRORS, AttributeError, pickle.UnpicklingError) as error:
        if fault := machine_fault(error):
            raise RunError(f"the checkpoint {path} cannot be read: {fault}") from error
        raise _no_checkpoint(path, len(archive), _first_line(error)) from error
    if not isinstance(content, dict):
        raise RunError(f"the checkpoint {path} is no checkpoint of pgti: it holds no fields")
    return content


def damaged(path: Path, reason: str) -> RunError:
    """The error of a checkpoint that must not be used."""
    return RunError(
        f"the checkpoint {path} is damaged: {reason}; restore it from a copy, or train again"
    )


def _no_checkpoint(path: Path, size: int, reason: str) -> RunError:
    return RunError(
        f"the checkpoint {path} is damaged or no checkpoint ({size} bytes): {reason}; restore it "
        "from a copy, or train again"
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error).strip() else type(error).__name__


def _check_ends(path: Path, tail: bytes, size: int) -> bool:
    """Whether a digest ends the file; refuses a file that ends with neither it nor an archive."""
    if tail[-_SEAL_BYTES:].startswith(_SEAL):
        end = tail[:-_SEAL_BYTES][-_END_BYTES:]
        comment = _SEAL_BYTES
    else:
        end, comment = tail[-_END_BYTES:], 0
    if end[:4] != _END or end[-2:] != comment.to_bytes(2, "little"):
        raise _no_checkpoint(path, size, "it does not end as one")
    return bool(comment)


def _check_members(file: zipfile.ZipFile, archive: bytes) -> None:
    """Refuse members that readers of zip files may see differently, or that are packed.

    Raises:
        ValueError: naming the member.
    """
    if archive[: len(_BEGIN)] != _BEGIN:
        raise ValueError("it does not begin as one")
    members = sorted(file.infolist(), key=lambda each: each.header_offset)
    if len({each.filename for each in members}) < len(members):
        raise ValueError("two of its members have one name")
    begin = 0
    for each in members:
        name, offset = each.orig_filename, each.header_offset
        if each.compress_type != zipfile.ZIP_STORED or each.compress_size != each.file_size:
            raise ValueError(f"{name!r} is packed, which torch never does")
        if each.external_attr or each.is_dir() or each.flag_bits not in _FLAGS:
            raise ValueError(f"{name!r} is no plain member")
        if offset < begin or offset + _LOCAL_HEADER.size > file.start_dir:
            raise ValueError(f"{name!r} lies outside the file or in another member")
        header = _LOCAL_HEADER.unpack_from(archive, offset)
        signature, _, flags, method, _, _, crc, packed, size, name_bytes, extra = header
        known = (_BEGIN, each.flag_bits, zipfile.ZIP_STORED)
        behind = bool(flags & 0x8)  # checksum and sizes may follow the content
        if (signature, flags, method) != known or any(
            mine != other and not (behind and mine == 0)
            for mine, other in ((crc, each.CRC), (packed, each.file_size), (size, each.file_size))
        ):
            raise ValueError(f"{name!r} has another header than in the directory")
        begin = offset + _LOCAL_HEADER.size + name_bytes + extra + each.file_size
        if begin > file.start_dir:
            raise ValueError(f"{name!r} is longer than the file")


def _check_pickle(file: zipfile.ZipFile) -> None:
    """Refuse what a checkpoint does not need before torch reads it: it may ask for any memory.

    Raises:
        ValueError: naming it.
    """
    name = next((each for each in file.namelist() if each.split("/", 1)[-1] == "data.pkl"), None)
    if name is None:
        raise ValueError("it has no data.pkl")
    stack = _Stack()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file.read(name))):
        if count >= _MOST_OPCODES:
            raise ValueError(f"it has more than {_MOST_OPCODES} instructions")
        if not _OPCODES.fullmatch(opcode.name):
            raise ValueError(f"it has the instruction {opcode.name}, which no checkpoint needs")
        if opcode.name == "GLOBAL" and not _GLOBALS.fullmatch(str(argument)):
            raise ValueError(f"it asks for {argument!r:.80}, which no checkpoint needs")
        if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
            raise ValueError(f"it has a number of more than {_MOST_BITS} bits")
        stack.follow(opcode, argument)


class _Stack:
    """The stack of a pickle: whether each object is a container; classes are names, marks None.

    What may come twice, or is a key, is no container: hashing one may take the whole stack of C,
    and a few levels of them, each twice in the next, never end.
    """

    def __init__(self) -> None:
        self._stack: list[bool | str | None] = []
        self._memo: dict[object, bool | str | None] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Do what an instruction does.

        Raises:
            ValueError: if it repeats a container, or makes one a key.
            LookupError: if it takes what there is not.
        """
        if opcode.name.endswith("BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif opcode.name == "MARK":
            self._stack.append(None)
        elif opcode.name.endswith("BINGET"):
            if self._memo[argument] is True:
                raise ValueError("it repeats a tuple, list or mapping, which no checkpoint needs")
            self._stack.append(self._memo[argument])
        elif opcode.stack_after:
            self._stack.append(self._made(opcode, argument))

    def _made(self, opcode: pickletools.OpcodeInfo, argument: object) -> bool | str:
        """What an instruction makes of what it takes."""
        name, before = opcode.name, opcode.stack_before
        taken: list[bool | str | None] = []
        if pickletools.markobject in before:
            before = before[: before.index(pickletools.markobject)]
            while (each := self._stack.pop()) is not None:
                taken.append(each)
        taken += [self._stack.pop() for _ in before]  # the last first
        if name == "GLOBAL":
            return str(argument)
        if name.startswith("SETITEM") and True in taken[1:-1:2]:
            raise ValueError("it has a tuple as a key, which no checkpoint needs")
        is_call_of_torch = name == "REDUCE" and str(taken[-1]).startswith(_ATOMS)
        if name == "BINPERSID" or is_call_of_torch:
            return False
        return bool(taken) or name in ("EMPTY_LIST", "EMPTY_DICT")
