"""What all tests of notebooks share: kernels whose Spark starts fast."""

import pytest

from tests.support.commands import SHORT_LIVED


@pytest.fixture(autouse=True)
def short_lived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels get it from the environment."""
    for name, value in SHORT_LIVED.items():
        monkeypatch.setenv(name, value)
