"""
The demonstration behind `o3pro-bg demo`: the library against the emulator, in a few seconds, without an account.

Four jobs run at once. One is first refused with a 429 and waits as long as it is asked to, one is cancelled,
and the others finish; then the emulator's own count shows that nothing was sent twice.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig, Pace
from o3pro_bg.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from o3pro_bg import Job

# The question, its effort, and how the emulator shall treat it.
_QUESTIONS: Final = (
    ("Is 2^61 - 1 a prime number?", "low", "seconds=1.5"),
    ("Which sorting algorithm suits 10 records?", "medium", "seconds=3"),
    ("Prove that there are infinitely many primes.", "high", "seconds=4 fault=429 retry_after=1"),
    ("Write a novel.", "high", "seconds=60"),
)
_CANCELLED: Final = 3
_CANCEL_AFTER: Final = 2.5

_REAL: Final = """\
With a real account, set

  export AZURE_OPENAI_ENDPOINT=https://<resource>.openai.azure.com
  export AZURE_OPENAI_API_KEY=<key>            # or leave it out and sign in with `az login`
  export AZURE_OPENAI_DEPLOYMENT=<deployment>  # the deployment's name, not the model's

and run

  from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig

  with BackgroundHandler(O3ProClient(O3ProConfig())) as handler:
      started = handler.start_background_task("Your question", effort="high")
      result = handler.wait(started["job_id"]) if started["success"] else started
      print(result["response"] if result["success"] else result["error"])
"""


def run(say: Callable[[str], object] = print) -> int:
    """Run the demonstration, say what happens line by line, and answer the exit code: 0 where all went well."""
    with Emulator() as emulator:
        say(f"This is the EMULATOR at {emulator.endpoint}: every answer below is made up, and nothing is paid.\n")
        config = O3ProConfig(endpoint=emulator.endpoint, api_key=emulator.api_key, deployment="o3-pro", auth="key")
        pace = Pace(floor=0.25, ceiling=0.5)
        with BackgroundHandler(O3ProClient(config), pace=pace, language="en") as handler:
            begun = time.monotonic()
            jobs = [handler.submit(text, effort, metadata={"emulator": how}) for text, effort, how in _QUESTIONS]
            _follow(jobs, begun, say)
            say(f"\nThe answer of job {jobs[0].id[:8]}:\n  {jobs[0].result()}\n")
            _summarize(jobs, say)
            went_well = [job.status() for job in jobs] == ["completed", "completed", "completed", "cancelled"]
        counts = emulator.counters()
    say(
        f"\nThe emulator counted {counts['creates']} creates ({counts['accepted']} accepted, the others answered 429), "
        f"{counts['looks']} looks, {counts['cancels']} cancel, {len(counts['duplicates'])} paid twice.\n"
    )
    say(_REAL)
    return 0 if went_well and not counts["duplicates"] else 1


def _follow(jobs: list[Job], begun: float, say: Callable[[str], object]) -> None:
    """Say each change of a job, as a script would that asks for the statuses now and then."""
    said: dict[str, str] = {}
    while not all(job.done() for job in jobs):
        _say_changes(jobs, said, begun, say)
        if time.monotonic() - begun > _CANCEL_AFTER and not jobs[_CANCELLED].done():
            say(f"{time.monotonic() - begun:5.1f} s  {jobs[_CANCELLED].id[:8]}  cancelling ...")
            jobs[_CANCELLED].cancel()
        time.sleep(0.05)
    _say_changes(jobs, said, begun, say)


def _say_changes(jobs: list[Job], said: dict[str, str], begun: float, say: Callable[[str], object]) -> None:
    for job in jobs:
        state = job.status() + (" (429: waits as long as it was asked to)" if job.waiting == "rate_limit" else "")
        if said.get(job.id) != state:
            said[job.id] = state
            say(f"{time.monotonic() - begun:5.1f} s  {job.id[:8]}  {job.effort:<6}  {state}")


def _summarize(jobs: list[Job], say: Callable[[str], object]) -> None:
    say(f"{'job':<8}  {'effort':<6}  {'status':<9}  {'seconds':>7}  {'tokens in':>9}  {'out':>6}  question")
    for job in jobs:
        tokens = (job.usage.input_tokens, job.usage.output_tokens) if job.usage else ("-", "-")
        say(
            f"{job.id[:8]}  {job.effort:<6}  {job.status():<9}  {job.elapsed_time:>7.1f}  "
            f"{tokens[0]:>9}  {tokens[1]:>6}  {job.question}"
        )
