"""Any value of any option of any command is a valid configuration or exit code 2 with one line; never a stack trace."""

import json
import unicodedata
from dataclasses import fields
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bronze.cli import COMMANDS, build_parser
from bronze.config import BackfillConfig, Config, DlqConfig, InspectConfig, KafkaConfig
from bronze.errors import BronzeError
from bronze.parsing import parse_offset_ranges, parse_time

TOPIC = "api-usage-events.v1"
GIVEN = {
    "kafka_brokers": "localhost:9092",
    "output_path": "/lake/bronze",
    "dlq_path": "/lake/dlq",
    "checkpoint_path": "/lake/checkpoint",
}
KINDS = {name: command.config for name, command in COMMANDS.items()} | {"inspect": InspectConfig}
PARSER = build_parser()
OPTIONS = [(command, field.name) for command, kind in KINDS.items() for field in fields(kind)]
JAVA_LONG = 2**63 - 1

WORDS = (
    *("", " ", "\0", "a\nb", "\t", "\x1b[31m", "\u2028", "\ud800", "x" * 300, "/" + "x" * 300, "/x" * 3000, "9" * 5000),
    *(
        "1e9",
        "1_000",
        "\u0661\u0662",
        "+5",
        "0x10",
        "-0",
        "nan",
        "inf",
        "1e999",
        "NaN",
        "true",
        "None",
        "%",
        "%s",
        "--",
        "-x",
        "@",
    ),
    *("/a/[x]", "/a/{b,c}", "/a/*", "/a/?", "/a/\\", "/a/`", "/a/${HOME}", "/a/'", '/a/"', "/a/#", "~", "..", "/", "."),
    *(
        ":",
        "file:",
        "file://",
        "file:/",
        "s3a://",
        "s3a://k:s@b/x",
        "//x",
        "a:b",
        "C:\\x",
        "http://[",
        "/proc/self/fd/0",
    ),
    *(
        "::1",
        "[::1]",
        "[",
        "1.2.3",
        "0",
        "localhost:",
        ":9092",
        "a:0",
        "a:99999",
        "a:1,",
        "a..b:1",
        "u:p@h:1",
        "[::1]:1",
    ),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z"),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-01-01", "2026-01-01T00:00:00", "24:00"),
    *("earliest", "latest", "{", "[]", "null", '{"0": [[0, 9223372036854775808]]}', '{"0": [[0, 1e999]]}', "[" * 99999),
    *(
        '{"0": [[0, %s]]}' % ("9" * 5000),
        '{"\u0661": [[0, 1]]}',
        '{"0": [[0, 1]], "0": [[5, 6]]}',
        '{"4294967296": [[0, 1]]}',
    ),
    *(f'{{"{TOPIC}": {{"0": {number}}}}}' for number in (2**63, 2**63 - 1, -3, "9" * 5000, "NaN", "true", "1.0")),
)
NUMBERS = (-1, 0, 1, 65535, 65536, 2**31, 2**63 - 1, 2**63, 10**19, 10**400, 10**5000, -(10**5000), True, False)
FLOATS = (0.5, -0.0, 1.5, 5e-324, 1e308, float("nan"), float("inf"), float("-inf"))
THINGS = (None, b"", b"x", (), [], {}, {"a": 1}, [1], date(2026, 1, 1), Decimal("1e9"), 1j, object)

texts = st.sampled_from(WORDS) | st.text(st.characters(), max_size=20)
leaves = st.sampled_from([*NUMBERS[:10], None, "earliest", 1.5]) | st.integers()
keys = st.sampled_from([TOPIC, "0", "-1", "00", "1.0", "9" * 30]) | st.text(max_size=3)
nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
values = texts | st.sampled_from([*NUMBERS, *FLOATS, *THINGS]) | st.integers() | st.floats() | nested.map(json.dumps)


def make(kind: type[Config], given: dict[str, Any]) -> Config | None:
    """The configuration; None if it is refused with the expected error."""
    base = {field.name: GIVEN[field.name] for field in fields(kind) if field.name in GIVEN}
    if kind is BackfillConfig and not {"start_timestamp", "end_timestamp"} & set(given):
        base["starting_offsets"] = "earliest"
    try:
        return kind(**{**base, **given})
    except BronzeError as error:
        assert error.exit_code == 2
        assert len(str(error)) < 1000
        assert not {unicodedata.category(character) for character in str(error)} & {"Cc", "Cs", "Zl", "Zp"}
        return None


def check_usable(config: Config) -> None:
    """The values derived from an accepted configuration are usable, also by Java."""
    for field in fields(config):
        value = getattr(config, field.name)
        assert not isinstance(value, int | float) or abs(value) <= JAVA_LONG
        assert not isinstance(value, str) or value.encode("utf-8") is not None
    if isinstance(config, DlqConfig):
        times = [parse_time(name, getattr(config, name)) for name in ("start_timestamp", "end_timestamp")]
        assert all(time.utctimetuple() for time in times if time)
        pairs = [pair for ranges in parse_offset_ranges(config.offsets).values() for pair in ranges]
        assert all(0 <= first <= last < JAVA_LONG for first, last in pairs)
    if isinstance(config, BackfillConfig):
        assert all(offset < JAVA_LONG for offsets in config.parse_range() for offset in (offsets or {}).values())
    if isinstance(config, KafkaConfig):
        assert config.startup_timeout * 1000 < JAVA_LONG


@pytest.mark.parametrize("command", KINDS)
@given(st.data())
def test_any_value_of_any_option_is_accepted_or_refused_with_code_2(command: str, data: st.DataObject):
    kind = KINDS[command]
    names = data.draw(st.lists(st.sampled_from([field.name for field in fields(kind)]), min_size=1, max_size=3))
    if config := make(kind, {name: data.draw(values) for name in names}):
        check_usable(config)


@pytest.mark.parametrize(("command", "name"), OPTIONS)
def test_each_odd_value_of_each_option_is_accepted_or_refused_with_code_2(command: str, name: str):
    for value in (*WORDS, *NUMBERS, *FLOATS, *THINGS):
        if config := make(KINDS[command], {name: value}):
            check_usable(config)


@pytest.mark.parametrize(("command", "name"), [option for option in OPTIONS if option[0] != "inspect"])
def test_each_odd_word_on_the_command_line_is_accepted_or_refused_with_code_2(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
):
    required = [
        f"--{field.name.replace('_', '-')}={GIVEN[field.name]}"
        for field in fields(KINDS[command])
        if field.name in GIVEN
    ]
    for word in WORDS:
        try:
            given = vars(PARSER.parse_args([command, *required, f"--{name.replace('_', '-')}={word}"]))
        except SystemExit as ended:
            assert ended.code == 2
            continue
        del given["command"]
        if config := make(KINDS[command], given):
            check_usable(config)
    capsys.readouterr()
