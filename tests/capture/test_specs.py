import pytest
import torch

from ibstore.capture.specs import LayerSpec, parse, select
from ibstore.errors import CaptureError, UsageError

from .networks import Parts


@pytest.mark.parametrize(
    ("text", "path", "call", "parts"),
    [
        ("conv1", "conv1", None, ()),
        ("encoder.0", "encoder.0", None, ()),
        ("relu:10", "relu", 10, ()),
        ("lstm[0]", "lstm", None, (0,)),
        ("[logits]", "", None, ("logits",)),
        ("a.lstm:2[1][-1]", "a.lstm", 2, (1, -1)),
        ("out[last hidden]", "out", None, ("last hidden",)),
    ],
)
def test_a_text_names_module_call_and_parts(text, path, call, parts):
    assert parse(text) == LayerSpec(text, path, call, parts)


@pytest.mark.parametrize(
    "text", ["", ":1", ":1[0]", "relu:", "relu:-1", "relu:x", "lstm[", "lstm[]", "lstm[0]x", "a:1:2"]
)
def test_a_text_that_is_none_is_refused_with_how_to_write_one(text):
    with pytest.raises(UsageError, match=r"cannot be read; .*'relu:1', 'lstm\[0\]' or"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("p[logits]", 2.0), ("p[hidden][0]", 2.0), ("p[hidden][1][0]", 0.0), ("p[hidden][-1][0]", 0.0)],
)
def test_parts_lead_through_mappings_tuples_and_lists(text, expected):
    assert select(parse(text), Parts()(torch.ones(1))).item() == expected


def test_an_integer_part_finds_integer_and_text_keys():
    assert select(parse("p[1]"), {1: torch.tensor(5)}).item() == 5
    assert select(parse("p[1]"), {"1": torch.tensor(6)}).item() == 6


def test_an_output_that_is_no_tensor_is_refused_with_every_tensor_in_it():
    with pytest.raises(CaptureError) as refusal:
        select(parse("p:3"), Parts()(torch.ones(7, 2)))
    assert str(refusal.value) == (
        "layer 'p:3' puts out a dict, no tensor; select one of its tensors: 'p:3[logits]' (7, 2), "
        "'p:3[hidden][0]' (7, 2), 'p:3[hidden][1][0]' (7, 2), 'p:3[loss]' ()"
    )


def test_a_long_list_of_tensors_is_cut():
    with pytest.raises(CaptureError, match=r"'p\[7\]' \(1,\), …$"):
        select(parse("p"), [torch.ones(1)] * 9)


@pytest.mark.parametrize(
    "text", ["p[nothing]", "p[0]", "p[hidden][9]", "p[hidden][logits]", "p[loss][0]", "p[note][0]"]
)
def test_a_part_that_is_not_there_is_refused_with_what_is(text):
    with pytest.raises(CaptureError, match=r"the output has no part \[.*select one of its tensors: 'p\[logits\]'"):
        select(parse(text), Parts()(torch.ones(1)))


def test_a_part_of_a_tensor_is_refused():
    with pytest.raises(CaptureError, match="it is a tensor itself: name 'p'"):
        select(parse("p[0]"), torch.ones(3))


def test_an_output_without_any_tensor_is_refused():
    with pytest.raises(CaptureError, match="puts out a NoneType, no tensor; there is no tensor in it"):
        select(parse("p"), None)
