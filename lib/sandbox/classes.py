"""``python -m sandbox.classes FILE``: archive the classes that Spark loads at its start, so that it starts faster.

This is the JVM's class data sharing (``-XX:SharedArchiveFile``). A JVM ignores an archive that it cannot use because
Java, pyspark or their paths have changed. Figures: benchmarks/README.md.
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
    """Start Spark, write and read a small Delta table, and let the JVM archive the loaded classes when it ends.

    Args:
        file: The archive, about 200 MB; replaced if it exists. A JVM without support for archives creates none.
    """
    file.unlink(missing_ok=True)
    # Without this, the JVM lists thousands of classes that cannot be shared; errors are still shown.
    options = "-XX:TieredStopAtLevel=1 -Xlog:disable -Xlog:all=error:stderr"
    os.environ["SPARK_SUBMIT_OPTS"] = f'{options} -XX:ArchiveClassesAtExit="{file}"'
    spark = get_session()
    with tempfile.TemporaryDirectory() as folder:
        use_delta(spark, str(Path(folder, "table")))
    gateway: Any = spark.sparkContext._gateway
    spark.stop()
    gateway.proc.stdin.close()  # this ends the JVM, which then writes the file
    gateway.proc.wait()


def use_delta(spark: SparkSession, path: str) -> None:
    """Load the classes of a short run: a partitioned append, an aggregation, the history."""
    numbers = spark.range(5).selectExpr("id", "id % 2 AS part")
    numbers.write.format("delta").partitionBy("part").save(path)
    spark.read.format("delta").load(path).groupBy("part").count().toPandas()
    spark.sql(f"DESCRIBE HISTORY {quote_path(path)}").toPandas()


if __name__ == "__main__":
    archive_classes(Path(sys.argv[1]))
