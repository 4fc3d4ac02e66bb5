"""Read a TLS certificate: whose it is and how long it is valid. Whether it fits its key is the TLS library's to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Certificate:
    """The first certificate of a chain."""

    names: Sequence[str]  # DNS names it stands for, wildcards included
    not_before: datetime
    not_after: datetime

    def covers(self, host: str) -> bool:
        """RFC 6125: a wildcard stands for exactly one label, the leftmost."""
        parent = host.lower().partition(".")[2]
        return any(name == host.lower() or (name.startswith("*.") and name[2:] == parent) for name in self.names)

    def faults(self, now: datetime, host: str, *, soon_days: int = 14) -> list[str]:
        """What an operator should know, worst first; empty when all is well."""
        left = self.not_after - now
        found = []
        if left.total_seconds() <= 0:
            found.append(f"expired on {self.not_after:%Y-%m-%d}")
        elif now < self.not_before:
            found.append(f"is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC")
        elif left.days < soon_days:
            found.append(f"expires in {left.days} days, on {self.not_after:%Y-%m-%d}")
        if not self.covers(host):
            found.append(f"is for {', '.join(self.names) or 'no name'}, not for {host} (POSTFERRY_HOSTNAME)")
        return found


def read(pem: bytes) -> Certificate:
    """The first certificate in a PEM file. Raises ValueError when there is none."""
    found = x509.load_pem_x509_certificate(pem)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )
    except x509.ExtensionNotFound:
        names = [str(name.value) for name in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return Certificate([name.lower() for name in names], found.not_valid_before_utc, found.not_valid_after_utc)
