"""The mailbox of a point that is about it: a real Dovecot, with the provider's copies in Sent, or a bounce in INBOX."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from relay.core.tenant import Imap
from relay.net.imap import Mailbox
from relay.settings import Settings
from tests.dovecot import Dovecot
from tests.tenant import Tenant
from tests.watching import bounce, delivered, opened

USER, SENT = "ann", "Verschickt & raus"


@dataclass(frozen=True)
class Post:
    """A fresh mailbox of the tenant's."""

    imap: Imap
    settings: Settings

    @staticmethod
    async def of(tenant: Tenant, dovecot: Dovecot, **more: Any) -> Post:
        dovecot.empty(USER)
        imap = dovecot.imap(USER)
        auth = {"user": imap.user, "pass": imap.password}
        given = {"host": imap.host, "port": imap.port, "secure": False, "tls": {"mode": "none"}, "auth": auth}
        await tenant.change(imap=given, **more)
        allowed = (ip_network("127.0.0.0/8"),)
        return Post(imap, replace(tenant.settings, allow_networks=allowed))

    async def filed(self, tenant: Tenant) -> None:
        """The provider has filed what it was handed: a copy of each recipient's, pixel and all."""
        await delivered(self.imap, self.settings, *(mail.content for mail in tenant.upstream.taken), path=SENT)

    async def bounced(self, recipient: str, message_id: str) -> None:
        await delivered(self.imap, self.settings, bounce(recipient, message_id=message_id))

    async def copies(self) -> tuple[int, int]:
        """Those in the Sent folder, and how many of them have a pixel."""
        async with self._sent() as mailbox:
            uids = await mailbox.since(1, 100)
            contents = [await mailbox.content(uid, 1 << 20) for uid in uids]
        return len(uids), sum(b"/t/" in (content or b"") for content in contents)

    @asynccontextmanager
    async def _sent(self) -> AsyncIterator[Mailbox]:
        async with opened(self.imap, self.settings) as mailbox:
            await mailbox.select(SENT, readonly=True)
            yield mailbox
