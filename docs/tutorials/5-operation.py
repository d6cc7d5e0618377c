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
# # Forecasts in operation
#
# A model is trained, and now readings arrive every five minutes, some of them late, some of them
# wrong. This tutorial follows a run through that life: forecasts from newer readings, a store that
# grows, intervals, the question whether the world has changed, a backtest that says how often to
# train again, and fine-tuning.

# %% tags=["parameters"]
days = 28
sensors = 12
options = {"model": "stid", "epochs": 4}

# %% [markdown]
# Three quarters of the days are history. The rest stands for the future: the sections below reveal
# it little by little. All of it is simulated.

# %%
import pandas as pd

import pgti

simulated = pgti.simulate("simulated", sensors=sensors, steps=days * 288, seed=5, overwrite=True)
ids = [f"S{400 + number}" for number in range(sensors)]
times = pd.date_range("2025-10-06", periods=days * 288, freq="5min", tz="America/Los_Angeles")
values = simulated.read(0, len(times))[..., 0].astype("float64")
speeds = pd.DataFrame(values, index=times, columns=ids).round(1)

now = days * 3 // 4 * 288  # the row that has not arrived yet
store = pgti.ingest(
    speeds[:now], "store", graph=simulated.graph, channels="speed", units="mph", overwrite=True
)
run = pgti.train(store, "run", progress=False, overwrite=True, **options)

# %% [markdown]
# ## Forecast from newer readings
#
# A run directory stands alone: copy it to the machine that forecasts. Give it the newest readings,
# as a table or a file. It needs the last hour, which is what the model sees.

# %%
newest = speeds[now - 12 : now]
forecast = run.forecast(newest)
forecast[["timestamp", "sensor", "forecast", "missing_inputs", "missing_newest"]].head()

# %% [markdown]
# **A forecast means what it meant in training.** Columns are matched by id, times by their zone,
# and missing codes and scales are those of the source. What pgti cannot honor it refuses; what it
# puts right it says. Real feeds look like this one: in UTC, in another order, one sensor gone,
# another late.

# %%
feed = newest.tz_convert("UTC")[ids[:2] + ids[:2:-1]]  # without ids[2]
feed.iloc[-3:, feed.columns.get_loc(ids[1])] = None
other = run.forecast(feed)
other.groupby("sensor", observed=True)[
    ["forecast", "missing_inputs", "missing_newest"]
].first().round(1).head(4)

# %% [markdown]
# The line on standard error names the absent sensor. The table says how much to trust each
# forecast: `missing_newest` counts the inputs after a sensor's last reading. A missing input is
# filled from the sensor's own last reading, which fades into what is typical at that time, and the
# model was trained with inputs filled in the same way.
#
# ```bash
# pgti predict run --readings newest.csv --out forecast.parquet
# ```
#
# ## A store that grows
#
# Where one machine collects readings and forecasts, append them. An append is atomic and does not
# read the series, so it can run every five minutes for years. Rows that are there already are
# skipped if they are equal.

# %%
store = store.append(speeds[now - 6 : now + 288])
print(*store.notes, sep="\n")
latest = run.forecast()  # from the newest rows of the store
latest["origin"].max()

# %%
run.plot.latest(ids[3])

# %% [markdown]
# In a crontab these are two lines, behind `set -e`, so that no forecast is made of old rows if the
# append fails:
#
# ```bash
# pgti append store newer.csv --json
# pgti predict run --out forecast.csv --json
# ```
#
# A reading that was wrong is replaced with `--correct`, and `--gaps fill` inserts rows that never
# came.
#
# ## How sure is it?
#
# Intervals are conformal: their width comes from the errors on the validation windows, for each
# sensor and step, so that an interval of 80 % holds about 80 % of the outcomes if the future
# resembles that time. Whether it did is a number in the report.

# %%
report = run.evaluate(speeds[now:], intervals=[0.8])
frame = report.to_frame(by_horizon=False)
frame[["forecaster", "mae", "crps", "coverage_80", "width_80"]].round(3)

# %% [markdown]
# A coverage far below 0.8 means that the run is too sure of itself: the world has changed, or the
# validation windows were few. `adaptive=True` lets the width follow the outcomes as they become
# known.
#
# ## Has the world changed?
#
# That was an evaluation on data that the run had never seen. The report compares its inputs with
# those of training, too. Suppose that one detector is replaced, and the new one sends km/h:

# %%
wrong = speeds[now:].copy()
wrong[ids[3]] *= 1.609
check = run.evaluate(wrong)
print(*check.notes, sep="\n")
check.drift_by_sensor.head(3).round(2)

# %% [markdown]
# `shift` is the distance of the mean from that of training, in standard deviations, and `outside`
# the fraction of inputs outside the range of training. The first row is the culprit. Errors show
# it later, when the outcomes have arrived; the inputs show it at once. Forecasts from such
# readings say so, too.
#
# From a terminal, with errors by hour and by range of the speed:
#
# ```bash
# pgti evaluate run --readings newer.csv --by hour,range
# ```
#
# ## How often to train again
#
# A **backtest** answers it with the past: it forecasts stretch after stretch of the series, each
# by a model that was trained on what lies before it, and compares never training again, training
# further, and training from the start.

# %%
for refit in ("never", "warm"):
    result = pgti.backtest(
        store, f"backtest-{refit}", folds=2, refit=refit, progress=False, **options
    )
    print(f"training again: {refit}", result, sep="\n", end="\n\n")

# %% [markdown]
# On traffic that does not change, as here, training again gains little. On a series with a drift
# it gains much: [the guide](../backtest.md) shows a year of one.
#
# ## Train further
#
# When the answer is "now", begin with the weights that you have. The optimizer is new, and the
# learning rate is usually a fraction of the first one.

# %%
later = pgti.train(
    store, "later", init_from=run, epochs=1, learning_rate=3e-4, progress=False, overwrite=True
)
before, after = (each.evaluate(speeds[now + 288 :]).mae for each in (run, later))
print(f"MAE on days that neither has seen: {before:.3f} mph before, {after:.3f} mph after")

# %% [markdown]
# ```bash
# pgti train store --run later --from run --epochs 1 --learning-rate 0.0003
# ```
#
# ## What to read next
#
# - [After training](../after-training.md): each of these steps with its rules, and what happens to
#   a run when its store is corrected.
# - [Serving](../serving.md): `pgti serve run` puts the run behind an address, with a dashboard of
#   the latest forecasts; [the report](../report.md) shows in one file where a run is wrong.
# - [Uncertainty](../uncertainty.md): learned quantiles beside conformal intervals.
# - [Backtests](../backtest.md): a year with a drift, and when to train again.
