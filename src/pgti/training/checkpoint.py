"""Everything a run needs to resume as if it had never stopped, in one file, written atomically."""

import io
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pgti.errors import RunError
from pgti.storage import write_atomically
from pgti.training.checkpoint_file import damaged, parse_archive, read_checkpoint, sealed
from pgti.training.checkpoint_schema import check_fields, kind_of
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
            RunError: if it cannot be written, or could not be read.
        """
        content: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        try:
            check_fields(content)
        except RunError as error:
            raise RunError(f"{path} cannot be written: {error}") from error
        if self.trained is None:
            del content["trained"]  # as files of earlier versions
        buffer = io.BytesIO()
        torch.save({"format": CHECKPOINT_FORMAT, **content}, buffer)
        with sealed(buffer) as archive:
            write_atomically(path, archive)

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
        content = parse_archive(path, archive, device)
        version = content.pop("format", None)
        if type(version) is not int:
            raise RunError(
                f"the checkpoint {path} is no checkpoint of pgti: its format is {kind_of(version)}"
            )
        if version != CHECKPOINT_FORMAT:
            raise RunError(
                f"the checkpoint {path} has format {version} and this version of pgti reads "
                f"format {CHECKPOINT_FORMAT}: use the pgti that wrote it"
            )
        try:
            return cls(**check_fields({"trained": None, **content}))
        except RunError as error:
            raise damaged(path, str(error)) from error

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
            RunError: naming the first parameter that has another name, shape or dtype, or is not
                finite.
        """
        _check_fit(self.network, network)
        network.load_state_dict(self.network)

    def load_trained(self, network: nn.Module) -> None:
        """Give a network the parameters and buffers that the optimizer has last changed.

        Raises:
            RunError: as `load_into`, of both kinds of weights.
        """
        _check_fit(self.network, network)
        weights = self.network if self.trained is None else self.trained
        replace(self, network=weights).load_into(network)


def _check_fit(weights: dict[str, Tensor], network: nn.Module) -> None:
    """Refuse weights that the network could take in part only, or by a cast."""
    current = network.state_dict(keep_vars=True)
    for name in (*weights, *current):
        saved, own = weights.get(name), current.get(name)
        if _describe(saved) != _describe(own):
            raise RunError(
                f"the checkpoint does not fit the model: {name:.200} is {_describe(saved)} in the "
                f"checkpoint and {_describe(own)} in the model; use the model's options of the run"
            )
    for name, own in current.items():
        if isinstance(own, Tensor) and not _is_usable(weights[name], own):
            raise RunError(
                f"the checkpoint is damaged: {name} is not finite; restore it from a copy, or "
                "train again"
            )


def _is_usable(saved: Tensor, own: Tensor) -> bool:
    """Whether all is finite; a buffer may be a mask of -inf."""
    if saved.layout != torch.strided or not (saved.is_floating_point() or saved.is_complex()):
        return True
    if isinstance(own, nn.Parameter):
        return bool(saved.isfinite().all())
    return not bool(saved.isnan().any()) or bool(own.isnan().any())


def _describe(tensor: object) -> str:
    if tensor is None:
        return "absent"
    if not isinstance(tensor, Tensor):
        return f"of {type(tensor).__name__}"
    kind = "" if tensor.dtype == torch.float32 else f" of {tensor.dtype}"
    layout = "" if tensor.layout == torch.strided else f", {tensor.layout}"
    return f"{list(tensor.shape)}{kind}{layout}"
