"""GLM on Zhipu: codes are numeric strings, errors have no type, and arrears are a 429.

Texts that are not documented are written in the style of the others.
"""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived
from batchrun.simulator.dialects.rules import Params, Rules, by_type, named_thinking, number, when
from batchrun.simulator.dialects.shapes import Body, Shape, UsageAt
from batchrun.simulator.problems import Problem, Refused

#: What may go well another time.
_AGAIN = (408, 409, 425, 500, 502, 503)
_ARREARS = ErrorRow(429, "您的账户已欠费，请充值后重试。", code="1113")
_CONCURRENCY = ErrorRow(429, "您当前使用该API的并发数过高，请降低并发，或联系客服增加限额。", code="1302")
_FREQUENCY = ErrorRow(429, "您当前使用该API的频率过高，请降低频率，或联系客服增加限额。", code="1303")


def _other(row: ErrorRow) -> ErrorRow:
    return ErrorRow(row.status, row.message, code="1230" if row.status in _AGAIN else "1210")


ERRORS = derived(
    openai.ERRORS,
    _other,
    {
        Problem.INVALID_TYPE: ErrorRow(400, "{detail}", code="1214"),
        Problem.MISSING_PARAMETER: ErrorRow(400, "{detail}", code="1213"),
        Problem.CONTEXT_LENGTH: ErrorRow(400, "Prompt 超长", code="1261"),
        Problem.CONTENT_FILTER: ErrorRow(
            400, "系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语。", code="1301"
        ),
        Problem.NO_KEY: ErrorRow(401, "Header中未收到Authorization参数，无法进行身份验证。", code="1001"),
        Problem.WRONG_KEY: ErrorRow(401, "Authorization Token非法，请确认Authorization Token正确传递。", code="1002"),
        Problem.PAYMENT: _ARREARS,
        Problem.QUOTA: _ARREARS,
        Problem.FORBIDDEN: ErrorRow(434, "您无权访问{model}。", code="1220"),
        Problem.MODEL_NOT_FOUND: ErrorRow(400, "modelCode：不存在", code="1211"),
        Problem.REQUEST_RATE: _FREQUENCY,
        Problem.TOKEN_RATE: _FREQUENCY,
        Problem.THROTTLED: _FREQUENCY,
        Problem.BURST: _FREQUENCY,
        Problem.CONCURRENCY: _CONCURRENCY,
        Problem.BALANCE_CONCURRENCY: _CONCURRENCY,
        Problem.DAILY_LIMIT: ErrorRow(429, "您已达到今日调用次数限额。", code="1304"),
        Problem.OVERLOADED: ErrorRow(429, "当前API请求过多，请稍后重试。", code="1305"),
        Problem.SERVER: ErrorRow(500, "网络错误，请稍后重试。", code="1234"),
    },
)


def error(row: ErrorRow, message: str, _param: str | None, _facts: Facts) -> Body:
    """Shape an error body: code and message alone."""
    return {"error": {"code": row.code, "message": message}, "simulated": True}


def _always_thinks(params: Params) -> bool:
    return named_thinking(params) or str(params.get("model")).startswith("glm-5.3")


def _check_messages(params: Params) -> None:
    if params.get("messages") == []:
        raise Refused(Problem.INVALID_TYPE, "messages", detail="输入不能为空")


RULES: Rules = Rules(
    checks=(
        _check_messages,
        number("temperature", lambda value: 0 <= value <= 1, "temperature参数非法：限制数值范围[0,1]"),
        number("top_p", lambda value: 0 <= value <= 1, "top_p参数非法：限制数值范围[0,1]"),
        when(
            lambda params: by_type(params) is False and _always_thinks(params),
            "thinking",
            "该模型始终思考，不支持关闭思考；请使用 low、high 或 max。",
        ),
    ),
    json_word=None,
    switches=(by_type, lambda params: _always_thinks(params) or None),
)

ZHIPU = Dialect(
    name="zhipu",
    base_path="/api/paas/v4",
    errors=ERRORS,
    error=error,
    shape=Shape(
        identify=lambda digits: digits,
        usage_at=UsageAt.FINISH,
        choice=lambda _: {},
        tells_logprobs=True,
    ),
    rules=RULES,
)
