"""The setting that is wrong, from Java's exceptions; the causes are those of real clients."""

import pytest

from bronze.errors import ConfigError
from bronze.kafka.probe import Listener
from bronze.kafka.properties import check_names, find_near_name
from bronze.runtime.kafka_faults import explain_kafka_refusal, find_fault, find_unfit_login

HANDSHAKE = ["ExecutionException: SSL handshake failed", "SslAuthenticationException: SSL handshake failed"]
MODULE = "org.apache.kafka.common.security.x."
KNOWN = ["security.protocol", "sasl.mechanism", "ssl.truststore.location", "linger.ms"]


@pytest.mark.parametrize(
    ("cause", "problem"),
    [
        ("CertificateExpiredException: NotAfter: Sat Nov 21 10:00 UTC 2026", "expired on Sat Nov 21 10:00 UTC 2026"),
        ("CertificateNotYetValidException: NotBefore: Sun Nov 21 10:00:00 UTC 2027", "is not valid before Sun Nov 21"),
        ("CertificateException: No subject alternative names matching IP address 10.0.0.1 found", "host name 10.0.0.1"),
        ("CertificateException: No subject alternative DNS name matching kafka found.", "for the host name kafka"),
        ("CertificateException: No name matching kafka found", "for the host name kafka"),
        ("CertificateException: No subject alternative names present", "for the host name in --kafka-brokers"),
        ("SSLHandshakeException: Received fatal alert: certificate_expired", "location (certificate_expired)"),
        ("SSLHandshakeException: Received fatal alert: unknown_ca", "ssl.keystore.location (unknown_ca)"),
        ("SSLHandshakeException: Received fatal alert: protocol_version", "no TLS version or cipher suite in common"),
    ],
)  # fmt: skip
def test_each_cause_of_tls_has_its_problem(cause: str, problem: str):
    fault = find_fault([*HANDSHAKE, cause], {})
    assert fault and problem in fault.problem


@pytest.mark.parametrize(
    "cause",
    [
        "SSLHandshakeException: Remote host terminated the handshake",
        "SslAuthenticationException: SSL handshake failed",
        "SaslAuthenticationException: Authentication failed: the user store is temporarily unavailable",
        "TimeoutException: Timed out waiting for a node assignment",
    ],
)
def test_an_answer_that_may_change_is_not_a_fault(cause: str):
    assert find_fault([cause], {}) is None


def test_a_truststore_is_asked_for_only_if_none_is_set():
    causes = [*HANDSHAKE, "SunCertPathBuilderException: unable to find valid certification path to requested target"]
    assert "no truststore is set" in find_fault(causes, {}).problem
    assert "not in this client's truststore" in find_fault(causes, {"ssl.truststore.location": "/x"}).problem
    assert "not in this client's truststore" in find_fault(causes).problem  # of a running query


@pytest.mark.parametrize("place", ["s3cret", "/no/such/folder/s3cret"])
def test_a_password_in_place_of_a_path_is_not_shown(place: str):
    causes = [f"KafkaException: Failed to load SSL keystore {place} of type JKS", f"NoSuchFileException: {place}"]
    fault = find_fault(causes, {"ssl.keystore.location": place})
    assert fault.problem == "the file of the keystore does not exist"
    assert "ssl.keystore.location" in fault.cure


def log_in(login: str, **others: str) -> dict[str, str]:
    given = {name.replace("_", "."): value for name, value in others.items()}
    return {"security.protocol": "SASL_SSL", "sasl.jaas.config": login, **given}


@pytest.mark.parametrize(
    ("module", "mechanism", "is_fitting"),
    [
        ("PlainLoginModule", "PLAIN", True),
        ("PlainLoginModule", "SCRAM-SHA-512", False),
        ("PlainLoginModule", "${file:/x:mechanism}", True),  # only Kafka knows it
        ("ScramLoginModule", "SCRAM-SHA-256", True),
        ("ScramLoginModule", "SCRAM-SHA512", False),
        ("ScramLoginModule", "PLAIN", True),
        ("OAuthBearerLoginModule", "OAUTHBEARER", True),
        ("OAuthBearerLoginModule", "PLAIN", False),
    ],
)
def test_a_login_module_fits_its_mechanisms(module: str, mechanism: str, is_fitting: bool):
    fault = find_unfit_login(log_in(f'{MODULE}{module} required password="s3cret";', sasl_mechanism=mechanism))
    assert (fault is None) == is_fitting
    assert fault is None or f"({module}) does not fit sasl.mechanism ({mechanism})" in fault.problem


def test_a_login_module_of_a_plug_in_fits_any_mechanism():
    assert find_unfit_login(log_in("com.acme.PlainLoginModule required;", sasl_mechanism="ACME")) is None
    assert find_unfit_login(log_in("s3cret", sasl_mechanism="PLAIN")) is None


def test_a_secret_in_place_of_a_mechanism_or_a_module_is_not_shown():
    fault = find_fault(["SaslException: Failed to create SaslClient"], log_in("s3cret x;", sasl_mechanism="s3cret"))
    assert "does not fit sasl.mechanism" in fault.problem
    assert "s3cret" not in fault.problem


def test_a_refused_token_comes_with_kafka_s_reason():
    cause = 'SaslAuthenticationException: {"status":"insufficient_scope", "scope":"[read]", "x":"s3cret"}'
    assert find_fault([cause], {}).problem.endswith('("status":"insufficient_scope", "scope":"[read]")')


@pytest.mark.parametrize(
    "reason",
    [
        "invalid_token",
        "the token has insufficient_scope",
        "Authentication failed during authentication due to invalid credentials with SASL mechanism OAUTHBEARER",
    ],
)
def test_a_refused_token_is_recognised_without_kafka_s_json(reason: str):
    fault = find_fault([f"SaslAuthenticationException: {reason}"], {})
    assert fault.problem == "Kafka does not accept the OAuth token of this client"


@pytest.mark.parametrize(
    ("cause", "alert"),
    [
        ("SSLHandshakeException: Received fatal alert: certificate_unknown", "certificate_unknown"),
        ("SSLHandshakeException: Received fatal alert: unknown_ca", "unknown_ca"),
        ("SSLHandshakeException: Received fatal alert: protocol_version", ""),
        ("CertificateExpiredException: NotAfter: Sat Nov 21 10:00 UTC 2026", ""),  # the broker's
    ],
)
def test_a_refused_client_certificate_is_told_from_other_faults_of_tls(cause: str, alert: str):
    assert find_fault([*HANDSHAKE, cause], {"ssl.keystore.location": "/x"}).alert == alert


def test_the_codes_of_a_provider_s_answer_are_shown_and_nothing_else_of_it():
    answer = 'response code 401 and error response {"invalid_client" - "s3cret"} was encountered'
    fault = find_fault([f"LoginException: org.apache.kafka.common.security.oauthbearer.X: The {answer}"], {})
    assert fault.problem == "the client got no OAuth token (response code 401) (invalid_client)"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://idp.example.com:8443/oauth2/token", " (https://idp.example.com:8443/oauth2/token)"),
        ("https://u:s3cret@idp/token", ""),
        ("https://idp/token?key=s3cret", ""),
        ("s3cret", ""),
    ],
)
def test_a_token_endpoint_is_shown_if_it_cannot_hold_a_secret(url: str, shown: str):
    cause = "LoginException: An internal error occurred while retrieving token from callback handler"
    fault = find_fault([cause], {"sasl.oauthbearer.token.endpoint.url": url})
    assert f"sasl.oauthbearer.token.endpoint.url{shown}, the client id" in fault.cure


def test_a_right_that_is_taken_away_names_the_topic():
    error = explain_kafka_refusal(
        RuntimeError(
            "org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: [t-1]"
        )
    )
    assert "the user may not read the topic (t-1)" in str(error)


def test_a_refusal_of_a_running_query_is_exit_code_1():
    text = "[STREAM_FAILED] Query [id = a] terminated with exception: org.apache.kafka.common.errors."
    error = explain_kafka_refusal(RuntimeError(text + "SaslAuthenticationException: Authentication failed"))
    assert error.exit_code == 1
    assert "sasl.jaas.config" in str(error) and "Nothing was lost" in str(error)


def test_a_file_that_executors_lack_is_exit_code_2():
    text = "org.apache.kafka.common.KafkaException: Failed to load SSL keystore /etc/trust.jks of type JKS\n"
    error = explain_kafka_refusal(RuntimeError(f"{text}Caused by: java.nio.file.NoSuchFileException: /etc/trust.jks"))
    assert error.exit_code == 2
    assert "the truststore or keystore /etc/trust.jks does not exist" in str(error)


def test_another_failure_is_not_a_refusal():
    assert explain_kafka_refusal(RuntimeError("java.io.IOException: disk")) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("securty.protocol", "security.protocol"),
        ("Security.Protocol", "security.protocol"),
        ("spark.kafka.security.protocol", "security.protocol"),
        ("sasl.mechanisms", "sasl.mechanism"),
        ("ssl.trustore.location", "ssl.truststore.location"),
        ("schema.registry.url", ""),
        ("ssl.ca.location", ""),
    ],
)
def test_a_misspelt_name_is_recognised(written: str, meant: str):
    assert find_near_name(written, KNOWN) == meant


def test_known_and_open_names_pass(bronze_log: pytest.LogCaptureFixture):
    check_names({"linger.ms": "5", "config.providers.file.class": "x"}, KNOWN, "f")
    assert bronze_log.messages == []


def test_a_misspelt_name_is_refused():
    with pytest.raises(ConfigError, match="f sets securty.protocol, .* write security.protocol instead"):
        check_names({"securty.protocol": "SSL"}, KNOWN, "f")


@pytest.mark.parametrize(
    ("listener", "protocols"),
    [
        (Listener(False, False), "PLAINTEXT"),
        (Listener(False, True), "SASL_PLAINTEXT"),
        (Listener(True, False), "SSL"),
        (Listener(True, True), "SASL_SSL"),
        (Listener(True, None), "SSL or SASL_SSL"),
    ],
)
def test_a_port_names_the_protocols_that_fit(listener: Listener, protocols: str):
    assert " or ".join(listener.protocols) == protocols
