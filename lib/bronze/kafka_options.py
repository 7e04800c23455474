"""How Kafka's clients are configured: the user's properties file, and what reading planned offsets needs."""

from typing import Any

from pyspark.errors import IllegalArgumentException
from pyspark.sql import SparkSession

from bronze.config import KafkaConfig
from bronze.kafka_errors import InvalidKafkaConfig
from bronze.kafka_reasons import find_stray_names
from bronze.option_checks import read_properties_text


def read_client_properties(spark: SparkSession, config: KafkaConfig) -> dict[str, str]:
    """Kafka client properties: those of the file, and the brokers. Names and values may be secrets: never log them.

    Raises:
        InvalidKafkaConfig: The file is no properties file.
    """
    properties = _load_file(spark, config) if config.kafka_config else {}
    return {**properties, "bootstrap.servers": config.kafka_brokers}


def _load_file(spark: SparkSession, config: KafkaConfig) -> dict[str, str]:
    jvm: Any = spark._jvm
    loaded, problem = jvm.java.util.Properties(), ""
    try:
        loaded.load(jvm.java.io.StringReader(read_properties_text(config.kafka_config)))
    except UnicodeError:
        problem = "is not in UTF-8"
    except IllegalArgumentException:
        problem = "has an escape \\u without four hexadecimal digits; a backslash of a value is written twice"
    properties = {str(key): str(loaded.getProperty(key)) for key in loaded.stringPropertyNames()}
    if not problem and (stray := find_stray_names(properties)):
        problem = (
            f"has lines that are no properties, {len(stray)} of them (not shown, because they may be secrets); a value "
            "goes on in the next line only after a backslash"
        )
    if problem:
        raise InvalidKafkaConfig(config.kafka_brokers, f"{config.kafka_config} {problem}")
    return properties


def build_source_options(properties: dict[str, str], isolation: str) -> dict[str, Any]:
    """The client properties as options of Spark's Kafka source; where planned records end, no partition waits for more.

    Kafka's default is to wait half a second: 16 partitions with 30 records each took 2.4 s, and 0.5 s this way.
    """
    options = {f"kafka.{key}": value for key, value in {"fetch.max.wait.ms": "20", **properties}.items()}
    return {**options, "kafka.isolation.level": isolation}
