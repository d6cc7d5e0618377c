# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own model in a page of code
#
# You have an idea for a network. This tutorial writes it as an ordinary `torch.nn.Module`, trains
# it with everything that pgti's own models have (exact resume, several ranks, memory plan, masked
# metrics), and finds out whether it is any good.
#
# The idea: a sensor's near future depends on its own last hour and on that of the sensors upstream
# and downstream.

# %% tags=["parameters"]
days = 14
sensors = 16
options = {"epochs": 5}

# %% [markdown]
# ## What a network sees
#
# We use simulated traffic, so that the page runs anywhere. A batch shows what arrives at a
# network: inputs `x` [B, L, N, C], targets `y` [B, H, N, C], and which of both were observed.

# %%
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

import pgti

store = pgti.simulate("store", sensors=sensors, steps=days * 288, seed=7, overwrite=True)
windows = pgti.WindowDataset.from_store(store, "test")
batch = next(iter(DataLoader(windows, batch_size=4, collate_fn=windows.collate)))
batch

# %% [markdown]
# ## The network
#
# Two conventions are all there is. The class is **built from the sizes of the data and its
# options**: the first parameter is called `shape` and has `input_steps`, `horizon`, `num_nodes`,
# `input_channels`, `target_channels` and more. And `forward` is **called with what its arguments
# name**: `supports` are the graph's operators, here one random walk along the edges and one
# against them. It returns [B, H, N, C], standardized; pgti computes losses and errors in original
# units.


# %%
class NeighborNet(nn.Module):
    """A sensor's last hour and that of its neighbors."""

    def __init__(self, shape, hidden: int = 32, neighbors: bool = True):
        super().__init__()
        self.shape, self.neighbors = shape, neighbors
        self.encode = nn.Linear(shape.input_steps * shape.input_channels, hidden)
        self.mix = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.ReLU())
        self.decode = nn.Linear(hidden, shape.horizon * shape.target_channels)

    def forward(self, x, supports):
        state = torch.relu(self.encode(x.transpose(1, 2).flatten(2)))  # [B, N, D]
        columns = state.transpose(0, 1).flatten(1)  # [N, B * D]
        walks = [supports.multiply(i, columns) for i in range(len(supports))]
        near = [each.unflatten(1, (len(x), -1)).transpose(0, 1) for each in walks]
        if not self.neighbors:
            near = [torch.zeros_like(each) for each in near]
        out = self.decode(self.mix(torch.cat([state, *near], dim=-1)))  # [B, N, H * C]
        return out.unflatten(2, (self.shape.horizon, -1)).transpose(1, 2)


# %% [markdown]
# `supports.multiply(i, columns)` multiplies a sparse N x N matrix with columns. Fold the batch
# into the columns, as here, and one sparse product serves all windows of a batch.
#
# ## Train it
#
# Pass the class. Every parameter behind `shape` is an option: its annotation or default gives its
# type, and a value of another type is refused.

# %%
own = pgti.train(
    store,
    "own",
    model=NeighborNet,
    model_options={"hidden": 24},
    progress=False,
    overwrite=True,
    **options,
)
own.evaluate()

# %%
own.plot.horizon()

# %% [markdown]
# The report calls it "custom", because the class lives in this notebook and no other program can
# import it: `pgti.Run.open("own", model=NeighborNet)` opens the run again. Save the class as
# `my_models.py`, and `my_models:NeighborNet` is a name that the command line knows as well
# (below).
#
# ## When it is wrong
#
# Before anything is written, pgti runs the network on one window. A mistake costs a second then,
# and not a night:


# %%
class Sideways(NeighborNet):
    """Returns its forecasts with two axes swapped."""

    def forward(self, x, supports):
        return super().forward(x, supports).transpose(1, 2)


try:
    pgti.train(store, "broken", model=Sideways, progress=False)
except pgti.PgtiError as error:
    print(error)

# %% [markdown]
# Some mistakes have the right shape. A forecast must not depend on the other windows of its batch,
# or errors change with the batch size. Forecast one window alone and among others:

# %%
single = next(iter(DataLoader(windows, batch_size=1, collate_fn=windows.collate)))
with torch.no_grad():
    difference = own.forecaster(batch)[0] - own.forecaster(single)[0]
print(f"largest difference: {difference.abs().max():.6f} mph")

# %% [markdown]
# ## Do the neighbors help?
#
# A good number says little about an idea. An **ablation** does: the same network without the part
# in question, otherwise trained alike.

# %%
without = pgti.train(
    store,
    "alone",
    model=NeighborNet,
    model_options={"hidden": 24, "neighbors": False},
    progress=False,
    overwrite=True,
    **options,
)
stid = pgti.train(store, "stid", model="stid", progress=False, overwrite=True, **options)
runs = {"with neighbors": own, "without neighbors": without, "stid": stid}
errors = {name: run.evaluate().to_frame() for name, run in runs.items()}
pd.DataFrame(
    {
        name: frame[frame["forecaster"] == frame["forecaster"].iloc[0]].set_index("horizon")["mae"]
        for name, frame in errors.items()
    }
).loc[[3, 6, 12]].rename_axis("MAE in mph, horizon step").round(3)

# %% [markdown]
# One seed proves nothing yet: train each with `seed=0`, `1` and `2` and compare means beside
# spreads, or let `pgti study` do it. And these are a few epochs on simulated roads. The way to
# work is the same on real ones; the numbers are not.
#
# ## Your own loss and metric
#
# A loss and a metric map forecast, target and mask, in original units, to a **sum** over observed
# targets and its **count**. So both are exact however windows are divided among batches and ranks.


# %%
def pinball(prediction, target, mask):
    """Underestimating costs three times as much as overestimating."""
    error = torch.where(mask, target - prediction, 0.0)
    return torch.where(error > 0, 0.75 * error, -0.25 * error).sum(), mask.sum()


def within_two(prediction, target, mask):
    """The fraction of forecasts that are less than 2 mph off."""
    return ((prediction - target).abs().lt(2) & mask).sum(), mask.sum()


high = pgti.train(
    store,
    "high",
    model=NeighborNet,
    loss=pinball,
    metrics={"within_two": within_two},
    progress=False,
    overwrite=True,
    **options,
)
forecasts = high.forecast(split="test")
above = (forecasts["forecast"] > forecasts["observed"])[forecasts["observed"].notna()].mean()
print(f"{above:.0%} of the forecasts lie above the observed speed")

# %% [markdown]
# The loss asks for a forecast that three quarters of the outcomes stay below, and the fraction
# above says how near it came.
#
# ## From a terminal, and on more ranks
#
# In a file, the class is a model like any other, also for several ranks and in a study:
#
# ```bash
# pgti models my_models:NeighborNet
# pgti train store --run own --model my_models:NeighborNet --model.hidden 24
# torchrun --nproc-per-node 4 -m pgti train store --run-dir own --model my_models:NeighborNet
# ```
#
# ## What to read next
#
# - [Your own model](../own-models.md): all that `forward` may ask for (calendar, history, values
#   known in advance, features of the sensors), functions that build networks of other libraries,
#   callbacks.
# - [Two ranks and a cluster](4-ranks.md): what changes with more processes, and what does not.
# - [Models](../models.md): what pgti's own models do, and which one to take.
