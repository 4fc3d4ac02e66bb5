"""How often servers may be tried for whoever asks: we are nobody's port scanner, and have other things to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.problems import Problem, too_many
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
        room = self._room(key)
        if self._running.total() >= AT_ONCE or self._running[key] >= room:
            raise refusal("Too many verifications at the same time", room, SOON)
        self._count(key, BOUND if token.account is not None else UNBOUND)
        self._running[key] += 1
        try:
            yield
        finally:
            self._running[key] -= 1
            self._running += Counter()  # forgets those that are at 0

    def _room(self, key: Key) -> int:
        """How many it may have at the same time, while the others have theirs."""
        left = AT_ONCE - (self._running.total() - self._running[key])
        return max(1, left // SHARES)

    def _count(self, key: Key, most: int) -> None:
        now = self._clock()
        begun, count = self._windows.pop(key, (now, 0))
        if now - begun >= SECONDS:
            begun, count = now, 0
        self._windows[key] = begun, min(count + 1, most)
        if len(self._windows) > REMEMBERED:
            del self._windows[next(iter(self._windows))]
        if count >= most:
            raise refusal(f"More than {most} verifications in a minute", most, max(1, round(begun + SECONDS - now)))


def refusal(why: str, most: int, seconds: int) -> Problem:
    return too_many(f"{why}; try again in {seconds} seconds", code="TooManyVerifications", most=most, seconds=seconds)
