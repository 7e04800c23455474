"""``bronze checkpoint``: what a checkpoint holds, whether the tables agree with it, and how to recover if not."""

from dataclasses import dataclass

import pandas as pd
from pyspark.sql import SparkSession

from bronze.checkpoint import Checkpoint, no_checkpoint_error, read_checkpoint
from bronze.config import CheckpointConfig
from bronze.delta.binding import find_dlqs
from bronze.errors import ExitCode
from bronze.kafka.topic import Topic
from bronze.offsets import MAX_OFFSET, OffsetRanges, count_offsets
from bronze.pipeline import locate_tables, open_session
from bronze.resume import describe_rolled_back, find_disagreement, find_rolled_back, make_opened
from bronze.runtime.paths import qualify_path


@dataclass(frozen=True)
class CheckpointReport:
    """A checkpoint beside its tables.

    Attributes:
        checkpoint: What the checkpoint says.
        ahead: Offsets in the tables from where the next batch starts: that batch, or more, is committed already.
        disagreement: Why the tables are not those of the checkpoint, or lack what it says is done; empty where all
            agrees.
    """

    checkpoint: Checkpoint
    ahead: OffsetRanges
    disagreement: str

    def to_frame(self) -> pd.DataFrame:
        """A row per Kafka partition."""
        rows = [
            {
                "partition": partition,
                "began at": self.checkpoint.begins.get(partition, 0),
                "next batch starts at": start,
                "planned to": self.checkpoint.ends.get(partition, start),
                "in the tables from there": count_offsets(self.ahead.get(partition, [])),
            }
            for partition, start in sorted(self.checkpoint.starts.items())
        ]
        return pd.DataFrame(rows).set_index("partition")

    def to_text(self) -> str:
        """What a person asks of a checkpoint."""
        state = self.checkpoint
        lines = [
            f"query id               {state.query_id}",
            f"last planned batch     {'none' if state.planned is None else state.planned}",
            f"last committed batch   {'none' if state.committed is None else state.committed}",
            "",
            self.to_frame().reset_index().to_string(index=False),
            "",
        ]
        if not state.is_done:
            lines.append(f"Batch {state.planned} runs again at the next start; what the tables have of it is left out.")
        lines.append(f"The tables do NOT agree: {self.disagreement}" if self.disagreement else "The tables agree.")
        return "\n".join(lines)


def main(config: CheckpointConfig) -> int:
    """The command ``bronze checkpoint``: print the report; 2 where tables and checkpoint do not belong together."""
    report = run(config)
    print(report.to_text())
    return ExitCode.CONFIG if report.disagreement else ExitCode.DONE


def run(config: CheckpointConfig, spark: SparkSession | None = None) -> CheckpointReport:
    """Read a checkpoint and compare it with the tables; nothing is written.

    Raises:
        ConfigError: There is none at the path. A file that Spark needs is missing or cut off. Its offsets are those of
            another topic.
    """
    spark = open_session(config, spark)
    path = qualify_path(spark, config.checkpoint_path)
    checkpoint = read_checkpoint(spark, path, config.kafka_topic)
    if checkpoint is None:
        raise no_checkpoint_error(config.checkpoint_path)
    bronze, dlq = locate_tables(spark, config)
    disagreement = find_disagreement(spark, path, checkpoint, bronze.state)
    if bronze.state is None:
        return CheckpointReport(checkpoint, {}, disagreement)
    known = find_dlqs(spark, bronze, dlq, config.kafka_topic)
    topic = Topic(config.kafka_topic, "", tuple(sorted(checkpoint.ends)))
    opened = make_opened(spark, topic, bronze, dlq, known)
    planned = {partition: (start, MAX_OFFSET) for partition, start in checkpoint.starts.items()}
    ahead = opened.lookup.find_present(planned)
    if known.missing:
        disagreement = disagreement or f"the DLQ {known.missing[0].path}, which bronze names, is gone"
    elif not disagreement and (found := find_rolled_back(spark, path, checkpoint, opened)):
        disagreement = describe_rolled_back(found)
    return CheckpointReport(checkpoint, ahead, disagreement)
