from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted import completion

from batchrun.endpoint.answers import kept_headers, understand
from batchrun.endpoint.dialect_files import unknown
from batchrun.records import EndpointError, Provider, Response

DIALECT = unknown()


def refused(status: int, body: Any, **headers: str) -> EndpointError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(EndpointError) as caught:
        understand(status, headers, data, DIALECT)
    return caught.value


def understood(body: Any, status: int = 200) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return understand(status, {}, data, DIALECT)


def error(message: str = "", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def with_message(finish: Any = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish}]}


# --- errors -----------------------------------------------------------------------------------------------------

#: (status, body, kind): error bodies as providers send them.
ERRORS: list[tuple[int, Any, str]] = [
    # moderation
    (400, error("Content Exists Risk", type="invalid_request_error", code="invalid_request_error"), "content_filter"),
    (400, error("Input data may contain inappropriate content.", code="data_inspection_failed"), "content_filter"),
    (400, {"code": "DataInspectionFailed", "message": "Input data may contain…"}, "content_filter"),
    (400, error("The request was rejected because it was considered high risk", type="x"), "content_filter"),
    (400, error("no", code="content_policy_violation"), "content_filter"),
    (400, error("no", code="InputTextRiskDetection"), "content_filter"),
    (400, error("no", code="OutputTextSensitiveContentDetected"), "content_filter"),
    (400, error("no", code="InputTextSensitiveContentDetected.SevereViolation"), "content_filter"),
    (400, error("no", type="unsafe_request"), "content_filter"),
    (403, error("no", code="content_unsafe"), "content_filter"),
    (400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}, "content_filter"),
    (400, {"error": {"code": 1301, "message": "…"}}, "content_filter"),
    (451, error("no"), "content_filter"),
    (500, error("<400> InternalError.Algo.DataInspectionFailed: Output data may…"), "content_filter"),
    # money
    (402, error("Insufficient Balance", code="invalid_request_error"), "quota"),
    (402, b"", "quota"),
    (429, error("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota"), "quota"),
    (429, error("suspended", type="exceeded_current_quota_error"), "quota"),
    (403, error("用户额度不足", code="insufficient_user_quota"), "quota"),
    (403, error("预扣费额度失败", code="pre_consume_token_quota_failed"), "quota"),
    (400, error("Access denied, please make sure your account is in good standing.", code="Arrearage"), "quota"),
    (403, error("overdue", code="AccountOverdueError"), "quota"),
    (401, error("该令牌额度已用尽", type="one_api_error"), "quota"),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}, "quota"),
    # model
    (400, error("Model Not Exist"), "model_not_found"),
    (400, error("The supported API model names are a or b, but you passed c."), "model_not_found"),
    (404, error("The model `x` does not exist or you lack access.", code="model_not_found"), "model_not_found"),
    (404, error("model 'x' not found, try pulling it first"), "model_not_found"),
    (404, error("Not found the model x or Permission denied", type="resource_not_found_error"), "model_not_found"),
    (403, error("该令牌无权使用模型：x"), "model_not_found"),
    (404, error("The model is not open", code="ModelNotOpen"), "model_not_found"),
    (404, error("no", code="InvalidEndpointOrModel.NotFound"), "model_not_found"),
    (400, {"error": {"code": "1211", "message": "模型不存在，请检查模型代码。"}}, "model_not_found"),
    (400, {"code": 20012, "message": "Model does not exist.", "data": None}, "model_not_found"),
    # length
    (400, error("This model's maximum context length is 131072 tokens.", code="x"), "context_length"),
    (400, error("no", code="context_length_exceeded"), "context_length"),
    (400, error("the request exceeds the available context size", type="exceed_context_size_error"), "context_length"),
    (400, error("Range of input length should be [1, 98304]"), "context_length"),
    (400, error("Invalid request: Your request exceeded model token limit: 8192"), "context_length"),
    (400, {"error": {"code": "1261", "message": "Prompt 超长"}}, "context_length"),
    (500, error("no", code="OutofContextError"), "context_length"),
    (413, b"<html><title>413 Request Entity Too Large</title></html>", "context_length"),
    # key, permission, address
    (401, error("Authentication Fails, Your api key is invalid", type="authentication_error"), "auth"),
    (401, error("无效的令牌", type="one_api_error"), "auth"),
    (401, b"", "auth"),
    (403, error("no", code="AccessDenied"), "permission"),
    (404, error("Invalid URL (POST /chat/completions)"), "not_an_api"),
    (404, {"detail": "Not Found"}, "not_an_api"),
    (404, b"404 page not found", "not_an_api"),
    (405, {"detail": "Method Not Allowed"}, "not_an_api"),
    (301, b"", "not_an_api"),
    (307, b"<a href=x>moved</a>", "not_an_api"),
    # words of the item's own, or of passing trouble, that sound like the account's
    (400, error("Invalid input: 'my invoice is overdue'"), "bad_request"),
    (500, error("task overdue: worker did not answer in time"), "server_error"),
    (400, error("image_url: the model could not fetch it: 404 not found"), "bad_request"),
    (429, error("Slow down. Limits of your plan: 60 RPM, 5000 RPD, please try again in 1s"), "rate_limited"),
    (200, error("queue overdue, retry"), "server_error"),
    (200, error("model output invalid: tool 'x' not found"), "server_error"),
    (502, error("upstream sent inappropriate content-type"), "server_error"),
    (400, error("upstream: n is not supported"), "bad_request"),
    # passing trouble
    (429, error("Rate limit reached for requests", type="requests", code="rate_limit_exceeded"), "rate_limited"),
    (429, b"", "rate_limited"),
    (429, error("insufficient balance of concurrency; concurrency limit of 3"), "rate_limited"),
    (429, error("当前分组上游负载已饱和，请稍后再试"), "rate_limited"),
    (429, error("Requests rate limit exceeded", type="limit_requests", code="limit_requests"), "rate_limited"),
    (408, b"", "timeout"),
    (504, b"<html><head><title>504 Gateway Time-out</title></head></html>", "timeout"),
    (409, error("conflict"), "server_error"),
    (425, b"", "server_error"),
    (500, error("Internal server error", type="internal_server_error"), "server_error"),
    (500, {"error": {"message": "boom", "code": None}}, "server_error"),
    (502, b"Bad Gateway", "server_error"),
    (502, b"<html>\r\n<head><title>502 Bad Gateway</title></head></html>", "server_error"),
    (503, error("The engine is currently overloaded", type="engine_overloaded_error"), "server_error"),
    (503, b"", "server_error"),
    (520, b"error code: 520", "server_error"),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "server_error"),
    # the request's fault
    (400, error("Invalid value for temperature", param="temperature"), "bad_request"),
    (400, b"", "bad_request"),
    (400, b"nonsense", "bad_request"),
    (400, b"null", "bad_request"),
    (400, b"[1]", "bad_request"),
    (400, {"error": "text alone"}, "bad_request"),
    (422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, "bad_request"),
    (418, b"", "bad_request"),
    # an error with HTTP 200
    (200, error("Provider returned error", code=429), "rate_limited"),
    (200, error("Provider returned error", code="502"), "server_error"),
    (200, error("Insufficient credits", code=402), "quota"),
    (200, error("no credentials", code=401), "auth"),
    (200, error("something"), "server_error"),
    (200, error("no", code="invalid_api_key"), "auth"),
    (200, error("Insufficient Balance", code="invalid_request_error"), "quota"),
    (200, error("This model's maximum context length is 8 tokens"), "context_length"),
    (200, {"error": "text"}, "server_error"),
    (200, {"message": "text", "code": 1}, "server_error"),
    (200, {"message": "text"}, "invalid_response"),
    (400, error("…triggering Azure OpenAI's content management policy"), "content_filter"),
    (200, {**completion(), "error": {"message": "cut", "code": 502}}, "server_error"),
    (200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": None}, "rate_limited"),
    (200, {**completion(), "base_resp": {"status_code": 1013, "status_msg": "internal"}}, "server_error"),
    # no chat completion at all
    (200, b"", "invalid_response"),
    (200, b"\n\n  \r\n\n", "invalid_response"),
    (204, b"", "invalid_response"),
    (200, b"null", "invalid_response"),
    (200, b"[]", "invalid_response"),
    (200, b"[{}]", "invalid_response"),
    (200, b"3", "invalid_response"),
    (200, b'"rate limit"', "invalid_response"),
    (200, b"upstream error", "invalid_response"),
    (200, b"{}", "invalid_response"),
    (200, b'{"choices": [{"message": {"content": "cut o', "invalid_response"),
    (200, b'data: {"id":"1","choices":[{"delta":{}}]}\n\ndata: [DONE]\n\n', "invalid_response"),
    (200, b"<!doctype html>\n<title>One API</title>", "not_an_api"),
    (200, b"\xef\xbb\xbf\r\n <html><body>hi</body></html>", "not_an_api"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind"), ERRORS)
def test_an_error_body_has_its_kind(status: int, body: Any, kind: str) -> None:
    found = refused(status, body)
    assert found.kind == kind
    assert found.message.startswith("HTTP ")
    assert found.provider is not None
    assert found.provider.status == status
    json.loads(found.provider.body)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (error("one", code="c", type="t"), "one", "c"),
        (error("one", type="t"), "one", "t"),
        (error("one", code=1301), "one", "1301"),
        ({"error": "one"}, "one", None),
        ({"message": "one", "code": "c", "request_id": "r"}, "one", "c"),
        ({"msg": "one", "code": 5}, "one", "5"),
        ({"detail": "one"}, "one", None),
        ({"error_msg": "one", "error_code": 17}, "one", "17"),
        ({"base_resp": {"status_msg": "one", "status_code": 1004}}, "one", "1004"),
        ({"header": {"message": "one", "code": 10013}}, "one", "10013"),
        ({"response": {"error": {"message": "one", "code": "c"}}}, "one", "c"),
        (error("Provider returned error", metadata={"raw": '{"error":{"message":"one","code":"c"}}'}), "one", "c"),
        ("one", "one", None),
        ({"error": {"message": '{"error":{"message":"{\\"error\\":{\\"message\\":\\"one\\",\\"code\\":\\"c\\"}}"}}'}},
         "one", "c"),
        ({"error": {"message": '{"not json'}}, '{"not json', None),
        ({"error": {"message": '{"error":{"message":"one","code":"c"}} (request id: 20261012)'}}, "one", "c"),
        (error("one", code=402, metadata={"limit_source": "x"}), "one", "402"),
        ({"detail": [{"loc": ["body"], "msg": "one"}]}, "one", None),
    ],
)  # fmt: skip
def test_message_and_code_are_found_wherever_they_stand(body: Any, message: str, code: str | None) -> None:
    found = refused(400, body)
    assert found.message == f"HTTP 400: {message}"
    assert found.code == code


def test_json_in_a_string_is_unpacked_three_times_and_no_further() -> None:
    text = '{"error":{"message":"deepest","code":"context_length_exceeded"}}'
    for _ in range(2):
        text = json.dumps({"error": {"message": text}})
    assert refused(400, text.encode()).kind == "context_length"
    for _ in range(50):
        text = json.dumps({"error": {"message": text}}) if len(text) < 10_000 else text
    assert refused(400, text.encode()).kind == "bad_request"


def test_an_error_framed_as_an_event_is_read() -> None:
    found = refused(400, b'data: {"error":{"message":"bad","code":"data_inspection_failed"}}\n\n')
    assert (found.kind, found.message) == ("content_filter", "HTTP 400: bad")
    assert found.provider is not None
    assert orjson.loads(found.provider.body)["error"]["message"] == "bad"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (502, b"<html><title> Bad  Gateway </title>", "a web page titled 'Bad  Gateway'"),
        (503, b"  ", "empty body"),
        (500, b"plain\n words", "plain words"),
        (200, b"<html>", "/v1"),
    ],
)
def test_a_body_without_a_message_is_described(status: int, body: bytes, words: str) -> None:
    assert words in refused(status, body).message


def test_a_long_message_that_repeats_the_prompt_is_read_at_its_ends() -> None:
    """Searched as a whole, patterns with a gap in them would take minutes."""
    for words in ("model ", "stream ", "reached RPD ", "account ", "limit of "):
        assert refused(400, error(words * 50_000)).kind == "bad_request"
    assert refused(400, error("x" * 10_000 + " maximum context length is 8 tokens")).kind == "context_length"


def test_a_long_message_is_cut() -> None:
    assert len(refused(400, error("x" * 100_000)).message) < 1000


def test_a_redirect_names_where_it_points() -> None:
    assert "http://elsewhere.example/x" in refused(302, b"", location="http://elsewhere.example/x").message


def test_retry_after_is_kept_on_the_error() -> None:
    assert refused(429, b"", **{"retry-after": "3"}).retry_after_s == 3.0
    assert refused(503, b"", **{"retry-after": "soon"}).retry_after_s is None


# --- answers that are none --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"choices": None}, "invalid_response"),
        ({"choices": []}, "invalid_response"),
        ({"choices": {}}, "invalid_response"),
        ({"choices": "x"}, "invalid_response"),
        ({"choices": [None]}, "invalid_response"),
        ({"choices": [{}]}, "invalid_response"),
        ({"choices": [{"message": None, "finish_reason": "stop"}]}, "invalid_response"),
        ({"choices": [{"message": "x", "finish_reason": "stop"}]}, "invalid_response"),
        ({"choices": [{"text": "x", "finish_reason": "stop"}]}, "invalid_response"),
        (with_message(None, content="half an ans"), "invalid_response"),
        (with_message("", content="half an ans"), "invalid_response"),
        (with_message(["stop"], content="x"), "invalid_response"),
        ({"choices": [{"message": {"content": "x"}}]}, "invalid_response"),
        (with_message("length", content="half"), "truncated"),
        (with_message("length", content=""), "truncated"),
        (with_message("model_context_window_exceeded", content="half"), "truncated"),
        (with_message("content_filter", content="half"), "content_filter"),
        (with_message("sensitive", content=""), "content_filter"),
        (with_message("insufficient_system_resource", content="half"), "server_error"),
        (with_message("aborted", content="half"), "server_error"),
        (with_message("network_error", content=None), "server_error"),
        (with_message("error", content="x"), "server_error"),
        (with_message(content=None, refusal="I cannot help with that."), "content_filter"),
        (with_message(content=None), "empty_output"),
        (with_message(content=""), "empty_output"),
        (with_message(content=" \n\t "), "empty_output"),
        (with_message(content=[]), "empty_output"),
        (with_message(content=[{"type": "image_url"}, "x", None]), "empty_output"),
        (with_message(content=7), "empty_output"),
        (with_message(), "empty_output"),
        (with_message(content=None, tool_calls=[]), "empty_output"),
        (with_message(content="", reasoning_content="all of it is in here"), "empty_output"),
        (with_message(content="<think>only thoughts</think>"), "empty_output"),
        (with_message(content="<think>never closed"), "empty_output"),
        (with_message(content="\u200b\ufeff\n"), "empty_output"),
        (with_message("unheard_of", content=""), "empty_output"),
    ],
)
def test_an_answer_that_is_no_output_has_its_kind(body: dict[str, Any], kind: str) -> None:
    found = refused(200, {**body, "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
    assert found.kind == kind
    assert found.usage is not None, "what was paid for is counted"
    assert found.usage.total_tokens == 5


# --- answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "答案"}, "答案", None),
        ({"content": "  padded \n"}, "  padded \n", None),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", None),
        ({"content": "x", "reasoning_content": "why"}, "x", "why"),
        ({"content": "x", "reasoning": "why"}, "x", "why"),
        ({"content": "x", "reasoning_content": None, "reasoning": ""}, "x", None),
        ({"content": "x", "reasoning": {"a": 1}}, "x", None),
        ({"content": "<think>\nwhy\n</think>\n\nx"}, "x", "why"),
        ({"content": "x <think>y</think>"}, "x <think>y</think>", None),
        ({"content": "why\n</think>\n\nx"}, "x", "why"),
        ({"content": "x", "reasoning": "why", "reasoning_content": None}, "x", "why"),
        ({"content": "</think>x", "reasoning": "why"}, "</think>x", "why"),
        ({"content": "x", "reasoning_details": [{"type": "reasoning.text", "text": "why"}, 3]}, "x", "why"),
        ({"content": [{"type": "thinking", "thinking": "why"}, {"type": "text", "text": "x"}]}, "x", "why"),
        ({"content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}, None, None),
        ({"content": "x", "refusal": None}, "x", None),
        ({"content": "a\u2028b\u0085c\x00d\r\n"}, "a\u2028b\u0085c\x00d\r\n", None),
    ],
)
def test_text_and_reasoning_are_taken_apart(message: dict[str, Any], text: str | None, reasoning: str | None) -> None:
    response = understood(with_message(**message))
    assert (response.text, response.reasoning) == (text, reasoning)


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "function_call", "stop_sequence", "end_turn", "eos"])
def test_known_endings_give_no_warning(finish: str) -> None:
    response = understood(completion(finish=finish))
    assert response.finish_reason == finish
    assert response.warnings == ()


def test_an_unknown_ending_is_an_answer_with_a_warning() -> None:
    response = understood(completion(finish="some_new_reason"))
    assert response.finish_reason == "some_new_reason"
    assert response.warnings == ("finish_reason:some_new_reason",)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, (5, 7, 12, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 7}, (5, 7, 12, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}, (5, 7, 12, 4, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 7, "cached_tokens": 4}, (5, 7, 12, 4, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 7, "prompt_cache_hit_tokens": 4}, (5, 7, 12, 4, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 6}},
         (5, 7, 12, 0, 6)),
        ({"prompt_tokens": "5", "completion_tokens": 7.0, "total_tokens": True}, (0, 0, 0, 0, 0)),
        ({"prompt_tokens": -5, "completion_tokens": None}, (0, 0, 0, 0, 0)),
        ({"prompt_tokens": 10**25, "completion_tokens": 2**63, "total_tokens": 9}, (0, 0, 9, 0, 0)),
        ({"prompt_tokens": 5, "prompt_tokens_details": None, "completion_tokens_details": [1]}, (5, 0, 5, 0, 0)),
        ({"prompt_tokens": 5, "prompt_tokens_details": "x", "completion_tokens_details": 3}, (5, 0, 5, 0, 0)),
    ],
)  # fmt: skip
def test_usage_is_read_from_wherever_it_stands(usage: dict[str, Any], counts: tuple[int, ...]) -> None:
    # The lone surrogate makes the slow reader read it, which keeps integers of any length.
    for extra in ({}, {"x": "\ud800"}):
        found = understood(json.dumps({**completion(), "usage": usage, **extra}).encode()).usage
        assert found is not None
        got = (found.prompt_tokens, found.completion_tokens, found.total_tokens, found.cached_tokens)
        assert (*got, found.reasoning_tokens) == counts
        orjson.dumps((found + found).as_record())


@pytest.mark.parametrize("usage", [None, [], "x", 5])
def test_missing_usage_is_a_warning(usage: Any) -> None:
    response = understood({**completion(), "usage": usage})
    assert response.usage is None
    assert response.warnings == ("no_usage",)


@pytest.mark.parametrize("model", [None, 5, ["m"]])
def test_a_model_that_is_no_text_is_none(model: Any) -> None:
    assert understood({**completion(), "model": model}).model is None


# --- the body as received ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        b'"n":1e400',
        b'"n":-1e400',
        b'"n":1234567890123456789012345',
        b'"n":' + b"9" * 6000,
        b'"n":1.10,"m":0.1e+1,"k":1E5',
        b'"a":1,"a":2,"a":{"a":1,"a":1}',
        b'"t":"\\u4f60\\/\\ud83d\\ude00 \\u0000"',
        '"t":"你好 😀 \u2028\u2029\u0085"'.encode(),
        b'"deep":' + b"[" * 1000 + b"]" * 1000,
    ],
    ids=lambda extra: extra[:20].decode(),
)
def test_the_body_is_kept_byte_for_byte(extra: bytes) -> None:
    body = json.dumps(completion()).encode()[:-1] + b"," + extra + b"}"
    response = understood(body)
    assert response.provider.body == body
    assert response.warnings == ()
    assert response.text == "ok"


def test_a_pretty_printed_body_loses_its_line_ends_alone() -> None:
    body = json.dumps(completion("two\nlines"), indent=2).replace("\n", "\r\n").encode()
    response = understood(b"\xef\xbb\xbf" + body)
    assert response.provider.body == body.replace(b"\r\n", b"")
    assert response.text == "two\nlines"


def test_keep_alive_lines_before_the_body_are_no_part_of_it() -> None:
    body = json.dumps(completion()).encode()
    assert understood(b"\n\n\r\n \n" + body + b"\n\x00").provider.body == body


@pytest.mark.parametrize("escape", ["\\ud800", "\\uDFFF", "\\ud800\\ud800", "\\udc00\\ud800", "\\ud83dx"])
def test_a_lone_surrogate_is_replaced_with_a_warning(escape: str) -> None:
    body = json.dumps(completion("@\\\\ud800 \\ud83d\\ude00")).encode().replace(b"@", escape.encode())
    response = understood(body)
    assert response.warnings == ("lone_surrogate_replaced",)
    assert response.text is not None
    assert response.text.replace("\ufffd", "").removeprefix("x") == "\\\\ud800 \\ud83d\\ude00"
    assert orjson.loads(response.provider.body)["choices"][0]["message"]["content"] == response.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": "\xff\xfe"}',
        b'{"choices": "\xed\xa0\x80"}',
        b"\x80\x81\x82",
        b"\x00\x01\x02",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\x00"}',
        b"[" * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "混乱".encode("gb18030"),
        "{}".encode("utf-16"),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_json_is_kept_as_text(body: bytes) -> None:
    found = refused(200, body)
    assert found.kind == "invalid_response"
    assert found.provider is not None
    assert isinstance(orjson.loads(found.provider.body), str)


def test_headers_that_are_no_utf8_are_made_readable() -> None:
    kept = kept_headers({"X-Msg": "错误".encode("gb18030").decode("utf-8", "surrogateescape"), "X-A": "é"})
    assert orjson.loads(orjson.dumps(kept)) == kept
    assert kept["x-a"] == "é"


WORDS = (
    "choices", "message", "content", "finish_reason", "usage", "error", "code", "type", "base_resp", "status_code",
    "metadata", "raw", "tool_calls", "refusal", "reasoning", "prompt_tokens", "prompt_tokens_details", "model",
    "detail", "response", "data",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda child: (
        st.lists(child, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), child, max_size=5)
    ),
    max_leaves=20,
)


def provider_of(status: int, body: bytes) -> Provider | None:
    try:
        return understand(status, {}, body, DIALECT).provider
    except EndpointError as found:
        orjson.dumps([found.kind, found.message, found.code, found.usage and found.usage.as_record()])
        return found.provider


def check_any(status: int, body: bytes) -> None:
    provider = provider_of(status, body)
    assert provider is not None
    assert b"\n" not in provider.body
    assert b"\r" not in provider.body
    # Read by Python's parser, for orjson reads no number beyond a double.
    json.loads(provider.body)
    orjson.dumps(provider.as_record())


@given(st.sampled_from([200, 204, 302, 400, 429, 503]), st.binary(max_size=60))
@example(200, b'{"choices":[{"message":{"content":"x"},"finish_reason":' + b"[" * 900 + b"]" * 900 + b"}]}")
@example(400, b'{"error":{"code":' + b"9" * 4500 + b"}}")
@example(400, b'{"error":{"message":"\\ud800"},"code":' + b"9" * 4100 + b"}")
def test_any_bytes_are_an_answer_or_an_endpoint_error(status: int, body: bytes) -> None:
    if len(body) < 4000:
        check_any(status, body)
    else:  # longer integers than Python's parser reads
        with pytest.raises(EndpointError):
            understand(status, {}, body, DIALECT)


@given(st.sampled_from([200, 400, 500]), JSON, st.booleans())
def test_any_json_is_an_answer_or_an_endpoint_error(status: int, value: Any, pretty: bool) -> None:
    check_any(status, json.dumps(value, indent=1 if pretty else None).encode())


@given(JSON, JSON, JSON, JSON)
def test_any_completion_is_an_answer_or_an_endpoint_error(content: Any, finish: Any, usage: Any, message: Any) -> None:
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "usage": usage, "model": message}
    check_any(200, json.dumps(body).encode())
    body = {"choices": [{"message": message, "finish_reason": finish}], "error": usage}
    check_any(200, json.dumps(body).encode())
