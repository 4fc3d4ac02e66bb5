"""Runs a role that dies at a point: `python -m tests.matrix.role MODULE`, the point's name being in the environment."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from tests.matrix.points import Point, named

VARIABLE = "MATRIX_POINT"


def dotted() -> None:
    """The final dot has just been written: called by `_after_the_dot`, to be a point like any other."""


def arm(point: Point) -> None:
    """Puts the SIGKILL where the point says. Raises AttributeError when there is no such function any more."""
    if point.target == "tests.matrix.role:dotted":
        _after_the_dot()
        return
    module, _, path = point.target.partition(":")
    place: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for owner in owners:
        place = getattr(place, owner)
    setattr(place, name, _deadly(getattr(place, name), after=point.after))


def _deadly(function: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*args: Any, **kwargs: Any) -> Any:
            found = await function(*args, **kwargs) if after else None
            if function.__name__ == "claim" and _nothing(found):
                return found
            return _die()

        return wait

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if after:
            function(*args, **kwargs)
        _die()

    return call


def _nothing(found: Any) -> bool:
    """A claim that found no work is not the point yet."""
    return found == [] or (hasattr(found, "postings") and not found.postings)


def _after_the_dot() -> None:
    """Once the end of the content was written to the socket, whoever waits for its reply dies."""
    from relay.net import transaction

    reply = transaction.Wire.reply

    async def deadly(wire: transaction.Wire, seconds: float) -> Any:
        frame = sys._getframe(1)
        if frame.f_code.co_name == "_content":
            _die()
        return await reply(wire, seconds)

    transaction.Wire.reply = deadly  # type: ignore[method-assign]


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit  # it is not reached


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    arm(named(os.environ[VARIABLE]))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
