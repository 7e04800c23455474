"""Entrypoint for spark-submit: runs ``bronze ingest``, or the command that is named first.

spark-submit's own flags set master and packages:

spark-submit --packages … lib/bronze_ingestion.py --kafka-brokers … --checkpoint-path … --output-path …
spark-submit --packages … lib/bronze_ingestion.py audit --kafka-brokers … --output-path …
"""

import sys

from bronze.cli import COMMANDS, main

if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(given if given and given[0] in COMMANDS else ["ingest", *given]))
