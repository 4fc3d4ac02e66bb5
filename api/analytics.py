"""The shapes of calls about what became of mail: snake_case outside, lists and figures that can be had as CSV too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args

from pydantic import ConfigDict, Field

from api import shapes

Days = Annotated[int | None, Field(ge=1, le=3650, description="Only what was finished within so many times 24 hours.")]
Machine = Annotated[
    bool,
    Field(
        description="Count what machines fetched too (prefetches, scanners, what is unknown), not persons and"
        " proxies alone. Never counted are the sender's own looks."
    ),
]


class Query(shapes.Query):
    """What stands behind the question mark."""

    model_config = ConfigDict(alias_generator=None)
    sized: ClassVar[str] = "limit"


class Body(shapes.Body):
    """What a client sends as JSON."""

    model_config = ConfigDict(alias_generator=None)


class Answer(shapes.Answer):
    """What a client gets."""

    model_config = ConfigDict(alias_generator=None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cursor leads: the page's number, what the first page counted, and the key of the item before."""

    total: int
    at_least: bool
    page: int
    key: Any


class Paging(Query):
    """Which part of a list."""

    page: int = Field(0, ge=0, le=1_000_000, description="Page number, from 0.")
    limit: int = Field(20, ge=1, le=1000, description="Items a page.")
    cursor: str = Field("", max_length=800, description="The `cursor` of the page before, instead of `page`.")

    @property
    def skip(self) -> int:
        """Items to leave out; none where a cursor says where to begin."""
        return 0 if self.cursor else self.page * self.limit

    def place(self, kind: Any) -> Place | None:
        """Where the cursor leads; None without one. `kind` is the type of its key. Raises Refused."""
        if not self.cursor:
            return None
        return Place(*shapes.read_cursor(self.cursor, shapes.Count, bool, shapes.Count, kind))

    def frame(self, place: Place, more: Any | None) -> dict[str, Any]:
        """The fields of Listing for the page at `place`; `more` is the key of its last item where others follow it."""
        next_page = shapes.write_cursor(place.total, place.at_least, place.page + 1, more) if more is not None else None
        return {
            "total": place.total,
            "total_is_at_least": place.at_least,
            "page": place.page,
            "pages": -(-place.total // self.limit),
            "cursor": next_page,
        }


class Listing(Answer):
    """The frame of every list. Its lines of CSV are its items."""

    total: int = Field(description="How many match, when the list was begun.")
    total_is_at_least: bool = Field(description="There are more than `total`: counting ended there.")
    page: int = Field(description="This page, from 0.")
    pages: int = Field(description="How many pages `total` makes.")
    cursor: str | None = Field(description="Give it back for the next page; null on the last one.")
    items: Sequence[Any]

    def line(self) -> type[shapes.Answer]:
        kind: type[shapes.Answer] = get_args(type(self).model_fields["items"].annotation)[0]
        return kind

    def lines(self) -> Sequence[shapes.Answer]:
        return self.items
