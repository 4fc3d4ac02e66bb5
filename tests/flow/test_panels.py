"""The rules and the dashboard as files: sound, explained, and about metrics and labels that there are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from api.app import OPERATIONS
from relay import commands, metrics
from relay.meters import Counter
from tests.flow.watched import (
    ALERTS,
    DASHBOARD,
    DEPLOY,
    NAME,
    PANELS,
    RULES,
    RULES_TEST,
    declared,
    expressions,
    families,
    labels,
    promtool,
)

PAGE = (DEPLOY.parent / "docs/metrics.md").read_text()
PATH = re.compile(r"/v1/[\w/]+")
LABELLED = re.compile(r"\bmetrics\.([A-Z_]+)\.labels\(([^()]*)\)")


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-compose.yml"])
def test_a_configuration_is_sound_with_its_rules_and_token_beside_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.token").write_text("token\n")
    for path in (DEPLOY / name, RULES):
        shutil.copy(path, tmp_path)
    promtool("check", "config", tmp_path / name)


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


def test_runbooks_send_people_to_panels_and_commands_that_there_are() -> None:
    runbooks = " ".join(re.findall(r"runbook: >-\n((?: {12}.*\n)+)", RULES.read_text()))
    text = re.sub(r"\s+", " ", runbooks)
    titles = {panel["title"] for panel in PANELS}
    assert set(re.findall(r'"([A-Z][^"]*)"', text)) - titles == set()
    assert [name for name in re.findall(r"`postferry (\w+)", text) if commands.find(name) is None] == []
    paths = {operation.path for operation in OPERATIONS}
    asked = {
        path.replace("/account/ID", "/account/{account}").replace("ID", "{endpoint}") for path in PATH.findall(text)
    }
    assert asked - paths == set()


@pytest.mark.parametrize("path", [RULES, RULES_TEST], ids=lambda path: path.name)
def test_rules_ask_for_labels_that_the_metric_has(path: Path) -> None:
    assert {(metric, label) for metric, label in labels(path.read_text()) if label not in declared()[metric]} == set()


def test_panels_ask_for_labels_that_the_metric_has() -> None:
    text = " ".join(expr for panel in PANELS for expr in expressions(panel))
    assert {(metric, label) for metric, label in labels(text) if label not in declared()[metric]} == set()


def test_panels_put_hosts_together() -> None:
    """A metric comes once from each host that is scraped: as it is, it would be lines of the same name."""
    alone = [expr for panel in PANELS for expr in expressions(panel) if not re.search(r"\b(sum|max|min|count)\b", expr)]
    assert alone == []


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


def test_the_page_has_every_metric_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(postferry_\w+)` \| ([\w, ]*)\| \S", PAGE, re.MULTILINE)
    assert {name: tuple(re.findall(r"\w+", labels)) for name, labels in rows} == families()


def test_the_page_has_every_value_of_a_label_that_the_code_spells_out() -> None:
    rows = dict(re.findall(r"^\| `(postferry_\w+)` \| [\w, ]*\| (.*)", PAGE, re.MULTILINE))
    of_all = re.findall(r"^\*\*Labels are few\.\*\*.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)[0]
    missing, found = [], 0
    for path in (path for folder in ("relay", "api", "workers") for path in (DEPLOY.parent / folder).rglob("*.py")):
        for family, given in LABELLED.findall(path.read_text()):
            metric = getattr(metrics, family)
            row = rows[f"{metric.name}_total" if isinstance(metric, Counter) else metric.name]
            values = re.findall(r'"([\w-]+)"', given)
            found += len(values)
            missing += [(family, value) for value in values if not re.search(rf"\b{value}\b", row + of_all)]
    assert found
    assert missing == []


def test_the_page_has_every_alert_and_every_row() -> None:
    for alert in ALERTS:
        assert f"| `{alert.removeprefix('Postferry')}` |" in PAGE
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            assert f"**{panel['title'].rstrip('.?')}" in PAGE


def test_the_page_names_panels_that_there_are() -> None:
    assert set(re.findall(r'"([A-Z][^"\n]*)"', PAGE)) - {panel["title"] for panel in PANELS} == set()
