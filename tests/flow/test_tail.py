"""What is severe in a role's log reaches the terminal, once, readably, and never as a flood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relay import tail
from relay.tail import Tail, last_words, readable


def line(level: str, message: str = "upstream refused our login", **fields: object) -> str:
    entry = {"time": "2026-11-20T10:12:01.000Z", "level": level, "role": "worker", "logger": "x", "message": message}
    return json.dumps({**entry, **fields}) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


def write(log: Path, *lines: str) -> None:
    with log.open("a") as out:
        out.writelines(lines)


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", False), ("info", False), ("warning", True), ("error", True), ("critical", True)]
)
def test_warnings_and_above_are_news(log: Path, level: str, shown: bool) -> None:
    follower = Tail(log)
    write(log, line(level))
    assert bool(list(follower.news())) is shown


def test_news_is_told_once(log: Path) -> None:
    follower = Tail(log)
    write(log, line("error"))
    assert len(list(follower.news())) == 1
    assert list(follower.news()) == []


def test_what_was_there_before_is_no_news(log: Path) -> None:
    write(log, line("error", "old"))
    follower = Tail(log)
    write(log, line("error", "new"))
    (news,) = follower.news()
    assert "new" in news


def test_half_a_line_waits_for_its_end(log: Path) -> None:
    follower = Tail(log)
    whole = line("error")
    write(log, whole[:60])
    assert list(follower.news()) == []
    write(log, whole[60:])
    assert len(list(follower.news())) == 1


def test_a_flood_stays_in_the_file(log: Path) -> None:
    follower = Tail(log)
    write(log, *(line("error", f"number {number}") for number in range(100)))
    news = list(follower.news())
    assert len(news) == tail.MOST_LINES + 1
    assert news[-1] == f"... and 90 more in {log}"


def test_a_large_log_is_turned(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "LARGEST", 100)
    follower = Tail(log)
    with log.open("ab") as role:  # as a role holds it
        write(log, line("info", "old"))
        assert list(follower.news()) == []
        follower.turn()
        assert log.read_text() == ""
        assert "old" in log.with_suffix(".log.old").read_text()
        role.write(line("error", "new").encode())
        role.flush()
        assert len(list(follower.news())) == 1


def test_a_line_is_shown_readably() -> None:
    shown = readable(line("warning", account="a1", exception="Traceback ...").encode())
    assert shown.endswith("worker    warning  upstream refused our login  account=a1")


@pytest.mark.parametrize("strange", [b"Killed", b"{}", b"[1]", b'{"time": 3}', b'"text"', b"\xff\x1b[31m"])
def test_what_is_no_log_line_is_shown_as_it_is_but_for_controls(strange: bytes) -> None:
    assert readable(strange) == strange.decode(errors="replace").replace("\x1b", " ")


def test_last_words_are_the_end_of_the_log(log: Path) -> None:
    write(log, *(f"line {number}\n" for number in range(100)))
    assert last_words(log, most=2) == ["line 98", "line 99"]


def test_last_words_of_an_earlier_run_are_left_out(log: Path) -> None:
    write(log, "old\n")
    since = tail.end(log)
    assert last_words(log, since) == []
    write(log, "new\n")
    assert last_words(log, since) == ["new"]


def test_no_log_has_no_last_words(log: Path) -> None:
    assert last_words(log) == []


def test_what_cannot_be_kept_of_a_large_log_is_lost_and_nothing_more(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`postferry up` follows it: a full disk, here a folder in the old log's place, must not end what is run."""
    monkeypatch.setattr(tail, "LARGEST", 10)
    follower = Tail(log)
    write(log, line("error"))
    log.with_suffix(".log.old").mkdir()
    assert len(list(follower.news())) == 1
    follower.turn()
    assert log.stat().st_size == 0
    write(log, line("error"))
    assert len(list(follower.news())) == 1
