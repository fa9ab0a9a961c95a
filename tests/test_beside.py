"""A reader beside a writer sees committed epochs, whole, and no error; `make beside` does it for a minute."""

from .beside import beside


def test_a_reader_beside_a_writer_sees_whole_epochs_and_no_error(tmp_path):
    seen = beside(tmp_path, "--epochs", "60", "--pace", "0")
    assert (seen.errors, seen.partial) == ([], [])
    assert seen.epochs == 60
    assert seen.rounds >= 1
