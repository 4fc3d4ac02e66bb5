"""A question to Redis without a client library, over the real one and over liars."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from relay.net import resp


def test_the_real_one_answers(redis_url: str) -> None:
    assert resp.ask(redis_url, "PING") == "PONG"
    assert "redis_version:" in resp.ask(redis_url, "INFO")
    assert resp.ask(redis_url, "GET", "nothing") == ""
    assert resp.ask(redis_url, "DBSIZE") == "0"
    assert resp.ask(redis_url, "CONFIG", "GET", "maxmemory-policy") == "maxmemory-policy noeviction"


def test_its_refusal_is_told(redis_url: str) -> None:
    with pytest.raises(resp.Away, match="unknown command"):
        resp.ask(redis_url, "NONSENSE")


@contextmanager
def liar(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server of one connection that says these things, one a question, then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(10)
        heard: list[bytes] = []

        def serve() -> None:
            line, _ = door.accept()
            line.settimeout(10)
            with line:
                for answer in answers:
                    heard.append(line.recv(1000))
                    line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{door.getsockname()[1]}", heard
        finally:
            thread.join()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"220 mail.example.com ESMTP\r\n", "no Redis"),
        (b"", "closed"),
        (b"$5\r\nab", "closed"),
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH"),
    ],
)
def test_who_is_not_redis_is_found_out(answer: bytes, words: str) -> None:
    with liar(answer) as (place, _), pytest.raises(resp.Away, match=words):
        resp.ask(f"redis://{place}", "PING")


def test_user_and_password_are_said_first() -> None:
    with liar(b"+OK\r\n", b"+PONG\r\n") as (place, heard):
        assert resp.ask(f"redis://me:p%40ss@{place}", "PING") == "PONG"

    assert heard[0] == b"*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$4\r\np@ss\r\n"


def test_nobody_there_is_away() -> None:
    with pytest.raises(resp.Away, match=r"^127\.0\.0\.1 port 1: Connection refused"):
        resp.ask("redis://me:hunter2@127.0.0.1:1", "PING")
    with pytest.raises(resp.Away, match=r"^/nowhere\.sock: No such file or directory"):
        resp.ask("unix:///nowhere.sock", "PING")
