"""The client: credentials, and one `AsyncAzureOpenAI` for each event loop that asks."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import re
import time
import weakref
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from urllib.request import getproxies

import anyio
from anyio import to_thread

from o3pro_bg._forks import KEPT, whole
from o3pro_bg._lanes import KEEP_ALIVE, AiohttpLane, HttpxLane, Way
from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._responses import ResponsesRemote
from o3pro_bg.config import O3ProConfig

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping

    import httpx2
    from azure.core.credentials import AccessToken
    from azure.identity import DefaultAzureCredential

log = logging.getLogger("o3pro_bg")

_PASSWORD: Final = re.compile(r"//[^/\s]*@")  # of a proxy, say


class O3ProClient:
    """
    A deployment, and the right to use it.

    Making one touches no network and never fails: a client whose configuration has problems says so by
    `is_ready()`, and a handler given one answers with the list of them.

    Args:
        config: The configuration; left out, it is read from the environment.
        http_client: Makes the `httpx2.AsyncClient` of each event loop, for proxies, TLS settings or mocks, which
            carries every request. Left out, aiohttp carries them where it is installed and the environment names no
            proxy, and else the SDK's own default client. Plain http to this machine goes through no proxy.

    Raises:
        TypeError: `config` is none, or `http_client` no function.
    """

    def __init__(
        self,
        config: O3ProConfig | None = None,
        *,
        http_client: Callable[[], httpx2.AsyncClient] | None = None,
    ) -> None:
        if not isinstance(config, O3ProConfig | None):
            raise TypeError(f"config has to be an O3ProConfig, not {type(config)}")
        if http_client is not None and not callable(http_client):
            raise TypeError("http_client has to be a function that makes an httpx2.AsyncClient, not such a client")
        self.config = O3ProConfig() if config is None else config
        self._http_client = http_client
        self._credential = self.config.credential
        self._pid = os.getpid()
        self._problems = self.config.validate()

    def __repr__(self) -> str:
        where = self.config.service_url if self.is_ready() else "not ready"
        return f"<O3ProClient {self.config.deployment} at {where}, auth {self.auth_method}>"

    @property
    def auth_method(self) -> str:
        """Tell how requests are authenticated: `"key"`, `"bearer"` or `"entra"`."""
        return self.config.auth_method

    def is_ready(self) -> bool:
        """Tell whether the configuration makes a working client; `config.validate()` lists what is missing."""
        return not self._problems

    async def connect(self) -> ResponsesRemote:
        """
        Answer a remote of its own for the running event loop; whoever asked closes it on that loop.

        The SDK takes about a second to import, and its TLS context blocks: both happen in a worker thread.

        Raises:
            RemoteTrouble: The SDK, or the `http_client` that was given, could not make one; or the client is not ready:
                nothing is ever sent to an address, or with a key, that the configuration refuses.
        """
        if not self.is_ready():
            raise RemoteTrouble(Trouble.REFUSED, Failure("client", "; ".join(self._problems)))
        token = EntraToken(self._get_token) if self.auth_method == "entra" else None
        try:
            return await to_thread.run_sync(self._make_whole_remote, token)
        except Exception as exc:
            failure = Failure("client", _PASSWORD.sub("//...@", f"{type(exc).__name__}: {exc}")[:300])
        raise RemoteTrouble(Trouble.REFUSED, failure)

    def _get_token(self) -> AccessToken:
        """Ask the credential; it blocks."""
        if self.config.credential is None and self._pid != os.getpid():  # its connections are shared with the parent
            KEPT.append(self._credential)
            self._credential, self._pid = None, os.getpid()
        if self._credential is None:
            from azure.identity import DefaultAzureCredential

            self._credential = credential = DefaultAzureCredential()
            weakref.finalize(self, _let_go, credential, self._pid)
        token: AccessToken = self._credential.get_token(self.config.scope)
        return token

    def _make_whole_remote(self, token: EntraToken | None) -> ResponsesRemote:
        """Make a remote, and no fork meanwhile: a child would wait for ever for the import that it has half of."""
        with whole():
            platform.platform()  # which the SDK asks, and for which Python 3.11 holds a lock while another program runs
            return self._make_remote(token)

    def _make_remote(self, token: EntraToken | None) -> ResponsesRemote:
        import httpx2
        from openai import AsyncAzureOpenAI

        config = self.config
        tls = httpx2.create_ssl_context()
        # Plain http is for this machine: no proxy of the environment shall carry it to another.
        stays_here = config.service_url.startswith("http:")
        http = self._http_client() if self._http_client else _default_http(tls, trust_env=not stays_here)
        if not isinstance(http, httpx2.AsyncClient):
            raise TypeError(f"http_client has to make an httpx2.AsyncClient, and made {type(http)}")
        auth: dict[str, Any] = {"api_key": config.api_key}
        if config.auth_method == "bearer":
            auth = {"azure_ad_token": config.api_key}
        elif token is not None:
            auth = {"azure_ad_token_provider": token}
        sdk = AsyncAzureOpenAI(
            base_url=config.service_url,
            # The SDK insists on a version; where the configuration has none, each request leaves it out.
            api_version=config.api_version or "",
            max_retries=0,
            http_client=http,
            **auth,
        )
        is_plain = self._http_client is None and _has_aiohttp() and (stays_here or not getproxies())
        headers = {name: value for name, value in sdk.default_headers.items() if isinstance(value, str)}
        query = f"?api-version={quote(config.api_version, safe='')}" if config.api_version else ""
        way = Way(str(sdk.base_url), headers, self._auth_with(token), query)
        lane = AiohttpLane(tls, way) if is_plain else HttpxLane(http, way)
        return ResponsesRemote(sdk, config, lane, token)

    def _auth_with(self, token: EntraToken | None) -> Callable[[], Awaitable[Mapping[str, str]]]:
        """Answer what answers the headers that the SDK sends to open the door."""
        is_bearer = self.config.auth_method == "bearer"
        fixed = {"Authorization": f"Bearer {self.config.api_key}"} if is_bearer else {"api-key": self.config.api_key}

        async def auth() -> Mapping[str, str]:
            return fixed if token is None else {"Authorization": f"Bearer {await token()}"}

        return auth


def _let_go(credential: DefaultAzureCredential, pid: int) -> None:
    """Close a credential whose client is no longer there; in a forked process it is the parent's."""
    if pid == os.getpid():
        credential.close()


def _has_aiohttp() -> bool:
    return find_spec("aiohttp") is not None


def _default_http(tls: ssl.SSLContext, *, trust_env: bool) -> httpx2.AsyncClient:
    import httpx2
    from openai import DefaultAsyncHttpxClient

    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=KEEP_ALIVE)
    return DefaultAsyncHttpxClient(limits=limits, verify=tls, trust_env=trust_env)


class EntraToken:
    """
    Entra ID tokens, which each request asks for: cached, refreshed by one, off the loop.

    The synchronous credentials of `azure.identity` are used, in a worker thread, because its asynchronous
    ones need another HTTP library; a token is renewed five minutes before it expires, and one that still
    holds outlives a renewal that fails, which is tried again half a minute later.
    """

    _EARLY: Final = 300.0
    _PAUSE: Final = 30.0
    _PATIENCE: Final = 60.0

    def __init__(self, get_token: Callable[[], AccessToken]) -> None:
        self._get_token = get_token
        self._token = ""
        self._expires_at = self._asked_at = 0.0
        self._trouble: RemoteTrouble | None = None
        self._renewing = asyncio.Lock()
        self._limiter = anyio.CapacityLimiter(4)  # a credential that hangs keeps a thread; not everybody's

    async def __call__(self) -> str:
        """
        Answer a token that holds for a while.

        Raises:
            RemoteTrouble: Entra ID gave none; nothing was sent to the service.
        """
        if self._is_due():
            known = self._trouble
            async with self._renewing:
                if self._trouble is not None and self._trouble is not known:  # it failed for all who waited
                    raise RemoteTrouble(self._trouble.kind, self._trouble.failure)
                if self._is_due():
                    await self._renew()
        return self._token

    def _is_due(self) -> bool:
        now = time.time()
        return now >= self._expires_at or now > max(self._expires_at - self._EARLY, self._asked_at + self._PAUSE)

    async def _renew(self) -> None:
        self._asked_at = time.time()
        try:
            with anyio.fail_after(self._PATIENCE):
                token = await to_thread.run_sync(self._ask, abandon_on_cancel=True, limiter=self._limiter)
            self._token, self._expires_at = token()
            return
        except Exception as exc:
            if time.time() < self._expires_at:
                log.warning("a new Entra ID token could not be had (%s); the old one still holds", type(exc).__name__)
                return
            said = f"{type(exc).__name__}: {exc}".partition("\n")[0][:300]
            unreachable = type(exc).__name__ in ("ServiceRequestError", "ServiceResponseError", "TimeoutError")
            kind = Trouble.UNSENT if unreachable else Trouble.DENIED
            self._trouble = trouble = RemoteTrouble(kind, Failure("credential", said))
        raise trouble  # out here it has no context, which might hold the credential's own request

    def _ask(self) -> Callable[[], tuple[str, float]]:
        """Answer what answers the token: what crosses threads as it is, asyncio's debug mode may log."""
        token = self._get_token()
        held = token.token, float(token.expires_on)
        return lambda: held
