"""Layers and losses that know nothing of data, files or processes."""

from pgti.nn.diffusion import diffuse as diffuse
from pgti.nn.diffusion import diffusion_convolution as diffusion_convolution
from pgti.nn.losses import MaskedLoss as MaskedLoss
from pgti.nn.losses import huber as huber
from pgti.nn.losses import mae as mae
from pgti.nn.losses import mse as mse
from pgti.nn.recomputation import recomputed as recomputed
from pgti.nn.recomputation import steps_to_recompute as steps_to_recompute
from pgti.nn.recurrent import DiffusionGRU as DiffusionGRU
from pgti.nn.sparse import NUM_SUPPORTS as NUM_SUPPORTS
from pgti.nn.sparse import SupportKind as SupportKind
from pgti.nn.sparse import Supports as Supports
