"""The layers as a test: who may import whom, one home a library, SQL only in the store, a core without a clock."""

from __future__ import annotations

import ast
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOPS = ("relay", "workers", "api")

DOORS = {
    "smtp": ("relay.smtpd", "relay.ingress"),
    "sandbox": ("relay.sandbox",),
    "commands": ("relay.cli", "relay.__main__", "relay.commands", "relay.up", "relay.roles"),
    "workers": ("workers",),
    "api": ("api",),
}
"""Where work or people come in. A door is opened from outside: nothing else of ours imports one, nor does a door."""

MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    "relay.core": ("relay.core",),
    "relay.keypair": (),
    "relay.parsers": (),
    "relay.settings": ("relay.keypair", "relay.parsers"),
    "relay.meters": (),
    "relay.metrics": ("relay.meters", "relay.settings"),
    "relay.log": ("relay.settings",),
    "relay.guardian": (),
    "relay.store": ("relay.store", "relay.core", "relay.settings"),
    "relay.net": ("relay.net", "relay.core", "relay.settings"),
    "relay": ("relay",),
    "workers": ("workers", "relay"),
    "api": ("api", "relay"),
}
"""Design, section 1. The narrowest name that fits a module decides."""

NEVER: Mapping[str, tuple[str, ...]] = {"workers": ("relay.net",), "api": ("relay.net",)}

HOMES: Mapping[str, tuple[str, ...]] = {
    "aiohttp": ("api", "relay.net.http", "relay.net.exchange"),
    "aiosmtpd": ("relay.ingress", "relay.smtpd"),
    "aiosmtplib": ("relay.net.smtp",),
    "backports": ("relay.core.packing",),
    "compression": ("relay.core.packing",),  # of the standard library, from Python 3.14 on
    "cryptography": ("relay.core",),
    "dramatiq": ("workers",),
    "idna": ("relay.core.address",),
    "imapclient": ("relay.net.imapfolders", "relay.net.imapanswers", "relay.net.imapsearch", "relay.net.imapappend"),
    "maxminddb": ("relay.geo",),
    "nh3": ("relay.core.cleaning",),
    "prometheus_client": ("relay.meters", "relay.scrape"),
    "psycopg": ("relay.store",),
    "psycopg_pool": ("relay.store",),
    "pydantic": ("api",),
    "redis": ("workers.broker",),
    "uvloop": ("relay.processes",),
    "yarl": ("relay.net.http", "relay.net.exchange"),
}

IMPURE_MODULES = (
    *("asyncio", "ctypes", "fcntl", "getpass", "glob", "http", "importlib", "io", "locale", "logging", "mmap"),
    *("multiprocessing", "os", "pathlib", "platform", "pwd", "random", "secrets", "select", "selectors", "shelve"),
    *("shutil", "signal", "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys", "tempfile"),
    *("threading", "time", "urllib.request", "zoneinfo"),
)
IMPURE_BUILTINS = frozenset({"open", "print", "input", "breakpoint"})
IMPURE_METHODS = frozenset(
    {"now", "utcnow", "today", "uuid1", "uuid4", "uuid7", "getnode", "urandom", "read_text", "read_bytes"}
    | {"make_msgid", "localtime", "formatdate", "getfqdn", "gethostname"}
)
"""Last words of calls that read a clock, a file, the environment or chance, whatever module they hide in."""

SQL = re.compile(
    r"\bselect\b.+\bfrom\b|\binsert\s+into\b|\bupdate\s+\w+\s+(\w+\s+)?set\b|\bdelete\s+from\b"
    r"|\b(create|alter|drop|truncate)\s+(table|index|type|database)\b|^\s*(select|listen|notify|copy)\s+\w",
    re.IGNORECASE | re.DOTALL,
)
RUNS_SQL = frozenset({"execute", "executemany", "copy", "stream", "scalar"})
VAGUE = frozenset({"utils", "util", "common", "helpers", "helper", "misc", "shared"})


@dataclass(frozen=True)
class Source:
    """One module: its dotted name and its text."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def within(self, *parts: str) -> bool:
        return within(self.name, parts)


def within(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in parts)


@cache
def sources() -> list[Source]:
    """Every module of ours; a package goes by its folder's name."""
    found = []
    for top in TOPS:
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append(Source(name.removesuffix(".__init__"), path.read_text()))
    return found


def imports(source: Source, known: frozenset[str]) -> Iterator[str]:
    """The modules it names, in functions too. Imports for the type checker alone are no dependency at run time."""
    for node in running(source.tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=0) if module:
                for name in names:
                    whole = f"{module}.{name.name}"
                    yield whole if whole in known else module
            case ast.ImportFrom():
                yield "relative import"


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but the bodies of `if TYPE_CHECKING`."""
    ahead = deque([tree])
    while ahead:
        node = ahead.popleft()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        ahead.extend(ast.iter_child_nodes(node))


def up_or_sideways(all_sources: list[Source]) -> Iterator[str]:
    """Imports that the table does not allow."""
    known = frozenset(source.name for source in all_sources)
    for source in all_sources:
        part = max((part for part in MAY_IMPORT if source.within(part)), key=len)
        for name in imports(source, known):
            ours = within(name, TOPS)
            if name == "relative import":
                yield f"{source.name} uses a relative import: write the whole name"
            elif ours and name not in ("relay", source.name) and not within(name, MAY_IMPORT[part]):
                yield f"{source.name} imports {name}, which {part} may not"
            elif within(name, NEVER.get(part, ())):
                yield f"{source.name} imports {name}, which {part} never may"


def doors_that_meet(all_sources: list[Source]) -> Iterator[str]:
    known = frozenset(source.name for source in all_sources)
    for source in all_sources:
        for name in imports(source, known):
            for door, rooms in DOORS.items():
                if within(name, rooms) and not source.within(*rooms):
                    yield f"{source.name} imports {name}: the door {door!r} is for those outside"


def cycles(all_sources: list[Source]) -> Iterator[str]:
    """Modules that need each other, found by taking away, again and again, what needs nothing that is left."""
    known = frozenset(source.name for source in all_sources)
    needs = {source.name: set(imports(source, known)) & known - {source.name} for source in all_sources}
    while free := [name for name, needed in needs.items() if not needed & needs.keys()]:
        for name in free:
            del needs[name]
    if needs:
        yield f"a cycle among {', '.join(sorted(needs))}"


def strangers(all_sources: list[Source]) -> Iterator[str]:
    """Third-party libraries outside their one home, or without one."""
    known = frozenset(source.name for source in all_sources)
    for source in all_sources:
        for name in imports(source, known):
            library = name.split(".")[0]
            if library in sys.stdlib_module_names or library in TOPS or name == "relative import":
                continue
            if library not in HOMES:
                yield f"{source.name} imports {library}, which has no home yet: give it one here"
            elif not source.within(*HOMES[library]):
                yield f"{source.name} imports {library}, whose home is {' and '.join(HOMES[library])}"


def sql_outside(all_sources: list[Source]) -> Iterator[str]:
    for source in all_sources:
        if source.within("relay.store"):
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and called(node) in RUNS_SQL:
                texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                if any(isinstance(text, str) and SQL.search(text) for text in texts):
                    yield f"{source.name}:{node.lineno} runs SQL: that is the store's"
            elif isinstance(node, ast.Assign | ast.AnnAssign) and is_sql(node.value):
                yield f"{source.name}:{node.lineno} keeps SQL: that is the store's"


def is_sql(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(SQL.search(node.value))


def called(node: ast.Call) -> str:
    """The last word of what is called: `now` of `datetime.now()`."""
    match node.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def impure_core(all_sources: list[Source]) -> Iterator[str]:
    for source in all_sources:
        if not source.within("relay.core"):
            continue
        for name in imports(source, frozenset()):
            if within(name, IMPURE_MODULES):
                yield f"{source.name} imports {name}: the core has no clock, socket, file, chance or environment"
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and is_impure(node):
                yield f"{source.name}:{node.lineno} calls {called(node)}(): give the core what it needs as an argument"


def is_impure(node: ast.Call) -> bool:
    return called(node) in IMPURE_METHODS or (isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS)


def connection_not_first(all_sources: list[Source]) -> Iterator[str]:
    """The store's functions work on the caller's connection, so that the caller owns the database transaction.

    A context manager is one that opens a connection.
    """
    for source in all_sources:
        if not source.within("relay.store") or source.within("relay.store.db"):
            continue
        for node in source.tree.body:
            match node:
                case ast.AsyncFunctionDef(args=ast.arguments(args=[ast.arg(arg="conn"), *_])):
                    continue
                case ast.AsyncFunctionDef(decorator_list=[]):
                    yield f"{source.name}.{node.name} does not take the connection first"


def vague_names(all_sources: list[Source]) -> Iterator[str]:
    for source in all_sources:
        if VAGUE & set(source.name.split(".")):
            yield f"{source.name} says nothing by its name"


def silent_modules(all_sources: list[Source]) -> Iterator[str]:
    for source in all_sources:
        if not ast.get_docstring(source.tree) and source.name != "relay.__main__":
            yield f"{source.name} does not say what it is for"


Rule = Callable[[list[Source]], Iterator[str]]
RULES: tuple[Rule, ...] = (
    up_or_sideways,
    doors_that_meet,
    cycles,
    strangers,
    sql_outside,
    impure_core,
    connection_not_first,
    vague_names,
    silent_modules,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule: Rule) -> None:
    assert list(rule(sources())) == []


def test_the_house_is_looked_at() -> None:
    assert {"relay.core.model", "relay.store.db", "workers", "api"} <= {source.name for source in sources()}


OFFENCES = [
    (up_or_sideways, "relay.core.x", "from relay.store import db"),
    (up_or_sideways, "relay.core.x", "def f():\n    import relay.settings"),
    (up_or_sideways, "relay.store.x", "from relay.net import smtp"),
    (up_or_sideways, "relay.store.x", "from relay import accept"),
    (up_or_sideways, "relay.net.x", "import relay.store.db"),
    (up_or_sideways, "relay.net.x", "from relay.metrics import ACCEPTED"),
    (up_or_sideways, "relay.settings", "from relay.core import model"),
    (up_or_sideways, "relay.x", "import workers.broker"),
    (up_or_sideways, "relay.x", "from . import accept"),
    (up_or_sideways, "workers.x", "from relay.net.smtp import connect"),
    (up_or_sideways, "workers.x", "import api.app"),
    (up_or_sideways, "api.x", "from relay.net import smtp"),
    (up_or_sideways, "api.x", "from workers import broker"),
    (doors_that_meet, "relay.x", "from relay import smtpd"),
    (doors_that_meet, "relay.smtpd", "from relay.commands import terminal"),
    (doors_that_meet, "relay.commands.x", "import relay.ingress.session"),
    (doors_that_meet, "workers.x", "import relay.sandbox"),
    (doors_that_meet, "api.x", "from workers import broker"),
    (strangers, "relay.x", "import psycopg"),
    (strangers, "relay.core.x", "from psycopg.rows import class_row"),
    (strangers, "workers.actors", "import redis"),
    (strangers, "api.x", "import requests"),
    (sql_outside, "relay.x", "conn.execute('select 1')"),
    (sql_outside, "relay.x", "await conn.execute(f'delete from {table}')"),
    (sql_outside, "relay.x", "await db.scalar(conn, 'select count(*) from t')"),
    (sql_outside, "api.x", "cursor.executemany('INSERT INTO t VALUES (%s)', rows)"),
    (sql_outside, "workers.x", "QUERY = '''update deliveries\n set state = 1'''"),
    (impure_core, "relay.core.x", "import time"),
    (impure_core, "relay.core.x", "from os import environ"),
    (impure_core, "relay.core.x", "from pathlib import Path"),
    (impure_core, "relay.core.x", "import random"),
    (impure_core, "relay.core.x", "def f():\n    import socket"),
    (impure_core, "relay.core.x", "from datetime import datetime\nmoment = datetime.now()"),
    (impure_core, "relay.core.x", "date.today()"),
    (impure_core, "relay.core.x", "open('table.txt')"),
    (impure_core, "relay.core.x", "uuid.uuid4()"),
    (connection_not_first, "relay.store.x", "async def find(id, conn): ..."),
    (connection_not_first, "relay.store.x", "async def find(): ..."),
    (vague_names, "relay.core.utils", ""),
    (vague_names, "api.helpers.x", ""),
    (silent_modules, "relay.x", "import os"),
]


@pytest.mark.parametrize(("rule", "name", "text"), OFFENCES)
def test_an_offence_is_seen(rule: Rule, name: str, text: str) -> None:
    assert len(list(rule([*PRESENT, Source(name, text)]))) == 1


def test_a_cycle_is_seen() -> None:
    round_trip = [Source("relay.a", "from relay import b"), Source("relay.b", "def f():\n    from relay.a import c")]
    assert list(cycles([*PRESENT, *round_trip])) == ["a cycle among relay.a, relay.b"]


def test_types_alone_make_no_cycle() -> None:
    there = Source("relay.a", "from relay import b")
    back = Source("relay.b", "if TYPE_CHECKING:\n    from relay.a import c")
    assert list(cycles([*PRESENT, there, back])) == []


PRESENT = [
    Source(name, f'"""{name}."""') for name in ("relay.accept", "relay.smtpd", "relay.core.model", "relay.net.smtp")
]
"""Modules that the offences may name, blameless themselves."""
