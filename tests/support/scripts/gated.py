"""``bronze`` whose planned batches wait until a file exists before they are read, to test faults at that moment."""

import logging
import os
import sys
import time
from pathlib import Path

from pyspark.sql import DataFrame

from bronze import cli
from bronze.batch import BatchProcessor


def hold_at_gate(process):
    def wait(processor: BatchProcessor, batch: DataFrame, batch_id: int) -> None:
        logging.getLogger("bronze").info("Gate: batch %d is planned", batch_id)
        while not Path(os.environ["GATE"]).exists():
            time.sleep(0.05)
        process(processor, batch, batch_id)

    return wait


if __name__ == "__main__":
    BatchProcessor._process = hold_at_gate(BatchProcessor._process)  # type: ignore[method-assign]
    sys.exit(cli.main())
