"""Zhipu GLM: codes are numbers in a text, there is no type, and arrears are a 429."""

from __future__ import annotations

from batchrun.simulator.dialects import openai
from batchrun.simulator.dialects.base import Dialect, ErrorRow, Facts, derived, model_of
from batchrun.simulator.dialects.rules import Rules, by_type, named_thinking, number, when
from batchrun.simulator.dialects.shapes import Body, Shape
from batchrun.simulator.problems import Problem


def _row(status: int, code: str, message: str) -> ErrorRow:
    return ErrorRow(status, message, None, code)


# The code is documented; of most messages the words are not.
ERRORS = derived(
    openai.ERRORS,
    lambda row: _row(row.status, "1302" if row.status == 429 else "1234" if row.status >= 500 else "1210", row.message),
    {
        Problem.MISSING_PARAMETER: _row(400, "1214", "{detail}"),
        Problem.CONTEXT_LENGTH: _row(400, "1261", "Prompt 超长"),
        Problem.CONTENT_FILTER: _row(400, "1301", "系统检测到输入或生成内容可能包含不安全或敏感内容"),
        Problem.NO_KEY: _row(401, "1001", "Header中未收到Authorization参数，无法进行身份验证"),
        Problem.WRONG_KEY: _row(401, "1000", "身份验证失败"),
        Problem.PAYMENT: _row(429, "1113", "您的账户已欠费，请充值后重试"),
        Problem.QUOTA: _row(429, "1113", "您的账户已欠费，请充值后重试"),
        Problem.FORBIDDEN: _row(434, "1220", "无权访问该接口"),
        Problem.MODEL_NOT_FOUND: _row(400, "1211", "modelCode：不存在"),
        Problem.DAILY_LIMIT: _row(429, "1304", "当日调用次数已达上限"),
        Problem.OVERLOADED: _row(429, "1305", "当前请求过多，请稍后重试"),
    },
)


def error(row: ErrorRow, message: str, _param: str | None, _facts: Facts) -> Body:
    """Shape an error body: code and message alone."""
    return {"error": {"code": row.code, "message": message}, "simulated": True}


ZHIPU = Dialect(
    name="zhipu",
    base_path="/api/paas/v4",
    errors=ERRORS,
    error=error,
    shape=Shape(choice=lambda _: {}),
    rules=Rules(
        checks=(
            when(lambda params: params.get("messages") == [], "messages", "输入不能为空"),
            number("temperature", lambda value: 0 <= value <= 1, "temperature参数非法：限制数值范围[0,1]"),
            number("top_p", lambda value: 0 <= value <= 1, "top_p参数非法：限制数值范围[0,1]"),
            when(
                lambda params: by_type(params) is False and named_thinking(params),
                "thinking",
                "该模型始终思考，不支持关闭思考；请使用 low、high 或 max。",
            ),
        ),
        json_word=None,
        switches=(by_type,),
    ),
    model=model_of("zhipu"),
)
