"""`batchrun explain`: what an error kind means, where it comes from, and what helps."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

import click

from batchrun.cli.console import columns, print_data

if TYPE_CHECKING:
    from batchrun.records import ErrorKind


class Explanation(NamedTuple):
    """What a kind means, what it usually comes from, what helps; lines of text each."""

    means: str
    causes: tuple[str, ...]
    helps: tuple[str, ...]


EXPLANATIONS: dict[str, Explanation] = {
    "invalid_input": Explanation(
        "A line of the input could not be made into a request. Nothing of it was sent.",
        (
            "The line is no JSON object, is cut off, or is in another encoding than the job says.",
            "The template names a field that this item does not have, or that is null.",
        ),
        (
            "The message names line and reason; the bytes are kept in the record's `input`.",
            "Correct the input and run again: only what is new or changed is sent.",
            'For GBK files: encoding = "gb18030" in the job.',
        ),
    ),
    "duplicate_id": Explanation(
        "An id stands on more than one line. The first one counts; the others were not sent.",
        ("Files were joined that count their ids from 1.", "The same export was appended twice."),
        ("Give every line an id of its own, or leave ids out: then the line number is the id.",),
    ),
    "data_boundary": Explanation(
        "The scan found what looks like personal data or a secret. Nothing of the item was sent.",
        (
            "A telephone, card or identity number, an address or a key stands in the named field.",
            "A number that only looks like one: 1 in 17 random numbers of 11 digits has the form of a mobile number.",
        ),
        (
            "Take it out of the item, or leave the field out with data_boundary.skip if its values may leave.",
            'data_boundary.scan = "redact" sends placeholders; "warn" sends it and says so.',
            "batchrun run JOB --dry-run counts what is found, by detector, and sends nothing.",
        ),
    ),
    "bad_request": Explanation(
        "The provider refused this one request (HTTP 400, 404, 413 or 422), whatever is tried again.",
        (
            "A parameter, role or message that this model does not take.",
            "A request larger than the limit of tokens a minute.",
        ),
        (
            "Read the provider's words in the record. If many items have it, compare with `batchrun probe JOB`.",
            "batchrun retry RUNDIR --kind bad_request --set NAME=VALUE tries the same items with other parameters.",
        ),
    ),
    "context_length": Explanation(
        "Prompt and answer together are longer than the model's context.",
        ("A long text, or max_tokens that leaves no room for it.",),
        ("Shorten or split the item, lower max_tokens, or use a model with a longer context.",),
    ),
    "content_filter": Explanation(
        "The provider's moderation refused the prompt or the answer.",
        ("The text touches what the provider does not process; some filters react to single words.",),
        (
            "Asking again rarely helps. Rephrase the prompt around the item, or leave the item out.",
            "If harmless texts are refused, ask the provider, or use another model for these items.",
        ),
    ),
    "truncated": Explanation(
        "The answer was cut off at the limit of its length, so it is no result.",
        ("max_tokens is too low, or thinking used it up before the answer began.",),
        (
            "batchrun retry RUNDIR --kind truncated --set max_tokens=8192",
            "Ask for shorter answers, or switch thinking off: endpoint.thinking = false.",
        ),
    ),
    "invalid_output": Explanation(
        "An answer came, and it is no JSON, or none that the schema takes.",
        (
            "The model does not keep to the schema, or the schema asks for more than the prompt explains.",
            "Several JSON values stand in the answer, and it is not clear which one is meant.",
        ),
        (
            "The answer is in the record's provider.body: look at a few, then mend prompt or schema.",
            "A looser schema can be tried on the stored answers without paying: batchrun reparse JOB.",
            "structured.reask = 2 lets the model try again with the validator's message.",
        ),
    ),
    "empty_output": Explanation(
        "The answer came to a good end and holds nothing.",
        ("Overload at the provider, thinking that took all tokens, or a prompt that calls for no answer.",),
        ("Run the failures again later: batchrun retry RUNDIR --kind empty_output. Raise max_tokens.",),
    ),
    "timeout": Explanation(
        "No complete answer came in time, in all attempts. The provider may bill them all the same.",
        ("A long answer, a queue at the provider, or a server that went silent.",),
        (
            "Raise retry.attempt_timeout, lower limits.concurrency, or stream: endpoint.stream = true.",
            "If it is every item: batchrun check JOB.",
        ),
    ),
    "network": Explanation(
        "The connection failed or broke off, in all attempts.",
        ("No route, a name that is not found, a proxy or firewall in between, a server that restarts.",),
        ("batchrun check JOB tells which step fails: name, TCP, TLS or HTTP.", "Then batchrun retry RUNDIR."),
    ),
    "rate_limited": Explanation(
        "The provider refused the item for its pace (HTTP 429), in all attempts, though batchrun slowed down.",
        ("Other programs use the same account, or the limit is far below what was told.",),
        (
            "Tell the limits of your account: requests_per_minute and tokens_per_minute under [limits].",
            'Runs on one account share them by limits.scope = "NAME".',
        ),
    ),
    "server_error": Explanation(
        "The provider had trouble (HTTP 5xx or an error in its answer), in all attempts.",
        ("Overload or an outage; now and then one item that a server cannot digest.",),
        ("batchrun retry RUNDIR later. If one item fails every time, it is the item.",),
    ),
    "invalid_response": Explanation(
        "What came back is no chat completion, in all attempts.",
        ("A gateway's page or half an answer with status 200; a base URL that answers something else.",),
        ("Look at provider.body in the record; batchrun check JOB if it is every item.",),
    ),
    "auth": Explanation(
        "The key was refused. The run stopped; no item is blamed and all that is left is pending.",
        ("A wrong or expired key, a key of another region or provider, the wrong variable.",),
        ("batchrun check JOB shows which variable the key comes from and its last four characters.",),
    ),
    "permission": Explanation(
        "The key may not use this model or service. The run stopped; what is left is pending.",
        ("The model is not enabled for the account, or the project has no right to it.",),
        ("batchrun models JOB lists what the key can see; enable the model in the provider's console.",),
    ),
    "quota": Explanation(
        "The account is out of balance or quota. The run stopped; what is left is pending.",
        ("The balance is used up, or a free quota has ended.",),
        ("Top up or wait for the renewal, then run the same command again: nothing is paid for twice.",),
    ),
    "model_not_found": Explanation(
        "There is no such model for this key. The run stopped; what is left is pending.",
        ("A typing mistake, a retired id, or an id of another provider.",),
        ("batchrun models JOB lists the ids, spelled as the provider spells them.",),
    ),
    "not_an_api": Explanation(
        "The address does not answer as an API. The run stopped; what is left is pending.",
        ("base_url lacks /v1, points at a web page, a login or a redirect; a TLS certificate is not trusted.",),
        ("batchrun check JOB looks for the right root on the same server.",),
    ),
}


def _kinds(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:  # noqa: ARG001
    """Complete an error kind."""
    return [kind for kind in EXPLANATIONS if kind.startswith(begun)]


@click.command(short_help="Say what an error kind means and what helps.")
@click.argument("kind", metavar="[KIND]", required=False, shell_complete=_kinds)
def explain(kind: str | None) -> None:
    """Say what an error kind means, where it usually comes from, and what helps.

    Without KIND: all kinds, a line each.

    \b
    Example:
      batchrun explain truncated
    """
    from batchrun.expect import meant_or_known
    from batchrun.records import ErrorKind

    if kind is None:
        for name in ErrorKind:
            print_data(f"{name.value:17} {EXPLANATIONS[name.value].means.partition('. ')[0].rstrip('.')}.")
        return
    if kind not in EXPLANATIONS:
        raise click.UsageError(f"{kind!r} is no error kind{meant_or_known(kind, list(EXPLANATIONS))}")
    for line in _page(ErrorKind(kind)):
        print_data(line)


def _page(kind: ErrorKind) -> list[str]:
    from batchrun.records import RUN_KINDS, TRANSIENT_KINDS

    what = EXPLANATIONS[kind.value]
    again = (
        "It stops the run (exit code 4)."
        if kind in RUN_KINDS
        else "It is tried again, up to retry.max_attempts times."
        if kind in TRANSIENT_KINDS
        else "The item stands in the failure queue (exit code 3)."
    )
    lines = [kind.value, *_wrapped(f"{what.means} {again}", "  "), "", "  Where it comes from"]
    for cause in what.causes:
        lines += _wrapped(cause, "  - ", "    ")
    lines += ["", "  What helps"]
    for help_ in what.helps:
        lines += _wrapped(help_, "  - ", "    ")
    return lines


def _wrapped(text: str, first: str, then: str | None = None) -> list[str]:
    width = max(40, min(100, columns()))
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=first if then is None else then,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
