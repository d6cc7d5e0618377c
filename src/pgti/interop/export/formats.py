"""The two formats: how a traced program is written, read again and called."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgti.display import size_text
from pgti.errors import ConfigError, MissingExtraError
from pgti.interop.export.interface import ProgramInterface
from pgti.nn.execution import exporting

__all__ = ["FORMATS", "METADATA_FILE", "METADATA_KEY", "OPSET", "Format", "trace"]

METADATA_FILE = "metadata.json"
"""Name of the description among the extra files of a .pt2 file."""
METADATA_KEY = "pgti"
"""Its name among the properties of an ONNX model."""
OPSET = 20
_MOST_BYTES = (1 << 31) - (1 << 24)
"""A protocol buffer, and so an ONNX file, has less than 2 GiB."""

Call = Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]


class Format(Protocol):
    """How a program is written and read."""

    def check(self) -> None:
        """Refuse at once what cannot be written here."""

    def save(
        self, program: torch.export.ExportedProgram, interface: ProgramInterface, path: Path,
        metadata: str,
    ) -> None:  # fmt: skip
        """Write the program with its description."""

    def load(self, path: Path) -> Call:
        """What was written, as a function of arrays."""


def trace(program: nn.Module, arrays: Sequence[NDArray[Any]]) -> torch.export.ExportedProgram:
    """The program as a graph of torch's own operators, for batches of any size.

    Args:
        program: the module.
        arrays: inputs of at least two windows.

    Raises:
        Exception: of torch, if it cannot trace the network.
    """
    given = tuple(torch.from_numpy(np.ascontiguousarray(each[:2])) for each in arrays)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), exporting(), _quiet():
        traced = torch.export.export(
            program, given, dynamic_shapes=(tuple({0: batch} for _ in given),), strict=False
        )
    for module in traced.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
    return traced


class _Torch:
    """A program of `torch.export`."""

    def check(self) -> None:
        pass

    def save(
        self, program: torch.export.ExportedProgram, interface: ProgramInterface, path: Path,
        metadata: str,
    ) -> None:  # fmt: skip
        del interface
        program._example_inputs = None  # readings of the run
        with path.open("wb") as file, _quiet():
            torch.export.save(program, file, extra_files={METADATA_FILE: metadata})

    def load(self, path: Path) -> Call:
        with path.open("rb") as file, _quiet():
            module = torch.export.load(file).module()

        def call(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
            with torch.no_grad():
                results = module(*(torch.from_numpy(each) for each in arrays))
            return [each.numpy() for each in _as_tuple(results)]

        return call


class _Onnx:
    """A model of ONNX, run by ONNX Runtime."""

    def check(self) -> None:
        for library in ("onnx", "onnxscript", "onnxruntime"):
            try:
                __import__(library)
            except ImportError:
                raise MissingExtraError(library, "export") from None

    def save(
        self, program: torch.export.ExportedProgram, interface: ProgramInterface, path: Path,
        metadata: str,
    ) -> None:  # fmt: skip
        tensors = {**program.state_dict, **program.constants}
        size = sum(each.nbytes for each in tensors.values() if isinstance(each, Tensor))
        if size > _MOST_BYTES:
            raise ConfigError(
                f"the weights take {size_text(size)}, and an ONNX file has less than 2 GiB: export "
                "to a .pt2 file"
            )
        with torch.no_grad(), exporting(), _quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(interface.names),
                output_names=[each.name for each in interface.outputs],
            )
        assert made is not None
        for graph in (made.model.graph, *made.model.functions.values()):
            for node in graph:
                node.metadata_props.clear()  # stack traces
                node.doc_string = None
        made.model.metadata_props[METADATA_KEY] = metadata
        made.model.producer_name = METADATA_KEY
        made.save(str(path), external_data=False)

    def load(self, path: Path) -> Call:
        import onnxruntime  # noqa: PLC0415 - an extra

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]

        def call(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
            results: list[NDArray[Any]] = session.run(None, dict(zip(names, arrays, strict=True)))
            return results

        return call


FORMATS: dict[str, Format] = {".pt2": _Torch(), ".onnx": _Onnx()}
"""By suffix of the file."""


def _as_tuple(results: Any) -> tuple[Tensor, ...]:
    return tuple(results) if isinstance(results, tuple | list) else (results,)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of torch and of the ONNX exporter, which the user cannot act upon."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
