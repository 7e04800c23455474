"""The ingestion notebook every hour with Airflow's PapermillOperator, and the audit after it.

The worker's Python has this package (``pip install /opt/bronze[notebooks]``) and Java. The parameters are those of
notebooks/params/production.yaml.
"""

import os
from datetime import datetime, timedelta

from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

KAFKA = {"kafka_brokers": "broker-1:9092,broker-2:9092", "kafka_config": "/etc/bronze/kafka.properties"}
PATHS = {
    "checkpoint_path": "/lake/checkpoints/api-usage-events",
    "output_path": "/lake/bronze/api_usage_events",
    "dlq_path": "/lake/dlq/api_usage_events",
}
FLAGS = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in {**KAFKA, **PATHS}.items())


def name_run(context):
    """The kernel inherits the environment of the task's process, which runs nothing else."""
    os.environ["BRONZE_RUN_ID"] = context["run_id"]


with DAG(
    "bronze_ingestion_notebook",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # a second run on the checkpoint would end with an error
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
):
    ingest = PapermillOperator(
        task_id="ingest",
        input_nb="/opt/bronze/notebooks/ingestion.ipynb",
        output_nb="/lake/runs/ingestion-{{ run_id }}.ipynb",
        parameters={"use_sandbox": False, "available_now": True, "report_hours": 24, **KAFKA, **PATHS},
        kernel_name="python3",
        language_name="python",
        pre_execute=name_run,
    )
    audit = BashOperator(
        task_id="audit",
        bash_command=f"bronze audit {FLAGS}",
        env={"BRONZE_RUN_ID": "{{ run_id }}"},
        append_env=True,
    )
    ingest >> audit
