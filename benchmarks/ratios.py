"""Output of the benchmarks."""

from collections.abc import Mapping, Sequence
from statistics import median


def print_ratios(seconds: Mapping[str, Sequence[float]], base: str) -> None:
    """Print a line per method: its median seconds, and the ratio to the base."""
    width = max(map(len, seconds))
    print(f"\n{'way':<{width}} {'median s':>8} of {base}")
    for name, measured in seconds.items():
        print(f"{name:<{width}} {median(measured):>8.2f} {median(measured) / median(seconds[base]):.2f}")
