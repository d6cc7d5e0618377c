"""Index-batching for spatiotemporal graph neural networks: the public API.

    store = pgti.ingest("speeds.csv", "build/store", ...)      readings and graph -> store
    store = pgti.fetch("METR-LA", "build/metr-la")              published data set -> store
    run = pgti.train(store, "build/run", epochs=3)              store -> trained run
    run = pgti.Run.open("build/run")                            a run that was trained before
    run.evaluate()                                              errors beside baselines
    run.forecast(newer_readings)                                forecasts as a DataFrame
    run.plot()                                                  a first picture

Everything named here is public, and what `pgti.interop.pgt`, `.ray`, `.lightning` and `.tracking`
export; everything else may change (docs/api.md). Each name is imported when it is first used.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from pgti.lazy import lazy_names

__version__ = version("pgti")

if TYPE_CHECKING:
    from pgti.batching import Batch as Batch
    from pgti.batching import BatchLoader as BatchLoader
    from pgti.batching import CovariateSample as CovariateSample
    from pgti.batching import HistorySample as HistorySample
    from pgti.batching import WindowConfig as WindowConfig
    from pgti.batching import WindowDataset as WindowDataset
    from pgti.batching import WindowSample as WindowSample
    from pgti.batching import WindowSampler as WindowSampler
    from pgti.batching import WindowSource as WindowSource
    from pgti.batching import build_batcher as build_batcher
    from pgti.batching import build_loader as build_loader
    from pgti.datasets import DATASETS as DATASETS
    from pgti.datasets.fetch import fetch as fetch
    from pgti.datasets.simulated import SimulationOptions as SimulationOptions
    from pgti.datasets.simulated import simulate as simulate
    from pgti.distributed import Communicator as Communicator
    from pgti.distributed import init_communicator as init_communicator
    from pgti.errors import ConfigError as ConfigError
    from pgti.errors import DataError as DataError
    from pgti.errors import FetchError as FetchError
    from pgti.errors import Interrupted as Interrupted
    from pgti.errors import MissingExtraError as MissingExtraError
    from pgti.errors import PeerError as PeerError
    from pgti.errors import PgtiError as PgtiError
    from pgti.errors import RunError as RunError
    from pgti.errors import StoreError as StoreError
    from pgti.forecasting import Report as Report
    from pgti.graph import SensorGraph as SensorGraph
    from pgti.ingestion import IngestOptions as IngestOptions
    from pgti.ingestion import ingest as ingest
    from pgti.interop.export import ExportedRun as ExportedRun
    from pgti.interop.export import export as export
    from pgti.models import A3TGCN as A3TGCN
    from pgti.models import AGCRN as AGCRN
    from pgti.models import D2STGNN as D2STGNN
    from pgti.models import DCRNN as DCRNN
    from pgti.models import GMAN as GMAN
    from pgti.models import GRU as GRU
    from pgti.models import MTGNN as MTGNN
    from pgti.models import STGCN as STGCN
    from pgti.models import STID as STID
    from pgti.models import STLLM as STLLM
    from pgti.models import TGCN as TGCN
    from pgti.models import A3TGCNConfig as A3TGCNConfig
    from pgti.models import AbstractModel as AbstractModel
    from pgti.models import AGCRNConfig as AGCRNConfig
    from pgti.models import D2STGNNConfig as D2STGNNConfig
    from pgti.models import DCRNNConfig as DCRNNConfig
    from pgti.models import DLinear as DLinear
    from pgti.models import DLinearConfig as DLinearConfig
    from pgti.models import GMANConfig as GMANConfig
    from pgti.models import GraphWaveNet as GraphWaveNet
    from pgti.models import GraphWaveNetConfig as GraphWaveNetConfig
    from pgti.models import GRUConfig as GRUConfig
    from pgti.models import HimNet as HimNet
    from pgti.models import HimNetConfig as HimNetConfig
    from pgti.models import MegaCRN as MegaCRN
    from pgti.models import MegaCRNConfig as MegaCRNConfig
    from pgti.models import ModelShape as ModelShape
    from pgti.models import MTGNNConfig as MTGNNConfig
    from pgti.models import PatchSTG as PatchSTG
    from pgti.models import PatchSTGConfig as PatchSTGConfig
    from pgti.models import STAEformer as STAEformer
    from pgti.models import STAEformerConfig as STAEformerConfig
    from pgti.models import STBalance as STBalance
    from pgti.models import STBalanceConfig as STBalanceConfig
    from pgti.models import STGCNConfig as STGCNConfig
    from pgti.models import STIDConfig as STIDConfig
    from pgti.models import STLLMConfig as STLLMConfig
    from pgti.models import TGCNConfig as TGCNConfig
    from pgti.nn import Supports as Supports
    from pgti.run import Run as Run
    from pgti.run import RunConfig as RunConfig
    from pgti.run.backtest import backtest as backtest
    from pgti.run.backtest_result import BacktestResult as BacktestResult
    from pgti.run.reporting.write import write_report as write_report
    from pgti.run.search_result import TuneResult as TuneResult
    from pgti.run.train import train as train
    from pgti.run.tune import tune as tune
    from pgti.store import Scaler as Scaler
    from pgti.store import SeriesStore as SeriesStore
    from pgti.training import AdamOptimizer as AdamOptimizer
    from pgti.training import AdamWOptimizer as AdamWOptimizer
    from pgti.training import AutoOrder as AutoOrder
    from pgti.training import BlocksOrder as BlocksOrder
    from pgti.training import Callback as Callback
    from pgti.training import CosineSchedule as CosineSchedule
    from pgti.training import ExponentialSchedule as ExponentialSchedule
    from pgti.training import GlobalOrder as GlobalOrder
    from pgti.training import HuberLoss as HuberLoss
    from pgti.training import MAELoss as MAELoss
    from pgti.training import MSELoss as MSELoss
    from pgti.training import MultistepSchedule as MultistepSchedule
    from pgti.training import NoSchedule as NoSchedule
    from pgti.training import PartitionsOrder as PartitionsOrder
    from pgti.training import PlateauSchedule as PlateauSchedule
    from pgti.training import QuantileLoss as QuantileLoss
    from pgti.training import RMSPropOptimizer as RMSPropOptimizer
    from pgti.training import StepSchedule as StepSchedule
    from pgti.training import TrainingConfig as TrainingConfig
    from pgti.training import TrainingStatus as TrainingStatus
    from pgti.windows import BlockShuffle as BlockShuffle
    from pgti.windows import EvenSharding as EvenSharding
    from pgti.windows import GlobalShuffle as GlobalShuffle
    from pgti.windows import PartitionSharding as PartitionSharding
    from pgti.windows import PartitionShuffle as PartitionShuffle
    from pgti.windows import Sequential as Sequential
    from pgti.windows import WindowSpec as WindowSpec
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
