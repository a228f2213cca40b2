"""
Worlds in which everything goes wrong that may: how many were run, what went wrong in them, and what came of it.

    python benchmarks/seeds.py              # --seeds 100000 --first 0 --processes 2 --minutes 60 --store disk

Run it where the package's `tests` are: the worlds are those of `tests/simulation`. A seed that fails is printed with
the command that replays it. Then comes what befell the jobs by what became of them; a job counts once for each of its
faults. The last table is about single traps: what comes of a job for whoever uses the SDK as its page shows it, with
its two retries, and for us, in the same worlds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measures import head, row

from o3pro_bg import AsyncBackgroundHandler
from o3pro_bg._responses import JOB_TAG
from tests.simulation import simulate
from tests.simulation.faults import FAULTS, TRAITS
from tests.simulation.judge import Judge, tally
from tests.simulation.loop import SeededLoop
from tests.simulation.service import Service, SimulatedClient

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from tests.simulation.faults import Answer

CHUNK = 200
FAR = 20_000.0
COLUMNS = {
    "completed": ("completed",),
    "cancelled": ("cancelled",),
    "failed there": ("failed: server_error", "failed: incomplete_max_output_tokens"),
    "refused": (
        "failed: invalid_key",
        "failed: forbidden",
        "failed: redirected",
        "failed: resource_not_found",
        "failed: deployment_not_found",
        "failed: content_filter",
    ),
    "not reached": ("failed: unreachable", "failed: credential", "failed: client"),
    "uncertain": ("failed: submission_uncertain",),
    "lost there": ("failed: lost",),
    "deadline": ("failed: deadline",),
    "closed": ("failed: closed_unconfirmed", "left running"),
    "text not kept": ("failed: text_not_kept",),
    "removed": ("removed",),
}


class Part(NamedTuple):
    """What came of some seeds."""

    failures: list[str]
    counts: Counter[tuple[str, str]]
    jobs: int
    virtual_seconds: float
    events: int

    def plus(self, other: Part) -> Part:
        """Answer what came of both."""
        return Part(*(mine + its for mine, its in zip(self, other, strict=True)))


def run(first: int, count: int, store: str | None) -> Part:
    """Run some seeds, with jobs kept in this store, or where each seed says."""
    gc.freeze()  # what is loaded stays, and is not to be gone through with every collection
    failures, counts, jobs, virtual_seconds, events = [], Counter[tuple[str, str]](), 0, 0.0, 0
    for seed in range(first, first + count):
        report = simulate(seed, is_durable=store and store == "disk")
        failures += [str(report)] if report.failure else []
        counts.update(tally(report.verdicts))
        jobs += len(report.verdicts)
        virtual_seconds += report.virtual_seconds
        events += len(report.trace)
    return Part(failures, counts, jobs, virtual_seconds, events)


def run_all(first: int, count: int, processes: int, minutes: float, store: str | None) -> tuple[Part, int]:
    """Run so many seeds, or as many as there is time for; answer what came of them, and how many they were."""
    whole, done, end = Part([], Counter(), 0, 0.0, 0), 0, time.monotonic() + 60 * minutes
    firsts = range(first, first + count, CHUNK)
    counts = [min(CHUNK, first + count - number) for number in firsts]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for part, size in zip(pool.map(run, firsts, counts, [store] * len(counts)), counts, strict=True):
            done += size
            whole = whole.plus(part)
            for failure in part.failures:
                print(failure, flush=True)
            print(f"\r{done:,} seeds", end="", file=sys.stderr, flush=True)
            if time.monotonic() > end:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    return whole, done


def show_outcomes(counts: Counter[tuple[str, str]]) -> None:
    """Print what came of what."""
    odd = {outcome for _, outcome in counts} - {name for names in COLUMNS.values() for name in names}
    if odd:
        print("outcomes without a column:", *sorted(odd))
    head("what befell the job", *COLUMNS)
    met = {fault for fault, _ in counts}
    at_creates = [f"{name}, at the create" for name in FAULTS]
    others = sorted(met - {*at_creates, *FAULTS, *TRAITS, "nothing"})
    for fault in ("nothing", *at_creates, *FAULTS, *TRAITS, *others):
        if fault in met:
            cells = [sum(counts[fault, outcome] for outcome in names) for names in COLUMNS.values()]
            row(fault, *(f"{cell:,}" if cell else "" for cell in cells))


# --- traps --------------------------------------------------------------------------------------------------


async def naive(service: Service, job: str, *, cancels: bool) -> str:
    """Do as the SDK's page on background responses shows it, with the retries that the SDK does by itself."""

    async def request(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        for attempt in range(3):
            pause = 0.5 * 2**attempt
            try:
                answer: Answer = await service.exchange(method, path, 600.0, body)
            except Exception:
                if attempt == 2:
                    raise
            else:
                if answer.status_code < 300:
                    return json.loads(answer.content)
                if attempt == 2 or not (answer.status_code in (408, 409, 429) or answer.status_code >= 500):
                    raise RuntimeError(f"{answer.status_code}")
                pause = _pause_of(answer, pause)
            await asyncio.sleep(pause)
        raise AssertionError

    response = await request("POST", "responses", {"input": "question", "metadata": {JOB_TAG: job}})
    if cancels:
        await asyncio.sleep(3)
        await request("POST", f"responses/{response['id']}/cancel")
        return "cancelled"
    while response["status"] in ("queued", "in_progress"):
        await asyncio.sleep(2)
        response = await request("GET", f"responses/{response['id']}")
    has_text = bool(response["output"][1]["content"][0]["text"])
    return "completed" if has_text and response["status"] == "completed" else "failed"


def _pause_of(answer: Answer, usual: float) -> float:
    """Answer how long the SDK waits before it tries again; above two minutes it does not."""
    try:
        pause = float(answer.headers.get("retry-after", usual))
    except ValueError:
        return usual
    if pause > 120:
        raise RuntimeError("429")
    return max(pause, 0.5)


async def ours(service: Service, judge: Judge, *, cancels: bool) -> str:
    """Do the same with a handler."""
    async with AsyncBackgroundHandler(SimulatedClient(service, judge, 64), language="en") as handler:
        job_id = (await handler.start_background_task("question"))["job_id"]
        if cancels:
            await asyncio.sleep(3)
            reply: Any = await handler.cancel_job(job_id)
            if reply["success"]:
                return "cancelled"
        reply = await handler.wait(job_id)
        failure = handler._store.get(job_id).failure
        return f"told {failure.code.replace('_', ' ')}" if failure else reply["status"]


def trapped(trap: str, seed: int, live: Callable[[Service, Judge], Coroutine[Any, Any, str]]) -> str:
    """Answer what comes of one job in a world that has this one trap."""
    luck = random.Random(f"{trap} {seed}")
    random.seed(luck.random())
    loop = SeededLoop(luck)
    judge = Judge(loop.time, 30.0, opted_in=True, keeps_text=True, is_durable=False)
    service = Service(luck, judge)
    weather = service.weather
    weather.rates, weather.traits, weather._has_storms = ({trap: 0.25} if trap in FAULTS else {}), [], False
    weather.token_trouble = weather.connect_trouble = 0.0
    weather.some_traits = lambda: frozenset({trap} & {*TRAITS})  # type: ignore[method-assign]

    async def lived() -> str:
        try:
            async with asyncio.timeout(FAR):
                outcome = await live(service, judge)
        except TimeoutError:
            outcome = "waits for ever"
        except Exception:
            outcome = "raised, paid and lost" if service.responses else "raised"
        await asyncio.sleep(500)
        return outcome

    try:
        outcome = loop.run_until_complete(lived())
        words = [response.word(loop.time()) for response in service.responses.values()]
    finally:
        loop.close()
    if len(words) > 1:
        return f"{outcome}, paid {len(words)} times"
    return f"{outcome}, but it was not" if outcome == "cancelled" and words == ["completed"] else outcome


def show_traps(traps: Iterable[str], count: int) -> None:
    """Print what comes of jobs that meet a trap, the naive way and ours."""
    head("trap", "the SDK's way", "ours")
    for trap in traps:
        cells = []
        for way in ("naive", "ours"):
            outcomes: Counter[str] = Counter()
            for seed in range(count):
                cancels = "cancel" in trap

                def live(service: Service, judge: Judge, cancels: bool = cancels, way: str = way) -> Any:  # noqa: FBT001
                    is_ours = way == "ours"
                    return ours(service, judge, cancels=cancels) if is_ours else naive(service, "job", cancels=cancels)

                outcomes[trapped(trap, seed, live)] += 1
            cells.append("; ".join(f"{100 * n / count:.0f} % {outcome}" for outcome, n in outcomes.most_common()))
        row(trap, *cells)


def main() -> int:
    """Run all, and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=24 * 60, help="after which no more seeds are run")
    parser.add_argument("--store", choices=("memory", "disk"), help="where jobs are kept; else each seed says so")
    parser.add_argument("--traps", type=int, default=200, help="worlds for each trap")
    options = parser.parse_args()
    begun = time.perf_counter()
    whole, done = run_all(options.first, options.seeds, options.processes, options.minutes, options.store)
    seconds = time.perf_counter() - begun
    print(
        f"{done:,} seeds in {seconds:,.0f} s ({done / seconds:.0f} a second, "
        f"{options.processes} processes): {whole.jobs:,} jobs, {whole.events:,} events, "
        f"{whole.virtual_seconds / 86400:,.0f} days; {len(whole.failures)} seeds failed\n"
    )
    show_outcomes(whole.counts)
    if options.traps:
        print()
        show_traps([*FAULTS, *TRAITS], options.traps)
    return len(whole.failures) > 0


if __name__ == "__main__":
    sys.exit(main())
