"""`batchrun schedule`: a job's schedule for cron and for systemd."""

from __future__ import annotations

from pathlib import Path

import click

from batchrun.cli.console import fail, print_data, printable


@click.command(short_help="Print the crontab line and the systemd timer for a job.")
@click.argument("job_file", metavar="JOB", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--cron", "only_cron", is_flag=True, help="Only the lines for crontab -e.")
@click.option("--systemd", "only_systemd", is_flag=True, help="Only the service and the timer.")
def schedule(job_file: Path, *, only_cron: bool, only_systemd: bool) -> None:
    """Print the crontab line and the systemd service and timer for the [schedule] of a job.

    Nothing is installed. Comments say where each part goes, and what of the job may go wrong when nobody is there.

    \b
    Example:
      batchrun schedule job.toml --cron

    Exit codes: 0 printed, 2 the job or its schedule is wrong.
    """
    from batchrun.job import JobError
    from batchrun.scheduling import crontab, plan, service, timer

    both = only_cron == only_systemd
    try:
        made = plan(job_file)
    except JobError as error:
        fail(str(error), 2)
    lines = [f"# Careful: {printable(warning, 2000)}" for warning in made.warnings]
    if only_cron or both:
        lines += ["", *crontab(made)]
    if only_systemd or both:
        places = [f"/etc/systemd/system/{made.name}.{kind}" for kind in ("service", "timer")]
        folders = " ".join(shell_word(str(folder)) for folder in made.writable)
        lines += [
            "",
            f"# --- {places[0]}, with `mkdir -p {printable(folders, 9000)}` as {made.user} ---",
            *service(made),
            "",
            f"# --- {places[1]}, then `systemctl daemon-reload && systemctl enable --now {made.name}.timer` ---",
            *timer(made),
        ]
    print_data("\n".join(lines).lstrip("\n"))


def shell_word(text: str) -> str:
    """Quote a word for a shell."""
    import shlex

    return shlex.quote(text)
