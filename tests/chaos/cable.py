"""A cable between two of ours that can be cut: bytes pass both ways, or nothing does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum

CHUNK = 1 << 16


class Way(StrEnum):
    """How a cable fails. A silent one is what people fear most: nobody is told that it is gone."""

    OPEN = "open"
    CUT = "cut"  # connections are reset, new ones are refused at once
    SILENT = "silent"  # connections stay, and nothing passes


class Cable:
    """Listens on loopback, and leads to a Unix socket or a port of it."""

    def __init__(self, name: str, socket: str | None = None, port: int = 0) -> None:
        self.name, self._socket, self._to, self.port = name, socket, port, 0
        self._way = Way.OPEN
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.become(Way.CUT)
        await asyncio.sleep(0)

    @property
    def open(self) -> int:
        """Connections over it."""
        return len(self._writers) // 2

    def become(self, way: Way) -> None:
        self._way = way
        if way is Way.SILENT:
            self._passing.clear()
        else:
            self._passing.set()
        if way is Way.CUT:
            for writer in list(self._writers):
                writer.transport.abort()

    async def _carry(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        if self._way is Way.CUT:
            near_out.transport.abort()
            return
        try:
            far, far_out = await self._dial()
        except OSError:
            near_out.transport.abort()
            return
        self._writers |= {near_out, far_out}
        try:
            await asyncio.gather(self._pump(near, far_out), self._pump(far, near_out))
        finally:
            for writer in (near_out, far_out):
                self._writers.discard(writer)
                writer.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._socket is not None:
            return await asyncio.open_unix_connection(self._socket)
        return await asyncio.open_connection("127.0.0.1", self._to)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()
