"""The properties of Kafka's client: reads the user's file, checks the names, and keeps the values out of messages."""

import difflib
import logging
import re
from collections.abc import Collection, Mapping

from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

from bronze.config import KafkaConfig
from bronze.errors import ConfigError
from bronze.parsing import read_properties_text
from bronze.runtime.jars import missing_jars_error
from bronze.runtime.paths import find_class

log = logging.getLogger(__name__)


def read_client_properties(spark: SparkSession, config: KafkaConfig) -> dict[str, str]:
    """Return the client properties: the file's, and the brokers. Names and values may be secrets: never log them.

    Raises:
        ConfigError: The file is not a properties file. A name is almost that of a property.
    """
    properties = _load_file(spark, config) if config.kafka_config else {}
    if properties:
        check_names(properties, _list_known_names(spark), config.kafka_config)
    return {**properties, "bootstrap.servers": config.kafka_brokers}


def _load_file(spark: SparkSession, config: KafkaConfig) -> dict[str, str]:
    loaded, problem = find_class(spark, "java.util.Properties")(), ""
    try:
        loaded.load(find_class(spark, "java.io.StringReader")(read_properties_text(config.kafka_config)))
    except UnicodeError:
        problem = "is not in UTF-8"
    except IllegalArgumentException:
        problem = "has an escape \\u without four hexadecimal digits; a backslash of a value is written twice"
    properties = {str(key): str(loaded.getProperty(key)) for key in loaded.stringPropertyNames()}
    if not problem and (stray := find_stray_names(properties)):
        problem = (
            f"has {len(stray)} lines that are not properties (not shown, because they may be secrets); a value "
            "continues on the next line only after a backslash"
        )
    if problem:
        raise client_config_error(config, f"{config.kafka_config} {problem}")
    return properties


# Names with a part that the user chooses.
_OPEN = ("config.providers",)
# Spark's options and the names of other settings have these prefixes.
_PREFIX = re.compile(r"^(?:spark\.)?(?:kafka\.|hadoop\.)?")
_NEAR = 0.9  # of difflib's ratio: one or two letters of a name
_SHOWN_NAME = re.compile(r"[a-z0-9.-]{1,60}")
_CONFIGS = ("consumer.ConsumerConfig", "admin.AdminClientConfig", "producer.ProducerConfig")


def _list_known_names(spark: SparkSession) -> set[str]:
    """The names that Kafka's clients know; a file may be shared with a producer."""
    configs = [find_class(spark, f"org.apache.kafka.clients.{name}") for name in _CONFIGS]
    join = find_class(spark, "java.lang.String").join
    try:
        return {name for each in configs for name in str(join(",", each.configNames())).split(",")}
    except TypeError:  # py4j treats a missing class as a package
        raise missing_jars_error() from None


def check_names(properties: Mapping[str, str], known: Collection[str], file: str) -> None:
    """Check the names of properties, because Kafka's client ignores those that it does not know.

    Args:
        properties: Properties of the user's file.
        known: The names that Kafka's clients know.
        file: The file.

    Raises:
        ConfigError: A name is almost that of a property: a misspelt ``security.protocol`` would connect without TLS.
    """
    unknown = [name for name in properties if name not in known and not name.startswith(_OPEN)]
    for name in unknown:
        if near := find_near_name(name, known):
            raise ConfigError(f"{file} sets {name}, which Kafka's client does not know", hint=f"write {near} instead")
    if unknown:
        # A line of a secret that lacks its backslash looks like a name without a value.
        shown = [name for name in unknown if _SHOWN_NAME.fullmatch(name) and properties[name]]
        hidden = [f"{len(unknown) - len(shown)} that may be parts of a secret"] if len(shown) < len(unknown) else []
        log.warning(
            "Kafka's client does not know these properties of %s (nothing to do, unless a name is misspelt): %s",
            file,
            ", ".join(shown + hidden),
        )


def find_near_name(name: str, known: Collection[str]) -> str:
    """Return the property that is meant by a misspelt name; empty if no property is near."""
    spelled = _PREFIX.sub("", name.lower().replace("_", "."))
    return spelled if spelled in known else next(iter(difflib.get_close_matches(spelled, known, 1, _NEAR)), "")


# Values that are not secret, and that occur in messages for other reasons.
_PLAIN = {"true", "false", "plaintext", "sasl_plaintext", "sasl_ssl", "gssapi", "oauthbearer", "https", "none", "kafka"}
_SHORTEST = 3  # shorter parts of a value may occur in any text
_INVALID_VALUE = re.compile(r"Invalid value (?P<value>.*) for configuration (?P<name>[\w.-]+)(?P<why>.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)+|acks|retries", re.ASCII)
_LONGEST_NAME = 100


def find_stray_names(properties: Mapping[str, str]) -> list[str]:
    """Return names that no property can have: continued lines of a value without a backslash. Never log them."""
    return [name for name in properties if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME]


def hide_values(reason: str, properties: Mapping[str, str]) -> str:
    """Replace the values of properties by their names in a reason of Kafka's client.

    A message that may quote a part of a value is replaced by the property's name, because JAAS quotes parts of a
    password.

    Args:
        reason: The reason as ``Class: message``.
        properties: Properties of the user's file.
    """
    kind, _, message = reason.partition(": ")
    if invalid := _INVALID_VALUE.search(message):
        why = invalid["why"].replace(invalid["value"], "…") if invalid["value"] else invalid["why"]
        message = f"it does not accept the value of {invalid['name']}{why}"
    values = {n: v for n, v in properties.items() if len(v) >= _SHORTEST and v.lower() not in _PLAIN}
    for name, value in values.items():
        message = re.sub(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", f"<{name}>", message)
    words = {word for word in re.split(r"[\s'\"`()<>\[\],;:=]+", message) if len(word) >= _SHORTEST} - set(properties)
    quoted = [name for name, value in values.items() if any(word in value or value in word for word in words)]
    if not invalid:  # only Kafka knows the value that a config provider returns
        quoted += [name for name, value in values.items() if "${" in value and name not in quoted]
    if "JAAS" in message:
        quoted = ["sasl.jaas.config"]
    if quoted:
        return f"{kind}, about {', '.join(sorted(quoted))} (message not shown, because it may quote a secret)"
    return f"{kind}: {message}"


def client_config_error(config: KafkaConfig, reason: str) -> ConfigError:
    """Make the error for a Kafka client that refuses its configuration, a broker's name or its credentials."""
    return ConfigError(
        f"cannot read from Kafka at {config.kafka_brokers}: {reason}", hint="check --kafka-brokers and --kafka-config"
    )
