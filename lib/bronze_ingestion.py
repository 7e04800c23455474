"""Entrypoint for spark-submit, whose own flags decide master and packages: ``bronze ingest``, or a command by its name.

spark-submit --packages … lib/bronze_ingestion.py --kafka-brokers … --checkpoint-path … --output-path …
spark-submit --packages … lib/bronze_ingestion.py audit --kafka-brokers … --output-path …
"""

import sys

from bronze.cli import COMMANDS, main

if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(given if given and given[0] in COMMANDS else ["ingest", *given]))
