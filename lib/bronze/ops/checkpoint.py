"""``bronze checkpoint``: show a checkpoint's state, whether the tables agree with it, and how to recover if not."""

from dataclasses import dataclass

import pandas as pd
from pyspark.sql import SparkSession

from bronze.checkpoint import Checkpoint, no_checkpoint_error
from bronze.config import CheckpointConfig
from bronze.errors import ExitCode
from bronze.offsets import MAX_OFFSET, OffsetSet
from bronze.pipeline import Pipeline
from bronze.resume import explain_rollback, find_disagreement, find_rolled_back
from bronze.runtime.spark_errors import explain_failures


@dataclass(frozen=True)
class CheckpointReport:
    """A checkpoint compared with its tables.

    Attributes:
        checkpoint: The state of the checkpoint.
        ahead: Offsets in the tables at or after the start of the next batch; that batch is committed already.
        disagreement: Why the tables do not belong to the checkpoint, or lack records that it has recorded as done;
            empty if they agree.
    """

    checkpoint: Checkpoint
    ahead: OffsetSet
    disagreement: str

    def to_frame(self) -> pd.DataFrame:
        """A row per Kafka partition."""
        rows = [
            {
                "partition": partition,
                "began at": self.checkpoint.first_offsets.get(partition, 0),
                "next batch starts at": start,
                "planned to": self.checkpoint.end_offsets.get(partition, start),
                "already in the tables": self.ahead.counts.get(partition, 0),
            }
            for partition, start in sorted(self.checkpoint.next_offsets.items())
        ]
        return pd.DataFrame(rows).set_index("partition")

    def to_text(self) -> str:
        """The report for people."""
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
            lines.append(
                f"Batch {state.planned} runs again at the next start; records that the tables have are skipped."
            )
        lines.append(f"The tables do NOT agree: {self.disagreement}" if self.disagreement else "The tables agree.")
        return "\n".join(lines)


def main(config: CheckpointConfig) -> int:
    """The command ``bronze checkpoint``: print the report; exit code 2 if tables and checkpoint disagree."""
    report = inspect_checkpoint(config)
    print(report.to_text())
    return ExitCode.CONFIG if report.disagreement else ExitCode.DONE


def inspect_checkpoint(config: CheckpointConfig, spark: SparkSession | None = None) -> CheckpointReport:
    """Read a checkpoint and compare it with the tables; nothing is written.

    Raises:
        ConfigError: There is no checkpoint at the path. A file that Spark needs is missing or cut off. Its offsets
            belong to another topic.
    """
    with explain_failures(), Pipeline.open(config, spark) as pipeline:
        folder = pipeline.get_checkpoint(config.checkpoint_path)
        checkpoint = folder.read()
        if checkpoint is None:
            raise no_checkpoint_error(config.checkpoint_path)
        disagreement = find_disagreement(folder, checkpoint, pipeline.bronze.state)
        if pipeline.bronze.state is None:
            return CheckpointReport(checkpoint, OffsetSet(), disagreement)
        ahead = pipeline.find_ingested({p: (start, MAX_OFFSET) for p, start in checkpoint.next_offsets.items()})
        if missing := pipeline.known.missing:
            disagreement = disagreement or f"the DLQ {missing[0].path}, which bronze names, is missing"
        elif not disagreement and (found := find_rolled_back(pipeline, folder, checkpoint)):
            disagreement = explain_rollback(found)
        return CheckpointReport(checkpoint, ahead, disagreement)
