"""Entrypoint for spark-submit: runs ``bronze ingest``, or the command that is named first.

spark-submit's own flags set master and packages:

spark-submit --packages … lib/bronze_ingestion.py --kafka-brokers … --checkpoint-path … --output-path …
spark-submit --packages … lib/bronze_ingestion.py audit --kafka-brokers … --output-path …
"""

import sys

try:
    from bronze.cli import COMMANDS, main
except ImportError as error:
    import bronze

    if error.name not in ("bronze.cli", "bronze"):  # a package that it needs is missing
        raise
    found = getattr(bronze, "__file__", None) or next(iter(bronze.__path__))
    print(
        f"bronze: another package called bronze is imported, {found}; remove its folder from PYTHONPATH",
        file=sys.stderr,
    )
    sys.exit(2)


def run() -> int:
    """Run ``bronze`` with the arguments of the command line, as the console script does."""
    return main()


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(given if given and given[0] in COMMANDS else ["ingest", *given]))
