"""AUTH: the best that upstream offers of PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195), and for access tokens of
XOAUTH2 (Google, Microsoft) and OAUTHBEARER (RFC 7628).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from relay.core import bearer
from relay.core.reply import Reply
from relay.core.tenant import Smtp

Say = Callable[[bytes], Awaitable[Reply]]  # one line to upstream, its reply

# In the clear a challenge is better than a password; under TLS it buys nothing and fails where passwords are hashed.
UNDER_TLS = ("plain", "login", "cram-md5")
IN_THE_CLEAR = ("cram-md5", "plain", "login")
BEARER = tuple(name.lower() for name in bearer.MECHANISMS)
UNSUPPORTED = frozenset({500, 501, 502, 503, 504})  # about the mechanism, not about the password


async def login(say: Say, smtp: Smtp, offered: Sequence[str], *, encrypted: bool) -> Reply:
    """The reply that ends the login: 235, or a refusal. `offered`: upstream's mechanisms in lower case."""
    methods = _methods(smtp, offered, encrypted=encrypted)
    if not (smtp.password or smtp.access_token):
        return Reply(535, "5.7.8", "the account has a user, but neither password nor access token")
    names = ", ".join(offered).upper() or "none"
    reply = Reply(504, "5.7.4", f"no login method in common (upstream offers: {names})")
    for method in methods:
        reply = await METHODS[method](say, smtp)
        if reply.code not in UNSUPPORTED:
            break
    return reply


def _methods(smtp: Smtp, offered: Sequence[str], *, encrypted: bool) -> Sequence[str]:
    """Those to try, best first. A forced method is tried even when it is not offered: some servers hide theirs."""
    if smtp.auth_method:
        return [smtp.auth_method] if smtp.auth_method in METHODS else []
    usual = (UNDER_TLS if encrypted else IN_THE_CLEAR) if smtp.password else ()
    best = (*BEARER, *usual) if smtp.access_token else usual
    return [method for method in best if method in offered]


async def _plain(say: Say, smtp: Smtp) -> Reply:
    return await say(b"AUTH PLAIN " + _encoded(f"\0{smtp.user}\0{smtp.password}"))


async def _login(say: Say, smtp: Smtp) -> Reply:
    reply = await say(b"AUTH LOGIN")
    for answer in (smtp.user, smtp.password):
        if reply.code == 334:
            reply = await say(_encoded(answer))
    return reply


async def _cram_md5(say: Say, smtp: Smtp) -> Reply:
    reply = await say(b"AUTH CRAM-MD5")
    if reply.code != 334:
        return reply
    try:
        challenge = base64.b64decode(reply.text, validate=True)
    except (binascii.Error, ValueError):
        await say(b"*")
        return Reply(504, "5.7.4", "upstream's CRAM-MD5 challenge is not base64")
    digest = hmac.new(smtp.password.encode(), challenge, "md5").hexdigest()
    return await say(_encoded(f"{smtp.user} {digest}"))


async def _bearer(name: str, say: Say, smtp: Smtp) -> Reply:
    """A refusal comes as a 334 with JSON inside, which wants an answer of nothing before the reply that counts."""
    answer = bearer.response(name, smtp.user, smtp.access_token, smtp.host, smtp.port)
    reply = await say(f"AUTH {name} ".encode() + base64.b64encode(answer))
    if reply.code != 334:
        return reply
    reason = bearer.reason(reply.text)
    reply = await say(base64.b64encode(bearer.MECHANISMS[name]))
    return reply if reply.code < 400 else replace(reply, text=f"{name} refused: {reason} {reply.text}".strip())


METHODS: Mapping[str, Callable[[Say, Smtp], Awaitable[Reply]]] = {
    "plain": _plain,
    "login": _login,
    "cram-md5": _cram_md5,
    **{name: partial(_bearer, name.upper()) for name in BEARER},
}


def _encoded(text: str) -> bytes:
    return base64.b64encode(text.encode())
