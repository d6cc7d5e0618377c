"""A run as a file that forecasts without pgti: a program of `torch.export`, or ONNX."""

from pgti.interop.export.export import TOLERANCE as TOLERANCE
from pgti.interop.export.export import ExportedRun as ExportedRun
from pgti.interop.export.export import check_target as check_target
from pgti.interop.export.export import export as export
