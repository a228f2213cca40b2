"""
`doctor`: looks at everything that a job needs, and names every problem at once, each with its fix.

    checks    what a check answers
    machine   checks of this machine: versions, extras, the jobs
    reach     checks without a key: who answers, and his clock
    access    checks with the credential, which are free
    live      doctor --live: what only this deployment can tell
    trial     what is asked for it, in which order
    witness   the library's way to the service, seen; leaves nothing there
    facts     what answers say, as rows
    report    the rows as a table
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from o3pro_bg._shown import padded
from o3pro_bg.cli._doctor.access import both, with_kept_token
from o3pro_bg.cli._doctor.checks import Check, Verdict, counted, ok, problem, unknown
from o3pro_bg.cli._doctor.machine import database, extras, store, versions
from o3pro_bg.cli._doctor.reach import Knock, clock, kind_of, knock, reachable, service
from o3pro_bg.cli._doctor.report import not_asked, put_report
from o3pro_bg.cli._exits import Exit
from o3pro_bg.cli._place import config_of, database_of, path_of
from o3pro_bg.cli._screen import put, put_json, say
from o3pro_bg.cli._words import glyph

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from o3pro_bg.cli._doctor.report import Report

_SHORTEST_SECRET: Final = 8  # characters: what is shorter stands in any text
_PASSWORD: Final = re.compile(r"//[^/\s]*@")
_WIDTH: Final = len("store's directory")
_ALWAYS: Final = ("anyio", "openai")  # what no request can do without
_CORRECT: Final = "correct it in the environment, or by an option of the command"


def doctor(arguments: argparse.Namespace) -> Exit:
    """Look at everything, print what was found, and answer whether it works."""
    if not (azure := logging.getLogger("azure")).handlers:
        azure.addHandler(logging.NullHandler())  # what it has to say is said here, in one line
    visit = _Visit(arguments)
    for check in visit.checks():
        if not arguments.json:
            _put_check(check)
    if arguments.json:
        visit.put_as_json()
    else:
        say(_summary(visit.found))
    return Exit.CONFIGURATION if any(check.verdict is Verdict.PROBLEM for check in visit.found) else Exit.COMPLETED


class _Visit:
    """One run of the doctor: what it looked at, and what it found."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._config, self._kept = with_kept_token(config_of(arguments))
        self._problems = self._config.validate()
        self._obstacle = "the configuration has problems" if self._problems else ""
        self.found: list[Check] = []
        self.report: Report | None = None

    def checks(self) -> Iterator[Check]:
        """Answer one check after the other, none of them with a secret."""
        for check in self._checks():
            hushed = check._replace(found=self._hushed(check.found), fix=self._hushed(check.fix))
            self.found.append(hushed)
            yield hushed

    def put_as_json(self) -> None:
        """Print the checks as an array; with `--live`, an object that holds them beside the rows."""
        checks = [check._asdict() for check in self.found]
        if self.report is None:
            put_json(checks)
            return
        about, rows = self.report.about, [row._asdict() for row in self.report.rows]
        put_json({"about": about, "checks": checks, "live": rows})

    def _checks(self) -> Iterator[Check]:
        yield from versions()
        yield from extras()
        yield from self._configuration()
        knocked = Knock() if self._obstacle else knock(self._config)
        yield from self._service(knocked)
        if knocked.why:
            self._obstacle = "the service cannot be reached"
        yield from self._account()
        yield from self._jobs()
        yield self._deployment(knocked)

    def _jobs(self) -> Iterator[Check]:
        if (url := database_of(self._arguments)) is None:
            yield from store(path_of(self._arguments))
        else:
            yield database(url)

    def _configuration(self) -> Iterator[Check]:
        for sentence in self._problems:
            found, _, fix = sentence.partition(": ")
            yield problem("configuration", found, fix or _CORRECT)
        if not self._problems:
            version = self._config.api_version or "none"
            yield ok("configuration", f"deployment {self._config.deployment}, api-version {version}")

    def _service(self, knocked: Knock) -> Iterator[Check]:
        if self._obstacle:
            yield from (unknown(name, f"not asked: {self._obstacle}") for name in ("service", "reachable", "clock"))
            return
        yield service(self._config, knocked)
        yield reachable(knocked)
        yield clock(knocked)

    def _account(self) -> list[Check]:
        """Answer whether there is a credential, and whether the service takes it."""
        missing = [name for name in _ALWAYS if find_spec(name) is None]
        if missing:
            self._obstacle = f"{' and '.join(missing)} cannot be imported"
            return [unknown(name, f"not asked: {self._obstacle}") for name in ("credential", "access")]
        return asyncio.run(both(self._config, self._kept, why_not=self._obstacle))

    def _deployment(self, knocked: Knock) -> Check:
        """Answer what is known of the deployment; with `--live`, ask it."""
        name = self._config.deployment
        if not self._arguments.live:
            why = f"{name} is what is asked; no request that is free tells whether it exists"
            return unknown("deployment", why, "`o3pro-bg doctor --live` asks it tiny questions")
        if self._obstacle:
            report = not_asked(self._config, "no service", f"not asked: {self._obstacle}")
        else:
            from o3pro_bg.cli._doctor.live import live

            report = live(self._config, kind_of(self._config, knocked), is_emulator=knocked.is_emulator)
        rows = [row._replace(evidence=self._hushed(row.evidence)) for row in report.rows]
        self.report = report._replace(about=self._hushed(report.about), rows=rows)
        if not self._arguments.json:
            put_report(self.report)
        return report.deployment

    def _hushed(self, text: str) -> str:
        """Answer a text without our secrets, should whoever said it have repeated them."""
        token = self._kept.token
        for secret in (self._config.api_key, token.token if token is not None else ""):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "[the key]")
        return _PASSWORD.sub("//...@", text)


def _put_check(check: Check) -> None:
    sign = glyph(check.verdict, sys.stdout)
    put(f"{sign} {check.verdict:<7}  {padded(check.name, _WIDTH)}  {check.found}")
    if check.fix:
        put(f"             {check.fix}")


def _summary(checks: list[Check]) -> str:
    problems, warnings, unknowns = (
        sum(check.verdict is verdict for check in checks)
        for verdict in (Verdict.PROBLEM, Verdict.WARN, Verdict.UNKNOWN)
    )
    return f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}, {unknowns} unknown"
