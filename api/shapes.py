"""The shapes that bodies, queries and answers are made of: camelCase outside, unknown fields refused by name."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, TypeAdapter
from pydantic.alias_generators import to_camel

from relay.core import account as settings_of
from relay.core.errors import Refused
from relay.core.options import spelled

QUEUE_ID = r"^[0-9a-f]{32}$"
NO_NUL = r"^[^\x00]*$"
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
PATTERNS = {
    settings_of.ID: settings_of.ID_WORDS,
    QUEUE_ID: "must be 32 hex digits",
    NO_NUL: "must not hold a NUL",
    ONE_LINE: "must not hold a line break or another control character",
}
"""What a text may be, and how that is said to whoever sent another."""

AccountId = Annotated[str, StringConstraints(pattern=settings_of.ID), Field(description="Account id.")]
QueueId = Annotated[
    str, StringConstraints(pattern=QUEUE_ID), Field(description="The message's name here: 32 hex digits.")
]


def public(name: str) -> str:
    """The name outside: `send_at` is sendAt, and `from_`, which Python keeps for itself, is from."""
    return to_camel(name.rstrip("_"))


Words = Annotated[str, StringConstraints(pattern=NO_NUL, max_length=256)]
"""Text that is looked for; the store holds no NUL."""

RowId = Annotated[int, Field(ge=1, le=(1 << 63) - 1)]

MAIL = "WzE3OTUxOTQwNjAsMSwiSU5CT1giXQ"  # an id of a message in a mailbox, for examples
Instant = Annotated[datetime, PlainSerializer(spelled, return_type=str), Field(examples=["2026-11-20T09:30:00.000Z"])]


_SHAPE = ConfigDict(alias_generator=public, extra="forbid", defer_build=True)  # a third of the role's start otherwise


class Body(BaseModel):
    """What a client sends as JSON: types are taken as they are (no "1" for 1), unknown fields are refused."""

    model_config = _SHAPE | ConfigDict(strict=True)
    later: ClassVar[Mapping[str, str]] = {}
    """Fields that are known and not there yet, with what to say about each."""

    def said(self) -> set[str]:
        """The fields that say something: many clients send all that they know, as null, "" or false."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        return {name for name, value in values.items() if value is not None and value is not False and value != ""}


class Query(BaseModel):
    """What a client sends behind the question mark: text, read as the type that is wanted."""

    model_config = _SHAPE
    later: ClassVar[Mapping[str, str]] = {}
    sized: ClassVar[str] = "page_size"
    """The field that says how many items a page has, where it is a list's."""


class Answer(BaseModel):
    """What a client gets. With a `sheet`, which is its file's name, CSV is to be had too: by default one line."""

    model_config = _SHAPE | ConfigDict(validate_by_name=True, serialize_by_alias=True)
    sheet: ClassVar[str] = ""
    most_lines: ClassVar[int | None] = None
    """Of one file; None: as many as of most kinds."""

    def line(self) -> type[Answer]:
        """What each line of its CSV is; the fields are the columns."""
        return type(self)

    def lines(self) -> Sequence[Answer]:
        return [self]

    def json_bytes(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, by_alias=True)


Count = Annotated[int, Field(ge=0, le=1 << 53)]


def write_cursor(*parts: Any) -> str:
    """A cursor that holds these values, which JSON can hold."""
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).rstrip(b"=").decode()


def read_cursor(cursor: str, *kinds: Any) -> tuple[Any, ...]:
    """What it holds, each value of its kind. Raises Refused: anybody may send anything."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if b"\\u0000" in json.dumps(parts, ensure_ascii=False).encode():  # what PostgreSQL cannot hold, we never wrote
            raise ValueError
        found: tuple[Any, ...] = TypeAdapter(tuple[kinds]).validate_python(parts)  # type: ignore[valid-type]
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise Refused("The cursor is not one of ours; start again without it", key="cursor") from None
    return found


class Paging(Query):
    """Which part of a list."""

    page: int = Field(0, ge=0, le=1_000_000, description="Page number, from 0.")
    page_size: int = Field(20, ge=1, le=1000, description="Items a page.")
    cursor: str = Field(
        "", max_length=400, description="The `cursor` of the page before: quicker than `page` far down."
    )

    @property
    def skip(self) -> int:
        return 0 if self.cursor else self.page * self.page_size

    def after(self, kind: Any) -> tuple[int, int, Any] | None:
        """(total, page, key of the last item) from the cursor; None without one. `kind` is the type of the key."""
        if not self.cursor:
            return None
        total, page, key = read_cursor(self.cursor, Count, Count, kind)
        return total, page, key

    def frame(self, at: tuple[int, int, Any] | None, counted: int, shown: int, last: Any) -> dict[str, Any]:
        """The fields of Listing: `at` is what `after` told, `last` the key of the last of the `shown` items.

        What was `counted` at the beginning says nothing of the end: others may have come between.
        """
        total, page = at[:2] if at else (counted, self.page)
        pages = -(-total // self.page_size)
        cursor = write_cursor(total, page + 1, last) if shown == self.page_size else None
        return {"total": total, "page": page, "pages": pages, "cursor": cursor}


class Listing(Answer):
    """The frame of every list."""

    total: int = Field(description="How many match, when the list was begun.")
    page: int = Field(description="This page, from 0.")
    pages: int = Field(description="How many pages there are.")
    cursor: str | None = Field(
        default=None,
        description="Give it back for the next page; null at the end. An empty page may be the last one.",
    )

    def line(self) -> type[Answer]:
        kind: type[Answer] = get_args(type(self).model_fields["items"].annotation)[0]
        return kind

    def lines(self) -> Sequence[Answer]:
        items: Sequence[Answer] = getattr(self, "items", ())
        return items
