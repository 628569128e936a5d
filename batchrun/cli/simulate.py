"""`batchrun simulate`: a simulated provider on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batchrun.cli.console import fail, print_data


class _Rate(click.ParamType[Any]):
    name = "NAME=RATE[:COUNT]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        name, _, rest = str(value).partition("=")
        rate, colon, count = rest.partition(":")
        try:
            return name, {"rate": float(rate), "count": int(count)} if colon else float(rate)
        except ValueError:
            expected = "expected NAME=RATE or NAME=RATE:COUNT with a rate from 0 to 1 and a whole number"
            self.fail(f"{expected}, got {value!r}", param, ctx)


class Duration(click.ParamType[Any]):
    """A duration such as 200ms, 90s, 10m or 1h30m, as seconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the value, or fail with what was expected."""
        from batchrun.expect import duration

        try:
            return 0.0 if value in ("0", 0, 0.0) else duration(float(value) if _is_number(value) else value)
        except ValueError as error:
            self.fail(f"expected {error}, got {value!r}", param, ctx)


def _is_number(value: object) -> bool:
    return str(value).replace(".", "", 1).isdecimal()


def _dialects(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:  # noqa: ARG001
    """Complete a provider family."""
    from batchrun.simulator.dialects import DIALECTS

    return [name for name in DIALECTS if name.startswith(begun)]


@click.command(short_help="Start a simulated provider on this machine, to rehearse with.")
@click.option(
    "--dialect", default="openai", show_default=True, metavar="NAME", shell_complete=_dialects,
    help="The provider family to speak like; a wrong name lists them all.",
)  # fmt: skip
@click.option(
    "--port", default=8000, show_default=True, metavar="N", type=click.IntRange(0, 65535), help="0 takes any free port."
)
@click.option("--latency", default=0.0, type=Duration(), help="Time before an answer begins.")
@click.option("--jitter", default=0.0, type=Duration(), help="Up to this much more, by chance.")
@click.option("--rpm", type=click.IntRange(1), metavar="N", help="Refuse more requests a minute than this.")
@click.option("--tpm", type=click.IntRange(1), metavar="N", help="Refuse more tokens a minute than this.")
@click.option(
    "--max-concurrency", type=click.IntRange(1), metavar="N", help="Refuse more requests at a time than this."
)
@click.option(
    "--fault", "faults", multiple=True, type=_Rate(),
    help="Inject a fault at this rate, at most COUNT times. May be repeated.",
)  # fmt: skip
@click.option("--moderation-keyword", metavar="TEXT", help="What the fault moderation_on_keyword looks for.")
@click.option("--list-faults", is_flag=True, help="List the faults that can be injected, and end.")
@click.option("--seed", default=0, show_default=True, metavar="N", help="Another seed, other answers and faults.")
@click.option("--api-key", metavar="KEY", help="Demand this key; make one up, never use a real one.")
@click.option(
    "--ledger", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write a line for each call."
)
def simulate(port: int, list_faults: bool, **options: Any) -> None:
    """Start a simulated provider on this machine. Its answers say that they are simulated.

    It speaks chat completions, streaming too, as the chosen family does: its paths, errors, limits and request rules.
    It gives the same answer to the same prompt and makes trouble on request. Any model name works; one with
    "thinking" in it thinks, one with "stream-only" only streams, one with "missing" does not exist.

    Point a job at it with --base-url, or write simulate = "openai" into the job to have one started inside the run.

    \b
    Example:
      batchrun simulate --dialect deepseek --latency 300ms --fault http_503=0.05
    """
    import asyncio

    from batchrun.simulator import FAULTS, SettingsError, SimulatorSettings

    if list_faults:
        for name, what in FAULTS.items():
            print_data(f"{name:38}{what}")
        return
    try:
        keyword = options["moderation_keyword"]
        settings = SimulatorSettings(
            dialect=options["dialect"], latency_s=options["latency"], jitter_s=options["jitter"],
            requests_per_minute=options["rpm"], tokens_per_minute=options["tpm"],
            max_concurrency=options["max_concurrency"], faults=dict(options["faults"]), seed=options["seed"],
            api_key=options["api_key"], ledger=options["ledger"],
            **({} if keyword is None else {"moderation_keyword": keyword}),
        )  # fmt: skip
        asyncio.run(_serve(settings, port))
    except SettingsError as error:
        fail(str(error), 2)
    except OSError as error:
        fail(f"port {port}: {error.strerror or error}", 2)


async def _serve(settings: Any, port: int) -> None:
    import asyncio
    import signal

    from batchrun.simulator import Simulator

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(settings, port=port) as simulator:
        print_data(f"simulated provider at {simulator.base_url} (Ctrl-C ends it)")
        await ended.wait()
