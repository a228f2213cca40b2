"""A request is taken on whole, or refused with a sentence that says what to do; nothing is sent for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._admission import Refused, admit
from o3pro_bg.config import O3ProConfig
from o3pro_bg.errors import ConfigError, HandlerClosed, InvalidRequest

if TYPE_CHECKING:
    from o3pro_bg._records import JobRequest

CONFIG = O3ProConfig(endpoint="https://x.openai.azure.com", api_key="k", deployment="my-o3")
LONE = "\ud800"


def nested(depth: int) -> list[Any]:
    """Answer a list in a list in a list."""
    outer: list[Any] = []
    for _ in range(depth):
        outer = [outer]
    return outer


def ask(
    question: Any = "Why?",
    effort: Any = "low",
    timeout: Any = None,
    dedupe_key: Any = None,
    priority: Any = 0,
    **options: Any,
) -> JobRequest:
    """Ask for admission."""
    return admit(CONFIG, question, effort, timeout, options, dedupe_key=dedupe_key, priority=priority)


def pairs(count: int) -> dict[str, str]:
    """Answer so many pairs of metadata, as long as they may be."""
    return {f"{n:064}": "v" * 512 for n in range(count)}


def test_request_holds_what_was_asked() -> None:
    """An admitted request holds the question, the effort, the deployment, the options and the time-out."""
    request = ask("Why?", "high", 5, instructions="be brief", max_output_tokens=100)
    assert (request.question, request.effort, request.deployment, request.timeout) == ("Why?", "high", "my-o3", 5)
    assert request.options == {"instructions": "be brief", "max_output_tokens": 100}


@pytest.mark.parametrize(
    ("where", "endpoint"),
    [
        ({"endpoint": "https://x.openai.azure.com/"}, "https://x.openai.azure.com"),
        ({"endpoint": "https://x.openai.azure.com", "api_version": "2025-04-01-preview"}, "https://x.openai.azure.com"),
        ({"base_url": "https://apim.example/ai"}, "https://apim.example/ai"),
    ],
)
def test_request_holds_where_it_goes(where: dict[str, str], endpoint: str) -> None:
    """An admitted request holds what tells its service from others."""
    assert admit(O3ProConfig(**where, api_key="k"), "Why?", "low", None, {}).endpoint == endpoint  # type: ignore[arg-type]


def test_request_holds_the_reasoning_of_its_configuration() -> None:
    """What the configuration asks of every request is part of the request; the request's own options win."""
    config = O3ProConfig(endpoint=CONFIG.endpoint, api_key="k", reasoning={"mode": "pro", "summary": "auto"})
    assert admit(config, "q", "low", None, {}).options == {"reasoning": {"mode": "pro", "summary": "auto"}}
    mine = admit(config, "q", "low", None, {"reasoning": {"summary": "detailed"}, "user": "u"})
    assert mine.options == {"reasoning": {"mode": "pro", "summary": "detailed"}, "user": "u"}
    assert config.reasoning == {"mode": "pro", "summary": "auto"}
    with pytest.raises(Refused, match="option_unencodable"):
        admit(O3ProConfig(endpoint=CONFIG.endpoint, api_key="k", reasoning={"mode": {1}}), "q", "low", None, {})


@pytest.mark.parametrize("key", [None, "k", "order 17 / 2026-11-24", "注文 17", "🔑", "k" * 512])
def test_dedupe_key_is_kept(key: str | None) -> None:
    """Any printable text of up to 512 characters may name a job; none is asked for."""
    assert ask(dedupe_key=key).dedupe_key == key


@pytest.mark.parametrize("priority", [0, 1, -1, 1_000_000, -1_000_000])
def test_priority_is_kept(priority: int) -> None:
    """Any whole number up to a million, above or below 0, is a priority."""
    assert ask(priority=priority).priority == priority


@pytest.mark.parametrize("priority", [None, "high", 1.0, True, [1]])
def test_a_priority_that_is_no_whole_number_raises(priority: object) -> None:
    """A priority of another type is a TypeError that says so."""
    with pytest.raises(TypeError, match=f"^priority has to be int, not {type(priority).__name__}$"):
        ask(priority=priority)


def test_what_nobody_asks_for_is_none() -> None:
    """Without options there are none, without a priority a job goes with the others."""
    request = admit(CONFIG, "q", "low", None, {})
    assert (request.options, request.priority, request.dedupe_key, request.timeout) == ({}, 0, None, None)


def test_options_are_copied() -> None:
    """What the caller changes afterwards does not change the job."""
    tools: list[Any] = [{"type": "web_search"}]
    request = ask(tools=tools, metadata={"a": "b"})
    tools[0]["type"] = "other"
    assert request.options == {"tools": [{"type": "web_search"}], "metadata": {"a": "b"}}


def test_options_pass_through() -> None:
    """Options of the Responses API pass as they are, those that the library has never heard of included."""
    options = {
        "previous_response_id": "resp_1",
        "reasoning": {"summary": "auto"},
        "text": {"verbosity": "low"},
        "new_in_2027": None,
    }
    assert ask(**options).options == options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("question", "effort") for value in (None, 5, b"Why?", ["Why?"])],
        *[("dedupe_key", value) for value in (5, 0, False, b"key", ["key"])],
    ],
)
def test_wrong_types_raise_as_any_function_would(name: str, value: object) -> None:
    """A question, an effort or a key that is no text is a TypeError that names the argument and the type."""
    with pytest.raises(TypeError, match=f"^{name} has to be str, not {type(value).__name__}$"):
        ask(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"question": ""}, "question_empty"),
        ({"question": " \n\t\u3000"}, "question_empty"),
        ({"question": f"a{LONE}b"}, "question_unencodable"),
        ({"effort": ""}, "effort_unknown"),
        ({"effort": "HIGH"}, "effort_unknown"),
        *[({"timeout": bad}, "timeout_invalid") for bad in (0, -1, math.nan, math.inf, True, "5", 10**400)],
        *[({"dedupe_key": bad}, "dedupe_key_invalid") for bad in ("", "k" * 513, "a\nb", "a\0b", "\x7f", LONE)],
        *[({"priority": bad}, "priority_invalid") for bad in (1_000_001, -1_000_001, 10**5000)],
        *[({name: True}, "option_refused") for name in ("background", "store", "stream", "stream_options")],
        *[({name: "x"}, "option_refused") for name in ("input", "model")],
        ({"reasoning": {"effort": "high"}}, "reasoning_invalid"),
        ({"reasoning": "high"}, "reasoning_invalid"),
        *[({"metadata": bad}, "metadata_invalid") for bad in (None, "x", [("a", "b")], {1: "b"}, {"a": 1})],
        ({"metadata": {"k" * 65: "v"}}, "metadata_invalid"),
        ({"metadata": {"k": "v" * 513}}, "metadata_invalid"),
        ({"metadata": pairs(16)}, "metadata_invalid"),
        *[({"text": bad}, "option_unencodable") for bad in ({1}, object(), math.nan, LONE, {"a": b""}, 10**5000)],
        *[({"tools": nested(depth)}, "option_unencodable") for depth in (990, 100_000)],
    ],
)
def test_what_no_service_could_take_is_refused(arguments: dict[str, Any], key: str) -> None:
    """Each argument that would break a job is refused under its own sentence, which exists in both languages."""
    with pytest.raises(Refused) as caught:
        ask(**arguments)
    assert caught.value.key == key
    assert caught.value.sentence("ja") != caught.value.sentence("en")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"effort": "max" * 1000}, "low, medium, high"),
        ({"store": False}, "store"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"metadata": pairs(16)}, "15"),
    ],
)
def test_refusal_names_what_is_wrong(arguments: dict[str, Any], words: str) -> None:
    """A refusal names the option, or what is accepted instead, and stays short."""
    with pytest.raises(Refused) as caught:
        ask(**arguments)
    for language in ("ja", "en"):
        assert words in caught.value.sentence(language)
        assert len(caught.value.sentence(language)) < 300


def test_metadata_has_room_for_our_tag() -> None:
    """Fifteen pairs of metadata fit beside our tag, sixteen where it is turned off."""
    assert len(ask(metadata=pairs(15)).options["metadata"]) == 15
    untagged = O3ProConfig(endpoint=CONFIG.endpoint, api_key="k", tag_jobs=False)
    assert len(admit(untagged, "q", "low", None, {"metadata": pairs(16)}).options["metadata"]) == 16


def test_options_may_be_deep() -> None:
    """Options may be so deep that they can be written again where the stack is fuller, and no deeper."""
    assert ask(tools=nested(500)).options["tools"] == nested(500)
    assert ask(tools=nested(598)).options["tools"] == nested(598)
    for levels in (599, 700):
        with pytest.raises(Refused, match="option_unencodable"):
            ask(tools=nested(levels))


def test_efforts_come_from_the_configuration() -> None:
    """A successor's efforts are accepted, and o3-pro's are not, by configuration alone."""
    config = O3ProConfig(endpoint=CONFIG.endpoint, api_key="k", efforts=("high", "max"))
    assert admit(config, "q", "max", None, {}).effort == "max"
    with pytest.raises(Refused, match="effort_unknown"):
        admit(config, "q", "low", None, {})


@pytest.mark.parametrize(
    ("key", "kind"), [("closed", HandlerClosed), ("not_ready", ConfigError), ("question_empty", InvalidRequest)]
)
def test_refusal_becomes_a_public_exception(key: str, kind: type[Exception]) -> None:
    """A refusal is raised by `submit` as the exception of its kind, in English."""
    refused = Refused(key, problems="no key")
    error = refused.as_error()
    assert type(error) is kind
    assert str(error) == refused.sentence("en")
