import inspect

import pytest

from ibstore import errors

TREE = [error for _, error in inspect.getmembers(errors, inspect.isclass) if error.__module__ == errors.__name__]


def test_the_tree_has_one_root():
    assert len(TREE) > 10
    assert errors.IbstoreError.__bases__ == (Exception,)
    for error in TREE:
        assert issubclass(error, errors.IbstoreError), error


@pytest.mark.parametrize("error", TREE)
def test_the_users_words_end_with_2_and_all_else_with_1(error):
    assert error.exit_code == (2 if issubclass(error, errors.UsageError) else 1)


@pytest.mark.parametrize("error", TREE)
def test_an_error_shows_its_message_and_nothing_else(error):
    assert str(error("the thing, the fact; the next action")) == "the thing, the fact; the next action"
    assert inspect.getdoc(error)


def test_words_of_the_user_are_no_fault_of_the_store():
    assert not issubclass(errors.UsageError, errors.StoreError)
    assert {errors.UnknownNameError, errors.WaistError, errors.QueryError} <= set(errors.UsageError.__subclasses__())
