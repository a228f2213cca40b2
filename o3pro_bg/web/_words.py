"""The sentences of the web parts, in Japanese and in English."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from o3pro_bg._sentences import Language

_SENTENCES: Final[dict[str, dict[Language, str]]] = {
    "no_lifespan": {
        "ja": "このアプリケーションでは o3pro_bg が動いていません。"
        "アプリケーションに lifespan=o3pro_bg.web.lifespan(client, ...) を渡してください（名前: {name}）",
        "en": "o3pro_bg does not run in this application: give it lifespan=o3pro_bg.web.lifespan(client, ...) "
        "(its name here: {name})",
    },
    "no_auth": {
        "ja": "認証なしではこのコンピューターからの直接の要求だけに応答します。"
        "app(auth=...) にトークンを渡してください",
        "en": "without a token only direct requests from this machine are answered: give app(auth=...) one",
    },
    "wrong_host": {
        "ja": "この名前では応答しません。app(allowed_hosts=[...]) に加えてください",
        "en": "this name is not answered to: add it to app(allowed_hosts=[...])",
    },
    "wrong_origin": {
        "ja": "他のサイトからの変更は受け付けません",
        "en": "changes are not taken from other sites",
    },
    "no_token": {
        "ja": "トークンが必要です。Authorization: Bearer ヘッダーで送るか、ページで入力してください",
        "en": "a token is needed: send it as Authorization: Bearer, or enter it on the page",
    },
    "wrong_token": {"ja": "トークンが違います", "en": "this is not the token"},
    "not_here": {"ja": "このアドレスには何もありません", "en": "there is nothing at this address"},
    "wrong_method": {"ja": "このアドレスではこのメソッドを使えません", "en": "this address does not take this method"},
    "too_large": {
        "ja": "本文が大きすぎます（最大 {most} バイト）",
        "en": "the body is too large: {most} bytes at the most",
    },
    "not_json": {
        "ja": "本文は Content-Type: application/json の JSON でなければなりません",
        "en": "the body has to be JSON, sent as Content-Type: application/json",
    },
    "no_object": {"ja": "本文は JSON オブジェクトでなければなりません", "en": "the body has to be a JSON object"},
    "unknown_field": {"ja": "未知の項目です: {name}", "en": "there is no such field: {name}"},
    "wrong_field": {"ja": "{name} は {kind} でなければなりません", "en": "{name} has to be {kind}"},
    "question_long": {
        "ja": "質問が長すぎます（最大 {most} 文字）",
        "en": "the question is too long: {most} characters at the most",
    },
    "too_many_jobs": {
        "ja": "実行中のジョブが多すぎます（最大 {most} 件）。終わるのを待つか、キャンセルしてください",
        "en": "too many jobs are under way, {most} at the most: wait for one to end, or cancel one",
    },
    "too_many_streams": {
        "ja": "開いているイベントストリームが多すぎます（最大 {most} 件）",
        "en": "too many event streams are open, {most} at the most",
    },
    "ending": {
        "ja": "サーバーは終了中です。少し待ってもう一度要求してください",
        "en": "the server is about to end: ask again in a moment",
    },
    "broken": {
        "ja": "o3pro_bg の不具合です: {kind}",
        "en": "this is a bug of o3pro_bg: {kind}",
    },
    "no_metrics": {
        "ja": "/metrics には prometheus-client が必要です: pip install prometheus-client",
        "en": "/metrics needs prometheus-client: pip install prometheus-client",
    },
}


def say(language: Language, key: str, **values: object) -> str:
    """Answer the sentence of this key in this language, its blanks filled."""
    return _SENTENCES[key][language].format(**values)


def language_of(headers: Headers, otherwise: Language = "en") -> Language:
    """Answer the language that whoever asks would rather read, of the two that there are."""
    best, chosen = 0.0, otherwise
    for part in headers.get("accept-language", "")[:500].split(","):
        tag, _, quality = part.strip().lower().partition(";q=")
        weight = _weight(quality)
        if weight > best and tag[:2] in ("ja", "en"):
            best, chosen = weight, "ja" if tag.startswith("ja") else "en"
    return chosen


def _weight(quality: str) -> float:
    try:
        return float(quality) if quality else 1.0
    except ValueError:
        return 0.0
