"""A token opens what its scopes say and nothing else, whichever call is asked."""

from __future__ import annotations

import pytest

from api.app import OPERATIONS
from api.operation import Operation
from relay.store.tokens import SCOPES
from tests.api.client import Client, Login

GUARDED = [operation for operation in OPERATIONS if operation.scope]
OPEN = {"oauth2.start", "oauth2.callback", "providers.mailgun", "health.health", "pixel.gif", "docs.openapi"}


def address(operation: Operation) -> str:
    path = operation.path
    for part in operation.parts:
        path = path.replace(f"{{{operation.outside(part)}}}", "1")
    return path


def test_what_is_open_to_everyone_is_known() -> None:
    assert {operation.name for operation in OPERATIONS if not operation.scope} == OPEN


@pytest.mark.parametrize("account", [None, "shop"])
@pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != "*"])
async def test_another_scope_opens_no_call(login: Login, shop: str, scope: str, account: str | None) -> None:
    client = await login(scope, account=account)
    let_in = []
    for operation in GUARDED:
        if operation.scope != scope:
            status, answer = await client.ask(operation.method, address(operation))
            if (status, answer.get("code")) != (403, "MissingScope"):
                let_in.append((operation.name, status))
    assert let_in == []


@pytest.mark.parametrize("token", [None, "", "pf_", f"pf_{'A' * 43}", "Basic YTpi", "*"])
async def test_without_a_token_no_call_is_open(nobody: Client, shop: str, token: str | None) -> None:
    """Nor does it tell what is there: a call that is refused looks at nothing."""
    nobody.token = token
    answers = {(await nobody.ask(one.method, address(one)))[0] for one in GUARDED}
    assert answers <= {401, 429}  # guessing is slowed
