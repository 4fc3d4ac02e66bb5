"""Redis being away is told in our words, once a minute, whoever noticed it and however often."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dramatiq
import pytest
import redis

from workers.broker import BrokerAway
from workers.outage import AGAIN, THEIRS, Outage

REFUSED = dramatiq.errors.ConnectionClosed("Error 111 connecting to 127.0.0.1:1. Connection refused.")


def test_each_minute_has_one_line(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    outage = Outage(lambda: now[0])
    for seconds in (0, 0.5, AGAIN - 1, AGAIN, AGAIN + 1, 2 * AGAIN):
        now[0] = seconds
        outage.tell(BrokerAway("Connection refused."))

    assert len(caplog.records) == 3
    assert caplog.records[0].levelname == "WARNING"
    assert "Redis cannot be reached, or refuses us: Connection refused. Mail is accepted" in caplog.messages[0]


def test_dramatiqs_lines_about_it_are_taken_and_others_left(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    outage.listen()
    logger = logging.getLogger(THEIRS[-1])
    try:
        logger.critical("Consumer encountered a connection error: %s", REFUSED)
        try:
            raise redis.TimeoutError("Timeout reading from socket")
        except redis.TimeoutError:
            logger.critical("Consumer encountered an unexpected error.", exc_info=True)
        logger.warning("Message %s was skipped.", 7)
    finally:
        for name in THEIRS:
            logging.getLogger(name).removeFilter(outage)

    assert [record.name for record in caplog.records] == ["postferry.redis", THEIRS[-1]]


def test_a_worker_without_redis_says_so_once(environ: dict[str, str], tmp_path: Path) -> None:
    """dramatiq tries each queue every three seconds."""
    log = tmp_path / "log"
    with log.open("wb") as out:
        given = {**os.environ, **environ, "REDIS_URL": "redis://127.0.0.1:1"}
        worker = subprocess.Popen([sys.executable, "-P", "-m", "workers"], env=given, stderr=out)
    try:
        until = time.monotonic() + 60
        while not log.read_bytes() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(4)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
    (line,) = log.read_text().splitlines()
    assert '"warning"' in line
    assert "Redis cannot be reached" in line
