"""Windows as integers: starts, splits, order, sharding over ranks, and the rows they read."""

from pgti.windows.model_shape import ModelShape as ModelShape
from pgti.windows.order import BlockShuffle as BlockShuffle
from pgti.windows.order import GlobalShuffle as GlobalShuffle
from pgti.windows.order import Order as Order
from pgti.windows.order import PartitionShuffle as PartitionShuffle
from pgti.windows.order import Sequential as Sequential
from pgti.windows.residency import Transfer as Transfer
from pgti.windows.residency import plan_transfers as plan_transfers
from pgti.windows.residency import resident_rows as resident_rows
from pgti.windows.residency import within as within
from pgti.windows.row_plan import RowPlan as RowPlan
from pgti.windows.row_plan import RowRanges as RowRanges
from pgti.windows.row_plan import num_union_rows as num_union_rows
from pgti.windows.row_plan import plan_rows as plan_rows
from pgti.windows.row_plan import union_rows as union_rows
from pgti.windows.sharding import EvenSharding as EvenSharding
from pgti.windows.sharding import PartitionSharding as PartitionSharding
from pgti.windows.sharding import Sharding as Sharding
from pgti.windows.sharding import even_part as even_part
from pgti.windows.spec import WindowSpec as WindowSpec
from pgti.windows.splits import SPLIT_NAMES as SPLIT_NAMES
from pgti.windows.splits import SplitName as SplitName
from pgti.windows.splits import Splits as Splits
from pgti.windows.splits import split_by_fractions as split_by_fractions
from pgti.windows.splits import split_by_rows as split_by_rows
from pgti.windows.splits import subsample_evenly as subsample_evenly
