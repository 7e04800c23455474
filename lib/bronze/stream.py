"""The ingestion: read the topic, split it, write both tables, batch by batch.

``run`` is the whole of it; the CLI, spark-submit's entrypoint and the notebooks call nothing else.
"""

import logging
import re
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import IllegalArgumentException, StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from bronze.batch import BatchProcessor, IngestSummary
from bronze.config import DEFAULT_STARTING_OFFSETS, IngestConfig
from bronze.errors import BronzeError, DataLoss, ExecutorDependencyMissing, InvalidKafkaConfig, QueryFailed
from bronze.prepare import Checked, check_all, check_local_tables, create_tables, make_processor

log = logging.getLogger(__name__)


def run(config: IngestConfig, spark: SparkSession | None = None) -> IngestSummary:
    """Ingest the topic into bronze and the DLQ until all is done (``available_now``) or the process is stopped.

    Nothing is written before everything was checked. After any end, run it again with the same checkpoint to go on;
    no record is lost or doubled by that.

    Args:
        config: What to read, where to write and how.
        spark: Session to use; the running one, spark-submit's or a new local one when not given.

    Returns:
        The counts of this run.

    Raises:
        BronzeError: One of its subclasses, with an exit code and the cure.
    """
    if spark is None:
        check_local_tables(config)  # before a JVM starts
        from bronze.session import get_session

        spark = get_session()
    checked = check_all(spark, config)
    records = read_topic(spark, config, checked)
    create_tables(spark, checked)
    processor = make_processor(spark, config, checked)
    await_query(start_query(records, processor, config, checked.checkpoint_path), processor)
    return processor.summary


def read_topic(spark: SparkSession, config: IngestConfig, checked: Checked) -> DataFrame:
    """The topic as a stream of Kafka records; those of aborted transactions are left out.

    Raises:
        InvalidKafkaConfig: Spark does not take one of the client properties.
    """
    options: dict[str, Any] = {f"kafka.{key}": value for key, value in checked.client_properties.items()}
    options |= {
        "subscribe": config.kafka_topic,
        "startingOffsets": config.starting_offsets or DEFAULT_STARTING_OFFSETS,
        "failOnDataLoss": str(config.fail_on_data_loss).lower(),
        "kafka.isolation.level": "read_committed",
    }
    if config.max_offsets_per_trigger:
        options["maxOffsetsPerTrigger"] = config.max_offsets_per_trigger
    try:
        return spark.readStream.format("kafka").options(**options).load()
    except IllegalArgumentException as error:
        raise InvalidKafkaConfig(config.kafka_brokers, " ".join(str(error).split())) from None


def start_query(
    records: DataFrame, processor: BatchProcessor, config: IngestConfig, checkpoint_path: str
) -> StreamingQuery:
    """Start the query: a batch per interval, or all that is there now and then stop."""
    writer = (
        records.writeStream.queryName(f"bronze-{config.kafka_topic}")
        .option("checkpointLocation", checkpoint_path)
        .foreachBatch(processor)
    )
    if config.available_now:
        return writer.trigger(availableNow=True).start()
    return writer.trigger(processingTime=config.trigger_interval).start()


def await_query(query: StreamingQuery, processor: BatchProcessor) -> None:
    """Wait until the query ends; an interrupt stops it, which loses and doubles nothing.

    Raises:
        BronzeError: Why the query failed.
    """
    try:
        while not query.awaitTermination(1):
            pass
    except KeyboardInterrupt:
        log.info("Stopping, as asked; the next start goes on where this one ends")
        query.stop()
    except (StreamingQueryException, Py4JJavaError) as error:
        raise explain_failure(processor.error or error) from error


def explain_failure(error: BaseException) -> BronzeError:
    """The condition behind an error of the query, with its cure."""
    if isinstance(error, BronzeError):
        return error
    text = str(error)
    if missing := re.search(r"No module named '([^']+)'", text):
        return ExecutorDependencyMissing(missing[1])
    if "KAFKA_DATA_LOSS" in text or "Some data may have been lost" in text:
        return DataLoss(_read_last_cause(text))
    return QueryFailed(_read_last_cause(text))


def _read_last_cause(text: str) -> str:
    """The line of a stack trace that says what happened: the last cause, else the first line."""
    causes = re.findall(r"^(?:Caused by: |[\w.]*(?:Error|Exception): )(.+)$", text, re.MULTILINE)
    return causes[-1] if causes else text.strip().splitlines()[0] if text.strip() else type(text).__name__
