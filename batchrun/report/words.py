"""The page's own texts, in English and Chinese side by side."""

from __future__ import annotations

from typing import Any

from batchrun.records import ADVICE, ErrorKind

LANGUAGES = ("en", "zh")

#: Every text of the page by its key: English, Chinese. What stands in braces is filled in.
MESSAGES: dict[str, tuple[str, str]] = {
    # --- the head ---
    "report": ("Run report", "运行报告"),
    "as_of": ("As of {time} (UTC{offset})", "截至 {time}（UTC{offset}）"),
    "made_by": ("made by batchrun {version}", "由 batchrun {version} 生成"),
    "simulated_title": ("Simulated answers", "模拟回答"),
    "simulated": (
        ("The answers come from a simulated provider, not from a model. Each record says so: its provider body has "
        "“simulated”: true, its headers x-simulated: true, and free text begins with 【模拟回答】. Numbers on this "
        "page are those of the rehearsal."),
        ("这些回答来自模拟服务商，不是真实模型的输出。每条记录都有标注：provider.body 中 “simulated” 为 true，"
        "响应头 x-simulated 为 true，自由文本以【模拟回答】开头。本页数字均为演练数据。"),
    ),
    # --- the verdict ---
    "state_done": ("Finished", "已完成"),
    "state_failures": ("Finished with failures", "已完成，有失败"),
    "state_stopped": ("Stopped early", "提前停止"),
    "state_running": ("Running", "运行中"),
    "state_killed": ("Ended by force", "被强杀"),
    "state_new": ("Not begun", "尚未开始"),
    "outcome": ("{results} of {items} items have a result.", "共 {items} 条，{results} 条已有结果。"),
    "outcome_unknown": ("{results} items have a result; how many there are in all is not known.",
                        "{results} 条已有结果；总条数未知。"),
    "results": ("Results", "结果"),
    "failures": ("Failures", "失败"),
    "pending": ("Pending", "待处理"),
    "unknown": ("unknown", "未知"),
    "why": ("Why it stopped", "停止原因"),
    "next": ("What to do next", "下一步"),
    "next_live": ("It is still going. Make this page again for newer numbers.",
                  "任务仍在运行。再次生成本页可看到新的数字。"),
    "next_resume": ("Go on with what is pending; nothing that is done is sent again.",
                    "继续处理待处理的条目；已完成的不会重发。"),
    "next_retry": ("Run the {count} failures of kind {kind} again, once their cause is mended.",
                   "排除原因后，重新运行 {count} 条 {kind} 失败。"),
    "next_input": ("Correct the {count} items of kind {kind} in the input, and run the same command again.",
                   "在输入中修正 {count} 条 {kind} 条目，然后再次运行同一命令。"),
    "next_rest": ("Run all failures again.", "重新运行全部失败。"),
    "next_verify": ("Nothing is left to do. Prove from the files that nothing is missing:",
                    "没有剩余工作。可用文件本身验证没有遗漏："),
    "interrupted": ("{count} calls were in flight when a run was ended by force; they may have been billed.",
                    "运行被强杀时有 {count} 个调用在途，可能已计费。"),
    # --- numbers at a glance ---
    "rate": ("Throughput", "吞吐"),
    "rate_unit": ("{rate} items/min", "{rate} 条/分"),
    "rate_note": ("mean over {active} of work", "工作时间 {active}内的平均值"),
    "median": ("Median time per item", "单条用时中位数"),
    "median_note": ("95% within {p95}", "95% 在 {p95}内"),
    "tokens": ("Tokens", "token 用量"),
    "tokens_note": ("{input} in, {output} out", "输入 {input}，输出 {output}"),
    "cost": ("Cost", "费用"),
    "cost_note": ("{each} per 1,000 results", "每千条结果 {each}"),
    # --- sections ---
    "throughput_title": ("Throughput over time", "吞吐随时间的变化"),
    "items_chart": ("Items finished per minute", "每分钟完成的条目数"),
    "tokens_chart": ("Tokens per minute", "每分钟 token 数"),
    "slot_note": ("One bar is {width}. Times are UTC{offset}.", "每个柱为 {width}。时间为 UTC{offset}。"),
    "gaps": ("Dashed lines are times without work.", "虚线为没有工作的时段。"),
    "left_out": ("{count} earlier stretches of work are left out.", "更早的 {count} 段工作未显示。"),
    "short_span": ("All items ended within {span}: too short for a course over time.",
                   "全部条目在 {span}内结束，时间太短，不画变化曲线。"),
    "latency_title": ("Time per item", "单条用时"),
    "latency_chart": ("Results by time, from the item's first request to its answer",
                      "按用时统计的结果数（从首次请求到得到回答）"),
    "latency_note": ("Waits between attempts are included. The scale is logarithmic.",
                     "含各次尝试之间的等待。横轴为对数刻度。"),
    "tokens_title": ("Tokens per item", "单条 token 数"),
    "prompt_chart": ("Results by input tokens", "按输入 token 数统计的结果数"),
    "completion_chart": ("Results by output tokens", "按输出 token 数统计的结果数"),
    "median_short": ("median", "中位数"),
    "p90": ("90% within", "90% 不超过"),
    "p99": ("99% within", "99% 不超过"),
    "max": ("largest", "最大"),
    "longest": ("longest", "最长"),
    "total_tokens": ("Tokens of all records", "所有记录的 token 合计"),
    "token_input": ("Input", "输入"),
    "token_cached": ("of it from the provider's cache", "其中命中服务商缓存"),
    "token_output": ("Output", "输出"),
    "token_reasoning": ("of it reasoning", "其中思考"),
    "cost_title": ("Cost", "费用"),
    "cost_what": ("What", "项目"),
    "cost_tokens": ("Tokens", "token 数"),
    "cost_price": ("Price per million", "每百万单价"),
    "cost_amount": ("Amount ({currency})", "金额（{currency}）"),
    "cost_fresh": ("Input", "输入"),
    "cost_cached": ("Cached input", "缓存输入"),
    "cost_output": ("Output", "输出"),
    "cost_total": ("Total", "合计"),
    "cost_note_long": (
        ("By the prices in the job file and the usage that the provider reported with answers. Attempts without a "
        "usage are not in it; the provider's bill decides."),
        "按任务文件中的单价和服务商随回答返回的用量计算。没有返回用量的尝试不计入；以服务商账单为准。",
    ),
    "errors_title": ("Failures by kind", "按类型统计的失败"),
    "no_failures": ("No item is a failure.", "没有失败的条目。"),
    "attempts_title": ("Attempts", "尝试次数"),
    "attempts_chart": ("Items by number of attempts", "按尝试次数统计的条目数"),
    "attempts_more": ("{count} or more", "{count} 及以上"),
    "requests_title": ("Requests of the last run", "最近一次运行的请求"),
    "req_attempts": ("Requests sent", "已发请求"),
    "req_retries": ("of them retries", "其中重试"),
    "req_reasks": ("of them re-asks for valid output", "其中为得到有效输出而重问"),
    "req_hedges": ("of them second requests for slow ones", "其中对慢请求的补发"),
    "req_trials": ("of them trials during an outage", "其中故障期间的试探"),
    "failed_attempts": ("Attempts that failed, by kind", "失败的尝试，按类型"),
    "limited_by": ("Refused as too much, by what was too much", "被限流的原因"),
    "extraction_title": ("Structured output", "结构化输出"),
    "extraction_chart": ("Results by how the JSON value was found", "按 JSON 值的获取方式统计的结果数"),
    "extraction_repaired": ("{count} of {total} outputs needed a repair ({share}).",
                            "{total} 条输出中有 {count} 条需要修复（{share}）。"),
    "repairs_chart": ("Repairs", "修复类型"),
    "modes": ("How JSON was asked for", "请求 JSON 的方式"),
    "answers_title": ("Answers", "回答"),
    "finish_chart": ("Results by finish reason", "按结束原因统计的结果数"),
    "models_chart": ("Results by model, as the answers say", "按回答中标明的模型统计的结果数"),
    "nothing_said": ("(not said)", "（未注明）"),
    "others": ("others", "其他"),
    "warnings_title": ("Warnings", "警告"),
    "no_warnings": ("None.", "无。"),
    "warnings_run": ("Of the run", "运行级"),
    "warnings_records": ("On records", "记录级"),
    "samples_title": ("Samples", "样例"),
    "samples_note": (
        "Drawn at random with a fixed seed; cut where they are long. What the data-boundary scan finds is masked here.",
        "按固定种子随机抽取，过长处截断。数据边界扫描命中的内容在此以掩码显示。",
    ),
    "samples_note_off": ("Drawn at random with a fixed seed; cut where they are long.",
                         "按固定种子随机抽取，过长处截断。"),
    "samples_none": ("None are shown.", "未显示样例。"),
    "samples_hidden": ("None are shown: what must not be shown cannot be looked for ({reason}).",
                       "未显示样例：无法检查不应显示的内容（{reason}）。"),
    "sample_results": ("Results", "结果"),
    "sample_failures": ("Failures: {kind}", "失败：{kind}"),
    "sample_head": ("line {line}", "第 {line} 行"),
    "sample_attempts": ("{count} attempts", "{count} 次尝试"),
    "sample_tokens": ("{count} tokens", "{count} token"),
    "input": ("Input", "输入"),
    "output": ("Output", "输出"),
    "answer": ("What came back", "返回内容"),
    "input_gone": ("Not to be had: the input is gone or was changed.", "无法取得：输入已不在或已更改。"),
    "input_kept_back": ("Not shown: it holds what must not leave, and was not sent.",
                        "不显示：其中含有不得外发的内容，且未发送。"),
    "input_none": ("None.", "无。"),
    "answer_none": ("Nothing came back.", "没有返回内容。"),
    "cut": ("… cut; {length} characters in all", "……已截断，共 {length} 个字符"),
    "profile_title": ("Endpoint", "端点"),
    "endpoint_url": ("Base URL", "基础地址"),
    "endpoint_simulated": ("simulated provider inside the run ({name})", "运行内置的模拟服务商（{name}）"),
    "endpoint_model": ("Model asked for", "请求的模型"),
    "endpoint_dialect": ("Dialect", "方言"),
    "endpoint_mode": ("JSON is asked for by", "请求 JSON 的方式"),
    "profile_used": ("Capability profile of {date}", "{date} 的能力档案"),
    "profile_none": ("No capability profile was used; batchrun probe measures one.",
                     "未使用能力档案；可用 batchrun probe 测量。"),
    "profile_gone": ("The profile that was used cannot be read now.", "当时使用的能力档案现在无法读取。"),
    "profile_what": ("Capability", "能力"),
    "profile_verdict": ("Verdict", "结论"),
    "profile_words": ("Evidence", "依据"),
    "learned": ("Learned by the last run", "最近一次运行中得知"),
    "verdict_supported": ("supported", "支持"),
    "verdict_accepted but ignored": ("accepted but ignored", "接受但忽略"),
    "verdict_rejected": ("rejected", "拒绝"),
    "verdict_unclear": ("unclear", "不明确"),
    "verdict_accepted": ("accepted", "接受"),
    "boundary_title": ("Data boundary", "数据边界"),
    "boundary_local": ("Nothing left this machine, so no statement about the data was needed.",
                       "数据未离开本机，无需对数据作出声明。"),
    "boundary_missing": ("No statement about the data is kept in run.json.", "run.json 中没有关于数据的声明。"),
    "boundary_by": ("Stated by {by} through {how} on {at}, for {url}",
                    "声明人 {by}，方式 {how}，时间 {at}，针对 {url}"),
    "boundary_statement": (
        ("The data holds no sensitive personal data, no confidential customer data, no regulated data and no "
        "residency-bound data, and may be sent again."),
        "数据不含敏感个人信息、客户保密数据、受监管数据或有存放地域要求的数据，并且可以重新发送。",
    ),
    "scan": ("Scan", "扫描"),
    "scan_block": ("block: an item in which something is found is not sent", "block：命中的条目不发送"),
    "scan_redact": ("redact: what is found is replaced before it is sent", "redact：命中的内容脱敏后再发送"),
    "scan_warn": ("warn: what is found is sent, and the result says so", "warn：照常发送，并在结果上注明"),
    "scan_off": ("off: nobody looked", "off：未检查"),
    "scan_found": ("Kept back by it: {count} items.", "因此未发送：{count} 条。"),
    "job_title": ("Job settings", "任务设置"),
    "job_note": ("Settings that differ from the defaults, as run.json has them. The key is never stored.",
                 "与默认值不同的设置，取自 run.json。密钥从不保存。"),
    "job_counted": ("{count} entries, not shown", "{count} 项，不显示"),
    "job_none": ("All settings are the defaults.", "全部为默认设置。"),
    "files_title": ("Files", "文件"),
    "file_input": ("Input", "输入"),
    "file_lines": ("{lines} lines, {size} bytes, BLAKE2b {hash}", "{lines} 行，{size} 字节，BLAKE2b {hash}"),
    "file_folder": ("Run directory", "运行目录"),
    "run_id": ("Run id", "运行编号"),
    "versions": ("Versions", "版本"),
    "odd": ("{count} records are not counted in the charts: they cannot be read to the end.",
            "{count} 条记录未计入图表：无法完整读取。"),
    "footer": (
        ("This page is one file. It loads nothing, runs no script, and holds texts of your data: keep it as private as "
        "the run directory."),
        "本页是单个文件，不加载任何外部内容，不运行脚本；其中含有你的数据文本，请与运行目录同等保密。",
    ),
    # --- units ---
    "unit_ms": ("{value} ms", "{value} 毫秒"),
    "unit_s": ("{value} s", "{value} 秒"),
    "unit_min": ("{value} min", "{value} 分"),
    "unit_h": ("{value} h", "{value} 小时"),
    "unit_d": ("{value} d", "{value} 天"),
    "bar_items": ("{time}: {results} results, {failures} failures, {rate} per minute",
                  "{time}：{results} 条结果，{failures} 条失败，每分钟 {rate} 条"),
    "bar_tokens": ("{time}: {tokens} tokens, {rate} per minute", "{time}：{tokens} token，每分钟 {rate}"),
    "bar_sizes": ("{low} to {high}: {count} results", "{low} 至 {high}：{count} 条结果"),
    "to": ("to", "至"),
}  # fmt: skip

_ADVICE_ZH: dict[ErrorKind, str] = {
    ErrorKind.INVALID_INPUT: "修正输入中的这一行，再以修正后的行作为输入运行。",
    ErrorKind.DUPLICATE_ID: "给每一行唯一的 id；已使用的是同 id 的第一行。",
    ErrorKind.DATA_BOUNDARY: "从条目中移除敏感数据；该条目没有发送。",
    ErrorKind.BAD_REQUEST: "阅读服务商的原话：某个参数或消息列表不被接受。",
    ErrorKind.CONTEXT_LENGTH: "缩短或拆分条目，或改用上下文更长的模型。",
    ErrorKind.CONTENT_FILTER: "服务商的内容审核拒绝了该条目；改写或略去。",
    ErrorKind.TRUNCATED: "调大 max_tokens（思考也计入），然后重新运行失败队列。",
    ErrorKind.INVALID_OUTPUT: "查看 provider.body 中的回答；更清楚的提示词或更简单的 schema 通常最有效。",
    ErrorKind.EMPTY_OUTPUT: "稍后重试；思考型模型请调大 max_tokens。",
    ErrorKind.TIMEOUT: "调大 retry.attempt_timeout 或降低并发，然后重新运行失败队列。",
    ErrorKind.NETWORK: "检查到端点的网络连接，然后重新运行失败队列。",
    ErrorKind.RATE_LIMITED: "降低 limits.concurrency 或 requests_per_minute，然后重新运行失败的条目。",
    ErrorKind.SERVER_ERROR: "服务商出现故障；稍后重新运行失败队列。",
    ErrorKind.INVALID_RESPONSE: "返回的不是 chat completion；重试，若仍如此请查看 provider.body。",
    ErrorKind.AUTH: "检查密钥（变量、区域是否正确，是否过期），然后重新运行。",
    ErrorKind.PERMISSION: "该密钥无权使用此模型或服务；请在服务商控制台查看。",
    ErrorKind.QUOTA: "充值或等待额度恢复，然后重新运行。",
    ErrorKind.MODEL_NOT_FOUND: "使用该账户列出的模型 id，拼写与服务商一致。",
    ErrorKind.NOT_AN_API: "检查 base_url：应为服务商文档中的 API 根地址，通常以 /v1 结尾。",
}

_TITLES: dict[ErrorKind, tuple[str, str]] = {
    ErrorKind.INVALID_INPUT: ("Line cannot be used", "输入行不可用"),
    ErrorKind.DUPLICATE_ID: ("Id used before", "id 重复"),
    ErrorKind.DATA_BOUNDARY: ("Kept back by the scan", "被数据边界拦下"),
    ErrorKind.BAD_REQUEST: ("Request not accepted", "请求不被接受"),
    ErrorKind.CONTEXT_LENGTH: ("Too long for the model", "超出上下文长度"),
    ErrorKind.CONTENT_FILTER: ("Refused by moderation", "被内容审核拒绝"),
    ErrorKind.TRUNCATED: ("Answer cut off", "回答被截断"),
    ErrorKind.INVALID_OUTPUT: ("Output not valid", "输出无效"),
    ErrorKind.EMPTY_OUTPUT: ("Empty answer", "回答为空"),
    ErrorKind.TIMEOUT: ("No answer in time", "超时"),
    ErrorKind.NETWORK: ("Connection trouble", "网络故障"),
    ErrorKind.RATE_LIMITED: ("Rate limit", "被限流"),
    ErrorKind.SERVER_ERROR: ("Provider's server error", "服务端错误"),
    ErrorKind.INVALID_RESPONSE: ("Not a chat completion", "响应不可用"),
    ErrorKind.AUTH: ("Key refused", "密钥被拒绝"),
    ErrorKind.PERMISSION: ("Not permitted", "无权限"),
    ErrorKind.QUOTA: ("Balance or quota used up", "余额或额度用尽"),
    ErrorKind.MODEL_NOT_FOUND: ("No such model", "没有此模型"),
    ErrorKind.NOT_AN_API: ("Not an API", "不是 API"),
}
for _kind in ErrorKind:
    MESSAGES[f"advice_{_kind}"] = (ADVICE[_kind], _ADVICE_ZH[_kind])
    MESSAGES[f"kind_{_kind}"] = _TITLES[_kind]


class Words:
    """The page's texts in one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._place = LANGUAGES.index(language)
        #: What the page says its language is (BCP 47).
        self.tag = {"en": "en", "zh": "zh-Hans"}[language]

    def __call__(self, key: str, **values: Any) -> str:
        """Give a text with its values filled in. Raises `KeyError` for a key that there is not."""
        text = MESSAGES[key][self._place]
        return text.format(**values) if values else text

    def duration(self, seconds: float) -> str:
        """Write seconds with two or three digits that count, in one or two units."""
        if seconds < 0.9995:
            return self("unit_ms", value=f"{seconds * 1000:.0f}")
        if seconds < 99.5:
            return self("unit_s", value=f"{seconds:.3g}")
        for unit, smaller, size, small in (("min", "s", 60, 1), ("h", "min", 3600, 60), ("d", "h", 86400, 3600)):
            if seconds < size * (60 if unit == "min" else 24) or unit == "d":
                whole, rest = divmod(round(seconds / small), size // small)
                first = self(f"unit_{unit}", value=f"{whole:,}")
                return f"{first} {self(f'unit_{smaller}', value=rest)}" if rest and whole < 100 else first
        return ""


def count(number: float) -> str:
    """Write a whole number with its thousands apart."""
    return f"{number:,.0f}"


def amount(number: float) -> str:
    """Write a number with three digits that count: 0.42, 12.3, 950, 12,300, 4.56 M."""
    if number >= 1e9:
        return f"{number / 1e9:.3g} G"
    if number >= 1e6:
        return f"{number / 1e6:.3g} M"
    if number >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def axis(number: float) -> str:
    """Write a number at an axis, in as few characters as can be: 400, 12k, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.3g}{unit}"
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def money(number: float) -> str:
    """Write an amount of money: cents, and more places where it is small."""
    return f"{number:,.2f}" if number >= 1 else f"{number:,.4f}"
