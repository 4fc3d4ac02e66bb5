"""The page that Prometheus reads: what the processes counted, what is read for the occasion, and the host's disks."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from relay import meters, metrics
from relay.meters import Figure, Sample
from relay.settings import Settings

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_log = logging.getLogger("postferry.metrics")


def page(samples: Iterable[Sample] = ()) -> bytes:
    """The text: of all processes where they share a folder, else of this one. `samples` are shown beside theirs."""
    from prometheus_client import CollectorRegistry, generate_latest, multiprocess

    folder = os.environ.get(meters.FOLDER)
    shown = CollectorRegistry()
    shown.register(_Shown([*samples, *_host(Path(folder) if folder else None)]))
    if folder is None:
        return generate_latest(shown) + generate_latest(meters.registry())
    with meters.settled(Path(folder)):
        multiprocess.MultiProcessCollector(shown, path=folder)  # type: ignore[no-untyped-call]
        return generate_latest(shown)


def disks(places: Mapping[str, Path]) -> list[Sample]:
    """How full the file systems of these places are; a place that is not on this host is left out."""
    samples = []
    for place, path in places.items():
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            continue
        samples += [metrics.DISK_FREE.at(usage.free, place), metrics.DISK_TOTAL.at(usage.total, place)]
    return samples


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


def _host(folder: Path | None) -> list[Sample]:
    built = metrics.BUILD_INFO.at(1, version("postferry"), platform.python_version())
    return [built, *(disks({"metrics": folder}) if folder else [])]


class _Shown:
    """Samples as a collector, a family for each of their figures."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._families: defaultdict[Figure, list[Sample]] = defaultdict(list)
        for sample in samples:
            self._families[sample.figure].append(sample)

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        for figure, samples in self._families.items():
            family = GaugeMetricFamily(figure.name, figure.meaning, labels=figure.label_names)
            for sample in samples:
                family.add_metric(sample.labels, sample.value)
            yield family


class _Server(ThreadingHTTPServer):
    allow_reuse_port = True
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path.split("?")[0] == "/metrics"
        body = page() if found else b"see /metrics\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", CONTENT_TYPE if found else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is not news."""
