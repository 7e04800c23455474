"""The filters of the DLQ commands: their meaning, and that invalid ones are refused with the name of the option."""

from datetime import UTC, datetime
from typing import Any

import pytest

from bronze.config import InspectConfig, ReplayConfig
from bronze.errors import ConfigError, InvalidOptionError
from bronze.parsing import parse_error_types, parse_offset_ranges, parse_time

PATHS = {"output_path": "/lake/bronze", "dlq_path": "/lake/dlq"}


def test_filters_are_read():
    assert parse_error_types("empty, schema_mismatch") == ["empty", "schema_mismatch"]
    assert parse_offset_ranges('{"0": [[5, 9], [12, 12]], "3": [[0, 0]]}') == {0: [(5, 9), (12, 12)], 3: [(0, 0)]}
    assert parse_time("start_timestamp", "2026-01-31T23:00:00+01:00") == datetime(2026, 1, 31, 22, tzinfo=UTC)
    assert (parse_error_types(""), parse_offset_ranges(""), parse_time("start_timestamp", "")) == ([], {}, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"error_type": "schema_missmatch"},
        {"start_timestamp": "2026-01-31T23:00:00"},
        {"start_timestamp": "yesterday"},
        {"end_timestamp": "2026-01-31"},
        {"offsets": "5-9"},
        {"offsets": "[]"},
        {"offsets": "{}"},
        {"offsets": '{"0": []}'},
        {"offsets": '{"0": [5]}'},
        {"offsets": '{"0": [[9, 5]]}'},
        {"offsets": '{"0": [[-1, 5]]}'},
        {"offsets": '{"0": [[0, true]]}'},
        {"offsets": '{"a": [[0, 5]]}'},
        {"offsets": '{"-1": [[0, 5]]}'},
        {"offsets": '{"0": "ab"}'},
        {"offsets": '{"0": ["ab"]}'},
        {"start_timestamp": "2026-01-02T00:00:00Z", "end_timestamp": "2026-01-01T00:00:00Z"},
        {"max_records": 0},
        {"max_records": 2**63},
        {"start_timestamp": "0001-01-01T00:00:00+14:00"},
        {"end_timestamp": "9999-12-31T23:59:59-14:00"},
        {"offsets": '{"0": [[0, 9223372036854775807]]}'},
        {"offsets": '{"2147483648": [[0, 5]]}'},
        {"offsets": '{"1_0": [[0, 5]]}'},
        {"offsets": '{"0": [[0, 5]], "0": [[7, 9]]}'},
        {"offsets": '{"0": [' + ", ".join(["[0, 5]"] * 1001) + "]}"},
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_used_is_named(wrong: dict[str, Any]):
    with pytest.raises(InvalidOptionError, match="--" + list(wrong)[-1].replace("_", "-")):
        ReplayConfig(**PATHS, **wrong)


def test_a_dlq_is_required():
    with pytest.raises(ConfigError, match="^--dlq-path is required"):
        InspectConfig(output_path="/lake/bronze")
