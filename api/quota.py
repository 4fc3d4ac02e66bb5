"""How often servers may be tried for whoever asks: we are nobody's port scanner, and have other things to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.problems import Problem
from relay.store.tokens import Token

SECONDS = 60.0  # a window, which begins with the first of its tries
BOUND, UNBOUND = 20, 120  # tries in it: of a token for one account, of one for all
AT_ONCE = 16  # tries at the same time, of this process
SHARES = 4  # of what others leave of it, one token or account has one: a few with servers that hang do not fill it
SOON = 5  # s; a verification takes about that
REMEMBERED = 10_000  # tokens

Key = tuple[str, str | int]


class Quota:
    """Counts the tries of one process, by account for tokens that are bound to one, else by token."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: dict[Key, tuple[float, int]] = {}
        self._running: Counter[Key] = Counter()

    @contextmanager
    def admitted(self, token: Token) -> Iterator[None]:
        """For the time of one try. Raises the 429 when there is no room for it."""
        key: Key = ("account", token.account) if token.account is not None else ("token", token.id)
        if not self._has_room(key):
            raise _refusal("Too many verifications at the same time", SOON)
        self._count(key, BOUND if token.account is not None else UNBOUND)
        self._running[key] += 1
        try:
            yield
        finally:
            self._running[key] -= 1
            self._running += Counter()  # forgets those that are at 0

    def _has_room(self, key: Key) -> bool:
        mine, all_ = self._running[key], self._running.total()
        left = AT_ONCE - (all_ - mine)
        return all_ < AT_ONCE and mine < max(1, left // SHARES)

    def _count(self, key: Key, most: int) -> None:
        now = self._clock()
        begun, count = self._windows.pop(key, (now, 0))
        if now - begun >= SECONDS:
            begun, count = now, 0
        self._windows[key] = begun, min(count + 1, most)
        if len(self._windows) > REMEMBERED:
            del self._windows[next(iter(self._windows))]
        if count >= most:
            raise _refusal(f"More than {most} verifications in a minute", max(1, round(begun + SECONDS - now)), most)


def _refusal(why: str, seconds: int, most: int | None = None) -> Problem:
    headers = {"Retry-After": str(seconds)}
    if most is not None:
        headers |= {"RateLimit-Limit": str(most), "RateLimit-Remaining": "0", "RateLimit-Reset": str(seconds)}
    return Problem(429, f"{why}; try again in {seconds} seconds", code="TooManyVerifications", headers=headers)
