"""Structured logs: one JSON line (or one line of text on a terminal) per fact, and never a secret or a body in it."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from relay.settings import Settings

FIELDS = (
    *("queueId", "account", "delivery", "requestId", "lease", "attempt", "outcome", "stage", "reply", "upstream"),
    *("ingress", "client", "recipients", "size", "seconds", "status", "method", "path", "child", "exitCode", "port"),
    "endpoint",
)
"""What `extra=` may add to a line. A closed list, so that no library can put a body or a credential in by this door."""

LONGEST = 4000  # characters of one message: nobody dumps a body through a log line

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?<=://)([^\s:/@'\"]*):[^\s/@'\"]+@"), r"\1:***@"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.I), r"\1 ***"),
    (re.compile(r"\b(AUTH\s+(?:PLAIN|LOGIN|CRAM-MD5|XOAUTH2|OAUTHBEARER))\s+[A-Za-z0-9+/=]{4,}", re.I), r"\1 ***"),
    (
        re.compile(
            r"((?:pass(?:word|wd)?|secret(?:[_-]?keys?)?|api[_-]?key|(?:access|refresh|admin)?[_-]?token)['\"]?\s*[=:]\s*['\"]?)"
            r"[^\s'\",;}&]+",
            re.I,
        ),
        r"\1***",
    ),
)

_HINT = re.compile(r"://|bearer|basic|auth|pass|secret|key|token", re.I)  # without one of these no pattern can match
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # what would begin a line of its own, or steer a terminal
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}

# aiosmtpd logs lines of the message at DEBUG and of the session at INFO; the others tell each call with its arguments.
_TAMED = {
    "mail.log": logging.ERROR,
    "mail.debug": logging.CRITICAL,
    "aiosmtplib": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "dramatiq": logging.WARNING,
    "imapclient": logging.ERROR,
    "asyncio": logging.WARNING,
    "psycopg": logging.WARNING,
    "psycopg.pool": logging.ERROR,
}


def setup(settings: Settings, role: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process, with the name of its role, to stderr. May be called again."""
    out = stream or sys.stderr
    text = settings.log_format == "text" or (settings.log_format == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(Text(role, colour=out.isatty() and "NO_COLOR" not in os.environ) if text else Json(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[settings.log_level])
    for name, level in _TAMED.items():
        logging.getLogger(name).setLevel(level)
    # Who called, in which thread: never shown, and looked up for each line (logging HOWTO, Optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)
    sys.excepthook = _last_words
    threading.excepthook = lambda args: _last_words(args.exc_type, args.exc_value, args.exc_traceback)


def redact(text: str) -> str:
    """The text without what looks like a credential: URL passwords, bearer tokens, AUTH lines, `password=...`."""
    if text.isalnum() or not _HINT.search(text):  # a line is logged for each message: most have nothing to hide
        return text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class Json(logging.Formatter):
    """One JSON object a line: time, level, role, logger, message, the fields of `extra=`, exception."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "role": self.role,
            "logger": record.name,
            "message": _message(record),
        }
        line.update(_fields(record))
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return _encode(line)


class Text(logging.Formatter):
    """The same for people: `10:12:01.345 worker  warning  message  account=a1`; an exception follows, indented."""

    def __init__(self, role: str, *, colour: bool = False) -> None:
        super().__init__()
        self.role, self.colour = role, colour

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f"  {name}={value}" for name, value in _fields(record))
        time = _time(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        line = f"{time} {self.role:<9} {record.levelname.lower():<7} {_message(record)}{fields}"
        if record.exc_info:
            told = redact(self.formatException(record.exc_info)).split("\n")
            line += "".join(f"\n    {_one_line(part)}" for part in told)
        code = _COLOURS.get(record.levelno)
        return f"\x1b[{code}m{line}\x1b[0m" if self.colour and code else line


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except (TypeError, ValueError):  # a call whose arguments do not fit its format still deserves its line
        text = str(record.msg)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"
    return _one_line(redact(text))


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    for name in FIELDS:
        value = record.__dict__.get(name)
        if value is not None:
            yield name, _one_line(redact(value[:LONGEST])) if isinstance(value, str) else value


def _one_line(text: str) -> str:
    r"""With \n, \x1b for what is more than a character: clients choose paths, upstreams their replies."""
    if text.isprintable():
        return text
    return _CONTROLS.sub(lambda control: control[0].encode("unicode_escape").decode(), text)


def _last_words(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """What nobody caught: a line like any other, never a bare traceback."""
    if error is None or issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return
    logging.getLogger("postferry").critical("stopped by an unexpected error: %s", error, exc_info=(kind, error, trace))
