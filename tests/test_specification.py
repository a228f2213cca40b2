"""The examples of the user's specification, with only their import lines changed, over real HTTP."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest

from .faces import QUICK

if TYPE_CHECKING:
    from o3pro_bg import BackgroundHandler
    from o3pro_bg.emulator import Emulator

SPECIFIED_IMPORTS = """\
from core.azure_auth import O3ProConfig, O3ProClient
from handlers import BackgroundHandler
"""
OUR_IMPORTS = """\
from o3pro_bg import O3ProConfig, O3ProClient
from o3pro_bg import BackgroundHandler
"""

BASIC = (
    SPECIFIED_IMPORTS
    + """\
import time

# クライアント初期化
config = O3ProConfig()
client = O3ProClient(config)

# ハンドラー作成
handler = BackgroundHandler(client)

# バックグラウンドタスク開始
result = handler.start_background_task(
    "複雑なアルゴリズムの実装方法を詳しく説明してください",
    effort="high"
)

if result["success"]:
    job_id = result["job_id"]
    print(f"ジョブ開始: {job_id}")
    
    # ステータス確認ループ
    while True:
        status = handler.check_status(job_id)
        print(f"ステータス: {status['status']} ({status['elapsed_time']:.1f}秒)")
        
        if status["status"] in ["completed", "failed"]:
            break
        
        time.sleep(5)  # 5秒待機
    
    # 結果取得
    result = handler.get_result(job_id)
    if result["success"]:
        print(f"結果: {result['response']}")
"""  # noqa: W293 - verbatim
)

PARALLEL = """\
# 複数の質問を並列処理
questions = [
    ("質問1", "low"),
    ("質問2", "medium"),
    ("質問3", "high")
]

job_ids = []

# すべてのジョブを開始
for question, effort in questions:
    result = handler.start_background_task(question, effort)
    if result["success"]:
        job_ids.append(result["job_id"])
        print(f"ジョブ {result['job_id']} 開始")

# すべてのジョブの完了を待機
completed = set()
while len(completed) < len(job_ids):
    for job_id in job_ids:
        if job_id in completed:
            continue
        
        status = handler.check_status(job_id)
        if status["status"] == "completed":
            result = handler.get_result(job_id)
            print(f"ジョブ {job_id} 完了: {result['response'][:50]}...")
            completed.add(job_id)
    
    time.sleep(2)
"""  # noqa: W293 - verbatim

MANAGER = """\
class JobManager:
    def __init__(self, handler):
        self.handler = handler
    
    def submit_job(self, question, effort="low"):
        result = self.handler.start_background_task(question, effort)
        if result["success"]:
            return result["job_id"]
        return None
    
    def show_active_jobs(self):
        jobs = self.handler.list_active_jobs()
        print(f"\\nアクティブジョブ: {len(jobs)}件")
        for job in jobs:
            print(f"- {job['job_id'][:8]}... | {job['status']} | {job['elapsed_time']:.1f}秒")
    
    def get_completed_jobs(self):
        jobs = self.handler.list_active_jobs()
        completed = []
        for job in jobs:
            if job["status"] == "completed":
                result = self.handler.get_result(job["job_id"])
                completed.append(result)
        return completed
"""  # noqa: W293 - verbatim

VERBS = ("start_background_task", "check_status", "get_result", "list_active_jobs")


@pytest.fixture(autouse=True)
def _account(o3pro_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user, whose account is the emulator; sleeps of the examples take a hundredth."""
    o3pro_emulator.set_knobs("seconds=0.2")
    monkeypatch.setattr("o3pro_bg._shared.Pace", lambda: QUICK)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", o3pro_emulator.endpoint)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", o3pro_emulator.api_key)
    sleep, asleep = time.sleep, asyncio.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 100))
    monkeypatch.setattr(asyncio, "nap", lambda seconds: asleep(seconds / 100), raising=False)


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run an example as a script of its own, and answer its names."""
    exec(compile(code.replace(SPECIFIED_IMPORTS, OUR_IMPORTS), "<example>", "exec"), names)
    return names


def awaited(code: str) -> str:
    """Answer the example as an asynchronous application would write it: verbs awaited, sleeps the loop's."""
    for verb in VERBS:
        code = code.replace(f"self.handler.{verb}(", f"await self.handler.{verb}(")
        code = code.replace(f"= handler.{verb}(", f"= await handler.{verb}(")
    return (
        code.replace("BackgroundHandler", "AsyncBackgroundHandler")
        .replace("time.sleep(", "await asyncio.nap(")
        .replace("    def submit", "    async def submit")
        .replace("    def show", "    async def show")
        .replace("    def get", "    async def get")
    )


async def arun(code: str, **names: Any) -> dict[str, Any]:
    """Run an awaited example, and answer its names."""
    code = awaited(code.replace(SPECIFIED_IMPORTS, OUR_IMPORTS))
    body = textwrap.indent(code + "\nreturn dict(locals())\n", "    ")
    given = ", ".join(names)
    exec(compile(f"import asyncio\nasync def main({given}):\n{body}", "<example>", "exec"), scope := dict(names))
    answer = scope["main"](**names)
    assert inspect.iscoroutine(answer)
    return dict(await answer)


def test_basic_use(capsys: pytest.CaptureFixture[str], o3pro_emulator: Emulator) -> None:
    """The first example starts a job, follows it and prints the answer."""
    names = run(BASIC)
    names["handler"].close()
    printed = capsys.readouterr().out
    assert f"ジョブ開始: {names['job_id']}" in printed
    assert "ステータス: completed" in printed
    assert "結果: [emulator]" in printed
    assert o3pro_emulator.counters()["creates"] == 1


def test_parallel_jobs(capsys: pytest.CaptureFixture[str], o3pro_emulator: Emulator) -> None:
    """The second example runs three jobs at once and prints each answer."""
    names = run(BASIC)
    run(PARALLEL, handler=names["handler"], time=time)
    names["handler"].close()
    assert capsys.readouterr().out.count("完了: [emulator]") == 3
    assert o3pro_emulator.counters()["accepted"] == 4


def test_job_manager(capsys: pytest.CaptureFixture[str]) -> None:
    """The third example's manager submits, shows active jobs, and collects the completed ones."""
    handler: BackgroundHandler = run(BASIC)["handler"]
    manager = run(MANAGER)["JobManager"](handler)
    job_id = manager.submit_job("質問", effort="medium")
    manager.show_active_jobs()
    handler.wait(job_id)
    results = manager.get_completed_jobs()
    handler.close()
    assert "アクティブジョブ: 2件" in capsys.readouterr().out
    assert [result["success"] for result in results] == [True, True]
    assert manager.submit_job("") is None


async def test_basic_use_awaited(capsys: pytest.CaptureFixture[str]) -> None:
    """The first example, awaited, does the same on the asynchronous face."""
    names = await arun(BASIC)
    await names["handler"].aclose()
    assert "結果: [emulator]" in capsys.readouterr().out


async def test_parallel_jobs_awaited(capsys: pytest.CaptureFixture[str]) -> None:
    """The second example, awaited, does the same on the asynchronous face."""
    names = await arun(BASIC)
    await arun(PARALLEL, handler=names["handler"])
    await names["handler"].aclose()
    assert capsys.readouterr().out.count("完了: [emulator]") == 3


async def test_job_manager_awaited(capsys: pytest.CaptureFixture[str]) -> None:
    """The third example, awaited, does the same on the asynchronous face."""
    handler = (await arun(BASIC))["handler"]
    manager = (await arun(MANAGER))["JobManager"](handler)
    job_id = await manager.submit_job("質問")
    await manager.show_active_jobs()
    await handler.wait(job_id)
    results = await manager.get_completed_jobs()
    await handler.aclose()
    assert "アクティブジョブ: 2件" in capsys.readouterr().out
    assert [result["success"] for result in results] == [True, True]
