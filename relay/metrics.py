"""Every metric, with its meaning. Safe with many processes: they share the folder POSTFERRY_METRICS_DIR.

Nothing of the metrics library is loaded before a metric is used, so the order of imports does not matter: a role calls
`prepare(settings)` once, first thing, and all its metrics land in the shared folder.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import prometheus_client
    from prometheus_client.metrics_core import Metric as Sampled

    from relay.settings import Settings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_ACCOUNTS = 200  # accounts with label values of their own in one process; all others are "other"
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "postferry_"

_log = logging.getLogger("postferry.metrics")
_lock = threading.RLock()
_registry: prometheus_client.CollectorRegistry | None = None
_accounts: dict[str, str] = {}

Child = TypeVar("Child", "prometheus_client.Counter", "prometheus_client.Gauge", "prometheus_client.Histogram")


class _Family(Generic[Child]):
    """A metric of ours. `labels(...)` is one dictionary look-up once a label set has been seen."""

    kind: str

    def __init__(self, name: str, meaning: str, *labels: str, **options: object) -> None:
        self.name, self.meaning, self.label_names, self.options = _PREFIX + name, meaning, labels, options
        self._children: dict[tuple[str, ...], Child] = {}
        self._parent: Child | None = None

    def labels(self, *values: str) -> Child:
        """The child of these label values, in the order of `label_names`."""
        try:
            return self._children[values]
        except KeyError:
            return self._child(values)

    def _child(self, values: tuple[str, ...]) -> Child:
        import prometheus_client

        with _lock:
            if self._parent is None:
                kind = getattr(prometheus_client, self.kind)
                self._parent = kind(self.name, self.meaning, self.label_names, registry=_own(), **self.options)
            child: Child = self._parent.labels(*values) if self.label_names else self._parent
            self._children[values] = child
        return child


class Counter(_Family["prometheus_client.Counter"]):
    """Only ever grows. The name is shown with `_total`."""

    kind = "Counter"

    def inc(self, amount: float = 1) -> None:
        self.labels().inc(amount)


class Gauge(_Family["prometheus_client.Gauge"]):
    """Goes up and down; processes that died do not count."""

    kind = "Gauge"

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        super().__init__(name, meaning, *labels, multiprocess_mode="livesum")


class Histogram(_Family["prometheus_client.Histogram"]):
    """A distribution over the given upper bounds."""

    kind = "Histogram"

    def __init__(self, name: str, meaning: str, *labels: str, buckets: Iterable[float]) -> None:
        super().__init__(name, meaning, *labels, buckets=tuple(buckets))

    def observe(self, amount: float) -> None:
        self.labels().observe(amount)


_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TALK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LIFE = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200, 259200)
_COUNT = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

ACCEPTED = Counter("accepted", "Messages stored and acknowledged", "ingress")
ACCEPT_SECONDS = Histogram("accept_seconds", "From the last byte received to the COMMIT", "ingress", buckets=_QUICK)
REFUSED = Counter("refused", "Submissions refused, by class of reason (its enhanced status code)", "ingress", "reason")
AUTH_FAILURES = Counter("auth_failures", "Logins and tokens refused at our doors", "ingress")
OUTCOMES = Counter("outcomes", "Tries of a delivery, by what became of them", "account", "outcome")
ATTEMPT_SECONDS = Histogram("attempt_seconds", "One try, from its first byte to its reply", "outcome", buckets=_TALK)
ACCEPT_TO_SENT_SECONDS = Histogram(
    "accept_to_sent_seconds", "From accept (or the time asked for) to the upstream's 250", buckets=_LIFE
)
HELD = Counter("held", "Deliveries given back by a limit or a paused account, at no attempt", "account")
UNKNOWN = Counter("unknown", "Tries whose reply was lost after the final dot: may arrive twice", "account")
LEASES = Counter("leases", "Leases granted, recovered, reenqueued or lost", "kind")
CONNECTIONS = Gauge("connections", "Open connections, by role and direction (in, out)", "role", "direction")
COMMIT_SIZE = Histogram("commit_size", "Items that shared one group commit", "kind", buckets=_COUNT)
FETCHES = Counter("pixel_fetches", "Pixels fetched, by whether their token was ours", "token")
REDIS_ERRORS = Counter("redis_errors", "Commands that Redis did not answer")
STORE_ERRORS = Counter("store_errors", "Times PostgreSQL could not be reached")
QUEUE_DEPTH = "queue_depth"  # not a metric of any process: read from the database when the API is scraped


def prepare(settings: Settings) -> None:
    """Join the shared folder, if there is one. Call first in a role's main, before its processes are started."""
    _join(settings.metrics_dir)
    for counter in (REDIS_ERRORS, STORE_ERRORS):
        counter.labels()  # shown as 0: no error yet is a fact too
    for kind in ("granted", "recovered", "reenqueued", "lost"):
        LEASES.labels(kind)


def _join(folder: Path | None) -> None:
    if folder is None and _FOLDER not in os.environ:
        return
    if folder is not None:
        os.environ[_FOLDER] = str(folder.absolute())  # the children's too
    path = Path(os.environ[_FOLDER])
    path.mkdir(parents=True, exist_ok=True)
    bury(path)
    from prometheus_client import values

    # The library chooses at its own import; choose again, in case someone imported it before us.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def bury(folder: Path) -> None:
    """Forget the gauges of processes that died; their counters too once nobody of their time is alive.

    Counters of the dead stay while others live: a sum that shrinks would read as a burst.
    """
    files = [(path, _pid(path)) for path in folder.glob("*.db")]
    dead = [path for path, pid in files if not _alive(pid)]
    for path in dead:
        if len(dead) == len(files) or path.name.startswith("gauge_live"):
            path.unlink(missing_ok=True)


def account_label(account: str) -> str:
    """The account's own name for the first 200 seen by this process, then "other": a label set must stay bounded."""
    try:
        return _accounts[account]
    except KeyError:
        if len(_accounts) >= MOST_ACCOUNTS:
            return "other"
        return _accounts.setdefault(account, account)


def exposition(depth: Iterable[tuple[str, str, int]] = ()) -> bytes:
    """The text that Prometheus reads: of all processes where they share a folder, else of this one.

    `depth` are (account, state, deliveries) rows of the database, shown as postferry_queue_depth; "held" counts as a
    state here.
    """
    from prometheus_client import CollectorRegistry, generate_latest, multiprocess

    folder = os.environ.get(_FOLDER)
    shown = CollectorRegistry()
    shown.register(_Depth(list(depth)))
    if folder is None:
        return generate_latest(shown) + generate_latest(_own())
    bury(Path(folder))
    multiprocess.MultiProcessCollector(shown, path=folder)  # type: ignore[no-untyped-call]
    return generate_latest(shown)


def expose(settings: Settings) -> ThreadingHTTPServer | None:
    """Serve /metrics on `metrics_port` for a role without the API; None when the port is 0.

    Every process of the role listens on the same port (SO_REUSEPORT) and answers for all that share the folder.
    """
    if not settings.metrics_port:
        return None
    try:
        server = _Server((settings.api_host, settings.metrics_port), _Handler)
    except OSError as error:
        _log.warning("metrics are not shown: port %s: %s", settings.metrics_port, error)
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


class _Depth:
    """Queue depth as a collector; accounts past the bound are added up."""

    def __init__(self, rows: list[tuple[str, str, int]]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Sampled]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        sums: defaultdict[tuple[str, str], int] = defaultdict(int)
        for account, state, deliveries in self._rows:
            sums[account_label(account), state] += deliveries
        family = GaugeMetricFamily(_PREFIX + QUEUE_DEPTH, "Deliveries not finished", labels=("account", "state"))
        for labels, deliveries in sums.items():
            family.add_metric(labels, deliveries)
        yield family


class _Server(ThreadingHTTPServer):
    allow_reuse_port = True
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path.split("?")[0] == "/metrics"
        body = exposition() if found else b"see /metrics\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", CONTENT_TYPE if found else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is not news."""


def _own() -> prometheus_client.CollectorRegistry:
    """This process's registry, without the library's defaults."""
    global _registry
    import prometheus_client

    with _lock:
        if _registry is None:
            prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
            _registry = prometheus_client.CollectorRegistry()
        return _registry


def _pid(path: Path) -> int:
    digits = path.stem.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid > 0
