"""Models: one file each, a frozen config beside its class, and a dict from name to both."""

from pgti.models.base import AbstractModel as AbstractModel
from pgti.models.base import ModelConfig as ModelConfig
from pgti.models.base import ModelShape as ModelShape
from pgti.models.base import Teacher as Teacher
from pgti.models.baselines import HistoricalAverage as HistoricalAverage
from pgti.models.baselines import Persistence as Persistence
from pgti.models.dcrnn import DCRNN as DCRNN
from pgti.models.dcrnn import DCRNNConfig as DCRNNConfig
from pgti.models.registry import MODELS as MODELS
from pgti.models.registry import ModelEntry as ModelEntry
from pgti.models.registry import build_config as build_config
from pgti.models.registry import build_model as build_model
