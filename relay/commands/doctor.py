"""`postferry doctor`: list every setting with its meaning, default and value, and check this installation."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from relay import settings
from relay.commands.installation import environment
from relay.commands.terminal import CONFIG, UNAVAILABLE, clean, describe, mark, paint, paste

if TYPE_CHECKING:
    from relay.core.finding import Check


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        _doctor,
        "List every setting with its value, default and meaning; then check settings, database, schema, clock, "
        "secrets, queue, mailboxes, broker, ports, certificate and exposure. Nothing is changed. Exit 0: well; 69: "
        "something failed; 78: the settings are wrong.",
        "doctor",
        "doctor --json | jq '.checks[] | select(.finding != \"ok\")'",
        "doctor --new-key        # a key for POSTFERRY_SECRET_KEYS",
    )
    parser.add_argument("--new-key", action="store_true", help="print a fresh secret key, and do nothing else")
    parser.add_argument("--settings", action="store_true", help="list the settings alone")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _doctor(args: argparse.Namespace) -> int:
    if args.new_key:
        from relay.core.vault import new_key

        print(new_key())
        return 0
    given = environment(Path(args.data))
    if not args.json:
        _show_settings(given)  # first: the end is what a terminal shows
    faults, checks = ([], []) if args.settings else _judge(given, show=not args.json)
    if args.json:
        shown = [dataclasses.asdict(check) for check in checks]
        print(json.dumps({"faults": faults, "checks": shown, "settings": _settings(given)}, indent=2))
    return CONFIG if faults else UNAVAILABLE if any(check.finding == "failed" for check in checks) else 0


def _judge(given: Mapping[str, str], *, show: bool) -> tuple[list[str], list[Check]]:
    """Faults of the settings; else the checks, shown as they come in."""
    if show:
        print("\n" + paint("Checks", "bold"))
    try:
        valid = _valid(given)
    except settings.SettingsError as error:
        for fault in error.faults if show else ():
            print(f"{mark('failed')} {'settings':<12} {fault}")
        return error.faults, []
    from relay import doctor

    async def collect() -> list[Check]:
        found = []
        async for check in doctor.examine(valid):
            found.append(check)
            if show:
                _show(check)
        return found

    if show:
        print(f"{mark('ok')} {'settings':<12} valid")
    return [], asyncio.run(collect())


def _valid(given: Mapping[str, str]) -> settings.Settings:
    from relay.store import db

    valid = settings.read(given, None)
    if valid.database_url:
        db.check_address(valid.database_url)
    return valid


def _show(check: Check) -> None:
    print(f"{mark(check.finding)} {check.name:<12} {clean(check.detail)}", flush=True)
    if check.advice:
        colour = "dim" if check.finding == "skipped" else "yellow"
        advice = re.sub(r"(?<=: )postferry (.+)$", lambda found: paste(found[1]), check.advice)
        print(paint(f"  {'':<12} {advice}", colour), flush=True)


def _settings(given: Mapping[str, str]) -> list[dict[str, str | bool]]:
    """Every setting as text: what is set, even where it is wrong; secrets masked."""
    found: list[dict[str, str | bool]] = []
    for option in dataclasses.fields(settings.Settings):
        name, about = settings.variable(option.name), option.metadata
        value = given.get(name, "") or about["default"]
        if about["secret"] and value:
            value = _masked(value)
        changed = value != about["default"]
        found.append(
            {"name": name, "value": value, "default": about["default"], "set": changed, "meaning": about["meaning"]}
        )
    return found


def _masked(value: str) -> str:
    """A URL without its password; of anything else only that it is there."""
    from relay.log import redact

    return redact(value) if "://" in value else f"*** ({len(value.replace(',', ' ').split())})"


def _show_settings(given: Mapping[str, str]) -> None:
    print(paint("Settings", "bold") + " (environment, then .env, then DIR/env of `postferry up`)")
    for one in _settings(given):
        name, value, default = str(one["name"]), clean(str(one["value"])), str(one["default"])
        if one["set"]:
            shown = paint(value, "green") + paint(f"   default {default}" if default else "   no default", "dim")
        else:
            shown = value or paint("not set", "dim")
        print(f"  {paint(name, 'blue')} = {shown}")
        print(paint(f"      {one['meaning']}", "dim"))
