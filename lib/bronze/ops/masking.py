"""What people are shown of raw values: cut to a length, and without the fields that are to be hidden.

What cannot be read as JSON cannot be masked, so of such a value only its length is shown.
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
    """A value as a person may see it, at most ``length`` characters and a sign that it was cut.

    Args:
        value: Any bytes.
        mask: Fields to hide; with none, bytes that are not UTF-8 are backslash-escaped.
        length: Characters.
    """
    if not value:
        return "(null)" if value is None else "(zero bytes)"
    return cut_text(_mask_value(value, mask) if mask else value.decode("utf-8", "backslashreplace"), length)


def cut_text(text: str, length: int) -> str:
    """At most ``length`` characters, and a sign where there are more."""
    return text if len(text) <= length else text[:length] + "…"


def is_masked(path: str, mask: Sequence[Path]) -> bool:
    """Whether a field is hidden, or one within it or around it is."""
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
    """The node without what is at the path; text or a number where an object should be is hidden whole."""
    if isinstance(node, list):
        return [_hide(element, path) for element in node]
    if not path or not isinstance(node, dict):
        return None if node is None else MASK
    return {key: _hide(child, path[1:]) if key.lower() == path[0] else child for key, child in node.items()}
