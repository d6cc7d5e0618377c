"""Everything a run needs to resume as if it had never stopped, in one file, written atomically."""

import io
import pickle
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pgti.errors import RunError
from pgti.storage import write_atomically
from pgti.training.progress import Progress

__all__ = ["CHECKPOINT_FORMAT", "Checkpoint", "read_checkpoint"]

CHECKPOINT_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The state of a run between two optimizer steps.

    Attributes:
        network: the network's parameters and buffers by name: those that forecast.
        optimizer: the optimizer's state.
        position: how far the training has come, as `Progress.to_plain` writes it.
        scaler: `Scaler.to_plain`: mean and standard deviation of each channel of the store.
        fingerprint: identifies the store that the run learns from.
        settings: every option that determines the run, as nested plain values.
        trained: parameters and buffers that the optimizer changes, where `network` is their moving
            average; None where they are the same.
    """

    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    position: dict[str, int | float | None]
    scaler: dict[str, list[float]]
    fingerprint: str
    settings: dict[str, Any]
    trained: dict[str, Tensor] | None = None

    def save(self, path: Path) -> None:
        """Write the checkpoint: afterwards `path` holds all of it, or what it held before.

        Raises:
            RunError: if it cannot be written.
        """
        content: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.trained is None:
            del content["trained"]  # as files of earlier versions
        buffer = io.BytesIO()
        torch.save({"format": CHECKPOINT_FORMAT, **content}, buffer)
        write_atomically(path, buffer.getbuffer())

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> "Checkpoint":
        """Read a checkpoint, trusting nothing in it.

        Raises:
            RunError: if there is none, it is damaged, or of another format.
        """
        return cls.parse(path, read_checkpoint(path), device)

    @classmethod
    def parse(cls, path: Path, archive: bytes, device: torch.device | str = "cpu") -> "Checkpoint":
        """The checkpoint in the bytes of a file, trusting nothing in them.

        Args:
            path: the file, for messages.
            archive: its content.
            device: where its tensors go.

        Raises:
            RunError: if it is damaged, or of another format.
        """
        content = _parsed(path, archive, device)
        version = content.get("format")
        if version != CHECKPOINT_FORMAT:
            raise RunError(
                f"the checkpoint {path} has format {version!r} and this version of pgti reads "
                f"format {CHECKPOINT_FORMAT}: use the pgti that wrote it"
            )
        content.setdefault("trained", None)
        missing = [field.name for field in fields(cls) if field.name not in content]
        if missing:
            raise RunError(f"the checkpoint {path} is damaged: it has no {missing[0]}")
        return cls(**{field.name: content[field.name] for field in fields(cls)})

    @property
    def progress(self) -> Progress:
        """How far the training has come.

        Raises:
            RunError: if a number is missing or unknown.
        """
        return Progress.from_plain(self.position)

    def load_into(self, network: nn.Module) -> None:
        """Give a network the parameters and buffers.

        Raises:
            RunError: naming the first parameter that has another name or shape.
        """
        current = network.state_dict()
        for name in (*self.network, *current):
            saved, present = _describe(self.network.get(name)), _describe(current.get(name))
            if saved != present:
                raise RunError(
                    f"the checkpoint does not fit the model: {name} is {saved} in the checkpoint "
                    f"and {present} in the model; use the model's options of the run"
                )
        network.load_state_dict(self.network)

    def load_trained(self, network: nn.Module) -> None:
        """Give a network the parameters and buffers that the optimizer has last changed.

        Raises:
            RunError: as `load_into`.
        """
        weights = self.network if self.trained is None else self.trained
        replace(self, network=weights).load_into(network)


def _describe(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{list(tensor.shape)}"


def read_checkpoint(path: Path) -> bytes:
    """The bytes of a checkpoint's file.

    Raises:
        RunError: if there is none, or it cannot be read.
    """
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}: the run was stopped before its first one")
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"the checkpoint {path} cannot be read: {error.strerror}") from error


def _parsed(path: Path, archive: bytes, device: torch.device | str) -> dict[str, Any]:
    try:
        # torch skips the checksums of the archive, and a flipped bit would become a parameter.
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise RunError(f"the checkpoint {path} is damaged: {damaged} fails its checksum")
        content = torch.load(io.BytesIO(archive), map_location=device, weights_only=True)
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        NotImplementedError,  # a zip archive of a kind that zipfile does not read
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"the checkpoint {path} is damaged or no checkpoint ({len(archive)} bytes): {reason}"
        ) from error
    if not isinstance(content, dict):
        raise RunError(f"the checkpoint {path} is no checkpoint of pgti: it holds no fields")
    return content
