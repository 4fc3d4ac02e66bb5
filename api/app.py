"""The whole API on one screen."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from aiohttp import HttpVersion11, web

from api import (
    accounts,
    besttime,
    deadletters,
    docs,
    health,
    messages,
    oauth2,
    openapi,
    opens,
    outbox,
    pixel,
    postlog,
    problems,
    providers,
    queue,
    recipients,
    reports,
    spelling,
    statistics,
    submit,
    suppressions,
    tokens,
    tracking,
    verification,
    webhooks,
)
from api.call import HOUSE, House
from api.operation import Operation

OPERATIONS = (
    Operation("POST", "/v1/account/{account}/submit", submit.submit, **submit.DOCUMENTED),
    Operation("GET", "/v1/account/{account}/message/{message}", messages.show, errors=messages.DOCUMENTED),
    Operation(
        "GET",
        "/v1/account/{account}/message/{message}/source",
        messages.source,
        errors=(*messages.DOCUMENTED, 413),
        media="message/rfc822",
    ),
    Operation(
        "GET",
        "/v1/account/{account}/attachment/{attachment}",
        messages.attachment,
        errors=(*messages.DOCUMENTED, 413),
        media="application/octet-stream",
    ),
    Operation("GET", "/v1/outbox", outbox.page, errors=(404,)),
    Operation("GET", "/v1/outbox/{queueId}", outbox.show),
    Operation("PATCH", "/v1/outbox/{queueId}", outbox.move),
    Operation("DELETE", "/v1/outbox/{queueId}", outbox.cancel),
    Operation("GET", "/v1/deadletters", deadletters.page, errors=(404,)),
    Operation("POST", "/v1/deadletters/replay", deadletters.replay, errors=(404,)),
    Operation("GET", "/v1/queue/status", queue.status),
    Operation("GET", "/v1/account/{account}/queue/status", queue.account_status),
    Operation("PUT", "/v1/account/{account}/queue", queue.pause),
    Operation("POST", "/v1/account", accounts.create),
    Operation("GET", "/v1/accounts", accounts.page),
    Operation("GET", "/v1/account/{account}", accounts.show),
    Operation("PUT", "/v1/account/{account}", accounts.change),
    Operation("DELETE", "/v1/account/{account}", accounts.delete),
    Operation("POST", "/v1/account/{account}/verify", verification.verify_stored),
    Operation("POST", "/v1/verifyAccount", verification.verify_account),
    Operation("POST", "/v1/account/{account}/oauth2/authorize", oauth2.authorize, errors=(422,)),
    Operation("GET", "/v1/oauth2/start/{token}", oauth2.start, scope=None, errors=(302, 410, 422), media="text/html"),
    Operation(
        "GET", "/v1/oauth2/callback", oauth2.callback, scope=None, errors=(404, 409, 410, 422), media="text/html"
    ),
    Operation("GET", "/v1/tokens", tokens.page, errors=(404,)),
    Operation("POST", "/v1/tokens", tokens.create, errors=(404,)),
    Operation("DELETE", "/v1/tokens/{token}", tokens.revoke),
    Operation("GET", "/v1/webhooks", webhooks.page, errors=(404,)),
    Operation("POST", "/v1/webhooks", webhooks.create, errors=(404, 409)),
    Operation("GET", "/v1/webhooks/{endpoint}", webhooks.show),
    Operation("PUT", "/v1/webhooks/{endpoint}", webhooks.change, errors=(409,)),
    Operation("DELETE", "/v1/webhooks/{endpoint}", webhooks.delete, errors=(409,)),
    Operation("POST", "/v1/webhooks/{endpoint}/secret", webhooks.rotate),
    Operation("GET", "/v1/webhooks/{endpoint}/log", postlog.page),
    Operation("GET", "/v1/webhooks/{endpoint}/log/{posting}", postlog.show),
    Operation("POST", "/v1/webhooks/{endpoint}/replay", postlog.replay, errors=(409,)),
    Operation("POST", "/v1/webhooks/{endpoint}/test", postlog.test, errors=(409,)),
    Operation("GET", "/v1/suppressions", suppressions.page, errors=(404,)),
    Operation("POST", "/v1/suppressions", suppressions.add, errors=(404,), table=suppressions.load),
    Operation("DELETE", "/v1/suppressions/{account}/{address}", suppressions.lift),
    Operation("GET", "/v1/account/{account}/reports", reports.page),
    Operation("GET", "/v1/account/{account}/tracking", tracking.page),
    Operation("GET", "/v1/account/{account}/tracking/stats", statistics.of_account),
    Operation("GET", "/v1/account/{account}/tracking/best-time", besttime.show),
    Operation("GET", "/v1/account/{account}/tracking/{tracking_id}", tracking.show),
    Operation("PATCH", "/v1/account/{account}/tracking/{tracking_id}", tracking.note),
    Operation("PUT", "/v1/account/{account}/tracking/{tracking_id}", tracking.note_again),
    Operation("GET", "/v1/opens/recent", opens.recent, errors=(404,)),
    Operation("GET", "/v1/stats", statistics.of_all, errors=(404,)),
    Operation("GET", "/v1/recipients", recipients.page, errors=(404,)),
    Operation("GET", "/v1/account/{account}/recipients/{address}", recipients.show),
    Operation("POST", "/v1/providers/mailgun/{account}", providers.mailgun, scope=None, errors=(401, 406, 429)),
    Operation("GET", "/health", health.health, scope=None, answers=(503,)),
    Operation("GET", "/metrics", health.expose, scope="metrics", media="text/plain"),
    Operation("GET", "/t/{token}.gif", pixel.gif, scope=None, media="image/gif"),
    Operation("GET", "/openapi.json", docs.openapi, scope=None),
)
PART = re.compile(r"\{(\w+)\}")
SERVED: dict[str, Any] = {
    "access_log": None,
    "auto_decompress": False,
    "max_field_size": 128 << 10,
    "max_line_size": 256 << 10,
    "max_headers": 64,
}
"""How a runner is to serve it. Bodies come as they were sent; reading.py unpacks those of whoever may send any. A mail
program that names itself at great length is answered its pixel, so one field may be long; not many of them. An address
may be whatever the document allows: 8192 characters here and there, each up to twelve bytes as a URL spells it.
"""

PAGES = (
    Operation("GET", "/docs", docs.page, scope=None, media="text/html"),
    Operation("GET", "/docs.css", docs.style, scope=None, media="text/css"),
    Operation("GET", "/docs.js", docs.script, scope=None, media="text/javascript"),
)


def build(house: House) -> web.Application:
    """The application of one process. Whoever built the house closes it."""
    app = web.Application(middlewares=[problems.answer, spelling.plain], client_max_size=0)
    app[HOUSE] = house
    app[docs.DOCUMENT] = _document()
    resources: dict[str, web.Resource] = {}
    for operation in OPERATIONS + PAGES:
        path = PART.sub(r"{\1:[^/]+}", operation.path)  # else a brace, which an address may have, is in no part
        if path not in resources:
            resources[path] = app.router.add_resource(path)
        for method in (operation.method, "HEAD") if operation.method == "GET" else (operation.method,):
            resources[path].add_route(method, operation.__call__, expect_handler=_expected)
    for resource in resources.values():  # else the methods of addresses that look alike are told as well
        others = _refusing(sorted(route.method for route in resource))
        resource.add_route("*", others, expect_handler=_expected)
    app.router.add_resource("/{rest:.*}").add_route("*", _nothing, expect_handler=_expected)
    return app


@cache
def _document() -> bytes:
    return docs.encoded(openapi.document(OPERATIONS))


async def _expected(request: web.Request) -> None:
    """Whoever waits for a word before the body goes on. Nothing else to expect is known (RFC 9110, 10.1.1)."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer itself nothing was said yet


async def _nothing(request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


def _refusing(methods: list[str]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Answers all other methods."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed(request.method, methods)

    return refuse
