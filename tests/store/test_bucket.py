"""What object stores do beyond the contract of every place: URLs, refusals, versions."""

import sys
from datetime import timedelta

import obstore
import pytest

from ibstore.errors import NotAStoreError, StoreError, UsageError, WriteError
from ibstore.store import Store, create_store
from ibstore.store.places import bucket, open_storage

READS = {
    "read": lambda place: place.read("a"),
    "read_all": lambda place: place.read_all(["a"]),
    "size": lambda place: place.size("a"),
    "has": lambda place: place.has("a"),
    "folders": lambda place: place.folders("a"),
    "files": lambda place: place.files("a"),
    "swap": lambda place: place.swap("a", b"", b""),
}
WRITES = {
    "put": lambda place: place.put("a", b""),
    "put_new": lambda place: place.put_new("a", b""),
    "remove": lambda place: place.remove("a"),
}


@pytest.fixture
def out_of_reach(s3_environment, monkeypatch):
    """A place behind an address where nobody listens, and where nobody waits long."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(bucket, "RETRIES", {"max_retries": 0, "retry_timeout": timedelta(seconds=1)})
    return open_storage("s3://lab/lab.zarr")


@pytest.mark.parametrize("read", READS)
def test_a_server_out_of_reach_is_told_to_who_reads(out_of_reach, read):
    with pytest.raises(StoreError) as caught:
        READS[read](out_of_reach)
    message = str(caught.value)
    assert message.startswith("cannot read s3://lab/lab.zarr/a: ")
    assert "127.0.0.1:9" in message
    assert message.endswith("; check the name, the endpoint and the access keys, then ask again")


@pytest.mark.parametrize("write", WRITES)
def test_a_server_out_of_reach_is_told_to_who_writes(out_of_reach, write):
    with pytest.raises(WriteError) as caught:
        WRITES[write](out_of_reach)
    message = str(caught.value)
    assert message.startswith("cannot write to s3://lab/lab.zarr/a: ")
    assert "127.0.0.1:9" in message
    assert message.endswith(
        "; whatever was committed before is whole: check the name, the endpoint and the access keys, then do it again, "
        "a capture with --resume"
    )


@pytest.mark.parametrize("function", [Store.open, create_store])
def test_a_server_out_of_reach_is_no_missing_store(out_of_reach, function):
    with pytest.raises(StoreError, match=r"cannot read s3://lab/lab.zarr") as caught:
        function("s3://lab/lab.zarr")
    assert not isinstance(caught.value, NotAStoreError)


@pytest.mark.parametrize("function", [Store.open, create_store])
def test_a_bucket_that_does_not_exist(s3_environment, function):
    with pytest.raises(StoreError) as caught:
        function("s3://nobodys-bucket/lab.zarr")
    assert str(caught.value).startswith("cannot read s3://nobodys-bucket/lab.zarr")
    assert str(caught.value).endswith(
        ": The specified bucket does not exist; check the name, the endpoint and the access keys, then ask again"
    )


@pytest.mark.parametrize("write", ["put", "put_new"])
def test_nothing_is_written_into_a_bucket_that_does_not_exist(s3_environment, write):
    with pytest.raises(WriteError, match=r"cannot write to s3://nobodys-bucket/x/a: The specified bucket does not"):
        WRITES[write](open_storage("s3://nobodys-bucket/x"))


def test_an_endpoint_without_tls_needs_no_other_setting(s3_environment, in_s3, monkeypatch):
    """obstore would refuse it, and say nothing of why."""
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    create_store(in_s3)
    assert Store.open(in_s3).run_names() == []


def test_a_prefix_without_a_store(in_bucket):
    with pytest.raises(NotAStoreError, match=f"there is no store at {in_bucket}; `ibstore capture mnist-cnn --store"):
        Store.open(in_bucket)
    open_storage(in_bucket).put("notes.txt", b"mine")
    with pytest.raises(NotAStoreError, match=r"is no ibstore store \(it has no zarr.json\); give a store's path"):
        Store.open(in_bucket)
    with pytest.raises(StoreError, match="exists and is no ibstore store; choose another path, or move it away"):
        create_store(in_bucket)
    assert list(open_storage(in_bucket).files("")) == ["notes.txt"]


@pytest.mark.parametrize("url", ["ftp://host/lab.zarr", "https://host/lab.zarr", "s3://", "s3:///", "memory://"])
def test_a_url_that_names_no_place(url):
    with pytest.raises(UsageError) as caught:
        open_storage(url)
    assert str(caught.value) == (
        f"{url!r} is no place for a store; give a folder's path, or a URL of s3://, gs://, az://, memory:// with a name"
    )


@pytest.mark.parametrize("url", ["s3://la b/lab.zarr", "az://container/lab.zarr"])
def test_a_url_that_cannot_be_opened(url, monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UsageError, match=rf"{url} cannot be opened \(.+\); mend the URL, or the settings"):
        open_storage(url)


def test_buckets_need_obstore(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"s3://lab/lab.zarr needs obstore; pip install 'ibstore\[cloud\]'"):
        open_storage("s3://lab/lab.zarr")


def test_the_command_line_tells_in_a_sentence(ibstore, s3_environment, out_of_reach):
    done = ibstore("ls", "s3://lab/lab.zarr")
    assert (done.code, done.out) == (1, "")
    assert "cannot read s3://lab/lab.zarr" in done.err
    done = ibstore("ls", "ftp://host/lab.zarr")
    assert done.code == 2
    assert "is no place for a store" in done.err


def test_names_with_blanks_and_letters_of_any_kind(in_bucket):
    place = open_storage(f"{in_bucket}/my lab/ü=1+2")
    place.put_new("a", b"1")
    assert place.read("a") == b"1"
    assert place.files("") == {"a": 1}
    assert place.beside(".analysis").files("") == {}


@pytest.mark.parametrize("other", ["removes", "writes"])
def test_a_race_lost_between_comparing_and_writing_is_told(in_bucket, monkeypatch, other):
    place = open_storage(in_bucket)
    place.put("a", b"old")
    real = obstore.get

    def overtaken(objects, key):
        found = real(objects, key)
        monkeypatch.setattr(obstore, "get", real)
        place.remove("a") if other == "removes" else place.put("a", b"theirs")
        return found

    monkeypatch.setattr(obstore, "get", overtaken)
    with pytest.raises(FileExistsError):
        place.swap("a", b"old", b"mine")
    assert place.read_all(["a"]) == [None if other == "removes" else b"theirs"]


def test_a_refusal_in_xml_is_told_by_its_message():
    error = ValueError("404 Not Found: <?xml?>\n<Error><Code>NoSuchBucket</Code><Message>No bucket</Message></Error>")
    assert bucket._reason(error) == "No bucket"
    assert bucket._reason(ValueError("first\nsecond")) == "first"
