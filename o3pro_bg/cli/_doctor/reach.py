"""What the doctor finds out without a key: who answers at the endpoint, whether it can be reached, and its clock."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    HTTPSHandler,
    ProxyHandler,
    Request,
    build_opener,
    getproxies,
    proxy_bypass,
)

from o3pro_bg import __version__
from o3pro_bg._shown import duration, one_line
from o3pro_bg.cli._doctor.checks import ok, problem, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message
    from typing import Any

    from o3pro_bg.cli._doctor.checks import Check
    from o3pro_bg.config import O3ProConfig

_PATIENCE: Final = 10.0  # seconds
_TOO_FAR: Final = 60.0  # seconds between two clocks from which on tokens are refused
_AZURE: Final = {
    ".openai.azure.com": "Azure OpenAI",
    ".openai.azure.us": "Azure OpenAI (US Government)",
    ".services.ai.azure.com": "Azure AI Foundry",
    ".cognitiveservices.azure.com": "Azure AI services",
    ".cognitiveservices.azure.us": "Azure AI services (US Government)",
    ".azure-api.net": "Azure API Management, a gateway",
}
"""What a host is, by the end of its name."""


class Knock(NamedTuple):
    """
    What came of a request without a key.

    Attributes:
        status: Of the answer; 0 where none came.
        headers: Of the answer, their names in lower case.
        ahead: Seconds by which its clock is ahead of ours, or None where it tells no time.
        why: What stood in the way, or an empty string.
        fix: What to do about that.
    """

    status: int = 0
    headers: Mapping[str, str] = MappingProxyType({})
    ahead: float | None = None
    why: str = ""
    fix: str = ""

    @property
    def is_emulator(self) -> bool:
        """Tell whether it was our emulator that answered."""
        return "x-o3pro-bg-emulator" in self.headers


def knock(config: O3ProConfig) -> Knock:
    """Ask the service for nothing in particular, without a key: any answer tells that it can be reached."""
    url = config.service_url
    request = Request(url, headers={"User-Agent": f"o3pro-bg/{__version__}"})  # noqa: S310 - `validate` let it pass
    begun, now = time.monotonic(), time.time()
    try:
        with _opener(url).open(request, timeout=_PATIENCE) as answer:
            return _answered(answer.status, answer.headers, now + (time.monotonic() - begun) / 2)
    except HTTPError as answer:
        with answer:
            return _answered(answer.code, answer.headers, now + (time.monotonic() - begun) / 2)
    except (OSError, http.client.HTTPException) as exc:
        why, fix = _explained(exc, url)
        return Knock(why=why, fix=fix)


def kind_of(config: O3ProConfig, knocked: Knock) -> str:
    """Answer what the endpoint is, without its name: it may be shown to anybody."""
    if knocked.is_emulator:
        return "the EMULATOR"
    host = urlsplit(config.service_url).hostname or ""
    suffix = next((suffix for suffix in _AZURE if host.endswith(suffix)), None)
    return "another server than Azure" if suffix is None else f"{_AZURE[suffix]} (*{suffix})"


def service(config: O3ProConfig, knocked: Knock) -> Check:
    """Answer whether it is Azure, the emulator, or another server."""
    kind, where = kind_of(config, knocked), config.service_url
    if knocked.is_emulator:
        return ok("service", f"{kind} at {where}: whatever it answers is made up")
    if not knocked.status and kind.startswith("another"):
        return unknown("service", f"{where} is no name of Azure's; only an answer tells whether it is the emulator")
    return ok("service", f"{kind} at {where}")


def reachable(knocked: Knock) -> Check:
    """Answer whether it can be reached."""
    if knocked.why:
        return problem("reachable", knocked.why, knocked.fix)
    return ok("reachable", f"it answered {knocked.status} to a request without a key")


def clock(knocked: Knock) -> Check:
    """Answer whether our clock goes as the service's."""
    if knocked.ahead is None:
        why = "the service did not answer" if not knocked.status else "its answer tells no time"
        return unknown("clock", f"not compared: {why}")
    apart = duration(abs(knocked.ahead))
    if abs(knocked.ahead) > _TOO_FAR:
        direction = "behind" if knocked.ahead > 0 else "ahead of"
        fix = "set the clock, and have it kept by NTP: tokens and certificates are refused by another time"
        return problem("clock", f"this machine's is {apart} {direction} the service's", fix)
    return ok("clock", "it goes as the service's" if abs(knocked.ahead) < 2 else f"{apart} from the service's")


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none, as the library does not."""


def _opener(url: str) -> Any:
    # Plain http is for this machine: no proxy of the environment shall carry it to another.
    proxies = ProxyHandler({} if url.startswith("http:") else None)
    return build_opener(proxies, HTTPSHandler(context=_tls()), _NoRedirect)


def _tls() -> ssl.SSLContext:
    """Answer what trusts whom the library trusts."""
    try:
        from httpx2 import create_ssl_context
    except ImportError:
        return ssl.create_default_context()
    return create_ssl_context()


def _answered(status: int, headers: Message, now: float) -> Knock:
    said = {name.lower(): value for name, value in headers.items()}
    try:
        # It is cut to the second: on the average half of one has passed.
        ahead = parsedate_to_datetime(said.get("date", "")).timestamp() + 0.5 - now
    except (ValueError, OverflowError):
        ahead = None
    return Knock(status, said, ahead)


def _explained(exc: OSError | http.client.HTTPException, url: str) -> tuple[str, str]:
    """Answer why there was no answer, and what to do."""
    cause = exc.reason if isinstance(exc, URLError) and isinstance(exc.reason, BaseException) else exc
    who = _whom(url)
    rows: tuple[tuple[type[BaseException], str, str], ...] = (
        (socket.gaierror, f"the name of {who} is not known", "check how it is written, and the network's DNS"),
        (
            ssl.SSLCertVerificationError,
            f"the certificate of {who} is not trusted: {getattr(cause, 'verify_message', '')}",
            "check the endpoint and this machine's clock; for an authority of your own, set SSL_CERT_FILE",
        ),
        (ssl.SSLError, f"{who} does not speak TLS as we do", "check that https is spoken at this port, and the proxy"),
        (TimeoutError, f"{who} did not answer within {_PATIENCE:g} s", "check the network, the VPN and the firewall"),
        (ConnectionRefusedError, f"nothing listens at {who}", "check host and port, and that the server runs"),
        (http.client.HTTPException, f"{who} does not speak HTTP", "check the port, and whether it is https"),
    )
    for kind, why, fix in rows:
        if isinstance(cause, kind):
            return why, fix
    said = one_line(str(getattr(cause, "strerror", None) or cause), 100)
    return f"no connection to {who}: {said}", "check the network, the proxy and the firewall"


def _whom(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" and "https" in getproxies() and not proxy_bypass(host):
        return f"{host}, or of the proxy that the environment names,"
    return parts.netloc
