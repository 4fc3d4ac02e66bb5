"""The kinds of metrics, and the folder where the processes of a host share theirs.

Nothing of the metrics library is loaded before a metric is used, so the order of imports does not matter: a role joins
the folder once, first thing, and all its metrics land there.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import prometheus_client

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "postferry_"
DEAD = 0  # is nobody's process id: what all who died have counted

_lock = threading.RLock()
_me = os.getpid()
_registry: prometheus_client.CollectorRegistry | None = None

Child = TypeVar("Child", "prometheus_client.Counter", "prometheus_client.Gauge", "prometheus_client.Histogram")


class _Family(Generic[Child]):
    """A metric of ours. `labels(...)` is one dictionary look-up once a label set has been seen."""

    kind: str

    def __init__(self, name: str, meaning: str, *labels: str, **options: object) -> None:
        self.name, self.meaning, self.label_names, self.options = PREFIX + name, meaning, labels, options
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
                self._parent = kind(self.name, self.meaning, self.label_names, registry=registry(), **self.options)
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


class Figure:
    """A gauge that no process keeps: it is read when somebody scrapes."""

    kind = "Gauge"

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name, self.meaning, self.label_names = PREFIX + name, meaning, labels

    def at(self, value: float, *labels: str) -> Sample:
        """One sample; label values in the order of `label_names`."""
        return Sample(self, labels, value)


@dataclass(frozen=True, slots=True)
class Sample:
    figure: Figure
    labels: tuple[str, ...]
    value: float


class Bounded:
    """Label values that stay few: the first `most` keep their own, all others are "other"."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, str] = {}

    def __call__(self, value: str) -> str:
        try:
            return self._known[value]
        except KeyError:
            if len(self._known) >= self._most:
                return "other"
            return self._known.setdefault(value, value)


def registry() -> prometheus_client.CollectorRegistry:
    """This process's registry, without the library's defaults."""
    global _registry
    import prometheus_client

    with _lock:
        if _registry is None:
            prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
            _registry = prometheus_client.CollectorRegistry()
        return _registry


def join(folder: Path | None) -> None:
    """From here on this process's metrics lie in `folder`, or in the one that its parent joined, or in its memory."""
    if folder is None and FOLDER not in os.environ:
        return
    if folder is not None:
        os.environ[FOLDER] = str(folder.absolute())  # the children's too
    path = Path(os.environ[FOLDER])
    path.mkdir(parents=True, exist_ok=True)
    with settled(path):
        pass
    from prometheus_client import values

    # The library chooses at its own import; choose again, in case someone imported it before us. It asks whose process
    # this is with each number that is counted: the answer is kept, for it is a call of the system each time.
    values.ValueClass = values.MultiProcessValue(_process)  # type: ignore[no-untyped-call]


def _process() -> int:
    return _me


def _forked() -> None:
    global _me
    _me = os.getpid()


os.register_at_fork(after_in_child=_forked)


@contextmanager
def settled(folder: Path) -> Iterator[None]:
    """The folder with its dead buried. Others who read or bury wait: what is half buried would count twice."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        _bury(folder)
        yield
    finally:
        os.close(held)


def _bury(folder: Path) -> None:
    """Forget the gauges of processes that died; what they counted too once nobody of their time is alive.

    Until then it stays, since a sum that shrinks would read as a burst: that of all the dead together, for a process
    that dies again and again would fill the folder.
    """
    files = list(folder.glob("*.db"))
    dead = [path for path in files if not _alive(_pid(path))]
    for path in dead:
        if len(dead) < len(files):
            if _pid(path) == DEAD:
                continue
            if not path.name.startswith("gauge_live"):
                _add_up(path, path.with_name(f"{path.stem.rpartition('_')[0]}_{DEAD}.db"))
        path.unlink(missing_ok=True)


def _add_up(path: Path, whole: Path) -> None:
    from prometheus_client.mmap_dict import MmapedDict

    sums = MmapedDict(str(whole))  # type: ignore[no-untyped-call]
    with suppress(struct.error, RuntimeError):  # it died before there was anything in it
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
    sums.close()  # type: ignore[no-untyped-call]


def _pid(path: Path) -> int:
    digits = path.stem.rpartition("_")[2]
    return int(digits) if digits.isdigit() else DEAD


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and another user's
        pass
    return pid > 0
