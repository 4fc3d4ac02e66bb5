"""The contract run: what it asks stays on this machine and spares what it stands on, and what it finds is told."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.contract.__main__ import judged, table
from tests.contract.tamer import HERE, Tamer

TAMER = Tamer({"account": ["anvil", "bellows"], "endpoint": [7], "queueId": ["a" * 32]}, kept=[11, 12], closed=999)
REPORT: dict[str, Any] = {
    "running_time": 9.5,
    "operations": {"selected": 54, "tested": 54},
    "test_cases": {"generated": 100},
    "failures": [],
    "errors": [],
    "valid_rates": {"GET /a": {"fuzzing": {"accepted": 1}}, "GET /b": {"fuzzing": {"accepted": 0}}},
}
FAILURE = {"title": "Undocumented status code", "code": "ST103", "operations": ["GET /a"]}
REFUSED = '{"status": 404, "path": "/a"}\nno JSON\n{"status": 503}\n{"message": "listening"}\n'


@pytest.fixture
def told(tmp_path: Path) -> Any:
    """What a run comes to whose tool reports so."""

    def told(log: str = "", **changed: Any) -> Any:
        (tmp_path / "r.json").write_text(json.dumps(REPORT | changed))
        return judged("x", tmp_path / "r.json", tmp_path / "r.txt", log)

    return told


@pytest.mark.parametrize("good", [True, False])
def test_no_body_leads_out_of_this_machine(good: bool) -> None:
    wild = {"host": "mx.example.com", "port": 25, "url": "https://example.com/", "more": [{"baseUrl": "x", "port": 1}]}
    tamed = TAMER.body("POST", "/v1/account", {"smtp": wild}, good=good)
    here = f"http://{HERE}:999/"
    assert tamed == {"smtp": {"host": HERE, "port": 999, "url": here, "more": [{"baseUrl": here, "port": 999}]}}


def test_what_is_wrong_stays_wrong() -> None:
    wrong = {"host": 7, "port": "x", "url": None, "smtp": [True, {"port": False}], "address": "none"}
    assert TAMER.body("POST", "/v1/account", wrong, good=False) == wrong


@pytest.mark.parametrize(
    ("path", "parts", "spared"),
    [
        ("/v1/account/{account}", {"account": "anvil"}, True),
        ("/v1/account/{account}", {"account": "other"}, False),
        ("/v1/tokens/{token}", {"token": 11}, True),
        ("/v1/tokens/{token}", {"token": "12"}, True),
        ("/v1/tokens/{token}", {"token": 13}, False),
        ("/v1/webhooks/{endpoint}", {"endpoint": 7}, True),
        ("/v1/suppressions/{account}/{address}", {"account": "anvil", "address": "a@b"}, False),
    ],
)
def test_what_the_run_stands_on_is_not_deleted(path: str, parts: dict[str, Any], spared: bool) -> None:
    now = dict(parts)
    TAMER.spare("DELETE", path, now)
    assert (now != parts) is spared
    now = dict(parts)
    TAMER.spare("GET", path, now)
    assert now == parts


def test_half_of_what_is_well_formed_leads_somewhere() -> None:
    seen: Counter[bool] = Counter()
    for number in range(200):
        parts = {"account": f"a{number}", "queueId": f"{number:032x}", "endpoint": str(number), "other": "x"}
        TAMER.lead(parts)
        seen[parts["account"] in TAMER.known["account"]] += 1
        assert parts["other"] == "x"
    assert min(seen.values()) > 60
    wrong = {"account": "no account!", "queueId": "g", "endpoint": "x"}
    TAMER.lead(now := dict(wrong))
    assert now == wrong


def test_a_run_without_faults_has_none(told: Any) -> None:
    outcome = told(REFUSED)
    assert outcome.faults == ()
    assert (outcome.operations, outcome.cases, outcome.accepted) == (54, 100, 1)
    assert outcome.statuses == {"4xx": 1, "5xx": 1}
    assert "| x | 10 s | 54 | 1 | 100 | 1 | 1 | 0 |" in table([outcome])


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"failures": [FAILURE]}, "Undocumented status code (ST103): GET /a"),
        ({"errors": [{"title": "Network error", "operations": ["GET /b"]}]}, "Network error (error): GET /b"),
        ({"errors": ["something"]}, "something (error): ?"),
        ({"operations": {"selected": 54, "tested": 50}}, "only 50 of 54 operations were asked"),
    ],
)
def test_what_the_tool_found_is_a_fault(told: Any, changed: dict[str, Any], fault: str) -> None:
    assert told(**changed).faults == (fault,)


def test_a_traceback_of_the_role_is_a_fault_whatever_it_answered(told: Any) -> None:
    (fault,) = told("all well\nTraceback (most recent call last):\n  boom\n").faults
    assert fault.startswith("the role raised what nobody caught: Traceback")


def test_a_tool_that_broke_off_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("cannot load the schema")
    assert "cannot load the schema" in judged("x", tmp_path / "r.json", tmp_path / "r.txt", "").faults[0]
