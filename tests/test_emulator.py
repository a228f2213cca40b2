"""
The emulator keeps its promises: real processes, real sockets.
"""

import asyncio
import contextlib
import email.utils
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from o3pro_bg.emulator import Emulator, _creation, _faults, _knobs, _responses, _wire

ROOT = Path(__file__).resolve().parents[1]
KNOBS = "seconds=0.1 queued=0.02"
CALM = "seconds=0.9 queued=0.4"  # for what must be seen in between, on a busy machine too
DATED = "2025-04-01-preview"


class Api:
    """
    Speaks to one emulator in plain HTTP, as the v1 surface of the service is spoken to.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.http = httpx2.Client(
            base_url=emulator.endpoint, headers={"api-key": emulator.api_key}, trust_env=False, timeout=10
        )

    def create(self, prompt: str = "Why?", knobs: str = "", job: str = "", **more: Any) -> httpx2.Response:
        metadata = {name: text for name, text in (("emulator", knobs), ("o3pro_bg_job_id", job)) if text}
        body = {"model": "o3-pro", "input": prompt, "background": True, "metadata": metadata, **more}
        return self.http.post("/openai/v1/responses", json=body)

    def new(self, knobs: str = "", **more: Any) -> str:
        answer = self.create(knobs=knobs, **more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def look(self, response_id: str) -> httpx2.Response:
        return self.http.get(f"/openai/v1/responses/{response_id}")

    def cancel(self, response_id: str) -> httpx2.Response:
        return self.http.post(f"/openai/v1/responses/{response_id}/cancel")

    def delete(self, response_id: str) -> httpx2.Response:
        return self.http.delete(f"/openai/v1/responses/{response_id}")

    def until(self, response_id: str, *statuses: str) -> dict[str, Any]:
        for _ in range(500):
            body: dict[str, Any] = self.look(response_id).json()
            if body.get("status") in statuses:
                return body
            time.sleep(0.01)
        raise AssertionError(f"never {statuses}: {body}")

    def done(self, knobs: str = "", **more: Any) -> dict[str, Any]:
        return self.until(self.new(knobs, **more), "completed", "failed", "incomplete", "cancelled")

    def seen(self, *response_ids: str) -> list[list[str]]:
        """
        Looks at the responses in turn until all complete, and returns the statuses of each, runs as one.
        """
        seen: dict[str, list[str]] = {response_id: [] for response_id in response_ids}
        for _ in range(500):
            for response_id, statuses in seen.items():
                status = self.look(response_id).json()["status"]
                if statuses[-1:] != [status]:
                    statuses.append(status)
            if all(statuses[-1] == "completed" for statuses in seen.values()):
                return list(seen.values())
            time.sleep(0.01)
        raise AssertionError(f"never completed: {seen}")

    def raw(self, data: bytes, wait: float = 5) -> bytes:
        """
        Sends bytes on a connection of their own, and returns all that comes until it ends.
        """
        with self.socket() as sock:
            sock.settimeout(wait)
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def socket(self) -> socket.socket:
        address = urlsplit(self.emulator.endpoint)
        return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=5)

    def head(self, line: str, *more: str) -> bytes:
        lines = [line, "Host: localhost", f"api-key: {self.emulator.api_key}", *more, "", ""]
        return "\r\n".join(lines).encode()


@pytest.fixture(scope="module")
def shared() -> Iterator[Api]:
    """Give the one emulator of this module."""
    begun = time.perf_counter()
    with Emulator(knobs=KNOBS) as emulator:
        sys.stdout.write(f"\nthe emulator listened after {time.perf_counter() - begun:.3f} s\n")
        api = Api(emulator)
        with api.http:
            yield api


@pytest.fixture
def api(shared: Api) -> Api:
    """Give the shared emulator, as fresh as on its first day."""
    shared.emulator.reset()
    shared.emulator.set_knobs(KNOBS)
    return shared


def text_of(body: dict[str, Any]) -> str:
    """Join the texts of a response, as `output_text` does."""
    return "".join(part["text"] for item in body["output"] for part in item.get("content", []))


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """Return the error of a refusal."""
    error: dict[str, Any] = answer.json()["error"]
    return error


def wait_for(condition: Callable[[], bool]) -> None:
    """Look until the condition holds, some seconds at most."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition never came true")


# ---- the life of a response --------------------------------------------------------------------------------


def test_life(api: Api) -> None:
    """A background response is queued at once, then in progress, then completed."""
    answer = api.create(knobs=CALM)
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    assert api.seen(answer.json()["id"]) == [["queued", "in_progress", "completed"]]


def test_honesty(api: Api) -> None:
    """Nothing the emulator makes can be mistaken for the service's: id, model, text, header."""
    body = api.done(prompt="A secret question", reasoning={"effort": "high"})
    assert body["id"].startswith("resp_emulator_")
    assert body["model"] == "emulator:o3-pro"
    text = text_of(body)
    assert text.startswith("[emulator]")
    assert "made up" in text
    assert "high" in text
    assert "17 characters" in text
    assert "secret" not in text
    assert text == text_of(api.done(prompt="A secret question", reasoning={"effort": "high"}))
    assert api.look("resp_unknown").headers["x-o3pro-bg-emulator"] == "1"


@pytest.mark.parametrize("surface", ["dated", "v1"])
async def test_the_sdk_speaks_to_it(api: Api, surface: str) -> None:
    """The SDK's Azure client creates, looks, reads the text, cancels and deletes on both path styles."""
    emulator = api.emulator
    client = (
        openai.AsyncAzureOpenAI(azure_endpoint=emulator.endpoint, api_version=DATED, api_key=emulator.api_key)
        if surface == "dated"
        else openai.AsyncAzureOpenAI(
            base_url=emulator.endpoint + "/openai/v1/", api_version="v1", azure_ad_token=emulator.api_key
        )
    )
    async with client:
        made = await client.responses.create(
            model="o3-pro", input="Why?", background=True, store=True, reasoning={"effort": "low"}
        )
        assert made.status == "queued"
        assert made.output_text == ""
        for _ in range(500):
            found = await client.responses.retrieve(made.id)
            if found.status == "completed":
                break
            await asyncio.sleep(0.01)
        assert found.output_text.startswith("[emulator]")
        assert found.usage is not None
        assert found.usage.output_tokens_details.reasoning_tokens == 256
        assert (await client.responses.cancel(made.id)).status == "completed"
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError, match="not found"):
            await client.responses.retrieve(made.id)


@pytest.mark.parametrize("prefix", ["/openai/responses", "/openai/v1/responses", "/v1/responses", "/responses"])
def test_paths(api: Api, prefix: str) -> None:
    """Every path style reaches all four verbs."""
    body = {"model": "o3-pro", "input": "Why?", "background": True, "metadata": {"emulator": "seconds=60"}}
    version = {"api-version": DATED}
    made = api.http.post(prefix, params=version, json=body).json()
    one = f"{prefix}/{made['id']}"
    assert api.http.get(one, params=version).json()["id"] == made["id"]
    assert api.http.post(f"{one}/cancel", params=version).json()["status"] == "cancelled"
    assert api.http.delete(one, params=version).json()["deleted"] is True


def test_unknown_paths(api: Api) -> None:
    """A dated path without api-version, another path and another method are not there."""
    for method, path in (
        ("POST", "/openai/responses"),
        ("GET", "/openai/v1/models"),
        ("GET", "/openai/v1/responses"),
        ("PUT", "/openai/v1/responses/resp_1"),
    ):
        answer = api.http.request(method, path)
        assert (answer.status_code, error_of(answer)["message"]) == (404, "Resource not found")


def test_keys(api: Api) -> None:
    """The key is taken as api-key or as a Bearer token; any other is refused in Azure's words."""
    key = api.emulator.api_key
    with httpx2.Client(base_url=api.emulator.endpoint, trust_env=False) as http:
        for headers in ({"api-key": key}, {"Authorization": f"Bearer {key}"}):
            assert http.get("/responses/x", headers=headers).status_code == 404
        for headers in ({}, {"api-key": "wrong"}, {"api-key": "clé"}, {"Authorization": f"Basic {key}"}):
            raw = [(name.encode(), text.encode()) for name, text in headers.items()]
            answer = http.get("/responses/x", headers=raw)
            assert answer.status_code == 401
            assert "Access denied due to invalid subscription key" in error_of(answer)["message"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:80", "[::1]:9", "LOCALHOST"])
def test_loopback_hosts(api: Api, host: str) -> None:
    """A loopback name in the Host header is served."""
    assert api.http.get("/emulator", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", "10.0.0.1"])
@pytest.mark.parametrize("path", ["/emulator", "/emulator/counters", "/responses/x"])
def test_strange_hosts(api: Api, host: str, path: str) -> None:
    """Any other Host is refused, even with the key (DNS rebinding)."""
    assert api.http.get(path, headers={"Host": host}).status_code == 403


def test_headers(api: Api) -> None:
    """Every answer has request ids of its own, and no word of limits that there are not."""
    first, second = api.create(), api.look("resp_unknown")
    for name in ("x-request-id", "apim-request-id"):
        assert first.headers[name] != second.headers[name]
    assert first.headers["content-type"] == "application/json"
    assert not [name for name in first.headers if name.startswith("x-ratelimit")]


def test_usage(api: Api) -> None:
    """Usage adds up, is the same for the same question, and grows with the effort."""
    usages = [api.done(reasoning={"effort": effort})["usage"] for effort in ("low", "low", "medium", "high")]
    reasoning = [usage["output_tokens_details"]["reasoning_tokens"] for usage in usages]
    assert usages[0] == usages[1]
    assert reasoning[1] < reasoning[2] < reasoning[3]
    assert all(usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"] for usage in usages)
    bounded = api.done(reasoning={"effort": "high"}, max_output_tokens=100)["usage"]
    assert bounded["output_tokens"] == 100


def test_input_of_messages(api: Api) -> None:
    """An input of messages is read as its texts, knobs included."""
    parts = [{"type": "input_text", "text": "Why? [emulator text=parts]"}]
    messages = [{"role": "user", "content": "Hello."}, {"role": "user", "content": parts}]
    assert text_of(api.done(input=messages)) == "[emulator] parts"


# ---- creates that are refused, creates in the foreground ---------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"store": False}, "store"),
        ({"background": "yes"}, "background"),
        ({"stream": True}, "stream"),
        ({"reasoning": {"effort": "enormous"}}, "effort"),
        ({"reasoning": "high"}, "reasoning"),
        ({"max_output_tokens": 1}, "max_output_tokens"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_invalid_creates(api: Api, change: dict[str, Any], word: str) -> None:
    """A create that the service would not take is refused with a 400 that names the parameter."""
    answer = api.create(**change)
    assert answer.status_code == 400
    assert word in error_of(answer)["message"]
    counters = api.emulator.counters()
    assert (counters["creates"], counters["accepted"], counters["refused"]) == (1, 0, 1)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b'{"a":' + b"[" * 100_000])
def test_bad_json(api: Api, body: bytes) -> None:
    """A body that is no JSON object is refused with 400."""
    assert api.http.post("/responses", content=body).status_code == 400


def test_metadata_at_its_limits(api: Api) -> None:
    """Sixteen pairs of the longest key and value are taken, and echoed."""
    metadata = {f"{number:064}": "v" * 512 for number in range(16)}
    answer = api.create(metadata=metadata)
    assert answer.status_code == 200
    assert answer.json()["metadata"] == metadata


def test_foreground(api: Api) -> None:
    """Without background the connection is held until the answer is there, and nothing can be cancelled."""
    body = api.create(background=False).json()
    assert body["status"] == "completed"
    assert text_of(body).startswith("[emulator]")
    assert api.cancel(body["id"]).status_code == 400


def test_foreground_dropped(api: Api) -> None:
    """A foreground job whose client leaves is cancelled and counted."""
    body = json.dumps({"model": "o3-pro", "input": "Why? [emulator outcome=never]"})
    with api.socket() as sock:
        sock.sendall(api.head("POST /responses HTTP/1.1", f"Content-Length: {len(body)}") + body.encode())
        wait_for(lambda: api.emulator.counters()["accepted"] == 1)
        assert api.emulator.counters()["dropped"] == 0
    wait_for(lambda: api.emulator.counters()["dropped"] == 1)


# ---- knobs of a response -----------------------------------------------------------------------------------


def test_outcome_failed(api: Api) -> None:
    """A failed response answers 200 with the error's code and no output."""
    body = api.done("outcome=failed code=rate_limit_exceeded")
    assert (body["status"], body["error"]["code"]) == ("failed", "rate_limit_exceeded")
    assert body["output"] == []
    assert body["usage"] is None


def test_outcome_incomplete(api: Api) -> None:
    """An incomplete response keeps its reason, its usage and a part of the text."""
    body = api.done("outcome=incomplete reason=content_filter text=abcdefgh")
    assert body["incomplete_details"] == {"reason": "content_filter"}
    assert body["usage"]
    assert "[emulator] abcdefgh".startswith(text_of(body))
    assert text_of(body) != "[emulator] abcdefgh"


def test_outcome_cancelled_and_never(api: Api) -> None:
    """A response may cancel itself, or stay in progress for ever."""
    assert api.done("outcome=cancelled")["status"] == "cancelled"
    never = api.new("outcome=never seconds=0")
    assert api.look(never).json()["status"] == "in_progress"


@pytest.mark.parametrize(("quoted", "text"), [("caf%C3%A9%20%5Bau%5D%20lait", "[emulator] café [au] lait"), ("", "")])
def test_text(api: Api, quoted: str, text: str) -> None:
    """The answer's text is what the knob says, marked unless it is empty."""
    assert text_of(api.done(f"seconds=0 text={quoted}")) == text


def test_statuses_seen(api: Api) -> None:
    """Progress may never be seen, be told by an unknown word, or walk backwards."""
    knobs = ("skip_progress=1", "word=pondering", "backwards=1")
    assert api.seen(*[api.new(f"{CALM} {knob}") for knob in knobs]) == [
        ["queued", "completed"],
        ["queued", "pondering", "completed"],
        ["queued", "in_progress", "queued", "in_progress", "completed"],
    ]


def test_nulls(api: Api) -> None:
    """While queued, created_at and output may be null; later they are not."""
    made = api.create(knobs="nulls=1").json()
    assert made["created_at"] is None
    assert made["output"] is None
    assert made["usage"] is None
    body = api.until(made["id"], "completed")
    assert body["created_at"]
    assert body["output"]


def test_queued_is_a_tenth(api: Api) -> None:
    """Without its knob, the time queued is a tenth of the whole, and never more than the whole."""
    assert _knobs.Knobs(seconds=5).queued_seconds == 0.5
    assert _knobs.Knobs(seconds=1, queued=9).queued_seconds == 1


def test_latency(api: Api) -> None:
    """Every answer is late by the latency: creates, looks, refusals, and those of one job alone."""
    api.emulator.set_knobs("latency=0.1")
    calls: list[Callable[[], object]] = [api.create, lambda: api.look("x"), lambda: api.create(model="")]
    for call in calls:
        begun = time.monotonic()
        call()
        assert time.monotonic() - begun >= 0.1
    api.emulator.set_knobs("")
    begun = time.monotonic()
    api.look(api.new("latency=0.1"))
    assert time.monotonic() - begun >= 0.2


def test_poll_after(api: Api) -> None:
    """Looks carry openai-poll-after-ms where the knob says so; creates do not."""
    made = api.create(knobs="poll_after_ms=250")
    assert "openai-poll-after-ms" not in made.headers
    assert api.look(made.json()["id"]).headers["openai-poll-after-ms"] == "250"


def test_lost_after(api: Api) -> None:
    """After so many looks the response is gone for every verb, for ever."""
    lost = api.new("lost_after=2")
    assert [api.look(lost).status_code for _ in range(4)] == [200, 200, 404, 404]
    assert api.cancel(lost).status_code == api.delete(lost).status_code == 404
    assert error_of(api.look(lost))["message"] == f"Response with id '{lost}' not found."


def test_missing_first(api: Api) -> None:
    """The first looks may answer 404."""
    fresh = api.new("missing_first=2")
    assert [api.look(fresh).status_code for _ in range(3)] == [404, 404, 200]


# ---- cancel and delete -------------------------------------------------------------------------------------


def test_cancel(api: Api) -> None:
    """A cancel can be repeated, and the response stays cancelled."""
    job = api.new("outcome=never")
    assert [api.cancel(job).json()["status"] for _ in range(2)] == ["cancelled", "cancelled"]
    assert api.look(job).json()["status"] == "cancelled"
    assert api.emulator.counters()["cancels"] == 2


def test_cancel_of_the_finished(api: Api) -> None:
    """A cancel of a finished response answers 200 with its terminal state."""
    answer = api.cancel(api.done("seconds=0")["id"])
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


@pytest.mark.parametrize("status", [400, 409])
def test_cancel_refused(api: Api, status: int) -> None:
    """A refused cancel lets the job run on to its end."""
    job = api.new(f"cancel_status={status}")
    assert api.cancel(job).status_code == status
    assert api.until(job, "completed")


def test_late_completion(api: Api) -> None:
    """A cancelled response may read completed later, with usage, and is counted."""
    job = api.new("outcome=never late_completion=0.5")
    assert api.cancel(job).json()["status"] == "cancelled"
    assert api.emulator.counters()["late_completions"] == 0
    assert api.until(job, "completed")["usage"]["total_tokens"] > 0
    assert api.emulator.counters()["late_completions"] == 1
    assert api.cancel(api.new("late_completion=0")).json()["status"] == "cancelled"


def test_late_completion_is_not_seen_before_its_time() -> None:
    """Until its time has come a cancelled response reads cancelled and tells no usage; then it reads completed."""
    creation = _creation.understand(b'{"model": "o3-pro", "input": "Why?", "background": true}')
    response = _responses.ModelledResponse(creation, _knobs.Knobs(late_completion=60), born=100, created_at=0)
    response.cancel(101)
    assert [response.status(now) for now in (101, 160.9, 161, 9999)] == ["cancelled"] * 2 + ["completed"] * 2
    assert response.as_json("cancelled")["usage"] is None
    assert response.as_json("completed")["usage"]["output_tokens"] > 0


@pytest.mark.parametrize("knobs", ["outcome=never", "seconds=0", "outcome=failed seconds=0"])
def test_delete(api: Api, knobs: str) -> None:
    """A deleted response is gone for every verb, whether it ran or had ended; every delete is counted."""
    job, other = api.new(knobs), api.new(knobs)
    answer = api.delete(job)
    assert (answer.status_code, answer.headers["x-o3pro-bg-emulator"]) == (200, "1")
    assert answer.json() == {"id": job, "object": "response", "deleted": True}
    for verb in (api.look, api.cancel, api.delete):
        missing = verb(job)
        assert (missing.status_code, error_of(missing)["message"]) == (404, f"Response with id '{job}' not found.")
    assert api.look(other).status_code == 200
    assert api.delete("resp_unknown").status_code == 404
    counters = api.emulator.counters()
    assert (counters["deletes"], counters["responses"]) == (3, 1)


@pytest.mark.parametrize(("fault", "found"), [("500", 200), ("reset", 200), ("reset-after", 404), ("html", 404)])
def test_faults_of_a_delete(api: Api, fault: str, found: int) -> None:
    """A fault at a delete leaves the response there, or hides that it is gone; the next delete passes."""
    job = api.new(f"fault={fault} on=delete", job="j")
    with contextlib.suppress(httpx2.TransportError):
        api.delete(job)
    assert api.look(job).status_code == found
    assert api.delete(job).status_code == found


# ---- faults ------------------------------------------------------------------------------------------------

REFUSALS = {
    "400": (400, "content_filter_result"),
    "401": (401, "invalid subscription key"),
    "401-audience": (401, "audience is incorrect"),
    "403": (403, "Firewall"),
    "404": (404, "Response with id '' not found."),
    "404-deployment": (404, "DeploymentNotFound"),
    "404-resource": (404, "Resource not found"),
    "408": (408, "timeout"),
    "409": (409, "conflict"),
    "429": (429, "rate limit"),
    "500": (500, "server_error"),
    "503": (503, "ServiceUnavailable"),
    "html-502": (502, "<html>"),
    "redirect": (307, ""),
}
SPOILED = {"html": b"<!DOCTYPE html>", "empty": b"", "null": b"null", "list": b"[]", "object": b"{}"}
UNANSWERED = {"truncated", "short", "reset", "reset-after", "hang", "slow"}


def test_every_fault_is_known_and_tried() -> None:
    """The faults that are listed, those that are done and those that are tested are the same."""
    tried = {*REFUSALS, *SPOILED, *UNANSWERED}
    assert tried == set(_faults.FAULTS) == set(_knobs.FAULTS)


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(api: Api, name: str) -> None:
    """A refusal has Azure's status and words, performs nothing, and passes once."""
    status, words = REFUSALS[name]
    answer = api.create(knobs=f"fault={name}", job="j")
    assert answer.status_code == status
    assert words in answer.text
    assert api.create(knobs=f"fault={name}", job="j").status_code == 200
    counters = api.emulator.counters()
    assert (counters["creates"], counters["accepted"], counters["refused"]) == (2, 1, int(status >= 400))


def test_refused_but_performed(api: Api) -> None:
    """With performed=1 a refusal hides a response that was made: the ambiguous error."""
    assert api.create(knobs="fault=500 performed=1", job="j").status_code == 500
    assert api.emulator.counters()["accepted"] == 1


def test_content_filter(api: Api) -> None:
    """The content filter names the category that fired."""
    error = error_of(api.create("Why? [emulator fault=400]"))
    assert error["code"] == "content_filter"
    assert error["innererror"]["content_filter_result"]["violence"] == {
        "filtered": True,
        "severity": "medium",
    }


def test_redirect(api: Api) -> None:
    """The redirect leads to another origin."""
    answer = api.create(knobs="fault=redirect")
    assert answer.headers["location"] == "http://127.0.0.1:1/elsewhere"


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_answers(api: Api, name: str) -> None:
    """A spoiled answer says 200 and is no response, though one was made."""
    answer = api.create(knobs=f"fault={name}")
    assert answer.status_code == 200
    assert answer.content.startswith(SPOILED[name])
    assert name == "html" or answer.content == SPOILED[name]
    assert api.emulator.counters()["accepted"] == 1


def test_truncated(api: Api) -> None:
    """A truncated answer is whole for HTTP and cut for JSON."""
    answer = api.create(knobs="fault=truncated")
    assert int(answer.headers["content-length"]) == len(answer.content) > 0
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert api.emulator.counters()["accepted"] == 1


def test_short(api: Api) -> None:
    """A short answer promises more than it sends, and closes."""
    with pytest.raises(httpx2.RemoteProtocolError):
        api.create(knobs="fault=short")
    assert api.emulator.counters()["accepted"] == 1


@pytest.mark.parametrize(("name", "accepted"), [("reset", 0), ("reset-after", 1)])
def test_reset(api: Api, name: str, accepted: int) -> None:
    """A reset breaks the connection, before or after the response is made."""
    body = json.dumps({"model": "o3-pro", "input": f"[emulator fault={name}]", "background": True})
    with pytest.raises(ConnectionResetError):
        api.raw(api.head("POST /responses HTTP/1.1", f"Content-Length: {len(body)}") + body.encode())
    assert api.emulator.counters()["accepted"] == accepted


def test_hang(api: Api) -> None:
    """A hanging create is accepted, is never answered, and ends when its client leaves."""
    with pytest.raises(httpx2.ReadTimeout):
        api.http.post(
            "/responses",
            json={"model": "o3-pro", "input": "[emulator fault=hang]", "background": True},
            timeout=0.2,
        )
    wait_for(lambda: api.emulator.counters()["accepted"] == 1)
    assert api.emulator.counters()["dropped"] == 0


def test_slow(api: Api) -> None:
    """A slow answer comes whole, after its time."""
    begun = time.monotonic()
    answer = api.create(knobs="fault=slow slow=0.3")
    assert time.monotonic() - begun >= 0.3
    assert answer.json()["status"] == "queued"


@pytest.mark.parametrize("verb", ["create", "look", "cancel", "delete", "any"])
def test_on(api: Api, verb: str) -> None:
    """A fault fires at its verb alone, or at any."""
    job = "x" if verb in ("create", "any") else api.new("outcome=never")
    api.emulator.set_knobs(f"fault=503 on={verb} times=0")
    statuses = {
        "create": api.create().status_code,
        "look": api.look(job).status_code,
        "cancel": api.cancel(job).status_code,
        "delete": api.delete(job).status_code,
    }
    assert {name for name, status in statuses.items() if status == 503} == (set(statuses) if verb == "any" else {verb})


def test_times_and_after(api: Api) -> None:
    """A fault lets `after` requests pass, fires `times` times, then is over."""
    api.emulator.set_knobs("fault=500 after=1 times=2")
    assert [api.create().status_code for _ in range(5)] == [200, 500, 500, 200, 200]
    api.emulator.set_knobs("fault=500 after=1 times=2")
    assert [api.create().status_code for _ in range(2)] == [200, 500], "new knobs are counted anew"


def test_faults_count_per_job(api: Api) -> None:
    """A job's own fault is counted under its id, so a second POST of the same job passes."""
    knobs = "fault=500"
    statuses = [api.create(prompt, knobs, job).status_code for prompt, job in (("a", "1"), ("b", "1"), ("a", "2"))]
    assert statuses == [500, 200, 500]
    nameless = [api.create(prompt, knobs).status_code for prompt in ("a", "a", "b")]
    assert nameless == [500, 200, 500]


def test_job_faults_at_looks(api: Api) -> None:
    """A job's own fault fires at the looks of that job alone."""
    hit, other = api.new("fault=503 on=look after=1", job="hit"), api.new(job="other")
    assert [api.look(hit).status_code for _ in range(3)] == [200, 503, 200]
    assert [api.look(other).status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("fault", ["429", "503"])
def test_retry_headers(api: Api, fault: str) -> None:
    """429 and 503 say when to come again, in the form asked for, or not at all."""
    bare = api.create(knobs=f"fault={fault}").headers
    assert "retry-after" not in bare
    assert "retry-after-ms" not in bare
    both = api.create(knobs=f"fault={fault} retry_after=7 retry_after_ms=1500").headers
    assert (both["retry-after"], both["retry-after-ms"]) == ("7", "1500")
    dated = api.create(knobs=f"fault={fault} retry_after_date=60").headers["retry-after"]
    assert 55 < email.utils.parsedate_to_datetime(dated).timestamp() - time.time() <= 60


def test_rpm(api: Api) -> None:
    """At most so many creates a minute are let in; the others are told when to come again."""
    api.emulator.set_knobs("rpm=2")
    answers = [api.create() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0", "0"]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert 55 <= int(answers[2].headers["retry-after"]) <= 61


def test_tpm(api: Api) -> None:
    """A create sets aside the tokens of its question and its output; what a minute does not hold is refused."""
    api.emulator.set_knobs("tpm=1000")
    assert api.create("Why?", max_output_tokens=1001).status_code == 429, "never"
    answers = [api.create("Why?", max_output_tokens=tokens) for tokens in (600, 600, 300)]
    assert [answer.status_code for answer in answers] == [200, 429, 200]
    assert answers[0].headers["x-ratelimit-limit-tokens"] == "1000"
    assert [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers] == pytest.approx(
        [400, 400, 100], abs=30
    )
    assert 55 <= int(answers[1].headers["retry-after"]) <= 61


# ---- the grammar of knobs ----------------------------------------------------------------------------------


def test_later_wins(api: Api) -> None:
    """The prompt overrides the metadata, which overrides the server."""
    api.emulator.set_knobs("seconds=0 text=server code=server reason=server outcome=incomplete")
    body = api.done("text=metadata-is-longer code=metadata", prompt="Why? [emulator text=prompt outcome=completed]")
    assert text_of(body) == "[emulator] prompt"
    failed = api.done("text=metadata code=metadata", prompt="[emulator outcome=failed] and [emulator code=last]")
    assert failed["error"]["code"] == "last"
    assert text_of(api.done(prompt="[emulator] is not a knob", knobs="outcome=completed")) == "[emulator] server"


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ("secnds=1", "secnds"),
        ("seconds", "'seconds' is not a knob"),
        ("seconds=fast", "'seconds' takes a number of seconds"),
        ("seconds=-1", "'seconds'"),
        ("seconds=inf", "'seconds'"),
        ("seconds=nan", "'seconds'"),
        ("times=1.5", "'times' takes a whole number"),
        ("rpm=0", "'rpm' takes a whole number, 1 or more"),
        ("nulls=yes", "'nulls' takes 0 or 1"),
        ("outcome=won", "one of completed, failed"),
        ("fault=418", "one of 400, 401"),
        ("on=post", "one of create, look"),
        ("cancel_status=500", "200, 400 or 409"),
        ("word=two+words", "'word' takes one word"),
    ],
)
def test_bad_knobs(api: Api, knobs: str, words: str) -> None:
    """A knob that is not understood is named: by ValueError at the server, by 400 in a create."""
    for wrong in (lambda: Emulator(knobs), lambda: api.emulator.set_knobs(knobs)):
        with pytest.raises(ValueError, match=re.escape(words)):
            wrong()
    if not knobs.startswith("rpm"):
        answer = api.create(knobs=knobs)
        assert answer.status_code == 400
        assert words in error_of(answer)["message"]
    answer = api.http.put("/emulator/knobs", content=knobs)
    assert answer.status_code == 400
    assert words in error_of(answer)["message"]


def test_rpm_is_no_jobs_knob(api: Api) -> None:
    """A knob of the server level is refused in a create, with a sentence."""
    answer = api.create("Why? [emulator rpm=1]")
    assert answer.status_code == 400
    assert "set on the server" in error_of(answer)["message"]


# ---- streams -----------------------------------------------------------------------------------------------


def events(api: Api, response_id: str, **query: str) -> list[dict[str, Any]]:
    """Return every event of a stream, once it has ended."""
    answer = api.http.get(f"/openai/v1/responses/{response_id}", params={"stream": "true", **query})
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


def kinds(told: list[dict[str, Any]]) -> list[str]:
    """Return the kinds of events in order, runs as one."""
    names = [event["type"].removeprefix("response.") for event in told]
    return [name for at, name in enumerate(names) if names[at - 1 : at] != [name]]


def test_stream(api: Api) -> None:
    """A stream tells the whole life in numbered events, and its deltas make up the text."""
    told = events(api, api.new("text=One%20two%20three%20four"))
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert kinds(told) == ["created", "queued", "in_progress", "output_text.delta", "completed"]
    deltas = [event["delta"] for event in told if "delta" in event]
    assert len(deltas) > 1
    assert "".join(deltas) == text_of(told[-1]["response"])
    assert api.emulator.counters()["streams"] == 1


def test_stream_is_spaced(api: Api) -> None:
    """Events come at their time, not at the end."""
    arrived = []
    with api.http.stream("GET", f"/responses/{api.new('seconds=0.6')}", params={"stream": "true"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                arrived.append(time.monotonic())
    assert arrived[-1] - arrived[0] > 0.2


@pytest.mark.parametrize("outcome", ["failed", "incomplete"])
def test_stream_of_other_ends(api: Api, outcome: str) -> None:
    """A stream ends with the event of the response's own end."""
    told = events(api, api.new(f"outcome={outcome} seconds=0.1"))
    assert told[-1]["type"] == f"response.{outcome}"
    assert told[-1]["response"]["status"] == outcome


def test_stream_resumes(api: Api) -> None:
    """A stream that was cut goes on after the number that was seen last."""
    job = api.new("cut=3 seconds=0.1")
    first = events(api, job)
    second = events(api, job, starting_after="2")
    third = events(api, job, starting_after="5")
    assert [event["sequence_number"] for event in first + second + third] == list(range(8))
    assert third[-1]["type"] == "response.completed"


async def test_stream_by_the_sdk(api: Api) -> None:
    """The SDK iterates a resumed stream to its terminal event."""
    job = api.new("seconds=0.1")
    base_url, key = api.emulator.endpoint + "/openai/v1/", api.emulator.api_key
    async with openai.AsyncAzureOpenAI(base_url=base_url, api_version="v1", api_key=key) as client:
        told = [event async for event in await client.responses.retrieve(job, stream=True, starting_after=1)]
    assert told[0].type == "response.in_progress"
    assert told[-1].type == "response.completed"
    assert told[-1].response.output_text.startswith("[emulator]")


def test_stream_of_the_cancelled(api: Api) -> None:
    """A stream ends silently when its response is cancelled."""
    job = api.new("outcome=never queued=0")
    late = threading.Timer(0.1, api.cancel, [job])
    late.start()
    assert kinds(events(api, job)) == ["created", "queued", "in_progress"]
    late.join()
    assert kinds(events(api, api.new("outcome=cancelled seconds=0.1"))) == [
        "created",
        "queued",
        "in_progress",
    ]


def test_stream_refused(api: Api) -> None:
    """The stream of a response that is too old, or from a number that is none, is refused with 400."""
    job = api.new("stream_max_age=0")
    path = f"/responses/{job}?stream=true"
    assert api.http.get(path).status_code == 400
    for number in ("-1", "x", "1e3", "9" * 5000):
        answer = api.http.get(f"/responses/{api.new()}?stream=true&starting_after={number}")
        assert answer.status_code == 400
        assert "starting_after" in error_of(answer)["message"]


# ---- counters and control ----------------------------------------------------------------------------------


def test_counters(api: Api) -> None:
    """Every request is counted under its verb, and reset forgets all of it."""
    job = api.new()
    api.look(job), api.look(job), api.cancel(job), api.delete(job), api.look(job)
    kept = api.new()
    counters = api.emulator.counters()
    named = ("creates", "accepted", "looks", "cancels", "deletes", "refused", "responses")
    assert [counters[name] for name in named] == [2, 2, 3, 1, 1, 1, 1]
    api.emulator.reset()
    zeroed = api.emulator.counters()
    assert not any(zeroed[name] for name in (*named, "connections", "duplicates", "max_in_flight"))
    assert api.look(kept).status_code == 404


def test_duplicates(api: Api) -> None:
    """A job id for which more than one response was made is named, with how many."""
    for job in ("once", "twice", "twice", "thrice", "thrice", "thrice"):
        api.new(job=job)
    assert api.emulator.counters()["duplicates"] == {"twice": 2, "thrice": 3}


def test_connections(api: Api) -> None:
    """Connections and requests in flight are counted; the control requests leave no mark."""
    before = api.emulator.counters()["open_connections"]
    assert api.emulator.counters()["open_connections"] == before
    api.emulator.set_knobs("latency=0.5")
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(api.socket()).sendall(api.head("GET /responses/x HTTP/1.1"))
        wait_for(lambda: api.emulator.counters()["max_in_flight"] == 5)
        counters = api.emulator.counters()
        assert (counters["connections"], counters["open_connections"] - before) == (5, 5)
    wait_for(lambda: api.emulator.counters()["open_connections"] == before)


def test_control_needs_the_key(api: Api) -> None:
    """Counters, reset and knobs are closed without the key; the page is open."""
    with httpx2.Client(base_url=api.emulator.endpoint, trust_env=False) as http:
        assert http.get("/emulator").status_code == 200
        for method, path in (("GET", "counters"), ("POST", "reset"), ("PUT", "knobs"), ("GET", "nothing")):
            assert http.request(method, f"/emulator/{path}").status_code == 401
    assert api.http.get("/emulator/nothing").status_code == 404


def test_page(api: Api) -> None:
    """The page names every knob and fault, and admits for each behaviour that Azure was not asked."""
    answer = api.http.get("/emulator")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for name in [name for name, *_ in _knobs.describe()] + list(_knobs.FAULTS):
        assert f"<code>{name}</code>" in answer.text
    for source in ("documentation", "measured on the SDK", "a user&#x27;s report", "our assumption"):
        assert f"<td>{source}</td>" in answer.text
    assert answer.text.count("<td>not yet</td>") > 20
    assert "Checked against Azure" in answer.text


# ---- HTTP --------------------------------------------------------------------------------------------------


def test_keep_alive_and_pipelining(api: Api) -> None:
    """Requests sent at once on one connection are answered in order, and Connection: close ends it."""
    look = api.head("GET /responses/first HTTP/1.1") + api.head("GET /responses/second HTTP/1.1", "Connection: close")
    answer = api.raw(look)
    assert answer.count(b"HTTP/1.1 404") == 2
    assert answer.index(b"'first'") < answer.index(b"'second'")
    assert api.raw(api.head("GET /responses/x HTTP/1.0")).count(b"connection: close") == 1
    assert api.emulator.counters()["connections"] == 2


def test_chunked_requests(api: Api) -> None:
    """A chunked request body is read like any other."""
    body = json.dumps({"model": "o3-pro", "input": "Why?", "background": True}).encode()
    answer = api.http.post("/responses", content=iter([body[:10], body[10:]]))
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/3\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 16777217\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1000001\r\n", 413),
        (b"GET / HTTP/1.1\r\n" + b"a" * 70_000, 431),
    ],
)
def test_malformed_requests(sent: bytes, status: int) -> None:
    """What cannot be read is refused with its status, and read no further."""
    with pytest.raises(_wire.Malformed) as caught:
        next(_wire.requests(bytearray(sent)))
    assert caught.value.status == status


def test_too_large(api: Api) -> None:
    """A body over 16 MB is refused with 413 while it is still being sent; the process serves on."""
    answer = api.http.post("/responses", content=b"x" * (17 * 1024 * 1024))
    assert answer.status_code == 413
    assert api.look("resp_unknown").status_code == 404


def test_any_split_of_the_bytes() -> None:
    """Requests come out the same when their bytes arrive one at a time."""
    sent = (
        b"POST /a%20b?x=1&y= HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;e=1\r\nde\r\n1\r\nf\r\n0\r\nT: t\r\n\r\n"
        b"GET /d HTTP/1.0\r\n\r\n"
    )
    buffer, found = bytearray(), []
    parser = _wire.requests(buffer)
    for byte in sent:
        buffer.append(byte)
        if (request := next(parser)) is not None:
            found.append(request)
    assert [(request.path, request.body, request.keep_alive) for request in found] == [
        ("/a b", b"abc", True),
        ("/c", b"def", True),
        ("/d", b"", False),
    ]
    assert found[0].query == {"x": "1", "y": ""}
    assert found[0].headers["host"] == "h"


async def test_many_connections(api: Api) -> None:
    """Nine hundred connections at once are each answered (a test process has some 1,000 sockets to spend)."""
    address = urlsplit(api.emulator.endpoint)
    opened = await asyncio.gather(*(asyncio.open_connection(address.hostname, address.port) for _ in range(900)))
    begun = time.perf_counter()
    for _, writer in opened:
        writer.write(api.head("GET /responses/x HTTP/1.1"))
    lines = await asyncio.gather(*(reader.readline() for reader, _ in opened))
    sys.stdout.write(f"\n900 connections answered in {time.perf_counter() - begun:.3f} s\n")
    assert set(lines) == {b"HTTP/1.1 404 Not Found\r\n"}
    for _, writer in opened:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in opened))


# ---- the process -------------------------------------------------------------------------------------------


def is_listening(endpoint: str) -> bool:
    """
    Returns whether someone listens there: surer than a process id, which may be a zombie's or another's.
    """
    address = urlsplit(endpoint)
    try:
        socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=5).close()
    except OSError:
        return False
    return True


def arguments_of(pid: int) -> str:
    """Return the arguments of a process, as anybody can list them."""
    if (listed := Path(f"/proc/{pid}/cmdline")).exists():
        return listed.read_text().replace("\0", " ")
    ps = ["ps", "-o", "args=", "-p", str(pid)]
    return subprocess.run(ps, capture_output=True, text=True, check=True).stdout  # noqa: S603


def test_start_and_stop() -> None:
    """Start and stop can be repeated; each start has a fresh key and a process of its own."""
    emulator = Emulator()
    for wrong in (
        lambda: emulator.endpoint,
        lambda: emulator.api_key,
        lambda: emulator.pid,
        emulator.counters,
    ):
        with pytest.raises(RuntimeError, match="not started"):
            wrong()
    assert repr(emulator) == "<Emulator stopped>"
    emulator.start()
    first_key, first_pid, endpoint = emulator.api_key, emulator.pid, emulator.endpoint
    assert emulator.start().pid == first_pid
    assert emulator.endpoint in repr(emulator)
    assert first_key not in repr(emulator)
    emulator.stop()
    emulator.stop()
    assert not is_listening(endpoint)
    with emulator:
        assert emulator.api_key != first_key
        assert emulator.counters()["creates"] == 0


def test_given_key_is_not_in_the_arguments() -> None:
    """A given key is used, and does not show in the list of processes."""
    with Emulator(api_key="my-own-key") as emulator:
        assert emulator.api_key == "my-own-key"
        assert emulator.counters()["accepted"] == 0
        shown = arguments_of(emulator.pid)
        assert "o3pro_bg.emulator" in shown
        assert "my-own-key" not in shown


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "::", "example.org", ""])  # noqa: S104
def test_loopback_only(host: str) -> None:
    """Only a loopback address can be listened on."""
    with pytest.raises(ValueError, match=r"127\.0\.0\.1 or ::1 only"):
        Emulator(host=host)


@pytest.mark.parametrize("key", ["", "two words", "line\n", "clé"])
def test_keys_that_no_header_can_say(key: str) -> None:
    """A key that cannot be sent in a header is refused at once, and not repeated in the error."""
    with pytest.raises(ValueError, match="api_key"):
        Emulator(api_key=key)


def test_ipv6() -> None:
    """The IPv6 loopback is served too, where the machine has one."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        with pytest.raises(RuntimeError, match="cannot start"):
            Emulator(host="::1").start()
        return
    with Emulator(host="::1") as emulator:
        assert emulator.endpoint.startswith("http://[::1]:")
        assert emulator.counters()["looks"] == 0


async def test_beside_a_running_loop_and_from_a_thread() -> None:
    """It starts and stops on a loop's own thread, and in any other."""

    def whole_life() -> int:
        with Emulator() as emulator:
            return int(emulator.counters()["creates"])

    assert whole_life() == 0
    assert await asyncio.gather(*(asyncio.to_thread(whole_life) for _ in range(2))) == [0, 0]


def test_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts from any working directory, whatever modules lie there."""
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    with Emulator() as emulator:
        assert emulator.counters()["creates"] == 0


def test_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is not asked for the emulator's own requests."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with Emulator() as emulator:
        emulator.reset()


def run(*arguments: str, **more: Any) -> "subprocess.Popen[str]":
    """Start a Python of our own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "O3PRO_BG_EMULATOR_KEY": ""}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, text=True, env=environment, stdout=subprocess.PIPE, **more)  # noqa: S603


def first_line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return the JSON that a process says first."""
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(number: signal.Signals) -> None:
    """A signal ends it with status 0 and nothing on standard error, requests in flight or not."""
    with run(
        "-m", "o3pro_bg.emulator", "--knobs=fault=hang", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        said = first_line(process)
        assert said["emulator"] == "o3pro_bg"
        assert said["pid"] == process.pid
        headers = {"api-key": said["api_key"]}
        with httpx2.Client(base_url=said["endpoint"], headers=headers, trust_env=False, timeout=0.2) as http:
            with pytest.raises(httpx2.ReadTimeout):
                http.post("/responses", json={"model": "m", "input": "i", "background": True})
            http.get("/emulator/counters")
            process.send_signal(number)
            _, errors = process.communicate(timeout=5)
        assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("arguments", [["--knobs=secnds=1"], ["--port=PORT"]])
def test_errors_at_start(api: Api, arguments: list[str]) -> None:
    """What keeps it from starting is said in one line, with status 2."""
    port = str(urlsplit(api.emulator.endpoint).port)
    arguments = [argument.replace("PORT", port) for argument in arguments]
    with run("-m", "o3pro_bg.emulator", *arguments, stderr=subprocess.PIPE) as process:
        out, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (2, "")
    assert ("secnds" if "--knobs" in arguments[0] else "address") in json.loads(out)["error"]


def test_it_dies_with_its_parent() -> None:
    """When the parent is killed outright, the emulator ends by itself."""
    script = (
        "import json, time; from o3pro_bg.emulator import Emulator; emulator = Emulator().start();"
        "print(json.dumps({'endpoint': emulator.endpoint}), flush=True); time.sleep(60)"
    )
    with run("-c", script) as parent:
        endpoint = first_line(parent)["endpoint"]
        assert is_listening(endpoint)
        parent.kill()
        parent.wait()
    wait_for(lambda: not is_listening(endpoint))


def test_it_leaves_nothing_open() -> None:
    """A whole life leaks no pipe, socket or process: no ResourceWarning."""
    script = (
        "import gc; from o3pro_bg.emulator import Emulator\n"
        "with Emulator() as emulator: emulator.set_knobs('seconds=1'); emulator.counters()\n"
        "del emulator; gc.collect()"
    )
    with run("-X", "dev", "-W", "error", "-c", script, stderr=subprocess.PIPE) as process:
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


def test_import_is_cheap() -> None:
    """Importing the package loads neither asyncio nor any HTTP."""
    script = "import sys, o3pro_bg.emulator; print({'asyncio', 'http', 'subprocess'} & set(sys.modules))"
    with run("-c", script) as process:
        out, _ = process.communicate(timeout=10)
    assert out.strip() == "set()"
