"""An event loop without sockets or a clock: it runs what is ready, and time passes when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any


class Loop(asyncio.BaseEventLoop):
    """Callbacks run at once, timers when their moment has come. `faults` has what nobody caught."""

    def __init__(self) -> None:
        super().__init__()
        self._now = self._until = 0.0
        self._selector = self
        self.faults: list[BaseException] = []
        self.set_exception_handler(self._fault)

    def time(self) -> float:
        return self._now

    def let_pass(self, seconds: float = 0.0) -> None:
        """Everything that happens within so many seconds."""
        self._until = self._now + seconds
        self.run_forever()

    def select(self, timeout: float | None) -> list[Any]:
        """In place of waiting for sockets: on to the next timer, or to an end."""
        if timeout == 0:
            return []
        if timeout is None or self._now + timeout > self._until:
            self._now = self._until
            self.stop()
        else:
            self._now += timeout
        return []

    async def start_tls(self, transport: Any, protocol: Any, *given: Any, **more: Any) -> Any:
        """The handshake is taken as done."""
        return transport

    def _process_events(self, events: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _fault(self, loop: Any, context: dict[str, Any]) -> None:
        self.faults.append(context.get("exception") or AssertionError(context["message"]))


class Line(asyncio.Transport):
    """One end of a connection: what is written is kept, and nothing is ever lost on the way."""

    def __init__(self, loop: Loop, peer: str) -> None:
        super().__init__({"peername": (peer, 40_000)})
        self.written = bytearray()
        self.ended = self.closed = self.paused = False
        self._loop = loop
        self._protocol: Any = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def write(self, data: Any) -> None:
        assert not self.ended
        assert not self.closed
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
