"""Shows raw values to people: cut to a length, with fields masked.

A value that is not JSON cannot be masked, so only its length is shown.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from bronze.parsing import split_list

MASK = "***"
Path = tuple[str, ...]


def parse_mask(text: str) -> list[Path]:
    """The fields of a comma-separated list of paths such as ``client.ip_address``; case does not matter."""
    return [tuple(path.strip() for path in name.lower().split(".")) for name in split_list(text)]


def show_value(value: bytes | None, mask: Sequence[Path], length: int) -> str:
    """A value with masked fields, cut to ``length`` characters and an ellipsis.

    Args:
        value: Any bytes.
        mask: Fields to hide; if empty, bytes that are not UTF-8 are backslash-escaped.
        length: Maximum number of characters.
    """
    if not value:
        return "(null)" if value is None else "(zero bytes)"
    return cut_text(_mask_value(value, mask) if mask else value.decode("utf-8", "backslashreplace"), length)


def cut_text(text: str, length: int) -> str:
    """At most ``length`` characters, and an ellipsis if the text is longer."""
    return text if len(text) <= length else text[:length] + "…"


def is_masked(path: str, mask: Sequence[Path]) -> bool:
    """Whether a field, one of its parents or one of its children is hidden."""
    parts = tuple(path.lower().split("."))
    return any(all(one == other for one, other in zip(parts, hidden, strict=False)) for hidden in mask)


def _mask_value(value: bytes, mask: Sequence[Path]) -> str:
    try:
        document = msgspec.json.decode(value)
        for path in mask:
            document = _hide(document, path)
        return msgspec.json.encode(document).decode()
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return f"({len(value):,} bytes that are not JSON, hidden by mask_fields)"


def _hide(node: Any, path: Path) -> Any:
    """Hide the value at the path; a text or number in place of an object is hidden completely."""
    if isinstance(node, list):
        return [_hide(element, path) for element in node]
    if not path or not isinstance(node, dict):
        return None if node is None else MASK
    return {key: _hide(child, path[1:]) if key.lower() == path[0] else child for key, child in node.items()}
