"""`doctor --live`: what only this very deployment can tell, as a table to paste into an issue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from o3pro_bg._prices import PRICES, cost_of
from o3pro_bg._records import Usage
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg.cli._doctor.checks import Verdict, counted, of_trouble, ok, problem, unknown
from o3pro_bg.cli._doctor.report import Report, about, not_asked
from o3pro_bg.cli._doctor.trial import INPUT_TOKENS, MOST_TOKENS, QUESTIONS, Trial
from o3pro_bg.cli._doctor.witness import Witness
from o3pro_bg.cli._screen import say

if TYPE_CHECKING:
    from o3pro_bg.cli._doctor.checks import Check
    from o3pro_bg.cli._doctor.witness import Said
    from o3pro_bg.config import O3ProConfig

_MARK: Final = "[emulator] "


def live(config: O3ProConfig, kind: str, *, is_emulator: bool) -> Report:
    """Ask the deployment tiny questions, and say on standard error before what that costs."""
    say(_cost_of(config, is_emulator=is_emulator))
    witness = Witness(config)
    trial = Trial(witness, config)
    try:
        asyncio.run(_run(witness, trial))
    except KeyboardInterrupt:
        if not (witness.left or witness.unanswered):
            say("stopped: nothing was left at the service")
        raise
    except RemoteTrouble as trouble:
        return not_asked(config, kind, f"no client could be made: {trouble.failure.detail}")
    finally:
        _say_what_stays(witness)
    rows = trial.rows
    if is_emulator or witness.heard_emulator:
        rows = [row._replace(evidence=_MARK + row.evidence) for row in rows]
    return Report(about(config, kind, trial.effort), rows, deployment(config, trial.first))


def deployment(config: O3ProConfig, first: Said | None) -> Check:
    """Answer whether the deployment takes a question."""
    name = config.deployment
    if first is None:
        return unknown("deployment", f"{name}: it was not asked")
    if first.trouble is None:
        return ok("deployment", f"{name} takes questions")
    check = of_trouble("deployment", first.trouble)
    if first.trouble.kind is Trouble.REFUSED and check.verdict is Verdict.UNKNOWN:
        fix = "give a deployment of a model that takes background requests of the Responses API"
        return problem("deployment", f"{name} refused the question: {first}", fix)
    return check._replace(found=f"{name}: {check.found}")


async def _run(witness: Witness, trial: Trial) -> None:
    async with witness:
        say("asking; this takes up to four minutes, and Ctrl-C tidies up ...")
        await trial.run()


def _cost_of(config: O3ProConfig, *, is_emulator: bool) -> str:
    if is_emulator:
        return "this is the EMULATOR: nothing is paid, and whatever is found is the emulator's"
    usage = Usage(QUESTIONS * INPUT_TOKENS, QUESTIONS * MOST_TOKENS)
    cost = cost_of(usage, None, config.deployment, PRICES)
    money = "what a token of it costs is not known here" if cost is None else f"that is ${cost:.2f} by the list price"
    return (
        f"--live costs a little: it asks {config.deployment} up to {QUESTIONS} tiny questions, each answered in "
        f"{MOST_TOKENS:,} tokens at the very most ({money}), and usually in a small part of that"
    )


def _say_what_stays(witness: Witness) -> None:
    for response_id in witness.left:
        say(f"o3pro-bg: {response_id} could not be deleted, and may still run: the service forgets it after 30 days")
    if witness.unanswered:
        creates = f"{counted(witness.unanswered, 'create')} without an answer"
        say(f"o3pro-bg: {creates}: a response may have been made of which nobody knows the id")
