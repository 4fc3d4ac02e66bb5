"""One call: what the process offers to all of them, and who is asking."""

from __future__ import annotations

import asyncio
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from aiohttp import web

from api.figures import Figures
from api.problems import REQUEST_ID, Problem
from api.quota import Quota
from api.throttle import Throttle
from api.turns import Turns
from api.visits import Visits
from relay import metrics
from relay.accept import Acceptor
from relay.arrivals import Arrivals
from relay.connecting import Connecting
from relay.core import networks
from relay.core.tenant import Account
from relay.core.vault import Vault
from relay.directory import Directory
from relay.opens import Opens
from relay.providers import Providers
from relay.settings import Settings
from relay.store import db
from relay.store.tokens import Token
from relay.tokens import Tokens
from relay.wake import Waker


@dataclass(frozen=True, slots=True)
class House:
    """What every call of this process shares."""

    settings: Settings
    pool: db.Pool
    turns: Turns
    vault: Vault
    directory: Directory
    acceptor: Acceptor
    opens: Opens
    waker: Waker
    figures: Figures
    providers: Providers
    tokens: Tokens
    visits: Visits
    connecting: Connecting
    arrivals: Arrivals
    throttle: Throttle = field(default_factory=lambda: Throttle(asyncio.get_running_loop().time))
    quota: Quota = field(default_factory=lambda: Quota(asyncio.get_running_loop().time))


HOUSE = web.AppKey("house", House)
MOST_HOPS = 32  # of X-Forwarded-For, from our own end: who asks may write thousands of them
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]+|\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?")
NOBODY = Token(id=0, scopes=(), account=None)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may be answered: its token has the scope that its operation asks for."""

    request: web.Request
    house: House
    token: Token

    @property
    def id(self) -> str:
        return self.request[REQUEST_ID]

    def turn(self) -> AbstractAsyncContextManager[db.Connection]:
        """A connection for what may take long: when it is the tenant's turn."""
        return self.house.turns.of(self.token.account or self.token.id)

    async def narrowed(self, account: str | None = None) -> str | None:
        """The one account a list is about: the one asked for, or the token's own; None is all.

        403 for another's, 404 for one that is not there: a slip of the pen would look like a list without entries.
        """
        if account is not None:
            self.check_account(account)
            await self.account(account)
        return account or self.token.account

    def check_account(self, account: str) -> None:
        """403 for an account that is not the token's, whether or not there is one of that name."""
        if self.token.account is not None and account != self.token.account:
            raise Problem(403, "This token is for another account", code="OtherAccount")

    def check_unbound(self) -> None:
        """403 for a token that is bound to an account: what concerns the installation is not for tenants."""
        if self.token.account is not None:
            raise Problem(403, "This token is for one account; this call needs one for all", code="BoundToken")

    async def account(self, id: str) -> Account:
        """The account. 404 when there is none."""
        account = await self.house.directory.account(id)
        if account is None:
            raise unknown(id)
        return account


def unknown(account: str) -> Problem:
    return Problem(404, f"There is no account {account}", code="AccountNotFound")


async def authorise(request: web.Request, house: House, scope: str) -> Token:
    """Whose request it is. 401 without a token that we know, 403 without the scope, 429 after too many guesses."""
    kind, _, plaintext = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not plaintext:
        raise _unauthorised("Send a token: Authorization: Bearer <token>")
    plaintext, address = plaintext.strip(), client(request, house.settings)
    if not house.directory.knows(plaintext):
        house.throttle.check(address)
    token = await house.directory.token(plaintext)
    if token is None:
        house.throttle.count(address)
        metrics.AUTH_FAILURES.labels("api").inc()
        raise _unauthorised("This token is not known here, or was revoked", ' error="invalid_token"')
    if not token.allows(scope):
        raise Problem(403, f"This token lacks the scope {scope}", code="MissingScope")
    return token


def _unauthorised(message: str, detail: str = "") -> Problem:
    headers = {"WWW-Authenticate": f'Bearer realm="postferry"{detail and "," + detail}'}
    return Problem(401, message, code="Unauthorised", headers=headers)


def client(request: web.Request, settings: Settings) -> str:
    """The address that asks; behind a load balancer of `proxy_networks`, the one that it passes on."""
    peer = request.remote or ""
    told = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")[-MOST_HOPS:]
    hops = [hop.strip() for hop in told if hop.strip()]
    while hops and networks.within(networks.read(peer), settings.proxy_networks):
        peer = _bare(hops.pop())
    return peer


def _bare(hop: str) -> str:
    """Without the port that some load balancers write behind it: 192.0.2.1:443, [2001:db8::1]:443."""
    found = _WITH_PORT.fullmatch(hop)
    return found[1] or found[2] if found else hop
