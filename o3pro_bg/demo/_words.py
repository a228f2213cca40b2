"""What the demo says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from o3pro_bg import Job

BEGINNING: Final = "This is the EMULATOR at {endpoint}: every answer below is made up, and nothing is paid.\n"
ANSWER: Final = "\nThe answer of job {job_id}, whose question the killed process had asked:\n  {answer}\n"
HEAD: Final = f"{'job':<8}  {'effort':<6}  {'status':<9}  {'seconds':>7}  {'tokens in':>9}  {'out':>6}  question"
REAL: Final = """\
With a real account, set

  export AZURE_OPENAI_ENDPOINT=https://<resource>.openai.azure.com
  export AZURE_OPENAI_API_KEY=<key>            # or leave it out and sign in with `az login`
  export AZURE_OPENAI_DEPLOYMENT=<deployment>  # the deployment's name, not the model's

and run

  o3pro-bg ask "Your question" --effort high

or

  from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig

  with BackgroundHandler(O3ProClient(O3ProConfig()), store="jobs.db") as handler:
      print(handler.submit("Your question", effort="high").result())
"""


class Timeline:
    """Says lines that begin with the seconds since it was made."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._begun = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say a line."""
        self._say(f"{time.monotonic() - self._begun:5.1f} s  {text}")


def line_of(job_id: str, effort: str, state: str, waiting: str = "") -> str:
    """Answer a line about a job."""
    why = " (429: waits as long as it was asked to)" if waiting == "rate_limit" else f" ({waiting})" if waiting else ""
    return f"{job_id[:8]}  {effort:<6}  {state}{why}"


def row_of(job: Job) -> str:
    """Answer the row of a job in the table."""
    tokens = (job.usage.input_tokens, job.usage.output_tokens) if job.usage else ("-", "-")
    return (
        f"{job.id[:8]}  {job.effort:<6}  {job.status():<9}  {job.elapsed_time:>7.1f}  "
        f"{tokens[0]:>9}  {tokens[1]:>6}  {job.question}"
    )


def counted(counts: dict[str, Any], jobs: int) -> str:
    """Answer what the emulator has counted."""
    refused = counts["creates"] - counts["accepted"]
    return (
        f"\nThe emulator counted {counts['creates']} creates ({counts['accepted']} accepted, {refused} answered 429), "
        f"{counts['looks']} looks, {counts['cancels']} cancel:\n"
        f"{counts['accepted']} paid requests for {jobs} jobs, {len(counts['duplicates'])} paid twice.\n"
    )
