"""How to train: every option of the training loop, checked once."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from pgti.errors import ConfigError, option, require_whole_number
from pgti.options import convert_fields, require_number
from pgti.training.bounds import parse_bounds
from pgti.training.losses import CustomLoss, HuberLoss, MAELoss, MSELoss, QuantileLoss
from pgti.training.optimizers import AdamOptimizer, AdamWOptimizer, RMSPropOptimizer
from pgti.training.orders import AutoOrder, BlocksOrder, GlobalOrder, PartitionsOrder
from pgti.training.schedules import NoSchedule, Schedule
from pgti.windows import BlockShuffle, GlobalShuffle, Order, PartitionShuffle

__all__ = [
    "CompileMode",
    "CustomLoss",
    "HuberLoss",
    "MAELoss",
    "MSELoss",
    "Precision",
    "QuantileLoss",
    "TrainingConfig",
    "exclusive_batch_sizes",
]

_DEFAULT_BATCH_SIZE = 64

Precision = Literal["float32", "tf32", "bfloat16"]

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
"""A mode of `torch.compile`."""


# -- all options ----------------------------------------------------------------------------------


def exclusive_batch_sizes(batch_size: int, per_rank: int) -> ConfigError:
    """The error of a batch size that is given twice."""
    return ConfigError(
        f"batch_size is {batch_size} and batch_size_per_rank is {per_rank}: they exclude each "
        "other, give one of them"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Options of the training loop.

    Options with variants take an instance of a variant's class, the name of its kind or a mapping:
    `schedule=MultistepSchedule(milestones=(20, 30))`, `schedule="cosine"` and
    `schedule={"kind": "multistep", "milestones": [20, 30]}` are all valid.

    Attributes:
        epochs: Passes over the training windows. A run that starts from another may have 0.
        batch_size: Windows per batch, over all ranks together.
        batch_size_per_rank: Windows per batch of each rank, in place of batch-size: a new run takes
            the number of ranks times as many, and keeps that batch-size when it resumes on other
            ranks.
        eval_batch_size: Windows per batch of validation and evaluation, over all ranks together;
            results do not depend on it. By default as many as in training, at least one a rank.
        accumulate: Batches per optimizer step: each step learns from batch-size * accumulate
            windows.
        order: Order of the training windows. "global" shuffles all of them in each epoch; "blocks"
            shuffles blocks of consecutive windows, which reads fewer rows and makes gradients
            slightly noisier; "partitions" shuffles blocks within parts of the series and takes
            windows of all parts in every batch; "auto" is partitions for a partitioned placement
            and global otherwise.
        learning_rate: Learning rate before warm-up and schedule.
        warmup_steps: Optimizer steps over which the learning rate rises linearly to its full value,
            before any schedule.
        schedule: How the learning rate changes after warm-up.
        optimizer: Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) or RMSProp (Tieleman &
            Hinton 2012).
        ema_decay: Validate, forecast and save as the best a moving average of the weights: after
            step t the average moves by a part 1 - min(ema-decay, (1 + t) / (10 + t)) of the way to
            the weights. 0 averages nothing.
        loss: Loss over observed targets, in original units. "quantile" forecasts several quantiles
            of each target; its median is the point forecast, whose MAE selects the best epoch.
        bounds: Lowest and highest forecast: "0," for counts, "0,100" for percentages, and
            "flow=0,;occupancy=0,100" of several targets. Training does not see them; forecasts,
            quantiles and intervals stay within.
        curriculum_steps: MTGNN's curriculum over the horizon (KDD 2020): the loss sees the first
            step of the horizon alone, and one more after every this many optimizer steps; 0 sees
            all of them from the start.
        curriculum_warmup_steps: Optimizer steps whose loss sees the whole horizon before the
            curriculum begins.
        clip_norm: Largest norm of the gradient over all parameters; 0 disables clipping.
        patience: Early stopping: end training after this many consecutive validations without a
            better MAE. By default training does not stop early.
        max_steps: End training after this many optimizer steps, even within an epoch.
        val_windows: Validate on at most this many windows, spread evenly over the split. By default
            on all of them.
        freeze: Names of layers or parameters that training leaves as they are; * stands for any
            text, as in encoder.*. By default every parameter learns.
        allow_no_edges: Train a model of the graph on a store without edges, where it forecasts each
            sensor alone.
        precision: Precision of products in training. "float32" is that everywhere; "tf32" rounds
            what is multiplied to 10 bits on GPUs that have TF32, and computes float32 elsewhere;
            "bfloat16" uses autocast, and on GPUs hops over the graph too. Sums are float32, and
            validation, evaluation and forecasts compute in float32.
        deterministic: On GPUs, use algorithms that repeat a run bit for bit, which may be slower,
            and refuse what has none. CPUs always do.
        cuda_graphs: On GPUs, record a training step once and replay it, with the same results, but
            not a launch of each kernel. "auto" says why where it cannot; "off" never does.
        activation_checkpointing: Recompute activations in the backward pass instead of storing
            them. This takes a fraction of the memory and about a third more time. "auto" does so if
            they would not fit otherwise.
        compile: Compile the network with torch.compile, for a minute or more before the first step.
            It needs a C++ compiler on CPUs, and Triton on GPUs.
        compile_mode: How --compile compiles. "reduce-overhead" also records its kernels on GPUs in
            CUDA graphs, for one batch per step; "max-autotune" does that and tries out variants of
            products first, for minutes. On CPUs "reduce-overhead" is "default".
        seed: Seed of initial parameters, order of windows and scheduled sampling.
        checkpoint_every_minutes: Write a checkpoint every this many minutes within an epoch, beside
            that at its end; 0 does not.
        checkpoint_every_steps: Also write one every this many optimizer steps; 0 does not.
        log_every_steps: Log the loss every this many optimizer steps; 0 logs it at the end of
            epochs only.

    Raises:
        ConfigError: naming the option, its value and the rule it breaks.
    """

    epochs: int = 30
    batch_size: int = _DEFAULT_BATCH_SIZE
    batch_size_per_rank: int | None = None
    eval_batch_size: int | None = None
    accumulate: int = 1
    order: AutoOrder | GlobalOrder | BlocksOrder | PartitionsOrder = AutoOrder()
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    schedule: Schedule = NoSchedule()
    optimizer: AdamOptimizer | AdamWOptimizer | RMSPropOptimizer = AdamOptimizer()
    ema_decay: float = 0.0
    loss: MAELoss | HuberLoss | MSELoss | QuantileLoss | CustomLoss = MAELoss()
    bounds: str = ""
    curriculum_steps: int = 0
    curriculum_warmup_steps: int = 0
    clip_norm: float = 5.0
    patience: int | None = None
    max_steps: int | None = None
    val_windows: int | None = None
    freeze: tuple[str, ...] = ()
    allow_no_edges: bool = False
    precision: Precision = "float32"
    deterministic: bool = False
    cuda_graphs: Literal["auto", "off"] = "auto"
    activation_checkpointing: Literal["auto", "on", "off"] = "auto"
    compile: bool = False
    compile_mode: CompileMode = "default"
    seed: int = 0
    checkpoint_every_minutes: float = 5.0
    checkpoint_every_steps: int = 0
    log_every_steps: int = 50

    def __post_init__(self) -> None:
        convert_fields(self)
        parse_bounds(self.bounds)
        for name in ("batch_size", "accumulate"):
            require_whole_number(name, getattr(self, name), 1)
        for name in (
            "batch_size_per_rank",
            "eval_batch_size",
            "patience",
            "max_steps",
            "val_windows",
        ):
            if getattr(self, name) is not None:
                require_whole_number(name, getattr(self, name), 1)
        if self.batch_size_per_rank is not None and self.batch_size != _DEFAULT_BATCH_SIZE:
            raise exclusive_batch_sizes(self.batch_size, self.batch_size_per_rank)
        for name in (
            "epochs",
            "warmup_steps",
            "curriculum_steps",
            "curriculum_warmup_steps",
            "seed",
            "checkpoint_every_steps",
            "log_every_steps",
        ):
            require_whole_number(name, getattr(self, name), 0)
        require_number("learning_rate", self.learning_rate, above_zero=True)
        for name in ("clip_norm", "checkpoint_every_minutes"):
            require_number(name, getattr(self, name))
        lowest = getattr(self.schedule, "min_learning_rate", 0.0)
        if lowest > self.learning_rate:
            raise ConfigError(
                f"schedule.min_learning_rate is {lowest} and learning_rate is "
                f"{self.learning_rate}: the minimum cannot be larger"
            )
        self._check_compile_mode()
        self._check_curriculum_and_average()

    def _check_compile_mode(self) -> None:
        """Refuse a mode where nothing is compiled, or where it would lose gradients."""
        if self.compile_mode == "default":
            return
        if not self.compile:
            raise ConfigError(
                f"compile_mode is {self.compile_mode} and nothing is compiled: add "
                f"{option('compile', value=True)}, or leave it out"
            )
        if self.accumulate > 1:
            raise ConfigError(
                f"compile_mode is {self.compile_mode} and accumulate is {self.accumulate}: CUDA "
                f"graphs overwrite the gradients of the batch before; use "
                f"{option('compile_mode', 'default')}"
            )

    def _check_curriculum_and_average(self) -> None:
        if self.curriculum_warmup_steps and not self.curriculum_steps:
            raise ConfigError(
                f"curriculum_warmup_steps is {self.curriculum_warmup_steps} and there is no "
                f"curriculum to begin after them: add {option('curriculum_steps', 2500)}, or leave "
                "it out"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(
                f"ema_decay is {self.ema_decay!r}: it must be at least 0 and less than 1, such as "
                "0.999"
            )

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Levels of the quantiles that the network forecasts; () for a point forecast."""
        return self.loss.quantiles if isinstance(self.loss, QuantileLoss) else ()

    def resolved(self, placement: str, world_size: int) -> Self:
        """The same with the batch of all ranks, the order that `auto` stands for, and its blocks.

        Args:
            placement: of the training rows.
            world_size: number of ranks.
        """
        if self.batch_size_per_rank is not None:
            whole = self.batch_size_per_rank * world_size
            return replace(self, batch_size=whole, batch_size_per_rank=None).resolved(
                placement, world_size
            )
        order = self.order
        if isinstance(order, AutoOrder):
            order = PartitionsOrder() if placement == "partitioned" else GlobalOrder()
        if isinstance(order, PartitionsOrder) and order.block_size is None:
            order = replace(order, block_size=max(1, self.batch_size // order.partitions))
        return replace(self, order=order)

    def evaluated_at_once(self, world_size: int) -> int:
        """Windows per batch of validation and evaluation, over all ranks together.

        By default no rank is without a window, and none has more than in training.

        Args:
            world_size: number of ranks.
        """
        return self.eval_batch_size or max(self.batch_size, world_size)

    def build_order(self) -> Order:
        """The order of the training windows; `auto`, which the placement decides, is global."""
        order = self.order
        if isinstance(order, PartitionsOrder):
            size = order.block_size or max(1, self.batch_size // order.partitions)
            return PartitionShuffle(self.seed, order.partitions, size, order.rotation)
        if isinstance(order, BlocksOrder):
            return BlockShuffle(self.seed, order.block_size)
        return GlobalShuffle(self.seed)
