"""The settings of a session: which values plans hide, whatever the session hid before."""

import re

import pytest

from bronze.runtime.session import extend_redaction

OURS = [
    "kafka.sasl.jaas.config",
    "kafka.ssl.key.password",
    "kafka.ssl.keystore.key",
    "kafka.ssl.truststore.certificates",
    "kafka.sasl.oauthbearer.token.endpoint.url",
    "kafka.sasl.oauthbearer.client.credentials.client.secret",
    "kafka.basic.auth.user.info",
]


@pytest.mark.parametrize("before", ["", "(?i)url", "clusters-own", "(a)|b"])
@pytest.mark.parametrize("name", OURS)
def test_our_secrets_are_hidden_beside_what_a_session_hides(before: str, name: str):
    assert re.search(extend_redaction(before).replace("(?i)", ""), name)


def test_what_a_session_hides_stays_hidden_and_other_options_are_shown():
    pattern = extend_redaction("clusters-own").replace("(?i)", "")
    assert re.search(pattern, "clusters-own-option")
    assert not re.search(pattern, "subscribe")
    assert not re.search(pattern, "kafka.bootstrap.servers")


def test_a_pattern_is_extended_once():
    assert extend_redaction(extend_redaction("x")) == extend_redaction("x")
