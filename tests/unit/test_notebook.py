"""Notebooks: how relative paths are resolved, which parameters are checked, and where sample events may be written."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from bronze.config import BackfillConfig, IngestConfig, InspectConfig, StatusConfig
from bronze.errors import BronzeError, ConfigError, InvalidOptionError
from bronze.notebook.cells import OWN_PARAMETERS, cut_rows, is_checkout, leave_notebooks, read_config, wrap_cells
from sandbox import notebook
from sandbox.notebook import find_own_folder, make_config
from tests.support.notebooks import CONFIG_FIELDS, NOTEBOOKS, read_parameters

ROOT = Path(__file__).parents[2]
PATHS = ("output_path", "dlq_path", "checkpoint_path")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout as the working directory, and a sandbox that cannot be started."""
    folder = make_checkout(tmp_path / "checkout")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SANDBOX_TABLES_DIR", raising=False)
    monkeypatch.setattr(notebook, "start_sandbox", lambda topic: "127.0.0.1:9092")
    return folder


def make_checkout(folder: Path, name: str = "bronze-ingestion") -> Path:
    (folder / "notebooks").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    (folder / "notebooks" / "ingestion.ipynb").touch()
    return folder


def parameters(**changes: Any) -> dict[str, Any]:
    paths = {name: f"data/{folder}" for name, folder in zip(PATHS, ("bronze", "dlq", "checkpoint"), strict=True)}
    return {"use_sandbox": True, "kafka_brokers": "", "kafka_topic": "api-usage-events.v1", **paths, **changes}


def test_this_is_a_checkout():
    assert is_checkout(ROOT)


def test_in_its_notebooks_folder_paths_begin_at_the_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(checkout / "notebooks")
    leave_notebooks()
    assert Path.cwd() == checkout


@pytest.mark.parametrize("folder", ["airflow", "airflow/dags", "airflow/notebooks"])
def test_elsewhere_paths_begin_where_the_notebook_was_called(folder: str, tmp_path: Path, monkeypatch):
    make_checkout(tmp_path / "airflow", name="airflow")
    (tmp_path / folder).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / folder)
    leave_notebooks()
    assert Path.cwd() == tmp_path / folder


@pytest.mark.parametrize("text", ["", "[project", "[project]\nversion = '1'", "project = 1", "\xff"])
def test_a_pyproject_that_says_nothing_is_another_project_s(text: str, checkout: Path):
    (checkout / "pyproject.toml").write_bytes(text.encode("latin-1"))
    assert not is_checkout(checkout)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_parameter_is_checked_by_a_configuration_or_as_a_notebook_s_own(path: Path):
    for name, parameter in read_parameters(path).items():
        if name not in CONFIG_FIELDS[path.stem]:
            assert OWN_PARAMETERS[name].__name__ == parameter["type"]


@pytest.mark.parametrize("value", ["false", "False", "true", "True", "", 0, 1, 1.0, None, [False]])
@pytest.mark.parametrize("kind", [IngestConfig, BackfillConfig, InspectConfig, StatusConfig])
def test_only_true_and_false_say_whether_the_sandbox_is_used(value: Any, kind: Any, checkout: Path):
    with pytest.raises(ConfigError, match="parameter use_sandbox: expected a value of type bool, got .*; write True"):
        make_config(parameters(use_sandbox=value, starting_offsets="earliest"), kind)


@pytest.mark.parametrize("hours", ["24", 24.0, True, None])
def test_hours_that_only_the_notebook_knows_are_a_number(hours: Any, checkout: Path):
    with pytest.raises(ConfigError, match="parameter report_hours: expected a value of type int"):
        make_config(parameters(report_hours=hours), IngestConfig)


@pytest.mark.parametrize("hours", [-1, 10**9])
def test_hours_beyond_any_table_are_refused(hours: int):
    with pytest.raises(InvalidOptionError, match="--report-hours: expected"):
        read_config(parameters(report_hours=hours, kafka_brokers="broker:9092"))


def test_a_wrong_parameter_is_refused_before_the_sandbox_starts(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(notebook, "start_sandbox", lambda topic: pytest.fail("it was started"))
    with pytest.raises(BronzeError, match="--max-offsets-per-trigger: expected"):
        make_config(parameters(max_offsets_per_trigger="many"), IngestConfig)


def test_the_sandbox_s_own_paths_are_below_data_of_the_checkout(checkout: Path):
    config = make_config(parameters(), IngestConfig)
    assert (config.kafka_brokers, config.output_path) == ("127.0.0.1:9092", "data/bronze")
    make_config(parameters(output_path=f"{checkout}/data/b", dlq_path=f"file:{checkout}/data/d"), IngestConfig)


OTHERS = ["/lake/typo/bronze", "lake/bronze", "database", "data/../lake", "s3a://lake/data/bronze", "file:/lake"]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("path", OTHERS)
def test_any_other_path_is_refused_with_the_cure(name: str, path: str, checkout: Path):
    with pytest.raises(
        ConfigError, match=f"use_sandbox is true, but {name} is '{path}'.*-p use_sandbox False"
    ) as found:
        make_config(parameters(**{name: path}), IngestConfig)
    assert str(checkout / "data") in str(found.value)


def test_a_link_in_data_to_another_place_is_another_place(checkout: Path, tmp_path: Path):
    (checkout / "data").mkdir()
    (checkout / "data" / "bronze").symlink_to(tmp_path / "lake")
    with pytest.raises(ConfigError, match="use_sandbox is true, but output_path"):
        make_config(parameters(), IngestConfig)


def test_outside_a_checkout_no_path_is_the_sandbox_s(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert find_own_folder() is None
    with pytest.raises(
        ConfigError, match="use_sandbox is true, .*below data/ of the checkout, and call the notebook from there"
    ):
        make_config(parameters(), InspectConfig)


def test_another_folder_for_sample_tables_is_an_explicit_choice(checkout: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SANDBOX_TABLES_DIR", str(tmp_path / "samples"))
    paths = {name: str(tmp_path / "samples" / name) for name in PATHS}
    assert make_config(parameters(**paths), IngestConfig).output_path == paths["output_path"]
    with pytest.raises(ConfigError, match="use_sandbox is true, "):
        make_config(parameters(), IngestConfig)


@pytest.mark.parametrize("kind", [IngestConfig, BackfillConfig, StatusConfig])
def test_brokers_beside_the_sandbox_are_refused(kind: Any, checkout: Path):
    with pytest.raises(ConfigError, match="use_sandbox is true, but kafka_brokers is 'broker:9092'"):
        make_config(parameters(kafka_brokers="broker:9092", starting_offsets="earliest"), kind)


def test_a_topic_of_one_s_own_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SANDBOX_DATA_DIR", str(tmp_path / "sandbox"))
    with pytest.raises(
        ConfigError, match="use_sandbox is true, but kafka_topic is 'orders'.*sandbox produce --topic orders"
    ):
        notebook.start_sandbox("orders")
    assert not (tmp_path / "sandbox").exists()


def test_without_the_sandbox_every_path_is_one_s_own(checkout: Path):
    given = parameters(use_sandbox=False, kafka_brokers="broker:9092", output_path="/lake/bronze")
    assert make_config(given, IngestConfig).output_path == "/lake/bronze"


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks" / "params").glob("*.yaml")), ids=lambda p: p.stem)
def test_parameter_files_of_production_name_no_path_with_the_sandbox(file: Path):
    given = yaml.safe_load(file.read_text())
    assert given["use_sandbox"] is (not any(Path(given[name]).is_absolute() for name in PATHS if name in given))


@pytest.mark.parametrize(("rows", "note"), [(20, False), (21, True)])
def test_a_table_that_leaves_rows_out_says_so(rows: int, note: bool):
    cut = cut_rows(pd.DataFrame({"detail": [f"detail {number}" for number in range(rows)]}), 20)
    shown = wrap_cells(cut).to_html()
    assert ("The 20 most frequent; there are more." in shown) is note
    assert "detail 19" in shown
    assert "detail 20" not in shown
