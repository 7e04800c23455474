"""Configures Hypothesis: the same examples on every run; HYPOTHESIS_EXAMPLES sets their number."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit",
    derandomize=True,
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "1000")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("unit")
