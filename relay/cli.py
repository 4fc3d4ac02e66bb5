"""The command line: find the command, run it, and turn whatever happens into words and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from relay import commands
from relay.commands.terminal import (
    CONFIG,
    DATA,
    DEFAULT_DATA,
    FOLDER,
    NOPERM,
    SOFTWARE,
    UNAVAILABLE,
    USAGE,
    Parser,
    Stop,
    complain,
    nearest,
    paint,
)

DENIED = "42501"  # PostgreSQL: the user has not the privilege


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code: 0, or one of sysexits.h; no traceback reaches a person."""
    given = list(sys.argv[1:] if argv is None else argv)
    _fill_streams()
    try:
        code = _run(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 141
    except Exception as error:
        return _explain(error)
    return code


def _fill_streams() -> None:
    """A stream that we were started without (`>&-`) takes what it is given; a socket would get its number else."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _run(given: list[str]) -> int:
    name = given[0] if given else ""
    if name in ("", "-h", "--help", "help") and len(given) < 2:
        print(_help())
        return 0 if name else USAGE
    if name == "help":
        given = [given[1], "--help"]
        name = given[0]
    if name in ("-V", "--version"):
        from importlib.metadata import version

        print(f"postferry {version('postferry')}")
        return 0
    command = commands.find(name)
    if command is None:
        near = nearest(name, [command.name for command in commands.COMMANDS])
        raise Stop(f"there is no command {name!r}{near}", "see: postferry --help", USAGE)
    parser = Parser(prog=f"postferry {name}")
    import_module(f"relay.commands.{command.module}").configure(parser)
    args = parser.parse_args(given[1:])
    FOLDER.set(getattr(args, "data", DEFAULT_DATA))
    code: int = args.run(args)
    return code


def _help() -> str:
    """The map: every command by its purpose, then lines to paste."""
    lines = [
        f"{paint('postferry', 'bold')} - an email relay that sends through each tenant's own mail account",
        "",
        "usage: postferry COMMAND [...]          postferry COMMAND --help tells the rest",
    ]
    for group in dict.fromkeys(command.group for command in commands.COMMANDS):
        lines += ["", paint(group, "bold")]
        found = [command for command in commands.COMMANDS if command.group == group]
        lines += [f"  {paint(f'{command.name:<10}', 'blue')} {command.summary}" for command in found]
    lines += ["", paint("Examples", "bold"), commands.EXAMPLES.rstrip()]
    lines += ["", "Settings come from the environment and .env: postferry doctor lists them all."]
    return "\n".join(lines)


def _explain(error: Exception) -> int:
    """What happened, in the words of whoever can do something about it."""
    from relay.core.errors import Refused, StoreAway, Unmigrated
    from relay.core.vault import VaultError
    from relay.settings import SettingsError

    match error:
        case Stop():
            complain(error.message, error.advice)
            return error.code
        case SettingsError():
            complain("the settings are wrong:", "\n".join(error.faults))
            return CONFIG
        case VaultError():
            complain(
                str(error), "check POSTFERRY_SECRET_KEYS: every key that ever sealed a secret must still be listed"
            )
            return CONFIG
        case Unmigrated():
            complain(str(error), error.advice)
            return CONFIG
        case StoreAway():
            complain(
                f"PostgreSQL cannot be reached: {_first_line(error)}",
                "is it running? `postferry up` starts everything; `postferry doctor` tells more",
            )
            return UNAVAILABLE
        case Refused():
            complain(error.message)
            return DATA
        case PermissionError():
            where = f"{error.filename}: " if error.filename else ""
            complain(f"not allowed: {where}{error.strerror or error}", "run as the user that owns the file")
            return NOPERM
        case _ if getattr(error, "sqlstate", "") == DENIED:
            complain(
                f"PostgreSQL does not allow it: {_first_line(error)}",
                "the user in DATABASE_URL must own the database, or be granted what it lacks",
            )
            return NOPERM
        case UnicodeEncodeError(encoding="utf-8"):
            complain(f"{error.object!a} is no text in UTF-8")
            return DATA
        case OSError(strerror=str(reason), filename=str(path)):
            complain(f"{path}: {reason}")
            return UNAVAILABLE
        case OSError():
            complain(error.strerror or str(error))
            return UNAVAILABLE
        case _:
            return _surprise(error)


def _surprise(error: Exception) -> int:
    if os.environ.get("POSTFERRY_LOG_LEVEL", "").lower() == "debug":
        import logging

        logging.getLogger("postferry").error("unexpected error", exc_info=error)
    complain(
        f"an unexpected error: {type(error).__name__}: {_first_line(error)}",
        "this is a fault of ours; for a report with more in it: POSTFERRY_LOG_LEVEL=debug postferry ...",
    )
    return SOFTWARE


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


if __name__ == "__main__":
    sys.exit(main())
