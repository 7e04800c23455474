"""The parameters of an ingestion are checked immediately, and the message says what to change."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from bronze.config import IngestConfig
from bronze.errors import BronzeError, ConfigError, InvalidOptionError
from bronze.parsing import parse_starting_offsets

GIVEN = {"kafka_brokers": "localhost:9092", "checkpoint_path": "/lake/checkpoint", "output_path": "/lake/bronze"}
TOPIC = "api-usage-events.v1"
NAMES = [field.name for field in fields(IngestConfig)]


def make_config(**changes: Any) -> IngestConfig:
    return IngestConfig(**{**GIVEN, **changes})


def refuse(**changes: Any) -> str:
    with pytest.raises(BronzeError) as caught:
        make_config(**changes)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_brokers_and_two_paths_are_enough():
    config = make_config()
    assert (config.kafka_topic, config.dlq_path, config.trigger_interval) == (TOPIC, "", "1 minute")
    assert (config.writer, config.available_now, config.fail_on_data_loss) == ("auto", False, True)


@pytest.mark.parametrize("name", ["kafka_brokers", "checkpoint_path", "output_path", "kafka_topic", "trigger_interval"])
@pytest.mark.parametrize("value", ["", "  "])
def test_a_required_parameter_that_is_empty_is_missing(name: str, value: str):
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')} is required: .+"):
        make_config(**{name: value})


@pytest.mark.parametrize("name", ["dlq_path", "starting_offsets", "kafka_config", "max_offsets_per_trigger"])
def test_empty_and_zero_mean_not_set(name: str):
    empty = type(getattr(make_config(), name))()
    assert make_config(**{name: empty}) == make_config()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_offsets_per_trigger", -1, "a whole number from 0 to 9,223,372,036,854,775,807"),
        ("max_invalid_ratio", 5.0, "a number from 0 to 1"),
        ("max_invalid_ratio", -0.1, "a number from 0 to 1"),
        ("max_invalid_ratio", float("nan"), "a number from 0 to 1"),
        ("http_port", 65536, "a whole number from 0 to 65,535"),
        ("startup_timeout", 0, "a whole number from 1 to 31,622,400"),
        ("startup_timeout", -5, "a whole number from 1 to 31,622,400"),
        ("writer", "fast", "one of auto, direct, delta-spark"),
        ("writer", "", "one of auto, direct, delta-spark"),
        ("writer", "Direct", "one of auto, direct, delta-spark"),
        ("kafka_config", "/no/such.properties", "a readable Kafka properties file in UTF-8"),
        ("kafka_config", "/tmp", "a readable Kafka properties file in UTF-8"),
        ("starting_offsets", "soonest", "earliest, latest or JSON such as"),
        ("kafka_brokers", 9092, "a value of type str"),
        ("kafka_brokers", None, "a value of type str"),
        ("kafka_brokers", ["a:1", "b:2"], "a value of type str"),
        ("output_path", Path("/lake/bronze"), "a value of type str"),
        ("max_offsets_per_trigger", "5000", "a value of type int"),
        ("max_offsets_per_trigger", 5000.0, "a value of type int"),
        ("max_offsets_per_trigger", True, "a value of type int"),
        ("available_now", "true", "a value of type bool"),
        ("available_now", 1, "a value of type bool"),
        ("fail_on_data_loss", None, "a value of type bool"),
    ],
)
def test_the_message_has_the_flag_the_value_and_what_is_expected(name: str, value: Any, expected: str):
    message = refuse(**{name: value})
    assert message.startswith(f"--{name.replace('_', '-')}: expected {expected}")
    assert message.endswith(f", got {value!r}")


def test_a_kafka_properties_file_that_exists_is_accepted(tmp_path: Path):
    file = tmp_path / "kafka.properties"
    file.write_text("security.protocol=SSL\n")
    assert make_config(kafka_config=str(file)).kafka_config == str(file)


@pytest.mark.parametrize("writer", ["auto", "direct", "delta-spark"])
def test_each_writer_is_accepted(writer: str):
    assert make_config(writer=writer).writer == writer


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("", None),
        ("earliest", None),
        ("latest", None),
        (f'{{"{TOPIC}": {{"0": 23, "1": -2, "2": -1, "3": 0}}}}', {0: 23, 1: -2, 2: -1, 3: 0}),
        (f' {{ "{TOPIC}" : {{}} }} ', {}),
    ],
)
def test_starting_offsets_are_a_word_or_an_offset_of_each_partition(text: str, offsets: dict[int, int] | None):
    assert parse_starting_offsets(text, TOPIC) == offsets


@pytest.mark.parametrize(
    "text",
    [
        "Earliest",
        "5",
        "null",
        "true",
        "[]",
        "{}",
        "{",
        '"earliest"',
        f'["{TOPIC}"]',
        '{"another": {"0": 1}}',
        f'{{"{TOPIC}": {{"0": 1}}, "another": {{"0": 1}}}}',
        f'{{"{TOPIC}": null}}',
        f'{{"{TOPIC}": 5}}',
        f'{{"{TOPIC}": [1, 2]}}',
        f'{{"{TOPIC}": {{"zero": 1}}}}',
        f'{{"{TOPIC}": {{"": 1}}}}',
        f'{{"{TOPIC}": {{"0": "1"}}}}',
        f'{{"{TOPIC}": {{"0": 1.0}}}}',
        f'{{"{TOPIC}": {{"0": null}}}}',
        f'{{"{TOPIC}": {{"0": true}}}}',
        f'{{"{TOPIC}": {{"0": -3}}}}',
        f'{{"{TOPIC}": {{"0": NaN}}}}',
        f"{{'{TOPIC}': {{'0': 1}}}}",
        f'{{"{TOPIC}": {{"0": 1}}',
        "[" * 100_000,
    ],
)
def test_other_starting_offsets_are_refused_with_an_example_for_the_topic(text: str):
    with pytest.raises(InvalidOptionError) as caught:
        parse_starting_offsets(text, TOPIC)
    assert str(caught.value).startswith(f'--starting-offsets: expected earliest, latest or JSON such as {{"{TOPIC}"')
    assert str(caught.value).endswith(f"got {text!r}" if len(text) < 200 else f"got '{text[:199]}…")


def test_starting_offsets_must_be_of_the_topic_that_is_read():
    assert "--starting-offsets" in refuse(kafka_topic="mine", starting_offsets=f'{{"{TOPIC}": {{"0": 1}}}}')


@pytest.mark.parametrize(
    ("output", "dlq", "checkpoint", "flag", "outer"),
    [
        ("/lake/a", "/lake/a", "/lake/c", "--output-path", "--dlq-path (/lake/a)"),
        ("/lake/a", "/lake/a/", "/lake/c", "--output-path", "--dlq-path (/lake/a/)"),
        ("/lake/a", "/lake/b", "/lake/a", "--output-path", "--checkpoint-path"),
        ("/lake/a", "/lake/a/dlq", "/lake/c", "--dlq-path", "--output-path (/lake/a)"),
        ("/lake/a", "/lake/b", "/lake/a/_checkpoint", "--checkpoint-path", "--output-path"),
        ("/lake/a", "/lake/b", "/lake/b/x/y", "--checkpoint-path", "--dlq-path"),
        ("/lake/c/bronze", "", "/lake/c", "--output-path", "--checkpoint-path (/lake/c)"),
        ("/lake/a", "/lake/x/../a", "/lake/c", "--output-path", "--dlq-path"),
        ("/lake/a", "/lake//a/./b", "/lake/c", "--dlq-path", "--output-path"),
        ("data/bronze", "./data/bronze", "/lake/c", "--output-path", "--dlq-path"),
        ("file:/lake/a", "/lake/a/b", "/lake/c", "--dlq-path", "--output-path (file:/lake/a)"),
        ("file:///lake/a", "file:/lake/a", "/lake/c", "--output-path", "--dlq-path"),
        ("s3a://lake/a", "s3a://lake/a/b", "/lake/c", "--dlq-path", "--output-path"),
        ("s3a://lake/a/", "s3a://lake/a", "/lake/c", "--output-path", "--dlq-path"),
        ("/", "", "/lake/c", "--checkpoint-path", "--output-path"),
    ],
)
def test_tables_and_checkpoint_may_not_lie_in_one_another(
    output: str, dlq: str, checkpoint: str, flag: str, outer: str
):
    message = refuse(output_path=output, dlq_path=dlq, checkpoint_path=checkpoint)
    assert message.startswith(f"{flag}: expected a path outside {outer}")


def test_a_relative_path_is_compared_with_the_absolute_one_of_the_same_place():
    assert "--dlq-path" in refuse(output_path="data/bronze", dlq_path=str(Path("data/bronze/dlq").absolute()))


def test_a_link_into_a_table_is_seen_as_inside_it(tmp_path: Path):
    (tmp_path / "bronze").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "bronze")
    assert "outside --output-path" in refuse(output_path=f"{tmp_path}/bronze", dlq_path=f"{tmp_path}/link/dlq")


@pytest.mark.parametrize(
    ("output", "dlq", "checkpoint"),
    [
        ("/lake/bronze", "/lake/bronze2", "/lake/bronze-checkpoint"),
        ("data/bronze", "data/dlq", "data/checkpoint"),
        ("s3a://lake/a", "s3a://lake2/a", "/lake/a"),
        ("s3a://lake/a", "hdfs://lake/a", "/lake/a"),
    ],
)
def test_paths_beside_one_another_are_accepted(output: str, dlq: str, checkpoint: str):
    assert make_config(output_path=output, dlq_path=dlq, checkpoint_path=checkpoint).dlq_path == dlq


def test_a_configuration_cannot_be_changed_past_its_checks():
    with pytest.raises(FrozenInstanceError):
        make_config().startup_timeout = 0  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_plain_type_and_a_help_text_of_one_line(name: str):
    (option,) = [field for field in fields(IngestConfig) if field.name == name]
    assert type(option.default) in (str, int, float, bool)
    assert option.metadata["help"].strip()
    assert not set("\n=#") & set(option.metadata["help"])


@pytest.mark.parametrize("name", ["output_path", "dlq_path"])
@pytest.mark.parametrize("path", ["/lake/a%20b", "file:/lake/a%2Fb", "data/%41", "/lake/a\\b", "s3://lake/a%20b"])
def test_percent_escapes_and_backslashes_in_the_path_of_a_table_are_refused(name: str, path: str):
    flag = f"--{name.replace('_', '-')}"
    assert refuse(**{name: path}).startswith(f"{flag}: expected a path without percent escapes such as %20")


def test_percent_escapes_in_the_folder_that_a_path_is_relative_to_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a%20b").mkdir()
    monkeypatch.chdir(tmp_path / "a%20b")
    assert "a%20b/data/bronze" in refuse(output_path="data/bronze")


@pytest.mark.parametrize("path", ["/lake/100%", "/lake/a%zz", "/lake/a b", "hdfs://lake/a%20b"])
def test_other_percent_signs_and_other_file_systems_are_accepted(path: str):
    assert make_config(output_path=path).output_path == path
