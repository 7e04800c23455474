"""The options of a benchmark: a number per field of its sizes, and --quick."""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).parent
S = TypeVar("S", bound=Any)  # a dataclass of sizes


def read_sizes(parser: argparse.ArgumentParser, usual: S, quick: S) -> tuple[S, Path, argparse.Namespace]:
    """Read the command's options; return the sizes, the folder of the results, and the other options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results in build/bench")
    for name, value in asdict(usual).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), help=f"default {value:,}")
    options = parser.parse_args()
    given = {name: found for name in asdict(usual) if (found := getattr(options, name)) is not None}
    folder = HERE.parent / "build/bench" if options.quick else HERE
    return replace(quick if options.quick else usual, **given), folder, options
