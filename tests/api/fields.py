"""Every text that JSON for a call may hold, found in the OpenAPI document: a field that is added is attacked too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api import openapi
from api.app import OPERATIONS

DOCUMENT = openapi.document(OPERATIONS)
NAMED = DOCUMENT["components"]["schemas"]
NAME = "{name}"  # in a path: not a value, but the name of a field that may have any
Path = tuple[str | int, ...]
Schema = Mapping[str, Any]

REQUIRED = {"address": "ann@x.example", "content": "QQ==", "message": "<m@x.example>"}
"""What a field is filled with that must be there beside the one that is attacked, where "x" will not do."""


def taken(method: str, path: str) -> Schema:
    """What this call takes as JSON."""
    found: Schema = DOCUMENT["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]["schema"]
    return found


def texts(schema: Schema) -> list[Path]:
    """The paths of its texts, such as ("to", 0, "address")."""
    return list(dict.fromkeys(_texts(schema)))


def spelt(path: Path) -> str:
    return ".".join(map(str, path))


def grown(schema: Schema, path: Path, value: Any) -> Any:
    """JSON of this schema with the value there, and else what must be there."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    for kind in _kinds(schema):
        if step == 0 and kind.get("type") == "array":
            return [grown(kind["items"], rest, value)]
        if kind.get("type") == "object" and (inner := _field(kind, step)) is not None:
            beside = {name: REQUIRED.get(name, "x") for name in kind.get("required", ()) if name != step}
            return beside | ({value: "x"} if step == NAME else {step: grown(inner, rest, value)})
    raise LookupError(spelt(path))


def _texts(schema: Schema) -> Iterator[Path]:
    for kind in _kinds(schema):
        match kind.get("type"):
            case "string":
                yield ()
            case "array":
                yield from ((0, *rest) for rest in _texts(kind["items"]))
            case "object":
                for name in [*kind.get("properties", ()), *([NAME, "X-Any"] if _free(kind) else [])]:
                    yield from ((name, *rest) for rest in _texts(_field(kind, name) or {}))


def _field(kind: Schema, name: str | int) -> Schema | None:
    found: Schema | None = kind.get("properties", {}).get(name)
    return {"type": "string"} if name == NAME else found or (kind["additionalProperties"] if _free(kind) else None)


def _free(kind: Schema) -> bool:
    return isinstance(kind.get("additionalProperties"), Mapping)


def _kinds(schema: Schema) -> Iterator[Schema]:
    if "$ref" in schema:
        yield from _kinds(NAMED[schema["$ref"].rpartition("/")[2]])
    elif choice := schema.get("anyOf") or schema.get("oneOf"):
        for one in choice:
            yield from _kinds(one)
    else:
        yield schema
