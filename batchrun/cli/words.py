"""Numbers and endings in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrun.cli.console import printable

if TYPE_CHECKING:
    from batchrun.dryrun import DryRun
    from batchrun.summary import Summary


def duration(seconds: float) -> str:
    """Write seconds as people say them: 0.4s, 12s, 3m20s, 2h05m."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def amount(number: float) -> str:
    """Write a number with three digits that count: 950, 12.3k, 4.56M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            scaled = number / (1000 if unit == "k" else size)
            return f"{scaled:.3g}{unit}" if scaled < 1000 else f"{scaled:.0f}{unit}"
    return f"{number:.0f}"


def ending(summary: Summary, again: str) -> list[str]:
    """Tell how a run ended: counts, tokens, time, where the files are and what to do next.

    `again` is the command that was given.
    """
    pending = "an unknown number" if summary.pending is None else f"{summary.pending:,}"
    lines = [f"{_verdict(summary)}  {summary.results:,} results, {summary.failures:,} failures, {pending} pending"]
    if summary.stop is not None:
        lines.append(f"because   {printable(summary.stop.message, 1000)}")
    if summary.failures_by_kind:
        kinds = sorted(summary.failures_by_kind.items(), key=lambda pair: (-pair[1], pair[0]))
        lines.append("failures  " + ", ".join(f"{count:,} {printable(kind)}" for kind, count in kinds))
    if summary.broken_off:
        lines.append(f"broken off {summary.broken_off:,} calls were in flight, perhaps billed; their items are pending")
    lines += _this_run(summary)
    lines += [f"warning   {printable(warning)}" for warning in summary.warnings]
    if summary.simulated:
        lines.append("simulated the answers come from the simulated provider, not from a model")
    lines.append(f"files     {summary.results_path}")
    if summary.failures:
        lines.append(f"          {summary.failures_path}")
    lines += [f"next      {step}" for step in _next_steps(summary, again)]
    return lines


def _verdict(summary: Summary) -> str:
    if summary.stop is not None:
        return "stopped "
    return "done    " if not summary.failures else "finished"


def _this_run(summary: Summary) -> list[str]:
    tally = summary.tally
    if not tally.attempts:
        return [] if summary.failures_now else ["this run  nothing was left to do, nothing was sent"]
    seconds = max(summary.duration_s, 1e-9)
    usage = tally.usage
    did = (
        f"{summary.results_now:,} results, {summary.failures_now:,} failures in {duration(summary.duration_s)}; "
        f"{tally.attempts:,} requests ({tally.retries:,} retries, {tally.reasks:,} re-asks), "
        f"{amount(tally.attempts / seconds * 60)} a minute"
    )
    tokens = (
        f"{usage.prompt_tokens:,} in ({usage.cached_tokens:,} cached), "
        f"{usage.completion_tokens:,} out ({usage.reasoning_tokens:,} reasoning)"
    )
    cost = f"; cost {summary.cost:.4f} {summary.currency}" if summary.cost is not None else ""
    return [f"this run  {did}", f"tokens    {tokens}{cost}"]


def _next_steps(summary: Summary, again: str) -> list[str]:
    steps = []
    if summary.stop is not None:
        steps.append(f"the same command again goes on with what is pending: {again}")
    if summary.failures:
        commonest = (
            max(summary.failures_by_kind.items(), key=lambda pair: pair[1])[0] if summary.failures_by_kind else ""
        )
        if commonest:
            steps.append(f"what {commonest} means and what helps: batchrun explain {commonest}")
        steps.append(f"the failures again, when their cause is mended: batchrun retry {summary.output}")
    return steps


def _scanned(report: DryRun) -> str:
    if report.scan == "off":
        return "off: nobody looked for what must not leave"
    found = ", ".join(f"{printable(name)} in {count:,}" for name, count in sorted(report.hits.items()))
    return f"{report.scan}: {found or 'nothing found'}{' items' if found else ''}"


def _forecast(report: DryRun) -> str:
    """Say what is known beforehand of cost and time."""
    parts = []
    if report.input_cost is not None:
        parts.append(f"about {report.input_cost:.4g} {report.currency} for the input")
    if report.most_output_cost is not None:
        parts.append(f"at most {report.most_output_cost:.4g} {report.currency} for answers of max_tokens")
    if report.least_seconds is not None:
        parts.append(f"at least {duration(report.least_seconds)} by the limits of a minute")
    return ", ".join(parts)


def rehearsal(report: DryRun) -> list[str]:
    """Tell what a dry run found."""
    ready = f"{report.ready:,} ready to send, {report.failures:,} that would fail"
    lines = [f"dry run   {report.entries:,} lines: {ready}; nothing was sent"]
    if report.failures_by_kind:
        lines.append("failures  " + ", ".join(f"{count:,} {kind}" for kind, count in report.failures_by_kind.items()))
    lines += [f"          {printable(problem)}" for problem in report.problems]
    lines.append(f"scan      {_scanned(report)}")
    lines += [f"warning   {printable(warning)}" for warning in report.warnings]
    if report.ready:
        lines.append(
            f"requests  {report.bytes / 1e6:.2f} MB, about {amount(report.estimated_prompt_tokens)} tokens in "
            "(estimated from the characters)"
        )
    forecast = _forecast(report)
    if report.ready and forecast:
        lines.append(f"forecast  {forecast}")
    return lines
