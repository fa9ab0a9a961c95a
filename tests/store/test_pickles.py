"""Pickles: arrays and plain containers come back, all else is refused and nothing of it is run."""

import builtins
import collections
import copyreg
import functools
import operator
import os
import pathlib
import pickle
import shutil
import subprocess
import tempfile
from contextlib import suppress

import numpy as np
import numpy.lib.format
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ibstore.errors import SourceError
from ibstore.store.importers import pickles

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(content):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "epoch00000000")
        path.write_bytes(content)
        return pickles.load(path)


def refusal(content):
    with pytest.raises(SourceError) as refused:
        load(content)
    assert "epoch00000000" in str(refused.value)
    return str(refused.value)


# ---- what is read


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(
        st.one_of(
            hnp.boolean_dtypes(),
            hnp.integer_dtypes(endianness="?"),
            hnp.unsigned_integer_dtypes(endianness="?"),
            hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
        ),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    protocol=st.sampled_from(PROTOCOLS),
    fortran=st.booleans(),
    strided=st.booleans(),
)
def test_arrays_come_back_bit_for_bit(values, protocol, fortran, strided):
    given_values = np.asfortranarray(values) if fortran else values
    given_values = given_values.T[::2] if strided and values.ndim else given_values
    found = load(pickle.dumps([given_values, given_values], protocol))
    assert len(found) == 2
    for numbers in found:
        assert numbers.values.dtype == given_values.dtype
        assert numbers.values.shape == given_values.shape
        assert numbers.values.tobytes() == given_values.tobytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_containers_and_scalars_come_back(protocol):
    content = {
        "epoch": 3,
        "loss": [0.5, np.float32(0.25), np.float64(np.pi), np.int64(-7)],
        "nested": ({"a": None, "b": True}, (), [], "größer", b"\x00\xff", b""),
        "sets": [{1, 2}, frozenset({"x"})],
        "big": 10**30,
        "ordered": collections.OrderedDict(b=1, a=2),
    }
    assert load(pickle.dumps(content, protocol)) == content


def python2_array(shape, code, raw):
    """An array as Python 2 and NumPy 1 wrote it with protocol 2: byte strings, and the module's old name."""
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03U\x01bq\x04\x87q\x05Rq\x06",
            b"(K\x01" + b"".join(b"K" + bytes([length]) for length in shape) + b"\x86q\x07",
            b"cnumpy\ndtype\nq\x08U\x02" + code + b"q\x09K\x00K\x01\x87q\x0aRq\x0b",
            b"(K\x03U\x01<q\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0db",
            b"\x89U" + bytes([len(raw)]) + raw + b"q\x0etq\x0fb",
        ]
    )


def test_python_2_wrote_them_too():
    values = np.array([[1.5, -2.25, 1e300]])
    scalar = b"cnumpy.core.multiarray\nscalar\nh\x0bU\x08" + np.float64(-0.5).tobytes() + b"\x86R"
    array = python2_array((1, 3), b"f8", values.tobytes())
    content = b"\x80\x02}(U\x08activity" + array + b"U\x04loss" + scalar + b"u."
    for found in (load(content), pickle.loads(content, encoding="latin1")):  # the stream is what NumPy reads, too
        array = found["activity"]
        np.testing.assert_array_equal(getattr(array, "values", array), values)
        assert found["loss"] == -0.5


# ---- what is refused


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


CALLS = {
    "os.system": lambda mark: Call(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"),
    "builtins.exec": lambda mark: Call(exec, f"open({str(mark)!r}, 'w')"),
    "io.open": lambda mark: Call(open, str(mark), "w"),
    "builtins.getattr": lambda mark: Call(getattr(builtins, "getattr"), Call(pathlib.Path, str(mark)), "touch"),  # noqa: B009
    "functools.partial": lambda mark: functools.partial(open, str(mark), "w"),
    "functools.reduce": lambda mark: Call(functools.reduce, open, [str(mark), "w"]),
    "operator.methodcaller": lambda _: operator.methodcaller("touch"),
    "subprocess.Popen": lambda mark: Call(subprocess.Popen, ["touch", str(mark)]),
    "shutil.copy": lambda mark: Call(shutil.copy, __file__, str(mark)),
    "numpy.save": lambda mark: Call(np.save, str(mark), 1),
    "numpy.memmap": lambda mark: Call(np.memmap, str(mark), "f8", "w+", 0, (1,)),
    "numpy.lib.format.open_memmap": lambda mark: Call(numpy.lib.format.open_memmap, str(mark), "w+", "f8", (1,)),
    "copyreg._reconstructor": lambda _: Call(copyreg._reconstructor, Call, object, None),
    "numpy.core.multiarray.frombuffer": lambda _: Call(np.frombuffer, b"12345678"),
    "numpy.random._pickle": lambda _: np.random.default_rng(0),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused_and_not_made(tmp_path, name, protocol):
    mark = tmp_path / "mark"
    said = refusal(pickle.dumps({"data": CALLS[name](mark)}, protocol))
    assert "only NumPy arrays of numbers and plain containers are read, and nothing of it was run" in said
    assert " asks for " in said
    assert list(tmp_path.iterdir()) == []


def test_the_calls_would_be_made_by_an_open_unpickler(tmp_path):
    """The test above can fail: Python's own unpickler does leave the mark."""
    for number, name in enumerate(["builtins.eval", "io.open", "numpy.save", "shutil.copy"]):
        mark = tmp_path / f"{number}.npy"
        made = pickle.loads(pickle.dumps(CALLS[name](mark)))
        if hasattr(made, "close"):
            made.close()
        assert mark.exists()


def test_the_message_names_what_was_asked_for(tmp_path):
    said = refusal(pickle.dumps(Call(os.system, f"touch {tmp_path / 'mark'}"), 2))
    assert f"asks for {os.system.__module__}.system;" in said
    assert "write it anew with such alone (np.savez, safetensors)" in said


def test_a_class_of_ones_own_is_refused_before_its_setstate(tmp_path):
    assert "asks for tests.store.test_pickles.Waiting" in refusal(pickle.dumps(Waiting()))
    assert not Waiting.woken


class Waiting:
    woken = False

    def __getstate__(self):
        return {"a": 1}

    def __setstate__(self, state):
        Waiting.woken = True


PROGRAMS = {
    "a dotted name": (b"\x80\x04\x8c\x08builtins\x8c\x0ddict.fromkeys\x93.", "builtins.dict.fromkeys"),
    "INST": (b"(S'touch mark'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\nS'touch mark'\no.", "os.system"),
    "a module that is none": (b"cno_such_module\nname\n.", "no_such_module.name"),
    "a persistent id": (b"Pname\n.", "a persistent id"),
    "a binary persistent id": (b"K\x01Q.", "a persistent id"),
    "a buffer elsewhere": (b"\x80\x05\x97.", "buffers that lie elsewhere"),
    "a class of arrays": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmatrix\n(K\x00tS'b'\ntR.",
        "numpy.matrix",
    ),
    "an array without its own class": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(K\x00tS'b'\ntR.",
        "an array of a class of its own",
    ),
    "an array by hand": (b"cnumpy\nndarray\n((I99999999\nttR.", "an array that is made by hand"),
    "a stand-in that is changed": (b"cnumpy\ndtype\n(N}S'_make'\nNstb.", "a function's change"),
    "an encoding": (b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "an encoding other than latin1"),
    "a stand-in as type": (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\nndarray\nS'12345678'\ntR.",
        "an array without a type",
    ),
}


def test_bytes_of_a_number_are_refused_by_name():
    assert "asks for bytes made by hand" in refusal(b"cbuiltins\nbytes\n(I10000000000\ntR.")


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_written_by_hand_are_refused(name):
    content, asked = PROGRAMS[name]
    assert f"asks for {asked}" in refusal(content)


def test_registered_extensions_are_refused_though_python_has_them_at_hand(tmp_path):
    copyreg.add_extension("os", "system", 0x7F)
    try:
        content = pickle.dumps(os.system, 2).replace(b"cposix\nsystem\n", b"\x82\x7f")
        assert b"\x82\x7f" in content
        assert pickle.loads(content) is os.system  # now it is in copyreg's cache, which asks nobody
        assert "asks for objects of copyreg's registry" in refusal(content)
    finally:
        copyreg.remove_extension("os", "system", 0x7F)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([1, None], object), "an array of type 'O8'"),
        (np.array(["a"]), "an array of type 'U1'"),
        (np.zeros(2, "f4,i4"), "an array of type 'V8'"),
        (np.zeros(2, complex), "an array of type 'c16'"),
        (np.zeros(2, "M8[s]"), "an array of type 'M8'"),
        (np.ma.masked_array([1.0]), "numpy.ma"),
        (np.float64([1.0]).view(np.recarray), "numpy.rec"),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_arrays_of_anything_but_numbers_are_refused(values, said):
    assert f"asks for {said}" in refusal(pickle.dumps(values, 2))


# ---- what would take the process down


def array_of_state(shape):
    """An array of float64 that declares this shape, and has no bytes."""
    dtype = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    return array + b"(I1\n" + shape + dtype + b"I00\nS''\ntb."


BOMBS = {
    "an array larger than its bytes": (array_of_state(b"(L1000000000000000L\nt"), "have 0 bytes|has 0 bytes"),
    "an array of a negative length": (array_of_state(b"(I-1\nt"), "asks for an array that is no plain one"),
    "a shape that is none": (array_of_state(b"S'abc'\n"), "asks for an array that is no plain one"),
    "too many axes": (array_of_state(b"(" + b"I0\n" * 70 + b"t"), "cannot be read"),
    "a string longer than the file": (b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"abc.", "cannot be read"),
    "a number longer than the file": (b"\x80\x02\x8b" + (1 << 30).to_bytes(4, "little") + b"abc.", "cannot be read"),
    "a memo with a hole": (b"\x80\x02}r\xff\xff\xff\x7f.", "its memo has a hole before number 2147483647"),
    "nested tuples": (b"\x80\x02)" + b"\x85" * 200_000 + b".", "asks for more than 10000 tuples"),
    "nested tuples as a key": (b"\x80\x02}" + b")" + b"\x85" * 9_000 + b"Ns.", None),
    "nested lists": (b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".", None),
    "cut short": (pickle.dumps(np.arange(100.0))[:-300], "cannot be read"),
    "nothing": (b"", "cannot be read"),
    "text": (b"hello\nworld\n", "cannot be read"),
    "an empty stack": (b"0.", "cannot be read"),
    "a bare array": (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR.", None),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_with_a_message(name):
    content, said = BOMBS[name]
    if said is None:
        assert load(content) is not None
    else:
        assert any(part in refusal(content) for part in said.split("|"))


def test_an_array_without_content_is_not_read_from_memory():
    with pytest.raises(ValueError, match="an array has no content"):
        _ = load(BOMBS["a bare array"][0]).values


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200), place=st.integers(0, 400), replaced=st.booleans())
def test_noise_is_read_or_refused_and_never_more(content, place, replaced):
    """Bytes of chance inside a true pickle: an answer or a SourceError, no other exception, no crash."""
    whole = pickle.dumps({"epoch": 1, "data": {"activity_tst": [np.arange(6.0).reshape(2, 3)]}}, 2)
    place = min(place, len(whole))
    noisy = whole[:place] + content + (whole[place + len(content) :] if replaced else whole[place:])
    with suppress(SourceError):
        load(noisy)
