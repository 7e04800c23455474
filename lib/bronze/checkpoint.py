"""What Spark's checkpoint folder says: which offsets a batch covers.

Spark writes ``offsets/<batch>`` before it runs a batch and ``commits/<batch>`` after it; both name the exclusive
end offset of every partition. ``sources/0/0`` has the offsets that the first batch starts at.
"""

import json
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from bronze.errors import CheckpointUnreadable

# First and end (exclusive) offset per Kafka partition.
PlannedOffsets = dict[int, tuple[int, int]]


def has_checkpoint(spark: SparkSession, checkpoint_path: str) -> bool:
    """Whether a query has planned a batch there, so that Spark goes on from it and ignores startingOffsets."""
    return bool(_read_lines(spark, f"{checkpoint_path}/sources/0/0"))


def read_planned_offsets(spark: SparkSession, checkpoint_path: str, batch_id: int, topic: str) -> PlannedOffsets:
    """The offsets that a batch covers, per partition.

    Raises:
        CheckpointUnreadable: The checkpoint does not say; without its answer the overlap guard would be blind.
    """
    ends = _read_offsets(spark, f"{checkpoint_path}/offsets/{batch_id}", topic)
    if not ends:
        raise CheckpointUnreadable(f"{checkpoint_path}/offsets/{batch_id}", topic)
    before = f"offsets/{batch_id - 1}" if batch_id else "sources/0/0"
    starts = _read_offsets(spark, f"{checkpoint_path}/{before}", topic)
    # A partition that was added since starts at its first record.
    return {partition: (starts.get(partition, 0), end) for partition, end in ends.items()}


def _read_offsets(spark: SparkSession, path: str, topic: str) -> dict[int, int]:
    lines = _read_lines(spark, path)
    offsets = json.loads(lines[-1]).get(topic, {}) if lines else {}
    return {int(partition): offset for partition, offset in offsets.items()}


def _read_lines(spark: SparkSession, path: str) -> list[str]:
    """The lines of a file on whatever file system Spark keeps its checkpoint; none where there is no file."""
    jvm: Any = spark._jvm
    hadoop_path = jvm.org.apache.hadoop.fs.Path(path)
    file_system = hadoop_path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    try:
        stream = file_system.open(hadoop_path)
    except Py4JJavaError as error:
        if "FileNotFoundException" in str(error.java_exception):
            return []
        raise
    try:
        return jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8").splitlines()
    finally:
        stream.close()
