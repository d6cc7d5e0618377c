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
# # Two ranks and a cluster
#
# One process is too slow, or one machine too small. This tutorial trains on two **ranks**
# (processes that train one model together), shows that the result is that of one, continues a run
# with another number of ranks, and then explains the scripts for SLURM and Kubernetes, which start
# the same command.
#
# Everything here runs on the CPU of one machine; two ranks share it, so do not expect them to be
# faster here. What pgti does on several GPUs is tested with CUDA imitated and [has not run on GPUs
# so far](../performance.md).

# %% tags=["parameters"]
days = 5
sensors = 12
options = {"model": "stid", "model_options": {"dropout": 0.0}, "epochs": 2}

# %%
import json
import subprocess

import pandas as pd

import pgti

store = pgti.simulate("store", sensors=sensors, steps=days * 288, seed=2, overwrite=True)

# %% [markdown]
# ## The same command
#
# On one rank:

# %%
one = pgti.train(store, "one", progress=False, overwrite=True, **options)
one.evaluate().mae

# %% [markdown]
# On two, `torchrun` starts the processes, and each runs `pgti train`. Only two things change:
# `torchrun` in front, and `--run-dir` in place of `--run` (which torchrun would take for the
# beginning of an option of its own).
#
# ```bash
# torchrun --standalone --nproc-per-node 2 -m pgti train store --run-dir two \
#     --model stid --model.dropout 0 --epochs 2
# ```


# %%
def torchrun(arguments, ranks=2):
    """Run a pgti command on several ranks; gives what rank 0 reports with --json."""
    command = f"torchrun --standalone --nproc-per-node {ranks} -m pgti {arguments} --json"
    done = subprocess.run(command.split(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


model = "--model stid --model.dropout 0"
result = torchrun(f"train store --run-dir two {model} --epochs 2 --overwrite")
result["world_size"], result["test"]["mae"]["mean"]

# %% [markdown]
# The run directory is like any other:

# %%
pgti.Run.open("two").plot.horizon()

# %% [markdown]
# ## The result is that of one rank
#
# `--batch-size` is the size of the **global** batch. The windows of a batch follow from the seed
# and the epoch, each rank takes its part of them, gradients are summed and divided by the observed
# targets of the whole batch. So more ranks make a step faster and change nothing about what it
# learns:

# %%
two = pgti.Run.open("two")


def difference(a, b):
    """The largest difference of two runs' parameters."""
    pairs = zip(a.forecaster.parameters(), b.forecaster.parameters(), strict=True)
    return max((x - y).abs().max().item() for x, y in pairs)


pd.DataFrame({"one rank": one.history["train_loss"], "two ranks": two.history["train_loss"]})

# %%
print(f"largest difference of a parameter after training: {difference(one, two):.1e}")
print(f"largest parameter: {max(p.abs().max().item() for p in one.forecaster.parameters()):.2f}")

# %% [markdown]
# The bits differ, because sums over other parts round differently, and in float32 such differences
# grow over a long training. Two things do depend on the rank: dropout draws other numbers on each
# (we switched it off above), and batch normalization sees a rank's part of the batch. [Distributed
# training](../distributed.md) says it exactly.
#
# What crossed between the ranks? The series never did: both ranks map the same store, whose pages
# the machine holds once. They sent gradients, one small message a step, and sums of errors.

# %%
pd.Series(result["sent_bytes"], name="bytes that rank 0 sent")

# %% [markdown]
# ## Stop and go on with another number of ranks
#
# A run that was killed continues from its last checkpoint, in the middle of an epoch, on any
# number of ranks. Here one rank trains the first epoch, and two the second. The windows are the
# same as without the pause:

# %%
half = pgti.train(store, "half", progress=False, overwrite=True, **options | {"epochs": 1})
torchrun(f"train store --run-dir half {model} --epochs 2 --resume")
print(f"against one rank without a pause: {difference(one, pgti.Run.open('half')):.1e}")

# %% [markdown]
# ## Before you ask for 64 GPUs
#
# `pgti plan` computes what the ranks of a job would do: windows, bytes and memory of each. It
# starts no rank.
#
# ```bash
# pgti plan store --world-size 64 --model stid
# ```
#
# More ranks help until each has too few windows of a batch. 64 windows on 64 ranks are one each,
# and then a larger `--batch-size` is what keeps them busy. That *does* change what the model
# learns: tune the learning rate again.
#
# Where the data is can be chosen. It decides what the ranks send, and never which batches they
# train on:
#
# | `--placement` | a rank holds | it sends rows of the series |
# |---|---|---|
# | `replicated` (default) | nothing: it maps the store | never |
# | `partitioned --order partitions` | its part of the time | between epochs |
# | `partitioned --order global` | its part of the time | in every step |
#
# ## SLURM
#
# [slurm.sbatch](../../examples/cluster/slurm.sbatch) trains on two machines of four GPUs each:
#
# ```bash
# sbatch examples/cluster/slurm.sbatch STORE RUN --epochs 100
# ```
#
# It needs no torchrun: `srun` starts the ranks, and pgti reads their numbers and their meeting
# point from Slurm's variables. Three lines of it carry the weight:
#
# - `#SBATCH --signal=B:USR1@120` asks Slurm for a signal two minutes before the time is up. The
#   script passes it on, all ranks stop after the same step, and write a checkpoint.
# - `--resume` is always there. It starts a run that does not exist yet, and continues one that
#   does.
# - `scontrol requeue` puts the job back into the queue if it was stopped so. A training of days
#   runs through a queue of hours this way.
#
# Edit the lines with `nodes`, `ntasks-per-node` and `gpus-per-node`, and set `PGTI_ENV` to the
# virtual environment with pgti.
#
# ## Kubernetes
#
# [trainjob.yaml](../../examples/cluster/trainjob.yaml) is a `TrainJob` of Kubeflow Trainer: two
# pods with four GPUs each, the store and the run on a volume that both mount, and `--local-copy
# /scratch`, with which one rank of each machine copies the store to its own disk and checks it.
# The runtime tells torchrun where the machines meet.
#
# ```bash
# kubectl apply -f examples/cluster/trainjob.yaml
# ```
#
# A pod that is deleted gets SIGTERM, and its ranks save their state first. The same is true of
# Ctrl-C on your machine.
#
# ## When a rank fails
#
# One line names it, on rank 0: `rank 2 hangs: it has entered 118 of 120 collectives`, or `rank 3
# did not respond for 3 s`. With `torchrun --max-restarts 3` all ranks start again and resume by
# themselves.
#
# ## What to read next
#
# - [Distributed training](../distributed.md): what is exact, what is sent, sensors split over
#   ranks, MPI and Ray.
# - [Scaling](../scaling.md): measured on CPUs, estimated for GPUs, and how to measure your own
#   machines.
# - [Forecasts in operation](5-operation.md), once the model is trained.
