"""When mailboxes are looked at, what is new in them, and what may be a report: by the header alone, missing nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from relay.core import watching
from relay.core.folders import Folder
from relay.core.prose import Told
from relay.core.report import Kind, Report
from relay.core.watching import RANGES, SILENT, Seen, candidate, key, news

MIDDLE = lambda: 0.5  # noqa: E731 - a chance that changes nothing
LEAST, MOST = 60.0, 900.0


def wait(sent: float | None) -> float:
    return watching.wait(sent, least=LEAST, most=MOST, rng=MIDDLE)


@pytest.mark.parametrize(("sent", "seconds"), [(0, LEAST), (30, LEAST), (60, LEAST), (SILENT, MOST), (None, MOST)])
def test_who_has_just_sent_is_looked_at_most_often_and_who_is_silent_most_rarely(sent: Any, seconds: float) -> None:
    assert wait(sent) == pytest.approx(seconds)


def test_the_longer_the_silence_the_longer_the_wait() -> None:
    waits = [wait(60 * 2**power) for power in range(13)]
    assert waits == sorted(set(waits))
    assert waits[-1] < MOST


@pytest.mark.parametrize("sent", [0.0, 5.0, 7000.0, None])
def test_waits_are_spread(sent: float | None) -> None:
    rng = random.Random(4).random
    waits = [watching.wait(sent, least=LEAST, most=MOST, rng=rng) for _ in range(200)]
    assert len(set(waits)) > 150
    assert all(0.8 * LEAST <= one <= 1.2 * MOST for one in waits)


def test_settings_that_contradict_each_other_are_survived() -> None:
    assert watching.wait(1000, least=60, most=5, rng=MIDDLE) == pytest.approx(60)
    assert watching.wait(1000, least=3 * SILENT, most=5, rng=MIDDLE) == pytest.approx(3 * SILENT)


def retries(*, refused: bool) -> list[float]:
    return [watching.retry(number, refused=refused, least=60, rng=MIDDLE) for number in range(1, 30)]


def test_a_mailbox_that_fails_is_looked_at_ever_more_rarely_up_to_hours() -> None:
    assert retries(refused=False)[:3] == pytest.approx([60, 120, 240])
    assert retries(refused=False)[-1] == pytest.approx(3600)
    assert retries(refused=True)[-1] == pytest.approx(6 * 3600)


@pytest.mark.parametrize(
    ("folders", "paths"),
    [
        ([Folder("INBOX"), Folder("Kram", "/", frozenset({"\\junk"}))], ["INBOX", "Kram"]),
        ([Folder("INBOX", "."), Folder("INBOX.Spam", ".")], ["INBOX", "INBOX.Spam"]),
        ([Folder("INBOX"), Folder("Sent")], ["INBOX"]),
        ([Folder("INBOX"), Folder("Junk", "/", frozenset({"\\noselect"}))], ["INBOX"]),
        ([], ["INBOX"]),
    ],
)
def test_reports_are_looked_for_in_inbox_and_junk(folders: list[Folder], paths: list[str]) -> None:
    assert watching.paths(folders) == paths


# -- what is new -------------------------------------------------------------------------------------------------------


def test_nothing_new_is_nothing_to_look_at() -> None:
    assert news(Seen(1, 7), 1, 7) == Seen(1, 7)


def test_what_came_since_is_new() -> None:
    assert news(Seen(1, 7), 1, 9) == Seen(1, 9, ((7, 9),))


@pytest.mark.parametrize("before", [None, Seen(1, 9), Seen(2, 60_000), Seen(1, 9, ((3, 5),))])
def test_a_folder_that_is_new_or_begins_anew_is_looked_back_at(before: Seen | None) -> None:
    seen = news(before, 2, 50_000)
    assert (seen.left, seen.back) == (((49_000, 50_000),), True)
    assert seen.after(seen.left[0][0]) == Seen(2, 50_000)


def test_an_empty_folder_is_looked_at() -> None:
    assert news(None, 2, 1) == Seen(2, 1, (), back=True)
    assert news(None, 2, 0).uidnext == 1


def test_more_than_a_step_is_looked_at_the_newest_first() -> None:
    seen = news(Seen(1, 10), 1, 1010)
    seen = seen.after(810)
    assert seen == Seen(1, 1010, ((10, 810),))
    assert seen.after(10) == Seen(1, 1010)


def test_what_comes_meanwhile_comes_first_and_the_rest_is_not_forgotten() -> None:
    seen = news(Seen(1, 1010, ((10, 810),)), 1, 1020)
    assert seen == Seen(1, 1020, ((10, 810), (1010, 1020)))
    assert seen.after(1010).left == ((10, 810),)
    assert seen.after(1015).left == ((10, 810), (1010, 1015))


def test_however_often_more_comes_little_is_stored_and_nothing_is_missed() -> None:
    rng, seen, new = random.Random(7), Seen(1, 1), 1
    looked_at: set[int] = set()
    for _ in range(400):
        new += rng.choice((0, 1, 5, 300, 4000))
        seen = news(seen, 1, new)
        for _ in range(rng.choice((0, 1, 2))):
            if seen.left:
                low, high = seen.left[-1]
                at = max(low, high - 200)
                looked_at |= set(range(at, high))
                seen = seen.after(at)
        seen = Seen.stored(seen.told()) or pytest.fail("it cannot be stored")
        assert len(seen.left) <= RANGES
    while seen.left:
        low, high = seen.left[-1]
        looked_at |= set(range(low, high))
        seen = seen.after(low)
    assert looked_at == set(range(1, new))


def test_what_fails_at_the_same_mail_is_counted_whatever_else_comes() -> None:
    seen = Seen(1, 10, ((5, 10),))
    for new in (12, 14, 16):
        assert not seen.stuck
        seen = news(Seen.stored(seen.stumbled().told()), 1, new)
        assert not seen.stuck
        seen = seen.after(10)
    assert seen.stuck
    assert not seen.after(9).stuck
    assert seen.after(5) == Seen(1, 16)


def test_a_folder_that_is_new_stays_so_while_looks_fail() -> None:
    seen = news(None, 1, 50)
    for new in (50, 60, 70):
        assert not seen.stuck
        seen = news(Seen.stored(seen.stumbled().told()), 1, new)
        assert (seen.left, seen.back) == (((1, new),), True)
    assert seen.stuck
    assert not news(seen, 2, 70).stuck


@pytest.mark.parametrize("folders", [{"INBOX": Seen(3, 7, ((1, 2),)), "Müll": None}, {}])
def test_how_far_it_is_can_be_stored(folders: watching.Folders) -> None:
    assert watching.stored(watching.told(folders)) == folders


@pytest.mark.parametrize("stored", [None, 7, {}, {"uidvalidity": "x", "uidnext": 1}, {"uidvalidity": 1}, []])
def test_what_cannot_be_read_is_a_folder_that_is_new(stored: Any) -> None:
    assert watching.stored({"INBOX": stored}) == {"INBOX": None}


# -- what may be a report ----------------------------------------------------------------------------------------------

PERSON = "From: Ann <ann@example.com>\r\nReturn-Path: <ann@example.com>\r\nSubject: Lunch?\r\nContent-Type: text/plain"


@pytest.mark.parametrize(
    "line",
    [
        "From: MAILER-DAEMON@mx.example.com (Mail Delivery System)",
        "From: postmaster@example.com",
        "From:",
        "From: <>",
        "From: staff@hotmail.com",
        "From: MAILER-DAEMON <no-reply@sns.amazonaws.com>",
        "Return-Path: <>",
        "Return-path: < >",
        "Content-Type: multipart/report; report-type=delivery-status",
        'Content-Type: Multipart/Report;\r\n\treport-type="feedback-report"',
        "Content-Type: multipart/mixed; report-type=feedback-report",
        "Content-Type: message/delivery-status",
        "X-Failed-Recipients: bob@example.org",
        "Auto-Submitted: auto-replied (vacation)",
        "Auto-Submitted: auto-generated",
        "Precedence: auto_reply",
        "X-Autoreply: yes",
        "From: postoffice",
        "Subject: Undelivered Mail Returned to Sender",
        "Subject: =?utf-8?Q?Zustellung_fehlgeschlagen?=",
        "Subject: complaint about message from 192.0.2.1",
        "Subject: Automatic reply: Lunch?",
        "Subject:\r\n =?iso-2022-jp?B?GyRCRUE8Qk1RRzsbKEI=?= Mail delivery failed",
    ],
)
def test_one_sign_is_enough(line: str) -> None:
    name = line.partition(":")[0].lower()
    others = [one for one in PERSON.split("\r\n") if not one.lower().startswith(name)]
    assert candidate("\r\n".join([line, *others, "", ""]).encode())
    assert candidate("\n".join([*others, line]).encode())


@pytest.mark.parametrize(
    "line",
    [
        "Auto-Submitted: no",
        "Subject: Re: the fair",
        "Precedence: bulk",
        "Content-Type: multipart/mixed; boundary=report",
        "X-Failed-Recipients:",
        "List-Id: <postgres.example.org>",
    ],
)
def test_mail_of_people_and_lists_is_not_read(line: str) -> None:
    others = [one for one in PERSON.split("\r\n") if one.partition(":")[0] != line.partition(":")[0]]
    assert not candidate("\r\n".join([*others, line, "", ""]).encode())


@pytest.mark.parametrize("header", [b"", b"\xff\xfe\x00", b"From", b":\r\n" * 9999, b"Subject: =?x?B?" + b"A" * 70_000])
def test_whatever_it_is_nothing_is_raised(header: bytes) -> None:
    assert candidate(header) in (True, False)


# -- the same again ----------------------------------------------------------------------------------------------------

BOUNCE = Report(Kind.BOUNCE, "<x@example.com>", (Told("bob@example.org", "failed"),))


def test_a_report_is_known_again_by_its_message_id() -> None:
    assert key(b"Message-ID: <1@mx>\r\nReceived: a\r\n\r\nx", BOUNCE) == key(b"Message-ID: <1@mx>\n\ny", BOUNCE)


def test_two_reports_have_different_keys() -> None:
    other = Report(Kind.BOUNCE, "<x@example.com>", (Told("eve@example.org", "failed"),))
    late = Report(Kind.BOUNCE, "<x@example.com>", (Told("bob@example.org", "delayed"),))
    complaint = Report(Kind.COMPLAINT, "<x@example.com>", BOUNCE.recipients)
    one = b"Message-ID: <1@mx>\r\n\r\nx"
    keys = {key(one, report) for report in (BOUNCE, other, late, complaint)} | {key(b"Message-ID: <2@mx>\n\n", BOUNCE)}
    assert len(keys) == 5


def test_without_a_message_id_the_bytes_tell() -> None:
    assert key(b"Date: 1\r\n\r\nx", BOUNCE) == key(b"Date: 1\r\n\r\nx", BOUNCE)
    assert key(b"Date: 1\r\n\r\nx", BOUNCE) != key(b"Date: 2\r\n\r\nx", BOUNCE)
