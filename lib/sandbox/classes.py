"""``python -m sandbox.classes FILE``: keep the classes that every Spark loads at its start as the JVM maps them.

The JVM's own class data sharing (``-XX:SharedArchiveFile``). A JVM that cannot use the file, since Java, pyspark or
their place changed, ignores it. Figures: benchmarks/README.md.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from bronze.delta.ddl import quote_path
from bronze.runtime.session import get_session


def archive_classes(file: Path) -> None:
    """Start Spark, write and read a small Delta table, and let the JVM keep what it loaded when it ends.

    Args:
        file: The archive, about 200 MB; one that is there is replaced. A JVM that cannot make one makes none.
    """
    file.unlink(missing_ok=True)
    # The JVM lists thousands of classes that cannot be shared; errors are still shown.
    options = "-XX:TieredStopAtLevel=1 -Xlog:disable -Xlog:all=error:stderr"
    os.environ["SPARK_SUBMIT_OPTS"] = f'{options} -XX:ArchiveClassesAtExit="{file}"'
    spark = get_session()
    with tempfile.TemporaryDirectory() as folder:
        use_delta(spark, str(Path(folder, "table")))
    gateway: Any = spark.sparkContext._gateway
    spark.stop()
    gateway.proc.stdin.close()  # the JVM ends with that, and writes the file
    gateway.proc.wait()


def use_delta(spark: SparkSession, path: str) -> None:
    """What a short run loads: a partitioned append, an aggregation, the history."""
    numbers = spark.range(5).selectExpr("id", "id % 2 AS part")
    numbers.write.format("delta").partitionBy("part").save(path)
    spark.read.format("delta").load(path).groupBy("part").count().toPandas()
    spark.sql(f"DESCRIBE HISTORY {quote_path(path)}").toPandas()


if __name__ == "__main__":
    archive_classes(Path(sys.argv[1]))
