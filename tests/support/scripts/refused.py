"""A process that ingests with one client properties file after another, and prints everything that an error carries."""

import json
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from bronze import ingest as run
from bronze.config import IngestConfig
from bronze.errors import BronzeError
from bronze.runtime.logs import configure_logging
from bronze.runtime.session import get_session


def show(error: BaseException) -> None:
    """The traceback, including suppressed exceptions: an error reporting tool may send all of it."""
    traceback.print_exception(error)
    for linked in filter(None, (error.__cause__, error.__context__)):
        show(linked)


def main(folder: Path, config: IngestConfig, good: Path) -> None:
    """Print the exit code of each file of a folder, then ingest with a good one."""
    configure_logging()
    spark = get_session()
    spark.sparkContext.setLogLevel("INFO")
    for file in sorted(folder.iterdir()):
        try:
            run(replace(config, kafka_config=str(file)), spark)
        except BronzeError as error:
            show(error)
            print(f"{file.name}: {error.exit_code}")
    records = run(replace(config, kafka_config=str(good)), spark).counts.total
    print(f"good: {records}")
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), IngestConfig(**json.loads(sys.argv[2])), Path(sys.argv[3]))
