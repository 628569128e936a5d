"""The batch tools that people use today, each called as its documentation says, on the bodies that bare.py posts.

    python tests/bench/rivals.py NAME URL BODIES CONCURRENCY [--rpm N] [--tpm N] [--output FILE]
    python tests/bench/rivals.py installed

Runs in the Python of an environment of its own; each name needs

    openai            pip install openai
    openai-aiohttp    pip install 'openai[aiohttp]'
    langchain         pip install langchain-openai
    litellm           pip install litellm
    litellm-router    pip install litellm
    async-batch-llm   pip install 'async-batch-llm[openai]'
    flexllm           pip install flexllm
    inspect_ai        pip install inspect-ai openai
    curator           pip install bespokelabs-curator
    cookbook          pip install aiohttp tiktoken litellm, and COOKBOOK=path of api_request_parallel_processor.py

Prints one JSON line: items (answers written), failed, wall and CPU seconds, the CPU seconds before the clock started
(Python and imports), and the peak of the process's memory. Every answer or failure is a line of the output file.
`installed` prints the names that this Python can run, with the versions of their packages.

A client that runs no batch itself (openai, litellm, inspect_ai) gets a semaphore over the bodies. A quota is told to
the tools that can be told one: langchain, litellm-router, async-batch-llm, flexllm, curator and cookbook; the others
have their retries alone. Retries are everywhere those of the tool's defaults. litellm-router gets the quota as that of
its deployment; its `enforce_model_rate_limits` would not wait but fail the items beyond it.

The cookbook's script is the one file that is changed as it is loaded: it takes https alone, the stub speaks http. It
cannot be told a concurrency either (aiohttp's default of 100 connections holds). litellm is here for the vocabulary of
tiktoken, which would be downloaded otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import resource
import runpy
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["KEY", "OWN_CALLS", "QUOTA", "count"]

KEY = "sk-bench"
ENOUGH = 1_000_000_000
"""The quota told to a tool that wants one when there is none."""


@dataclass(frozen=True)
class Job:
    """What a tool is told."""

    url: str
    bodies: Path
    output: Path
    concurrency: int
    rpm: int | None = None
    tpm: int | None = None

    def read(self) -> Iterator[dict[str, Any]]:
        """The bodies, one after the other."""
        with self.bodies.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def prompts(self) -> tuple[str, Iterator[str]]:
        """The system message that all bodies share, and the user message of each."""
        system: str = next(self.read())["messages"][0]["content"]
        return system, (body["messages"][1]["content"] for body in self.read())


class Output:
    """Writes an answer or a failure as a line, at once."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8", buffering=1)

    def write(self, number: Any, found: object) -> None:
        """Keep the text of an answer, or what was raised."""
        line = (
            {"id": number, "error": repr(found)} if isinstance(found, BaseException) else {"id": number, "text": found}
        )
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")


async def spread(job: Job, ask: Callable[[dict[str, Any]], Awaitable[Any]]) -> None:
    """Ask for every body, no more at a time than the concurrency."""
    output, semaphore = Output(job.output), asyncio.Semaphore(job.concurrency)

    async def one(number: int, body: dict[str, Any]) -> None:
        try:
            found: object = await ask(body)
        except Exception as error:  # noqa: BLE001  whatever the tool raises is a failed item
            found = error
        output.write(number, found)
        semaphore.release()

    async with asyncio.TaskGroup() as group:
        for number, body in enumerate(job.read()):
            await semaphore.acquire()
            group.create_task(one(number, body))


def module(name: str) -> Any:
    """The module, imported when it is first needed."""
    return importlib.import_module(name)


async def openai(job: Job, **options: Any) -> None:
    """AsyncOpenAI with its default client, httpx."""
    async with module("openai").AsyncOpenAI(base_url=job.url, api_key=KEY, **options) as client:

        async def ask(body: dict[str, Any]) -> Any:
            return (await client.chat.completions.create(**body)).choices[0].message.content

        await spread(job, ask)


async def openai_aiohttp(job: Job) -> None:
    """AsyncOpenAI with the aiohttp client that its README names for high concurrency."""
    await openai(job, http_client=module("openai").DefaultAioHttpClient())


async def langchain(job: Job) -> None:
    """A batch of ChatOpenAI that gives answers as they come, with its limiter where a quota is told."""
    limiter = None
    if job.rpm:
        limiter = module("langchain_core.rate_limiters").InMemoryRateLimiter(requests_per_second=job.rpm / 60)
    model = module("langchain_openai").ChatOpenAI(model="m", base_url=job.url, api_key=KEY, rate_limiter=limiter)
    output = Output(job.output)
    batch = model.abatch_as_completed(
        [body["messages"] for body in job.read()], {"max_concurrency": job.concurrency}, return_exceptions=True
    )
    async for number, found in batch:
        output.write(number, found if isinstance(found, Exception) else found.content)


async def litellm(job: Job) -> None:
    """The acompletion of litellm."""
    acompletion = module("litellm").acompletion

    async def ask(body: dict[str, Any]) -> Any:
        answer = await acompletion(
            model=f"openai/{body['model']}", messages=body["messages"], api_base=job.url, api_key=KEY
        )
        return answer.choices[0].message.content

    await spread(job, ask)


async def litellm_router(job: Job) -> None:
    """The Router of litellm with one deployment, which is told its quota."""
    told: dict[str, Any] = {"model": "openai/m", "api_base": job.url, "api_key": KEY}
    told |= {name: value for name, value in (("rpm", job.rpm), ("tpm", job.tpm)) if value}
    router = module("litellm").Router(model_list=[{"model_name": "m", "litellm_params": told}])

    async def ask(body: dict[str, Any]) -> Any:
        return (await router.acompletion(**body)).choices[0].message.content

    await spread(job, ask)


async def async_batch_llm(job: Job) -> None:
    """The process_stream of async-batch-llm with an OpenAI-compatible model."""
    library = module("async_batch_llm")
    system, prompts = job.prompts()
    model = library.llm("openai-compatible:m", base_url=job.url, api_key=KEY, system_instruction=system)
    config = library.ProcessorConfig(
        concurrency=job.concurrency,
        max_requests_per_minute=job.rpm,
        max_tokens_per_minute=job.tpm,
        token_estimator=library.CharacterTokenEstimator() if job.tpm else None,
    )
    output = Output(job.output)
    items = ((str(number), prompt) for number, prompt in enumerate(prompts))
    async for result in library.process_stream(model, items, config=config):
        output.write(result.item_id, result.output if result.success else RuntimeError(result.error))


async def inspect_ai(job: Job) -> None:
    """The generate of an inspect_ai model, of its provider for OpenAI-compatible endpoints."""
    library = module("inspect_ai.model")
    config = library.GenerateConfig(max_connections=job.concurrency)
    model = library.get_model("openai-api/stub/m", base_url=job.url, api_key=KEY, config=config)

    async def ask(body: dict[str, Any]) -> Any:
        system, user = (message["content"] for message in body["messages"])
        messages = [library.ChatMessageSystem(content=system), library.ChatMessageUser(content=user)]
        return (await model.generate(messages)).completion

    await spread(job, ask)


def flexllm(job: Job) -> None:
    """The command `flexllm batch`, which writes its own output."""
    sys.argv = [
        "flexllm", "batch", str(job.bodies), "-o", str(job.output), "-m", "m", "--base-url", job.url,
        "--api-key", KEY, "-c", str(job.concurrency), "--format", "json",
        *(["--max-qps", str(job.rpm / 60)] if job.rpm else []),
    ]  # fmt: skip
    with contextlib.suppress(SystemExit):
        runpy.run_module("flexllm", run_name="__main__", alter_sys=True)


def curator(job: Job) -> None:
    """An LLM of curator with its backend for OpenAI, and its dataset written as JSONL."""
    system, prompts = job.prompts()
    model = module("bespokelabs.curator").LLM(
        model_name="m",
        system_prompt=system,
        backend="openai",
        backend_params={
            "base_url": job.url,
            "api_key": KEY,
            "max_concurrent_requests": job.concurrency,
            "max_requests_per_minute": job.rpm or ENOUGH,
            "max_tokens_per_minute": job.tpm or ENOUGH,
            "require_all_responses": False,
        },
    )
    output = Output(job.output)
    for number, row in enumerate(model(list(prompts), working_dir=str(cache_of(job.output))).dataset):
        output.write(number, row["response"])


async def cookbook(job: Job) -> None:
    """The script of OpenAI's cookbook, which writes its own output."""
    spec = importlib.util.spec_from_file_location("cookbook", os.environ["COOKBOOK"])
    assert spec is not None
    assert spec.loader is not None
    script = sys.modules["cookbook"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    vars(script)["api_endpoint_from_url"] = lambda url: "chat/completions"
    await script.process_api_requests_from_file(
        requests_filepath=str(job.bodies),
        save_filepath=str(job.output),
        request_url=f"{job.url}/chat/completions",
        api_key=KEY,
        max_requests_per_minute=float(job.rpm or ENOUGH),
        max_tokens_per_minute=float(job.tpm or ENOUGH),
        token_encoding_name="cl100k_base",
        max_attempts=5,
        logging_level=40,
    )


RIVALS: dict[str, Callable[[Job], Awaitable[None] | None]] = {
    "openai": openai,
    "openai-aiohttp": openai_aiohttp,
    "langchain": langchain,
    "litellm": litellm,
    "litellm-router": litellm_router,
    "async-batch-llm": async_batch_llm,
    "flexllm": flexllm,
    "inspect_ai": inspect_ai,
    "curator": curator,
    "cookbook": cookbook,
}
"""The tools by name."""

NEEDED = {
    "openai": {"openai": "openai"},
    "openai-aiohttp": {"openai": "openai", "aiohttp": "aiohttp"},
    "langchain": {"langchain-openai": "langchain_openai"},
    "litellm": {"litellm": "litellm"},
    "litellm-router": {"litellm": "litellm"},
    "async-batch-llm": {"async-batch-llm": "async_batch_llm", "openai": "openai"},
    "flexllm": {"flexllm": "flexllm"},
    "inspect_ai": {"inspect-ai": "inspect_ai", "openai": "openai"},
    "curator": {"bespokelabs-curator": "bespokelabs.curator"},
    "cookbook": {"aiohttp": "aiohttp", "tiktoken": "tiktoken"},
}
"""The packages that each needs, and their modules."""

QUOTA = {"langchain", "litellm-router", "async-batch-llm", "flexllm", "curator", "cookbook"}
"""The tools that can be told a quota."""

OWN_CALLS = {"curator": 1}
"""The calls that a tool makes for itself: curator wants to see the headers of an answer first."""

CHINESE = re.compile("[\u4e00-\u9fff]")


def text_of(name: str, line: Any) -> Any:
    """The text of the answer in a line of the tool's output; None for a failure."""
    if name == "cookbook":
        return line[1]["choices"][0]["message"]["content"] if isinstance(line[1], dict) else None
    if "response_message" in line:
        return line["response_message"]
    return line.get("output" if name == "flexllm" else "text")


def count(name: str, output: Path) -> dict[str, int]:
    """How many answers a tool wrote, their Chinese unharmed, and how many failures; a torn line counts as none."""
    items = failed = 0
    for file in written(name, output):
        for line in file.read_bytes().splitlines():
            try:
                text = text_of(name, json.loads(line))
            except ValueError:
                continue
            good = isinstance(text, str) and CHINESE.search(text) is not None
            items, failed = items + good, failed + (not good)
    return {"items": items, "failed": failed}


def written(name: str, output: Path) -> list[Path]:
    """The files in which a tool's answers are; those of a curator that was stopped are in its cache alone."""
    if name == "curator" and not (output.exists() and output.stat().st_size):
        return sorted(cache_of(output).glob("*/responses_*.jsonl"))
    return [output] if output.exists() else []


def cache_of(output: Path) -> Path:
    """Where curator keeps what it got."""
    return output.with_suffix(".cache")


def prepare(name: str, output: Path) -> None:
    """Keep the tool from the network and from the user's own settings, and import it."""
    os.environ |= {"HOME": str(output.parent), "HF_DATASETS_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    os.environ |= {"TELEMETRY_ENABLED": "0", "CURATOR_DISABLE_RICH_DISPLAY": "1", "OPENAI_API_KEY": KEY}
    found = importlib.util.find_spec("litellm")
    if found is not None and found.origin is not None:
        os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(found.origin).parent / "litellm_core_utils" / "tokenizers")
    for needed in NEEDED[name].values():
        module(needed)
    output.unlink(missing_ok=True)
    shutil.rmtree(cache_of(output), ignore_errors=True)


def installed() -> dict[str, dict[str, str]]:
    """The tools that this Python can run, with the versions of their packages."""
    found: dict[str, dict[str, str]] = {}
    for name, needed in NEEDED.items():
        if name == "cookbook" and not ("COOKBOOK" in os.environ and importlib.util.find_spec("litellm")):
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = {package: importlib.metadata.version(package) for package in needed}
    return found


def cpu_seconds() -> float:
    """The CPU time of this process and of those it waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(own[:2]) + sum(children[:2])


def main() -> None:
    if sys.argv[1:] == ["installed"]:
        print(json.dumps(installed()))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RIVALS)
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("--rpm", type=int)
    parser.add_argument("--tpm", type=int)
    parser.add_argument("--output", type=Path)
    told = parser.parse_args()
    output = told.output or told.bodies.with_name(f"{told.name}.out.jsonl")
    job = Job(told.url, told.bodies.resolve(), output.resolve(), told.concurrency, told.rpm, told.tpm)
    with contextlib.redirect_stdout(sys.stderr):
        prepare(told.name, job.output)
        started, start = cpu_seconds(), time.perf_counter()
        running = RIVALS[told.name](job)
        if running is not None:
            asyncio.run(wait(running))
        wall, used = time.perf_counter() - start, cpu_seconds() - started
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    seconds = {"wall_s": wall, "cpu_s": used, "start_cpu_s": started}
    print(json.dumps({**count(told.name, job.output), **seconds, "peak_mb": int(peak) * 1024 / 1e6}))


async def wait(running: Awaitable[None]) -> None:
    """Wait for what may not be a coroutine."""
    await running


if __name__ == "__main__":
    main()
