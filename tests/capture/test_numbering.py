import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibstore.capture.numbering import Checkpoint, epochs_of, find_checkpoints
from ibstore.errors import UsageError

EPOCHS = st.lists(st.integers(0, 10**6), min_size=1, max_size=6, unique=True)
HEADS = st.sampled_from(["net_", "resnet18-", "lr0.1 v2 ", "run3/ckpt-", ""])


@given(EPOCHS, HEADS, st.sampled_from([".pt", ".h5", "_final.ckpt"]), st.integers(0, 9))
def test_the_number_that_differs_is_the_epoch(epochs, head, tail, width):
    names = [f"{head}{epoch:0{width}}{tail}" for epoch in epochs]
    if len(epochs) > 1 or (head in {"net_", ""} and tail != ".h5"):
        assert epochs_of(names) == [(epoch, None) for epoch in epochs]


@given(EPOCHS, HEADS, st.sampled_from(["epoch", "epoch=", "Epoch_", "epochs-", "epoch "]))
def test_what_is_called_epoch_is_the_epoch(epochs, head, label):
    names = [f"{head}{label}{epoch}-step={7 * epoch}-loss={1 / (epoch + 1):.4f}.ckpt" for epoch in epochs]
    assert epochs_of(names) == [(epoch, 7 * epoch) for epoch in epochs]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["step_500.pt", "step_1000.pt"], [(500, 500), (1000, 1000)]),
        (["global_step20/x.pt", "global_step9/x.pt"], [(20, 20), (9, 9)]),
        (["iter-3.pt"], [(3, 3)]),
        (["checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"], [(500, None), (1000, None)]),
        (["epoch_1/step_9.pt", "epoch_2/step_18.pt"], [(1, 9), (2, 18)]),
        (["epoch=1-step=5.ckpt", "epoch=2.ckpt"], [(1, None), (2, None)]),
        (["epoch_0.pt"], [(0, None)]),
        (["fold1_3.pt", "fold1_12.pt"], [(3, None), (12, None)]),
    ],
)
def test_names(names, expected):
    assert epochs_of(names) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["3.pt", "last.pt"], "there is no number in 'last.pt'; narrow the pattern, or write {epoch} into the pattern"),
        (["3.pt", "3_4.pt"], "there are 2 numbers in '3_4.pt', but 1 in '3.pt'"),
        (["fold0_1.pt", "fold1_2.pt"], "more than one number of 'fold1_2.pt' may be the epoch; write {epoch}"),
        (["resnet18_2.pt"], "more than one number of 'resnet18_2.pt' may be the epoch"),
        (["lr0.1.pt"], "there is no number in 'lr0.1.pt'"),
    ],
)
def test_a_doubt_is_told(names, message):
    with pytest.raises(UsageError) as error:
        epochs_of(names)
    assert message in str(error.value)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder, pattern):
    return [
        (str(each.path.relative_to(folder)), each.epoch, each.step) for each in find_checkpoints(f"{folder}/{pattern}")
    ]


def test_files_come_in_the_order_of_their_numbers(tmp_path):
    touch(tmp_path, *(f"run7/epoch_{epoch}.pt" for epoch in (10, 9, 100, 0)), "run7/epoch_5.txt")
    (tmp_path / "run7" / "epoch_6.pt").mkdir()
    assert [epoch for _, epoch, _ in found(tmp_path, "run7/epoch_*.pt")] == [0, 9, 10, 100]


def test_folders_before_the_first_wildcard_do_not_count(tmp_path):
    touch(tmp_path, "2024/exp3/net_1.pt", "2024/exp3/net_2.pt", "2024/other/net.pt")
    assert [epoch for _, epoch, _ in found(tmp_path, "2024/exp3/*.pt")] == [1, 2]
    assert found(tmp_path, "2024/exp3/net_2.pt") == [("2024/exp3/net_2.pt", 2, None)]


def test_numbers_in_folders(tmp_path):
    touch(tmp_path, "a/checkpoint-20/model.pt", "a/checkpoint-3/model.pt")
    assert [epoch for _, epoch, _ in found(tmp_path, "**/model.pt")] == [3, 20]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("fold1_{epoch}_s{step}.pt", [(2, 20), (10, 100)]),
        ("fold?_{epoch}_*.pt", [(2, None), (10, None)]),
        ("*_{epoch}_s*", [(2, None), (10, None)]),
        ("fold[0-9]_*_s{epoch}.pt", [(20, None), (100, None)]),
        ("**/fold1_{epoch}_s{step}.pt", [(2, 20), (10, 100)]),
    ],
)
def test_the_pattern_may_say_what_is_the_epoch(tmp_path, pattern, expected):
    touch(tmp_path, "fold1_2_s20.pt", "fold1_10_s100.pt")
    assert [(epoch, step) for _, epoch, step in found(tmp_path, pattern)] == expected


def test_what_has_no_number_there_does_not_match(tmp_path):
    touch(tmp_path, "4.bin", "4_5.bin", "last.bin")
    assert found(tmp_path, "{epoch}.bin") == [("4.bin", 4, None)]


def test_a_marked_number_is_not_cut(tmp_path):
    touch(tmp_path, "net12.pt")
    assert find_checkpoints(f"{tmp_path}/*{{epoch}}.pt") == [Checkpoint(tmp_path / "net12.pt", 12)]


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path, "epoch_3.pt")
    assert [each.epoch for each in find_checkpoints("~/epoch_*.pt")] == [3]
    assert [each.epoch for each in find_checkpoints("~/epoch_{epoch}.pt")] == [3]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none_*.pt", "none_*.pt'; give a pattern such as 'checkpoints/epoch_*.pt', in quotes"),
        ("epoch=*.ckpt", "are both of epoch 3; narrow the pattern"),
        ("{step}.bin", "does not say once what is the epoch"),
        ("{epoch}_{epoch}.bin", "does not say once what is the epoch"),
        ("{epoch}.ckpt", "no file matches"),
        ("date_*.pt", "date_20240131000000.pt has the number 20240131000000, which is no epoch"),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path, pattern, message):
    touch(tmp_path, "epoch=3-v1.ckpt", "epoch=3.ckpt", "4.bin", "4_5.bin", "last.bin", "date_20240131000000.pt")
    with pytest.raises(UsageError) as error:
        find_checkpoints(f"{tmp_path}/{pattern}")
    assert message in str(error.value)
