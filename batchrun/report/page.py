"""The page: what a run directory says, put into the template. It loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound
from markupsafe import Markup, escape

from batchrun.job import JobError
from batchrun.report.gather import gather
from batchrun.report.samples import add_inputs
from batchrun.report.views import Views
from batchrun.report.visible import Veil, marked, plain
from batchrun.report.words import Words
from batchrun.settings import environment, read_key
from batchrun.status import read_beside_a_run, status_of
from batchrun.store import StoreError
from batchrun.store.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from batchrun.job import DataBoundary, Job
    from batchrun.locate import Located

#: A shorter key is a placeholder; taking it out would spoil the page.
_SHORTEST_SECRET = 8
_START = b"<!doctype html>"


def default_language(variables: Mapping[str, str]) -> str:
    """Give the language of the page that the locale asks for: "zh" or "en"."""
    locale = variables.get("LC_ALL") or variables.get("LC_MESSAGES") or variables.get("LANG") or ""
    return "zh" if locale.lower().startswith("zh") else "en"


def make_report(located: Located, language: str, *, samples: int = 3, named: str | None = None) -> bytes:
    """Make the page about a run directory as it stands now, in UTF-8.

    `samples` is how many results, and how many failures of each kind, are shown; `named` what the run directory or the
    job is called in commands. The same files give the same page, but for its time. Memory does not grow with the
    number of records beyond the index of the run directory. Raises `StoreError` for damaged files.
    """
    words = Words(language)
    found = read_beside_a_run(located)
    status = status_of(located, found)
    key = _key(located.job)
    mask, problem = _mask(located.job.data_boundary)
    veil = Veil(*([mask] if mask else []), _without(key))
    facts = gather(found, veil, 0 if problem else samples)
    add_inputs(facts.results, located.job, veil)
    views = Views(located, status, facts, words, veil, named=named or str(located.folder), problem=problem)
    page = _template().render(views.all(), w=words)
    return _without(key)(page).encode("utf-8", "replace")


def save_report(page: bytes, path: Path) -> None:
    """Put a page in place in one step, private to the user; in the place of a page or of nothing only.

    Pipes and devices are written to. Raises `StoreError`.
    """
    try:
        if path.exists() and not path.is_file():
            if path.is_dir():
                raise StoreError(f"{path}: is a folder; name a file")
            path.write_bytes(page)
            return
        if path.exists() and not _is_page(path):
            raise StoreError(f"{path}: is there and is no HTML page; it is left alone, name another file")
    except OSError as error:
        raise StoreError.of(path, "writing", error) from error
    replace_file(path, page)


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(len(_START))
    return not start or start.lower() == _START


# --- what must not be on it ---------------------------------------------------------------------------------------


def _key(job: Job) -> str | None:
    """Give the key that the job would use now, None if there is none to be had."""
    try:
        key = read_key(job.endpoint, environment(job))
    except JobError:
        return None
    return key if key and len(key) >= _SHORTEST_SECRET else None


def _without(key: str | None) -> Callable[[str], str]:
    if key is None:
        return lambda text: text
    escaped = str(escape(key))
    return lambda text: text.replace(key, "[key]").replace(escaped, "[key]")


def _mask(boundary: DataBoundary) -> tuple[Callable[[str], str] | None, str]:
    """Give what puts names in the place of what the job's scan finds, or the problem with it."""
    if boundary.scan == "off":
        return None, ""
    from batchrun.boundary import Scanner

    try:
        own = boundary.words_file.read_text("utf-8-sig").splitlines() if boundary.words_file else []
        words = (*boundary.words, *(word for line in own if (word := line.strip())))
        scanner = Scanner(boundary.detectors, boundary.patterns, words)
    except (OSError, ValueError) as error:
        return None, str(error)

    def mask(text: str) -> str:
        for _ in range(2):  # what stood beside a hit may be one, once that is gone
            for hit in reversed(scanner.find(text)):
                text = f"{text[: hit.start]}[{hit.detector}]{text[hit.end :]}"
        return text

    return mask, ""


# --- the template -------------------------------------------------------------------------------------------------


class _Files(BaseLoader):
    """The templates of this package."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, None]:  # noqa: ARG002
        """Give the text of a template."""
        try:
            return _text(template), None, None
        except OSError as error:
            raise TemplateNotFound(template) from error


def _text(name: str) -> str:
    return (resources.files("batchrun.report") / name).read_text("utf-8")


def _shown(value: Any) -> Any:
    """Show a value: whatever text comes, whoever wrote it, is escaped and made visible."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return marked(value)
    return value


@cache
def _template() -> Any:
    style = _text("page.css")
    made = Environment(
        loader=_Files(), autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(plain=plain, pct=lambda value: f"{value:.3f}".rstrip("0").rstrip("."))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    made.globals.update(style=Markup(style), style_hash=digest)  # noqa: S704 - it is ours
    return made.get_template("page.html")
