"""What the doctor finds out with the credential, and for free: a token, and whether the service lets us in."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._sentences import explain
from o3pro_bg._shown import duration
from o3pro_bg.cli._doctor.checks import Verdict, of_trouble, ok, problem, unknown

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

    from o3pro_bg.cli._doctor.checks import Check
    from o3pro_bg.config import O3ProConfig

_NOBODY: Final = f"resp_{'0' * 48}"  # no response has this id
_PATIENCE: Final = 30.0  # seconds for a token
_SOON: Final = 120.0  # seconds a token has to hold for, to be used once more


class KeptToken:
    """A credential whose token is asked for once, however many of us want it."""

    def __init__(self, credential: Any = None) -> None:
        self.token: AccessToken | None = None
        self._credential = credential

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Answer a token for these scopes; it blocks."""
        if self.token is None or self.token.expires_on < time.time() + _SOON:
            self.token = self._ask(*scopes)
        return self.token

    def _ask(self, *scopes: str) -> AccessToken:
        if self._credential is not None:
            return self._get(self._credential, *scopes)
        from azure.identity import DefaultAzureCredential

        with DefaultAzureCredential() as credential:
            return self._get(credential, *scopes)

    @staticmethod
    def _get(credential: Any, *scopes: str) -> AccessToken:
        token: AccessToken = credential.get_token(*scopes)
        return token


def with_kept_token(config: O3ProConfig) -> tuple[O3ProConfig, KeptToken]:
    """Answer a configuration that asks Entra ID once, if at all, and what keeps the token."""
    kept = KeptToken(config.credential)
    return (replace(config, credential=kept) if config.auth_method == "entra" else config), kept


async def credential(config: O3ProConfig, kept: KeptToken) -> Check:
    """Answer whether there is a key, or a token to be had."""
    if config.auth_method != "entra":
        what = "an API key" if config.auth_method == "key" else "a bearer token"
        return ok("credential", f"{what} is set; whether it is the right one, the service says below")
    import anyio

    from o3pro_bg._remote import RemoteTrouble
    from o3pro_bg.client import EntraToken

    sentence = f"{explain('en', 'credential', '')}; or set AZURE_OPENAI_API_KEY"
    try:
        with anyio.fail_after(_PATIENCE):
            await EntraToken(lambda: kept.get_token(config.scope))()
    except TimeoutError:
        return problem("credential", f"Entra ID gave no token within {_PATIENCE:g} s", sentence)
    except RemoteTrouble as trouble:
        return problem("credential", f"no key is set, and no token came: {trouble.failure.detail}", sentence)
    until = kept.token.expires_on if kept.token is not None else 0
    when = time.strftime("%H:%M:%S", time.localtime(until))
    return ok("credential", f"a token of Entra ID, which holds until {when}, for {duration(until - time.time())}")


async def access(config: O3ProConfig) -> Check:
    """Answer whether the service lets us in, by a look at a response that cannot exist: that costs nothing."""
    from o3pro_bg._remote import RemoteTrouble
    from o3pro_bg.client import O3ProClient

    try:
        remote = await O3ProClient(config).connect()
    except RemoteTrouble as trouble:
        return of_trouble("access", trouble)
    try:
        await remote.look(_NOBODY)
    except RemoteTrouble as trouble:
        if trouble.failure.code == "lost":
            return ok("access", f"endpoint, credential and api-version {config.api_version or 'none'} work")
        return of_trouble("access", trouble)
    finally:
        await remote.aclose()
    return unknown("access", "the service knows a response that cannot exist", "check what answers at the endpoint")


async def both(config: O3ProConfig, kept: KeptToken, *, why_not: str) -> list[Check]:
    """Answer both checks; the second cannot be made where the first fails, nor where there is a reason against it."""
    first = await credential(config, kept)
    if first.verdict is not Verdict.OK:
        why_not = why_not or "there is no credential"
    return [first, unknown("access", f"not asked: {why_not}") if why_not else await access(config)]
