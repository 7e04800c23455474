"""What may be shown of what Kafka's client says: it quotes values of its properties, and these may be secrets."""

import re
from collections.abc import Mapping

# Values that are no secrets, and that messages have for other reasons.
_PLAIN = {"true", "false", "plaintext", "sasl_plaintext", "sasl_ssl", "gssapi", "oauthbearer", "https", "none", "kafka"}
_SHORTEST = 3  # shorter parts of a value are in any text
_INVALID = re.compile(r"Invalid value (?P<value>.*) for configuration (?P<name>[\w.-]+)(?P<why>.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)+|acks|retries", re.ASCII)
_LONGEST_NAME = 100


def find_stray_names(properties: Mapping[str, str]) -> list[str]:
    """Names that no property has: lines of a value that was broken without a backslash. Never show them."""
    return [name for name in properties if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME]


def hide_values(reason: str, properties: Mapping[str, str]) -> str:
    """A reason of Kafka's client, with names of properties in the place of their values.

    Where it may quote a part of a value, it is left out, and the property is named: JAAS quotes words of a password.

    Args:
        reason: As ``Class: message``.
        properties: Those of the user's file.
    """
    kind, _, message = reason.partition(": ")
    if invalid := _INVALID.search(message):
        why = invalid["why"].replace(invalid["value"], "…") if invalid["value"] else invalid["why"]
        message = f"it does not take the value of {invalid['name']}{why}"
    values = {n: v for n, v in properties.items() if len(v) >= _SHORTEST and v.lower() not in _PLAIN}
    for name, value in values.items():
        message = re.sub(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", f"<{name}>", message)
    words = {word for word in re.split(r"[\s'\"`()<>\[\],;:=]+", message) if len(word) >= _SHORTEST} - set(properties)
    quoted = [name for name, value in values.items() if any(word in value or value in word for word in words)]
    if not invalid:  # a provider's value is known to Kafka alone
        quoted += [name for name, value in values.items() if "${" in value and name not in quoted]
    if "JAAS" in message:
        quoted = ["sasl.jaas.config"]
    if quoted:
        return f"{kind}, about {', '.join(sorted(quoted))} (what it says is not shown, because it may quote a secret)"
    return f"{kind}: {message}"
