"""For tests of the SMTP ingress: a directory and an acceptor told what to say, and a client that speaks lines."""

from __future__ import annotations

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from relay.core.errors import Refused
from relay.core.model import Accepted, Submission
from relay.core.tenant import Account, AccountState, Limits, Smtp
from relay.ingress.door import Door
from relay.settings import Settings, read
from tests.stack import PATIENCE

DUE = datetime(2030, 1, 2, 3, 4, 5, 678000, UTC)
PLAIN = b"Subject: x\r\n\r\nbody\r\n"
MESSAGE = b"X-Account: a1\r\nFrom: a@one.example\r\nTo: b@two.example\r\nSubject: hello\r\n\r\nbody\r\n"


def sasl(user: str, password: str, identity: str = "") -> str:
    """The one answer of AUTH PLAIN."""
    return b64encode(f"{identity}\0{user}\0{password}".encode()).decode()


def account(id: str, *, email: str = "", smtp: bool = True, state: AccountState = AccountState.ACTIVE) -> Account:
    upstream = Smtp("smtp.one.example", 587) if smtp else None
    return Account(id, id, email, state, upstream, Limits(), track_opens=False)


@dataclass
class Token:
    scopes: tuple[str, ...] = ("smtp",)
    account: str | None = None


@dataclass
class Directory:
    """Knows the accounts and tokens it is given; `error` is raised instead of any answer."""

    accounts: dict[str, Account] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    suppressions: dict[tuple[str, str], Refused] = field(default_factory=dict)  # by account and recipient
    error: Exception | None = None

    async def account(self, id: str) -> Account | None:
        self._fail()
        return self.accounts.get(id)

    async def account_for_sender(self, email: str) -> Account | None:
        self._fail()
        found = [account for account in self.accounts.values() if account.email and account.email == email.lower()]
        return found[0] if len(found) == 1 else None

    async def token(self, plaintext: str) -> Token | None:
        self._fail()
        return self.tokens.get(plaintext)

    async def suppressed(self, account: str, recipient: str) -> Refused | None:
        return self.suppressions.get((account, recipient))

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class Acceptor:
    """Keeps what is submitted. `error` is raised instead; `gate`, while it is there, must be set before it answers."""

    taken: list[Submission] = field(default_factory=list)
    error: Exception | None = None
    gate: asyncio.Event | None = None
    duplicate: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def accept(self, submission: Submission) -> Accepted:
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.taken.append(submission)
        return Accepted(f"{len(self.taken):032x}", "<m@x>", DUE, DUE, self.duplicate)


class Client:
    """Speaks SMTP a line at a time, and says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> str:
        """One reply, its lines joined by newlines; "" when the server has closed."""
        lines = []
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), PATIENCE)).decode()
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    async def ask(self, line: str | bytes) -> str:
        await self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return await self.reply()

    async def greet(self) -> str:
        await self.reply()
        return await self.ask("EHLO client.example")

    async def begin(self, *recipients: str, sender: str = "a@one.example") -> str:
        """MAIL, RCPT and DATA; returns the reply to DATA."""
        await self.ask(f"MAIL FROM:<{sender}>")
        for recipient in recipients or ("b@two.example",):
            await self.ask(f"RCPT TO:<{recipient}>")
        return await self.ask("DATA")

    async def submit(self, content: bytes = MESSAGE, sender: str = "a@one.example") -> str:
        """A whole transaction; returns the last reply. `content` ends with CRLF."""
        await self.begin(sender=sender)
        return await self.ask(content + b".")

    async def closed(self) -> bool:
        """Whether the server says nothing more and closes."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE) == b""

    async def start_tls(self) -> None:
        await self.writer.start_tls(trusting())

    def close(self) -> None:
        self.writer.close()


@dataclass
class House:
    """A door that is open, and its ports."""

    door: Door
    directory: Directory
    acceptor: Acceptor
    port: int
    tls_port: int
    clients: list[Client] = field(default_factory=list)

    async def client(self, *, first: bytes = b"") -> Client:
        """A new connection; `first` is sent at once."""
        return await self._connect(self.port, first)

    async def tls_client(self) -> Client:
        return await self._connect(self.tls_port, ssl=trusting())

    async def ready(self) -> Client:
        """One that has said EHLO."""
        client = await self.client()
        await client.greet()
        return client

    async def _connect(self, port: int, first: bytes = b"", **options: Any) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", port, **options))
        self.clients.append(client)
        if first:
            await client.send(first)
        return client


@asynccontextmanager
async def opened(settings: Settings | None = None, **given: Any) -> AsyncIterator[House]:
    """A house with account `a1` (a@one.example); `given` are settings by their field names."""
    settings = settings or settings_of(**given)
    directory = Directory({"a1": account("a1", email="a@one.example")})
    acceptor = Acceptor()
    door = Door(settings, directory, acceptor)
    plain, tls = bound(), bound()
    await door.open([plain], [tls] if door.tls else [])
    house = House(door, directory, acceptor, plain.getsockname()[1], tls.getsockname()[1])
    try:
        yield house
    finally:
        for client in house.clients:
            client.close()
        await door.close(0)
        tls.close()


def settings_of(**given: Any) -> Settings:
    """Settings that need neither a database nor Redis, with short delays."""
    environ = {
        "DATABASE_URL": "postgresql://nowhere/",
        "REDIS_URL": "redis://nowhere/",
        "POSTFERRY_SECRET_KEYS": "A" * 43 + "=",
        "POSTFERRY_HOSTNAME": "relay.test",
        "POSTFERRY_SMTP_TIMEOUT": "60",
        "POSTFERRY_SMTP_AUTH_DELAY": "0",
    }
    return read(environ | {f"POSTFERRY_{name.upper()}": str(value) for name, value in given.items()}, dotenv=None)


def bound() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening


def trusting() -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def certificate(folder: Path) -> dict[str, Path]:
    """A self-signed certificate and its key, as the settings that name them."""
    from datetime import timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    paths = {"tls_certificate": folder / "certificate.pem", "tls_key": folder / "key.pem"}
    paths["tls_certificate"].write_bytes(made.public_bytes(encoding))
    paths["tls_key"].write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    return paths
