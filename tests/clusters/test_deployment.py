"""The files of docs/deploy, as far as they can be checked without a cluster, a scheduler or Docker."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubeflow_spark_api.models import SparkV1beta2SparkApplication
from pydantic import ValidationError

from bronze.cli import COMMANDS, build_parser
from bronze.runtime.jars import get_spark_packages, main
from tests.support.commands import run_command
from tests.support.notebooks import read_parameters
from tests.support.pages import read_page, read_section
from tests.support.paths import ROOT

DEPLOY = ROOT / "docs" / "deploy"
# The newest Kubernetes of the package's schemas and one that clusters still run.
KUBERNETES = ["1.37", "1.31"]
KINDS = ["ServiceAccount", "Role", "RoleBinding", "Job"]


def read_documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_job_and_its_rights_fit_the_schemas_of_kubernetes(kind: str, version: str):
    (document,) = [each for each in read_documents("kubernetes-job.yaml") if each["kind"] == kind]
    kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_of_a_job_is_found():
    document = read_documents("kubernetes-job.yaml")[-1]
    document["spec"]["podFailurePolicies"] = document["spec"].pop("podFailurePolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES[0], strict=True)


def validate_application(document: dict) -> None:
    """With the operator's own classes, and names only as they are in YAML."""
    SparkV1beta2SparkApplication.model_validate(document, extra="forbid", by_alias=True, by_name=False)


def test_the_spark_application_fits_the_api_of_the_operator():
    validate_application(*read_documents("spark-application.yaml"))


@pytest.mark.parametrize("place", ["spec", "spec.driver", "spec.executor.secrets.0", "spec.driver.env.1.valueFrom"])
def test_an_unknown_field_of_a_spark_application_is_found(place: str):
    (document,) = read_documents("spark-application.yaml")
    part = document
    for key in place.split("."):
        part = part[int(key) if key.isdigit() else key]
    part["memoryOverheads"] = ""
    with pytest.raises(ValidationError, match=f"{place}.memoryOverheads"):
        validate_application(document)


def list_commands() -> dict[str, list[str]]:
    """The arguments of each command in the files, by file and number."""
    found = {}
    for name in ("bronze-ingest.service", "crontab"):
        text = re.sub(r"\\\n", " ", (DEPLOY / name).read_text())
        lines = re.findall(r"^(?!#).*\.venv/bin/bronze (.+?)(?: >.*)?$", text, re.MULTILINE)
        found |= {f"{name} {number}": shlex.split(line) for number, line in enumerate(lines)}
    job = read_documents("kubernetes-job.yaml")[-1]["spec"]["template"]["spec"]["containers"][0]["args"]
    found["kubernetes-job.yaml"] = ["ingest", *job[job.index("/opt/bronze/lib/bronze_ingestion.py") + 1 :]]
    found["deploy.md, YARN"] = ["ingest", *read_yarn()[read_yarn().index("lib/bronze_ingestion.py") + 1 :]]
    application = read_documents("spark-application.yaml")[0]["spec"]["arguments"]
    return {**found, "spark-application.yaml": ["ingest", *application]}


def read_yarn() -> list[str]:
    """The command of the page's section about YARN."""
    (block,) = re.findall(r"```bash\n(.+?)```", read_section(read_page("docs/deploy.md"), "## YARN"), re.DOTALL)
    return shlex.split(block.replace("\\\n", " "))


def test_spark_submit_knows_its_flags_in_the_line_for_yarn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    done = run_command(*read_yarn())
    assert "When running with master 'yarn' either HADOOP_CONF_DIR or YARN_CONF_DIR must be set" in done.stderr


@pytest.mark.parametrize("arguments", list_commands().values(), ids=list_commands())
def test_the_flags_of_each_command_are_those_of_the_product(arguments: list[str], tmp_path: Path):
    (tmp_path / "kafka.properties").touch()
    arguments = [word.replace("/etc/bronze", str(tmp_path)) for word in arguments]
    given = vars(build_parser().parse_args(arguments))
    COMMANDS[given.pop("command")].config(**given)


def test_the_job_does_not_repeat_what_needs_a_person():
    (job,) = [each for each in read_documents("kubernetes-job.yaml") if each["kind"] == "Job"]
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 3, 4]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path):
    unit = tmp_path / "bronze-ingest.service"
    bronze = str(Path(sys.executable).with_name("bronze"))
    unit.write_text((DEPLOY / unit.name).read_text().replace("/opt/bronze/.venv/bin/bronze", bronze))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])


@pytest.mark.parametrize("line", [each for each in (DEPLOY / "crontab").read_text().splitlines() if each[0] != "#"])
def test_a_line_of_the_crontab_has_five_fields_of_time_and_a_command(line: str):
    assert re.match(r"(?:(?:\*(?:/\d+)?|\d+) ){5}cd /opt/bronze && \.venv/bin/bronze ", line)
    assert "%" not in line  # cron takes it for the end of the line


def test_hadolint_finds_nothing_in_the_dockerfile():
    hadolint = str(Path(sys.executable).with_name("hadolint"))
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_step_of_the_dockerfile_copies_all_jars_that_pyspark_lacks(tmp_path: Path):
    assert main(["--copy", str(tmp_path / "jars")]) == 0
    names = " ".join(sorted(file.name for file in (tmp_path / "jars").iterdir()))
    for artifact in ("spark-sql-kafka", "kafka-clients", "delta-spark", "hadoop-aws", "bronze-log-store"):
        assert artifact in names
    assert "bundle" not in names


@pytest.mark.parametrize("name", ["kubernetes-job.yaml", "spark-application.yaml", "airflow_spark_submit.py"])
def test_spark_s_own_log_is_json_where_ours_is(name: str):
    text = (DEPLOY / name).read_text()
    assert "--log-format=json" in text
    assert re.search(r'spark\.log\.structuredLogging\.enabled["=: ]+true', text)


def test_the_dags_name_the_packages_and_parameters_of_the_product():
    assert f'"{",".join(get_spark_packages())}"' in (DEPLOY / "airflow_spark_submit.py").read_text()
    known = read_parameters(ROOT / "notebooks" / "ingestion.ipynb")
    text = (DEPLOY / "airflow_papermill.py").read_text()
    named = re.findall(r'"(\w+)": (?!"\{\{)', text[text.index("KAFKA =") :])
    assert {"kafka_brokers", "use_sandbox"} <= set(named) - {"retries", "retry_delay", "retry_exponential_backoff"}
    assert set(named) - {"retries", "retry_delay", "retry_exponential_backoff"} <= set(known)


LOAD = """
import os
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("docs/deploy")
assert not bag.import_errors, bag.import_errors
bag.dags["bronze_ingestion_notebook"].get_task("ingest")._pre_execute_hook({"run_id": "scheduled"})
assert os.environ["BRONZE_RUN_ID"] == "scheduled"
print(*sorted(f"{dag}:{task}" for dag in bag.dags for task in bag.dags[dag].task_ids))
"""
AIRFLOW = os.environ.get("AIRFLOW_PYTHON", "")


@pytest.mark.skipif(not AIRFLOW, reason="AIRFLOW_PYTHON names no Python with Airflow and its two providers")
def test_airflow_loads_the_dags(tmp_path: Path):
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": ""}
    done = subprocess.run([AIRFLOW, "-c", LOAD], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = "bronze_ingestion:ingest bronze_ingestion_notebook:audit bronze_ingestion_notebook:ingest"
    assert done.stdout.splitlines()[-1] == expected
