"""Shared by all notebook tests: kernels whose Spark starts fast."""

import pytest

from tests.support.commands import SHORT_LIVED


@pytest.fixture(autouse=True)
def short_lived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels get the option from the environment."""
    for name, value in SHORT_LIVED.items():
        monkeypatch.setenv(name, value)
