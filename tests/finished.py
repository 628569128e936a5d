"""A finished run of many items without running it: the records are written, index and journal are made from them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import orjson

from batchrun.store import RunDirectory

TEXT = "第{number}条评论：物流很快，包装完好，就是价格比上次贵了一点，总体满意，还会再来。"
_NEIGHBOURS = 1000


def finish(folder: Path, items: int) -> Path:
    """Write `in.jsonl`, `job.toml` and the run directory `out` into a folder; give that of the run.

    Every tenth item is a failure. Records stand in an order of completion: the input's, shuffled among a thousand
    neighbours. About 900 bytes a record.
    """
    out = folder / "out"
    out.mkdir(mode=0o700)
    (folder / "job.toml").write_text(
        'input = "in.jsonl"\noutput = "out"\n[prompt]\nuser = "{{ text }}"\n'
        '[endpoint]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n'
    )
    chance = random.Random(1)
    with (
        (folder / "in.jsonl").open("wb") as inputs,
        (out / "results.jsonl").open("wb") as results,
        (out / "failures.jsonl").open("wb") as failures,
    ):
        for start in range(0, items, _NEIGHBOURS):
            numbers = list(range(start, min(start + _NEIGHBOURS, items)))
            for number in numbers:
                inputs.write(orjson.dumps(_item(number), option=orjson.OPT_APPEND_NEWLINE))
            chance.shuffle(numbers)
            for number in numbers:
                file, record = (failures, _failure(number)) if number % 10 == 9 else (results, _result(number))
                file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    RunDirectory(out).close()  # this makes the index
    return out


def _item(number: int) -> dict[str, object]:
    return {"id": f"r-{number}", "text": TEXT.format(number=number)}


def _result(number: int) -> dict[str, object]:
    output = {"情感": "正面", "评分": number % 6, "理由": TEXT.format(number=number)}
    message = {"role": "assistant", "content": json.dumps(output, ensure_ascii=False)}
    usage = {"prompt_tokens": 70, "completion_tokens": 40, "total_tokens": 110}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = {"id": f"c-{number}", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    return {
        "id": f"r-{number}", "line": number + 1, "output": output, "finish_reason": "stop", "model": "m",
        "usage": usage, "attempts": 1, "duration_s": 1.5, "finished_at": "2026-11-22T03:04:05.678Z", "reasoning": None,
        "extraction": {"mode": "json_object", "method": "as_is", "repairs": []}, "fingerprint": f"{number:032x}",
        "warnings": [], "provider": {"status": 200, "headers": {"x-request-id": f"q-{number}"}, "body": body},
    }  # fmt: skip


def _failure(number: int) -> dict[str, object]:
    error = {"kind": "content_filter", "message": "no", "http_status": 400, "code": "f", "advice": "Leave it out."}
    return {
        "id": f"r-{number}", "line": number + 1, "error": error, "attempts": 1, "usage": None,
        "finished_at": "2026-11-22T03:04:05.678Z", "input": _item(number),
        "provider": {"status": 400, "headers": {}, "body": {"error": {"message": "no", "code": "f"}}},
    }  # fmt: skip
