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

#: The commands as `batchrun --help` shows them.
_SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Get to know an endpoint": (check, models, probe, simulate),
    "Run a job": (init, run, status, ctl, retry, schedule),
    "See what came of it": (verify, report, export, explain),
    "Read answers": (extract, reparse),
}


class _Sections(click.Group):
    """A group whose commands stand in sections, in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        return [str(command.name) for commands in _SECTIONS.values() for command in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{command.name:<9}", command.get_short_help_str(90)) for command in commands])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="batchrun")
def main() -> None:
    """Run JSONL prompts through an OpenAI-compatible endpoint, and lose none of them.

    \b
    Start here, without a key and without a network:
      batchrun init my-job
      batchrun run my-job/job.toml

    Send only non-sensitive data that can be sent again: no sensitive personal, confidential customer, regulated or
    residency-bound data.
    """
    open_closed_streams()
    leave_no_core()


for _commands in _SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
