"""``bronze ingest --available-now`` every hour with Airflow's SparkSubmitOperator.

The worker has the checkout in /opt/bronze, and a Python with this package, of which ``spark-submit`` is a part. The
connection ``spark_default`` names the master.
"""

from datetime import datetime, timedelta

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG

PACKAGES = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0,io.delta:delta-spark_4.2_2.13:4.4.0"

with DAG(
    "bronze_ingestion",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # a second run on the checkpoint would end with an error
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
):
    SparkSubmitOperator(
        task_id="ingest",
        conn_id="spark_default",
        application="/opt/bronze/lib/bronze_ingestion.py",
        packages=PACKAGES,
        archives="/opt/bronze/dist/bronze-env.tar.gz#env",
        conf={
            "spark.executorEnv.PYTHONPATH": "env",
            "spark.executor.memoryOverhead": "3200m",
            "spark.log.structuredLogging.enabled": "true",
        },
        num_executors=2,
        executor_cores=4,
        executor_memory="2g",
        env_vars={"BRONZE_RUN_ID": "{{ run_id }}"},
        application_args=[
            "--available-now",
            "--kafka-brokers=broker-1:9092,broker-2:9092",
            "--kafka-config=/etc/bronze/kafka.properties",
            "--checkpoint-path=/lake/checkpoints/api-usage-events",
            "--output-path=/lake/bronze/api_usage_events",
            "--dlq-path=/lake/dlq/api_usage_events",
            "--log-format=json",
        ],
    )
