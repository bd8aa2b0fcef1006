"""The functions of these tests tell what happened to them by files of the test's."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _unconfined(unconfined: None) -> None:
    """For all of them."""
