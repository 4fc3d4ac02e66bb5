"""Metrics: one process, many processes, bounded labels, and the page that Prometheus reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from relay import meters, scrape, settings


def run(script: str, folder: Path | None = None) -> str:
    """A process of its own: metrics live as long as their process."""
    given = {**os.environ, **({"POSTFERRY_METRICS_DIR": str(folder)} if folder else {})}
    given.pop("PROMETHEUS_MULTIPROC_DIR", None)
    head = "from relay import metrics, scrape, settings; metrics.prepare(settings.read(dotenv=None))\n"
    done = subprocess.run([sys.executable, "-c", head + script], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


SHOW = "\nprint(scrape.page().decode())"


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

    with meters.settled(tmp_path):
        assert not list(tmp_path.glob("*.db"))


def test_a_process_that_dies_again_and_again_leaves_one_sum(tmp_path: Path) -> None:
    """And another one that died before it had written anything keeps nobody from the rest."""
    shown = run(
        "import os\nfrom pathlib import Path\n"
        "metrics.REDIS_ERRORS.inc()\n"
        "for _ in range(5):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        metrics.REDIS_ERRORS.inc(); metrics.COMMIT_SIZE.labels('accept').observe(3); os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    scrape.page()\n"
        "Path(os.environ['PROMETHEUS_MULTIPROC_DIR'], 'counter_999999999.db').touch()" + SHOW,
        tmp_path,
    )

    assert "postferry_redis_errors_total 6.0" in shown
    assert 'postferry_commit_size_count{kind="accept"} 5.0' in shown
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
    assert len(list(tmp_path.glob("histogram_*.db"))) == 1


def test_accounts_past_the_bound_are_other() -> None:
    shown = run(
        "for n in range(300): metrics.UNKNOWN.labels(metrics.account_label(f'a{n}')).inc()\n"
        "metrics.UNKNOWN.labels(metrics.account_label('a5')).inc()" + SHOW
    )

    assert 'postferry_unknown_total{account="other"} 100.0' in shown
    assert 'postferry_unknown_total{account="a5"} 2.0' in shown
    assert shown.count("postferry_unknown_total{") == 201


def test_what_is_read_for_the_occasion_is_shown_beside_what_was_counted() -> None:
    shown = run(
        "metrics.REDIS_ERRORS.inc(); depth = metrics.QUEUE_DEPTH.at\n"
        "print(scrape.page([depth(2, 'a0', 'queued'), depth(1, 'a1', 'held')]).decode())"
    )

    assert 'postferry_queue_depth{account="a0",state="queued"} 2.0' in shown
    assert 'postferry_queue_depth{account="a1",state="held"} 1.0' in shown
    assert "postferry_redis_errors_total 1.0" in shown
    assert shown.count("# TYPE postferry_queue_depth gauge") == 1


def test_what_runs_and_how_full_its_disk_is_are_shown_by_everybody(tmp_path: Path) -> None:
    shown = run(SHOW, tmp_path)

    assert re.search(r'postferry_build_info\{python="3[.\d]+",version="\d[^"]*"\} 1.0', shown)
    free, total = (
        float(re.search(rf'postferry_disk_{one}_bytes{{place="metrics"}} (\S+)', shown)[1]) for one in ("free", "total")
    )
    assert 0 < free <= total == shutil.disk_usage(tmp_path).total


def test_a_place_that_is_not_there_has_no_disk(tmp_path: Path) -> None:
    assert scrape.disks({"database": tmp_path / "none"}) == []


LIVE = """
import asyncio, os
from relay import scrape, vitals
async def live(does):
    async with vitals.told("worker"):
        await asyncio.sleep(0.01)
        does()
child = os.fork()
if child == 0:
    sum(range(20_000_000))
    asyncio.run(live(lambda: None))
    os._exit(0)
os.waitpid(child, 0)
asyncio.run(live(lambda: print(scrape.page().decode())))
"""


def test_a_process_tells_of_itself_and_its_processor_time_outlives_it(tmp_path: Path) -> None:
    shown = run(LIVE, tmp_path)

    assert 'postferry_processes{role="worker"} 1.0' in shown
    assert 'postferry_process_resident_bytes{role="worker"}' in shown
    alone = run(LIVE.replace("sum(range(20_000_000))", "pass"), tmp_path / "alone")
    spent, less = (float(re.search(r'cpu_seconds_total{role="worker"} (\S+)', text)[1]) for text in (shown, alone))
    assert spent > less > 0


def test_a_role_without_the_api_shows_its_page() -> None:
    shown = run(
        "import socket, urllib.request, dataclasses\n"
        "with socket.socket() as probe:\n"
        "    probe.bind(('127.0.0.1', 0)); port = probe.getsockname()[1]\n"
        "metrics.AUTH_FAILURES.labels('smtp').inc()\n"
        "given = settings.read({'POSTFERRY_METRICS_PORT': str(port)}, None)\n"
        "one, two = scrape.expose(given), scrape.expose(given)\n"
        "assert one and two, 'several processes of a role share the port'\n"
        "print(urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics').read().decode())"
    )

    assert 'postferry_auth_failures_total{ingress="smtp"} 1.0' in shown


def test_no_port_no_page() -> None:
    assert scrape.expose(settings.read({}, None)) is None


def test_unknown_pages_are_not_found() -> None:
    server = scrape._Server(("127.0.0.1", 0), scrape._Handler)
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
