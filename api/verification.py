"""Verification over HTTP: an account's servers tried, before it is stored or after. No mail is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Literal

from pydantic import Field

from api.call import Call, unknown
from api.problems import Problem
from api.quota import SOON, refusal
from api.shapes import AccountId, Answer
from api.tenant import New
from api.verified import Mailbox, Server, mailbox_shown, server_shown
from relay import enrol, reverify, trial, verify
from relay.core import account as settings_of
from relay.core.folders import Folder, special
from relay.core.tenant import AccountState
from relay.store import db, verifications

ANYWHERE = tuple(map(ip_network, ("0.0.0.0/0", "::/0")))
SPECIAL_USES = {"sent": "\\Sent", "trash": "\\Trash", "drafts": "\\Drafts", "junk": "\\Junk", "all": "\\All"}


class Listed(Answer):
    """A folder of the mailbox."""

    path: str
    name: str = Field(description="The last part of the path.")
    parent_path: str
    delimiter: str = Field(description="What parts paths; empty where there is no tree.")
    special_use: str | None = Field(None, description="e.g. `\\Sent`.")
    special_use_source: Literal["extension", "name"] | None = Field(
        None, description="Whether the server says so (RFC 6154), or the folder's name does."
    )


class Verified(Answer):
    """Of a server that there is none of in the settings, null."""

    smtp: Server | None = Field(description="Where its mail goes: the SMTP server, or Mailgun (`provider` says so).")
    imap: Mailbox | None
    mailboxes: list[Listed] | None = Field(None, description="All folders, where they were asked for.")


class Tried(New):
    """Settings as `POST /v1/account` takes them. Those of other things than the servers change nothing."""

    mailboxes: bool | None = Field(None, description="True: list the mailbox's folders. Default false.")

    def given(self) -> dict[str, Any]:
        return {key: value for key, value in super().given().items() if key != "mailboxes"}


async def verify_account(call: Call, body: Tried) -> Verified:
    """Try settings that are not stored: judge them, then connect, up to login and folders. Nothing is kept.

    200 says how each server fared; `success` tells whether it works.
    """
    if body.account is not None:
        call.check_account(body.account)
    settings = call.house.settings
    # Which hosts may be dialled is a step of the verification, and no fault of the form.
    rules = replace(enrol.rules(settings), allowed=ANYWHERE)
    fields = settings_of.change({}, body.given(), rules)
    account = settings_of.build("", AccountState.ACTIVE, "", fields)
    if account.upstream is None and account.imap is None:
        words = "There is no server to try: give smtp or imap with a host, or mailgun with a domain"
        raise Problem(400, words, code="InvalidFields")
    with call.house.quota.admitted(call.token):
        report = await trial.try_account(account, call.house.tokens, settings)
    folders = report.imap.folders if report.imap and body.mailboxes else None
    return Verified(
        smtp=server_shown(report.smtp),
        imap=mailbox_shown(report.imap),
        mailboxes=None if folders is None else _listed(folders),
    )


async def verify_stored(call: Call, account: AccountId) -> Verified:
    """Try an account's servers as it is stored. What was found is shown with the account from then on.

    200 says how each server fared; `success` tells whether it works. 429 while it is tried already.
    """
    house = call.house
    with house.quota.admitted(call.token):
        async with db.connection(house.pool) as conn:
            due = await verifications.claim_one(conn, account, reverify.CLAIM)
        if due is None:
            house.directory.forget(account)
            await call.account(account)
            raise refusal(f"The servers of {account} are being tried just now", 1, SOON)
        found = await reverify.opened(house.pool, house.vault, account)
        if found is None:
            raise unknown(account)
        if not isinstance(found, verify.Report):
            found = await trial.try_account(found, house.tokens, house.settings)
        await reverify.settle(house.pool, house.settings, due, found, whole=True)
    return Verified(smtp=server_shown(found.smtp), imap=mailbox_shown(found.imap), mailboxes=None)


def _listed(folders: Sequence[Folder]) -> list[Listed]:
    uses = {found.folder.path: (SPECIAL_USES[use], found.flagged) for use, found in special(folders).items()}
    return [_folder(folder, *uses.get(folder.path, (None, False))) for folder in folders]


def _folder(folder: Folder, use: str | None, flagged: bool) -> Listed:
    source: Literal["extension", "name"] | None = None if use is None else "extension" if flagged else "name"
    return Listed(
        path=folder.path,
        name=folder.name,
        parent_path=folder.parent,
        delimiter=folder.delimiter,
        special_use=use,
        special_use_source=source,
    )
