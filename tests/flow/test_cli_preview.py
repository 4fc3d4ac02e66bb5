"""`postferry preview`: the upstream's bytes on stdout, or exit 65 and the reason."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay import cli
from tests.flow.conftest import Postferry

HEAD = (
    b"From: Ann <ann@example.com>\r\nTo: you@example.com\r\nSubject: hi\r\nDate: Thu, 1 Jan 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n"
)
BODY = b"\r\n<html><body>Hello</body></html>\r\n"
TO = ("--to", "you@example.com")


Preview = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def preview(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Preview:
    """Exit code, stdout and stderr of a preview of this content, byte for byte."""
    monkeypatch.chdir(tmp_path)

    def run(content: bytes, *argv: str) -> tuple[int, bytes, bytes]:
        (tmp_path / "message.eml").write_bytes(content)
        capfdbinary.readouterr()
        code = cli.main(["preview", "message.eml", *(argv or TO)])
        seen = capfdbinary.readouterr()
        return code, seen.out, seen.err

    return run


def test_without_tracking_the_bytes_are_the_same(preview: Preview) -> None:
    code, out, err = preview(HEAD + BODY, *TO, "--no-track")

    assert (code, out, err) == (0, HEAD + BODY, b"")


def test_with_tracking_one_pixel_is_put_before_the_body_ends(preview: Preview) -> None:
    _, out, _ = preview(HEAD + BODY)

    assert re.fullmatch(re.escape(HEAD) + rb"\r\n<html><body>Hello<img [^>]*></body></html>\r\n", out)


def test_line_feeds_are_read_as_crlf_and_the_last_line_is_closed(preview: Preview) -> None:
    _, out, _ = preview((HEAD + BODY).replace(b"\r\n", b"\n").removesuffix(b"\n"), *TO, "--no-track")

    assert out == HEAD + BODY


def test_bcc_and_control_headers_go(preview: Preview) -> None:
    ours = b"Bcc: x@example.com\r\nX-Account: shop\r\nX-Send-At: 2026-01-01T10:00:00Z\r\n"

    _, out, _ = preview(ours + HEAD + BODY, *TO, "--no-track")

    assert out == HEAD + BODY


def test_a_message_may_ask_for_no_tracking(preview: Preview) -> None:
    _, out, _ = preview(b"X-Track-Opens: false\r\n" + HEAD + BODY)

    assert out == HEAD + BODY


def test_each_preview_has_a_pixel_of_its_own(preview: Preview) -> None:
    assert preview(HEAD + BODY)[1] != preview(HEAD + BODY)[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEAD + BODY.replace(b"Hello", b"Hel\rlo"), b"carriage return"),
        (HEAD + BODY.replace(b"Hello", b"Hel\0lo"), b"NUL"),
        (b"", b"550 5.6"),
        (b"X-Send-At: yesterday-ish\r\n" + HEAD + BODY, b"5.6.0"),
        (b"Received: from a\r\n" * 51 + HEAD + BODY, b"5.4.6"),
    ],
)
def test_what_the_ingress_refuses_ends_with_65_and_the_reason(preview: Preview, content: bytes, words: bytes) -> None:
    code, out, err = preview(content)

    assert code == 65
    assert out == b""
    assert words in err
    assert b"Traceback" not in err


@pytest.mark.parametrize("address", ["", "you", "a b@example.com", "you@example.com>\r\nRCPT TO:<x@y.z", "you@"])
def test_a_bad_recipient_is_refused(preview: Preview, address: str) -> None:
    assert preview(HEAD + BODY, "--to", address)[0] == 65


def test_no_file_is_a_usage_error(preview: Preview, tmp_path: Path) -> None:
    assert cli.main(["preview", "nowhere.eml", *TO]) == 64


def test_it_reads_stdin(process: Postferry) -> None:
    done = process("preview", "-", *TO, "--no-track", stdin=HEAD + BODY)

    assert done.code == 0
    assert done.out.encode() == HEAD + BODY


def test_it_loads_no_server_library(tmp_path: Path) -> None:
    (tmp_path / "m.eml").write_bytes(HEAD + BODY)
    script = (
        "import sys; from relay import cli; cli.main(['preview', 'm.eml', '--to', 'a@example.com'])\n"
        "heavy = {'psycopg', 'asyncio', 'cryptography', 'prometheus_client', 'aiohttp', 'dramatiq'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert done.stderr.strip() == "[]"
