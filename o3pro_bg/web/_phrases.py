"""Everything that the page itself says, in English and in Japanese."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from o3pro_bg._sentences import Language

_PHRASES: Final = {
    # The frame.
    "title": ("Background jobs", "バックグラウンドジョブ"),
    "skip": ("Skip to the jobs", "ジョブ一覧へ移動"),
    "emulator": (
        "EMULATOR: no model is asked, every answer is made up, and nothing is paid.",
        "エミュレーター: モデルには問い合わせません。回答はすべて作り物で、料金はかかりません。",
    ),
    "emulator_name": ("Emulator", "エミュレーター"),
    "other_language": ("日本語", "English"),
    "new_job": ("New job", "新しいジョブ"),
    "lost": ("The server does not answer; trying again…", "サーバーが応答しません。再接続しています…"),
    # The form.
    "question": ("Question", "質問"),
    "effort": ("Effort", "推論の強さ"),
    "start": ("Start the job", "ジョブを開始"),
    "start_hint": ("It runs on when you leave this page.", "ページを閉じても実行は続きます。"),
    # The list.
    "jobs": ("Jobs", "ジョブ"),
    "caption": ("Jobs, the newest first", "ジョブ（新しい順）"),
    "filter": ("Filter the jobs", "ジョブを絞り込む"),
    "all": ("All statuses", "すべての状態"),
    "status": ("Status", "状態"),
    "search": ("Search questions or ids", "質問または ID を検索"),
    "find": ("Search", "検索"),
    "elapsed": ("Duration", "所要時間"),
    "started_at": ("Started", "開始日時"),
    "tokens": ("Tokens", "トークン"),
    "cost": ("Cost", "費用"),
    "job": ("Job", "ジョブ"),
    "none_yet": (
        "No jobs yet. Ask the first question above.",
        "まだジョブはありません。上のフォームから質問してください。",
    ),
    "none_found": ("No job matches.", "一致するジョブはありません。"),
    "count": ("{shown} of {total}", "{total} 件中 {shown} 件"),
    "more": ("Show more", "さらに表示"),
    "narrow": ("Search to find older ones.", "これより古いものは検索してください。"),
    "no_question": ("(no question kept)", "（質問は保存されていません）"),
    # A job.
    "back": ("All jobs", "一覧に戻る"),
    "answer": ("Answer", "回答"),
    "copy": ("Copy", "コピー"),
    "copied": ("Copied", "コピーしました"),
    "no_answer_yet": (
        "No answer yet. It appears here by itself, without a reload where scripts run.",
        "まだ回答はありません。スクリプトが有効なら、届くと自動で表示されます。",
    ),
    "cut_answer": ("Answer, as far as it came", "回答（途中まで）"),
    "error": ("Why there is no answer", "回答がない理由"),
    "waiting": ("Waits because", "待機の理由"),
    "next_look": ("Next look in", "次の確認まで"),
    "created": ("Started at", "開始日時"),
    "tokens_said": (
        "{input} in, {output} out ({reasoning} to reason, {cached} cached)",
        "入力 {input}、出力 {output}（推論 {reasoning}、キャッシュ {cached}）",
    ),
    "cost_estimate": ("Cost (an estimate, US dollars)", "費用（米ドル、推定）"),
    "about": ("about {money}", "約 {money}"),
    "response_id": ("Response id", "応答 ID"),
    "request_id": ("Request id", "要求 ID"),
    "cancelling": (
        "A cancel was asked for; the service has not confirmed it yet.",
        "キャンセルを要求しました。サービスの確認を待っています。",
    ),
    "cancel": ("Cancel…", "キャンセル…"),
    "cancel_sure": (
        "The service stops, and what it has done so far may be billed.",
        "サービスでの処理を止めます。ここまでの分は課金されることがあります。",
    ),
    "cancel_yes": ("Cancel this job", "このジョブをキャンセル"),
    "remove": ("Remove…", "削除…"),
    "remove_sure": ("The job and its answer are forgotten here.", "ジョブと回答の記録をここから消します。"),
    "remove_yes": ("Remove this job", "このジョブを削除"),
    "removed": ("The job was removed.", "ジョブを削除しました。"),
    "was_cancelled": ("The job was cancelled.", "ジョブをキャンセルしました。"),
    # The chart.
    "chart": ("The last {span}", "直近 {span}"),
    "chart_axes": ("When it was started, and how long it took", "横: 開始時刻、縦: 所要時間"),
    "median": ("median {time}", "中央値 {time}"),
    "longest": ("longest {time}", "最長 {time}"),
    "no_recent": ("No job was started in the last 24 hours.", "直近 24 時間に開始されたジョブはありません。"),
    "now": ("now", "現在"),
    "ago": ("{span} ago", "{span}前"),
    "minutes": ("{count} min", "{count} 分"),
    "hours": ("{count} h", "{count} 時間"),
    # The token.
    "login": ("Sign in", "サインイン"),
    "token": ("Token", "トークン"),
    "token_hint": (
        "This server asks for the token that it was started with.",
        "このサーバーの起動時に設定されたトークンを入力してください。",
    ),
    # Statuses.
    "status.started": ("Started", "開始"),
    "status.running": ("Running", "実行中"),
    "status.completed": ("Completed", "完了"),
    "status.failed": ("Failed", "失敗"),
    "status.cancelled": ("Cancelled", "キャンセル"),
    # Why a job makes no progress, by the word of `Job.waiting`.
    "waiting.rate_limit": (
        "the limits a minute hold it back: requests, tokens, or a 429",
        "1 分あたりの上限（リクエスト数、トークン数、429）により待っています",
    ),
    "waiting.connection": ("there is no connection; it is tried again", "接続できません。再試行します"),
    "waiting.denied": (
        "the service does not let us in: check the key, or `az login`; it is tried again",
        "サービスに拒否されました。キーまたは az login を確認してください。再試行します",
    ),
    "waiting.refused": (
        "the service says there is no such response; it is asked again",
        "サービスに応答が見つかりません。もう一度確認します",
    ),
    "waiting.concurrency": ("it is not its turn yet", "順番を待っています"),
    "waiting.store": ("its file cannot be written", "ファイルに書き込めません"),
    "waiting.uncertain": (
        "it may have been sent; another process may still tell",
        "送信済みかどうか不明です。別のプロセスからの報告を待っています",
    ),
    "waiting.endpoint": ("it belongs to another endpoint", "別のエンドポイントのジョブです"),
}


def _of(number: int) -> Mapping[str, str]:
    return {key: texts[number] for key, texts in _PHRASES.items()}


PHRASES: Final[Mapping[Language, Mapping[str, str]]] = {"en": _of(0), "ja": _of(1)}
