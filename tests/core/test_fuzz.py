"""The fuzz targets: every seed passes, so does what is near it, and each check sees what it is there to see."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.core import address, cleaning, mendlink, mime, original, pixel, report, splice, thread
from relay.core.model import Splice
from relay.ingress import connection
from relay.ingress.content import Content
from tests.fuzz import addresses, drive, quoting, reading, sessions, splices, summary, target, tidying
from tests.fuzz.target import HOMES, LONG, MARK, NAMES, TooSlow, named, stretched

SPOKEN = b"""#2\tINITED cov: 150 ft: 300 corp: 1/1b exec/s: 0 rss: 50Mb
#1024\tNEW    cov: 172 ft: 555 corp: 31/973b lim: 354 exec/s: 7 rss: 58Mb L: 3/354 MS: 2 ManualDict-
#2048\tDONE   cov: 174 ft: 616 corp: 42/1494b lim: 354 exec/s: 8 rss: 58Mb
stat::number_of_executed_units: 2050
""".decode()


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_passes(name: str) -> None:
    target = named(name)
    seeds = target.own_seeds
    assert seeds
    for seed in seeds:
        target.run(seed)


@pytest.mark.parametrize("name", HOMES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_near_a_seed_passes(name: str, data: st.DataObject) -> None:
    """Some words put in, some bytes taken out: what a fuzzer does first."""
    target = named(name)
    made = bytearray(data.draw(st.sampled_from(target.own_seeds)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(made)))
        made[at : at + data.draw(st.integers(0, 8))] = data.draw(st.sampled_from(target.words) | st.binary(max_size=3))
    target.run(bytes(made))


# -- each check sees what it is there to see ------------------------------------------------------------------------


def caught(check: Callable[[bytes], None], inputs: list[bytes]) -> list[str]:
    """What is wrong, by the check's word."""
    found = []
    for one in inputs:
        try:
            check(one)
        except Exception as fault:
            found.append(f"{type(fault).__name__}: {fault}")
    return found


def session() -> list[str]:
    return caught(sessions.check, named("session").own_seeds)


def test_mail_that_another_server_would_end_sooner_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.Noted, "holds_false_end", False)
    monkeypatch.setattr(sessions.Noted, "ends_falsely", False)
    assert sum("mail can be smuggled" in fault for fault in session()) >= len(sessions.FALSE_ENDS)


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n"])
def test_an_end_that_is_none_is_seen(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    from relay.ingress import content

    monkeypatch.setattr(content, "END", end)
    assert any("another" in fault or "smuggled" in fault for fault in session())


def test_stuffing_that_is_left_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Content, "message", lambda self: bytes(self._kept[2:]))
    assert "another reader reads another message" in " ".join(session())


def test_stuffing_that_is_missing_on_the_way_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "dot_stuffed", lambda content: content)
    assert "an upstream reads another message" in " ".join(session())


def test_a_fault_that_nobody_foresaw_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Any, argument: str) -> None:
        raise KeyError("boom")

    monkeypatch.setitem(sessions.sessions.VERBS, "NOOP", broken)
    assert "KeyError: 'boom'" in session()


def test_memory_without_bounds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Content, "endless", False)
    monkeypatch.setattr(sessions, "CHUNK", 1000)
    endless = b"\0EHLO x\r\nMAIL FROM:<a@one.example>\r\nRCPT TO:<b@two.example>\r\nDATA\r\n" + b"x" * 200_000
    assert "bytes are kept" in " ".join(caught(sessions.check, [endless]))


@pytest.mark.parametrize("written", [b"250 OK\n", b"250-a\r\n251 b\r\n", b"25 OK\r\n", b"250 \x80\r\n", b"250-a\r\n"])
def test_what_is_no_reply_is_seen(written: bytes) -> None:
    with pytest.raises(AssertionError, match="no reply"):
        sessions.replies(b"220 x\r\n" + written)


def test_a_reply_that_is_too_long_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    long = b"\0EHLO x\r\nMAIL FROM:<a@one.example> " + b"a" * 1000 + b"\r\n"
    assert not caught(sessions.check, [long])
    monkeypatch.setattr(connection, "LONGEST_REPLY", 5000)
    assert "a reply line is too long" in " ".join(caught(sessions.check, [long]))


def wrong_splice(monkeypatch: pytest.MonkeyPatch, make: Callable[..., tuple[bytes, bytes, bytes]]) -> str:
    render = splice.render

    def wrongly(content: bytes, found: Splice, tag: str) -> tuple[bytes, bytes, bytes]:
        return make(*render(content, found, tag))

    monkeypatch.setattr(splice, "render", wrongly)
    return " ".join(caught(splices.check, named("splice").own_seeds))


def test_a_splice_that_changes_more_than_it_may_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not the tag alone" in wrong_splice(monkeypatch, lambda a, tag, b: (a, tag + b"!", b))


def test_a_splice_that_breaks_a_line_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "AssertionError" in wrong_splice(monkeypatch, lambda a, tag, b: (a, tag + b"\n", b))


def test_a_splice_in_another_part_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "find", lambda content: Splice(len(content), len(content), "7bit", "ascii"))
    plain = b"Content-Type: text/plain\r\n\r\nhello"
    assert caught(splices.check, [plain])


@pytest.mark.parametrize(
    ("module", "name", "check", "seed"),
    [
        (report, "read", reading.check_report, b"x"),
        (original, "read", reading.check_original, b"x"),
        (thread, "thread", quoting.check_thread, b"Subject: x\r\n\r\nx"),
        (cleaning, "trimmed", quoting.check_cleaning, b"<p>"),
        (mime, "_read", tidying.check, b"Subject: x\r\n\r\nx"),
        (address, "parse_list", addresses.check, b"a@b.example"),
    ],
)
def test_a_reader_that_raises_is_seen(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, check: Callable[[bytes], None], seed: bytes
) -> None:
    def raising(*given: Any) -> Any:
        raise IndexError(name)

    monkeypatch.setattr(module, name, raising)
    assert caught(check, [seed]) == [f"IndexError: {name}"]


def test_a_header_that_is_changed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tidy = mime.tidy

    def wrongly(raw: bytes, **given: Any) -> Any:
        mail = tidy(raw, **given)
        return type(mail)(
            **{**{name: getattr(mail, name) for name in mail.__slots__}, "content": b"X: y\r\n" + mail.content}
        )

    monkeypatch.setattr(mime, "tidy", wrongly)
    assert caught(tidying.check, [b"Subject: x\r\n\r\nx\r\n"])


def test_an_address_that_could_end_a_command_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "_BRACKETS", re.compile("(?!)"))
    assert "could end a command" in " ".join(caught(addresses.check, [b'"a>b"@example.com']))


@pytest.mark.parametrize(
    "html", ["<script>x", "<p onclick=x>", "<p><b></p>", "</p>", "<!-- x -->", "<a href='x:y'>", "<p>"]
)
def test_html_that_is_not_sound_is_seen(html: str) -> None:
    with pytest.raises(AssertionError):
        quoting.sound(f"<blockquote>{html}</blockquote>")


def test_a_token_with_two_spellings_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    read = pixel.read
    token = next(made for number in range(99) if "-" in (made := pixel.sign((b"n" * 32,), number)))
    monkeypatch.setattr(pixel, "read", lambda keys, text: read(keys, text.replace("+", "-")))
    assert caught(named("tokens").check, [token.replace("-", "+").encode()]) == [
        "AssertionError: a token that nobody signed"
    ]
    assert mendlink.read((), token, 0) is None


def test_what_takes_too_long_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "MOST_CPU", -1.0)
    with pytest.raises(TooSlow):
        named("report").run(b"x")


# -- what is around them --------------------------------------------------------------------------------------------


def test_what_stands_between_two_marks_is_stretched() -> None:
    assert stretched(b"a" + MARK + b"bc" + MARK + b"d").startswith(b"abcbcbc")
    assert stretched(b"a" + MARK + b"bc" + MARK + b"d").endswith(b"bcd")
    assert len(stretched(b"a" + MARK + b"bc" + MARK)) == target.STRETCHED - 1
    for same in (b"", b"abc", b"a" + MARK + b"b", MARK * 2):
        assert stretched(same) == same


def test_a_target_has_a_twin_for_long_inputs() -> None:
    assert {name.removesuffix(LONG) for name in NAMES} == set(HOMES)
    assert all(seed.count(MARK) == 2 for seed in named("report-long").own_seeds)


def test_the_same_fault_is_kept_once_with_its_traceback(tmp_path: Path) -> None:
    findings = drive.Findings(tmp_path)
    broken = target.Target("x", lambda data: data.index(b"!") and None, lambda: [b""])
    once = drive.watched(broken, findings)
    for data in (b"good!", b"bad", b"worse"):
        once(data)
    first, second = sorted(tmp_path.iterdir())
    assert first.read_bytes() == b"bad"
    assert second.name == f"{first.name}.txt"
    assert "ValueError" in second.read_text()


def test_what_was_found_before_is_tried_first_the_next_time(tmp_path: Path) -> None:
    old = tmp_path / "crashes" / "tokens" / "AssertionError-1"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x")
    drive.prepared(named("tokens"), tmp_path)
    assert not old.exists()
    assert (tmp_path / "corpus" / "tokens" / old.name).read_bytes() == b"x"


def test_the_summary_is_read_from_what_the_fuzzer_says() -> None:
    one = summary.read("splice", 9.6, SPOKEN, ["AssertionError-1"], 0)
    assert (one.executions, one.edges, one.ended) == (2050, 174, "")
    assert "| splice | 10 s | 2,050 | 174 | 1 |" in summary.marked([one])
    cut_off = summary.read("splice", 9.6, SPOKEN.partition("stat")[0] + "==7== ERROR: out of memory", [], 1)
    assert (cut_off.executions, cut_off.ended) == (2048, "==7== ERROR: out of memory")
    assert summary.read("x", 1, "", [], 1).ended
