"""The configuration of a client: from arguments, from the environment, checked all at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import SplitResult, urlsplit

from o3pro_bg._figures import is_positive
from o3pro_bg._sentences import say

if TYPE_CHECKING:
    from collections.abc import Collection

    from o3pro_bg._sentences import Language

Auth = Literal["auto", "key", "entra", "bearer"]

_AUTHS: Final = ("auto", "key", "entra", "bearer")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_V1_VERSIONS: Final = frozenset({"v1", "preview", ""})


def _env(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


@dataclass(frozen=True, kw_only=True)
class O3ProConfig:
    """
    Where the deployment is, how to be let in, and what it accepts.

    A field that is left out is read from the environment when the object is made. Nothing is checked then:
    `validate` lists every problem, and a handler whose client is not ready answers with that list.

    Args:
        endpoint: The resource's URL (`AZURE_OPENAI_ENDPOINT`). With `api_version` `"v1"`, `"preview"` or
            `""` requests go to its `/openai/v1/` surface, the one that documents background mode; with a
            dated version they go to `/openai/`.
        api_key: The key (`AZURE_OPENAI_API_KEY`), or the bearer token of a gateway. Never in a repr.
        deployment: The deployment's name (`AZURE_OPENAI_DEPLOYMENT` or `AZURE_OPENAI_DEPLOYMENT_NAME`).
        api_version: Sent as the query `api-version` (`AZURE_OPENAI_API_VERSION` or `OPENAI_API_VERSION`);
            an empty string sends none. Default `"v1"`, and `""` with `base_url`.
        base_url: The full base URL of a gateway or a compatible server, used as it is, in place of
            `endpoint`.
        auth: `"key"` sends the key as `api-key`, `"bearer"` sends it as `Authorization: Bearer`, `"entra"`
            asks a credential for tokens. `"auto"` is `"key"` where there is one, else `"entra"`.
        credential: A synchronous credential of `azure.identity`; default `DefaultAzureCredential()`.
        scope: What an Entra ID token is asked for.
        efforts: The efforts that the deployment accepts.
        reasoning: What every request's `reasoning` holds beside its effort, such as `{"mode": "pro"}`.
        background: False for a deployment or gateway without background mode: a job is then one long
            request, and cancelling it drops the connection.
        tag_jobs: Whether every create carries our job id as metadata `o3pro_bg_job_id`.
        create_timeout: Seconds for a create to be accepted.
        look_timeout: Seconds for a look or a cancel to be answered.
    """

    endpoint: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    deployment: str = ""
    api_version: str | None = None
    base_url: str = field(default="", repr=False)
    auth: Auth = "auto"
    credential: Any = field(default=None, repr=False)
    scope: str = "https://ai.azure.com/.default"
    efforts: Collection[str] = ("low", "medium", "high")
    reasoning: Mapping[str, Any] = field(default_factory=dict, hash=False)
    background: bool = True
    tag_jobs: bool = True
    create_timeout: float = 60.0
    look_timeout: float = 30.0

    def __post_init__(self) -> None:
        version, efforts = self.api_version, cast("object", self.efforts)
        if version is None:
            version = "" if self.base_url else _env("AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION") or "v1"
        filled = {
            "endpoint": self.endpoint or ("" if self.base_url else _env("AZURE_OPENAI_ENDPOINT")),
            "api_key": self.api_key or ("" if self.auth == "entra" else _env("AZURE_OPENAI_API_KEY")),
            "deployment": self.deployment
            or _env("AZURE_OPENAI_DEPLOYMENT", "AZURE_OPENAI_DEPLOYMENT_NAME")
            or "o3-pro",
            "api_version": version,
            "efforts": tuple(efforts) if isinstance(efforts, Iterable) and not isinstance(efforts, str) else (efforts,),
        }
        for name, value in filled.items():
            object.__setattr__(self, name, value)

    @property
    def auth_method(self) -> Literal["key", "entra", "bearer"]:
        """Tell how requests are authenticated: `"key"`, `"bearer"` or `"entra"`."""
        if self.auth == "auto":
            return "key" if self.api_key and self.credential is None else "entra"
        return self.auth

    @property
    def resource(self) -> str:
        """Answer the URL that tells this service from others, whatever the version of its interface."""
        return (self.base_url or self.endpoint).rstrip("/").removesuffix("/v1").removesuffix("/openai")

    @property
    def service_url(self) -> str:
        """Answer the URL under which `responses` lies, with a slash at its end."""
        if self.base_url:
            return self.base_url.rstrip("/") + "/"
        return self.resource + ("/openai/v1/" if self.api_version in _V1_VERSIONS else "/openai/")

    def validate(self, language: Language = "en") -> list[str]:
        """
        List everything that keeps this configuration from working, each with its mend; empty is ready.

        It looks at the configuration alone and asks no network.
        """
        return [say(language, f"config.{key}", choices=", ".join(_AUTHS)) for key in self._problems()]

    def _problems(self) -> list[str]:
        url = self.base_url or self.endpoint
        checks: list[tuple[bool, str]] = [
            (not url, "endpoint_missing"),
            (bool(url) and not _is_safe(url), "endpoint_invalid"),
            (not self.efforts or not all(map(_is_word, self.efforts)), "efforts_empty"),
            (self.auth not in _AUTHS, "auth_unknown"),
            (self.auth_method != "entra" and not self.api_key, "key_missing"),
            (self.auth_method != "entra" and not _is_header_safe(self.api_key), "key_invalid"),
            (not _is_without_effort(self.reasoning), "reasoning_invalid"),
            (not (is_positive(self.create_timeout) and is_positive(self.look_timeout)), "timeout_invalid"),
            (not all(map(_is_word, (self.deployment, self.api_version or "none", self.scope))), "text_invalid"),
            ({type(self.background), type(self.tag_jobs)} != {bool}, "switch_invalid"),
            (self.credential is not None and not _gives_tokens(self.credential), "credential_async"),
        ]
        return [key for wrong, key in checks if wrong]


def _is_word(text: object) -> bool:
    return isinstance(text, str) and text != "" and text.isprintable()


def _is_without_effort(reasoning: object) -> bool:
    return isinstance(reasoning, Mapping) and "effort" not in reasoning


def _gives_tokens(credential: object) -> bool:
    """Tell whether this is a credential whose `get_token` can be called as it is."""
    return hasattr(credential, "get_token") and not type(credential).__module__.startswith("azure.identity.aio")


def _is_safe(url: object) -> bool:
    """Tell whether a prompt and a key may be sent there: over TLS, or to this very machine."""
    if not isinstance(url, str):
        return False
    try:
        parts: SplitResult = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or {*" ?#<>"} & {*url} or not url.isprintable():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _is_header_safe(key: object) -> bool:
    return isinstance(key, str) and all("!" <= char <= "~" for char in key)
