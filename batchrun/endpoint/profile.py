"""The profile of an endpoint and a model: what `probe` measured there and what runs learned, kept between runs.

Profiles are JSON files in the user's data directory (`$XDG_DATA_HOME`, else `~/.local/share`), one for each pair of
base URL and model. They hold no key, and nothing of the user's prompts and answers.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import os
import re
import stat
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import orjson

from batchrun.endpoint.blame import MAX_TOKENS
from batchrun.records import utc_now
from batchrun.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: The form of the file. A file of another one is not read.
FORMAT = 1
_MAX_FACTS = 500
_MAX_WORDS = 500


class Verdict(StrEnum):
    """What an endpoint does with something that it is asked for."""

    SUPPORTED = "supported"
    IGNORED = "accepted but ignored"
    REJECTED = "rejected"
    UNCLEAR = "unclear"
    #: Taken in a run, whether with or without effect.
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known: what became of a parameter with a value, or of a way to ask for JSON.

    `name` is a parameter's name, or one of `json_schema`, `tool`, `tool_required`, `json_object` (their value is None),
    or `stream`. `thinking` is the state in which that was so, None where it is not known. `words` are the provider's.
    With `among` it holds only for a request that has these other parameters; for a way to ask for JSON, only for the
    schema that is known by it.
    """

    name: str
    value: Any
    verdict: Verdict
    words: str = ""
    thinking: bool | None = None
    at: str = field(default_factory=utc_now)
    by: Literal["probe", "run"] = "run"
    among: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the capability matrix: the verdict, the words that explain it, and the calls that it rests on."""

    verdict: Verdict
    words: str
    evidence: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of one model at one base URL. Times are UTC as in the records.

    `thinks` tells whether the model thinks by default, `switches` how that is changed: the parameters for on and off.
    `max_tokens` is the name of the parameter that is obeyed, None where that is not known.
    """

    base_url: str
    model: str
    dialect: str = "generic"
    simulated: bool = False
    probed_at: str | None = None
    learned_at: str | None = None
    thinks: bool | None = None
    switches: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: str | None = None
    cells: Mapping[str, Cell] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    #: What runs found of its limits: concurrency, requests_per_minute, tokens_per_minute; null where they found none.
    limits: Mapping[str, float | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def fact(self, name: str, value: Any, *, thinking: bool | None, among: tuple[str, ...] = ()) -> Fact | None:
        """Give the newest fact about a name and a value that holds in this state of thinking; None if there is none."""
        for fact in reversed(self.facts):
            if (
                fact.name == name
                and _same(fact.value, value)
                and fact.thinking in (None, thinking)
                and fact.among in (None, among)
            ):
                return fact
        return None

    def with_facts(self, facts: Iterable[Fact]) -> Profile:
        """Give the profile with further facts; each takes the place of the one about the same thing."""
        known = list(self.facts)
        for fact in facts:
            # What streams or does not is one question: the newest answer to it is the only one.
            is_way = fact.name == "stream"
            known = [one for one in known if not (_about_the_same(one, fact) or (is_way and one.name == "stream"))]
            known.append(fact)
        return replace(self, facts=tuple(known[-_MAX_FACTS:]), learned_at=utc_now())

    @property
    def measured_at(self) -> str:
        """Give the date (UTC) of the newest measurement or lesson."""
        return max(self.probed_at or "", self.learned_at or "")[:10] or "an unknown date"

    def age_s(self) -> float | None:
        """Give the seconds since the probe, or since the newest lesson where there was none; None if unknown."""
        at = self.probed_at or self.learned_at
        if at is None:
            return None
        return max(0.0, (datetime.datetime.now(datetime.UTC) - _time(at)).total_seconds())


def _time(text: str) -> datetime.datetime:
    """Parse a time as the records have it, UTC where nothing else is said. Raises `ValueError`."""
    then = datetime.datetime.fromisoformat(text)
    return then if then.tzinfo else then.replace(tzinfo=datetime.UTC)


def _same(one: object, other: object) -> bool:
    # 1 and True are equal, and not the same in JSON.
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _about_the_same(one: Fact, other: Fact) -> bool:
    same = one.name == other.name and _same(one.value, other.value)
    return same and one.thinking == other.thinking and one.among == other.among


# --- the file ---------------------------------------------------------------------------------------------------


class ProfileError(Exception):
    """A profile cannot be read or written; a run goes on without it."""


class NewerProfileError(ProfileError):
    """A profile was written by a newer version, and is not to be replaced."""


def data_home(variables: Mapping[str, str]) -> Path | None:
    """Give the folder for the profiles, None if the user has no home.

    Source: the XDG Base Directory Specification; a path that is not absolute is to be ignored.
    """
    home = variables.get("XDG_DATA_HOME", "")
    if not home.startswith("/"):
        try:
            home = str(Path.home() / ".local/share")
        except RuntimeError:
            return None
    return Path(home) / "batchrun" / "profiles"


def profile_path(base_url: str, model: str, variables: Mapping[str, str]) -> Path | None:
    """Give the path of a profile, whether it is there or not; readable, and another one for any other pair."""
    folder = data_home(variables)
    if folder is None:
        return None
    plain = _plain(base_url)
    digest = blake2b(f"{plain}\n{model}".encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{plain.partition('://')[2]} {model}").strip("_.")[:80]
    return folder / f"{readable}.{digest}.json"


def _plain(base_url: str) -> str:
    """Spell a base URL in one way: its host in lower case, without the port that goes without saying."""
    parts = urlsplit(base_url.rstrip("/"))
    usual = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    host = parts.netloc.lower()
    return f"{parts.scheme}://{host.removesuffix(usual) if usual else host}{parts.path}"


def load_profile(path: Path | None) -> Profile | None:
    """Read a profile, None if there is none. Raises `ProfileError` for a file that is none."""
    if path is None:
        return None
    try:
        text = _content(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProfileError(f"the profile {path} cannot be read: {error.strerror}") from error
    try:
        value = orjson.loads(text)
        form = value["format"]
        if isinstance(form, int) and form > FORMAT:
            raise NewerProfileError(f"the profile {path} is of a newer version of batchrun; it is left alone")
        return _from_plain(value)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ProfileError(
            f"the profile {path} is not one that can be read ({error}); it is not used, and the next lesson or "
            "batchrun probe replaces it"
        ) from error


def _content(path: Path) -> bytes:
    """Read a file that is one, not a link to one of others, nor a pipe, which would be waited for."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read()


def update_profile(path: Path | None, change: Callable[[Profile | None], Profile]) -> None:
    """Write a profile that is made from the one that is there (None: none that can be read), private to the user.

    Others who write at the same time wait. Raises `ProfileError`.
    """
    if path is None:
        raise ProfileError("the profile cannot be saved: this user has no home, and XDG_DATA_HOME is not set")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            try:
                before = load_profile(path)
            except NewerProfileError:
                raise
            except ProfileError:
                before = None
            _write(change(before), path)
        finally:
            os.close(folder)
    except OSError as error:
        raise ProfileError(f"the profile {path} cannot be saved: {error.strerror}") from error


def save_profile(profile: Profile, path: Path | None) -> None:
    """Write a profile, whatever is there. Raises `ProfileError`."""
    update_profile(path, lambda _before: profile)


def _write(profile: Profile, path: Path) -> None:
    """Put a profile into its place in one step."""
    profile = replace(profile, versions={"batchrun": __version__, "python": sys.version.split()[0]})
    text = orjson.dumps({"format": FORMAT, **asdict(profile)}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    # Private by itself (0600), whatever the umask.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as made:
        try:
            made.write(text)
            made.flush()
            os.fsync(made.fileno())
            Path(made.name).replace(path)
        except OSError:
            Path(made.name).unlink(missing_ok=True)
            raise


def _from_plain(value: Any) -> Profile:
    """Make a profile of what a file holds. Raises `ValueError` and others for what is none."""
    if value["format"] != FORMAT:
        raise ValueError(f"its format is {value['format']!r}, not {FORMAT}")
    made = {key: one for key, one in value.items() if key != "format"}
    cells = {
        str(name): Cell(Verdict(one["verdict"]), _text(one["words"]), tuple(one["evidence"]))
        for name, one in made.pop("cells").items()
    }
    facts = tuple(_fact(one) for one in made.pop("facts"))
    profile = Profile(**made, cells=cells, facts=facts)
    for name in ("base_url", "model", "dialect"):
        _text(made[name])
    for name in ("probed_at", "learned_at"):
        if made[name] is not None:
            _time(_text(made[name]))
    if made["max_tokens"] not in (None, *MAX_TOKENS):
        raise ValueError(f"max_tokens is {made['max_tokens']!r}")
    limits = made.get("limits", {})
    if not isinstance(limits, dict) or not all(one is None or _is_positive(one) for one in limits.values()):
        raise ValueError("limits is no table of numbers above zero")
    if made["thinks"] not in (None, True, False) or type(made["simulated"]) is not bool:
        raise ValueError("thinks or simulated is neither true nor false")
    switches = made["switches"]
    if not isinstance(switches, dict) or not all(isinstance(one, dict) for one in switches.values()):
        raise ValueError("switches is no table of tables")
    return profile


def _fact(one: dict[str, Any]) -> Fact:
    among = one.get("among")
    if one.get("thinking") not in (None, True, False) or one.get("by") not in ("probe", "run"):
        raise ValueError("a fact is none")
    return Fact(
        _text(one["name"]), one["value"], Verdict(one["verdict"]), _text(one["words"]), one["thinking"],
        _text(one["at"]), one["by"], None if among is None else tuple(_text(name) for name in among),
    )  # fmt: skip


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text")  # noqa: TRY004 - one kind of error for a file that is none
    return value


def shortened(words: str) -> str:
    """Cut a provider's words to what a profile keeps."""
    return words if len(words) <= _MAX_WORDS else words[: _MAX_WORDS - 1] + "…"
