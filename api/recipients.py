"""Recipients over HTTP: figures, engagement and doubts about each, and one recipient's whole history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from api import besttime, tracking
from api.analytics import Answer, Listing, Machine, Paging, Place
from api.call import Call
from api.problems import Problem
from api.shapes import NO_NUL, AccountId, Instant, Words
from api.statistics import Zone, begin
from relay import timing
from relay.core import score
from relay.core.score import percent
from relay.store import recipients, roster
from relay.store.statistics import Span

Address = Annotated[
    str, StringConstraints(pattern=NO_NUL, max_length=256), Field(description="The address, URL-encoded.")
]
Sort = Literal["last_sent", "address", "sent", "opened", "open_rate", "engagement"]


def _universal(at: datetime) -> datetime:
    """PostgreSQL knows no offset of 16 hours and more."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("is before or after all time") from None


Mark = tuple[str, str, Annotated[AwareDatetime, AfterValidator(_universal)] | Literal["-infinity"]]
HABIT_DAYS = 90


class Search(Paging):
    account: AccountId | None = Field(None, description="Only this account's.")
    search: Words = Field("", description="Part of the address or the name; or the whole address.")
    sort: Sort = Field(
        "last_sent",
        description="`last_sent` and `address` list all. The others rank those written to last: at most 10,000.",
    )
    likely_fake: bool | None = Field(None, description="Only those that are likely fake, or only the others.")
    machine: Machine = False


class Fake(Answer):
    """Tracked mail, never opened, and the first of it older than a day."""

    likely: bool
    reasons_it_may_be_wrong: list[str]


class Sums(Answer):
    """What one recipient of an account got, and did."""

    account: str
    address: str = Field(description="In lower case.")
    name: str | None = Field(description="As it was last written.")
    sent: int
    tracked: int = Field(description="Of those: with a pixel.")
    opened: int = Field(description="Of those: opened.")
    open_rate: float = Field(description="Percent of the tracked ones.")
    opens: int
    engagement: int | None = Field(description="0 to 100; null without tracked mail.")
    first_sent: Instant | None
    last_sent: Instant | None
    last_opened: Instant | None = Field(description="When the recipient was last seen.")
    failed: int
    bounced: int


class Recipient(Sums):
    """The sums of one recipient. Opens are those that count, unless `machine` asked for all."""

    likely_fake: Fake


class Line(Sums):
    """A recipient as a line of CSV."""

    likely_fake: bool
    reasons_it_may_be_wrong: str


class Recipients(Listing):
    sheet: ClassVar[str] = "recipients"
    items: list[Recipient]

    def line(self) -> type[Answer]:
        return Line

    def lines(self) -> list[Line]:
        return [_line(one) for one in self.items]


class Shown(Paging):
    tz: Zone = ""
    machine: Machine = False


class History(tracking.Records):
    """A recipient with its deliveries, newest first. CSV has the deliveries."""

    sheet: ClassVar[str] = "recipient"
    recipient: Recipient
    best_time: besttime.Best


async def page(call: Call, query: Search) -> Recipients:
    """Recipients with their figures; who was written to last comes first, unless `sort` says otherwise."""
    ranked = query.sort in roster.RANKS
    place = query.place(Annotated[int, Field(ge=0, le=roster.DEEPEST)] if ranked else Mark)
    wanted = roster.Filter(
        now=datetime.now(UTC),
        account=await call.narrowed(query.account),
        search=query.search,
        silent=query.likely_fake,
        machine=query.machine,
    )
    async with call.turn() as conn:
        found = await roster.page(
            conn,
            wanted,
            query.sort,
            after=_mark(place.key) if place and not ranked else None,
            skip=place.key if place and ranked else query.skip,
            size=query.limit,
            count=place is None,
        )
    place = place or Place(found.total or 0, found.at_least, query.page, None)
    items = [_recipient(one, wanted.now, query.machine) for one in found.items]
    return Recipients(**query.frame(place, _key(found.more)), items=items)


def _mark(key: tuple[str, str, datetime | str]) -> roster.Mark:
    account, address, at = key
    return roster.Mark(account, address, at if isinstance(at, str) else at.isoformat())


def _key(more: roster.Mark | int | None) -> Any:
    return [more.account, more.address, more.sent_at] if isinstance(more, roster.Mark) else more


async def show(call: Call, account: AccountId, address: Address, query: Shown) -> History:
    """One recipient: figures, deliveries with their opens, and the best time to send."""
    now = datetime.now(UTC)
    async with call.turn() as conn:
        begun = await begin(call, conn, account, HABIT_DAYS, query.tz)
        found = await recipients.named(conn, [(account, address)], now, machine=query.machine)
        if not found:
            raise Problem(404, f"There is no mail to {address[:100]} here yet", code="RecipientNotFound")
        span = Span(account=account, now=now, since=begun.since, zone=begun.zone)
        times = await timing.of_recipient(conn, span, address)
    part = query.model_dump(include={"page", "limit", "cursor", "machine"})
    records = await tracking.page(call, account, tracking.Search(recipient=address, **part))
    return History(
        **{name: getattr(records, name) for name in tracking.Records.model_fields},
        recipient=_recipient(found[0], now, query.machine),
        best_time=besttime.Best(**besttime.best(times)),
    )


def _recipient(one: recipients.Recipient, now: datetime, machine: bool) -> Recipient:
    of = one.figures(machine)
    return Recipient(
        account=one.account,
        address=one.address,
        name=one.name,
        sent=of.sent,
        tracked=of.tracked,
        opened=of.opened,
        open_rate=percent(of.opened, of.tracked),
        opens=of.opens,
        engagement=score.engagement(of, now),
        first_sent=of.first_sent_at,
        last_sent=of.last_sent_at,
        last_opened=of.last_opened_at,
        failed=of.failed,
        bounced=of.bounced,
        likely_fake=Fake(likely=one.silent, reasons_it_may_be_wrong=score.doubts(of, now) if one.silent else []),
    )


def _line(one: Recipient) -> Line:
    sums = {name: getattr(one, name) for name in Sums.model_fields}
    fake = one.likely_fake
    return Line(**sums, likely_fake=fake.likely, reasons_it_may_be_wrong=" ".join(fake.reasons_it_may_be_wrong))
