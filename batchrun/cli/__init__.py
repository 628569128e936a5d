"""The command line: parse, call, print. Every other room is imported only when a command needs it."""

from __future__ import annotations

import click

from batchrun.cli.check import check, models
from batchrun.cli.console import leave_no_core, open_closed_streams
from batchrun.cli.ctl import ctl
from batchrun.cli.explain import explain
from batchrun.cli.export import export
from batchrun.cli.extract import extract
from batchrun.cli.init import init
from batchrun.cli.inspect import reparse, status, verify
from batchrun.cli.probe import probe
from batchrun.cli.report import report
from batchrun.cli.retry import retry
from batchrun.cli.run import run
from batchrun.cli.schedule import schedule
from batchrun.cli.simulate import simulate
from batchrun.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="batchrun")
def main() -> None:
    """Run JSONL prompts through an OpenAI-compatible endpoint, and lose none of them.

    \b
    Start here:  batchrun init my-job && cd my-job && batchrun run job.toml

    Send only non-sensitive data that can be sent again: no sensitive personal, confidential customer, regulated or
    residency-bound data.
    """
    open_closed_streams()
    leave_no_core()


main.add_command(run)
main.add_command(retry)
main.add_command(status)
main.add_command(ctl)
main.add_command(verify)
main.add_command(reparse)
main.add_command(export)
main.add_command(report)
main.add_command(check)
main.add_command(models)
main.add_command(probe)
main.add_command(extract)
main.add_command(schedule)
main.add_command(explain)
main.add_command(init)
main.add_command(simulate)
