"""The tests; ``tests/support`` is what they share."""

import pytest

# Its assertions tell their values too, as those of test files do.
pytest.register_assert_rewrite("tests.support")
