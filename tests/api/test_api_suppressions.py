"""Suppressions over HTTP: listed, added, lifted, as JSON and as CSV; and what a submit makes of them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from api import suppressions as calls
from relay.core import roll
from relay.store import db, suppressions
from relay.store.suppressions import Suppression
from tests.api.client import SHOP, Client, Login

LIST = "/v1/suppressions"
SUBMIT = "/v1/account/shop/submit"
CSV = {"Content-Type": "text/csv"}
Rows = list[tuple[Any, ...]]


async def listed(client: Client, query: str = "") -> dict[str, str]:
    found = await client.ok("GET", f"{LIST}?{query}")
    return {one["address"]: one["reason"] for one in found["items"]}


async def suppress(pool: db.Pool, *items: Suppression, account: str = "shop") -> None:
    async with db.connection(pool) as conn:
        await suppressions.add(conn, account, items)


async def rows(pool: db.Pool, query: str) -> Rows:
    async with db.connection(pool) as conn:
        return await (await conn.execute(query.encode())).fetchall()


async def load(client: Client, text: str | bytes, query: str = "account=shop") -> tuple[int, Any]:
    return await client.ask("POST", f"{LIST}?{query}", data=text, headers=CSV)


# ---- the list


async def test_an_address_is_added_shown_and_lifted(admin: Client, shop: str) -> None:
    given = {"account": "shop", "address": "Ada@Example.com", "detail": "asked by telephone"}
    answer = await admin.ok("POST", LIST, given)
    assert answer == {"account": "shop", "added": 1, "known": 0, "ignoredColumns": []}
    (one,) = (await admin.ok("GET", LIST))["items"]
    assert {name: one[name] for name in ("account", "address", "reason", "detail")} == {
        **{"account": "shop", "address": "ada@example.com", "reason": "manual", "detail": "asked by telephone"},
    }
    assert one["since"].endswith("Z")
    lifted = await admin.ok("DELETE", f"{LIST}/shop/ADA@example.com")
    assert lifted == {"account": "shop", "address": "ada@example.com", "lifted": True}
    assert await listed(admin) == {}


async def test_what_is_not_suppressed_cannot_be_lifted(admin: Client, shop: str) -> None:
    status, answer = await admin.ask("DELETE", f"{LIST}/shop/ada@example.com")
    assert (status, answer["code"]) == (404, "SuppressionNotFound")


async def test_adding_again_changes_nothing(admin: Client, shop: str) -> None:
    given = {"account": "shop", "items": [{"address": f"{name}@example.com"} for name in "ab"]}
    assert (await admin.ok("POST", LIST, given))["added"] == 2
    before = await admin.ok("GET", LIST)
    again = await admin.ok("POST", LIST, given)
    assert (again["added"], again["known"]) == (0, 2)
    assert await admin.ok("GET", LIST) == before


async def test_all_are_added_or_none(admin: Client, shop: str) -> None:
    items = [{"address": "ada@example.com"}, {"address": "bob"}, {"address": "eve@example.com\r\nX: y"}]
    status, answer = await admin.ask("POST", LIST, {"account": "shop", "items": items})
    assert status == 400
    assert [fault["key"] for fault in answer["fields"]] == ["items[1].address", "items[2].address"]
    assert await listed(admin) == {}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"account": "shop"}, "address"),
        ({"account": "shop", "address": "a@example.com", "items": [{"address": "b@example.com"}]}, "address"),
        ({"address": "a@example.com"}, "account"),
        ({"account": "shop", "address": "a@example.com", "reason": "whim"}, "reason"),
        ({"account": "shop", "address": "a@example.com", "detail": "x" * 1001}, "detail"),
        ({"account": "shop", "items": []}, "items"),
    ],
)
async def test_what_cannot_be_taken_is_named(admin: Client, shop: str, given: Any, key: str) -> None:
    status, answer = await admin.ask("POST", LIST, given)
    assert (status, [fault["key"] for fault in answer["fields"]]) == (400, [key])


async def test_an_account_that_is_not_there(admin: Client) -> None:
    status, answer = await admin.ask("POST", LIST, {"account": "none", "address": "a@example.com"})
    assert (status, answer["code"]) == (404, "AccountNotFound")


async def test_the_list_is_narrowed_and_goes_on_by_cursor(admin: Client, shop: str, pool: db.Pool) -> None:
    await suppress(pool, *(Suppression(f"b{n}@example.com", "bounce") for n in range(3)))
    await suppress(pool, Suppression("ada@example.com", "complaint"))
    assert await listed(admin, "reason=complaint") == {"ada@example.com": "complaint"}
    assert list(await listed(admin, "search=B")) == [f"b{n}@example.com" for n in range(3)]
    first = await admin.ok("GET", f"{LIST}?pageSize=3")
    second = await admin.ok("GET", f"{LIST}?pageSize=3&cursor={first['cursor']}")
    assert [one["address"] for one in first["items"] + second["items"]] == [
        *("ada@example.com", "b0@example.com", "b1@example.com", "b2@example.com"),
    ]
    assert (second["total"], second["cursor"]) == (4, None)


async def test_a_token_of_an_account_needs_no_account_and_has_no_other(admin: Client, shop: str, login: Login) -> None:
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other", "email": ""})
    mine, theirs = await login("api", account="shop"), await login("api", account="other")
    await mine.ok("POST", LIST, {"address": "ada@example.com"})
    assert (await load(mine, "address\nbob@example.com\n", ""))[1]["account"] == "shop"
    assert list(await listed(mine)) == ["bob@example.com", "ada@example.com"]
    assert await listed(theirs) == {}
    for answer in (
        await theirs.ask("POST", LIST, {"account": "shop", "address": "eve@example.com"}),
        await load(theirs, "address\neve@example.com\n"),
        await theirs.ask("GET", f"{LIST}?account=shop"),
        await theirs.ask("DELETE", f"{LIST}/shop/ada@example.com"),
    ):
        assert answer[0] == 403
    assert len(await listed(mine)) == 2


# ---- CSV


async def test_the_whole_list_comes_as_csv_that_no_spreadsheet_runs(
    admin: Client, shop: str, pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.sheet.PAGE", 2)
    await suppress(pool, *(Suppression(f"a{n}@example.com", "bounce", f"said {n}") for n in range(4)))
    await suppress(pool, Suppression("+sum@example.com", "bounce", '=HYPERLINK("http://evil.example")\r\n<b>'))
    response = await admin.open("GET", LIST, headers={"Accept": "text/csv"})
    lines = (await response.text()).splitlines()
    assert 'filename="suppressions.csv"' in response.headers["Content-Disposition"]
    assert lines[0] == "account,address,reason,detail,since"
    assert len(lines) == 6
    assert lines[1].startswith("""shop,'+sum@example.com,bounce,"'=HYPERLINK(""http://evil.example"") <b>",""")


async def test_what_is_exported_can_be_imported(admin: Client, shop: str, pool: db.Pool) -> None:
    await suppress(
        pool, Suppression("+ada@example.com", "complaint", "=spam, he said"), Suppression("b@e.example", "bounce")
    )
    exported = await (await admin.open("GET", LIST, headers={"Accept": "text/csv"})).read()
    before = await rows(pool, "select address, reason, detail from suppressions order by 1")
    await rows(pool, "with gone as (delete from suppressions) select 1")
    status, answer = await load(admin, exported)
    assert (status, answer["added"], answer["ignoredColumns"]) == (200, 2, ["account", "since"])
    assert await rows(pool, "select address, reason, detail from suppressions order by 1") == before


@pytest.mark.parametrize(
    "text",
    [
        "address,reason,detail\r\nAda@example.com,bounce,550 no\r\nbob@example.com,,\r\n",
        '\ufeffEmail;Detail;Reason\n"Ada@example.com";"550 no";BOUNCE\n\n ;;\nbob@example.com\n',
        "reason\taddress\tdetail\rbounce\tada@example.com\t550 no\r\tbob@example.com\t",
    ],
    ids=["ours", "semicolons", "tabs"],
)
async def test_csv_of_several_kinds(admin: Client, shop: str, pool: db.Pool, text: str) -> None:
    status, answer = await load(admin, text)
    assert (status, answer["added"]) == (200, 2), answer
    assert await rows(pool, "select address, reason, detail from suppressions order by 1") == [
        ("ada@example.com", "bounce", "550 no"),
        ("bob@example.com", "manual", ""),
    ]


async def test_every_bad_line_is_told_and_nothing_is_imported(admin: Client, shop: str) -> None:
    text = "address,reason\nada@example.com,bounce\nnobody,bounce\n\nbob@example.com,whim\n,bounce\na@b.example,x,y,z\n"
    status, answer = await load(admin, text)
    assert (status, answer["code"]) == (400, "InvalidFields")
    assert [fault["key"] for fault in answer["fields"]] == ["line 3", "line 5", "line 6", "line 7"]
    assert "name@domain" in answer["fields"][0]["message"]
    assert answer["message"].startswith("4 lines of 5 cannot be taken, so none was: line 3:")
    assert await listed(admin) == {}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "line 1"),
        ("ada@example.com\n", "line 1"),
        (b"address\nada@example.com\n\xff\xfe@example.com\n", "line 3"),
        ('address\nada@example.com\n"bob@example.com\n', "line 3"),
        ("address\na\x00b@example.com\n", "line 2"),
        ("address\n" + "x" * 200_000, "line 2"),
    ],
    ids=["empty", "no header", "not UTF-8", "open quote", "NUL", "endless"],
)
async def test_a_file_that_is_none(admin: Client, shop: str, text: str | bytes, key: str) -> None:
    status, answer = await load(admin, text)
    assert (status, [fault["key"] for fault in answer["fields"]]) == (400, [key])
    assert await listed(admin) == {}


async def test_a_file_has_an_end(admin: Client, shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll, "MOST_LINES", 2)
    assert (await load(admin, "address\na@e.example\nb@e.example\n"))[0] == 200
    status, answer = await load(admin, "address\na@e.example\nb@e.example\nc@e.example\nd@e.example\n")
    assert (status, answer["fields"][0]["key"]) == (400, "line 4")


async def test_a_large_file_is_stored_piece_by_piece_and_counted_once(
    admin: Client, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "AT_ONCE", 7)
    lines = [f"u{n % 50}@example.com,{'bounce' if n < 50 else 'complaint'}" for n in range(100)]
    status, answer = await load(admin, "\n".join(["address,reason", *lines]))
    assert (status, answer["added"], answer["known"]) == (200, 50, 0)
    assert set((await listed(admin, "pageSize=100")).values()) == {"complaint"}


# ---- what a submit makes of them


def message(*to: str, **more: Any) -> Any:
    return {"to": [{"address": address} for address in to], "subject": "Hello", "text": "Hello", **more}


async def test_a_message_to_suppressed_recipients_alone_is_refused(admin: Client, shop: str, pool: db.Pool) -> None:
    await suppress(pool, Suppression("ada@example.com", "bounce", "550 5.1.1 No such user"))
    await suppress(pool, Suppression("bob@example.com", "complaint"))
    status, answer = await admin.ask("POST", SUBMIT, message("Ada@example.com", "bob@example.com"))
    assert (status, answer["code"]) == (422, "RecipientsSuppressed")
    assert "DELETE /v1/suppressions/shop/Ada@example.com lifts it" in answer["message"]
    first, second = (fault["message"] for fault in answer["fields"])
    assert first.startswith("<Ada@example.com> is suppressed since 20")
    assert first.endswith("Z: mail to it bounced (550 5.1.1 No such user)")
    assert second.endswith("its owner complained of mail from here")
    assert await rows(pool, "select id from messages") == []


async def test_a_message_to_some_is_accepted_for_the_others(admin: Client, shop: str, pool: db.Pool) -> None:
    await suppress(pool, Suppression("ada@example.com", "bounce", "550 5.1.1 No such user"))
    answer = await admin.ok("POST", SUBMIT, message("Ada@example.com", "bob@example.com"))
    (told,) = answer["suppressed"]
    assert (told["recipient"], told["reason"]) == ("Ada@example.com", "bounce")
    assert await rows(
        pool,
        "select recipient, state::text, ready, attempts, category, enhanced, finished_at is not null"
        " from deliveries order by recipient",
    ) == [
        ("Ada@example.com", "failed", False, 0, "suppressed", "5.7.1", True),
        ("bob@example.com", "queued", True, 0, None, None, False),
    ]
    letter = (await admin.ok("GET", "/v1/deadletters?reason=suppressed"))["items"][0]
    assert letter["response"].endswith("mail to it bounced (550 5.1.1 No such user)")
    ((event,),) = await rows(pool, "select data from events where type = 'messageFailed'")
    assert (event["recipient"], event["errorCode"], event["queueId"]) == (
        *("Ada@example.com", "suppressed"),
        answer["queueId"],
    )
    assert event["error"] == f"The recipient is {letter['response']}"
    assert event["job"] == {"id": str(letter["id"]), "attemptsMade": 0, "attempts": 80, "nextAttempt": None}
    sums = "select sum(failed)::int, sum(sent)::int from tallies where account_id = 'shop'"
    assert await rows(pool, sums) == [(1, 0)]
    assert await rows(pool, "select address, failed from recipients") == [("ada@example.com", 1)]


@pytest.mark.parametrize("lift", [False, True])
async def test_an_idempotency_key_tells_the_same_again(admin: Client, shop: str, pool: db.Pool, lift: bool) -> None:
    await suppress(pool, Suppression("ada@example.com", "unsubscribe", "by link"))
    key = {"headers": {"Idempotency-Key": "k"}}
    first = await admin.ok("POST", SUBMIT, message("ada@example.com", "bob@example.com"), **key)
    if lift:
        await admin.ok("DELETE", f"{LIST}/shop/ada@example.com")
    else:
        await suppress(pool, Suppression("bob@example.com", "bounce"))
    second = await admin.ok("POST", SUBMIT, message("ada@example.com", "bob@example.com"), **key)
    assert second.pop("idempotency")["status"] == "HIT"
    first.pop("idempotency")
    assert first == second
    assert len(first["suppressed"]) == 1


async def test_a_refusal_takes_no_idempotency_key(admin: Client, shop: str, pool: db.Pool) -> None:
    await suppress(pool, Suppression("ada@example.com", "manual"))
    key = {"headers": {"Idempotency-Key": "k"}}
    assert (await admin.ask("POST", SUBMIT, message("ada@example.com"), **key))[0] == 422
    await admin.ok("DELETE", f"{LIST}/shop/ada@example.com")
    assert (await admin.ok("POST", SUBMIT, message("ada@example.com"), **key))["idempotency"]["status"] == "MISS"


async def test_a_dry_run_tells_too(admin: Client, shop: str, pool: db.Pool) -> None:
    await suppress(pool, Suppression("ada@example.com", "manual"))
    answer = await admin.ok("POST", SUBMIT, message("ada@example.com", "bob@example.com", dryRun=True))
    assert [one["recipient"] for one in answer["suppressed"]] == ["ada@example.com"]
    assert base64.b64decode(answer["preview"])
    status, answer = await admin.ask("POST", SUBMIT, message("ada@example.com", dryRun=True))
    assert (status, answer["code"]) == (422, "RecipientsSuppressed")


async def test_what_is_not_suppressed_says_nothing_of_it(admin: Client, shop: str, pool: db.Pool) -> None:
    await suppress(pool, Suppression("eve@example.com", "manual"))
    assert "suppressed" not in await admin.ok("POST", SUBMIT, message("ada@example.com"))


async def test_what_is_added_meanwhile_hides_nothing_of_the_list(admin: Client, shop: str) -> None:
    """Given the first page of a list, when others come between it and the end, then its end is reached all the same."""
    await admin.ok("POST", "/v1/suppressions", {"account": shop, "address": "last@example.com"})
    await admin.ok("POST", "/v1/account", {"account": "other"})
    await admin.ok("POST", "/v1/suppressions", {"account": "other", "address": "first@example.com"})
    page = await admin.ok("GET", "/v1/suppressions?pageSize=1")
    found = [one["address"] for one in page["items"]]
    await admin.ok("POST", "/v1/account", {"account": "rest"})
    await admin.ok("POST", "/v1/suppressions", {"account": "rest", "address": "between@example.com"})
    while page["cursor"]:
        page = await admin.ok("GET", f"/v1/suppressions?pageSize=1&cursor={page['cursor']}")
        found += [one["address"] for one in page["items"]]
    assert found == ["first@example.com", "between@example.com", "last@example.com"]
