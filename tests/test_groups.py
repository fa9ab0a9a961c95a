"""Tests that share what is dear to make run in one process; where that fails, all pass and everything is made twice."""

import os

import pytest

GROUP = "kept-together"


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="all tests run in one process")
@pytest.mark.xdist_group(GROUP)
def test_groups_are_seen(request: pytest.FixtureRequest) -> None:
    """pytest-xdist sorts by what it has added to the test's name."""
    assert request.node.nodeid.endswith(f"@{GROUP}")
