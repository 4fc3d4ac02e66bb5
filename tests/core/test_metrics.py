"""Metrics: one process, many processes, bounded labels, and the page that Prometheus reads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from relay import metrics, settings


def run(script: str, folder: Path | None = None) -> str:
    """A process of its own: metrics live as long as their process."""
    given = {**os.environ, **({"POSTFERRY_METRICS_DIR": str(folder)} if folder else {})}
    given.pop("PROMETHEUS_MULTIPROC_DIR", None)
    head = "from relay import metrics, settings; metrics.prepare(settings.read(dotenv=None))\n"
    done = subprocess.run([sys.executable, "-c", head + script], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


SHOW = "\nprint(metrics.exposition().decode())"


def test_one_process_shows_its_own() -> None:
    assert 'postferry_accepted_total{ingress="smtp"} 2.0' in run("metrics.ACCEPTED.labels('smtp').inc(2)" + SHOW)


def test_a_metric_without_labels_is_used_directly() -> None:
    shown = run("metrics.STORE_ERRORS.inc(); metrics.ACCEPT_TO_SENT_SECONDS.observe(.02)" + SHOW)

    assert "postferry_store_errors_total 1.0" in shown
    assert 'postferry_accept_to_sent_seconds_bucket{le="0.025"} 1.0' in shown


def test_no_error_yet_is_shown_as_zero() -> None:
    shown = run(SHOW)

    assert "postferry_store_errors_total 0.0" in shown
    assert "postferry_redis_errors_total 0.0" in shown
    assert 'postferry_leases_total{kind="recovered"} 0.0' in shown


def test_processes_that_share_a_folder_are_added_up(tmp_path: Path) -> None:
    shown = run(
        "import subprocess, sys\n"
        "metrics.ACCEPTED.labels('smtp').inc(2)\n"
        "child = 'from relay import metrics; metrics.ACCEPTED.labels(\"smtp\").inc(3)'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)" + SHOW,
        tmp_path / "metrics",
    )

    assert 'postferry_accepted_total{ingress="smtp"} 5.0' in shown


def test_the_order_of_imports_does_not_matter(tmp_path: Path) -> None:
    given = {**os.environ, "POSTFERRY_METRICS_DIR": str(tmp_path)}
    script = (
        "import prometheus_client\nfrom relay import metrics, settings\n"
        "metrics.prepare(settings.read(dotenv=None)); metrics.REDIS_ERRORS.inc()"
    )

    subprocess.run([sys.executable, "-c", script], env=given, check=True)

    assert list(tmp_path.glob("counter_*.db"))


def test_gauges_of_dead_processes_do_not_count_but_their_counters_do(tmp_path: Path) -> None:
    shown = run(
        "import os\n"
        "metrics.CONNECTIONS.labels('smtp', 'in').inc()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    metrics.CONNECTIONS.labels('smtp', 'in').inc(7); metrics.REDIS_ERRORS.inc(); os._exit(0)\n"
        "os.waitpid(child, 0)" + SHOW,
        tmp_path,
    )

    assert 'postferry_connections{direction="in",role="smtp"} 1.0' in shown
    assert "postferry_redis_errors_total 1.0" in shown


def test_a_folder_of_the_dead_is_emptied(tmp_path: Path) -> None:
    run("metrics.REDIS_ERRORS.inc()", tmp_path)
    assert list(tmp_path.glob("*.db"))

    metrics.bury(tmp_path)

    assert not list(tmp_path.glob("*.db"))


def test_accounts_past_the_bound_are_other() -> None:
    shown = run(
        "for n in range(300): metrics.UNKNOWN.labels(metrics.account_label(f'a{n}')).inc()\n"
        "metrics.UNKNOWN.labels(metrics.account_label('a5')).inc()" + SHOW
    )

    assert 'postferry_unknown_total{account="other"} 100.0' in shown
    assert 'postferry_unknown_total{account="a5"} 2.0' in shown
    assert shown.count("postferry_unknown_total{") == 201


def test_queue_depth_comes_from_the_database_and_is_bounded_too() -> None:
    shown = run("print(metrics.exposition([(f'a{n}', 'queued', 2) for n in range(250)]).decode())")

    assert 'postferry_queue_depth{account="a0",state="queued"} 2.0' in shown
    assert 'postferry_queue_depth{account="other",state="queued"} 100.0' in shown


def test_a_role_without_the_api_shows_its_page() -> None:
    shown = run(
        "import socket, urllib.request, dataclasses\n"
        "with socket.socket() as probe:\n"
        "    probe.bind(('127.0.0.1', 0)); port = probe.getsockname()[1]\n"
        "metrics.AUTH_FAILURES.labels('smtp').inc()\n"
        "given = settings.read({'POSTFERRY_METRICS_PORT': str(port)}, None)\n"
        "one, two = metrics.expose(given), metrics.expose(given)\n"
        "assert one and two, 'several processes of a role share the port'\n"
        "print(urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics').read().decode())"
    )

    assert 'postferry_auth_failures_total{ingress="smtp"} 1.0' in shown


def test_no_port_no_page() -> None:
    assert metrics.expose(settings.read({}, None)) is None


def test_unknown_pages_are_not_found() -> None:
    server = metrics._Server(("127.0.0.1", 0), metrics._Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/else")
    caught.value.close()
    server.shutdown()
    server.server_close()
    assert caught.value.code == 404


def test_importing_metrics_is_cheap() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, relay.metrics; print('prometheus_client' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "False"
