"""The document and its page: whole, valid, true, and from no other host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from api.app import OPERATIONS, SERVED
from api.codes import CODES
from tests.api.client import Client

PAGE = Path(__file__).parent.parent.parent / "api" / "page" / "docs.js"
PAGES = {"LinkEnded", "NoCode", "NoRefreshToken", "OtherUser", "SettingsChanged", "StateUnknown"}
WIRE = {
    ("post", "/v1/account"),
    ("get", "/v1/account/{account}"),
    ("put", "/v1/account/{account}"),
    ("delete", "/v1/account/{account}"),
    ("get", "/v1/accounts"),
    ("post", "/v1/account/{account}/verify"),
    ("post", "/v1/verifyAccount"),
    ("post", "/v1/account/{account}/submit"),
    ("get", "/v1/account/{account}/message/{message}"),
    ("get", "/v1/account/{account}/message/{message}/source"),
    ("get", "/v1/account/{account}/attachment/{attachment}"),
    ("get", "/v1/outbox"),
    ("get", "/v1/outbox/{queueId}"),
    ("delete", "/v1/outbox/{queueId}"),
    ("patch", "/v1/outbox/{queueId}"),
    ("get", "/v1/deadletters"),
    ("post", "/v1/deadletters/replay"),
    ("get", "/v1/queue/status"),
    ("get", "/v1/account/{account}/queue/status"),
    ("put", "/v1/account/{account}/queue"),
    ("get", "/v1/tokens"),
    ("post", "/v1/tokens"),
    ("delete", "/v1/tokens/{token}"),
    ("get", "/v1/webhooks"),
    ("post", "/v1/webhooks"),
    ("get", "/v1/webhooks/{endpoint}"),
    ("put", "/v1/webhooks/{endpoint}"),
    ("delete", "/v1/webhooks/{endpoint}"),
    ("post", "/v1/webhooks/{endpoint}/secret"),
    ("get", "/v1/webhooks/{endpoint}/log"),
    ("get", "/v1/webhooks/{endpoint}/log/{posting}"),
    ("post", "/v1/webhooks/{endpoint}/replay"),
    ("post", "/v1/webhooks/{endpoint}/test"),
    ("get", "/v1/account/{account}/reports"),
    ("get", "/v1/suppressions"),
    ("post", "/v1/suppressions"),
    ("delete", "/v1/suppressions/{account}/{address}"),
    ("get", "/v1/account/{account}/tracking"),
    ("get", "/v1/account/{account}/tracking/{tracking_id}"),
    ("patch", "/v1/account/{account}/tracking/{tracking_id}"),
    ("put", "/v1/account/{account}/tracking/{tracking_id}"),
    ("get", "/v1/opens/recent"),
    ("get", "/v1/account/{account}/tracking/stats"),
    ("get", "/v1/account/{account}/tracking/best-time"),
    ("get", "/v1/stats"),
    ("get", "/v1/recipients"),
    ("get", "/v1/account/{account}/recipients/{address}"),
    ("post", "/v1/account/{account}/oauth2/authorize"),
    ("get", "/v1/oauth2/start/{token}"),
    ("get", "/v1/oauth2/callback"),
    ("post", "/v1/providers/mailgun/{account}"),
    ("get", "/health"),
    ("get", "/metrics"),
    ("get", "/t/{token}.gif"),
    ("get", "/openapi.json"),
}


@pytest.fixture
async def document(nobody: Client) -> Any:
    return await nobody.ok("GET", "/openapi.json")


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        found = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return found + [one for value in node.values() for one in references(value)]
    return [one for value in node for one in references(value)] if isinstance(node, list) else []


async def test_every_call_of_the_wire_is_there(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == WIRE


async def test_every_reference_leads_somewhere(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert {one.removeprefix("#/components/schemas/") for one in references(document)} <= set(schemas)


async def test_every_part_of_a_path_is_described(document: Any) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            assert operation["summary"]
            assert "200" in operation["responses"]


async def test_a_list_of_an_account_that_is_not_there_is_no_empty_list(document: Any, admin: Client) -> None:
    for path, methods in document["paths"].items():
        asked = [(one["in"], one["name"]) for one in methods.get("get", {"parameters": ()})["parameters"]]
        if ("query", "account") in asked:
            status, error = await admin.ask("GET", f"{path}?account=nobody")
            assert (status, error["code"]) == (404, "AccountNotFound"), path
            assert "404" in methods["get"]["responses"], path


async def test_what_the_body_takes_is_what_the_document_says(document: Any) -> None:
    message = document["components"]["schemas"]["Message"]
    assert {"from", "replyTo", "sendAt", "trackOpens", "dryRun", "copy"} <= set(message["properties"])
    assert "template" not in message["properties"]
    assert message["additionalProperties"] is False


async def test_every_address_tells_the_methods_that_it_has_and_no_others(document: Any, admin: Client) -> None:
    """Of two addresses that look alike, such as …/tracking/stats and …/tracking/{tracking_id}, each its own."""
    for path, methods in document["paths"].items():
        response = await admin.open("OPTIONS", re.sub(r"{\w+}", "1", path))
        mine = {method.upper() for method in methods} | ({"HEAD"} if "get" in methods else set())
        assert response.status == 405
        assert set(response.headers["Allow"].split(", ")) == mine, path


async def test_a_method_of_an_address_that_looks_alike_is_refused(admin: Client, shop: str) -> None:
    status, error = await admin.ask("PUT", f"/v1/account/{shop}/tracking/stats", {"pinned": True})
    assert (status, error["message"]) == (405, "PUT is not for this address: GET, HEAD")


@pytest.mark.parametrize(
    "path", ["/v1/account/shop/message/{}", "/v1/account/shop/attachment/{}", "/v1/oauth2/start/{}"]
)
async def test_what_is_too_long_is_said_in_the_shape_of_all_errors(admin: Client, path: str) -> None:
    for word in ("A" * 500, "A" * 8192, "A" * 200_000, "😀" * 8192):
        response = await admin.open("GET", path.format(word))
        assert response.status in (400, 404, 410)
        assert response.headers["X-Request-Id"]


async def test_no_address_that_the_document_allows_is_too_long_to_be_read(document: Any) -> None:
    """Beyond that, the HTTP library answers in plain text before anything of ours is asked."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            longest = sum(_longest(one) for one in operation["parameters"] if one["in"] != "header")
            assert longest < SERVED["max_line_size"] - 1000, path


def _longest(parameter: Any) -> int:
    """Bytes that it may take in an address: twelve for an emoji; numbers, words of a list and patterns are short."""
    kinds = parameter["schema"].get("anyOf", [parameter["schema"]])
    return len(parameter["name"]) + max(12 * kind.get("maxLength", 50) for kind in kinds)


async def test_pages_for_people_are_pages_when_something_is_wrong_too(document: Any, nobody: Client) -> None:
    for path in ("/v1/oauth2/start/x", "/v1/oauth2/callback?state=x"):
        response = await nobody.open("GET", path)
        told = document["paths"][path.partition("?")[0].replace("/x", "/{token}")]["get"]["responses"]
        assert response.content_type in told[str(response.status)]["content"]


async def test_the_document_tells_what_a_header_and_an_event_may_be(document: Any, admin: Client, shop: str) -> None:
    submit = document["paths"]["/v1/account/{account}/submit"]["post"]["parameters"]
    (key,) = [one["schema"] for one in submit if one["in"] == "header"]
    body = {"to": {"address": "a@b.example"}, "text": "x", "dryRun": True}
    for given in ("k", "two words", "k" * key["maxLength"], "k" * (key["maxLength"] + 1), "ü"):
        good = len(given) <= key["maxLength"] and re.fullmatch(key["pattern"].strip("^$"), given) is not None
        headers = {"Idempotency-Key": given}
        status, error = await admin.ask("POST", f"/v1/account/{shop}/submit", body, headers=headers)
        assert (status == 200) is good, error
    ref = document["paths"]["/v1/webhooks"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    wanted = document["components"]["schemas"][ref.rpartition("/")[2]]["properties"]
    events = wanted["events"]["anyOf"][0]["items"]["enum"]
    for number, event in enumerate(events):
        await admin.ok("POST", "/v1/webhooks", {"url": f"https://hooks.example.com/{number}", "events": [event]})


def test_every_code_is_listed_and_there_are_no_others() -> None:
    """Those of pages for people, which show none, are left out."""
    root = PAGE.parent.parent.parent
    files = [path for folder in ("api", "relay") for path in (root / folder).rglob("*.py")]
    named = re.compile(r'(?:\bcode(?:: str)?|^GONE) ?= ?"([A-Z][a-z]\w+)"', re.MULTILINE)
    found = {code for path in files for code in named.findall(path.read_text("utf-8"))}
    found |= {"IssuerRefused", "Refused"}  # given by choice
    assert found - PAGES == set(CODES)


def test_the_page_on_the_api_lists_every_code() -> None:
    text = (PAGE.parent.parent.parent / "docs/http-api.md").read_text("utf-8")
    listed = text.partition("<!-- codes -->")[2].partition("<!-- /codes -->")[0]
    rows = [f"| `{code}` | {words} |" for code, words in CODES.items()]
    assert listed.split("\n") == ["", "| code | meaning |", "|---|---|", *rows, ""]


async def test_an_error_tells_which_codes_there_are(document: Any) -> None:
    assert document["components"]["schemas"]["Error"]["properties"]["code"]["enum"] == list(CODES)


async def test_what_is_not_ready_is_told_as_the_document_says(document: Any) -> None:
    answers = document["paths"]["/health"]["get"]["responses"]
    assert answers["503"]["content"] == answers["200"]["content"]


async def test_operation_ids_are_unique(document: Any) -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)


async def test_the_page_has_a_place_and_a_heading_for_every_tag(document: Any) -> None:
    """A tag that it does not know would stand before all others, with its bare name."""
    titles = re.search(r"^const TITLES = \{$(.*?)^\};$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert titles is not None
    tags = {tag for calls in document["paths"].values() for call in calls.values() for tag in call["tags"]}
    assert set(re.findall(r'(\w+): "', titles[1])) == tags


@pytest.mark.parametrize("path", ["/docs", "/docs.css", "/docs.js"])
async def test_the_page_comes_from_here_alone(nobody: Client, path: str) -> None:
    response = await nobody.open("GET", path)
    text = await response.text()
    assert response.status == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", text))
    assert hosts <= {"www.w3.org", "crm.example.com"}  # the namespace of SVG, a sample's endpoint
