"""Typed handlers: a function's signature says what it takes and gives; here that is read, held to, and documented.

    async def move(call: Call, queue_id: QueueId, body: Move) -> Moved: ...

`call` comes first; `body` is the JSON body, `query` what stands behind the question mark, and any other parameter is a
part of the path.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from api import reading, sheet
from api.call import HOUSE, NOBODY, Call, authorise
from api.problems import Problem, invalid
from api.shapes import Answer, Query, public
from relay.arrivals import Arriving
from relay.core.sheet import TYPE, wanted
from relay.settings import Settings

SMALL = 1 << 20  # bytes of a body where no attachment travels
LARGEST_TABLE = 16 << 20  # bytes of one of CSV
STRANGERS = ""  # no account has this id: all who send bodies without a token are as one tenant
Function = Callable[..., Awaitable[Answer | web.StreamResponse]]


def largest_body(settings: Settings) -> int:
    """Bytes of one where attachments travel: it has room for the largest message in base64."""
    return settings.max_message_size * 3 // 2 + SMALL


@dataclass(frozen=True)
class Operation:
    """One call of the API. `scope` None: anyone may. `errors` and `headers` add to what its document says anyway."""

    method: str
    path: str
    function: Function
    scope: str | None = "api"
    large: bool = False  # attachments travel in its body
    errors: Sequence[int] = ()
    answers: Sequence[int] = ()  # statuses beside 200 that come with its answer
    headers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    media: str = "application/json"
    table: Function | None = None  # takes a body of CSV, as `table`, where `function` takes one of JSON
    body: type[BaseModel] | None = field(init=False)
    query: type[BaseModel] | None = field(init=False)
    answer: Any = field(init=False)
    parts: dict[str, TypeAdapter[Any]] = field(init=False)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(self.function, include_extras=True)
        names = [name for name in inspect.signature(self.function).parameters if name != "call"]
        put = object.__setattr__
        put(self, "answer", hints["return"])
        put(self, "body", hints.get("body"))
        put(self, "query", hints.get("query"))
        put(self, "parts", {name: TypeAdapter(hints[name]) for name in names if name not in ("body", "query")})

    @property
    def tag(self) -> str:
        """The file that it lives in."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def name(self) -> str:
        return f"{self.tag}.{self.function.__name__}"

    @property
    def sheeted(self) -> bool:
        """It answers CSV too, to whoever asks for it."""
        return isinstance(self.answer, type) and issubclass(self.answer, Answer) and bool(self.answer.sheet)

    def outside(self, part: str) -> str:
        """What a part of the path is called there."""
        return part if f"{{{part}}}" in self.path else public(part)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        house = request.app[HOUSE]
        token = await authorise(request, house, self.scope) if self.scope else NOBODY
        call = Call(request, house, token)
        given = self._parts(request)
        if "account" in given:
            call.check_account(given["account"])
        if self.query:
            given["query"] = self._query(request, self.query)
        elif request.query_string and self.scope == "api":
            self._query(request, Query)
        with house.arrivals.of(STRANGERS if token is NOBODY else token.account) as arriving:
            return await self._called(call, given, arriving)

    async def _called(self, call: Call, given: dict[str, Any], arriving: Arriving) -> web.StreamResponse:
        """The body is kept until the answer is there."""
        request, settings = call.request, call.house.settings
        if self.table and request.content_type == TYPE:
            table = await self._arrived(call, arriving, LARGEST_TABLE, TYPE)
            return self._answer(await self.table(call, **given, table=table))
        if self.body:
            limit = largest_body(settings) if self.large else SMALL
            value = reading.parse(await self._arrived(call, arriving, limit))
            given["body"] = self._valid(self.body, value, "The body is not what this call takes")
        if self.sheeted and wanted(request.headers.get("Accept", "")):
            return await sheet.answer(call, self.function, given, self.answer)
        return self._answer(await self.function(call, **given))

    async def _arrived(self, call: Call, arriving: Arriving, limit: int, kind: str = "application/json") -> bytes:
        """The body. Its token may have been revoked while it came, with an account whose id is another's by now."""
        body = await reading.body(call.request, limit, arriving, kind)
        if self.scope:
            await authorise(call.request, call.house, self.scope)
        return body

    def _answer(self, answer: Answer | web.StreamResponse) -> web.StreamResponse:
        if isinstance(answer, web.StreamResponse):
            return answer
        headers = {"Vary": "Accept"} if self.sheeted else None
        return web.Response(body=answer.json_bytes(), content_type="application/json", headers=headers)

    def _parts(self, request: web.Request) -> dict[str, Any]:
        given = {}
        for name, adapter in self.parts.items():
            try:
                given[name] = adapter.validate_python(request.match_info[self.outside(name)])
            except ValidationError as error:
                raise invalid(error, "The address is not what this call takes", key=self.outside(name)) from None
        return given

    def _query(self, request: web.Request, model: type[BaseModel]) -> BaseModel:
        given = dict(request.query)
        if len(given) < len(request.query):
            raise Problem(400, "A query parameter comes twice", code="InvalidFields")
        return self._valid(model, given, "The query is not what this call takes")

    @staticmethod
    def _valid(model: type[BaseModel], value: Any, what: str) -> BaseModel:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise invalid(error, what, value, model) from None
