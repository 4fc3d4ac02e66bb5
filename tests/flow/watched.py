"""What lies in deploy/ for those who watch: the dashboard's panels, the alerts, and the metrics that they name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import metrics
from relay.meters import Counter, Figure, Gauge, Histogram

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
RULES = DEPLOY / "alerts.yml"
RULES_TEST = DEPLOY.parent / "tests/data/alerts_test.yml"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/postferry.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = re.findall(r"^ *- alert: (\w+)$", RULES.read_text(), re.MULTILINE)
GRAFANA = {"$account": ".*", "$__rate_interval": "5s"}
NAME = re.compile(r"\bpostferry_\w+")
SELECTOR = re.compile(r"\b(postferry_\w+)\{([^}]*)\}")


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here (Debian: apt install prometheus)")
    return found


def promtool(*args: str | Path, **given: Any) -> None:
    done = subprocess.run([tool("promtool"), *map(str, args)], capture_output=True, text=True, timeout=240, **given)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions(panel: dict[str, Any]) -> list[str]:
    """As Grafana would send them."""
    found = [target["expr"] for target in panel["targets"]]
    for name, value in GRAFANA.items():
        found = [expr.replace(name, value) for expr in found]
    return found


def families() -> dict[str, tuple[str, ...]]:
    """Every metric of relay/metrics.py by the name that it is known by, with its labels."""
    kinds = (Counter, Gauge, Histogram, Figure)
    found = [one for one in vars(metrics).values() if isinstance(one, kinds)]
    return {f"{one.name}_total" if isinstance(one, Counter) else one.name: one.label_names for one in found}


def declared() -> dict[str, tuple[str, ...]]:
    """Every name that they are exported by: a histogram has three."""
    names = families()
    for one in vars(metrics).values():
        if isinstance(one, Histogram):
            labels = names.pop(one.name)
            names |= {f"{one.name}_count": labels, f"{one.name}_sum": labels, f"{one.name}_bucket": (*labels, "le")}
    return names


def named() -> set[str]:
    """Metrics that a panel or an alert asks for."""
    text = RULES.read_text() + " ".join(expr for panel in PANELS for expr in expressions(panel))
    return set(NAME.findall(text))


def labels(text: str) -> Iterator[tuple[str, str]]:
    """Metric and label of every selector, but for those that Prometheus itself adds."""
    for metric, inside in SELECTOR.findall(text):
        for label in re.findall(r"(\w+)\s*[=!]", inside):
            if label not in ("instance", "job"):
                yield metric, label
