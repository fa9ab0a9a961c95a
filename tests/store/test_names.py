import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ibstore.errors import UsageError
from ibstore.store.format.names import MAX_BYTES, RESERVED, escape, segment_name, unescape

NODE = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*")

# Names as they come, and those made of the few characters that mean something to file systems or to escaping.
NAMES = st.text(min_size=1, max_size=60) | st.text("./=:\\ ~%AaZz09_-eé\0\n", min_size=1, max_size=12)
NASTY = [*sorted(RESERVED - {""}), "...", ".hidden", "=", "=2E", "=65poch", "a/b", "a\\b", "../up", "~", "-", "Ω", "\0"]


def node_of(name):
    """Node name; names that are refused are of no interest."""
    try:
        return escape(name)
    except UsageError:
        assume(False)


@given(NAMES)
@example("epoch")
def test_names_come_back(name):
    assert unescape(node_of(name)) == name


@pytest.mark.parametrize("name", NASTY)
def test_nasty_names_come_back_from_safe_nodes(name):
    node = escape(name)
    assert unescape(node) == name
    assert NODE.fullmatch(node)
    assert node not in RESERVED


@given(NAMES)
def test_a_node_is_safe_on_every_file_system(name):
    node = node_of(name)
    assert NODE.fullmatch(node)
    assert node not in RESERVED
    assert len(node) <= MAX_BYTES


@given(NAMES, NAMES)
@example(".", "=2E")
@example("a/b", "a=2Fb")
def test_distinct_names_have_distinct_nodes(one, other):
    assert (node_of(one) == node_of(other)) == (one == other)


@given(st.text("abc._-", min_size=1, max_size=20).filter(lambda name: name not in RESERVED and name[0] != "."))
def test_plain_names_stand_as_they_are(name):
    assert escape(name) == name


def test_a_name_may_take_200_bytes_and_no_more():
    assert escape("a" * MAX_BYTES) == "a" * MAX_BYTES
    with pytest.raises(UsageError, match="takes 201 bytes as a node name; keep it within 200"):
        escape("a" * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match="takes 204 bytes"):
        escape("é" * 34)  # 34 characters, 68 bytes, 204 when escaped


def test_an_empty_name_is_refused():
    with pytest.raises(UsageError, match="a name is empty; give it at least one character"):
        escape("")


def test_a_name_that_is_no_unicode_is_refused():
    with pytest.raises(UsageError, match=r"the name 'run\\udcff' is no Unicode text"):
        escape("run\udcff")  # how Python hands over an argument whose bytes are no UTF-8


@pytest.mark.parametrize("node", ["", "my run", "=zz", "=2e", "=FF", "=41", "epoch", ".hidden", "a/b", "é"])
def test_a_node_that_no_name_has_is_told(node):
    with pytest.raises(ValueError, match=r"is no node name|codec can't decode"):
        unescape(node)


@given(st.lists(st.integers(0, 10**10 - 1), min_size=2, max_size=5))
def test_segments_sort_as_their_epochs(epochs):
    assert [int(name) for name in sorted(map(segment_name, epochs))] == sorted(epochs)
