"""A seeded generator of damaged model answers, each of which has exactly one right reading."""

from __future__ import annotations

import html
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["DAMAGES", "Case", "generate"]


@dataclass(frozen=True)
class Case:
    """One answer and what must come of it: a value, or (with `error` set) a failure of that kind."""

    text: str
    schema: dict[str, Any] | None
    finish_reason: str
    output: Any
    error: str | None
    damages: tuple[str, ...]


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    text: str


@dataclass(slots=True)
class Token:
    """A piece of a document; strings keep their value and how they are to be written."""

    kind: str  # { } [ ] : , key str num lit ws note
    text: str = ""
    holds: str = ""  # of commas and closing marks: what the container holds (members, objects, strings, numbers)
    opening: str = '"'
    closing: str = '"'
    raw: bool = False
    bare_backslash: bool = False
    bare_quotes: bool = False

    def written(self) -> str:
        """The token as it stands in the text."""
        if self.kind not in {"key", "str"}:
            return self.text
        return self.opening + "".join(map(self._character, self.text)) + self.closing

    def _character(self, char: str) -> str:
        if char == '"':
            return char if self.bare_quotes or self.opening != '"' else '\\"'
        if char == "\\":
            return char if self.bare_backslash else "\\\\"
        if char in "\n\t" and self.raw:
            return char
        return json.dumps(char, ensure_ascii=False)[1:-1]


Tokens = list[Token]
Random = random.Random

# --- the documents ---


def words(text: str) -> list[str]:
    """The words of a line."""
    return text.split()


ENGLISH_KEYS = words(
    "name title category sentiment reason summary author source city department contract_id phone product brand "
    "keywords comment question answer explanation diagnosis symptom party_a party_b clause currency language topic "
    "level remark content event location speaker intent userId createdAt first_name"
)
CHINESE_KEYS = words(
    "姓名 标题 类别 情感 理由 摘要 作者 来源 城市 部门 合同编号 电话 产品 品牌 评论 题目 答案 解析 诊断 症状 甲方 "
    "乙方 条款 币种 语言 主题 级别 备注 内容 事件 地点 发言人 意图 主诉 现病史 处理意见"
)
NUMBER_KEYS = words("score price count age confidence amount 分数 价格 数量 年龄 置信度 金额 总价 页码")
FLAG_KEYS = words("is_valid paid urgent 是否有效 已付款 需要复核 flagged 是否退货")
NULL_KEYS = words("end_date parent_id 结束日期 上级 失效原因 middle_name")
LIST_KEYS = words("tags aliases 标签 关键词 别名 options 选项 要点")
NUMBERS_KEYS = words("scores pages 各项得分 坐标 monthly")
OBJECT_KEYS = words("meta address buyer 详情 卖方 检查结果 contact 附加信息")
OBJECTS_KEYS = words("items entities 实体 条目 steps 明细 questions")
LABEL_KEYS = words("label sentiment_label 情感倾向 分类 priority 紧急程度")
LABELS = (("正面", "负面", "中性"), ("positive", "negative", "neutral"), ("高", "中", "低"), ("A", "B", "C", "D"))

SUBJECTS = words(
    "手机屏幕 客服态度 物流速度 合同第三条 患者血压 本次会议 新版教材 这家餐厅 年度报告 空调噪音 "
    "城市规划 数据接口 学生家长 保险条款 首付比例 退款流程 药品说明书 电池续航 投标文件 社区医院"
)
PREDICATES = words(
    "令人满意 需要进一步核实 已经完成整改 比预期差一些 获得了专家好评 存在明显问题 不符合约定 "
    "有待观察 在三天内解决 没有异常 超出预算两成 基本达到标准 引发了热烈讨论 推迟到下周一"
)
WORDS = words(
    "双减 一带一路 九九六 碳中和 放管服 新质生产力 专精特新 躺平 内卷 三高 不可抗力 先用后付 "
    "七天无理由 首问负责 互联网加 秒回 真香 灯下黑 断崖式 两头婚"
)
BEFORE = words(
    "关于 所谓的 所有 强调了 文中提到的 落实 被称为 反复出现 他把 客户说的 会议讨论了 条款中的 医生写的 根据"
)
AFTER = words(
    "政策的解读 问题尚未解决 一词出现了三次 现象值得注意 条款对乙方不利 工作取得进展 概念缺少定义 说法并不准确"
)
ENGLISH = (
    "Battery lasts about two days, better than expected.",
    "Delivery was late: three days, no apology.",
    "It's fine, but the screen isn't bright enough.",
    "See https://example.com/docs?id=42&lang=zh#section-3 for details",
    "Follow-up required; contact support@example.com",
    "ratio 3:2, width 1,024 px",
    "The report [draft 2] covers {region} only",
)
MIXED = (
    "他说：“明天再谈”，随后离开了会场。",
    "“续航”一般，‘外观’不错",
    "详见《民法典》第五百七十七条：违约责任，赔偿损失。",
    "官网：https://www.example.cn/a/b?x=1&y=2，电话：010-88886666",
    "时间：10:30—12:00，地点：3号楼【东门】（需登记）",
    "总计 1,280.50 元（含税），折扣：85%",
    "血压 150/95 mmHg，体温 36.8℃；建议复查",
    "结论：符合；理由：见附件[3]、{表2}",
    "价格从¥299涨到¥349……涨幅约17%",
    "单价 × 数量 = 总价，误差 < 0.5",
    "支持 iOS/Android，版本 >= 2.0 // 含测试版",
    "# 一级标题 与 ## 二级标题",
    "「重点」与『次重点』要分开写",
    "选 B，因为 A、C 不成立",
    "null",
    "true",
    "007",
    "",
)
LINES = (
    "第一步：备份数据\n第二步：升级系统\n第三步：重启",
    "姓名\t年龄\n张三\t28",
    "尊敬的客户：\n您好，您的申请已通过。\n此致",
    "1. 清洗\n2. 切块，约2厘米\n3. 小火慢炖",
    "Dear all,\n\nPlease find the notes below.\n- budget: ok\n- date: open",
)
CODE = (
    'def f(x):\n    return {"x": x, "ok": True}',
    'if (a > 0) { return "yes"; } else { return []; }',
    "SELECT name, count(*) FROM t WHERE city = '北京' GROUP BY name;",
    '{"inner": [1, 2], "note": "不是答案"}',
    '<div class="card">价格：¥99</div>',
    'print("你好，世界")  # 注释',
)
QUOTED = ('他写道:"价格偏高,但质量好",并给了四星', 'The label says "fragile", handle with care', '标注为"紧急"的工单')
FENCED = ("```python\nprint(1)\n```", '用 ```json\n{"k": 1}\n``` 这样的格式')
ENTITY = ("Q&amp;A 环节用时过长", "a &lt; b 时返回 0", "AT&amp;T 与 &quot;5G&quot;")
BACKSLASH = (
    "C:\\Users\\李雷\\Documents",
    "D:\\数据\\2024\\报告.xlsx",
    "\\d{3}-\\d{8}",
    "^\\w+@\\w+\\.com$",
    "\\s*\\(\\d+\\)\\s*",
    "当 $\\alpha \\le \\pi$ 时 $\\sum x_i$ 收敛",
    "\\\u5220除 标记",
    "\\\\服务器\\共享\\合同"[1:],
    "E:\\Games\\Steam",
    "$x \\in A \\cap B$",
)
NEWLINE_VALUES = LINES + CODE[:1]


def sentence(rng: Random) -> str:
    """A Chinese sentence without any quotation mark."""
    parts = [rng.choice(SUBJECTS) + rng.choice(PREDICATES) for _ in range(rng.randint(1, 3))]
    return rng.choice("，；").join(parts) + rng.choice(("", "。", "！"))


def quoted_sentence(rng: Random) -> str:
    """A sentence with one or two words between ASCII quotes, never at its ends."""
    if rng.random() < 0.12:
        word, verb = rng.choice(("premium", "as is", "fragile", "best effort")), rng.choice(("means", "was", "stayed"))
        return f'The clause "{word}" {verb} unclear to both parties'
    pieces = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        before = rng.choice(BEFORE) + rng.choice(("", "", "", "："))
        after = rng.choice(("", "", "", "，")) + rng.choice(AFTER)
        pieces.append(f'{before}"{rng.choice(WORDS)}"{after}')
    return "，".join(pieces) + rng.choice(("", "。"))


def string(rng: Random, avoid: frozenset[str]) -> str:
    """A value of a string member; `avoid` names the kinds of text that would leave two readings."""
    pools: list[tuple[str, tuple[str, ...]]] = [
        ("mixed", MIXED), ("english", ENGLISH), ("lines", LINES), ("code", CODE), ("quoted", QUOTED),
        ("fenced", FENCED), ("entity", ENTITY), ("backslash", BACKSLASH),
    ]  # fmt: skip
    weights = [6, 3, 2, 2, 2, 0.5, 0.7, 1]
    if rng.random() < 0.45:
        return sentence(rng)
    name, pool = rng.choices(pools, weights)[0]
    return sentence(rng) if name in avoid else rng.choice(pool)


def number(rng: Random) -> Number:
    """A number in one of the usual spellings."""
    kinds: list[Callable[[], str]] = [
        lambda: str(rng.randint(0, 100)),
        lambda: str(rng.randint(-5000, 99999)),
        lambda: f"{rng.uniform(0, 1):.2f}",
        lambda: f"{rng.uniform(-500, 500):.1f}",
        lambda: str(rng.randint(10**17, 10**20)),
        lambda: f"{rng.randint(1, 9)}.{rng.randint(0, 9)}e{rng.randint(-6, 8)}",
    ]
    return Number(rng.choices(kinds, [5, 4, 4, 3, 0.4, 0.4])[0]())


def take(rng: Random, keys: list[str], into: dict[str, Any]) -> str | None:
    """A key that is not yet in the object, or None."""
    free = [key for key in keys if key not in into]
    return rng.choice(free) if free else None


def scalar_member(rng: Random, into: dict[str, Any], chinese: bool, avoid: frozenset[str]) -> None:
    """Add one member with a plain value."""
    kind = rng.choices(("text", "number", "flag", "null", "label"), (6, 3, 2, 1, 1))[0]
    names = {
        "text": CHINESE_KEYS if chinese else ENGLISH_KEYS,
        "number": NUMBER_KEYS, "flag": FLAG_KEYS, "null": NULL_KEYS, "label": LABEL_KEYS,
    }[kind]  # fmt: skip
    key = take(rng, [name for name in names if name.isascii() != chinese], into)
    if key is None:
        return
    values: dict[str, Callable[[], Any]] = {
        "text": lambda: string(rng, avoid), "number": lambda: number(rng), "flag": lambda: rng.random() < 0.5,
        "null": lambda: None, "label": lambda: rng.choice(LABELS[NAMES_OF_LABELS[key]]),
    }  # fmt: skip
    into[key] = values[kind]()


NAMES_OF_LABELS = {key: at % len(LABELS) for at, key in enumerate(LABEL_KEYS)}


def flat(rng: Random, chinese: bool, avoid: frozenset[str], members: int) -> dict[str, Any]:
    """An object of plain values."""
    made: dict[str, Any] = {}
    for _ in range(members * 3):
        if len(made) < members:
            scalar_member(rng, made, chinese, avoid)
    return made


def similar(rng: Random, chinese: bool, avoid: frozenset[str], count: int) -> list[dict[str, Any]]:
    """A list of objects with the same members."""
    first = flat(rng, chinese, avoid, rng.randint(2, 4))
    return [first, *(vary(rng, first, avoid) for _ in range(count - 1))]


def vary(rng: Random, value: Any, avoid: frozenset[str] = frozenset(("mixed", "backslash"))) -> Any:
    """The same shape with other contents (labels and keys stay)."""
    if isinstance(value, dict):
        return {key: item if key in LABEL_KEYS else vary(rng, item, avoid) for key, item in value.items()}
    if isinstance(value, list):
        return [vary(rng, item, avoid) for item in value]
    if isinstance(value, Number):
        return Number(str(rng.randint(101, 99999)))
    if isinstance(value, bool):
        return rng.random() < 0.5
    return string(rng, avoid) if isinstance(value, str) else value


def composite_member(rng: Random, into: dict[str, Any], chinese: bool, avoid: frozenset[str]) -> None:
    """Add one member that holds others."""
    choices: list[tuple[list[str], Callable[[], Any]]] = [
        (LIST_KEYS, lambda: [string(rng, avoid) for _ in range(rng.randint(0, 4))]),
        (NUMBERS_KEYS, lambda: [number(rng) for _ in range(rng.randint(1, 5))]),
        (OBJECT_KEYS, lambda: flat(rng, chinese, avoid, rng.randint(1, 4))),
        (OBJECTS_KEYS, lambda: similar(rng, chinese, avoid, rng.randint(1, 4))),
    ]
    names, make = rng.choice(choices)
    key = take(rng, [name for name in names if name.isascii() != chinese], into)
    if key is not None:
        into[key] = make()


NEEDS: dict[str, tuple[str, Callable[[Random], Any]]] = {
    "unescaped_quotes": ("text", quoted_sentence),
    "raw_newlines": ("text", lambda rng: rng.choice(NEWLINE_VALUES)),
    "bad_escapes": ("text", lambda rng: rng.choice(BACKSLASH)),
    "python_literals": ("flag", lambda rng: rng.random() < 0.5),
    "full_width_digits": ("number", lambda rng: Number(str(rng.randint(10, 9999)))),
    "full_width_brackets": ("list", lambda rng: [sentence(rng) for _ in range(rng.randint(1, 3))]),
    "not_a_number": ("number", number),
    "ellipsis": ("list", lambda rng: [sentence(rng) for _ in range(rng.randint(2, 3))]),
    "wrong_type": ("number", lambda rng: Number(str(rng.randint(1, 999)))),
}


def planned(rng: Random, damages: list[str], chinese: bool) -> dict[str, str]:
    """The keys of members without which the damages have nothing to hit, each with its damage."""
    made: dict[str, str] = {}
    pools = {
        "text": CHINESE_KEYS if chinese else ENGLISH_KEYS, "flag": FLAG_KEYS, "number": NUMBER_KEYS, "list": LIST_KEYS,
    }  # fmt: skip
    for damage in damages:
        if damage in NEEDS:
            key = take(rng, [name for name in pools[NEEDS[damage][0]] if name.isascii() != chinese], made)
            if key is not None:
                made[key] = damage
    return made


def needed(rng: Random, plan: dict[str, str]) -> dict[str, Any]:
    """The planned members."""
    return {key: NEEDS[damage][1](rng) for key, damage in plan.items()}


def document(rng: Random, damages: list[str], avoid: frozenset[str]) -> Any:
    """A document with something for every damage to hit."""
    chinese = rng.random() < 0.6
    plan = planned(rng, damages, chinese)
    if "json_lines" in damages or rng.random() < 0.12:
        return [shuffled(rng, item | needed(rng, plan)) for item in similar(rng, chinese, avoid, rng.randint(2, 4))]
    made = flat(rng, chinese, avoid, rng.randint(2, 6)) | needed(rng, plan)
    for _ in range(rng.choice((0, 1, 1, 2))):
        composite_member(rng, made, chinese, avoid)
    return shuffled(rng, made)


def shuffled(rng: Random, members: dict[str, Any]) -> dict[str, Any]:
    """The same members in another order."""
    pairs = list(members.items())
    rng.shuffle(pairs)
    return dict(pairs)


def plain(value: Any) -> Any:
    """The value that a reader must get."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return json.loads(value.text) if isinstance(value, Number) else value


def schema_of(rng: Random, value: Any, key: str = "") -> dict[str, Any]:
    """A schema that the value obeys."""
    if isinstance(value, dict):
        properties = {name: schema_of(rng, item, name) for name, item in value.items()}
        made: dict[str, Any] = {"type": "object", "properties": properties, "required": list(value)}
        return made | ({"additionalProperties": False} if rng.random() < 0.5 else {})
    if isinstance(value, list):
        return {"type": "array", "items": schema_of(rng, value[0]) if value else {"type": "string"}} | (
            {"items": {"type": "number"}} if value and isinstance(value[0], Number) else {}
        )
    if value is None:
        return {"type": ["string", "null"]}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, Number):
        return {"type": "number"}
    return {"type": "string", "enum": list(LABELS[NAMES_OF_LABELS[key]])} if key in LABEL_KEYS else {"type": "string"}


# --- writing ---


@dataclass(frozen=True)
class Layout:
    """How a document is laid out."""

    indent: int  # 0: on one line
    space: str


LAYOUTS = (Layout(0, ""), Layout(0, " "), Layout(2, " "), Layout(4, " "))


def tokens_of(value: Any, layout: Layout, depth: int = 0) -> Tokens:
    """The document as tokens."""
    if isinstance(value, dict):
        rows = [
            [Token("key", key), Token(":", ":"), Token("ws", layout.space), *tokens_of(item, layout, depth + 1)]
            for key, item in value.items()
        ]
        return container("{", "}", rows, "members", layout, depth)
    if isinstance(value, list):
        first = value[0] if value else ""
        holds = "objects" if isinstance(first, dict) else "numbers" if isinstance(first, Number) else "strings"
        return container("[", "]", [tokens_of(item, layout, depth + 1) for item in value], holds, layout, depth)
    if isinstance(value, Number):
        return [Token("num", value.text)]
    return [Token("str", value)] if isinstance(value, str) else [Token("lit", json.dumps(value))]


def container(opening: str, closing: str, rows: list[Tokens], holds: str, layout: Layout, depth: int) -> Tokens:
    """The rows between an opening and a closing mark."""
    if not rows:
        return [Token(opening, opening), Token(closing, closing, "nothing")]
    inner = "\n" + " " * layout.indent * (depth + 1) if layout.indent else ""
    made = [Token(opening, opening, holds), Token("ws", inner)]
    for at, row in enumerate(rows):
        if at:
            made += [Token(",", ",", holds), Token("ws", inner or layout.space)]
        made += row
    outer = "\n" + " " * layout.indent * depth if layout.indent else ""
    return [*made, Token("ws", outer), Token(closing, closing, holds)]


def written(tokens: Tokens) -> str:
    """The text of the tokens."""
    return "".join(token.written() for token in tokens)


# --- damages to the syntax: each returns whether it found something to hit ---


def some(rng: Random, hits: list[Any]) -> list[Any]:
    """All of the places, or one or a few of them."""
    if not hits or rng.random() < 0.4:
        return hits
    return rng.sample(hits, min(len(hits), rng.choice((1, 1, 2))))


def trailing_comma(rng: Random, tokens: Tokens) -> bool:
    """A comma before a closing mark."""
    hits = [token for token in tokens if token.kind in {"}", "]"} and token.holds != "nothing"]
    for token in some(rng, hits):
        at = next(place for place, other in enumerate(tokens) if other is token)
        at -= tokens[at - 1].kind == "ws"
        tokens.insert(at, Token("note", ","))
    return bool(hits)


def doubled_comma(rng: Random, tokens: Tokens) -> bool:
    """Two commas between members."""
    hits = [token for token in tokens if token.kind == "," and token.holds in {"members", "objects"}]
    for token in some(rng, hits)[:2]:
        token.text = rng.choice((",,", ", ,"))
    return bool(hits)


def missing_comma(rng: Random, tokens: Tokens) -> bool:
    """No comma between members on lines of their own."""
    hits = [
        token
        for token, after in itertools.pairwise(tokens)
        if token.kind == "," and token.holds in {"members", "objects"} and "\n" in after.text
    ]
    for token in some(rng, hits):
        token.text = ""
    return bool(hits)


def full_width(kind: str, marks: tuple[str, ...]) -> Callable[[Random, Tokens], bool]:
    """A damage that writes a mark in its full-width form."""

    def damage(rng: Random, tokens: Tokens) -> bool:
        hits = [token for token in tokens if token.kind == kind and token.text == kind and token.holds != "numbers"]
        mark = rng.choice(marks)
        for token in some(rng, hits):
            token.text = mark
        return bool(hits)

    return damage


def full_width_braces(rng: Random, tokens: Tokens) -> bool:
    """All braces, or the outermost pair, full-width."""
    if tokens[0].kind != "{":
        return False
    for token in (tokens[0], tokens[-1]) if rng.random() < 0.5 else tokens:
        token.text = {"{": "｛", "}": "｝"}.get(token.kind, token.text)
    return True


def full_width_brackets(rng: Random, tokens: Tokens) -> bool:
    """All brackets full-width."""
    pair = rng.choices(({"[": "［", "]": "］"}, {"[": "【", "]": "】"}), (4, 1))[0]
    for token in tokens:
        token.text = pair.get(token.kind, token.text)
    return any(token.kind == "[" for token in tokens)


def full_width_quotes(rng: Random, tokens: Tokens) -> bool:
    """Strings between Chinese quotation marks."""
    opening, closing = rng.choices((("“", "”"), ("「", "」"), ("＂", "＂")), (6, 1, 1))[0]
    hits = [
        token
        for token in tokens
        if token.kind in {"key", "str"} and token.text and not set(token.text) & set("“”「」『』＂\"'‘’\\\n\t")
    ]
    keys_only = rng.random() < 0.2
    for token in hits:
        if token.kind == "key" or not keys_only:
            token.opening, token.closing = opening, closing
    return any(token.kind == "str" for token in hits)


def full_width_digits(rng: Random, tokens: Tokens) -> bool:
    """A number in full-width digits."""
    hits = [token for token in tokens if token.kind == "num" and token.text.isdecimal()]
    for token in some(rng, hits):
        token.text = token.text.translate({ord("0") + digit: ord("０") + digit for digit in range(10)})
    return bool(hits)


def unescaped_quotes(_: Random, tokens: Tokens) -> bool:
    """Quotes around words inside a text, without their backslashes."""
    hits = [token for token in tokens if token.kind == "str" and quotes_are_clear(token.text)]
    for token in hits:
        token.bare_quotes = True
    return bool(hits)


def quotes_are_clear(text: str) -> bool:
    """Whether the quotes of the text cannot be taken for its ends: words after and before them, in pairs."""
    pieces = text.split('"')
    if len(pieces) % 2 == 0 or len(pieces) < 3 or "\n" in text or "\\" in text:
        return False
    starts = all(piece.lstrip("， ")[:1].isalpha() for piece in pieces)
    return starts and all(piece.rstrip("： ")[-1:].isalpha() for piece in pieces[:-1])


def raw_newlines(_: Random, tokens: Tokens) -> bool:
    """Line breaks and tabs as they are inside strings."""
    hits = [token for token in tokens if token.kind == "str" and set(token.text) & {"\n", "\t"}]
    for token in hits:
        token.raw = True
    return bool(hits)


def single_quotes(_: Random, tokens: Tokens) -> bool:
    """Strings between single quotes."""
    hits = [token for token in tokens if token.kind in {"key", "str"} and not set(token.text) & set("'\\")]
    for token in hits:
        token.opening = token.closing = "'"
    return len(hits) > 1


def bare_keys(_: Random, tokens: Tokens) -> bool:
    """Keys without quotes."""
    hits = [token for token in tokens if token.kind == "key" and token.text.isidentifier()]
    for token in hits:
        token.opening = token.closing = ""
    return bool(hits)


def python_literals(rng: Random, tokens: Tokens) -> bool:
    """True, False and None."""
    null = rng.choice(("None", "None", "None", "undefined"))
    spelled = {"true": "True", "false": "False", "null": null}
    if null == "undefined":
        spelled = {"null": null}
    hits = [token for token in tokens if token.kind == "lit" and token.text in spelled]
    for token in hits:
        token.text = spelled[token.text]
    return bool(hits)


NOTES = (
    "按原文填写", "单位：元", "required field", "取自第2段", '用户的"昵称"', "见 https://example.com/spec", "1-5 分",
    "已核对",
)  # fmt: skip


def comments(rng: Random, tokens: Tokens) -> bool:
    """Comments at the ends of lines or between tokens."""
    breaks = [at for at, token in enumerate(tokens) if at and token.kind == "ws" and "\n" in token.text]
    gaps = [at for at, token in enumerate(tokens) if at and token.kind == "ws"]
    if not gaps:
        return False
    mark = rng.choice(("//", "//", "#", "/*")) if breaks else "/*"
    places = breaks if mark != "/*" else gaps
    for at in sorted(rng.sample(places, min(len(places), rng.randint(1, 3))), reverse=True):
        note = rng.choice(NOTES)
        tokens.insert(at, Token("note", f" /* {note} */" if mark == "/*" else f"  {mark} {note}"))
    return True


def bad_escapes(_: Random, tokens: Tokens) -> bool:
    """Backslashes that were not doubled, before characters that no escape begins with."""
    hits = [token for token in tokens if token.kind == "str" and token.text in BACKSLASH]  # none of them JSON escapes
    for token in hits:
        token.bare_backslash = True
    return bool(hits)


def odd_spaces(rng: Random, tokens: Tokens) -> bool:
    """Zero-width, no-break and ideographic spaces between tokens."""
    space = rng.choice(("\u200b", "\u00a0", "\u3000", "\ufeff", "\u2060", "\u200b\u00a0"))
    for at in sorted(rng.sample(range(1, len(tokens)), min(len(tokens) - 1, rng.randint(1, 6))), reverse=True):
        tokens.insert(at, Token("note", space))
    return True


SYNTAX: dict[str, Callable[[Random, Tokens], bool]] = {
    "single_quotes": single_quotes,
    "full_width_quotes": full_width_quotes,
    "unescaped_quotes": unescaped_quotes,
    "raw_newlines": raw_newlines,
    "bad_escapes": bad_escapes,
    "bare_keys": bare_keys,
    "python_literals": python_literals,
    "full_width_digits": full_width_digits,
    "full_width_colon": full_width(":", ("：",)),
    "full_width_comma": full_width(",", ("，",)),
    "full_width_braces": full_width_braces,
    "full_width_brackets": full_width_brackets,
    "missing_comma": missing_comma,
    "doubled_comma": doubled_comma,
    "trailing_comma": trailing_comma,
    "comments": comments,
    "odd_spaces": odd_spaces,
}

# --- wrappings ---

PROSE_BEFORE = (
    "好的，以下是提取结果：\n\n",
    "根据您提供的文本，我整理了如下信息：\n",
    '这段话谈到"减负"问题，结构化后为：\n\n',
    "Sure! Here is the JSON you asked for:\n\n",
    "分析如下（尊敬的{姓名}一句未计入）：\n\n",
    "对集合{x | x > 0}中的元素逐条判断后，得到：\n",
    "### 提取结果\n\n",
    "模板里的 {{company}} 已替换，结果：",
)
PROSE_BRACKETS = (
    "先说明：集合{1,2}中的编号对应原文，参见[3]。\n\n",
    "按照文献[1][2]的标准，区间[0, 1]内的分数有效：\n\n",
    "原文里的 a[0] 与 f(x)={y} 已忽略，输出：\n",
)
PROSE_AFTER = (
    "\n\n如需调整字段，请告诉我。",
    "\n\n说明：{姓名}已脱敏，金额单位为元。",
    "\n以上内容仅依据原文，未作推断。",
    "\n\nLet me know if you need anything else!",
    "\n\n> 注：置信度由模型估计：仅供参考。",
)
AFTER_BRACKETS = ("\n\n参考资料：[1]、[2]。", "\n\n注：集合{1,2}以外的编号没有出现。")


def prose(rng: Random, text: str, schema: dict[str, Any] | None, *, after: bool = True) -> str:
    """The text between sentences with braces and brackets of their own."""
    before = rng.choice(PROSE_BEFORE if schema is None else PROSE_BEFORE + PROSE_BRACKETS * 2)
    if not after or rng.random() < 0.4:
        return before + text
    return before + text + rng.choice(PROSE_AFTER if schema is None else PROSE_AFTER + AFTER_BRACKETS)


def fence(rng: Random, text: str) -> str:
    """The text in a fenced block of some kind."""
    ticks, tildes = rng.choice(("```", "```", "```", "````")), "~~~"
    info = rng.choice(("json", "json", "json", "JSON", "", "json5", "javascript", "jsonc"))
    kind = rng.random()
    if kind < 0.1:
        return f"{tildes}{info}\n{text}\n{tildes}"
    if kind < 0.2:
        return f"```json\n{text}"
    if kind < 0.25 and "\n" not in text and "`" not in text:
        return f"```json {text} ```"
    return f"{ticks}{info}\n{text}\n{ticks}"


def fenced(rng: Random, text: str, schema: dict[str, Any] | None) -> str:
    """The text in a fence, with or without sentences around."""
    made = fence(rng, text)
    if rng.random() < 0.5:
        return made
    closed = made.rstrip().endswith(("```", "~~~")) and not text.rstrip().endswith("```")
    return prose(rng, made, schema, after=closed)


def thinking(rng: Random, text: str, draft: str) -> str:
    """The text after reasoning that holds a draft."""
    shown = rng.choice((draft, f"```json\n{draft}\n```"))
    thought = rng.choice((
        f"用户要的是结构化数据。先试一版：{shown}\n不对，数值要再核对一遍，以原文为准。",
        f"Let me draft it first.\n{shown}\nWait, some of the values are wrong. I should fix them.",
        f"字段有哪些？{{姓名}}不需要。\n草稿：\n{shown}\n检查后发现有误，改掉再输出。",
    ))  # fmt: skip
    opening = rng.choice(("<think>\n", "<think>", "<think>\n", ""))
    return f"{opening}{thought}\n</think>\n\n{rng.choice((text, fence(rng, text)))}"


def example(rng: Random, text: str, other: str) -> str:
    """The text after one that is labelled as an example or a first draft."""
    first, last = rng.choice((
        ("示例：", "最终结果："),
        ("输出格式示例：", "本次的最终结果如下："),
        ("**示例**：", "**最终答案**："),
        ("初稿：", "最终版："),
        ("Example:", "Final answer:"),
    ))  # fmt: skip
    if rng.random() < 0.5:
        other, text = f"```json\n{other}\n```", f"```json\n{text}\n```"
    return f"{first}\n{other}\n\n{last}\n{text}"


def tool_call(rng: Random, text: str, schema: dict[str, Any] | None) -> str:
    """The text as the arguments of a call."""
    name = rng.choice(("submit_result", "extract_info", "save_record"))
    kimi = (
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.{name}:0<|tool_call_argument_begin|>{text}"
        "<|tool_call_end|><|tool_calls_section_end|>"
    )
    deepseek = (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{text}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    )
    if schema is None:
        return rng.choice((kimi, deepseek))
    hermes = f'<tool_call>\n{{"name": "{name}", "arguments": {text}}}\n</tool_call>'
    return rng.choice((kimi, deepseek, hermes, hermes))


WRAPPINGS = ("fence", "prose", "think", "example", "tool_call", "json_lines", "html", "json_string", "bom")
DAMAGES = (*SYNTAX, *WRAPPINGS)
"""All damages by name (truncations and the other failures have names of their own)."""

EXCLUSIVE = [
    {"single_quotes", "full_width_quotes"}, {"single_quotes", "unescaped_quotes"},
    {"full_width_quotes", "unescaped_quotes"}, {"single_quotes", "bad_escapes"},
    {"bare_keys", "missing_comma"}, {"bare_keys", "odd_spaces"}, {"full_width_digits", "odd_spaces"},
    {"unescaped_quotes", "comments"}, {"unescaped_quotes", "bare_keys"},
    {"doubled_comma", "comments"}, {"doubled_comma", "missing_comma"}, {"bom", "odd_spaces"},
    *({"json_lines", other} for other in ("raw_newlines", "missing_comma", "comments", "odd_spaces")),
    *({"html", other} for other in WRAPPINGS if other not in {"fence", "html"}),
    *({"json_string", other} for other in DAMAGES if other not in {
        "json_string", "trailing_comma", "single_quotes", "python_literals", "full_width_colon", "full_width_comma",
        "bare_keys",
    }),
    *({one, other} for one in WRAPPINGS[:6] for other in WRAPPINGS[:6] if one != other),
]  # fmt: skip
SCHEMA_NEEDED = {"json_lines", "json_string", "html"}


def fits(damages: list[str]) -> bool:
    """Whether the damages leave one reading together."""
    return len(set(damages)) == len(damages) and not any(pair <= set(damages) for pair in EXCLUSIVE)


def to_avoid(damages: list[str]) -> frozenset[str]:
    """The kinds of text that these damages would make ambiguous."""
    avoid = set()
    if "raw_newlines" in damages:
        avoid |= {"fenced", "code"}
    if "html" in damages:
        avoid.add("entity")
    if "json_string" in damages:
        avoid |= {"backslash", "fenced"}
    if "single_quotes" in damages:
        avoid |= {"code", "backslash"}
    if "bad_escapes" in damages:
        avoid.add("backslash")
    return frozenset(avoid)


def wrapped(rng: Random, text: str, damages: list[str], schema: dict[str, Any] | None, value: Any) -> str:
    """The damaged document in its wrappings."""
    other = written(tokens_of(vary(rng, value), rng.choice(LAYOUTS)))
    for damage in damages:
        match damage:
            case "html":
                text = html.escape(text)
            case "fence":
                text = fenced(rng, text, schema)
            case "prose":
                text = prose(rng, text, schema)
            case "think":
                text = thinking(rng, text, other)
            case "example":
                text = example(rng, text, other)
            case "tool_call":
                text = tool_call(rng, text, schema)
            case "json_string":
                text = json.dumps(text, ensure_ascii=False)
            case _:
                continue
    return "\ufeff" + text if "bom" in damages else text


def layout_for(rng: Random, damages: list[str]) -> Layout:
    """A layout in which the damages are possible."""
    if "json_lines" in damages:
        return rng.choice(LAYOUTS[:2])
    return rng.choice(LAYOUTS[2:] if "missing_comma" in damages else LAYOUTS)


def body(rng: Random, value: Any, damages: list[str]) -> str | None:
    """The document with the damages to its syntax, or None where one of them finds nothing to hit."""
    layout = layout_for(rng, damages)
    parts = value if "json_lines" in damages else [value]
    texts = []
    for part in parts:
        tokens = tokens_of(part, layout)
        for name, damage in SYNTAX.items():
            if name in damages and not damage(rng, tokens):
                return None
        texts.append(written(tokens))
    return "\n".join(texts)


def choose(rng: Random, pool: tuple[str, ...], count: int) -> list[str]:
    """Damages that go together."""
    while True:
        chosen = rng.sample(pool, count)
        if fits(chosen):
            return sorted(chosen, key=ORDER.index)


ORDER = [*SYNTAX, "html", "json_string", "fence", "prose", "think", "example", "tool_call", "json_lines", "bom"]


def repairable(rng: Random) -> Case | None:
    """A case with one to three damages that a reader can undo."""
    damages = choose(rng, DAMAGES, rng.choices((1, 2, 3), (4, 4, 3))[0])
    value = document(rng, damages, to_avoid(damages))
    if not value:
        return None
    with_schema = rng.random() < 0.75 or bool(SCHEMA_NEEDED & set(damages))
    schema = schema_of(rng, value) if with_schema else None
    text = body(rng, value, damages)
    if text is None or ("html" in damages and not {'"', "'"} & set(text)):  # nothing would show what was escaped
        return None
    made = wrapped(rng, text, damages, schema, value)
    return Case(made, schema, "stop", plain(value), None, tuple(damages))


# --- answers that must fail ---

CUTTABLE = ("single_quotes", "full_width_colon", "full_width_comma", "bare_keys", "python_literals", "comments",
            "full_width_quotes", "raw_newlines", "trailing_comma", "bad_escapes")  # fmt: skip


SURROUNDINGS = ("alone", "alone", "fence", "prose", "prose", "think", "json_lines", "in_thought", "json_string")


def truncated(rng: Random) -> Case | None:
    """A document cut somewhere inside, in the usual surroundings."""
    where = rng.choice(SURROUNDINGS)
    damages = choose(rng, CUTTABLE, 1) if rng.random() < 0.3 and where not in {"json_lines", "json_string"} else []
    value = document(rng, [*damages, where], to_avoid([*damages, where]))
    schema = schema_of(rng, value) if rng.random() < 0.75 or where in SCHEMA_NEEDED else None
    text = body(rng, value, [*damages, where])
    if not value or text is None:
        return None
    reason = rng.choice(("stop", "stop", "length"))
    last = text.rpartition("\n")[2] if where == "json_lines" else text
    if len(last) < 12:
        return None
    kept = text[: len(text) - len(last) + rng.randint(6, len(last) - 1)]
    if not kept.strip(" \n\t{[｛［"):
        return None
    if where == "think":
        draft = written(tokens_of(vary(rng, value), rng.choice(LAYOUTS)))
        kept = f"<think>\n先列一版：{draft}\n再核对。\n</think>\n\n{kept}"
    elif where == "in_thought":
        kept = f"<think>\n需要提取的字段如下。先写草稿：\n{text}\n还要核对一遍，" + rng.choice(("", "金额", "看第二段"))
    else:
        kept = {"fence": "```json\n" + kept, "prose": prose(rng, kept, schema, after=False)}.get(where, kept)
        kept = json.dumps(kept, ensure_ascii=False)[:-1] if where == "json_string" else kept
    return Case(kept, schema, reason, None, "truncated", ("truncation", where, reason, *damages))


def too_long(rng: Random) -> Case | None:
    """A whole document, but with finish_reason length."""
    value = document(rng, [], frozenset())
    schema = schema_of(rng, value) if rng.random() < 0.7 else None
    text = written(tokens_of(value, rng.choice(LAYOUTS)))
    return Case(text, schema, "length", None, "truncated", ("complete_but_length",))


def not_a_number(rng: Random, tokens: Tokens) -> bool:
    """NaN or an infinity for a number."""
    hits = [token for token in tokens if token.kind == "num"]
    if hits:
        rng.choice(hits).text = rng.choice(("NaN", "Infinity", "-Infinity", "1e400"))
    return bool(hits)


def missing_value(rng: Random, tokens: Tokens) -> bool:
    """A key without its value."""
    hits = [
        at for at, token in enumerate(tokens[:-3])
        if token.kind == ":" and tokens[at + 2].kind in {"str", "num", "lit"} and tokens[at + 3].kind in {",", "ws"}
    ]  # fmt: skip
    if hits:
        tokens[rng.choice(hits) + 2] = Token("note", "")
    return bool(hits)


def duplicate_key(rng: Random, tokens: Tokens) -> bool:
    """The same key again with another value."""
    hits = [at for at, token in enumerate(tokens) if token.kind == "key" and tokens[at + 3].text.isdecimal()]
    if hits:
        key = tokens[rng.choice(hits)]
        again = [Token("key", key.text), Token(":", ":"), Token("ws", " "), Token("num", "-77"), Token(",", ", ")]
        at = next(place for place, token in enumerate(tokens) if token is key)
        tokens[at:at] = again
    return bool(hits)


def ellipsis(rng: Random, tokens: Tokens) -> bool:
    """A sign that something was left out."""
    ends = [at for at, token in enumerate(tokens) if token.kind == "]" and token.holds in {"strings", "objects"}]
    if not ends:
        return False
    at = rng.choice(ends)
    at -= tokens[at - 1].kind == "ws"
    tokens.insert(at, Token("note", rng.choice((", ...", ", ……", ", …", ",\n// 其余条目省略\n"))))
    return True


def wrong_type(rng: Random, tokens: Tokens) -> bool:
    """A number as a string, which the schema does not allow."""
    hits = [token for token in tokens if token.kind == "num"]
    if hits:
        token = rng.choice(hits)
        token.text = json.dumps(token.text)
    return bool(hits)


SPOILED: dict[str, Callable[[Random, Tokens], bool]] = {
    "not_a_number": not_a_number,
    "missing_value": missing_value,
    "duplicate_key": duplicate_key,
    "ellipsis": ellipsis,
    "wrong_type": wrong_type,
}


def spoiled(rng: Random) -> Case | None:
    """A document that no reading makes right."""
    name = rng.choice(list(SPOILED))
    value = document(rng, [name], frozenset())
    schema = schema_of(rng, value) if name == "wrong_type" or rng.random() < 0.7 else None
    tokens = tokens_of(value, rng.choice(LAYOUTS))
    if not SPOILED[name](rng, tokens):
        return None
    text = written(tokens)
    made = rng.choice((text, f"```json\n{text}\n```", f"结果如下：\n{text}\n以上。"))
    return Case(made, schema, "stop", None, "invalid_output", (name,))


def nothing(rng: Random) -> Case | None:
    """No JSON at all."""
    if rng.random() < 0.3:
        blank = rng.choice(("", " ", "\n\n", "\t\n "))
        return Case(blank, schema_of(rng, {"a": ""}), "stop", None, "empty_output", ("blank",))
    text = "".join(sentence(rng) for _ in range(rng.randint(1, 4)))
    text += rng.choice(("", "抱歉，无法完成该请求。", "尊敬的{姓名}，您好。", "对集合{1,2}中的元素，参见[3]。"))
    schema = schema_of(rng, document(rng, [], frozenset()))
    if schema["type"] != "object":
        return None
    return Case(text, schema, "stop", None, "invalid_output", ("no_json",))


# --- the generator ---


def contradicts(case: Case) -> bool:
    """Whether the text is strict JSON of another value than the expected one, so that the damage failed."""
    try:
        value = json.loads(case.text)
    except ValueError:
        return False
    if case.error is not None:
        return case.error == "truncated" and case.finish_reason == "stop"
    return bool(value != case.output) and not isinstance(value, str)


def generate(seed: int, count: int) -> Iterator[Case]:
    """Yield `count` cases; the same seed gives the same cases."""
    rng = random.Random(seed)
    kinds: list[Callable[[Random], Case | None]] = [repairable, truncated, too_long, spoiled, nothing]
    made = 0
    while made < count:
        case = rng.choices(kinds, (78, 13, 1, 6, 2))[0](rng)
        if case is not None and not contradicts(case):
            made += 1
            yield case
