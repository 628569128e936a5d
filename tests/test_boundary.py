"""The data boundary: what is found in which spelling, what is not, and that placeholders lead back."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.boundary import DETECTORS, WORD, Hit, Placeholders, Scanner

SCANNER = Scanner()
ID = "11010519491231002X"  # the example of GB 11643
CODE = "91350100M000100Y43"  # the example of GB 32100
KEY = "sk-proj-a1B2c3D4e5F6g7H8i9J0k1L2"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jKmNQBqD7aGZ1xS0Wc9oP2u"
LINE = "MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{LINE}\n-----END RSA PRIVATE KEY-----"


def found(text: str, scanner: Scanner = SCANNER) -> list[tuple[str, str]]:
    return [(hit.detector, text[hit.start : hit.end]) for hit in scanner.find(text)]


def with_luhn(body: str) -> str:
    total = sum(sum(divmod(int(one) * (2 - place % 2), 10)) for place, one in enumerate(reversed(body)))
    return body + str(-total % 10)


# --- what is found, with its exact span ---

HITS = [
    ("resident_id", ID, "身份证{}已登记"),
    ("resident_id", ID.lower(), "{}"),
    ("resident_id", "110105 19491231 002X", "（{}）"),
    ("resident_id", "１１０１０５１９４９１２３１００２Ｘ", "号码{}。"),
    ("resident_id", "110105\u200b194912310\u200b02X", "{}"),
    ("resident_id", "110105—19491231—002X", "{}"),
    ("resident_id", "130503670401001", "身份证号：{}"),  # the old form, with its word
    ("mobile", "13800138000", "打{}找我"),
    ("mobile", "13800138000", "{}"),
    ("mobile", "13800138000", "13900139000{}"[11:] + "，"),
    ("mobile", "138-0013-8000", "（{}）"),
    ("mobile", "138 0013 8000", "tel:{}。"),
    ("mobile", "138\u30000013\u30008000", "电话{}"),
    ("mobile", "１３８－００１３－８０００", "{}详聊"),
    ("mobile", "+86 13800138000", "{}"),
    ("mobile", "0086-138-0013-8000", "致电{}"),
    ("mobile", "（+86）138 0013 8000", "致电{}"),
    ("mobile", "8613800138000", "号码{}"),
    ("mobile", "13800138000", "加vx{}咨询"),
    ("mobile", "1 3 8 0 0 1 3 8 0 0 0", "{}"),
    ("mobile", "一三八零零一三八〇〇〇", "加{}"),
    ("mobile", "𝟏𝟑𝟖𝟎𝟎𝟏𝟑𝟖𝟎𝟎𝟎", "加{}"),
    ("mobile", "13800138000", '{{"phone":"{}"}}'),
    ("mobile", "13800138000", "第一行\\n{}"),  # JSON inside a string, as a tool call's arguments are
    ("mobile", "13800138000", "快递员的联系电话{}"),
    ("mobile", "13800138000", "电话-{}-张三"),
    ("mobile", "13800138000", "7,{},25"),  # a line of CSV
    ("mobile", "13800138000", "https://x.cn/?q=%E7%94%B5%3A{}"),
    ("mobile", "13800138000", "wx_{}"),
    ("mobile", "13800138000", "call tel-{}.Thanks"),
    ("landline", "010-62345678", "电话：{}"),
    ("landline", "（0755）8234 5678", "{}"),
    ("landline", "057187654321", "热线{}"),
    ("bank_card", with_luhn("621700001000123456"), "{}"),
    ("bank_card", "6217 0000 1000 1234 569", "转到{}"),
    ("bank_card", with_luhn("411111111111111"), "信用卡{}被盗刷"),
    ("bank_card", "4111-1111-1111-1111", "{}"),
    ("passport", "E12345678", "护照号{}"),
    ("passport", "ＥＡ１２３４５６７", "{}是我的护照"),
    ("social_credit_code", CODE, "税号{}"),
    ("social_credit_code", "9135 0100 M000 100Y 43", "{}"),
    ("social_credit_code", CODE.lower(), "{}"),
    ("email", "zhang.wei@example.com.cn", "发到{}就行"),
    ("email", "zhang＠１６３.com", "邮箱：{}"),
    ("email", "13800138000@139.com", "{}"),  # one hit, although a mobile number is part of it
    ("private_ip", "192.168.1.10", "http://{}:8080/"),
    ("private_ip", "10.20.30.40", "服务器{}宕机"),
    ("private_ip", "172.31.255.1", "{}/16"),
    ("private_ip", "100.64.0.1", "{}"),
    ("api_key", KEY, "密钥{}别外传"),
    ("api_key", "AKIAIOSFODNN7EXAMPLE", "aws={}"),
    ("api_key", "LTAI5tQwErTyUiOpAsDfGhJk", "{}"),
    ("api_key", "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE", "{}"),
    ("api_key", "ghp_1234567890abcdefghijABCDEFGHIJ123456", "{}"),
    ("api_key", "glpat-1a2b3c4d5e6f7g8h9i0j", "{}"),
    ("api_key", "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6q", "{}"),
    ("api_key", "hf_aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH", "{}"),
    ("api_key", "0123456789abcdef0123456789abcdef.aBcD1234eFgH5678", "智谱{}"),
    ("api_key", "f47ac10b58cc4372a5670e02b2c3d479", 'client_secret = "{}"'),
    ("jwt", JWT, "Authorization: Bearer {}"),
    ("bearer_token", "mF_9.B5f-4.1JqM8kLzPq7RsT", "Authorization: Bearer {}"),
    ("url_password", "s3cret!", "mysql://root:{}@db:3306/x"),
    ("private_key", PEM, "私钥：{}完"),
    ("private_key", PEM.replace("\n", "\\n"), '{{"key":"{}"}}'),
    ("private_key", PEM[:-30], "{}。"),  # cut off
]  # fmt: skip


@pytest.mark.parametrize(("detector", "value", "around"), HITS)
def test_it_is_found_with_its_exact_span(detector, value, around):
    assert found(around.format(value)) == [(detector, value)]


def test_every_detector_has_an_example():
    assert {detector for detector, _, _ in HITS} == set(DETECTORS)


def test_neighbours_are_two_hits():
    assert found("13800138000 13900139000") == [("mobile", "13800138000"), ("mobile", "13900139000")]
    cards = [with_luhn("621700001000123456"), with_luhn("621700001000123457")]
    assert found(" ".join(cards)) == [("bank_card", card) for card in cards]
    assert len(found("13800138000,13900139000;13700137000")) == 3
    assert len(found("13800138000-13900139000")) == 2
    assert found(f"{ID}/13800138000，") == [("resident_id", ID), ("mobile", "13800138000")]


# --- what is not ---


@pytest.mark.parametrize(
    "text",
    [
        "110105194912310021", "11010519491331002X", "99010519491231002X",
        "130503670401001",  # check digit, date, region, no word
        "订单号13800138000", "运单编号：13800138000", "Order No. 13800138000", "https://item.jd.com/13800138000.html",
        "1380013800", "138001380001", "0.13800138000", "13800138000.5", "￥13800138000", "13800138000元", "12800138000",
        "IMG_13800138000", "ab13800138000", "13800138000x", "138-0013-8000-1234", "13800138000-01-02", "SN-13800138000",
        "1700000000", "1700000000123", "20230501123045", "20230501123045123", "2023-05-01 12:30:45",
        "2023.05.01-2024.05.01",
        "1 3 8 0 0 1 3 8 0 0 0 1", "13 80 01 38 00 0", "199.00元，12件", "3, 14, 1592, 6535, 8979",
        "6222020000000000001", with_luhn("123456789012345"), with_luhn("411111111111111"),
        "银行流水号" + with_luhn("621700001000123456"),
        "550e8400-e29b-41d4-a716-446655440000", "d41d8cd98f00b204e9800998ecf8427e", "978-7-302-51164-1",
        "6901234567892",
        "E12345678", "91350100M000100Y44", "1234567890" * 12, "010-20230101", "0571-1234567", "SF1234567890123",
        "logo@2x.png", "react@18.2.0", "@张三", "a@b", "git@github.com:a/b.git", "@@@@", "8.8.8.8", "172.32.0.1",
        "192.169.0.1",
        "10.0.19041.1000", "版本10.2.3.4", "v10.0.0.1", "1.10.0.0.1", "sk-your-api-key-goes-right-here",
        "task-1234567890abcdefghij1234", "sk-learn-tutorial-for-beginners-01",
        "http://user:password@host/", "http://user:${PASS}@host/", "https://x.cn/a:b@c",
        "Bearer YOUR_ACCESS_TOKEN_HERE", "-----BEGIN CERTIFICATE-----", "一二三四五六七八九十", "", " ", "中文",
    ],
)  # fmt: skip
def test_a_lookalike_is_no_hit(text):
    assert found(text) == []
    assert found(f"说明：{text}。") == []


# --- offsets ---


@given(
    st.text(st.sampled_from("中a1 \u200b\ufe0f，１\\n"), max_size=20),
    st.text(st.sampled_from("文，\u200b\u3000。"), max_size=20),
)
def test_offsets_are_of_the_text_as_written(before, after):
    text = f"{before}，１３８\u200b００１３８０００。{after}"
    (hit,) = SCANNER.find(text)
    assert text[hit.start : hit.end] == "１３８\u200b００１３８０００"


@given(st.text())
def test_any_text_can_be_scanned(text):
    hits = SCANNER.find(text)
    assert all(0 <= hit.start < hit.end <= len(text) for hit in hits)
    assert all(one.end <= two.start for one, two in pairwise(hits))


def test_a_hit_never_shows_the_value():
    shown = repr([SCANNER.find("电话13800138000"), SCANNER.scan({"13800138000": ["13800138000"]})])
    assert "13800138000" not in shown
    placeholders = Placeholders()
    SCANNER.redact("电话13800138000", placeholders)
    assert "13800138000" not in repr(placeholders)


# --- choices ---


def test_detectors_can_be_chosen():
    scanner = Scanner(detectors=["email"])
    assert found("13800138000 a@qq.com", scanner) == [("email", "a@qq.com")]
    with pytest.raises(ValueError, match=r"'phone'.*mobile"):
        Scanner(detectors=["phone"])
    assert found("13800138000", Scanner(detectors=[])) == []


def test_patterns_of_the_users_see_every_width():
    scanner = Scanner(patterns={"staff_number": r"工号\d{6}", "wide": r"（内部）"})
    assert found("工号１２３４５６（内部）", scanner) == [("staff_number", "工号１２３４５６"), ("wide", "（内部）")]
    assert found("none", Scanner(patterns={"empty": "x*"})) == []


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        ({"broken": "("}, "patterns.broken"),
        ({"no name": "a"}, "'no name'"),
        ({"mobile": "a"}, "'mobile'"),
        ({"word": "a"}, "'word'"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_named(patterns, named):
    with pytest.raises(ValueError, match=named):
        Scanner(patterns=patterns)


def test_words_whatever_their_width_and_case():
    scanner = Scanner(words=["青龙计划", "青龙", "Falcon", "密", "AI"])
    assert found("青龙计划与青龙", scanner) == [(WORD, "青龙计划"), (WORD, "青龙")]
    assert found("ＦＡＬＣＯＮ，falcons，said，用AI做", scanner) == [(WORD, "ＦＡＬＣＯＮ"), (WORD, "AI")]
    assert found("保密", scanner) == [(WORD, "密")]
    with pytest.raises(ValueError, match="words"):
        Scanner(words=["  "])


@given(st.lists(st.text("ab甲乙", min_size=1, max_size=4), min_size=1, max_size=6), st.text("ab甲乙", max_size=12))
def test_a_word_is_found_wherever_it_stands_alone(words, text):
    def joined(place: int) -> bool:
        return 0 < place < len(text) and text[place - 1 : place + 1].isascii()

    covered = {place for hit in Scanner(words=words, detectors=[]).find(text) for place in range(hit.start, hit.end)}
    expected = {
        place
        for word in words
        for start in range(len(text))
        if text.startswith(word, start) and not joined(start) and not joined(start + len(word))
        for place in range(start, start + len(word))
    }
    assert covered == expected


def test_overlapping_hits_are_one_named_after_the_longest():
    scanner = Scanner(patterns={"left": "甲乙丙", "right": "丙丁"})
    assert found("甲乙丙丁", scanner) == [("left", "甲乙丙丁")]


# --- values ---

BODY = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "没有"},
        {"role": "user", "name": "13800138000", "content": [{"type": "text", "text": "发到a@qq.com"}]},
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "f", "arguments": '{"x":"\\u7535\\n13800138000"}'}}],
        },
    ],
    "tools": [{"function": {"parameters": {"enum": [ID], "n": 13800138000}}}],
}


def test_every_field_of_a_request_is_scanned_and_named():
    assert [(finding.path, finding.hit.detector) for finding in SCANNER.scan(BODY, "body")] == [
        ("body.messages[1].name", "mobile"),
        ("body.messages[1].content[0].text", "email"),
        ("body.messages[2].tool_calls[0].function.arguments", "mobile"),
        ("body.tools[0].function.parameters.enum[0]", "resident_id"),
        ("body.tools[0].function.parameters.n", "mobile"),
    ]
    assert SCANNER.scan("13800138000", "text")[0].path == "text"
    assert SCANNER.scan({"text": "13800138000"})[0].path == "text"


def test_keys_are_scanned_and_masked():
    assert [finding.path for finding in SCANNER.scan({"a": {"电话13800138000": "a@qq.com"}})] == ["a.电话<mobile>"] * 2


def test_fields_can_be_left_out():
    item = {"text": "13800138000", "meta": {"phone": "13800138000", "note": ["13800138000"]}}
    assert [finding.path for finding in Scanner(include=["text"]).scan(item)] == ["text"]
    assert [finding.path for finding in Scanner(skip=["meta.phone"]).scan(item)] == ["text", "meta.note[0]"]
    assert Scanner(skip=["meta"]).redact_value(item, Placeholders()) == {**item, "text": "[[MOBILE_1]]"}


def test_the_bytes_of_an_image_are_no_text():
    url = "data:image/png;base64,AKIAIOSFODNN7EXAMPLE+13800138000/AA=="
    assert SCANNER.scan({"image_url": {"url": url}}) == []
    (hit,) = SCANNER.find(url + " 13800138000")
    assert hit == Hit("mobile", len(url) + 1, len(url) + 12)


def test_depth_does_not_matter():
    value: object = "13800138000"
    for _ in range(5000):
        value = [value]
    assert len(SCANNER.scan(value)) == 1
    placeholders = Placeholders()
    redacted = SCANNER.redact_value(value, placeholders)
    assert SCANNER.scan(redacted) == []


# --- placeholders ---


def test_the_same_value_has_the_same_placeholder():
    placeholders = Placeholders()
    assert SCANNER.redact("打13800138000，或a@qq.com", placeholders) == "打[[MOBILE_1]]，或[[EMAIL_1]]"
    assert SCANNER.redact("13900139000", placeholders) == "[[MOBILE_2]]"
    assert SCANNER.redact("再打13800138000", placeholders) == "再打[[MOBILE_1]]"
    assert SCANNER.redact("138-0013-8000 和 +8613800138000", placeholders) == "[[MOBILE_1V2]] 和 [[MOBILE_1V3]]"


def test_a_model_may_change_the_brackets_and_nothing_else():
    placeholders = Placeholders()
    SCANNER.redact("打13800138000", placeholders)
    for spelling in (
        "[[MOBILE_1]]",
        "[MOBILE_1]",
        "【MOBILE_1】",
        "[[mobile_1]]",
        r"\[\[MOBILE\_1\]\]",
        "[[ MOBILE_1 ]]",
    ):
        assert placeholders.restore(f"<{spelling}>") == "<13800138000>"
    for unknown in ("[[MOBILE_2]]", "MOBILE_1", "[[MOBILE_11]]", "[[EMAIL_1]]", "(MOBILE_1)", "[[MOBILE_1"):
        assert placeholders.restore(unknown) == unknown
    value = {"电话": ["[[MOBILE_1]]", 1, None], "[[MOBILE_1]]": "x"}
    assert placeholders.restore(value) == {"电话": ["13800138000", 1, None], "13800138000": "x"}


def test_text_that_looks_like_a_placeholder_comes_back_as_it_was():
    placeholders = Placeholders()
    redacted = SCANNER.redact("[[MOBILE_1]] 13800138000", placeholders)
    assert redacted == "[[LITERAL_1]] [[MOBILE_1]]"
    assert placeholders.restore(redacted) == "[[MOBILE_1]] 13800138000"


PIECES = st.lists(
    st.sampled_from(
        ["13800138000", "138-0013-8000", "１３８００１３８０００", "a@qq.com", "A@QQ.com", ID, KEY, "[", "]", "[[",
        "]]", "【", "】", "\\",
         "MOBILE_1", "mobile_1", "EMAIL_1", "LITERAL_1", "MOBILE_1V2", "[[MOBILE_1]]", "[mobile_2]", " ", "，", "中",
         "_", "1", "V2", "\u200b", "工号1"]
    )
)  # fmt: skip


@given(PIECES)
def test_what_was_redacted_is_restored(pieces):
    scanner = Scanner(patterns={"工号": r"工号\d"}, words=["中"])
    text = "".join(pieces)
    placeholders = Placeholders()
    redacted = scanner.redact(text, placeholders)
    assert placeholders.restore(redacted) == text
    assert json.loads(json.dumps(redacted)) == redacted
    assert '"' not in redacted or '"' in text


@given(
    st.recursive(
        PIECES.map("".join) | st.integers(-(10**8), 10**8) | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(PIECES.map("".join), inner),
    )
)
def test_a_redacted_value_is_restored_and_left_alone(value):
    before = json.dumps(value)
    placeholders = Placeholders()
    redacted = SCANNER.redact_value(value, placeholders)
    assert json.dumps(value) == before
    assert SCANNER.scan(redacted) == []
    assert placeholders.restore(redacted) == value


# --- work ---


@pytest.mark.parametrize(
    "unit",
    ["1", "13", "1 ", "1 1-", "13800138", "110101199003077", "@", "a@", "a@a.", "-", "-----BEGIN PRIVATE KEY-----",
    "sk-", "eyJ", "eyJaaaaaaaa.",
     "(010)", "6222 ", "一", "一三", "\u200b", "１", "[", "\\", "[a_", "A1", "0123456789abcdef", "Bearer a1",
     "api_key=", "10.", "护照E", "甲乙"],
)  # fmt: skip
def test_work_grows_with_the_size_alone(unit):
    scanner = Scanner(words=["甲乙" * length for length in range(1, 30)])

    def seconds(size: int) -> float:
        text = (unit * size)[:size]
        times = []
        for _ in range(3):
            start = time.process_time()
            scanner.redact(text, Placeholders())
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(40_000) < 9 * seconds(10_000) + 0.02  # squared it would be sixteen times


def test_many_words_cost_little():
    words = [chr(0x4E00 + number % 7919) + chr(0x4E00 + number * 31 % 7907) + "项目" for number in range(10_000)]
    scanner = Scanner(words=words)
    assert len(scanner.find("，".join(words[:100]))) == 100
