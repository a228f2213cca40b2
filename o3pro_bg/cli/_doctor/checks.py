"""What the doctor says of one thing: a verdict, what was found, and the fix."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from o3pro_bg._sentences import explain

if TYPE_CHECKING:
    from o3pro_bg._remote import RemoteTrouble


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    PROBLEM = "problem"
    UNKNOWN = "unknown"  # it could not be found out, and the check says why


class Check(NamedTuple):
    """
    What was found out about one thing.

    Attributes:
        name: The thing.
        verdict: Whether it works.
        found: What was found, or why nothing could be.
        fix: What to do about it; empty where there is nothing to do.
    """

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


def ok(name: str, found: str) -> Check:
    """Answer a check that went well."""
    return Check(name, Verdict.OK, found)


def warn(name: str, found: str, fix: str) -> Check:
    """Answer a check of what works, and should be otherwise all the same."""
    return Check(name, Verdict.WARN, found, fix)


def problem(name: str, found: str, fix: str) -> Check:
    """Answer a check of what does not work."""
    return Check(name, Verdict.PROBLEM, found, fix)


def unknown(name: str, why: str, fix: str = "") -> Check:
    """Answer a check that could not be made, or told nothing."""
    return Check(name, Verdict.UNKNOWN, why, fix)


def of_trouble(name: str, trouble: RemoteTrouble) -> Check:
    """Answer the check of an exchange that brought trouble: some troubles tell nothing of the configuration."""
    from o3pro_bg._remote import Trouble

    code, detail = trouble.failure.code, trouble.failure.detail
    found = f"{code}: {detail}" if detail else code
    if trouble.request_id is not None:
        found += f" (request {trouble.request_id})"
    if code == "bad_answer":
        return problem(name, found, "check the endpoint: what answers there is no Responses API")
    sentence = explain("en", code, "")
    if sentence != code:
        return problem(name, found, sentence)
    if trouble.kind is Trouble.UNSENT:
        return problem(name, found, explain("en", "unreachable", ""))
    again = "ask again; if it stays so, the service's people find the request by its id"
    return unknown(name, f"the service said nothing about the configuration: {found}", again)


def counted(number: int, thing: str) -> str:
    """Answer so many things, in words for people."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
