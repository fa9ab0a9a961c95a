"""Processes that record together: two real ones, which exchange by gloo."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from ibstore.capture.ranks import Ranks, fingerprint, rank, world_size
from ibstore.errors import CaptureError, UsageError

pytestmark = pytest.mark.xdist_group("ranks")  # one pair of processes for all of them

SCENARIOS = [
    *("told", "shares", "first_only", "order", "forward_pass", "other_weights", "other_probe", "agreed"),
    *("recording_first", "recording_shards", "taken_store"),
    *("failing_first", "failing_second", "failing_writer", "failing_writer_at_the_end", "refused_store", "order"),
]


def start(folder, *scenarios):
    """What the scenarios come to on each of two ranks, in one pair of processes; None for one that has died."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.capture.rank", folder, str(number), "2", *scenarios], env=environment
        )
        for number in range(2)
    ]
    try:
        codes = [process.wait(120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        json.loads((folder / f"{number}.json").read_text()) if not code else None for number, code in enumerate(codes)
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return start(tmp_path_factory.mktemp("ranks"), *SCENARIOS)


def values(found, scenario):
    return [each[scenario]["value"] for each in found]


def test_ranks_are_told(found):
    assert values(found, "told") == [[0, 2], [1, 2]]


def test_batches_are_dealt_out(found):
    assert values(found, "shares") == [[True, True, [0, 2, 4, 6]], [False, True, [1, 3, 5]]]


def test_rank_0_alone_records_by_default(found):
    assert values(found, "first_only") == [[True, True, "of 0", [0]], [False, False, "of 0", [1]]]


def test_rank_0_is_given_all_in_order(found):
    assert values(found, "order") == [[f"{batch % 2}:{batch}" for batch in range(7)], []]


def test_a_shared_pass_is_that_of_one_process_bit_for_bit(found):
    (same, kept, mean), (_, other_kept, other_mean) = values(found, "forward_pass")
    assert same
    assert kept
    assert other_kept, "the buffers of the other rank are its own again"
    assert mean != other_mean, "the test has buffers that differ"


def test_what_rank_0_says_all_know(found):
    assert values(found, "agreed") == [{"epoch": 3}] * 2


def test_by_default_rank_0_records_what_it_is_and_the_others_nothing(found):
    (same, seen, layers, weights), (_, other_seen, other_layers, other_weights) = values(found, "recording_first")
    assert same == [True] * 3
    assert layers == ["2", "3"]
    assert [list(each["train"]) for each in seen] == [["accuracy"]] * 3
    assert (other_seen, other_layers) == ([{}] * 3, [])
    assert weights == other_weights, "the training is the same"


def test_shards_give_the_store_that_one_process_gives_and_all_know_what_was_measured(found):
    (same, seen, layers, weights), (_, other_seen, other_layers, other_weights) = values(found, "recording_shards")
    assert same == [True] * 3
    assert seen == other_seen == values(found, "recording_first")[0][1]
    assert layers == other_layers == ["2", "3"]
    assert weights == other_weights == values(found, "recording_first")[0][3]


def test_a_run_that_is_there_already_is_refused_on_every_rank(found):
    (own, message), (other, other_message) = raised(found, "taken_store")
    assert (own, other) == ("RunExistsError", "CaptureError")
    assert "already in the store" in message
    assert "rank 0 could not record" in other_message


def raised(found, scenario):
    return [(each[scenario]["raised"], each[scenario]["message"]) for each in found]


@pytest.mark.parametrize(("scenario", "what"), [("other_weights", "the network"), ("other_probe", "the probe set")])
def test_what_does_not_belong_together_is_refused_on_all(found, scenario, what):
    for kind, message in raised(found, scenario):
        assert kind == "CaptureError"
        assert f"{what} of rank 1 is not that of rank 0" in message


@pytest.mark.parametrize(
    ("scenario", "number", "kind", "message"),
    [
        ("failing_first", 0, "CaptureError", "layer 'a' is not what it was at batch 4"),
        ("failing_second", 1, "CaptureError", "layer 'a' is not what it was at batch 5"),
        ("refused_store", 0, "WriteError", "the run exists"),
    ],
)
def test_what_one_rank_raises_all_raise(found, scenario, number, kind, message):
    errors = raised(found, scenario)
    assert errors[number] == (kind, message)
    other = f"rank {number} could not record, and so no rank does: {kind}: {message}"
    assert errors[1 - number] == ("CaptureError", other)


@pytest.mark.parametrize("scenario", ["failing_writer", "failing_writer_at_the_end"])
def test_nobody_waits_for_a_rank_that_cannot_write(found, scenario):
    own, other = raised(found, scenario)
    assert own == ("WriteError", "no space left")
    assert other[0] == "CaptureError"
    assert "rank 0 could not record, and so no rank does: it could not go on with what was recorded" in other[1]


def test_ranks_can_go_on_after_a_failure(found):
    """The last scenario is one that went well before the failures."""
    assert SCENARIOS[-1] == "order"
    assert values(found, "order")[0]


def test_nobody_waits_for_a_rank_that_dies(tmp_path):
    alive, dead = start(tmp_path, "dying")
    assert dead is None
    assert alive["dying"]["raised"] == "CaptureError"
    assert "another rank has died, or did not answer within" in alive["dying"]["message"]


# A single process


def test_a_single_process_does_all_of_it():
    ranks = Ranks("shards")
    assert (rank(), world_size(), ranks.writes, ranks.works) == (0, 1, True, True)
    assert list(ranks.merged(iter(ranks.mine([3, 1, 2])), 3)) == [3, 1, 2]
    assert ranks.agreed("own") == "own"
    with ranks.together(), ranks.same_network(nn.Linear(2, 2)):
        ranks.check_same("anything", 1)
    with pytest.raises(CaptureError, match="own"), ranks.together():
        raise CaptureError("own")
    ranks.close()


def test_an_unknown_mode_is_refused():
    with pytest.raises(UsageError, match="ranks is 'all'; give 'first'"):
        Ranks("all")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_a_fingerprint_sees_the_last_bit_of_a_parameter(dtype):
    model = nn.ParameterList([torch.randn(5, generator=torch.Generator().manual_seed(0)).to(dtype)])
    before = fingerprint(model)
    assert fingerprint(model) == before
    with torch.no_grad():
        real = torch.view_as_real(model[0]) if dtype.is_complex else model[0]
        real.view(torch.uint8).view(-1)[0] ^= 1
    assert fingerprint(model) != before
