"""What monitoring costs a batch of 64 partitions: CPU time of the metrics, of a scrape, and of an event of lineage.

``python benchmarks/monitor.py`` prints a table. It needs neither Kafka nor Spark.
"""

import time
from collections.abc import Callable

from bronze.config import IngestConfig
from bronze.observe.lineage import Events, Totals
from bronze.observe.metrics import Metrics
from bronze.observe.run_metrics import RunMetrics
from bronze.observe.summary import Batch
from bronze.runtime.stats import BatchStats
from bronze.schema import ERROR_TYPES, get_bronze_spec, get_dlq_spec
from bronze.transforms import Counts

PARTITIONS, ROUNDS = range(64), 300
BATCH = Batch(
    7,
    Counts(dict.fromkeys(PARTITIONS, 1_500), dict.fromkeys(ERROR_TYPES, 120), newest=1_700_000_000_000_000),
    5.8,
    BatchStats({"overlap": 0.01, "write": 5.0, "commit": 0.1}, {"bronze": 8, "dlq": 2}, {"bronze": 9**8, "dlq": 9**6}),
    dict.fromkeys(PARTITIONS, (0, 1500)),
    {"bronze": 12, "dlq": 9},
)


class Table:
    """A table of the run, as lineage needs it."""

    def __init__(self, path: str, spec: object):
        self.path, self.spec = path, spec


def measure(action: Callable[[], object]) -> float:
    """CPU microseconds of one call, of all threads of this process."""
    action()
    started = time.process_time()
    for _ in range(ROUNDS):
        action()
    return (time.process_time() - started) / ROUNDS * 1e6


def main() -> None:
    run = RunMetrics(Metrics("ingest", "api-usage-events.v1"), "4.2.0", "/lake/checkpoint")
    config = IngestConfig(kafka_brokers="k:9092", checkpoint_path="/c", output_path="/b", dlq_path="/d")
    events = Events(config, "4.2.0", [Table("file:/b", get_bronze_spec()), Table("file:/d", get_dlq_spec())])
    totals = Totals()
    totals.add(BATCH)
    lag, headroom = dict.fromkeys(PARTITIONS, 7), dict.fromkeys(PARTITIONS, 160.0)
    rows = {
        "metrics of a batch": lambda: run.on_batch(BATCH),
        "lag and headroom of a look at Kafka": lambda: (run.note_lag(lag), run.note_headroom(headroom)),
        "a scrape": run.metrics.render,
        "an event of lineage": lambda: events.build("RUNNING", totals),
    }
    print("| what | CPU µs |\n|---|---|")
    for name, action in rows.items():
        print(f"| {name} | {measure(action):,.0f} |")


if __name__ == "__main__":
    main()
