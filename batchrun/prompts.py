"""Item and job to request body: templates rendered, the schema asked for, one body of bytes and its fingerprint."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache, wraps
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, Protocol

import orjson

from batchrun.job import JobError, Prompt
from batchrun.records import Adapted, ErrorKind, Failure, Item, Request
from batchrun.structured import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from jinja2 import Template

    from batchrun.job import Job
    from batchrun.records import Looked

#: How a schema is asked for in words. It holds the word JSON, which some providers demand for `json_object`.
SCHEMA_INSTRUCTION = (
    "只输出一个符合下面 JSON Schema 的 JSON 值，不要输出解释、Markdown 标记或其他任何文字。\nJSON Schema:\n"
)
_VARIABLE = re.compile(r"\{\{[ \t]*([^\W\d]\w*)[ \t]*\}\}")
#: Jinja's filters that take their value's text.
_TEXT_FILTERS = (
    "capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace", "safe", "string",
    "striptags", "title", "trim", "truncate", "upper", "urlencode", "wordcount", "wordwrap",
)  # fmt: skip
#: A template makes no longer text than this, nor a number of more bits: what providers take is far shorter.
_MAX_PROMPT_CHARS = 16_000_000
_TOO_LONG = f"it makes more than {_MAX_PROMPT_CHARS:,} characters"
_PADDING = ("center", "ljust", "rjust", "zfill", "expandtabs")
_WIDTH = re.compile(r"[0-9]{1,18}")
#: What goes back with an invalid output.
REASK_INSTRUCTION = "上面的输出不能使用：{reason}\n请重新输出，只输出一个符合要求的 JSON 值，不要输出其他任何文字。"


class Looking(Protocol):
    """Who looks at what is about to leave."""

    def look(self, item: Item, body: dict[str, Any]) -> Looked | None:
        """Look through the part of an item's request body that is not the job's own."""


class RequestBuilder:
    """Makes the request of each item of a job. Raises `JobError` for a template that cannot be compiled."""

    def __init__(
        self, job: Job, schema: bytes | None, overrides: Mapping[str, Any] | None = None,
        adapt: Callable[[dict[str, Any]], Adapted] | None = None, guard: Looking | None = None,
    ) -> None:  # fmt: skip
        """`schema` is the JSON text of the job's schema, if it has one; `overrides` win over job and item.

        `guard` looks at what of a body is not the job's own. `adapt` fits a body to the endpoint in place; fingerprints
        are of what was asked for, before it.
        """
        self._overrides = overrides or {}
        self._adapt = adapt
        self._guard = guard
        self._restores = job.data_boundary.restore
        prompt = job.prompt
        self._user = _Template("prompt.user", prompt.user, job) if prompt and prompt.user else None
        self._system = _Template("prompt.system", prompt.system, job) if prompt and prompt.system else None
        self._model = job.endpoint.model
        # Sorted, so that the fingerprint does not follow the order in the job file.
        self._params = dict(sorted(job.params.items()))
        self._schema_text = None
        self._salt = blake2b(orjson.dumps(orjson.loads(schema))).digest() if schema else b""
        mode = effective_mode(job)
        #: Distinguishes requests that differ only in what the endpoint makes of them.
        if job.endpoint.thinking != "auto":
            self._salt = blake2b(self._salt + (b"thinking" if job.endpoint.thinking else b"plain")).digest()
        if schema is not None:
            self._params = {**parameters(mode, orjson.loads(schema)), **self._params}
            if mode in ("prompt", "json_object"):
                self._schema_text = in_words(schema)
        self._own = {"model": self._model, **self._params, **self._overrides}

    def build(self, item: Item) -> Request | Failure:
        """Make the request of an item, or the failure that says why there is none."""
        try:
            body = self._body(item)
            looked = None if self._guard is None else self._guard.look(item, self._not_of_the_job(body))
            if looked is None:
                return self._request(body)
            if looked.problem is not None:
                return Failure(
                    item.id, item.line, ErrorKind.DATA_BOUNDARY, f"line {item.line}: {looked.problem}", item.raw
                )
            request = self._request({**body, **looked.body})
            request.warnings, request.redacted = looked.warnings, looked.redacted
            if looked.redacted is not None and self._restores:  # then the output depends on the values too
                whole = request.fingerprint.encode() + looked.redacted.digest
                request.fingerprint = blake2b(whole, digest_size=16).hexdigest()
            return request  # noqa: TRY300
        except _UnsendableError as error:
            kind = ErrorKind.BAD_REQUEST
            message = str(error)
        except _PromptError as error:
            kind = ErrorKind.INVALID_INPUT
            message = str(error)
        return Failure(item.id, item.line, kind, f"line {item.line}, id {item.id!r}: {message}", item.raw)

    def reask(self, request: Request, answer: str, reason: str) -> Request:
        """Make the request that sends an invalid answer back with what was wrong with it."""
        body = json.loads(request.body)  # whole numbers of any length stay as they are
        redacted = request.redacted
        body["messages"] = [
            *request.messages,
            {"role": "assistant", "content": answer},
            {
                "role": "user",
                "content": REASK_INSTRUCTION.format(reason=redacted.redact(reason) if redacted else reason),
            },
        ]
        again = self._request(body)
        again.warnings, again.redacted = request.warnings, redacted
        return again

    def _request(self, body: dict[str, Any]) -> Request:
        text = _dump(body)
        hashed = blake2b(text, digest_size=16, key=self._salt)
        request = Request(text, hashed.hexdigest(), body["messages"], str(body["model"]))
        if self._adapt is not None:
            adapted = self._adapt(body)
            if adapted.problem is not None:
                raise _UnsendableError(adapted.problem)
            request.stream, request.thinking, request.climbs = adapted.stream, adapted.thinking, adapted.climbs
            request.generation = adapted.generation
            if adapted.changed:
                request.body = _dump(body)
        return request

    def _not_of_the_job(self, body: dict[str, Any]) -> dict[str, Any]:
        """Give what of a body is not said by the job for all items alike."""
        own = self._own
        return {key: value for key, value in body.items() if key not in own or value is not own[key]}

    def _body(self, item: Item) -> dict[str, Any]:
        # `parse_line` takes an item for a Batch line only where it has no prompt and no messages of its own.
        is_batch_line = not (self._user or "prompt" in item.fields or "messages" in item.fields)
        own = item.fields["body"] if is_batch_line else {}
        messages = self._messages(item, own)
        model = own.get("model") or self._model
        if model is None:
            raise _PromptError("no model: set endpoint.model in the job, give -m ID, or set OPENAI_MODEL")
        body = {"model": model, "messages": messages, **self._params}
        if own:
            body |= _without(own, "model", "messages", "stream", "stream_options")
        return {**body, **self._overrides} if self._overrides else body

    def _messages(self, item: Item, own: Mapping[str, Any]) -> list[Any]:
        fields = item.fields
        if self._user:
            messages = [{"role": "user", "content": self._user.render(fields)}]
        elif own:
            messages = list(own["messages"])
        elif "messages" in fields:
            messages = list(fields["messages"])
        else:
            messages = [{"role": "user", "content": fields["prompt"]}]
        if self._system and not (messages and messages[0].get("role") == "system"):
            messages.insert(0, {"role": "system", "content": self._system.render(fields)})
        return with_schema(messages, self._schema_text) if self._schema_text else messages


def made_from(job: Job, schema: bytes | None) -> dict[str, Any]:
    """Give what a job's requests are made from beside the items, by the names that the job file has for it."""
    prompt = job.prompt or Prompt()
    return {
        "prompt.system": prompt.system,
        "prompt.user": prompt.user,
        "endpoint.model": job.endpoint.model,
        **({} if job.endpoint.thinking == "auto" else {"endpoint.thinking": job.endpoint.thinking}),
        **{f"params.{name}": value for name, value in sorted(job.params.items())},
        "structured.mode": effective_mode(job) if schema else None,
        "structured.schema": orjson.loads(schema) if schema else None,
        "encoding": job.encoding,
        **_redaction(job),
    }


def _redaction(job: Job) -> dict[str, Any]:
    """Give what of the data boundary changes requests; where it only looks at them, nothing."""
    boundary = job.data_boundary
    if boundary.scan != "redact":
        return {}
    made = {
        "scan": "redact",
        "detectors": None if boundary.detectors is None else list(boundary.detectors),
        "patterns": dict(boundary.patterns),
        "words": list(boundary.words),
        "words_file": boundary.words_file and _hash_of(boundary.words_file),
        "include": list(boundary.include),
        "skip": list(boundary.skip),
        "restore": boundary.restore,
    }
    return {f"data_boundary.{key}": value for key, value in made.items() if value or key == "detectors"}


def _hash_of(path: Path) -> str | None:
    try:
        return blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return None  # whoever needs the words says so


def accepted_builders(
    job: Job, schema: bytes | None, accepted: list[dict[str, Any]], guard: Looking | None
) -> list[RequestBuilder]:
    """Give builders for other requests whose results count as the job's: retried with changed parameters (`set`),
    or parsed again under the schema that the job has now (`schema` and `mode` are those that it had).
    """
    builders = []
    for other in accepted:
        text, mode = schema, job.structured.mode
        if "schema" in other:
            text = orjson.dumps(other["schema"]) if other["schema"] is not None else None
            mode = other.get("mode") or mode
        structured = replace(job.structured, mode=mode)
        builders.append(RequestBuilder(replace(job, structured=structured), text, other.get("set"), guard=guard))
    return builders


def recipe_of(made: Mapping[str, Any]) -> int:
    """Give a number above zero, of 32 bits, for what `made_from` gives: another one for other requests."""
    words = SCHEMA_INSTRUCTION if made.get("structured.schema") is not None else ""
    text = json.dumps([made, words], ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=4).digest(), "little") or 1


def effective_mode(job: Job) -> str:
    """Give the structured mode by which a job's requests are compared: "auto" is the request in words, whatever way of
    asking the endpoint takes besides.
    """
    return "prompt" if job.structured.mode == "auto" else job.structured.mode


def in_words(schema: bytes | None) -> str:
    """Give the instruction that asks for a schema in words, nothing where there is none."""
    return SCHEMA_INSTRUCTION + orjson.dumps(orjson.loads(schema)).decode() if schema else ""


def with_schema(messages: list[Any], instruction: str) -> list[Any]:
    """Add the schema to the system message, which is the same for every item and so is cached by providers."""
    first = messages[0]
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        return [{**first, "content": f"{first['content']}\n\n{instruction}"}, *messages[1:]]
    return [{"role": "system", "content": instruction}, *messages]


def _dump(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # whole numbers over 64 bits and deep nesting, which the fast writer refuses
        try:
            return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError as error:  # a template made half a character
            raise _PromptError(f"the request holds a lone surrogate, {error.object[error.start]!a}") from error


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


# --- templates --------------------------------------------------------------------------------------------------


class _PromptError(Exception):
    """Why an item has no prompt."""


class _UnsendableError(Exception):
    """Why an item's request would be refused."""


class _Template:
    """A Jinja template whose variables are the item's fields; `item` is the whole item, for keys that are no names."""

    def __init__(self, name: str, source: str, job: Job) -> None:
        import jinja2  # slow to import, and not every job has a template
        from jinja2 import meta

        self._name = name
        environment = _environment("\r\n" if "\r\n" in source else "\n")
        try:
            template: Template = environment.from_string(source)
            self._names = sorted(meta.find_undeclared_variables(environment.parse(source)))
        except jinja2.TemplateSyntaxError as error:
            place = f"{job.path}: " if job.path else ""
            raise JobError(f"{place}{name}, line {error.lineno} of the template: {error.message}") from error
        # `Template.render` copies the globals for every call, which costs more than the rendering itself.
        self._context: Callable[[dict[str, Any]], Any] = lambda values: environment.context_class(
            environment, values, template.name, template.blocks
        )
        self._globals = dict(environment.globals)
        self._render: Callable[[Any], Any] = template.root_render_func
        self._plain = _plain_parts(source)
        self._undefined = jinja2.UndefinedError
        # What a template can raise while it runs: the sandbox's refusals and the arithmetic of its expressions.
        self._errors = (
            jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError,
            ValueError,
        )  # fmt: skip

    def render(self, fields: Mapping[str, Any]) -> str:
        if self._plain is not None:
            texts = self._plain.copy()
            for place in range(1, len(texts), 2):
                text = fields.get(texts[place])
                if type(text) is not str:
                    break
                texts[place] = text
            else:
                return "".join(texts)
        try:
            return _joined(self._render(self._context({**self._globals, "item": fields, **fields})))
        except _NullError as error:
            nulls = [name for name in self._names if name in fields and fields[name] is None]
            which = ", ".join(map(repr, nulls)) or "an expression"
            raise _PromptError(
                f"the template {self._name} uses {which}, which is null here; "
                "write {{ name or '' }} if it may be empty"
            ) from error
        except self._undefined as error:
            missing = [name for name in self._names if name not in fields and name != "item"]
            which = f" (it uses {', '.join(map(repr, missing))})" if missing else ""
            raise _PromptError(
                f"the template {self._name}{which}: {error.message}; the item has: {', '.join(fields) or 'nothing'}"
            ) from error
        except self._errors as error:
            raise _PromptError(f"the template {self._name} failed: {error}") from error


def _joined(pieces: Iterable[str]) -> str:
    """Join what a template gives, as long as it may be a prompt."""
    made, size = [], 0
    for piece in pieces:
        made.append(piece)
        size += len(piece) + 1  # so that empty pieces come to an end too
        if size > _MAX_PROMPT_CHARS:
            raise OverflowError(_TOO_LONG)
    return "".join(made)


def _plain_parts(source: str) -> list[str] | None:
    """Split a template of nothing but text and `{{ name }}` into text, name, text, …; None for any other.

    Such a template, given texts, needs no Jinja, which takes ten times as long.
    """
    parts = _VARIABLE.split(source)
    if any(mark in text for text in parts[::2] for mark in ("{{", "}}", "{%", "%}", "{#", "#}")):
        return None
    return None if {"item", "true", "false", "none", "True", "False", "None"} & set(parts[1::2]) else parts


class _NullError(Exception):
    """A template put null into a prompt."""


def _environment(newline: Literal["\n", "\r\n"]) -> Any:
    from jinja2 import StrictUndefined

    # No HTML escaping: prompts are text. A template's own line ends stay as they are.
    environment = _sandbox()(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, newline_sequence=newline,
        finalize=_finalize,
    )  # fmt: skip
    environment.filters["center"] = _bounded(environment.filters["center"])
    environment.filters["indent"] = _bounded(environment.filters["indent"])
    environment.filters["format"] = _bounded(environment.filters["format"])
    environment.filters["tojson"] = _to_json
    for name in _TEXT_FILTERS:
        environment.filters[name] = _without_null(environment.filters[name])
    return environment


@cache
def _sandbox() -> Any:
    """Give the environment of templates: no way out of it, and no text or number that a short expression makes huge."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "+", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_size(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, function: Any, *args: Any, **options: Any) -> Any:
            if isinstance(getattr(function, "__self__", None), str):
                _check_call(function.__self__, function.__name__, args)
            return super().call(context, function, *args, **options)

        def wrap_str_format(self, value: Any) -> Any:
            if isinstance(getattr(value, "__self__", None), str):
                _check_call(value.__self__, "format", ())
            return super().wrap_str_format(value)

    return Sandbox


def _check_size(operator: str, left: Any, right: Any) -> None:
    """Raise `OverflowError` where an operation would make something that no prompt has room for."""
    size = 0
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        size = left.bit_length() * right
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(times, int) and isinstance(many, str | list | tuple):
                size = len(many) * times
    elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        size = len(left) + len(right)
    elif operator == "%" and isinstance(left, str):
        values = right if isinstance(right, tuple) else (right,)
        _check_call(left, "center" if "*" in left else "format", values)  # a width may be one of the values
    if size > _MAX_PROMPT_CHARS:
        raise OverflowError(_TOO_LONG)


def _check_call(text: str, name: str, args: tuple[Any, ...]) -> None:
    """Raise `OverflowError` where a method of a text would make a longer one than any prompt."""
    widths = [one for one in args if isinstance(one, int)] if name in _PADDING else []
    size = max(widths, default=0)
    if name == "replace" and len(args) > 1 and all(isinstance(one, str) for one in args[:2]):
        size = (text.count(args[0]) or 1) * len(args[1])
    elif name == "join" and args and isinstance(args[0], list | tuple | str):
        size = len(text) * len(args[0])
    elif name in ("format", "format_map"):
        size = max((int(digits) for digits in _WIDTH.findall(text)), default=0)
    if size > _MAX_PROMPT_CHARS:
        raise OverflowError(_TOO_LONG)


def _bounded(text_filter: Any) -> Any:
    """Guard a filter that pads a text to any width."""

    @wraps(text_filter)
    def guarded(*args: Any, **options: Any) -> Any:
        text = next((one for one in args if isinstance(one, str)), "")
        _check_call(text, "format", ())
        _check_call(text, "center", (*args, *options.values()))
        return text_filter(*args, **options)

    return guarded


def _without_null(text_filter: Any) -> Any:
    """Guard a filter that would turn null into the word None."""
    position = 1 if hasattr(text_filter, "jinja_pass_arg") else 0  # after the context that some filters get

    @wraps(text_filter)
    def guarded(*args: Any, **options: Any) -> Any:
        if args[position] is None:
            raise _NullError
        return text_filter(*args, **options)

    return guarded


def _finalize(value: Any) -> Any:
    """Write what is no text as JSON, not as Python spells it."""
    from jinja2 import Undefined

    if isinstance(value, str):
        return value
    if value is None:
        raise _NullError
    if isinstance(value, dict | list | tuple | bool):
        return _to_json(value)
    if isinstance(value, int | float | Undefined):  # undefined: raises with its own words when it is written
        return value
    raise TypeError(f"an expression gives a {type(value).__name__}, which is no text (is () or | list missing?)")


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
