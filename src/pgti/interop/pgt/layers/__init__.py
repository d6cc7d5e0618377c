"""PGT's layers as models."""

from pgti.interop.pgt.layers.dcrnn import load_pgt_state_dict as load_pgt_state_dict
from pgti.interop.pgt.layers.models import PGT_LAYERS as PGT_LAYERS
from pgti.interop.pgt.layers.models import wrap_pgt_layer as wrap_pgt_layer
from pgti.interop.pgt.package import import_pgt as import_pgt
