"""Every sentence a user may read in a reply, in the specification's Japanese and in English."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Language = Literal["ja", "en"]

JA: Final[Mapping[str, str]] = MappingProxyType({
    # The specification's own: byte for byte.
    "not_found": "ジョブが見つかりません: {job_id}",
    "not_finished": "ジョブはまだ完了していません",
    "api_error": "API Error: {detail}",
    "cancelled": "ジョブはキャンセルされました",
    "already_finished": "ジョブは既に終了しています",
    # What the verbs answer beside them.
    "cancel_unconfirmed": "キャンセルはまだサービスに確認されていません。ジョブは実行中の可能性があります。後で check_status を確認するか、もう一度 cancel_job を呼んでください",
    "cancel_refused": "サービスがキャンセルを拒否しました。ジョブは実行を続けています",
    "closed": "ハンドラーは閉じられています。新しいハンドラーを作成してください",
    "store": "ジョブの保存先を使えません: {detail}",
    "delete_failed": "サービスの応答を削除できなかったため、ジョブを残しました: {detail}",
    "answer_not_here": "回答はこのファイルに保存されておらず、サービスからも取得できませんでした。接続を確認してもう一度呼んでください（サービスは応答を 30 日間保持します）",
    "not_ready": "クライアントの準備ができていません: {problems}",
    "question_empty": "質問が空です。質問の文章を渡してください",
    "question_unencodable": "質問に UTF-8 で送信できない文字（単独サロゲート）が含まれています。取り除いてください",
    "effort_unknown": "effort {effort} は使えません。使える値: {efforts}（O3ProConfig(efforts=...) で設定できます）",
    "option_refused": "オプション {name} は渡せません。{name} はライブラリが設定します（質問は question、モデルは O3ProConfig(deployment=...)、effort は effort で指定してください）",
    "option_unencodable": "オプションは JSON にできる値でなければなりません",
    "reasoning_invalid": "reasoning は effort を含まない辞書にしてください（effort は effort で指定します）",
    "metadata_invalid": "metadata は文字列の組を最大 {most} 個まで（キー 64 文字、値 512 文字以内）にしてください",
    "timeout_invalid": "timeout は 0 より大きい有限の秒数、または None にしてください",
    "priority_invalid": "priority は -{highest} から {highest} までの整数にしてください",
    "dedupe_key_invalid": "dedupe_key は空でない 512 文字以内の表示可能な文字列、または None にしてください",
    # Why a job failed.
    "failure.invalid_key": "キーまたはエンドポイントが違います。AZURE_OPENAI_API_KEY と AZURE_OPENAI_ENDPOINT が同じリソースのものか確認してください",
    "failure.wrong_audience": "トークンの対象 (audience) が違います。O3ProConfig(scope=...) にもう一方のスコープ https://ai.azure.com/.default または https://cognitiveservices.azure.com/.default を指定してください",
    "failure.credential": "Entra ID のトークンを取得できません。az login やマネージド ID の設定を確認してください",
    "failure.forbidden": "リソースへのアクセスが拒否されました。リソースのネットワーク規則とロールの割り当てを確認してください",
    "failure.deployment_not_found": "デプロイメントが見つかりません。モデル名ではなくデプロイメント名を指定してください（新規作成後は最大 5 分かかります）",
    "failure.resource_not_found": "リソースが見つかりません。エンドポイント、リージョン、api-version を確認してください",
    "failure.content_filter": "コンテンツフィルターが質問または回答を止めました",
    "failure.insufficient_quota": "利用枠を使い切っています。契約と請求の設定を確認してください",
    "failure.redirected": "エンドポイントが別の場所へ転送しようとしました。質問とキーを守るため転送には従いません。正しいエンドポイントを設定してください",
    "failure.unreachable": "サービスに接続できませんでした。質問は送信されていません。エンドポイント、ネットワーク、プロキシを確認してください",
    "failure.submission_uncertain": "送信結果が不明です。サービスが受け付けた可能性があるため、二重課金を避けて再送しませんでした。必要ならもう一度開始してください",
    "failure.other_endpoint": "このジョブは別のエンドポイントのものです",
    "failure.larger_than_quota": "max_output_tokens がこのデプロイの 1 分あたりの割り当てを超えているため、受け付けられません。max_output_tokens を小さくするか、割り当てを増やしてください",
    "failure.text_not_kept": "質問は保存されておらず (store_text=False)、まだ送信されていませんでした。もう一度開始してください",
    "failure.store_damaged": "ファイル内のこのジョブの記録が壊れています。response_id がわかれば attach で取り戻せます",
    "failure.lost": "サービスに応答が見つかりません。期限切れ、削除、またはサービス側の消失です",
    "failure.deadline": "制限時間 (timeout) を過ぎました。サービスで実行中の処理はキャンセルされます",
    "failure.closed_unconfirmed": "ハンドラーを閉じる間にキャンセルを確認できませんでした。サービスでは実行中の可能性があります",
    "failure.client": "クライアントを作成できませんでした。O3ProClient に渡した設定と http_client を確認してください",
    "failure.incomplete": "回答が途中で終わりました",
    "failure.incomplete_max_output_tokens": "max_output_tokens に達したため、回答が途中で終わりました",
    "failure.incomplete_content_filter": "コンテンツフィルターにより、回答が途中で終わりました",
    "failure.internal": "ライブラリの内部エラーです。この文とともに報告してください",
    "known_after_all": "。ただし後で応答の ID が判明しました: attach({response_id!r}) で引き継げます",
    # Why a client is not ready.
    "config.endpoint_missing": "エンドポイントがありません。AZURE_OPENAI_ENDPOINT または O3ProConfig(endpoint=...) を設定してください",
    "config.endpoint_invalid": "エンドポイントは https://<リソース名>.openai.azure.com のような URL にしてください（http はこのマシン自身だけ）",
    "config.key_missing": "API キーがありません。AZURE_OPENAI_API_KEY または O3ProConfig(api_key=...) を設定してください",
    "config.key_invalid": "API キーに空白、制御文字、または ASCII 以外の文字が含まれています。コピーし直してください",
    "config.auth_unknown": "auth は {choices} のいずれかにしてください",
    "config.credential_async": "credential には azure.identity の同期版（azure.identity.aio ではなく）のオブジェクトを渡してください",
    "config.efforts_empty": "efforts には 1 つ以上の effort を文字列で指定してください",
    "config.reasoning_invalid": "reasoning は effort を含まない辞書にしてください",
    "config.timeout_invalid": "create_timeout と look_timeout は 0 より大きい有限の秒数にしてください",
    "config.text_invalid": "deployment、api_version、scope は表示可能な文字列にしてください",
    "config.switch_invalid": "background と tag_jobs は True または False にしてください",
})  # fmt: skip

EN: Final[Mapping[str, str]] = MappingProxyType({
    "not_found": "No such job: {job_id}",
    "not_finished": "The job has not finished yet",
    "api_error": "API Error: {detail}",
    "cancelled": "The job was cancelled",
    "already_finished": "The job has already ended",
    "cancel_unconfirmed": "The service has not confirmed the cancel yet and the job may still run; see check_status later, or call cancel_job again",
    "cancel_refused": "The service refused the cancel; the job runs on",
    "closed": "The handler is closed; make a new one",
    "store": "The store of the jobs cannot be used: {detail}",
    "delete_failed": "The response could not be deleted at the service, so the job was kept: {detail}",
    "answer_not_here": "The answer is not kept in this file, and could not be had from the service; check the connection and ask again (the service keeps a response for 30 days)",
    "not_ready": "The client is not ready: {problems}",
    "question_empty": "The question is empty; pass the text of a question",
    "question_unencodable": "The question holds characters that UTF-8 cannot carry (lone surrogates); remove them",
    "effort_unknown": "effort {effort} is not one of: {efforts} (O3ProConfig(efforts=...) says which there are)",
    "option_refused": "Option {name} cannot be passed: the library sets {name} itself (the question is `question`, the model is O3ProConfig(deployment=...), the effort is `effort`)",
    "option_unencodable": "Options have to be values that JSON can carry",
    "reasoning_invalid": "reasoning takes a dictionary without effort (the effort is `effort`)",
    "metadata_invalid": "metadata takes at most {most} pairs of strings (keys up to 64 characters, values up to 512)",
    "timeout_invalid": "timeout takes a finite number of seconds above 0, or None",
    "priority_invalid": "priority takes a whole number from -{highest} to {highest}",
    "dedupe_key_invalid": "dedupe_key takes a printable text of 1 to 512 characters, or None",
    "failure.invalid_key": "The key or the endpoint is wrong; check that AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT belong to the same resource",
    "failure.wrong_audience": "The token was made for another audience; set O3ProConfig(scope=...) to the other scope, https://ai.azure.com/.default or https://cognitiveservices.azure.com/.default",
    "failure.credential": "Entra ID gave no token; check `az login`, or the managed identity's settings",
    "failure.forbidden": "The resource refused access; check its network rules and your role assignment",
    "failure.deployment_not_found": "No such deployment: give the deployment's name, not the model's (a new one takes up to 5 minutes)",
    "failure.resource_not_found": "No such resource; check the endpoint, the region and the api-version",
    "failure.content_filter": "The content filter stopped the question or the answer",
    "failure.insufficient_quota": "The account's quota is used up; check its plan and billing",
    "failure.redirected": "The endpoint redirects elsewhere; redirects are not followed, to protect the question and the key; set the right endpoint",
    "failure.unreachable": "The service could not be reached and the question was not sent; check the endpoint, the network and the proxy",
    "failure.submission_uncertain": "It is not known whether the service accepted the request; it was not sent again, so that nothing is paid twice; start it again if you need it",
    "failure.other_endpoint": "The job belongs to another endpoint",
    "failure.larger_than_quota": "max_output_tokens is more than this deployment's quota for a minute, so the service can never accept the question; ask for fewer, or raise the quota",
    "failure.text_not_kept": "The question was not kept (store_text=False) and had not been sent; start it again",
    "failure.store_damaged": "The record of this job in the file is damaged; if you know its response id, `attach` takes it up again",
    "failure.lost": "The service has no such response: it expired, was deleted, or was lost there",
    "failure.deadline": "The job's timeout passed; what was under way at the service is cancelled",
    "failure.closed_unconfirmed": "The handler closed before the service confirmed the cancel; the response may still run there",
    "failure.client": "The client could not be made; check the configuration and the http_client given to O3ProClient",
    "failure.incomplete": "The answer was cut off",
    "failure.incomplete_max_output_tokens": "The answer was cut off at max_output_tokens",
    "failure.incomplete_content_filter": "The content filter cut the answer off",
    "failure.internal": "An internal error of this library; please report it with this sentence",
    "known_after_all": "; its response id came to be known later: take it up with attach({response_id!r})",
    "config.endpoint_missing": "no endpoint: set AZURE_OPENAI_ENDPOINT or O3ProConfig(endpoint=...)",
    "config.endpoint_invalid": "the endpoint has to be a URL such as https://<resource>.openai.azure.com (http only to this machine itself)",
    "config.key_missing": "no API key: set AZURE_OPENAI_API_KEY or O3ProConfig(api_key=...)",
    "config.key_invalid": "the API key holds white space, control characters or non-ASCII characters: copy it again",
    "config.auth_unknown": "auth has to be one of {choices}",
    "config.credential_async": "credential has to be a synchronous one of azure.identity (not of azure.identity.aio)",
    "config.efforts_empty": "efforts has to name at least one effort, each by a text",
    "config.reasoning_invalid": "reasoning has to be a dictionary without effort",
    "config.timeout_invalid": "create_timeout and look_timeout have to be finite numbers of seconds above 0",
    "config.text_invalid": "deployment, api_version and scope have to be printable texts",
    "config.switch_invalid": "background and tag_jobs have to be True or False",
})  # fmt: skip

_LONGEST: Final = 200  # characters of what a sentence repeats
_BY_LANGUAGE: Final[Mapping[Language, Mapping[str, str]]] = MappingProxyType({"ja": JA, "en": EN})


def shown(thing: object) -> str:
    """Answer what somebody gave as an id, as one line of moderate length: what is printable and short as it is."""
    text = thing if isinstance(thing, str) else repr(thing)
    return text if len(text) <= _LONGEST and text.isprintable() else f"{text[:_LONGEST]!a} ..."


def say(language: Language, key: str, /, **values: object) -> str:
    """Answer the sentence of this key in this language, its blanks filled."""
    return _BY_LANGUAGE[language][key].format(**values)


def explain(language: Language, code: str, detail: str) -> str:
    """Answer why a job failed: our sentence for this code where there is one, and what the service said."""
    sentence = _BY_LANGUAGE[language].get(f"failure.{code}")
    if sentence is None:
        return f"{code}: {detail}" if detail else code
    return f"{sentence} ({detail})" if detail else sentence
