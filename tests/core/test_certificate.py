"""Certificates: whose they are, and how long they are valid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from relay.core import certificate
from relay.core.certificate import Certificate

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def pem(*names: str, common: str = "relay.example.com", days: int = 90) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=days))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_names_and_dates_are_read() -> None:
    found = certificate.read(pem("Mail.example.com", "*.example.org"))

    assert found.names == ["mail.example.com", "*.example.org"]
    assert found.not_after == NOW + timedelta(days=90)


def test_without_alternative_names_the_common_name_counts() -> None:
    assert certificate.read(pem()).names == ["relay.example.com"]


def test_the_first_of_a_chain_is_meant() -> None:
    assert certificate.read(pem("first.example") + pem("second.example")).names == ["first.example"]


@pytest.mark.parametrize(
    "text", [b"", b"not a certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_none_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        certificate.read(text)


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("mail.example.com", True),
        ("MAIL.example.com", True),
        ("x.example.org", True),
        ("x.y.example.org", False),
        ("example.org", False),
        ("other.example.com", False),
    ],
)
def test_names_cover_hosts(host: str, covered: bool) -> None:
    found = Certificate(["mail.example.com", "*.example.org"], NOW, NOW)

    assert found.covers(host) is covered


@pytest.mark.parametrize(
    ("after_days", "words"),
    [(90, ""), (10, "expires in 10 days"), (-1, "expired on 2026-05-31")],
)
def test_faults_by_date(after_days: int, words: str) -> None:
    found = Certificate(["a.example"], NOW - timedelta(days=100), NOW + timedelta(days=after_days))

    assert words in " ".join(found.faults(NOW, "a.example"))
    assert bool(found.faults(NOW, "a.example")) is bool(words)


def test_a_certificate_of_the_future_is_a_fault() -> None:
    found = Certificate(["a.example"], NOW + timedelta(days=1), NOW + timedelta(days=9))

    assert "is not valid before" in found.faults(NOW, "a.example")[0]


def test_another_name_is_a_fault() -> None:
    found = Certificate(["a.example"], NOW, NOW + timedelta(days=90))

    assert found.faults(NOW, "b.example") == ["is for a.example, not for b.example (POSTFERRY_HOSTNAME)"]
