"""A certificate and its key: the file that is at fault is named, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from relay import keypair
from relay.settings import SettingsError, read
from tests.core.test_certificate import NOW

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
OURS, OTHERS = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def sealed(key: Key, how: KeySerializationEncryption | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, how or NoEncryption())


def certificate(key: Key) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.test")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM)


def fault(folder: Path, chain: bytes, key: bytes) -> str:
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key)
    return keypair.fault(folder / "chain.pem", folder / "key.pem").replace(f"{folder}/", "")


def test_a_pair_has_no_fault(tmp_path: Path) -> None:
    chain = certificate(OURS) + certificate(OTHERS)

    assert fault(tmp_path, chain, sealed(OURS)) == ""
    assert fault(tmp_path, chain + sealed(OURS), chain + sealed(OURS)) == "", "both may be in one file"


@pytest.mark.parametrize(
    "chain", [b"", b"hello", sealed(OURS), certificate(OURS)[:200]], ids=["empty", "text", "key", "cut"]
)
def test_what_is_no_certificate(tmp_path: Path, chain: bytes) -> None:
    assert "chain.pem holds no certificate in PEM" in fault(tmp_path, chain, sealed(OURS))


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"hello",
        certificate(OURS),
        sealed(OURS)[:80],
        OURS.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["empty", "text", "certificate", "cut", "public"],
)
def test_what_is_no_key(tmp_path: Path, key: bytes) -> None:
    assert "key.pem holds no private key in PEM" in fault(tmp_path, certificate(OURS), key)


@pytest.mark.parametrize("key", [OTHERS, rsa.generate_private_key(65537, 2048)], ids=["of its kind", "of another kind"])
def test_a_key_of_another_certificate(tmp_path: Path, key: Key) -> None:
    said = fault(tmp_path, certificate(OURS), sealed(key))

    assert "the key key.pem does not belong to the first certificate in chain.pem" in said


def test_a_chain_in_the_wrong_order(tmp_path: Path) -> None:
    assert "stand first" in fault(tmp_path, certificate(OTHERS) + certificate(OURS), sealed(OURS))


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_told_and_nobody_is_asked_for_its_passphrase(tmp_path: Path, form: PrivateFormat) -> None:
    said = fault(tmp_path, certificate(OURS), sealed(OURS, BestAvailableEncryption(b"x"), form))

    assert "the key key.pem is encrypted" in said
    assert "openssl pkey -in key.pem -out plain.key" in said


def test_the_settings_tell_it(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_bytes(certificate(OURS))
    (tmp_path / "key.pem").write_bytes(sealed(OTHERS))
    given = {"POSTFERRY_TLS_CERTIFICATE": str(tmp_path / "chain.pem"), "POSTFERRY_TLS_KEY": str(tmp_path / "key.pem")}

    with pytest.raises(SettingsError, match="does not belong to the first certificate"):
        read(given, None)


def test_a_file_that_cannot_be_read_is_told_with_the_reason(tmp_path: Path) -> None:
    """As under /etc/letsencrypt, which is root's; root may read that, but follows no link for ever."""
    (tmp_path / "key.pem").symlink_to(tmp_path / "key.pem")

    with pytest.raises(SettingsError, match=r"POSTFERRY_TLS_KEY cannot be read: Too many levels .* let the user that"):
        read({"POSTFERRY_TLS_KEY": str(tmp_path / "key.pem")}, None)
