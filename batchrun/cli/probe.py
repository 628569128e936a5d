"""`batchrun probe`: the capability matrix of a model, measured; the profile is saved for runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.console import Console, fail, print_data, printable, printable_json
from batchrun.cli.options import endpoint_options

if TYPE_CHECKING:
    from batchrun.endpoint.profile import Verdict
    from batchrun.job import Job
    from batchrun.measure import Probed
    from batchrun.probe import Measured


@click.command(short_help="Measure what a model can do, and save it as the profile for runs.")
@endpoint_options
@click.option("--confirm-non-sensitive", is_flag=True, help="State that what is sent is not sensitive.")
@click.option("--dry-run", is_flag=True, help="Tell how many calls and tokens it takes at most; send nothing.")
@click.option(
    "--max-tokens", default=1024, show_default=True, metavar="N", type=click.IntRange(16),
    help="Tokens of each answer at most.",
)  # fmt: skip
@click.option("--markdown", is_flag=True, help="Print the matrix as a Markdown table, for a wiki.")
def probe(
    job_file: Path | None, *, as_json: bool, markdown: bool, dry_run: bool, max_tokens: int, **flags: Any
) -> None:  # fmt: skip
    """Measure what one model can do at one endpoint, by what it does and not by the absence of an error.

    Prints the capability matrix and saves it as the profile, from which `batchrun run` compiles its requests. The
    prompts are batchrun's own; nothing of yours is sent. It takes about 40 small calls: --dry-run lists them.

    \b
    Verdicts:
      supported             the answer shows that it works
      accepted but ignored  no error, and no effect
      rejected              refused, with the provider's words
      unclear               the answer does not tell

    \b
    Example:
      batchrun probe job.toml --markdown > capabilities.md

    Exit codes: 0 measured, 2 nothing was sent, 4 the endpoint said stop or was in trouble.
    """
    from batchrun.cli.execution import refusing

    with refusing(None):
        job = _job(job_file, flags, sends=not dry_run)
        if dry_run:
            _announce(job, max_tokens, as_json=as_json)
            return
        probed = _measure(job, max_tokens)
    measured = probed.measured
    if as_json:
        import json

        saved = None if probed.trouble else str(probed.path)
        print_data(printable_json(json.dumps({**measured.as_dict(), "profile": saved}, ensure_ascii=False)))
    else:
        for line in _markdown(measured) if markdown else _screen(measured):
            print_data(line)
    console = Console()
    if not as_json:
        for line in _account(probed):
            console.line(line)
    elif probed.trouble:
        console.line(f"batchrun: {printable(probed.trouble)}")
    if not measured.is_usable:
        sys.exit(4)


def _job(job_file: Path | None, flags: dict[str, Any], *, sends: bool) -> Job:
    from batchrun.job import endpoint_job
    from batchrun.measure import checked

    overrides = {
        "endpoint.base_url": flags["base_url"],
        "endpoint.model": flags["model"],
        "data_boundary.classification": "non-sensitive" if flags["confirm_non_sensitive"] else None,
    }
    return checked(endpoint_job(job_file, overrides), sends=sends)


def _announce(job: Job, max_tokens: int, *, as_json: bool) -> None:
    from batchrun.probing.questions import MAX_CALLS, MAX_CALLS_WITH_REPEATS, ROWS, most_tokens

    tokens, tokens_again = most_tokens(max_tokens), most_tokens(max_tokens, repeats=True)
    if as_json:
        import json

        rows = {row.name: row.calls for row in ROWS}
        told = {
            "dry_run": True, "max_calls": MAX_CALLS, "max_calls_with_repeats": MAX_CALLS_WITH_REPEATS,
            "max_tokens": tokens, "max_tokens_with_repeats": tokens_again, "calls": rows,
        }  # fmt: skip
        print_data(json.dumps(told))
        return
    for row in ROWS:
        calls = f"{row.calls} calls at most" if row.calls > 1 else "1 call" if row.calls else "from the other calls"
        print_data(f"{_padded(row.title, 52)} {calls}")
    print_data(f"{MAX_CALLS} calls at most; {MAX_CALLS_WITH_REPEATS} with those made again for passing reasons")
    print_data(
        f"{tokens:,} tokens at most; {tokens_again:,} with those made again (answers of up to {max_tokens} tokens "
        "each, but for one of up to 32,768, as long as the endpoint heeds a bound on tokens; where it does not, the "
        "probe ends when they are used up)"
    )
    print_data(f"of {printable(job.endpoint.model)} at {printable(job.endpoint.base_url or job.endpoint.simulate)}")


def _measure(job: Job, max_tokens: int) -> Probed:
    import asyncio

    from batchrun.api import event_loop_factory
    from batchrun.measure import probe as measure
    from batchrun.probe import ProbeError

    progress = _Progress()
    try:
        with asyncio.Runner(loop_factory=event_loop_factory()) as loop:
            return loop.run(measure(job, max_tokens=max_tokens, progress=progress, waiting=progress.waiting))
    except ProbeError as error:
        progress.clear()
        kind = error.error.kind
        fail(f"{kind}: {error}\nNothing was saved. Find out why step by step: batchrun check", 4)
    except KeyboardInterrupt:
        progress.clear()
        fail("interrupted; nothing was saved", 130)
    finally:
        progress.clear()


class _Progress:
    """Counts the calls on a terminal, and tells of waits."""

    def __init__(self) -> None:
        self._console = Console()
        self._shown = False

    def __call__(self, done: int, most: int) -> None:
        if self._console.is_terminal:
            self._console.write(f"\r\x1b[Kprobing: {done} calls of {most} at most ")
            self._shown = True

    def waiting(self, seconds: float, why: str) -> None:
        if self._console.is_terminal:
            self._console.write(f"\r\x1b[Kprobing: waiting {seconds:.0f} s: {printable(why, 60)} ")
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            self._console.write("\r\x1b[K")
            self._shown = False


# --- the matrix ---


def _screen(measured: Measured) -> list[str]:
    import os

    from batchrun.cli.console import columns
    from batchrun.probing.questions import ROWS

    profile = measured.profile
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    titles = max(_width(row.title) for row in ROWS)
    room = max(30, columns() - titles - 25) if sys.stdout.isatty() else 300
    lines = [f"{printable(profile.model)} at {printable(profile.base_url)}, read as {printable(profile.dialect)}", ""]
    for row in ROWS:
        cell = profile.cells[row.name]
        mark, colour = _MARKS[cell.verdict.name]
        verdict = _padded(f"{mark} {cell.verdict}", 22)
        shown = f"\x1b[{colour}m{verdict}\x1b[0m" if colours else verdict
        lines.append(f"{_padded(row.title, titles)}  {shown} {printable(cell.words, room)}".rstrip())
    return lines


def _markdown(measured: Measured) -> list[str]:
    from batchrun.probing.questions import ROWS

    profile = measured.profile
    simulated = ", simulated" if profile.simulated else ""
    head = (
        f"**{_cell(profile.model)}** at `{_cell(profile.base_url)}` ({_cell(profile.dialect)}{simulated}), "
        f"measured {profile.measured_at}"
    )
    return [
        head,
        "",
        "| capability | verdict | what was seen |",
        "|---|---|---|",
        *(
            f"| {_cell(row.title)} | {_verdict(cell.verdict)} | {_cell(cell.words)} |"
            for row in ROWS
            for cell in (profile.cells[row.name],)
        ),
    ]


def _verdict(verdict: Verdict) -> str:
    return f"{_MARKS[verdict.name][0]} {verdict}"


def _cell(text: object) -> str:
    """Make foreign text harmless in a Markdown table."""
    safe = printable(text, 300).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
    return safe.replace("*", "\\*").replace("[", "\\[")


def _account(probed: Probed) -> list[str]:
    measured = probed.measured
    usage = measured.usage
    lines = [
        f"calls     {measured.calls}; tokens {usage.prompt_tokens:,} in, {usage.completion_tokens:,} out"
        + (f"; {measured.uncounted} answers told no usage" if measured.uncounted else "")
        + (f"; {measured.repeats} calls again for passing reasons" if measured.repeats else "")
    ]
    if not measured.is_bounded:
        lines.append(
            "warning   no bound on tokens is taken or heeded there: answers are as long as the model makes them"
        )
    if measured.profile.simulated:
        lines.append("simulated the answers come from the simulated provider, not from a model")
    if probed.kept:
        lines.append(f"kept      what was measured before of {', '.join(probed.kept)}")
    lines.append(f"warning   {printable(probed.trouble)}" if probed.trouble else f"profile   {probed.path}")
    return lines


_MARKS = {
    "SUPPORTED": ("✓", "32"),
    "IGNORED": ("○", "33"),
    "REJECTED": ("✗", "31"),
    "UNCLEAR": ("?", "36"),
    "ACCEPTED": ("✓", "32"),
}


def _width(text: str) -> int:
    """Give the columns that a text takes; Chinese characters take two."""
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - _width(text))
