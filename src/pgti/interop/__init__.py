"""Adapters to other libraries; each module imports its library when it is first used.

from pgti.interop.ray import train_on_ray      Ray Train; the extra `ray`
from pgti.interop.lightning import DataModule   Lightning; the extra `lightning`
from pgti.interop.pgt import get_index_dataset  PyTorch Geometric Temporal; the extra `pgt`
from pgti.interop.tracking import MLflowTracker, WandbTracker, ...   their extras
"""
