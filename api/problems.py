"""Whatever goes wrong becomes one JSON shape with the right status; the cause goes to the log, never to the client."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.http import HttpProcessingError
from pydantic import BaseModel, Field, ValidationError

from api.codes import CODES
from api.shapes import PATTERNS, Answer
from relay import metrics
from relay.core.account import Faulty
from relay.core.errors import Conflict, Doubtful, MailboxAway, Refused, StoreAway
from relay.core.suppression import AllSuppressed
from relay.store import db

_log = logging.getLogger("postferry.api")
MOST_FAULTS = 1000  # that are told one by one
MAILBOX_RETRY = 60  # s; nobody knows when other people's servers are back
RETRY_AFTER = 5  # s; a store that restarts is back in about that
REQUEST_ID = web.RequestKey("id", str)
WORDS = {"missing": "is missing", "model_type": "must be an object", "dict_type": "must be an object"}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class FieldFault(Answer):
    message: str
    key: str = Field(description="Where, e.g. `to[1].address`.")


class Error(Answer):
    """The body of every answer from 400 on."""

    status_code: int
    error: str = Field(description="The status in words.")
    message: str = Field(description="What is wrong, and what to do.")
    code: str = Field(
        description="A word for programs: " + " ".join(f"`{code}`: {words}" for code, words in CODES.items()),
        json_schema_extra={"enum": list(CODES)},
    )
    request_id: str = Field(description="Also in `X-Request-Id`, and in the log.")
    fields: list[FieldFault] | None = Field(None, description="Each field that is wrong.")


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        fields: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.fields = status, message, code, fields
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> bytes:
        told: dict[str, Any] = {
            "statusCode": self.status,
            "error": HTTPStatus(self.status).phrase,
            "message": self.message,
            "requestId": request_id,
            "code": self.code,
        }
        if self.fields:
            told["fields"] = [{"message": message, "key": key} for key, message in self.fields]
        return json.dumps(told).encode()

    def response(self, request_id: str) -> web.Response:
        body = self.body(request_id)
        response = web.Response(status=self.status, body=body, content_type="application/json", headers=self.headers)
        return signed(response, request_id)


def too_many(message: str, *, code: str = "TooManyCalls", most: int, seconds: int = 1) -> Problem:
    """The 429: of `most` that there may be, none is left until so many seconds have passed."""
    headers = {
        "Retry-After": str(seconds),
        "RateLimit-Limit": str(most),
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": str(seconds),
    }
    return Problem(429, message, code=code, headers=headers)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Response = TypeVar("Response", bound=web.StreamResponse)


@web.middleware
async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer has its request's id; whatever is raised becomes a Problem's response."""
    given = request.headers.get("X-Request-Id", "")
    request_id = request[REQUEST_ID] = given if _ID.fullmatch(given) else new_id()
    try:
        response = await handler(request)
    except Exception as error:
        problem = translate(error)
        _tell(request, problem, error)
        response = problem.response(request_id)
        if request.body_exists and not request.content.at_eof():
            response.force_close()  # the rest of the body is not worth reading
    return signed(response, request_id)


def new_id() -> str:
    """The id of a request that brings none."""
    return secrets.token_hex(8)


def signed(response: Response, request_id: str) -> Response:
    """With what every answer has."""
    response.headers["X-Request-Id"] = request_id
    response.headers["X-Content-Type-Options"] = "nosniff"  # strangers' words are in it, and no browser's business
    response.headers["Server"] = "postferry"
    return response


def not_http(record: logging.LogRecord) -> bool:
    """Filters the server's own log: who speaks no HTTP gets a remark, without the bytes: a token may be in them."""
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.levelno, record.levelname, record.exc_info = logging.INFO, logging.getLevelName(logging.INFO), None
        record.msg = "refused, for it is no HTTP: from %s"
    return True


def translate(error: Exception) -> Problem:
    """The Problem that an exception means to the client."""
    match error:
        case Problem():
            return error
        case Faulty():
            text = f"{error.what} cannot be used: {_first(error.faults)}"
            return Problem(400, text, code="InvalidFields", fields=error.faults)
        case Conflict():
            after = {"Retry-After": str(error.retry_after)} if error.retry_after else None
            return Problem(409, error.message, code=error.code, headers=after)
        case AllSuppressed():
            return Problem(error.status, error.message, code=error.code, fields=error.fields)
        case Refused(status=400, code="") if error.key:
            return faulty([(error.key, error.message)])
        case Refused():
            fields = [(error.key, error.message)] if error.key else []
            return Problem(error.status, error.message, code=error.code or "Refused", fields=fields)
        case Doubtful():
            text = "The store went away while this was stored: it may have been. Ask again with an Idempotency-Key"
            return Problem(503, text, code="StoreAway", headers={"Retry-After": str(RETRY_AFTER)})
        case StoreAway():
            state = "locked by somebody" if isinstance(error, db.Locked) else "away"
            headers = {"Retry-After": str(RETRY_AFTER)}
            return Problem(503, f"The store is {state}; nothing was done, try again", code="StoreAway", headers=headers)
        case MailboxAway():
            status, headers = 502 if error.theirs else 503, {"Retry-After": str(MAILBOX_RETRY)}
            return Problem(status, error.message, code="MailboxAway", headers=headers)
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            words = f"{error.method} is not for this address: {allowed}"
            return Problem(405, words, code="MethodNotAllowed", headers={"Allow": allowed})
        case web.HTTPNotFound():
            return Problem(404, "There is nothing at this address; see /docs", code="NotFound")
        case web.HTTPException() if error.status < 500:
            return Problem(error.status, error.reason, code="Refused")
        case _:
            return internal()


def internal() -> Problem:
    """A fault of ours."""
    return Problem(500, "Something went wrong here; the log has it under this request id", code="InternalError")


def _tell(request: web.Request, problem: Problem, error: Exception) -> None:
    extra = {
        "requestId": request[REQUEST_ID],
        "method": request.method,
        "path": request.path,
        "status": problem.status,
        "client": request.remote,
    }
    if isinstance(error, StoreAway):
        metrics.STORE_ERRORS.inc()
        what = "locked" if isinstance(error, db.Locked) else "away"
        _log.warning("the store is %s: %s", what, error, extra=extra)
    elif isinstance(error, MailboxAway):
        _log.info("refused: %s", problem.message, extra=extra)
    elif problem.status >= 500:
        _log.error("failed: %s", error, exc_info=error, extra=extra)
    else:
        if request.path.endswith("/submit"):
            metrics.REFUSED.labels("api", problem.code or str(problem.status)).inc()
        _log.info("refused: %s", problem.message, extra=extra)


def faulty(faults: Sequence[tuple[str, str]]) -> Problem:
    """Fields that have the right shape and cannot be used: (key, message) of each."""
    (key, message), more = faults[0], len(faults) - 1
    text = message if message.startswith(f"{key} ") else f"{key}: {message}"
    return Problem(400, text + (f" (and {more} more)" if more else ""), code="InvalidFields", fields=faults)


def invalid(
    error: ValidationError, what: str, value: Any = None, model: type[BaseModel] | None = None, key: str = ""
) -> Problem:
    """A shape that `value`, the whole of it called `key`, does not fit, with each field that is wrong.

    Values are not told: they may be secrets.
    """
    if error.error_count() > MOST_FAULTS:
        return Problem(400, f"{what}: it has {error.error_count()} faults", code="InvalidFields")
    later: Mapping[str, str] = getattr(model, "later", {})
    found: dict[str, list[str]] = {}
    for fault in error.errors(include_url=False, include_input=False):
        found.setdefault(where(fault["loc"], value) or key, []).append(_words(fault, later))
    fields = [(key, " or ".join(dict.fromkeys(messages))) for key, messages in found.items()]
    return Problem(400, f"{what}: {_first(fields)}", code="InvalidFields", fields=fields)


def _first(fields: Sequence[tuple[str, str]]) -> str:
    """For those who look at the message alone."""
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return f"{fields[0][0]} {fields[0][1]}".strip() + more


def where(location: Sequence[int | str], value: Any) -> str:
    """`("to", 1, "address")` as `to[1].address`. Where `value` has no such depth, the rest names a choice of types."""
    text = ""
    for part in location:
        if not isinstance(value, (dict, list)):
            break
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
        if part == 0 and isinstance(value, dict):  # one that was taken for a list of one
            continue
        try:
            value = value[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            value = None
    return text.removeprefix(".")


def _words(fault: Any, later: Mapping[str, str]) -> str:
    """Pydantic's fault in the words of our errors: they follow the field's name."""
    if fault["type"] == "extra_forbidden":
        return later.get(str(fault["loc"][0]), "is not a known field")
    if fault["type"] == "model_type" and fault["ctx"]["class_name"] == "Address":
        return 'must be an object such as {"address": "ada@example.com"}'
    if fault["type"] in WORDS:
        return WORDS[fault["type"]]
    if fault["type"] == "string_pattern_mismatch":
        return PATTERNS[fault["ctx"]["pattern"]]
    message: str = fault["msg"].removeprefix("Value error, ")
    return re.sub(r"^\w+ should (.*?)(?: after validation, .*|, unable to .*)?$", r"must \1", message, flags=re.DOTALL)
