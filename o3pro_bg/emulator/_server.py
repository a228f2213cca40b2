"""Connections: each carries one exchange at a time, in order, and ends the moment its client leaves."""

import asyncio
import json
import socket
import struct
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

from o3pro_bg.emulator._wire import MAX_BODY, MAX_HEAD, Malformed, Reply, Request, chunk, head, requests

_LINGER = 1.0  # seconds that a refused client may go on sending, so that it reads its answer before a reset


class ConnectionReset(Exception):
    """Asks for the connection to be reset instead of an answer."""


@dataclass(slots=True)
class Traffic:
    """Counts connections and the exchanges in flight on them; those of quiet requests leave no mark."""

    connections: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    counted: "set[Connection]" = field(default_factory=set)

    def connected(self, connection: "Connection") -> None:
        """Counts a connection that has opened."""
        self.connections += 1
        self.counted.add(connection)

    def discount(self, connection: "Connection") -> None:
        """Forgets a connection that turns out to carry quiet requests."""
        if connection in self.counted:
            self.connections = max(0, self.connections - 1)
            self.counted.discard(connection)

    def begin(self) -> None:
        """Counts one more exchange in flight."""
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def zero(self) -> None:
        """Starts the counts anew; what is open or in flight goes on being so."""
        self.connections = 0
        self.max_in_flight = self.in_flight


class Server:
    """Answers requests on one socket by `answer`; those that are `quiet` leave no mark on `traffic`."""

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Reply]],
        quiet: Callable[[Request], bool],
        traffic: Traffic,
    ) -> None:
        self.answer = answer
        self.quiet = quiet
        self.traffic = traffic
        self.connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Starts to listen, and returns the port: `port`, or a free one where that is 0."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), host, port, backlog=1024)
        chosen: int = self._listener.sockets[0].getsockname()[1]
        return chosen

    def close(self) -> None:
        """Stops to listen and drops every connection."""
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self.connections):
            connection.abort()


class Connection(asyncio.Protocol):
    """Reads requests from one client, and answers each before it takes the next."""

    _transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._requests = requests(self._buffer)
        self._exchange: asyncio.Task[None] | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        self._server.traffic.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._server.traffic.counted.discard(self)
        if self._exchange is not None:
            self._exchange.cancel()  # the client left: whatever was held for it ends here

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._buffer += data
        if self._exchange is None:
            self._take_next()
        elif len(self._buffer) > MAX_HEAD + MAX_BODY:
            self.abort()

    def abort(self) -> None:
        """Drops the connection at once."""
        self._transport.abort()

    def _take_next(self) -> None:
        try:
            request = next(self._requests)
        except Malformed as reason:
            self._refuse(reason)
            return
        if request is not None:
            self._exchange = asyncio.get_running_loop().create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        keep = False
        traffic, quiet = self._server.traffic, self._server.quiet(request)
        if quiet:
            traffic.discount(self)
        else:
            traffic.begin()
        try:
            keep = await self._send(await self._answer(request), keep_alive=request.keep_alive)
        except ConnectionReset:
            self._reset()
        finally:
            self._exchange = None
            traffic.in_flight -= not quiet
            if not keep:
                self._transport.close()
        if keep:
            self._take_next()

    async def _answer(self, request: Request) -> Reply:
        try:
            return await self._server.answer(request)
        except ConnectionReset:
            raise
        except Exception as error:  # a bug of the emulator: say so to both sides, and go on serving
            traceback.print_exc(file=sys.stderr)
            body = _error_body(500, f"The emulator itself failed: {error!r}")
            return Reply(500, body, {"x-o3pro-bg-emulator": "1"})

    async def _send(self, reply: Reply, *, keep_alive: bool) -> bool:
        keep = keep_alive and not reply.broken
        top = head(reply, keep_alive=keep)
        if isinstance(reply.body, bytes):
            self._transport.write(top + reply.body)
            return keep
        self._transport.write(top)
        chunked = reply.promised is None
        async for piece in reply.body:
            self._transport.write(chunk(piece) if chunked else piece)
        if chunked:
            self._transport.write(chunk(b""))
        return keep

    def _refuse(self, reason: Malformed) -> None:
        # Closing with unread bytes in the socket would reset it, and the client might never read the answer.
        self._refused = True
        self._buffer.clear()
        body = _error_body(reason.status, str(reason))
        reply = Reply(reason.status, body, {"x-o3pro-bg-emulator": "1"})
        self._transport.write(head(reply, keep_alive=False) + body)
        asyncio.get_running_loop().call_later(_LINGER, self._transport.close)

    def _reset(self) -> None:
        # A linger time of zero makes the close a reset (RST), not a polite end.
        if (sock := self._transport.get_extra_info("socket")) is not None:
            layout = "hh" if sys.platform == "win32" else "ii"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(layout, 1, 0))
        self._transport.abort()


def _error_body(status: int, sentence: str) -> bytes:
    return json.dumps({"error": {"code": str(status), "message": sentence}}).encode()
