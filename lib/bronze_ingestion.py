"""Entrypoint for spark-submit, the same as ``bronze ingest``: spark-submit's own flags decide master and packages.

spark-submit --packages … lib/bronze_ingestion.py --kafka-brokers … --checkpoint-path … --output-path …
"""

import sys

from bronze.cli import main

if __name__ == "__main__":
    sys.exit(main(["ingest", *sys.argv[1:]]))
