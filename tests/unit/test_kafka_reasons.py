"""Messages about properties that Kafka refuses: they name the property, and contain no part of its value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bronze.kafka.properties import find_stray_names, hide_values

JAAS = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="s3cret word";'
GIVEN = {
    "sasl.jaas.config": JAAS,
    "ssl.keystore.location": "/etc/keys.jks",
    "security.protocol": "SASL_SSL",
    "ssl.keystore.key": "-----BEGIN KEY----- MIIEv -----END KEY-----",
    "metric.reporters": "a.B,c.S3cret",
    "retries": "5",
}


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("ConfigException: Invalid value s3cret for configuration a.b: Class s3cret could not be found.",
         "ConfigException: it does not accept the value of a.b: Class … could not be found."),
        ("ConfigException: Invalid value 5 for configuration a.b",
         "ConfigException: it does not accept the value of a.b"),
        ("ConfigException: Invalid value  for configuration a.b",
         "ConfigException: it does not accept the value of a.b"),
        ("ConfigException: No resolvable bootstrap urls given in bootstrap.servers", None),
        ("NoSuchFileException: /etc/keys.jks", "NoSuchFileException: <ssl.keystore.location>"),
        ("SaslAuthenticationException: Authentication failed: Invalid username or password",
         "SaslAuthenticationException, about sasl.jaas.config"),
        ("SslHandshakeException: No SASL_SSL here", None),
        ("IllegalArgumentException: Value not specified for key 'word' in JAAS config",
         "IllegalArgumentException, about sasl.jaas.config"),
        ("IllegalArgumentException: Value not specified for key 'x' in JAAS config",
         "IllegalArgumentException, about sasl.jaas.config"),
        ("LoginException: No LoginModule found for PlainLoginModule", "LoginException, about sasl.jaas.config"),
        ("ClassNotFoundException: c.S3cret", "ClassNotFoundException, about metric.reporters"),
        ("IOException: keystore is xMIIEvx", None),
        ("IOException: keystore is MIIEv", "IOException, about ssl.keystore.key"),
    ],
)  # fmt: skip
def test_a_reason_names_the_property_and_does_not_quote_it(reason: str, shown: str | None):
    assert hide_values(reason, GIVEN).startswith(shown or reason)


@given(st.text("ab1./@ '=;", min_size=3, max_size=12), st.data())
def test_no_part_of_a_value_is_shown(value: str, data: st.DataObject):
    start = data.draw(st.integers(0, len(value) - 3))
    part = value[start : data.draw(st.integers(start + 3, len(value)))]
    shown = hide_values(f"SomeException: it has '{part}' there", {"x.y": value})
    words = [word for word in part.replace("'", " ").replace("=", " ").replace(";", " ").split() if len(word) >= 3]
    assert not any(word in shown for word in words if word not in "about x.y (message not shown)")


def test_a_value_that_a_provider_gives_is_not_known_so_nothing_is_shown():
    shown = hide_values("LoginException: No LoginModule found for s3cret", {"sasl.jaas.config": "${file:/x:jaas}"})
    assert shown.startswith("LoginException, about sasl.jaas.config (")
    assert "s3cret" not in shown


def test_lines_that_are_no_properties_are_found():
    names = [
        "s3cret",
        "MIIEv/+x",
        "-----END",
        "password",
        "a.b",
        "ssl.key.password",
        "acks",
        "retries",
        "x." + "y" * 99,
    ]
    assert find_stray_names(dict.fromkeys(names, "")) == ["s3cret", "MIIEv/+x", "-----END", "password", "x." + "y" * 99]
