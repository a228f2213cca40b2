"""HTTP/1.1 as bytes: a buffer becomes requests, a reply becomes bytes. No sockets here."""

from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

MAX_HEAD = 64 * 1024
MAX_BODY = 16 * 1024 * 1024
_PHRASES = {int(status): status.phrase for status in HTTPStatus}


class Malformed(Exception):
    """Says that what came is no request that can be read; the connection ends with `status`."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(slots=True)
class Request:
    """Holds one whole request; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    keep_alive: bool
    body: bytes = b""


@dataclass(slots=True)
class Reply:
    """
    Holds one answer. A body of bytes is sent at once, an iterator piece by piece.

    `length` is the Content-Length to promise where it is not simply the body's: for an iterator whose length
    is known (else it is sent chunked), or for a promise that is not kept.
    """

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    media: str = "application/json"
    length: int | None = None

    @property
    def promised(self) -> int | None:
        """Is the Content-Length that the head says, or None for a chunked body."""
        return len(self.body) if self.length is None and isinstance(self.body, bytes) else self.length

    @property
    def broken(self) -> bool:
        """Is true where the body is not as long as the head says: the connection must end."""
        return isinstance(self.body, bytes) and self.promised != len(self.body)


def head(reply: Reply, *, keep_alive: bool) -> bytes:
    """Returns the status line and headers of `reply`, with the empty line that ends them."""
    size = "transfer-encoding: chunked" if reply.promised is None else f"content-length: {reply.promised}"
    lines = [
        f"HTTP/1.1 {reply.status} {_PHRASES.get(reply.status, 'Unknown')}",
        f"content-type: {reply.media}",
        size,
        f"connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
        "\r\n",
    ]
    return "\r\n".join(lines).encode("latin-1", "replace")


def chunk(data: bytes) -> bytes:
    """Returns `data` as one chunk of a chunked body; the empty chunk ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def requests(buffer: bytearray) -> Generator[Request | None, None, None]:
    """
    Yields each request that `buffer` completes, and None whenever it takes more bytes to go on.

    Whoever owns the buffer appends to it and calls `next()`; what was read is deleted from its front.

    Raises:
        Malformed: The bytes are no request that can be read. The generator is spent then.
    """
    while True:
        request = _parse_head((yield from _until(buffer, b"\r\n\r\n", MAX_HEAD, status=431)))
        length = request.headers.get("content-length", "0")
        if (coding := request.headers.get("transfer-encoding")) is not None:
            if coding.lower() != "chunked" or "content-length" in request.headers:
                raise Malformed(400, "This transfer-encoding is not understood.")
            request.body = yield from _chunked(buffer)
        elif not (length.isascii() and length.isdecimal()):
            raise Malformed(400, "The content-length is not a number.")
        elif len(length) > 15 or int(length) > MAX_BODY:
            raise Malformed(413, "The request body is larger than 16 MB.")
        else:
            request.body = yield from _exactly(buffer, int(length))
        yield request


def _until(buffer: bytearray, mark: bytes, bound: int, status: int) -> Generator[None, None, bytes]:
    searched = 0
    while (at := buffer.find(mark, searched)) < 0:
        if len(buffer) > bound:
            raise Malformed(status, "The request's head is too long.")
        searched = max(0, len(buffer) - len(mark) + 1)
        yield None
    found = bytes(buffer[:at])
    del buffer[: at + len(mark)]
    return found


def _exactly(buffer: bytearray, count: int) -> Generator[None, None, bytes]:
    while len(buffer) < count:
        yield None
    found = bytes(buffer[:count])
    del buffer[:count]
    return found


def _chunked(buffer: bytearray) -> Generator[None, None, bytes]:
    body = bytearray()
    while size := _chunk_size((yield from _until(buffer, b"\r\n", 1024, status=400))):
        if len(body) + size > MAX_BODY:
            raise Malformed(413, "The request body is larger than 16 MB.")
        body += yield from _exactly(buffer, size)
        if (yield from _exactly(buffer, 2)) != b"\r\n":
            raise Malformed(400, "A chunk does not end where it says.")
    while (yield from _until(buffer, b"\r\n", MAX_HEAD, status=431)):
        pass  # trailers: read, and of no meaning here
    return bytes(body)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise Malformed(400, "A chunk's size is not a number.")
    return int(digits, 16)


def _parse_head(raw: bytes) -> Request:
    first, *lines = raw.decode("latin-1").lstrip("\r\n").split("\r\n")
    try:
        method, target, version = first.split(" ")
    except ValueError:
        raise Malformed(400, "The request line is not understood.") from None
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise Malformed(505, "Only HTTP/1.1 is spoken here.")
    headers = dict(map(_parse_header, lines))
    connection = headers.get("connection", "").lower()
    path, _, query = target.partition("?")
    return Request(
        method=method,
        path=unquote(path),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        keep_alive="close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection,
    )


def _parse_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise Malformed(400, "A header line is not understood.")
    return name.lower(), value.strip()
