"""What the tests of the protocols share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.net import tls
from tests.fakes.upstream import certificate


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fakes' certificate, which is Dovecot's too, is one that this machine trusts."""
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(certificate()[0])
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    tls.context.cache_clear()
    yield
    tls.context.cache_clear()
