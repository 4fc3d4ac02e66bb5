"""The OpenAPI 3.1 document, out of the route table and the types of its handlers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.operation import Operation
from api.problems import Error
from relay.core.sheet import TYPE

REF = "#/components/schemas/{model}"
INTRODUCTION = """Mail that is handed over here is stored, then sent through the account's own mail server, one copy for
each recipient. Every call wants `Authorization: Bearer <token>`, but for health, pixels, these pages, Mailgun's
webhooks and the links that connect a mailbox. Instants are ISO 8601 in UTC. Every error has the same shape, with a
`code` for programs; each answer carries `X-Request-Id`, which the log knows too. Whatever the address: 404 where there
is nothing, 405 for a method that it has not, 431 for headers without end, 400 (`InvalidHttp`) for what is no HTTP, 500
for an error of ours."""

_SENTENCE = re.compile(r"\A(.+?\.)\s+", re.DOTALL)

ERRORS = {
    302: "Leads on, to the page of another: the provider's.",
    400: "The request is not what this call takes; `fields` names what is wrong.",
    401: "No token or signature, or not one of ours.",
    403: "The token lacks the scope, or is for another account.",
    404: "There is nothing of that name (that this token may see).",
    406: "It was taken before, or never will be: do not send it again.",
    408: "The body did not arrive in time.",
    409: "As things stand it cannot be done (an idempotency key in use, a limit reached); the message says why.",
    410: "What the address leads to has ended, or never was.",
    413: "The body is too large.",
    415: "The body is of another type than this call takes.",
    422: "Understood, and not possible as things stand; the message says what to do.",
    429: "Too many refused tokens from this address, or too many calls at once; `Retry-After` says when to come back,"
    " and `RateLimit-Limit` how many there may be.",
    502: "The account's mailbox refuses, or its settings are not right: the message says what to do about it.",
    503: "The store is away or locked, the mailbox is away, or this took too long (`TooSlow`). Nothing was done;"
    " try again in a while.",
}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document, ready for JSON."""
    shown = list(operations)
    schemas = _Schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for operation in shown:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Postferry", "version": version("postferry"), "description": INTRODUCTION},
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


class _Schemas:
    """The models' schemas: of what comes in as it is read, of what goes out as it is written."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        wanted: dict[tuple[type[BaseModel], Any], None] = {(Error, "serialization"): None}
        for operation in operations:
            for model in filter(None, (operation.body, operation.query)):
                wanted[model, "validation"] = None
            if _is_model(operation.answer):
                wanted[operation.answer, "serialization"] = None
        self._refs, made = models_json_schema(list(wanted), ref_template=REF)
        self.definitions: dict[str, Any] = made.get("$defs", {})

    def read(self, model: type[BaseModel]) -> dict[str, Any]:
        return self._refs[model, "validation"]

    def written(self, model: type[BaseModel]) -> dict[str, Any]:
        return self._refs[model, "serialization"]

    def fields(self, model: type[BaseModel]) -> tuple[dict[str, Any], set[str]]:
        """The properties of a query model, which is then no schema of its own."""
        schema = self.definitions.pop(self.read(model)["$ref"].rpartition("/")[2])
        return schema["properties"], set(schema.get("required", ()))


def _operation(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    summary, _, rest = _SENTENCE.sub("\\1\n\n", inspect.getdoc(operation.function) or "", count=1).partition("\n\n")
    made: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": " ".join(summary.split()),
        "parameters": list(_parameters(operation, schemas)),
        "responses": _responses(operation, schemas),
    }
    if rest:
        made["description"] = rest.strip()
    if operation.body:
        content: dict[str, Any] = {"application/json": {"schema": schemas.read(operation.body)}}
        if operation.table:
            content[TYPE] = {"schema": {"type": "string", "description": inspect.getdoc(operation.table)}}
        made["requestBody"] = {"required": True, "content": content}
    if operation.scope is None:
        made["security"] = []
    return made


def _parameters(operation: Operation, schemas: _Schemas) -> Iterable[dict[str, Any]]:
    for name, adapter in operation.parts.items():
        yield {"name": operation.outside(name), "in": "path", "required": True, **_described(adapter.json_schema())}
    if operation.query:
        properties, required = schemas.fields(operation.query)
        for name, schema in properties.items():
            yield {"name": name, "in": "query", "required": name in required, **_described(schema)}
    for name, schema in operation.headers.items():
        yield {"name": name, "in": "header", "required": False, **_described(dict(schema))}


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    schema = {key: value for key, value in schema.items() if key != "title"}
    description = schema.pop("description", None)
    return {"schema": schema, **({"description": description} if description else {})}


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    if _is_model(operation.answer):
        content = {"application/json": {"schema": schemas.written(operation.answer)}}
        if operation.sheeted:
            content[TYPE] = {"schema": {"type": "string"}}
    else:
        content = {operation.media: {}}
    error: dict[str, Any] = {"content": {"application/json": {"schema": schemas.written(Error)}}}
    if operation.media == "text/html":  # in front of such a page sits a person
        error["content"][operation.media] = {}
    made: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    for status in sorted(_statuses(operation)):
        told = {"content": content} if status in operation.answers else error if status >= 400 else {}
        made[str(status)] = {"description": ERRORS[status], **told}
    return made


def _statuses(operation: Operation) -> set[int]:
    statuses = {503, *operation.errors}
    if operation.scope is not None:
        statuses |= {401, 403, 429}
    if operation.body or operation.query or operation.parts or operation.scope == "api":
        statuses.add(400)
    if operation.body:
        statuses |= {408, 413, 415}
    if operation.parts:
        statuses.add(404)
    return statuses


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, web.StreamResponse)
