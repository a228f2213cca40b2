"""What goes over the wire is what it should be; whatever comes back becomes news, or trouble with a kind."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from httpx import Response

from o3pro_bg._admission import admit
from o3pro_bg._budget import Limits
from o3pro_bg._records import Failure, JobRequest, News, Usage
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._responses import ResponsesRemote
from o3pro_bg._sentences import EN
from o3pro_bg._states import Event
from o3pro_bg.client import O3ProClient
from o3pro_bg.config import O3ProConfig
from tests.wire import CONFIG, HOST, ID, KEY, PROMPT, REQUEST, URL, body, connected, error, message, sent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import respx

FILTERED = {
    "content_filter_result": {
        "hate": {"filtered": False, "severity": "safe"},
        "violence": {"filtered": True, "severity": "high"},
        "jailbreak": {"filtered": True, "detected": True},
        "odd": "not a verdict",
    }
}
KEY_WRONG = "Access denied due to invalid subscription key or wrong API endpoint. Provide a valid key."
AUDIENCE_WRONG = "Token audience is incorrect."
DEPLOYMENT_MISSING = "The API deployment for this resource does not exist."
RESPONSE_MISSING = f"Response with id '{ID}' not found."
FILTER_FIRED = "The response was filtered."

CALLS: dict[str, Callable[[ResponsesRemote], Awaitable[News | None]]] = {
    "create": lambda remote: remote.create("job-1", REQUEST),
    "look": lambda remote: remote.look(ID),
    "cancel": lambda remote: remote.cancel(ID),
    "delete": lambda remote: remote.delete(ID),
}
EVERY_CALL = pytest.mark.parametrize("call", CALLS)
TAKEN = body(deleted=True)  # what every call takes for a good answer


@pytest.fixture
async def remote() -> AsyncIterator[ResponsesRemote]:
    """Give a connected remote."""
    async with connected() as remote:
        yield remote


async def looked(router: respx.Router, remote: ResponsesRemote, data: Any, **headers: str) -> News:
    """Answer the news of a look that is answered by this body."""
    router.get(f"{URL}/{ID}").mock(Response(200, json=data, headers=headers))
    return await remote.look(ID)


async def trouble_of(remote: ResponsesRemote, call: str) -> RemoteTrouble:
    """Answer the trouble that this call meets."""
    with pytest.raises(RemoteTrouble) as caught:
        await CALLS[call](remote)
    return caught.value


# --- what is sent -------------------------------------------------------------------------------------------


async def test_create_sends_the_whole_question(httpx2_mock: respx.Router, remote: ResponsesRemote) -> None:
    """A create names the deployment as model, asks for the background and for storing, and carries our id."""
    route = httpx2_mock.post(URL).mock(Response(200, json=body()))
    news = await remote.create("job-1", REQUEST)
    assert sent(route.calls.last.request) == {
        "model": "my-o3",
        "input": PROMPT,
        "instructions": PROMPT,
        "reasoning": {"effort": "high"},
        "store": True,
        "background": True,
        "metadata": {"o3pro_bg_job_id": "job-1"},
    }
    assert (news.event, news.response_id) == (Event.ACCEPTED, ID)


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ({"reasoning": {"mode": "pro"}}, {}, {"reasoning": {"mode": "pro", "effort": "high"}}),
        (
            {"reasoning": {"mode": "pro", "summary": "auto"}},
            {"reasoning": {"summary": "detailed"}},
            {"reasoning": {"mode": "pro", "summary": "detailed", "effort": "high"}},
        ),
        ({}, {"metadata": {"team": "a"}}, {"metadata": {"team": "a", "o3pro_bg_job_id": "job-1"}}),
        ({"tag_jobs": False}, {"metadata": {"team": "a"}}, {"metadata": {"team": "a"}}),
        ({"tag_jobs": False}, {}, {"metadata": None}),
        ({"background": False}, {}, {"background": None, "store": True}),
        ({"deployment": "gpt-5-pro"}, {}, {"model": "gpt-5-pro"}),
        ({}, {"max_output_tokens": 10, "tools": [{"type": "x"}]}, {"max_output_tokens": 10, "tools": [{"type": "x"}]}),
    ],
)
async def test_create_merges_configuration_and_options(
    httpx2_mock: respx.Router, changes: dict[str, Any], options: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Options win over the configuration's reasoning, the effort over both; our tag joins the user's metadata."""
    route = httpx2_mock.post(URL).mock(Response(200, json=body()))
    async with connected(**changes) as remote:
        await remote.create("job-1", admit(remote._config, "Why?", "high", None, options))
    request = sent(route.calls.last.request)
    assert {name: request.get(name) for name in expected} == expected


@pytest.mark.parametrize(("deployment", "model"), [("their-o3", "their-o3"), ("", "my-o3")])
async def test_create_sends_the_request_of_another_process(
    httpx2_mock: respx.Router, deployment: str, model: str
) -> None:
    """A request that was admitted elsewhere is sent as it was admitted, to its deployment where it names one."""
    route = httpx2_mock.post(URL).mock(Response(200, json=body()))
    async with connected(reasoning={"mode": "pro"}) as remote:
        await remote.create("job-1", JobRequest("Why?", "high", deployment, {"reasoning": {"summary": "auto"}}))
    request = sent(route.calls.last.request)
    assert (request["model"], request["reasoning"]) == (model, {"summary": "auto", "effort": "high"})


async def test_create_leaves_the_request_as_it_was(httpx2_mock: respx.Router, remote: ResponsesRemote) -> None:
    """A request may be sent again: building its body takes nothing out of it."""
    httpx2_mock.post(URL).mock(Response(200, json=body()))
    request = JobRequest("Why?", "high", "my-o3", {"reasoning": {"summary": "auto"}, "metadata": {"a": "b"}})
    await remote.create("job-1", request)
    assert request.options == {"reasoning": {"summary": "auto"}, "metadata": {"a": "b"}}


@pytest.mark.parametrize(
    ("where", "base", "query"),
    [
        ({"endpoint": HOST}, f"{HOST}/openai/v1/", "api-version=v1"),
        ({"endpoint": f"{HOST}/openai/v1/"}, f"{HOST}/openai/v1/", "api-version=v1"),
        ({"endpoint": HOST, "api_version": "preview"}, f"{HOST}/openai/v1/", "api-version=preview"),
        ({"endpoint": HOST, "api_version": ""}, f"{HOST}/openai/v1/", ""),
        (
            {"endpoint": f"{HOST}/openai", "api_version": "2025-04-01-preview"},
            f"{HOST}/openai/",
            "api-version=2025-04-01-preview",
        ),
        ({"base_url": "http://localhost:4000/any"}, "http://localhost:4000/any/", ""),
        ({"base_url": "https://apim.example/ai/", "api_version": "v1"}, "https://apim.example/ai/", "api-version=v1"),
    ],
)
async def test_paths_of_the_wire(httpx2_mock: respx.Router, where: dict[str, Any], base: str, query: str) -> None:
    """Each call goes to its path, on v1 or dated, with the version asked for or without any."""
    route = httpx2_mock.route().mock(Response(200, json=TAKEN))
    async with connected(**{"endpoint": "", **where}) as remote:
        for call in CALLS.values():
            await call(remote)
    tail = f"?{query}" if query else ""
    assert [f"{call.request.method} {call.request.url}" for call in route.calls] == [
        f"POST {base}responses{tail}",
        f"GET {base}responses/{ID}{tail}",
        f"POST {base}responses/{ID}/cancel{tail}",
        f"DELETE {base}responses/{ID}{tail}",
    ]


@pytest.mark.parametrize(
    ("response_id", "path"),
    [("chatcmpl-7", b"chatcmpl-7"), ("a/b?c#d", b"a%2Fb%3Fc%23d"), ("é", b"%C3%A9"), ("\ud800", b"%3F")],
)
async def test_any_id_is_one_segment_of_the_path(
    httpx2_mock: respx.Router, remote: ResponsesRemote, response_id: str, path: bytes
) -> None:
    """An id of whatever form is quoted into its place, so that it can reach nothing else."""
    route = httpx2_mock.route().mock(Response(200, content=json.dumps({**TAKEN, "id": response_id})))
    assert (await remote.look(response_id)).response_id == response_id
    await remote.cancel(response_id)
    await remote.delete(response_id)
    assert [call.request.url.raw_path.partition(b"?")[0] for call in route.calls] == [
        b"/openai/v1/responses/" + path,
        b"/openai/v1/responses/" + path + b"/cancel",
        b"/openai/v1/responses/" + path,
    ]


@EVERY_CALL
@pytest.mark.parametrize(
    ("auth", "header", "value"), [("key", "api-key", KEY), ("bearer", "authorization", f"Bearer {KEY}")]
)
async def test_key_goes_into_its_header(
    httpx2_mock: respx.Router, monkeypatch: pytest.MonkeyPatch, call: str, auth: str, header: str, value: str
) -> None:
    """The key is sent as `api-key`, or as bearer token, and never as both, whatever the environment holds."""
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "other-token")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "other-key")
    route = httpx2_mock.route().mock(Response(200, json=TAKEN))
    async with connected(auth=auth) as remote:
        await CALLS[call](remote)
    headers = route.calls.last.request.headers
    assert {name: headers.get(name) for name in ("api-key", "authorization")} == {
        "api-key": None,
        "authorization": None,
        header: value,
    }


@pytest.mark.parametrize(
    ("call", "changes", "seconds"),
    [
        ("create", {}, 60),
        ("create", {"create_timeout": 7}, 7),
        ("look", {}, 30),
        ("look", {"look_timeout": 5}, 5),
        ("look", {"background": False}, 30),
        ("cancel", {}, 30),
        ("cancel", {"look_timeout": 5}, 5),
        ("delete", {}, 30),
        ("delete", {"look_timeout": 5}, 5),
    ],
)
async def test_time_outs(httpx2_mock: respx.Router, call: str, changes: dict[str, Any], seconds: float | None) -> None:
    """Each exchange has its own short time-out."""
    route = httpx2_mock.route().mock(Response(200, json=TAKEN))
    async with connected(**changes) as remote:
        await CALLS[call](remote)
    timeouts = route.calls.last.request.extensions["timeout"]
    assert timeouts == dict.fromkeys(("connect", "read", "write", "pool"), seconds)


async def test_time_out_is_that_of_the_whole_exchange() -> None:
    """An answer that trickles in, each piece in time, is given up when its time is over: unclear what became of it."""

    async def trickle(_: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(30)
        return httpx2.Response(200, json=body())

    def make_http() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(trickle))

    config = O3ProConfig(endpoint=HOST, api_key=KEY, look_timeout=0.05)
    async with connected(O3ProClient(config, http_client=make_http)) as remote:
        trouble = await trouble_of(remote, "look")
    assert (trouble.kind, trouble.failure) == (Trouble.UNCLEAR, Failure("connection_lost", "TimeoutError"))


async def test_prepare_has_the_token_at_hand(httpx2_mock: respx.Router, remote: ResponsesRemote) -> None:
    """Where tokens are used `prepare` gets one; with a key it has nothing to do; neither sends a request."""
    got: list[str] = []

    async def token() -> None:
        got.append("token")

    await remote.prepare()
    await ResponsesRemote(remote._sdk, remote._config, remote._lane, token).prepare()
    assert got == ["token"]
    assert not httpx2_mock.calls


async def test_time_outs_in_the_foreground(httpx2_mock: respx.Router) -> None:
    """A create in the foreground lasts as its job does; only getting a connection has its time."""
    route = httpx2_mock.route().mock(Response(200, json=body()))
    async with connected(background=False) as remote:
        await CALLS["create"](remote)
    timeouts = route.calls.last.request.extensions["timeout"]
    assert timeouts == {"connect": 30, "pool": 30, "read": None, "write": None}


async def test_cancel_sends_no_body(httpx2_mock: respx.Router, remote: ResponsesRemote) -> None:
    """A cancel is a bare POST; its answer is not read, for only a look tells."""
    route = httpx2_mock.post(f"{URL}/{ID}/cancel").mock(Response(200, text="<html>"))
    await remote.cancel(ID)
    assert route.calls.last.request.content == b""


# --- what is deleted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Response(200, json={"id": ID, "object": "response", "deleted": True}),
        Response(204),
        Response(404, json=error("not_found", RESPONSE_MISSING)),
        Response(410, json=error("gone", "expired")),
    ],
    ids=lambda answer: str(answer.status_code),
)
async def test_delete_is_done_when_the_service_says_so(
    httpx2_mock: respx.Router, remote: ResponsesRemote, answer: Response
) -> None:
    """A delete is a bare DELETE; it is done when the response was deleted, and when it was gone already."""
    route = httpx2_mock.delete(f"{URL}/{ID}").mock(answer)
    await remote.delete(ID)
    assert route.calls.last.request.content == b""
    assert route.call_count == 1


@pytest.mark.parametrize("content", [b"", b"<html>", b"null", b"{}", b'{"deleted": false}', b'{"deleted": "yes"}'])
async def test_delete_that_nobody_confirms_is_unclear(
    httpx2_mock: respx.Router, remote: ResponsesRemote, content: bytes
) -> None:
    """A good status that does not say that the response was deleted leaves open what happened."""
    httpx2_mock.delete(f"{URL}/{ID}").mock(Response(200, content=content))
    trouble = await trouble_of(remote, "delete")
    assert (trouble.kind, trouble.failure.code) == (Trouble.UNCLEAR, "bad_answer")


# --- what comes back as news --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "event"),
    [
        ("queued", Event.ACCEPTED),
        ("in_progress", Event.PROGRESSED),
        ("completed", Event.ANSWERED),
        ("failed", Event.ERRORED),
        ("incomplete", Event.ERRORED),
        ("cancelled", Event.CANCELLED),
        ("steering", None),
    ],
)
async def test_word_of_the_service_is_the_event(
    httpx2_mock: respx.Router, remote: ResponsesRemote, word: str, event: Event | None
) -> None:
    """Each word of the service is its event; one that is not known moves nothing."""
    news = await looked(httpx2_mock, remote, body(word))
    assert (news.event, news.response_id) == (event, ID)


async def test_unknown_word_is_logged_once(
    httpx2_mock: respx.Router, remote: ResponsesRemote, caplog: pytest.LogCaptureFixture
) -> None:
    """A word that is not known is told once, shortened and quoted, however often it comes."""
    for word in ["steering\n" + "x" * 500] * 3 + ["paused"]:
        await looked(httpx2_mock, remote, body(word))
    warnings = [entry for entry in caplog.records if entry.name == "o3pro_bg"]
    assert [entry.levelname for entry in warnings] == ["WARNING", "WARNING"]
    assert "'steering\\nxxx" in warnings[0].message
    assert "'paused'" in warnings[1].message
    assert len(warnings[0].message) < 200


@pytest.mark.parametrize("word", [None, 5, ["queued"], "a new word"])
async def test_created_response_is_news_whatever_its_status(
    httpx2_mock: respx.Router, remote: ResponsesRemote, word: object
) -> None:
    """A create that brings an id brings a response worth watching, however odd the rest of the answer is."""
    httpx2_mock.post(URL).mock(Response(200, json=body(word, output=None, created_at=None)))
    assert await remote.create("job-1", REQUEST) == News(None, response_id=ID, answer="", limits=Limits())


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (None, ""),
        ([], ""),
        ("text", ""),
        ({"type": "message"}, ""),
        ([None, 5, "text", [], {}], ""),
        ([{"type": "reasoning", "summary": []}, message("because")], "because"),
        ([message("a", "b"), message("c")], "abc"),
        ([{"content": None}, {"content": [None, {"text": None}, {"text": 5}, {"text": "a"}]}], "a"),
        ([{"content": [{"type": "refusal", "refusal": "I will not"}]}], "I will not"),
        ([{"content": [{"refusal": "no"}, {"text": "but"}]}], "but"),
    ],
)
async def test_answer_is_the_text_of_the_output(
    httpx2_mock: respx.Router, remote: ResponsesRemote, output: Any, text: str
) -> None:
    """The answer is all text of all messages, or the refusal where there is none; odd items are passed over."""
    assert (await looked(httpx2_mock, remote, body("completed", output=output))).answer == text


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ([], None),
        ({}, Usage(0, 0)),
        ({"input_tokens": 5, "output_tokens": 7}, Usage(5, 7)),
        ({"input_tokens": None, "output_tokens": "7", "output_tokens_details": None}, Usage(0, 0)),
        (
            {
                "input_tokens": 5,
                "output_tokens": 70,
                "output_tokens_details": {"reasoning_tokens": 60},
                "input_tokens_details": {"cached_tokens": 3},
            },
            Usage(5, 70, 60, 3),
        ),
    ],
)
async def test_usage(httpx2_mock: respx.Router, remote: ResponsesRemote, usage: Any, expected: Usage | None) -> None:
    """Usage is read where there is one; figures that are missing or odd count as 0."""
    assert (await looked(httpx2_mock, remote, body("completed", usage=usage))).usage == expected


@pytest.mark.parametrize("odd", [-1, 2**53, 10**4000, 1.5])
async def test_figures_that_cannot_be_count_as_0(httpx2_mock: respx.Router, remote: ResponsesRemote, odd: Any) -> None:
    """A figure that no service bills, and that a store may not hold, is none."""
    usage = {"input_tokens": odd, "output_tokens": 2**53 - 1}
    assert (await looked(httpx2_mock, remote, body("completed", usage=usage))).usage == Usage(0, 2**53 - 1)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("o3-pro-2025-06-10", "o3-pro-2025-06-10"),
        ("モデル 1", "モデル 1"),
        ("m" * 200, "m" * 200),
        *[(odd, None) for odd in (None, "", 5, ["o3-pro"], "m" * 201, "o3\npro", "o3\x1b[31m", "\ud800")],
    ],
)
@pytest.mark.parametrize("call", ["create", "look"])
async def test_model(
    httpx2_mock: respx.Router, remote: ResponsesRemote, call: str, model: Any, expected: str | None
) -> None:
    """The model is told as the service calls it, where that is a printable text of moderate length."""
    httpx2_mock.route().mock(Response(200, content=json.dumps(body(model=model))))
    news = await CALLS[call](remote)
    assert news is not None
    assert news.model == expected


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (error("server_error", "it broke"), Failure("server_error", "it broke")),
        (error("rate_limit_exceeded", "slow"), Failure("rate_limit_exceeded", "slow")),
        (error("content_filter", "no", innererror=FILTERED), Failure("content_filter", "no [violence, jailbreak]")),
        (error("x" * 5000, "y" * 5000), Failure("x" * 60, "y" * 500)),
        (error(), Failure("server_error", "the service gave no reason")),
        (error(5, ["odd"], innererror="odd"), Failure("server_error", "the service gave no reason")),
        ({"error": None}, Failure("server_error", "the service gave no reason")),
        ({"error": "odd"}, Failure("server_error", "the service gave no reason")),
        ({}, Failure("server_error", "the service gave no reason")),
    ],
)
async def test_failed_with_status_200_is_a_failure(
    httpx2_mock: respx.Router, remote: ResponsesRemote, said: dict[str, Any], failure: Failure
) -> None:
    """A job that failed at the service arrives as HTTP 200, and brings its code and what was said."""
    news = await looked(httpx2_mock, remote, body("failed", **said))
    assert (news.event, news.failure) == (Event.ERRORED, failure)


@pytest.mark.parametrize(
    ("details", "code", "detail"),
    [
        ({"reason": "max_output_tokens"}, "incomplete_max_output_tokens", "incomplete: max_output_tokens"),
        ({"reason": "content_filter"}, "incomplete_content_filter", "incomplete: content_filter"),
        ({"reason": "max_messages"}, "incomplete", "incomplete: max_messages"),
        ({"reason": "steered"}, "incomplete", "incomplete: steered"),
        ({"reason": None}, "incomplete", ""),
        ({}, "incomplete", ""),
        ([], "incomplete", ""),
        ("odd", "incomplete", ""),
        (None, "incomplete", ""),
    ],
)
async def test_incomplete_keeps_the_partial_text_and_names_the_reason(
    httpx2_mock: respx.Router, remote: ResponsesRemote, details: Any, code: str, detail: str
) -> None:
    """An incomplete response fails with its reason, and what was generated is kept."""
    data = body("incomplete", incomplete_details=details, output=[message("half")])
    news = await looked(httpx2_mock, remote, data)
    assert (news.event, news.answer) == (Event.ERRORED, "half")
    assert news.failure == Failure(code, detail)


@pytest.mark.parametrize("code", [PROMPT, "", 7, None, "質問"])
async def test_code_that_is_no_word_is_none(httpx2_mock: respx.Router, remote: ResponsesRemote, code: Any) -> None:
    """An error code goes into logs, so text that a gateway puts there is not taken for one."""
    httpx2_mock.route().mock(Response(400, json=error(code, "refused")))
    assert (await trouble_of(remote, "look")).failure == Failure("http_400", "refused")


async def test_calls_of_tools_are_kept(httpx2_mock: respx.Router, remote: ResponsesRemote) -> None:
    """What an output holds beside text and reasoning is handed on as it came."""
    call = {"type": "function_call", "name": "look_up", "arguments": "{}", "call_id": "c1"}
    output = [{"type": "reasoning", "summary": []}, call, message("done")]
    news = await looked(httpx2_mock, remote, body("completed", output=output))
    assert (news.output_items, news.answer) == ((call,), "done")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"openai-poll-after-ms": "2500"}, 2.5),
        ({"openai-poll-after-ms": "2500", "retry-after": "9"}, 2.5),
        ({"openai-poll-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"openai-poll-after-ms": "0"}, None),
        ({"retry-after": "0"}, None),
        ({"openai-poll-after-ms": "-5"}, None),
    ],
)
async def test_poll_after(
    httpx2_mock: respx.Router, remote: ResponsesRemote, headers: dict[str, str], seconds: float | None
) -> None:
    """When the service wants to be asked again is read from its headers; "at once" is no wish we follow."""
    assert (await looked(httpx2_mock, remote, body(), **headers)).poll_after == seconds


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({}, None),
        ({"x-request-id": "x"}, "x"),
        ({"apim-request-id": "a", "x-request-id": "x"}, "a"),
    ],
)
async def test_request_id(
    httpx2_mock: respx.Router, remote: ResponsesRemote, headers: dict[str, str], request_id: str | None
) -> None:
    """The id that Azure's support asks for is read from the headers."""
    assert (await looked(httpx2_mock, remote, body(), **headers)).request_id == request_id


async def test_null_fields_of_a_queued_response_are_read(httpx2_mock: respx.Router, remote: ResponsesRemote) -> None:
    """Azure's null fields while a response is queued are no trouble."""
    data = body(created_at=None, output=None, usage=None, error=None, incomplete_details=None, metadata=None)
    assert await looked(httpx2_mock, remote, data) == News(Event.ACCEPTED, response_id=ID, answer="")


# --- what comes back as trouble -----------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["create", "look"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", None),
        (b"<html>Sign in</html>", "text/html; charset=utf-8"),
        (b"null", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/json"),
        (b'"text"', "application/json"),
        (b'{"error": {"code": "x", "message": "y"}}', "application/json"),
        (b'{"id": "resp_1", "stat', "application/json"),
        (b'{"id": "resp_1", "status": "\xff"}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"id": null, "status": "queued"}', "application/json"),
        (b'{"id": "", "status": "queued"}', "application/json"),
        (b'{"id": 5, "status": "queued"}', "application/json"),
        (b'{"id": ["resp_1"], "status": "queued"}', "application/json"),
    ],
)
async def test_answer_that_is_no_response_is_unclear(
    httpx2_mock: respx.Router, remote: ResponsesRemote, call: str, content: bytes, kind: str | None
) -> None:
    """A good status with a body that is no response leaves open what happened; the trouble tells its size and type."""
    route = httpx2_mock.route().mock(Response(200, content=content, headers={"content-type": kind} if kind else {}))
    trouble = await trouble_of(remote, call)
    what = f"HTTP 200 with {len(content)} bytes of {(kind or 'no content type').partition(';')[0]}"
    assert (trouble.kind, trouble.failure) == (Trouble.UNCLEAR, Failure("bad_answer", what))
    assert route.call_count == 1


@pytest.mark.parametrize("call", ["create", "look"])
async def test_no_content_is_unclear(httpx2_mock: respx.Router, remote: ResponsesRemote, call: str) -> None:
    """A 204 is no answer."""
    httpx2_mock.route().mock(Response(204))
    assert (await trouble_of(remote, call)).kind is Trouble.UNCLEAR


@pytest.mark.parametrize(
    "data", [body(id="resp_2"), body("completed", id="RESP_1"), body(None), body(5), body(["completed"])]
)
async def test_look_believes_only_its_own_response(
    httpx2_mock: respx.Router, remote: ResponsesRemote, data: dict[str, Any]
) -> None:
    """A look that is answered about another response, or without a status, has learnt nothing."""
    httpx2_mock.get(f"{URL}/{ID}").mock(Response(200, json=data))
    trouble = await trouble_of(remote, "look")
    assert (trouble.kind, trouble.failure.code) == (Trouble.UNCLEAR, "bad_answer")


@EVERY_CALL
@pytest.mark.parametrize(
    ("status", "data", "kind", "failure"),
    [
        (400, error("content_filter", FILTER_FIRED), Trouble.REFUSED, Failure("content_filter", FILTER_FIRED)),
        (
            400,
            error("content_filter", FILTER_FIRED, innererror=FILTERED),
            Trouble.REFUSED,
            Failure("content_filter", f"{FILTER_FIRED} [violence, jailbreak]"),
        ),
        (
            400,
            error("content_filter", FILTER_FIRED, innererror={"content_filter_result": {"hate": {"filtered": False}}}),
            Trouble.REFUSED,
            Failure("content_filter", FILTER_FIRED),
        ),
        (
            400,
            error("unsupported_value", "no such effort"),
            Trouble.REFUSED,
            Failure("unsupported_value", "no such effort"),
        ),
        (
            400,
            error(None, "the content_filter fired"),
            Trouble.REFUSED,
            Failure("content_filter", "the content_filter fired"),
        ),
        (400, error(None, "something"), Trouble.REFUSED, Failure("http_400", "something")),
        (401, error("401", KEY_WRONG), Trouble.DENIED, Failure("invalid_key", KEY_WRONG)),
        (401, {"statusCode": 401, "message": KEY_WRONG}, Trouble.DENIED, Failure("invalid_key", KEY_WRONG)),
        (401, error("Unauthorized", AUDIENCE_WRONG), Trouble.DENIED, Failure("wrong_audience", AUDIENCE_WRONG)),
        (403, error("403", "Virtual Network"), Trouble.DENIED, Failure("forbidden", "Virtual Network")),
        (
            404,
            error("DeploymentNotFound", DEPLOYMENT_MISSING),
            Trouble.MISSING,
            Failure("deployment_not_found", DEPLOYMENT_MISSING),
        ),
        (404, error("404", "Resource not found"), Trouble.MISSING, Failure("resource_not_found", "Resource not found")),
        (408, error("Timeout", "too slow"), Trouble.UNCLEAR, Failure("Timeout", "too slow")),
        (409, error("conflict", "already"), Trouble.REFUSED, Failure("conflict", "already")),
        (
            429,
            error("insufficient_quota", "You exceeded your current quota"),
            Trouble.REFUSED,
            Failure("insufficient_quota", "You exceeded your current quota"),
        ),
        (429, error("429", "quota"), Trouble.THROTTLED, Failure("429", "quota")),
        (431, error(), Trouble.REFUSED, Failure("http_431", "HTTP 431 with 38 bytes of application/json")),
        (500, error("InternalServerError", "oops"), Trouble.UNCLEAR, Failure("InternalServerError", "oops")),
        (502, error(None, "gateway"), Trouble.UNCLEAR, Failure("http_502", "gateway")),
        (503, error("ServiceUnavailable", "busy"), Trouble.UNCLEAR, Failure("ServiceUnavailable", "busy")),
    ],
)
async def test_row_of_the_error_table(
    httpx2_mock: respx.Router,
    remote: ResponsesRemote,
    call: str,
    status: int,
    data: dict[str, Any],
    kind: Trouble,
    failure: Failure,
) -> None:
    """Each refusal of the service is one exception with its kind and cause, after exactly one request."""
    route = httpx2_mock.route().mock(Response(status, json=data))
    trouble = await trouble_of(remote, call)
    assert (trouble.kind, trouble.failure, trouble.retry_after) == (kind, failure, None)
    assert route.call_count == 1


@pytest.mark.parametrize("call", ["create", "look", "cancel"])
@pytest.mark.parametrize(("status", "said"), [(404, RESPONSE_MISSING), (410, "expired")])
async def test_missing_response_is_lost(
    httpx2_mock: respx.Router, remote: ResponsesRemote, call: str, status: int, said: str
) -> None:
    """A response that the service says it does not have is lost, unlike a path that a gateway does not have."""
    httpx2_mock.route().mock(Response(status, json=error("not_found", said)))
    trouble = await trouble_of(remote, call)
    assert (trouble.kind, trouble.failure) == (Trouble.MISSING, Failure("lost", said))


@pytest.mark.parametrize(
    "code",
    [
        *("invalid_key", "wrong_audience", "forbidden", "deployment_not_found", "lost", "resource_not_found"),
        *("content_filter", "redirected", "unreachable", "credential", "submission_uncertain", "internal"),
        *("incomplete_max_output_tokens", "incomplete_content_filter"),
    ],
)
def test_cause_has_its_sentence(code: str) -> None:
    """Every cause that is named here has a sentence of its own."""
    assert f"failure.{code}" in EN


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 429, 500, 503])
@pytest.mark.parametrize(
    "content", [b"", b"<html>Bad gateway</html>", b"null", b"[]", b'"text"', b'{"err', b"\xff\xfe", b"[" * 100_000]
)
async def test_error_with_an_odd_body_is_still_its_kind(
    httpx2_mock: respx.Router, remote: ResponsesRemote, status: int, content: bytes
) -> None:
    """HTML, nothing, or garbage in an error's body changes nothing of its kind."""
    httpx2_mock.route().mock(Response(status, content=content))
    kinds = {401: "denied", 403: "denied", 404: "missing", 408: "unclear", 429: "throttled"}
    trouble = await trouble_of(remote, "create")
    assert trouble.kind == kinds.get(status, "refused" if status < 500 else "unclear")
    assert trouble.failure.detail == f"HTTP {status} with {len(content)} bytes of no content type"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "86400"}, 86400.0),
        *[({"retry-after": much}, 86400.0) for much in ("86401", "1e300", "Fri, 31 Dec 9999 23:59:59 GMT")],
        ({"retry-after-ms": "1e12"}, 86400.0),
        ({"retry-after": "300", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7.0),
        ({"retry-after": formatdate(0, usegmt=True)}, 0.0),
        *[({"retry-after": bad}, None) for bad in ("", "soon", "-5", "nan", "inf", "Wed, 99 Oct 2099 07:28:00 GMT")],
    ],
)
async def test_retry_after(
    httpx2_mock: respx.Router, remote: ResponsesRemote, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    """How long to hold off is read in seconds or milliseconds, however long it is; garbage is not read."""
    httpx2_mock.route().mock(Response(status, headers=headers))
    assert (await trouble_of(remote, "create")).retry_after == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-tokens": "55"}, 55.0),
        ({"x-ratelimit-reset-requests": "1m12.5s", "x-ratelimit-reset-tokens": "120ms"}, 72.5),
        (
            {"x-ratelimit-reset-requests": "1h", "x-ratelimit-reset-tokens": "6s", "x-ratelimit-remaining-tokens": "0"},
            6.0,
        ),
        ({"x-ratelimit-reset-requests": "2h1ms"}, 7200.001),
        ({"x-ratelimit-reset-requests": "9", "retry-after": "3"}, 3.0),
        ({"x-ratelimit-reset-tokens": "0"}, None),
        *[({"x-ratelimit-reset-tokens": bad}, None) for bad in ("", "soon", "1x", "-1", "s", "1m2", "1" * 60 + "s")],
        ({"x-ratelimit-reset-tokens": "1790000000"}, None),
    ],
)
async def test_reset_stands_in_for_retry_after(
    httpx2_mock: respx.Router, remote: ResponsesRemote, headers: dict[str, str], seconds: float | None
) -> None:
    """A 429 without retry-after closes until what is used up is there again, however the service writes that."""
    httpx2_mock.route().mock(Response(429, headers=headers))
    assert (await trouble_of(remote, "create")).retry_after == seconds


LIMITS = [f"x-ratelimit-{word}-{what}" for what in ("requests", "tokens") for word in ("limit", "remaining")]


@pytest.mark.parametrize(
    ("figures", "limits"),
    [
        (("160", "159", "1600000", "1599000"), Limits(160, 159, 1_600_000, 1_599_000)),
        (("160", "0", "0", "0"), Limits(160, 0)),
        (("1", "0", "1", "1"), Limits(1, 0, 1, 1)),
        ((None, "5", None, "7"), Limits(None, 5, None, 7)),
        (("0.5", "160", "-1", "100"), Limits()),
        ((), Limits()),
        (("-1", "-1", "many", "inf"), Limits()),
    ],
)
async def test_limits(
    httpx2_mock: respx.Router, remote: ResponsesRemote, figures: tuple[str | None, ...], limits: Limits
) -> None:
    """What the service allows is read from a create that it accepts or refuses; a figure without sense is none."""
    headers = {name: figure for name, figure in zip(LIMITS, figures, strict=False) if figure is not None}
    httpx2_mock.route().mock(Response(200, json=body(), headers=headers))
    assert (await remote.create("job", REQUEST)).limits == limits
    httpx2_mock.route().mock(Response(429, headers=headers))
    assert (await trouble_of(remote, "create")).limits == limits


async def test_retry_after_a_date(httpx2_mock: respx.Router, remote: ResponsesRemote) -> None:
    """A date to come is read as the seconds until then."""
    httpx2_mock.route().mock(Response(429, headers={"retry-after": formatdate(time.time() + 1000, usegmt=True)}))
    retry_after = (await trouble_of(remote, "create")).retry_after
    assert retry_after is not None
    assert 900 < retry_after <= 1000


@EVERY_CALL
@pytest.mark.parametrize(
    ("exception", "kind"),
    [
        *[(name, Trouble.UNSENT) for name in ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError")],
        ("UnsupportedProtocol", Trouble.UNSENT),
        *[(name, Trouble.UNCLEAR) for name in ("ReadTimeout", "WriteTimeout", "ReadError", "WriteError", "CloseError")],
        *[(name, Trouble.UNCLEAR) for name in ("RemoteProtocolError", "LocalProtocolError", "DecodingError")],
    ],
)
async def test_exception_of_the_network(
    httpx2_mock: respx.Router, remote: ResponsesRemote, call: str, exception: str, kind: Trouble
) -> None:
    """What provably never left is unsent, everything else is unclear; neither is tried a second time."""
    route = httpx2_mock.route().mock(side_effect=getattr(httpx2, exception)("the network said"))
    trouble = await trouble_of(remote, call)
    codes = {
        Trouble.UNSENT: Failure("unreachable", f"{exception}: the network said"),
        Trouble.UNCLEAR: Failure("connection_lost", exception),
    }
    assert (trouble.kind, trouble.failure) == (kind, codes[kind])
    assert route.call_count == 1


@EVERY_CALL
async def test_exception_that_nobody_expected(httpx2_mock: respx.Router, remote: ResponsesRemote, call: str) -> None:
    """Even an exception from nowhere becomes trouble, unclear, and tells no more than its type."""

    def explode(request: object) -> Response:
        raise ZeroDivisionError(PROMPT)

    httpx2_mock.route().mock(side_effect=explode)
    trouble = await trouble_of(remote, call)
    assert trouble.kind is Trouble.UNCLEAR
    assert PROMPT not in str(trouble)


@EVERY_CALL
async def test_cancelled_caller_stays_cancelled(call: str) -> None:
    """A task that is cancelled while it waits for an answer is cancelled, not troubled."""
    reached = asyncio.Event()

    async def hang(request: object) -> httpx2.Response:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody woke it")

    client = O3ProClient(CONFIG, http_client=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(hang)))
    async with connected(client) as remote:
        task = asyncio.ensure_future(CALLS[call](remote))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@EVERY_CALL
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["https://elsewhere.example/openai/v1/responses", f"{URL}/other", None])
async def test_redirect_is_refused(
    httpx2_mock: respx.Router, remote: ResponsesRemote, call: str, status: int, target: str | None
) -> None:
    """A redirect is never followed: neither the prompt nor the key goes anywhere else, and nothing goes twice."""
    headers = {"location": target} if target else {}
    route = httpx2_mock.route().mock(side_effect=[Response(status, headers=headers), Response(200, json=body())])
    trouble = await trouble_of(remote, call)
    assert (trouble.kind, trouble.failure.code) == (Trouble.REFUSED, "redirected")
    assert route.call_count == 1


# --- what nobody may read -----------------------------------------------------------------------------------


def told_by(caplog: pytest.LogCaptureFixture) -> str:
    """Answer all that our logger was told, arguments included."""
    entries = [entry for entry in caplog.records if entry.name == "o3pro_bg"]
    return " ".join(f"{entry.getMessage()} {entry.args}" for entry in entries)


@EVERY_CALL
@pytest.mark.parametrize("auth", ["key", "bearer"])
@pytest.mark.parametrize(
    "outcome",
    [
        *[Response(status, json=error("x", "y")) for status in (307, 400, 401, 403, 404, 429, 500)],
        *[getattr(httpx2, name)("the network said") for name in ("ConnectError", "ReadTimeout", "RemoteProtocolError")],
        ZeroDivisionError(KEY, PROMPT),
    ],
    ids=repr,
)
async def test_trouble_tells_neither_key_nor_prompt(
    httpx2_mock: respx.Router, caplog: pytest.LogCaptureFixture, call: str, outcome: Any, auth: str
) -> None:
    """Whatever goes wrong, neither key nor prompt is in the exception, in its traceback, its chain or a log record."""
    httpx2_mock.route().mock(side_effect=[outcome])
    with caplog.at_level(logging.DEBUG, "o3pro_bg"):
        async with connected(auth=auth) as remote:
            trouble = await trouble_of(remote, call)
    assert (trouble.__cause__, trouble.__context__) == (None, None)
    told = "".join([str(trouble), repr(trouble), *traceback.format_exception(trouble), told_by(caplog)])
    assert KEY not in told
    assert PROMPT not in told


@pytest.mark.parametrize("word", ["completed", "a new word"])
async def test_news_tell_no_text(
    httpx2_mock: respx.Router, caplog: pytest.LogCaptureFixture, remote: ResponsesRemote, word: str
) -> None:
    """An answer that holds the text is not repeated in a repr or a log record."""
    with caplog.at_level(logging.DEBUG, "o3pro_bg"):
        news = await looked(httpx2_mock, remote, body(word, output=[message(PROMPT)], instructions=PROMPT))
    assert news.answer == PROMPT
    told = repr(news) + repr(remote) + told_by(caplog)
    assert PROMPT not in told
    assert KEY not in told


def test_trouble_reads_as_a_line() -> None:
    """Trouble says its kind, its cause and what was said, in one line."""
    assert str(RemoteTrouble(Trouble.REFUSED, Failure("x", "y"))) == "refused: x y"
    assert str(RemoteTrouble(Trouble.UNCLEAR, Failure("x"))) == "unclear: x"


def test_remote_says_whether_it_is_in_the_background() -> None:
    """The engine is told whether a create is answered at once."""
    nothing: Any = None
    assert ResponsesRemote(nothing, CONFIG, nothing).background
