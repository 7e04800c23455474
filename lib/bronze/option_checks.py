"""Can the text of an option be used at all? Each check takes the option's name and its text, and raises if not.

A check costs nothing and needs neither Spark nor Kafka. What it lets through can still turn out to be wrong.
"""

import os
import re
import unicodedata
from pathlib import Path

from bronze.errors import Hidden, InvalidOption

_MAX_NAME, _MAX_PATH = 255, 3_500  # bytes; the limits of Linux, less what a table's files add to its path
_BROKER = re.compile(r"(?:[A-Za-z_]+://)?\[?[\w.:%-]+\]?:([0-9]{1,5})")
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_CREDENTIALS = re.compile(r"//[^/]*:[^/]*@")


def check_text(name: str, text: str) -> None:
    """Refuse what neither a line of a log nor Java can hold: control characters, and bytes that were not UTF-8.

    Raises:
        InvalidOption: The text has such a character.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise InvalidOption(name, text, "UTF-8 text of one line, without control characters")


def check_json(name: str, text: str) -> None:
    """Refuse what is not text; JSON may have several lines, and its parser says the rest.

    Raises:
        InvalidOption: The text has a character that is no part of JSON.
    """
    check_text(name, " ".join(text.split()))


def check_path(name: str, path: str) -> None:
    """Refuse a path that no file system takes, and one that holds a password: paths are in messages and logs.

    Raises:
        InvalidOption: A name in it is too long, or it has credentials.
    """
    if _CREDENTIALS.search(path):
        raise InvalidOption(name, Hidden(), "a path without credentials; give them to Spark's or Hadoop's settings")
    check_file(name, path)


def check_file(name: str, path: str) -> None:
    """Refuse a path that no file system takes.

    Raises:
        InvalidOption: It has a control character, or a name that is too long.
    """
    check_text(name, path)
    encoded = os.fsencode(path)
    if len(encoded) > _MAX_PATH or any(len(part) > _MAX_NAME for part in encoded.split(b"/")):
        expected = f"a path of at most {_MAX_PATH:,} bytes, and {_MAX_NAME} between two slashes"
        raise InvalidOption(name, path, expected)


def check_brokers(name: str, text: str) -> None:
    """Refuse what is not a list of ``host:port``.

    Raises:
        InvalidOption: One of them is not.
    """
    check_text(name, text)
    found = [_BROKER.fullmatch(broker.strip()) for broker in text.split(",")]
    if not all(match and 0 < int(match[1]) <= 65535 for match in found):
        shown = Hidden() if "@" in text else text  # Kafka itself would take user:password@host:port
        raise InvalidOption(name, shown, "host:port, comma-separated, such as localhost:9092")


def check_topic(name: str, text: str) -> None:
    """Refuse what cannot be a topic's name.

    Raises:
        InvalidOption: Kafka has no such topics.
    """
    if not _TOPIC.fullmatch(text):
        raise InvalidOption(name, text, "a topic's name: up to 249 letters, digits, dots, underscores and hyphens")


def check_host(name: str, text: str) -> None:
    """Refuse what is neither a host's name nor an address.

    Raises:
        InvalidOption: It is something else, or an IPv6 address in brackets.
    """
    if not re.fullmatch(r"[A-Za-z0-9.:%_-]{1,255}", text):
        raise InvalidOption(name, text, "a host's name or its address, such as 127.0.0.1 or ::1, without brackets")


def check_properties_file(name: str, file: str) -> None:
    """Refuse what is not a text file.

    Raises:
        InvalidOption: There is none, or it cannot be read.
    """
    shown = Hidden() if re.search("[=;\\s]", file) else file  # the properties themselves instead of their file
    try:
        text = read_properties_text(file) if Path(file).is_file() else None
    except (OSError, UnicodeError):
        text = None
    if text is None or "\0" in text:
        raise InvalidOption(name, shown, "a readable Kafka properties file in UTF-8")


def read_properties_text(file: str) -> str:
    """The text of a Kafka properties file.

    Raises:
        OSError: It cannot be read.
        UnicodeError: It is not UTF-8.
    """
    return Path(file).read_text(encoding="utf-8-sig")


CHECKS = {
    "checkpoint_path": check_path,
    "dlq_path": check_path,
    "ending_offsets": check_json,
    "http_host": check_host,
    "kafka_brokers": check_brokers,
    "kafka_config": check_properties_file,
    "kafka_topic": check_topic,
    "offsets": check_json,
    "output_path": check_path,
    "starting_offsets": check_json,
    "stop_file": check_file,
}
