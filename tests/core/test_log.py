"""Log lines: their shape, and that no secret or body gets into one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from relay import log, settings


@pytest.fixture(autouse=True)
def _untouched() -> Iterator[None]:
    """The logging of the test run is put back afterwards."""
    import sys
    import threading

    root = logging.getLogger()
    before, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:] = before
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)


def lines(level: str = "info") -> tuple[io.StringIO, logging.Logger]:
    out = io.StringIO()
    given = settings.read({"POSTFERRY_LOG_LEVEL": level, "POSTFERRY_LOG_FORMAT": "json"}, None)
    log.setup(given, "worker", out)
    return out, logging.getLogger("postferry.test")


def only(out: io.StringIO) -> dict[str, Any]:
    (line,) = out.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_is_json_with_its_fields() -> None:
    out, logger = lines()

    logger.info("sent to %s", "upstream", extra={"queueId": "abc", "account": "a1", "delivery": 7, "requestId": "r"})

    found = only(out)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "role": "worker",
        "logger": "postferry.test",
        "message": "sent to upstream",
        "queueId": "abc",
        "account": "a1",
        "delivery": 7,
        "requestId": "r",
    }


def test_an_exception_is_one_field_of_one_line() -> None:
    out, logger = lines()

    try:
        raise ValueError("no connection to postgresql://u:hunter2@db/x")
    except ValueError:
        logger.exception("store away")

    found = only(out)
    assert "ValueError" in found["exception"]
    assert "hunter2" not in out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "connect to redis://:hunter2@cache:6379/0 failed",
        "postgresql://user:hunter2@db/x",
        "header Authorization: Bearer hunter2hunter2",
        "client said AUTH PLAIN hunter2hunter2==",
        "auth login hunter2hunter2",
        "password=hunter2",
        "{'pass': 'hunter2', 'host': 'x'}",
        '{"apiKey": "hunter2"}',
        "SECRET_KEYS=hunter2",
        "access_token: hunter2",
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    assert "hunter2" not in log.redact(text)
    assert "***" in log.redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "AUTH failed for a1",
        "refused: bearer missing",
        "http://127.0.0.1:3000/docs",
        "pass the message on",
        "smtp://h:25",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert log.redact(text) == text


def test_only_known_fields_are_taken_from_extra() -> None:
    out, logger = lines()

    logger.info("accepted", extra={"content": b"Subject: hi", "size": 11})

    found = only(out)
    assert "content" not in found
    assert found["size"] == 11


def test_a_field_is_masked_too() -> None:
    out, logger = lines()

    logger.info("deferred", extra={"reply": "535 bad: AUTH PLAIN aHVudGVyMg=="})

    assert "aHVudGVyMg" not in out.getvalue()


def test_a_long_message_is_cut() -> None:
    out, logger = lines()

    logger.info("x" * 1_000_000)

    assert len(out.getvalue()) < log.LONGEST + 300


HOSTILE = "a\r\nfake line\x1b[31m\x9b31m\x85\u2028\0"


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_text_forges_a_line_or_steers_the_terminal(form: str) -> None:
    out = io.StringIO()
    log.setup(settings.read({"POSTFERRY_LOG_FORMAT": form}, None), "smtp", out)

    logging.getLogger("postferry.test").warning("from %s", HOSTILE, extra={"path": HOSTILE, "reply": "é\x1b"})

    assert out.getvalue().endswith("\n")
    assert out.getvalue()[:-1].isprintable()
    assert "é" in out.getvalue()


def test_an_exception_steers_no_terminal() -> None:
    out = io.StringIO()
    log.setup(settings.read({"POSTFERRY_LOG_FORMAT": "text"}, None), "smtp", out)

    try:
        raise ValueError("\x1b[2J\x9b")
    except ValueError:
        logging.getLogger("postferry.test").exception("broken")

    assert out.getvalue().replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["mail.log", "mail.debug"])
def test_the_smtp_library_never_logs_body_lines(name: str) -> None:
    out, _ = lines("debug")

    logging.getLogger(name).debug("b'the body'")
    logging.getLogger(name).info("b'the body'")

    assert out.getvalue() == ""


def test_text_is_short_and_has_the_fields() -> None:
    out = io.StringIO()
    log.setup(settings.read({"POSTFERRY_LOG_FORMAT": "text"}, None), "smtp", out)

    logging.getLogger("postferry.test").warning("slow", extra={"account": "a1"})

    assert out.getvalue().endswith("smtp      warning slow  account=a1\n")


def test_what_nobody_caught_is_a_line_as_well() -> None:
    import sys

    out, _ = lines()
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)

    found = only(out)
    assert found["level"] == "critical"
    assert "RuntimeError: boom" in found["exception"]
