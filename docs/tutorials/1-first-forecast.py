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
# # A first forecast from a CSV file
#
# You have a table of readings, a row for each time and a column for each sensor, and you want the
# next hour of every sensor. This tutorial goes from the file to a forecast, and to an answer to
# the question that matters: is the forecast better than a rule that needs no training?
#
# You need pgti with the extra `report` for the figures. Everything below runs on one CPU core in a
# few seconds.

# %% tags=["parameters"]
days = 21
sensors = 20
epochs = 6

# %% [markdown]
# ## The file
#
# Replace this section by your own file. So that the tutorial runs anywhere, it simulates three
# weeks of traffic speeds and writes them as a detector's export would be: `speeds.csv` with a
# column for each station, and `stations.csv` with their places. **All figures on this page are of
# these simulated speeds**; they show how pgti works, and nothing about real roads.

# %%
import pandas as pd

import pgti

simulated = pgti.simulate("simulated", sensors=sensors, steps=days * 288, seed=4, overwrite=True)
ids = [f"S{400 + number}" for number in range(sensors)]
times = pd.date_range("2025-10-06", periods=days * 288, freq="5min")
values = simulated.read(0, len(times))[..., 0].astype("float64")
table = pd.DataFrame(values, index=times, columns=ids).round(1)
table.to_csv("speeds.csv", index_label="time")
places = pd.DataFrame(simulated.graph.coordinates, columns=["latitude", "longitude"]).round(5)
places.insert(0, "station", ids)
places.to_csv("stations.csv", index=False)

table.iloc[:3, :6]

# %% [markdown]
# ## From the file to a store
#
# `pgti.ingest` reads the file once, checks it, and writes a **store**: one copy of the readings on
# disk, which training maps into memory. pgti never writes windows to disk, so a store is as small
# as the readings themselves.
#
# We say what the file cannot say itself: that the readings are speeds in mph, and that each
# station is a neighbor of the two stations nearest to it. Times, station ids and empty cells are
# recognized.

# %%
store = pgti.ingest(
    "speeds.csv",
    "store",
    graph="stations.csv",
    neighbours=2,
    channels="speed",
    units="mph",
    overwrite=True,
)
store

# %% [markdown]
# Read these lines before you train. Are the first and the last time right? Is the number of
# sensors right, and does the share of missing readings agree with what you know? If your file
# writes a missing reading as 0 or -999, pass `missing=0`: otherwise the network learns that cars
# sometimes stand still at midnight. [Your data](../data.md) says what to type for other files:
# other delimiters, decimal commas, long tables, Parquet, NetCDF.
#
# What could be understood in two ways is refused, in one line that names the option that settles
# it. Here a row is missing from the file, and pgti does not guess what you want:

# %%
table.drop(times[100]).to_csv("hole.csv", index_label="time")
try:
    pgti.ingest("hole.csv", "other-store")
except pgti.DataError as error:
    print(error)

# %% [markdown]
# Pictures of the store show when sensors were silent, the typical week, and where the sensors are.
# A time zone that was mistaken, or a zero that means missing, shows here at once.

# %%
store.plot()

# %% [markdown]
# ## Train
#
# A **run** is a trained model with all that belongs to it. `stid` is the model to begin with: it
# is small, quick, and hard to beat. The first 70 % of the time is for training, the next 10 %
# chooses the best epoch, and the last 20 % is the test that the model never sees. By default the
# model gets an hour of readings (12 steps) and forecasts the hour that follows.

# %%
run = pgti.train(store, "run", model="stid", epochs=epochs, progress=False, overwrite=True)
run.history[["epoch", "train_loss", "val_mae"]].round(3)

# %% [markdown]
# `val_mae` is the mean absolute error on the validation windows, in mph. As long as it falls, more
# epochs help. When it rises while `train_loss` still falls, the model begins to learn its training
# data by heart; the run keeps the best epoch in any case.
#
# ## Is it any good?

# %%
report = run.evaluate()
report

# %% [markdown]
# Look at the columns first: the error grows with the horizon, as the far future is harder. Then at
# the rows: **persistence** forecasts that nothing changes, and the **historical average** is the
# mean of the same time of day in training. A model that does not beat both is not worth its
# electricity. Errors are in mph, and missing readings count in none of them.
#
# A mean hides where a model is wrong. Reports break errors down by sensor, hour, weekday and range
# of the target:

# %%
by_hour = report.by("hour")
by_hour = by_hour[by_hour["forecaster"] == "stid"].set_index("hour")["mae"]
print("the three hardest hours of the day, MAE in mph:")
print(by_hour.nlargest(3).round(2).to_string())

# %% [markdown]
# Congestion is hard to forecast, so the worst hours are usually those around a rush hour. The next
# picture shows a day of one station: what was measured, and what was forecast an hour before.

# %%
run.plot.forecast(ids[3])

# %% [markdown]
# And where is it wrong? A map shows the error of each station.

# %%
run.plot.map()

# %% [markdown]
# ## The next hour
#
# `run.forecast()` forecasts what follows the last reading of the store, as a table with a row for
# each step, sensor and channel. `intervals=[0.8]` adds the ends of an interval that holds about 80
# % of the outcomes; it is calibrated on the validation windows.

# %%
forecast = run.forecast(intervals=[0.8])
one = forecast[forecast["sensor"] == ids[3]].set_index("timestamp")
one[["forecast", "lo-80", "hi-80"]].round(1)

# %% [markdown]
# Newer readings come as a table or a file of the same stations. They are matched by id and by
# time, whatever their order:

# %%
newer = table.iloc[-40:].sample(frac=1, axis="columns", random_state=0)
again = run.forecast(newer)
first = again.groupby("sensor", observed=True)["forecast"].first()
first.round(1).head()

# %% [markdown]
# ## The same from a terminal
#
# Each step is a command, too. They write the same files, so you can train in a terminal and look
# at the run in a notebook with `pgti.Run.open("run")`.
#
# ```bash
# pgti ingest speeds.csv --graph stations.csv --neighbours 2 \
#     --channels speed --units mph --out store
# pgti info store
# pgti train store --model stid --epochs 6 --run run
# pgti evaluate run
# pgti predict run --intervals 0.8 --out forecast.csv
# ```
#
# ## What to read next
#
# - [METR-LA from the published files](2-metr-la.md): the same on the field's best-known data set,
#   with a published recipe.
# - [Forecasts in operation](5-operation.md): newer readings every five minutes, drift, backtests.
# - [Which model to take](../models.md#which-one-to-take), and [your data](../data.md) for
#   everything that is not a tidy CSV file.
