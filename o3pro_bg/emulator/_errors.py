"""Refusals, in the words of Azure."""

import json
from typing import Any

from o3pro_bg.emulator._wire import Reply

_INVALID_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
    "for an active subscription and use a correct regional API endpoint for your resource."
)


class Refusal(Exception):
    """Carries the answer that refuses a request."""

    def __init__(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self._answer = status, json.dumps(body).encode(), headers or {}

    @property
    def reply(self) -> Reply:
        """Is the answer to send."""
        status, body, headers = self._answer
        return Reply(status, body, dict(headers))


def _gateway(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Refusal:
    return Refusal(status, {"error": {"code": code, "message": message}}, headers)


def _model(status: int, kind: str, message: str, code: str | None = None, **more: Any) -> Refusal:
    return Refusal(status, {"error": {"message": message, "type": kind, "param": None, "code": code, **more}})


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """Returns the 400 of a request that is not valid."""
    return _model(400, "invalid_request_error", message, code, param=param)


def content_filter() -> Refusal:
    """Returns the 400 of a prompt that trips the content filter."""
    calm: dict[str, object] = {"filtered": False, "severity": "safe"}
    result = dict.fromkeys(("hate", "self_harm", "sexual"), calm)
    result |= {
        "violence": {"filtered": True, "severity": "medium"},
        "jailbreak": {"filtered": False, "detected": False},
    }
    message = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry. To learn more about our content filtering policies please read "
        "our documentation: https://go.microsoft.com/fwlink/?linkid=2198766"
    )
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": result}
    error = {"message": message, "type": None, "param": "prompt", "code": "content_filter", "status": 400}
    return Refusal(400, {"error": {**error, "innererror": inner}})


def wrong_key() -> Refusal:
    """Returns the 401 of a missing or wrong key."""
    return _gateway(401, "401", _INVALID_KEY)


def wrong_audience() -> Refusal:
    """Returns the 401 of a token made for another audience; its body has no `error`."""
    message = (
        "Unauthorized. Access token is missing, invalid, audience is incorrect "
        "(https://cognitiveservices.azure.com), or have expired."
    )
    return Refusal(401, {"statusCode": 401, "message": message})


def firewall() -> Refusal:
    """Returns the 403 of a resource's network rules."""
    return _gateway(403, "403", "Access denied due to Virtual Network/Firewall rules.")


def strange_host() -> Refusal:
    """Returns the emulator's own 403: the Host header names no loopback address (DNS rebinding)."""
    return _gateway(403, "403", "The emulator answers only to 127.0.0.1, localhost and [::1].")


def response_not_found(response_id: str) -> Refusal:
    """Returns the 404 of a response that the service does not hold."""
    return _model(404, "invalid_request_error", f"Response with id '{response_id}' not found.")


def deployment_not_found() -> Refusal:
    """Returns the 404 of a deployment's name that does not exist."""
    message = (
        "The API deployment for this resource does not exist. If you created the deployment within the last "
        "5 minutes, please wait a moment and try again."
    )
    return _gateway(404, "DeploymentNotFound", message)


def resource_not_found() -> Refusal:
    """Returns the 404 of a path or api-version that the service does not have."""
    return _gateway(404, "404", "Resource not found")


def timed_out() -> Refusal:
    """Returns the 408 of a service that gave up waiting."""
    return _gateway(408, "Timeout", "The operation was timeout.")


def conflict() -> Refusal:
    """Returns the 409 of a request that another operation is in the way of."""
    return _model(409, "invalid_request_error", "Another operation on this resource is in progress.", "conflict")


def rate_limited(headers: dict[str, str], seconds: float | None = None) -> Refusal:
    """Returns the 429 of an exceeded rate limit; `seconds` is named in its sentence."""
    again = "" if seconds is None else f" Please retry after {seconds:g} seconds."
    message = "Requests to the Responses_Create Operation have exceeded call rate limit of your pricing tier."
    return _gateway(429, "429", message + again, headers)


def server_error() -> Refusal:
    """Returns the 500 of a service that had an error."""
    return _model(500, "server_error", "The server had an error while processing your request. Sorry about that!")


def overloaded(headers: dict[str, str]) -> Refusal:
    """Returns the 503 of a service that has too much to do."""
    return _gateway(503, "ServiceUnavailable", "The service is temporarily unable to process your request.", headers)
