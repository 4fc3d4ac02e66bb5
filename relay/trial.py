"""Verify an account whole: with a live access token, where it logs in with OAuth2; one that is refused is replaced."""

from __future__ import annotations

from relay.core import bearer
from relay.core.tenant import Account
from relay.core.verification import Result
from relay.settings import Settings
from relay.tokens import TokenError, Tokens
from relay.verify import Report, untokened, verify

LOGINS = ("auth", "login")  # the steps that a token is said in


async def try_account(
    account: Account, tokens: Tokens, settings: Settings, *, upstream: bool = True, mailbox: bool = True
) -> Report:
    """Verifies the servers that are asked for, as verify.verify does. Raises StoreAway."""
    if not bearer.wanted(account):
        return await _verify(account, settings, upstream, mailbox)
    try:
        armed = await tokens.armed(account)
    except TokenError as error:
        lacking = _lacking(account, error)
        found = await _verify(account, settings, upstream and not lacking.smtp, mailbox and not lacking.imap)
        return Report(
            found.smtp or (lacking.smtp if upstream else None), found.imap or (lacking.imap if mailbox else None)
        )
    found = await _verify(armed, settings, upstream, mailbox)
    smtp = account.mailgun is None and bearer.bare(account.smtp) and _refused(found.smtp)
    imap = bearer.bare(account.imap) and _refused(found.imap)
    again = await _again(account, armed, tokens) if smtp or imap else None
    if again is None:
        return found
    second = await _verify(again, settings, smtp, imap)
    return Report(second.smtp or found.smtp, second.imap or found.imap)


async def _verify(account: Account, settings: Settings, upstream: bool, mailbox: bool) -> Report:
    return await verify(account.upstream if upstream else None, account.imap if mailbox else None, settings)


async def _again(account: Account, armed: Account, tokens: Tokens) -> Account | None:
    """With another token; None where there is none to be had."""
    server = armed.smtp if bearer.bare(account.smtp) else armed.imap
    assert server is not None
    try:
        return await tokens.again(account, server.access_token)
    except TokenError:
        return None


def _refused(result: Result | None) -> bool:
    """The server itself refused the login."""
    return result is not None and result.failed is not None and result.failed.name in LOGINS and bool(result.said)


def _lacking(account: Account, error: TokenError) -> Report:
    if error.kind == "away":
        return untokened(account, "ECONNECTION", str(error), "It is asked again by itself.")
    return untokened(account, "EAUTH", str(error), f"Connect it here: {error.link}" if error.link else "")
