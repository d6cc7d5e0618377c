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
# # METR-LA by a published recipe
#
# METR-LA has the speeds of 207 loop detectors in Los Angeles County, every five minutes from March
# to June 2012. Nearly every paper of the field reports on it, so it is the place to check that a
# model does here what it did elsewhere. This tutorial makes a store of the published files, looks
# at it, trains by a **recipe** (the options that a result was published with), and puts your
# errors beside the published ones.
#
# With a network, the first step is one command, which downloads the files, checks them and writes
# the store:
#
# ```bash
# pgti fetch METR-LA --out metr-la                    # download
# pgti fetch METR-LA --from my-files --out metr-la    # from files that you have
# ```
#
# **This page downloads nothing.** It makes a small stand-in in exactly the layout of the published
# files, with simulated speeds of ten days, and gives it to `fetch` as files that you have. Every
# error and every picture below is of that stand-in; only the table headed "published" is of
# METR-LA itself. With the real files all other lines stay as they are: you change the folder, and
# leave out the options that make the training short.

# %% tags=["parameters"]
days = 10
options = {"epochs": 4}

# %% [markdown]
# ## The files
#
# The data set is published in two forms, and `fetch` takes either: DCRNN's `metr-la.h5` with
# `adj_mx.pkl`, or the two arrays of PyTorch Geometric Temporal. The stand-in has the second form:
# `node_values.npy` [T, N, 2], whose second channel is the fraction of the day, and `adj_mat.npy`
# [N, N].

# %%
from pathlib import Path

import numpy as np
import pandas as pd

import pgti

simulated = pgti.simulate("simulated", sensors=207, steps=days * 288, seed=11, overwrite=True)
speeds = np.nan_to_num(simulated.read(0, days * 288)[..., 0])  # files have 0 for a missing speed
time_of_day = np.broadcast_to((np.arange(len(speeds)) % 288 / 288)[:, None], speeds.shape)
folder = Path("my-files")
folder.mkdir(exist_ok=True)
np.save(folder / "node_values.npy", np.stack([speeds, time_of_day], axis=-1))
np.save(folder / "adj_mat.npy", simulated.graph.adjacency.toarray())

# %%
store = pgti.fetch("METR-LA", "metr-la", source=folder, overwrite=True)
store

# %% [markdown]
# Three things happened here that are worth knowing.
#
# **Zeros became missing readings.** The files write 0 where a detector was silent, and no car
# drives at 0 mph for five minutes at every detector of a road. DCRNN leaves zeros out of its loss
# and its errors, and so does pgti. Papers that count them report other numbers.
#
# **The second channel is gone.** It repeats the clock. pgti turns it into the times of the series,
# and computes calendar features when a batch is made.
#
# **The store knows what it is.** It remembers that it is METR-LA, so a recipe of another data set
# is refused. The protocol of the data set is known, too:

# %%
for note in store.notes:
    print("-", note)

# %% [markdown]
# Before you train on any data, look at it. Zeros that were taken for speeds would show up as a day
# in which every car stood still.

# %%
store.plot.week()

# %% [markdown]
# ## The recipe
#
# `pgti recipes` lists 98 of them; `metr-la/stid` is STID as the benchmark Torch-MTS trained it.
# The command prints where each option was read, what pgti does otherwise, and the published
# errors:
#
# ```bash
# pgti recipes metr-la/stid
# ```
#
# Training by it is one option. The recipe asks for 200 epochs; options of your own come first, and
# pgti then says that figures do not compare. Here that is the number of epochs, so that the page
# builds in seconds.

# %%
run = pgti.train(store, "stid", recipe="metr-la/stid", progress=False, overwrite=True, **options)
run.evaluate()

# %% [markdown]
# From a terminal, where `evaluate` also prints the published errors beside yours and the deviation
# in per cent:
#
# ```bash
# pgti train metr-la --recipe metr-la/stid --run stid
# pgti evaluate stid
# ```
#
# A recipe also checks that the store has the shape of the data set: it refuses one of 206
# detectors.
#
# What is published, for METR-LA itself, at 15, 30 and 60 minutes:

# %%
from pgti.datasets import find_recipe

published = find_recipe("metr-la/stid").published
print(published.source)
errors = {
    name.upper(): [getattr(published, name)[step] for step in ("3", "6", "12")]
    for name in ("mae", "rmse", "mape")
}
pd.DataFrame(errors, index=pd.Index(["15 min", "30 min", "60 min"], name="published"))

# %% [markdown]
# **How far may yours be off?** The published numbers are of one seed. Train three seeds before you
# call a difference a difference; `pgti study` does that and gives means and standard deviations.
# pgti's authors have trained no recipe to its end so far, [and say so](../recipes.md).
#
# ```bash
# pgti study metr-la --recipes metr-la/stid,metr-la/graph-wavenet --seeds 0,1,2
# ```
#
# ## Where the error is
#
# A benchmark reports one number. The run knows more: the first picture shows one detector's last
# day, and the second the errors by hour and weekday, and the table the detectors with the largest
# errors.

# %%
run.plot.forecast(run.store.meta.node_ids[0])

# %%
run.plot.hours()

# %%
by_sensor = run.evaluate().by("sensor")
worst = by_sensor[by_sensor["forecaster"] == "stid"].nlargest(5, "mae")
worst[["sensor", "mae", "rmse", "count"]].round(2)

# %% [markdown]
# ## What to read next
#
# - [Your own model in a page of code](3-own-model.md), trained and compared by the same protocol.
# - [Recipes](../recipes.md): all published errors, and what differs. [Data sets](../datasets.md):
#   the other thirteen, and what their values mean.
# - [Coming from PyTorch Geometric Temporal](../pgt.md), if you have a script that uses its
#   loaders.
