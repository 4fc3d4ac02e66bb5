"""`postferry report`: what a stranger wrote into a report moves nobody's terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relay import cli

REPORT = """From: MAILER-DAEMON@there.example
Content-Type: multipart/report; boundary=b

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.there.example

Final-Recipient: rfc822; v@x.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 \x9b31mRED\u202eX
--b--
"""


def test_controls_are_spelt_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.eml"
    path.write_text(REPORT.replace("\n", "\r\n"), newline="")
    assert cli.main(["report", str(path)]) == 0
    said = capsys.readouterr().out
    assert not {"\x9b", "\u202e"} & set(said)
    assert "v@x.example" in str(json.loads(said))
    assert "RED" in said


def test_a_file_that_cannot_be_read_keeps_none_from_being_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.eml"
    path.write_text(REPORT)
    assert cli.main(["report", str(tmp_path / "gone.eml"), str(path)]) == 64
    said = capsys.readouterr()
    assert json.loads(said.out)["file"] == str(path)
    assert "cannot read" in said.err
