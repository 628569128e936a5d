"""The commands on a run directory that send nothing: `status`, `verify`, `reparse`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchrun.cli.console import print_data, printable, printable_json
from batchrun.cli.options import json_option

if TYPE_CHECKING:
    from batchrun.audit import Audit
    from batchrun.status import Status

_PLACE = click.argument("place", metavar="JOB|RUNDIR", type=click.Path(exists=True, path_type=Path))


@click.command(short_help="Show how a run stands: counts, rate, time left, cost.")
@_PLACE
@json_option
def status(place: Path, as_json: bool) -> None:
    """Show how a run stands: counts, rate, time left, cost, errors by kind.

    Reads the files alone and takes no lock, so it is safe beside a run.

    \b
    Example:
      batchrun status runs/reviews

    Exit codes: 0 shown, 2 there is nothing to read.
    """
    from batchrun.cli.execution import refusing
    from batchrun.locate import locate
    from batchrun.status import status_of

    with refusing(None):
        found = status_of(locate(place))
    if as_json:
        print_data(printable_json(json.dumps(found.as_dict(), ensure_ascii=False)))
    else:
        for line in _screen(found):
            print_data(line)


def _screen(found: Status) -> list[str]:
    from batchrun.cli.words import amount, duration

    unknown = "an unknown number"
    items = unknown if found.items is None else f"{found.items:,}"
    pending = unknown if found.pending is None else f"{found.pending:,}"
    held = f" ({printable(found.holder)})" if found.holder else ""
    lines = [
        f"state     {printable(found.state)}{held}",
        f"items     {items}: {found.results:,} results, {found.failures:,} failures, {pending} pending",
    ]
    if found.in_flight and found.holder:
        lines.append(f"in flight {found.in_flight:,} calls")
    elif found.in_flight:
        lines.append(f"in flight {found.in_flight:,} calls when the run was ended by force, perhaps billed")
    if found.interrupted_ever:
        lines.append(f"          {found.interrupted_ever:,} calls of earlier runs ended so, perhaps billed")
    if found.holder:
        rate = "unknown yet" if found.items_per_minute is None else f"{amount(found.items_per_minute)} items a minute"
        left = f", about {duration(found.eta_s)} left" if found.eta_s else ""
        lines.append(f"rate      {rate}{left}")
    if found.failures_by_kind:
        kinds = sorted(found.failures_by_kind.items(), key=lambda pair: (-pair[1], pair[0]))
        lines.append("failures  " + ", ".join(f"{count:,} {kind}" for kind, count in kinds))
    usage = found.usage
    cost = f"; cost {found.cost:.4f} {found.currency}" if found.cost is not None else ""
    lines.append(f"tokens    {usage.prompt_tokens:,} in, {usage.completion_tokens:,} out{cost}")
    if found.simulated:
        lines.append("simulated the answers come from the simulated provider, not from a model")
    return lines + [f"note      {printable(note)}" for note in found.notes] + [f"files     {printable(found.output)}"]


@click.command(short_help="Prove from the files that no item is lost or doubled.")
@_PLACE
@json_option
def verify(place: Path, as_json: bool) -> None:
    """Prove from the files alone that each item is exactly one of result, failure and pending.

    Prints a line for each finding, and the counts. Nothing is changed, and no lock is taken.

    \b
    Findings:
      missing     the journal knows of a record that is in no file
      duplicated  an item has two records
      foreign     a line or a record that no run wrote here
      torn        a record that was durable is damaged
      changed     item, job or file is not what the result was made from
      orphaned    a record whose item is not in the input now

    \b
    Example:
      batchrun verify job.toml && echo "nothing is missing"

    Exit codes: 0 nothing found, 2 the job or its input cannot be read, 3 something found.
    """
    from batchrun.audit import audit
    from batchrun.cli.execution import refusing
    from batchrun.locate import locate

    with refusing(None):
        found = audit(locate(place))
    if as_json:
        print_data(printable_json(json.dumps(found.as_dict(), ensure_ascii=False)))
    else:
        for line in _account(found):
            print_data(line)
    raise SystemExit(found.exit_code)


def _account(found: Audit) -> list[str]:
    lines = [f"{one.fault:11} {printable(one.place)}: {printable(one.message)}" for one in found.findings]
    lines += [f"remark      {printable(remark)}" for remark in found.remarks]
    faults = Counter(one.fault.value for one in found.findings)
    items = "items unknown" if found.items is None else f"{found.items:,} items"
    pending = "" if found.pending is None else f" + {found.pending:,} pending"
    in_flight = f", {found.in_flight:,} calls in flight" if found.in_flight else ""
    counts = f"{items}: {found.results:,} results + {found.failures:,} failures{pending}{in_flight}"
    live = "; a run is at it" if found.is_live else ""
    verdict = ", ".join(f"{count:,} {fault}" for fault, count in sorted(faults.items())) or "nothing found"
    return [*lines, f"{counts}; {verdict}{live}"]


@click.command(short_help="Judge the stored answers again, by the schema as it is now.")
@_PLACE
@json_option
def reparse(place: Path, as_json: bool) -> None:
    """Judge every stored answer again, after the schema or batchrun changed. Nothing is sent, nothing is paid.

    Name the job file to use the schema that it names now. Outputs that are no longer valid go to the failure queue,
    and failures whose answer is valid now become results. The files change together or not at all.

    \b
    Example:
      batchrun reparse job.toml

    Exit codes: 0 no failures, 2 nothing was changed: something is wrong here, 3 the failure queue is not empty,
    75 a run is at it.
    """
    from batchrun.cli.execution import refusing
    from batchrun.locate import locate
    from batchrun.reparse import reparse as judge_again

    with refusing(None):
        done = judge_again(locate(place, to_change=True))
    if as_json:
        print_data(printable_json(json.dumps(done.as_dict(), ensure_ascii=False)))
    else:
        print_data(f"reparsed  {done.results:,} results, {done.failures:,} failures now")
        print_data(f"          {done.changed:,} outputs changed, {done.failed:,} results became failures, "
                   f"{done.cured:,} failures became results")  # fmt: skip
    raise SystemExit(done.exit_code)
