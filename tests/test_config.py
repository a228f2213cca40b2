"""The configuration reads arguments before the environment, finds its URL, and lists all its problems at once."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import pytest
from azure.identity.aio import ClientSecretCredential as AsyncCredential

from o3pro_bg._sentences import EN, JA
from o3pro_bg.config import O3ProConfig

if TYPE_CHECKING:
    from o3pro_bg._sentences import Language

TIMEOUTS = ("create_timeout", "look_timeout")
ENDPOINT = "https://x.openai.azure.com"
SECRET = "sk-very-secret"
AUTHS = "auto, key, entra, bearer"


class Credential:
    """Whatever gives tokens."""

    def get_token(self, *scopes: str) -> Any: ...


def keys(config: O3ProConfig) -> list[str]:
    """Answer the keys of the sentences that `validate` lists."""
    by_sentence = {sentence.format(choices=AUTHS): key for key, sentence in EN.items() if key.startswith("config.")}
    return [by_sentence[problem].removeprefix("config.") for problem in config.validate()]


def ready(**arguments: Any) -> O3ProConfig:
    """Answer a configuration that has no problem but those that the arguments bring."""
    return O3ProConfig(**{"endpoint": ENDPOINT, "api_key": SECRET, **arguments})


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("AZURE_OPENAI_ENDPOINT", "endpoint"),
        ("AZURE_OPENAI_API_KEY", "api_key"),
        ("AZURE_OPENAI_DEPLOYMENT", "deployment"),
        ("AZURE_OPENAI_DEPLOYMENT_NAME", "deployment"),
        ("AZURE_OPENAI_API_VERSION", "api_version"),
        ("OPENAI_API_VERSION", "api_version"),
    ],
)
def test_environment_fills_what_is_left_out(variable: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable fills its field, without white space around it; an argument wins over it."""
    monkeypatch.setenv(variable, " from-environment\n")
    assert getattr(O3ProConfig(), field) == "from-environment"
    arguments: dict[str, Any] = {field: "from-argument"}
    assert getattr(O3ProConfig(**arguments), field) == "from-argument"


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        ("AZURE_OPENAI_DEPLOYMENT", "AZURE_OPENAI_DEPLOYMENT_NAME", "deployment"),
        ("AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION", "api_version"),
    ],
)
def test_first_variable_that_is_set_wins(first: str, second: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two variables for one field the first wins, unless it is empty or blank."""
    monkeypatch.setenv(first, "one")
    monkeypatch.setenv(second, "two")
    assert getattr(O3ProConfig(), field) == "one"
    monkeypatch.setenv(first, "  ")
    assert getattr(O3ProConfig(), field) == "two"


def test_defaults() -> None:
    """Without arguments and environment the profile is o3-pro's on the v1 surface, in the background."""
    config = O3ProConfig()
    assert (config.deployment, config.api_version, config.efforts) == ("o3-pro", "v1", ("low", "medium", "high"))
    assert (config.background, config.tag_jobs, dict(config.reasoning)) == (True, True, {})
    assert (config.create_timeout, config.look_timeout) == (60, 30)
    assert config.scope == "https://ai.azure.com/.default"


def test_environment_is_read_when_the_object_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration does not change when the environment does."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "one")
    config = O3ProConfig()
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "two")
    assert config.api_key == "one"
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.api_key = "three"  # type: ignore[misc]


def test_base_url_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway takes neither endpoint nor api-version from the environment, but a given version."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", ENDPOINT)
    monkeypatch.setenv("AZURE_OPENAI_API_VERSION", "2025-04-01-preview")
    config = O3ProConfig(base_url="http://localhost:4000/v1", auth="bearer", api_key=SECRET)
    assert (config.endpoint, config.api_version, config.service_url) == ("", "", "http://localhost:4000/v1/")
    assert O3ProConfig(base_url="http://localhost", api_version="v1").api_version == "v1"


def test_entra_leaves_the_key_in_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for Entra ID gets it, whatever key the environment holds."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", SECRET)
    config = O3ProConfig(endpoint=ENDPOINT, auth="entra")
    assert (config.api_key, config.auth_method, config.validate()) == ("", "entra", [])


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        ({"api_key": SECRET}, "key"),
        ({}, "entra"),
        ({"api_key": SECRET, "credential": object()}, "entra"),
        ({"auth": "key"}, "key"),
        ({"auth": "entra", "api_key": SECRET}, "entra"),
        ({"auth": "bearer", "api_key": SECRET}, "bearer"),
    ],
)
def test_auth_method(arguments: dict[str, Any], method: str) -> None:
    """A key means key auth, none means Entra ID; a credential, or what is asked for, wins."""
    assert O3ProConfig(endpoint=ENDPOINT, **arguments).auth_method == method


@pytest.mark.parametrize("pasted", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("v1", "/openai/v1/"),
        ("preview", "/openai/v1/"),
        ("", "/openai/v1/"),
        ("2025-04-01-preview", "/openai/"),
        ("2025-03-01-preview", "/openai/"),
    ],
)
def test_service_url_of_an_endpoint(pasted: str, version: str, path: str) -> None:
    """An endpoint pasted with or without its path leads to the surface that the version asks for."""
    assert ready(endpoint=ENDPOINT + pasted, api_version=version).service_url == ENDPOINT + path


def test_service_url_keeps_a_gateways_path() -> None:
    """An endpoint behind a path, as API Management has it, keeps the path; a base URL is used as it is."""
    assert ready(endpoint="https://apim.example/team-a/").service_url == "https://apim.example/team-a/openai/v1/"
    assert ready(base_url="https://llm.example/any/openai").service_url == "https://llm.example/any/openai/"


def test_all_problems_at_once() -> None:
    """Every problem is listed, not only the first one."""
    config = O3ProConfig(endpoint="ftp://x", auth="magic", efforts=())  # type: ignore[arg-type]
    assert keys(config) == ["endpoint_invalid", "efforts_empty", "auth_unknown", "key_missing"]
    assert keys(O3ProConfig(auth="key", efforts=())) == ["endpoint_missing", "efforts_empty", "key_missing"]


@pytest.mark.parametrize(("language", "sentences"), [("en", EN), ("ja", JA)])
def test_problems_in_both_languages(language: Language, sentences: dict[str, str]) -> None:
    """Problems are told in English or Japanese; the unknown auth is told its choices."""
    config = ready(endpoint="", auth="magic")
    assert config.validate(language) == [
        sentences["config.endpoint_missing"],
        sentences["config.auth_unknown"].format(choices=AUTHS),
    ]


@pytest.mark.parametrize("url", ["endpoint", "base_url"])
@pytest.mark.parametrize(
    "address",
    [
        "https://x.openai.azure.com",
        "HTTPS://X.OPENAI.AZURE.COM/",
        "https://gateway.example:8443/v1",
        "http://localhost:8000",
        "http://127.0.0.1:8000/v1",
        "http://[::1]:8000",
        "http://LOCALHOST",
    ],
)
def test_addresses_a_prompt_may_be_sent_to(url: str, address: str) -> None:
    """TLS anywhere, and plain http to this very machine, are fine."""
    assert ready(**{"endpoint": "", url: address}).validate() == []


@pytest.mark.parametrize("url", ["endpoint", "base_url"])
@pytest.mark.parametrize(
    "address",
    [
        "x.openai.azure.com",
        "http://x.openai.azure.com",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://10.0.0.1",
        "ftp://localhost",
        "https://",
        "https:///openai",
        "https://user:pass@x.openai.azure.com",
        "https://user@x.openai.azure.com",
        "https://:pass@x.openai.azure.com",
        "https://x.openai.azure.com:port",
        "https://x.openai.azure.com:99999",
        "https://[::1",
        "https://x.openai.azure.com/openai/responses?api-version=2025-04-01-preview",
        "https://x.openai.azure.com/#top",
        " https://x.openai.azure.com",
        "https://x.openai.azure.com\n",
        "https://x.openai\t.azure.com",
        "https://x.openai.azure.com\x00",
    ],
)
def test_addresses_that_are_refused(url: str, address: str) -> None:
    """No scheme, plain http elsewhere, a user or password, a query, white space and broken URLs are problems."""
    assert keys(ready(**{"endpoint": "", url: address})) == ["endpoint_invalid"]


@pytest.mark.parametrize("key", ["a b", "key\n", "\tkey", "schlüssel", "key\x00", "\u200bkey"])
@pytest.mark.parametrize("auth", ["key", "bearer", "auto"])
def test_keys_that_no_header_can_carry(key: str, auth: str) -> None:
    """A key with white space, control or other characters was copied badly."""
    assert keys(ready(api_key=key, auth=auth)) == ["key_invalid"]


def test_key_of_all_that_a_header_can_carry() -> None:
    """Every visible ASCII character may be in a key."""
    assert keys(ready(api_key="".join(map(chr, range(0x21, 0x7F))))) == []


def test_keyless_auth_needs_no_key() -> None:
    """With Entra ID neither a missing nor a broken key is a problem."""
    assert keys(O3ProConfig(endpoint=ENDPOINT)) == []
    assert keys(ready(auth="entra", api_key="a b")) == []


def test_synchronous_credential_is_no_problem() -> None:
    """A credential whose `get_token` can be called as it is may be anybody's."""
    assert keys(O3ProConfig(endpoint=ENDPOINT, credential=Credential())) == []


def test_asynchronous_credential_is_refused() -> None:
    """A credential of azure.identity.aio, which would need another HTTP library, is a problem."""
    credential = AsyncCredential.__new__(AsyncCredential)  # its constructor needs that library
    assert keys(O3ProConfig(endpoint=ENDPOINT, credential=credential)) == ["credential_async"]


@pytest.mark.parametrize(
    ("field", "values", "key"),
    [
        ("endpoint", [5, b"https://x"], "endpoint_invalid"),
        ("api_key", [5, b"key"], "key_invalid"),
        ("efforts", [None, 5, b"low", ("low", 5), [""], ["a\nb"]], "efforts_empty"),
        ("reasoning", [None, 5, [], "pro"], "reasoning_invalid"),
        *[(name, [None, 0, -1, "5", True, math.nan, math.inf], "timeout_invalid") for name in TIMEOUTS],
        *[(name, [5, b"x", "a\nb"], "text_invalid") for name in ("deployment", "api_version", "scope")],
        *[(name, [None, 0, "no"], "switch_invalid") for name in ("background", "tag_jobs")],
        ("credential", [5, "token", object()], "credential_async"),
    ],
)
def test_values_of_another_kind(field: str, values: list[Any], key: str) -> None:
    """A value that makes no sense is a problem under its own sentence, and nothing raises."""
    for value in values:
        settings = {"auth": "key", field: value} if field == "credential" else {field: value}
        assert keys(ready(**settings)) == [key], value


@pytest.mark.parametrize(
    "successor",
    [
        {"deployment": "gpt-5-pro", "efforts": ("high",)},
        {"deployment": "gpt-5.6-sol", "efforts": ("none", "max"), "reasoning": {"mode": "pro"}},
    ],
)
def test_successors_are_configuration(successor: dict[str, Any]) -> None:
    """The successors of o3-pro need nothing but configuration."""
    config = ready(**successor)
    assert config.validate() == []
    assert {name: getattr(config, name) for name in successor} == successor


def test_efforts_may_be_any_sequence() -> None:
    """Efforts given as a list are kept as a tuple, so that nobody changes them."""
    assert ready(efforts=["high"]).efforts == ("high",)


def test_configurations_have_hashes() -> None:
    """A configuration serves as a key, whatever its requests' `reasoning` holds; its fields are given by name."""
    assert len({ready(reasoning={"mode": "pro"}), ready(reasoning={"mode": "pro"}), ready()}) == 2
    with pytest.raises(TypeError):
        O3ProConfig(ENDPOINT)  # type: ignore[call-arg]


def test_repr_tells_no_secret() -> None:
    """A repr holds neither the key nor the credential, nor where the service is."""

    class Talkative:
        def __repr__(self) -> str:
            return SECRET

    told = repr(ready(credential=Talkative(), base_url="https://gateway.example"))
    assert not [text for text in (SECRET, ENDPOINT, "gateway") if text in told]


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint": "https://r.openai.azure.com"},
        {"endpoint": "https://r.openai.azure.com/", "api_version": "2025-04-01-preview"},
        {"endpoint": "https://r.openai.azure.com/openai/v1/"},
        {"base_url": "https://r.openai.azure.com/openai/v1"},
    ],
)
def test_a_resource_is_the_same_however_it_is_reached(settings: dict[str, str]) -> None:
    """What tells a service from others does not depend on the version of its interface."""
    assert O3ProConfig(**settings).resource == "https://r.openai.azure.com"  # type: ignore[arg-type]
