"""Index-batching for spatiotemporal graph neural networks: the public API.

    store = pgti.ingest("speeds.csv", "build/store", ...)      readings and graph -> store
    run = pgti.train("build/store", "build/run", epochs=3)      store -> trained run
    run.evaluate()                                              errors beside both baselines
    run.predict("forecast.parquet")                             forecasts as a file

Everything named here is public; everything else may change.
"""

from pgti.batching import Batch as Batch
from pgti.batching import BatchLoader as BatchLoader
from pgti.batching import IndexBatcher as IndexBatcher
from pgti.batching import StandardBatcher as StandardBatcher
from pgti.batching import WindowDataset as WindowDataset
from pgti.batching import WindowSource as WindowSource
from pgti.errors import ConfigError as ConfigError
from pgti.errors import DataError as DataError
from pgti.errors import Interrupted as Interrupted
from pgti.errors import MissingExtraError as MissingExtraError
from pgti.errors import PgtiError as PgtiError
from pgti.errors import RunError as RunError
from pgti.errors import StoreError as StoreError
from pgti.graph import SensorGraph as SensorGraph
from pgti.ingest import IngestOptions as IngestOptions
from pgti.ingest import IngestSummary as IngestSummary
from pgti.ingest import ingest as ingest
from pgti.models import DCRNN as DCRNN
from pgti.models import AbstractModel as AbstractModel
from pgti.models import DCRNNConfig as DCRNNConfig
from pgti.models import ModelShape as ModelShape
from pgti.nn import Supports as Supports
from pgti.run import Run as Run
from pgti.run import RunConfig as RunConfig
from pgti.run import WindowConfig as WindowConfig
from pgti.run import train as train
from pgti.series import Scaler as Scaler
from pgti.series import SeriesStore as SeriesStore
from pgti.simulation import SimulationOptions as SimulationOptions
from pgti.simulation import simulate as simulate
from pgti.training import TrainingConfig as TrainingConfig
from pgti.windows import BlockShuffle as BlockShuffle
from pgti.windows import GlobalShuffle as GlobalShuffle
from pgti.windows import Sequential as Sequential
from pgti.windows import WindowSpec as WindowSpec
