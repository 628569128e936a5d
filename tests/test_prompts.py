"""Templates and request bodies: what stands in the job and the item reaches the wire, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import records, write_lines
from hypothesis import given
from hypothesis import strategies as st

from batchrun.items import parse_line
from batchrun.job import Endpoint, Job, JobError, Prompt, Structured
from batchrun.prompts import RequestBuilder
from batchrun.records import Failure, Request

HOSTILE = (
    """ "quotes" 'single' <b>&amp; & </b> \\ \\n \t tab 🙂 👩‍👩‍👧 中文 許功蓋 """
    "\r\n crlf \r cr {{ x }} {% if %} {# c #} \u2028 \x00 "
)


def job(user: str | None = None, system: str | None = None, **changes) -> Job:
    prompt = Prompt(system=system, user=user) if user or system else None
    return Job(**{"input": ("-",), "output": Path("out"), "prompt": prompt, "endpoint": Endpoint(model="m"), **changes})


def built(fields: dict, user: str | None = None, system: str | None = None, schema: bytes | None = None, **changes):
    it = job(user, system, **changes)
    item = parse_line(json.dumps(fields).encode(), 1, templated=bool(user))
    assert not isinstance(item, Failure), item.message
    return RequestBuilder(it, schema).build(item)


def rendered(user: str, **fields) -> str:
    request = built(fields, user)
    assert isinstance(request, Request), request.message
    return json.loads(request.body)["messages"][0]["content"]


def refused(user: str, **fields) -> str:
    failure = built(fields, user)
    assert isinstance(failure, Failure), failure
    assert failure.kind == "invalid_input"
    assert json.loads(failure.to_json())["input"] == fields
    return failure.message


# --- templates ---


@pytest.mark.parametrize("text", [HOSTILE, "", "{{ 7 * 7 }}", "{% raw %}", "&lt;", "\r\n", " \n"])
@pytest.mark.parametrize(
    "template",
    ["{{ text }}", "[{{text}}]\n", "<{{ text | trim('') }}>", "{% if true %}{{ item['text'] }}{% endif %}\n\n"],
)
def test_a_value_is_put_in_as_it_is_and_never_expanded_again(template, text):
    before, after = {"{{": ("", ""), "[{": ("[", "]\n"), "<{": ("<", ">"), "{%": ("", "\n\n")}[template[:2]]
    assert rendered(template, text=text) == before + text + after


@pytest.mark.parametrize(
    "source", ["line\r\nline {{ n }}\r\n", "line\nline {{ n }}\n\n", "\t{{ n }} ", "<&>\"' 🙂 {{ n }}"]
)
@pytest.mark.parametrize("n", [1, "1"])
def test_the_text_of_a_template_stays_byte_for_byte(source, n):
    assert rendered(source, n=n) == source.replace("{{ n }}", "1")


@pytest.mark.parametrize("source", ["no variable\r\n at all\n", "没有变量", "}} %} #}"])
def test_a_template_without_variables_is_a_text(source):
    assert rendered(source, n=1) == source


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["{{ text }}", "{{ text|string }}"]))
def test_any_text_comes_out_of_a_template_as_it_went_in(text, template):
    assert rendered(template, text=text) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"名": "甲", "n": [1, None]}, '{"名": "甲", "n": [1, null]}'),
        (["甲", True], '["甲", true]'),
        (True, "true"),
        (False, "false"),
        (17, "17"),
        (0, "0"),
        (2**70, str(2**70)),
        (0.5, "0.5"),
    ],
)
@pytest.mark.parametrize("template", ["{{ value }}", "{{ item.value }}", "{{ [value][0] }}"])
def test_a_value_that_is_no_text_is_written_as_json(value, expected, template):
    assert rendered(template, value=value) == expected


def test_a_field_whose_key_is_no_name_is_reached_through_item():
    assert rendered("{{ item['key with space'] }}{{ item.键 }}", **{"key with space": "a", "键": "b"}) == "ab"


@pytest.mark.parametrize("name", ["range", "dict", "namespace", "cycler", "loop", "id", "context"])
def test_a_field_may_have_a_name_that_the_template_language_uses(name):
    assert rendered(f"{{{{ {name} }}}}", **{name: "value"}) == "value"
    assert rendered(f"{{{{ {name} }}}}", **{name: 1}) == "1"


@pytest.mark.parametrize(
    "template", ["{{ tetx }}", "{{ item.tetx }}", "{{ item['tetx'] }}", "{{ text.x }}", "{% if tetx %}{% endif %}"]
)
def test_an_undefined_name_is_a_failure_that_names_it_and_what_there_is(template):
    message = refused(template, id="a", text="x")
    assert "prompt.user" in message
    assert "the item has: id, text" in message
    assert "tetx" in message or "'x'" in message


@pytest.mark.parametrize("template", ["{{ text }}", "{{ item.text }}", "{{ [text][0] }}"])
def test_null_is_a_failure_that_says_how_to_allow_it(template):
    message = refused(template, id="a", text=None)
    assert "null" in message
    assert "{{ name or '' }}" in message


@pytest.mark.parametrize(
    "template", ["{{ text or '' }}", "{% if text is none %}{% endif %}", "{% if text %}x{% endif %}"]
)
def test_null_that_the_template_provides_for_is_fine(template):
    assert rendered(template, id="a", text=None) == ""


@pytest.mark.parametrize(
    "template",
    ["{{ text | trim }}", "{{ text | upper }}", "{{ text | string }}", "{{ text | replace('a', 'b') }}"],
)  # fmt: skip
def test_null_never_becomes_the_word_none(template):
    assert "null" in refused(template, id="a", text=None)


@pytest.mark.parametrize(
    "template",
    ["{{ text.upper }}", "{{ tags | map('upper') }}", "{{ tags | reverse }}", "{{ range }}", "{{ dict }}",
     "{{ item.items }}", "{{ self }}", "{{ range(3) }}"],
)  # fmt: skip
def test_what_is_no_value_never_gets_into_a_prompt(template):
    assert "which is no text" in refused(template, text="x", tags=["a", "b"])


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{{ text.__class__ }}", "{{ item.__class__ }}", "{{ ''|attr('__class__') }}",
     "{{ text['__class__'] }}", "{{ cycler.__init__.__globals__ }}", "{{ '{0.__class__}'.format(text) }}",
     "{{ text.format.__self__.__class__ }}", "{{ range.__self__ }}", "{{ (text|attr('format'))('{0.__class__}') }}",
     "{{ tags.append('c') }}", "{{ item.update({'a': 1}) }}", "{% for x in range(10**9) %}{% endfor %}"],
)  # fmt: skip
def test_a_template_cannot_leave_its_sandbox(template):
    assert refused(template, text="{0.__class__.__mro__}", tags=["a"])


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ text + 1 }}", "{{ text() }}", "{{ tags[9] }}", "{{ '%d' % text }}"]
)
def test_a_template_that_fails_on_an_item_fails_that_item_alone(template):
    assert "prompt.user" in refused(template, text="x", tags=["a"])


@pytest.mark.parametrize("template", ['{{ "\\ud83d" }}', "{{ '%c' | format(55357) }}"])
def test_a_lone_surrogate_from_a_template_is_a_failure(template):
    assert "surrogate" in refused(template, text="x")


@pytest.mark.parametrize(
    "source", ["{{ text", "{% if x %}", "{{ text | nosuchfilter }}", "{% for %}", "{% include 'x' %}{{"]
)
@pytest.mark.parametrize("key", ["user", "system"])
def test_a_template_that_cannot_be_compiled_is_an_error_of_the_job(source, key):
    with pytest.raises(JobError, match=rf"prompt\.{key}, line 3 of the template"):
        RequestBuilder(job(**{key: "\n\n" + source}), None)


def test_a_template_error_ends_the_command_with_2_before_anything_is_made(batchrun, tmp_path):
    write_lines(tmp_path / "input", {"text": "x"})
    ended = batchrun(
        "run", "-i", "input", "-o", "out", "--prompt", "{{ text", "-m", "m", "--base-url", "http://[::1]:9/v1"
    )
    assert ended.code == 2
    assert "prompt.user, line 1 of the template" in ended.err
    assert not (tmp_path / "out").exists()


# --- messages and parameters ---

USER, SYSTEM = {"role": "user", "content": "问"}, {"role": "system", "content": "own"}


def messages(fields: dict, **options) -> list:
    return json.loads(built(fields, **options).body)["messages"]


def test_a_system_template_alone_is_put_before_the_items_own_messages():
    ours = {"role": "system", "content": "für x"}
    for fields in ({"prompt": "问"}, {"messages": [USER]}, {"body": {"messages": [USER]}}):
        assert messages({**fields, "tone": "x"}, system="für {{ tone }}") == [ours, USER]


def test_an_items_own_system_message_stays_the_only_one():
    for fields in ({"messages": [SYSTEM, USER]}, {"body": {"messages": [SYSTEM, USER]}}):
        assert messages(fields, system="ours") == [SYSTEM, USER]


def test_messages_pass_with_every_field_and_part_they_have():
    parts = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    given_messages = [
        {"role": "user", "content": parts, "name": "n"},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    assert messages({"messages": given_messages}) == given_messages


def test_a_template_makes_the_messages_whatever_else_the_item_holds():
    fields = {"prompt": "no", "messages": [SYSTEM], "body": {"messages": [SYSTEM]}, "text": "yes"}
    assert messages(fields, user="{{ text }}", system="s") == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "yes"},
    ]


@pytest.mark.parametrize("body", ["a letter", {"a": 1}, [1], {"temperature": 1}, 7])
@pytest.mark.parametrize("form", [{"prompt": "问"}, {"messages": [USER]}])
def test_a_field_called_body_beside_a_prompt_is_only_a_field(form, body):
    assert json.loads(built({**form, "body": body}).body) == {"model": "m", "messages": [USER]}


def test_params_pass_untouched_and_those_of_a_batch_line_win():
    params = {"temperature": 0.2, "top_p": 1, "extra": {"deep": [1.0, "中"]}, "stop": ["a"]}
    assert json.loads(built({"prompt": "问"}, params=params).body) == {"model": "m", "messages": [USER], **params}
    own = {"model": "own", "messages": [USER], "temperature": 1.5, "n": 1, "seed": 2**70}
    assert json.loads(built({"body": own}, params=params).body) == {**params, **own}


def test_the_model_of_the_job_serves_a_batch_line_without_one():
    assert json.loads(built({"body": {"messages": [USER]}}).body)["model"] == "m"


def test_no_model_at_all_is_said():
    assert "no model: set endpoint.model" in built({"prompt": "x"}, endpoint=Endpoint()).message


def test_unknown_fields_of_an_item_are_never_sent():
    request = built({"id": "a", "prompt": "问", "temperature": 9, "secret": "s", "model": "x"})
    assert json.loads(request.body) == {"model": "m", "messages": [USER]}


def test_the_wire_carries_values_byte_for_byte(batchrun, endpoint, tmp_path):
    url, asked = endpoint
    write_lines(tmp_path / "input", {"id": 2**70, "text": HOSTILE, "n": 10**25 + 1})
    flags = ["--prompt", "[{{ text }}]\r\n{{ n }}<&>", "--system", "系统\r\n\"'"]
    ended = batchrun("run", "-i", "input", "-o", "out", "-m", "m", "--base-url", url, *flags)
    assert ended.code == 0, ended.err
    ((_, body),) = asked
    assert json.loads(body)["messages"] == [
        {"role": "system", "content": "系统\r\n\"'"},
        {"role": "user", "content": f"[{HOSTILE}]\r\n10000000000000000000000001<&>"},
    ]
    assert "中文" in body.decode()
    assert records(tmp_path / "out/results.jsonl")[0]["id"] == str(2**70)


# --- fingerprints ---

SCHEMA = b'{"type": "object"}'


def fingerprint(fields: dict, **options) -> str:
    request = built(fields, **options)
    assert isinstance(request, Request)
    return request.fingerprint


def test_a_fingerprint_changes_with_all_that_a_result_is_made_from():
    base = {"user": "{{ text }}", "schema": SCHEMA, "structured": Structured(schema=Path("s"), mode="json_schema")}
    prints = [
        fingerprint({"text": "x"}, **base),
        fingerprint({"text": "y"}, **base),
        fingerprint({"text": "x"}, **{**base, "user": "{{ text }}."}),
        fingerprint({"text": "x"}, **base, system="s"),
        fingerprint({"text": "x"}, **base, endpoint=Endpoint(model="other")),
        fingerprint({"text": "x"}, **base, params={"temperature": 0}),
        fingerprint({"text": "x"}, **base, params={"temperature": 1}),
        fingerprint({"text": "x"}, **{**base, "schema": b'{"type": "array"}'}),
        fingerprint({"text": "x"}, **{**base, "schema": None}),
        fingerprint({"text": "x"}, **{**base, "structured": Structured(schema=Path("s"), mode="prompt")}),
    ]
    assert len(set(prints)) == len(prints)


def test_a_fingerprint_does_not_change_with_anything_else():
    first = fingerprint({"id": "a", "text": "x"}, user="{{ text }}")
    assert fingerprint({"id": "b", "text": "x", "more": 1}, user="{{ text }}") == first
    elsewhere = Endpoint(model="m", base_url="http://127.0.0.1:9/v1", api_key_env="K")
    assert fingerprint({"text": "x"}, user="{{ text }}", endpoint=elsewhere, output=Path("other")) == first
    assert fingerprint({"prompt": "x"}) == first
