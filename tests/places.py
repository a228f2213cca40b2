"""Servers on this machine that behave as no service should: in the wrong place, broken, slow, or with bad intent."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Behaviour = Callable[["Visit"], None]

GOOD = b"a job under way"  # a request that holds this is answered as a service does, whatever else the place is


class Visit:
    """A request that came to a place, and the connection that it came by."""

    def __init__(self, place: Place, connection: socket.socket, head: bytes, body: bytes) -> None:
        self.place = place
        self.connection = connection
        self.head = head
        self.body = body

    def answer(self, status: int, body: bytes | str | dict[str, Any] = b"", *headers: str) -> None:
        """Answer this; what is no bytes yet is a page, or JSON."""
        kind = "application/json" if isinstance(body, dict) else "text/html"
        content = json.dumps(body) if isinstance(body, dict) else body
        data = content.encode() if isinstance(content, str) else content
        lines = [f"HTTP/1.1 {status} said", f"content-type: {kind}", f"content-length: {len(data)}", *headers]
        self.say("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def say(self, data: bytes) -> None:
        """Send this as it is."""
        self.connection.sendall(data)

    def drip(self, piece: bytes) -> None:
        """Send this again and again, as long as somebody listens and the place stands."""
        while not self.place.closing.wait(0.02):
            self.say(piece)


class Place:
    """
    A server on a port of its own.

    Attributes:
        received: All that came, of all connections.
        connections: How many came.
        done: Whether good jobs have ended.
    """

    def __init__(self, behave: Behaviour, *, tls: ssl.SSLContext | None = None, speaks_first: bool = False) -> None:
        self.received = b""
        self.connections = 0
        self.done = False
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._behave = behave
        self._tls = tls
        self._speaks_first = speaks_first
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' * (tls is not None)}://127.0.0.1:{self.port}"
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(20)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                while self._speaks_first or self._hear(connection):
                    if self._speaks_first:
                        self._behave(Visit(self, connection, b"", b""))
                        return

    def _hear(self, connection: socket.socket) -> bool:
        """Take one request and answer it; tell whether another one may come."""
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := connection.recv(65536)):
                return False
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        while len(body) < int(sum(map(int, lengths))):
            body += connection.recv(1 << 20)
        with self._lock:
            self.received += head + body
        visit = Visit(self, connection, head, body)
        if GOOD in body or b"/resp_good" in head:
            visit.answer(200, {"id": "resp_good", "status": "completed" if self.done else "in_progress"})
            return True
        self._behave(visit)
        return True


def unlistened() -> str:
    """Answer the address of a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"127.0.0.1:{port}"


def self_signed(folder: Path, name: str = "localhost", days: int = 1) -> ssl.SSLContext:
    """Answer the TLS of a server whose certificate nobody vouches for; one of fewer than 0 days has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def hang(visit: Visit) -> None:
    """Say nothing."""
    visit.place.closing.wait(30)


def hang_up(visit: Visit) -> None:
    """Close the connection."""
    visit.connection.shutdown(socket.SHUT_RDWR)


def reset(visit: Visit) -> None:
    """Break the connection."""
    visit.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    visit.connection.close()


def bomb(visit: Visit) -> None:
    """Send a body that never ends."""
    visit.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    begun = time.monotonic()
    while time.monotonic() - begun < 20:
        visit.say(b"4\r\nxxxx\r\n")
        time.sleep(0.001)
