"""`batchrun check` and `batchrun models`: does an endpoint work, and which models does it have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchrun.cli.console import Console, fail, print_data, printable, printable_json
from batchrun.cli.options import endpoint_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchrun.check import Check, Step
    from batchrun.models import ModelList

_INTERRUPTED = 130
#: Where the text of a step begins: behind its state, its name and its time.
_INDENT = " " * 27
_LONGEST = 1000


@click.command(short_help="Test an endpoint step by step, and say what is wrong with it.")
@endpoint_options
def check(job_file: Path | None, base_url: str | None, model: str | None, as_json: bool) -> None:
    """Test an endpoint step by step, from the settings to one short chat. A step that fails is shown with its
    likely cause and the fix.

    JOB is a job file, of which only the endpoint counts. Without it --base-url (or OPENAI_BASE_URL) and -m (or
    OPENAI_MODEL) say what is tested. None of your data is sent, and the one chat costs a few tokens. The last lines
    are the same chat as a curl command, without the key.

    \b
    Example:
      batchrun check --base-url https://api.example.com/v1 -m MODEL_ID

    Exit codes: 0 it works, 2 the settings are wrong or name no model, 4 the trouble is on the endpoint's side.
    """
    from batchrun.check import check as check_endpoint

    try:
        found = check_endpoint(job_file, base_url=base_url, model=model, report=None if as_json else _show)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    if as_json:
        print_data(printable_json(json.dumps(found.as_dict(), ensure_ascii=False)))
    else:
        for line in _ending(found):
            print_data(line)
    raise SystemExit(found.exit_code)


def _show(step: Step) -> None:
    """Print a step that ended, with what to do below it."""
    lines = step.detail.split("\n")
    # A step that was not done took no time.
    time = "" if step.status == "skipped" else f"{step.seconds:.2f}s"
    print_data(f"{step.status:8}{step.name:9} {time:>7}  {printable(lines[0], _LONGEST)}")
    for line in lines[1:]:
        print_data(_INDENT + printable(line, _LONGEST))
    for line in step.diagnosis.split("\n") if step.diagnosis else ():
        print_data(_INDENT[:-3] + "-> " + printable(line, _LONGEST))


def _ending(found: Check) -> Iterable[str]:
    yield ""
    failed = next((step for step in found.steps if step.status == "failed"), None)
    if failed is None:
        yield "The endpoint works."
    else:
        yield f"It does not work: {failed.name}: {printable(failed.detail.partition(chr(10))[0], _LONGEST)}"
    if found.simulated:
        yield "Simulated: the provider ended with this command; `batchrun simulate` starts one that stays."
    if found.curl is not None:
        yield "The same chat with curl:"
        yield found.curl


@click.command(short_help="List the model ids that your key can see.")
@endpoint_options
def models(job_file: Path | None, base_url: str | None, model: str | None, as_json: bool) -> None:
    """List the model ids that your key can see, one a line, and behind a tab what the provider says of each.

    JOB is a job file, of which only the endpoint counts. Without it --base-url (or OPENAI_BASE_URL) says which
    endpoint is asked. With -m, standard error tells whether that id is among them. --json has the entries complete.

    \b
    Example:
      batchrun models job.toml | cut -f1

    Exit codes: 0 there is a list, 2 the settings are wrong, 4 the endpoint has no list or refuses it.
    """
    from batchrun.job import JobError
    from batchrun.models import list_models, why_no_list
    from batchrun.records import EndpointError

    try:
        found = list_models(job_file, base_url=base_url)
    except JobError as error:
        fail(str(error), 2)
    except EndpointError as error:
        fail(why_no_list(error), 4)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    if as_json:
        print_data(printable_json(json.dumps(found.as_dict(), ensure_ascii=False)))
    elif found.models:
        print_data("\n".join(_line(found)))
    _remarks(found, model)


def _line(found: ModelList) -> Iterable[str]:
    for model in found.models:
        facts = printable(", ".join(model.facts()), _LONGEST)
        yield printable(model.id, _LONGEST) + (f"\t{facts}" if facts else "")


def _remarks(found: ModelList, model: str | None) -> None:
    from batchrun.models import near

    console = Console()
    if not found.models:
        console.line("batchrun: the list is empty: this key sees no model, or none is loaded")
    if found.has_more:
        console.line("batchrun: the endpoint says that there are more than these")
    if model is not None and model in found.ids:
        console.line(f"batchrun: {printable(model)} is listed")
    elif model is not None:
        meant = near(model, found.ids)
        hint = f"; near: {', '.join(printable(one) for one in meant)}" if meant else ""
        console.line(f"batchrun: {printable(model)} is not listed{hint}")
