"""The rules and the dashboard as files: sound, explained, and about metrics and labels that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.flow.watched import (
    ALERTS,
    DASHBOARD,
    NAME,
    PANELS,
    RULES,
    RULES_TEST,
    declared,
    expressions,
    labels,
    promtool,
)


def test_the_rules_are_sound() -> None:
    promtool("check", "rules", RULES)


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", RULES_TEST)


@pytest.mark.parametrize("alert", ALERTS)
def test_no_alert_is_without_a_test(alert: str) -> None:
    scenario = re.search(rf"- name: '{alert}: .*?(?=\n  - name|\Z)", RULES_TEST.read_text(), re.DOTALL)
    assert scenario is not None
    assert "exp_samples: []" in scenario[0]
    assert f"exp_samples: [{{labels: '{{alertname=\"{alert}\"}}', value: 1}}]" in scenario[0]


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_it_means_and_what_to_do(alert: str) -> None:
    rule = re.search(rf"- alert: {alert}\n.*?(?=\n      - alert|\n\n|\Z)", RULES.read_text(), re.DOTALL)
    assert rule is not None
    for part in ("severity: (critical|warning|info)", "summary: ", "description: ", "runbook: "):
        assert re.search(part, rule[0]), part


@pytest.mark.parametrize("path", [RULES, RULES_TEST], ids=lambda path: path.name)
def test_rules_ask_for_labels_that_the_metric_has(path: Path) -> None:
    assert {(metric, label) for metric, label in labels(path.read_text()) if label not in declared()[metric]} == set()


def test_panels_ask_for_labels_that_the_metric_has() -> None:
    text = " ".join(expr for panel in PANELS for expr in expressions(panel))
    assert {(metric, label) for metric, label in labels(text) if label not in declared()[metric]} == set()


def test_panels_have_ids_of_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_no_panel_covers_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= 24
        for cell in ((place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_teaches_and_is_read_without_guessing(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 60
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert target["datasource"] == panel["datasource"]
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["showLegend"]


def test_rows_are_what_operators_ask() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Is mail flowing?",
        "How late is it?",
        "Who is held and why",
        "Upstream by upstream",
        "Opens, bounces, and who is told",
        "Machinery",
    ]


def test_the_dashboard_asks_for_a_source_and_accounts() -> None:
    variables = {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "account": "query"}
    assert set(NAME.findall(DASHBOARD["templating"]["list"][1]["definition"])) <= declared().keys()
