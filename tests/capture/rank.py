"""One of several processes that record together: ``python -m tests.capture.rank FOLDER RANK SIZE SCENARIO …``.

What each scenario comes to on this rank, a value or what was raised, is left in the folder as JSON.
"""

import json
import os
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ibstore.capture.ranks import Ranks, fingerprint, rank, world_size
from ibstore.capture.recorder import Recorder
from ibstore.errors import CaptureError, WriteError

from .networks import recorded

X = torch.randn(23, 4, generator=torch.Generator().manual_seed(1))
BATCHES = [slice(start, min(start + 5, 23)) for start in range(0, 23, 5)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def run(model, batches):
    """What the network says of each batch, when it is asked for."""
    with torch.no_grad():
        for rows in batches:
            yield model(X[rows]).numpy()


def told():
    return [rank(), world_size()]


def shares():
    ranks = Ranks("shards")
    return [ranks.writes, ranks.works, list(ranks.mine(range(7)))]


def first_only():
    ranks = Ranks()
    ranks.check_same("anything", rank())
    with ranks.together():
        pass
    return [ranks.writes, ranks.works, ranks.agreed(f"of {rank()}"), list(ranks.merged(iter([rank()]), 1))]


def order(total=7):
    ranks = Ranks("shards")
    return list(ranks.merged((f"{rank()}:{batch}" for batch in ranks.mine(range(total))), total))


def forward_pass():
    """After training steps of DDP, where each rank has running statistics of its own."""
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        model(X[rank() + step :: 2]).square().sum().backward()
        optimizer.step()
    plain, ranks = model.module.eval(), Ranks("shards")
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    alone = np.concatenate(list(run(plain, BATCHES)))
    with ranks.same_network(plain):
        found = list(ranks.merged(run(plain, ranks.mine(BATCHES)), len(BATCHES)))
    ranks.close()
    ranks.close()
    kept = all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    same = bool(found) and np.array_equal(np.concatenate(found), alone)
    return [same, kept, plain[1].running_mean.tolist()]


def other_weights():
    model = network()
    with torch.no_grad():
        model[0].bias[0] += rank() * 1e-7
    with Ranks("shards").same_network(model):
        return "recorded"


def other_probe():
    Ranks("shards").check_same("the probe set", f"digest {rank()}")


def agreed():
    ranks = Ranks("shards")
    return ranks.agreed({"epoch": 3} if ranks.writes else None)


def failing(on):
    ranks = Ranks("shards")

    def own():
        for batch in ranks.mine(range(8)):
            if rank() == on and batch >= 4:
                raise CaptureError(f"layer 'a' is not what it was at batch {batch}")
            yield batch

    return list(ranks.merged(own(), 8))


def failing_first():
    return failing(0)


def failing_second():
    return failing(1)


def failing_writer(when=3):
    """Rank 0 cannot write what it is given."""
    ranks = Ranks("shards")
    with closing(ranks.merged(iter(ranks.mine(range(6))), 6)) as merged:
        for batch in merged:
            if batch == when:
                raise WriteError("no space left")


def failing_writer_at_the_end():
    failing_writer(when=5)


def refused_store():
    with Ranks("shards").together():
        if rank() == 0:
            raise WriteError("the run exists")


def dying():
    """Rank 1 is killed in the middle of its share."""
    ranks = Ranks("shards")

    def own():
        for batch in ranks.mine(range(8)):
            if rank() == 1 and batch >= 4:
                os._exit(9)
            yield batch

    return list(ranks.merged(own(), 8))


def recording(mode):
    """A training of DDP that is recorded, as this rank sees it; rank 0 also tells what one process would record."""
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    y = torch.arange(23) % 3

    def measure(output, labels):
        return {"accuracy": (output.argmax(1) == labels).double().mean()}

    store = Path(sys.argv[1], f"{mode}.zarr")
    seen, expected = [], []
    with Recorder(store, model, layers=["2", "3"], x=X, y=y, batch_size=5, measure=measure, ranks=mode) as recorder:
        for epoch in range(3):
            seen.append(recorder.record(epoch))
            expected.append(np.concatenate(list(run(model.module.eval(), BATCHES))))
            model.module.train()
            optimizer.zero_grad()
            model(X[rank() :: 2]).square().sum().backward()
            optimizer.step()
        layers = [layer.name for layer in recorder.layers]
    distributed.barrier()
    found = [np.array_equal(recorded(store, "3", epoch), own) for epoch, own in enumerate(expected)]
    weights = fingerprint(model.module)
    return [found if rank() == 0 else None, seen, layers, weights]


def recording_first():
    return recording("first")


def recording_shards():
    return recording("shards")


def taken_store():
    """The run is there already: both ranks hear of it."""
    Recorder(Path(sys.argv[1], "shards.zarr"), network(), x=X, ranks="shards")


def outcome(scenario):
    try:
        return {"value": globals()[scenario]()}
    except Exception as error:  # whatever it is, the test looks at it
        return {"raised": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    folder, own_rank, size, *scenarios = sys.argv[1:]
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=int(own_rank), world_size=int(size)
    )
    found = {scenario: outcome(scenario) for scenario in scenarios}
    Path(folder, f"{own_rank}.json").write_text(json.dumps(found))
    if "dying" in scenarios:
        os._exit(0)  # a group that has lost a member cannot be let go in order
    distributed.destroy_process_group()
