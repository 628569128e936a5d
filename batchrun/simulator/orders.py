"""What a message orders word for word: to say one thing only, to repeat, to count, to give something random."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from batchrun.simulator.chance import Dice

#: An order stands at the beginning of a message; what comes after may say anything.
_ORDER_CHARACTERS = 2_000
_REQUEST_CHARACTERS = 200
_MAX_REQUEST_CHARACTERS = 500
_MAX_TEXT_CHARACTERS = 20_000
_MAX_NUMBERS = 5_000
_MAX_RANDOM = 100
#: Texts of this length and more are not kept.
_MAX_CACHED_CHARACTERS = 4_096

_QUOTES = {"“": "”", "「": "」", "『": "』", '"': '"', "'": "'", "`": "`"}
_VERBS = "answer|reply|respond|output|say|return|write|print"
_NOUNS = (
    r"(?:(?:the|this|that|following|exact|single|one|word|text|phrase|token|string|line|letter|number|digit)\b\s*){0,5}"
)
_ONLY = (
    re.compile(
        r"(?:只|仅|一律|始终|总是|永远|必须)(?:能|需|要|用|许|可以)?(?:回答|回复|输出|返回|说|答|写)"
        r"(?:[一两二三四五六七八九十\d]{1,2}个(?:字|词|单词|数字|字母)|(?:以下|下面的?)(?:内容|文字|文本)|这个?(?:字|词))?\s*(?P<colon>[:：]?)\s*"
    ),
    re.compile(
        rf"\b(?:(?:{_VERBS})\s+(?:(?:always|only|just|exactly|strictly|nothing\s+but)(?:\s+(?:with\s+)?|(?=:))"
        r"|with\s+(?:only|just|exactly|nothing\s+but)(?:\s+|(?=:)))"
        rf"|(?:only|always|just)\s+(?:{_VERBS})\s+(?:only\s+|exactly\s+)?(?:with\s+)?(?:only\s+|exactly\s+)?)"
        rf"{_NOUNS}(?P<colon>:?)\s*",
        re.IGNORECASE,
    ),
)
#: These are orders only with the words after them.
_WEAK = re.compile(
    rf"(?:(?:回答|回复|输出|返回|说)\s*(?P<colon>[:：]?)|\b(?:{_VERBS})\s+(?:with\s+)?{_NOUNS}(?P<ascii_colon>:?))\s*",
    re.IGNORECASE,
)
_NOTHING_ELSE = re.compile(
    r"\s*(?:and\s+(?:say\s+)?nothing\s+else|only\b|[，,。]?\s*(?:不要|别|不得|无需|不能)[^。\n]{0,10}"
    r"(?:其他|其它|别的|任何|多余|解释))",
    re.IGNORECASE,
)
#: What comes after these words is the text itself.
_BARE = re.compile(r"\b(?:say|exactly|word|phrase|token|string)\b", re.IGNORECASE)
#: One of several things to choose from is no order.
_ONE_OF = re.compile(
    r"""\s*(?:[、或和与/|]|[，,（(]\s*(?:[“「『"'`或]|or\b)|or\b|and\s+["'“`]|之一|中)""", re.IGNORECASE
)
_ASCII_WORD = re.compile(r"[A-Za-z0-9][\w-]{0,39}(?=\s*(?:[。，,.!！;；\n]|$|and\b))", re.ASCII)
_SHORT_TEXT = re.compile(
    r"[^\s、，,。或/“”\"'{}\[\]<>（）()：:；;！!？?]{1,20}(?=\s*(?:[。.!！\n]|[，,]\s*[不别勿无请]|$))"
)
_SENTENCE = re.compile(r"[^\n.!?。！？]{1,200}?(?=\s*(?:,?\s*and\s+nothing\s+else|[\n.!?。！？]|$))", re.IGNORECASE)
_EXACTLY = re.compile(r"\bexact", re.IGNORECASE)
#: A form or a language to answer in is no text to say.
_FORMS = frozenset({
    "json", "jsonl", "yaml", "xml", "html", "markdown", "sql", "csv", "tsv", "latex", "code", "text", "url", "id",
    "bash", "python", "java", "english", "chinese",
})  # fmt: skip

_REPEAT = (
    re.compile(
        r"(?<![不去除掉的有无免勿出并查])(?:重复|复述|照抄|(?:原样|逐字)(?:地)?(?:输出|重复|返回|复述|打印|照抄))(?:地)?(?:输出|写|说|一遍|一次)?"
        r"(?:以下|下面|下列|这段|这句|后面)?(?:的|这段|这句|我说的|我的)?(?:内容|文字|文本|文段|话|句子|字符串|词|字)?"
        r"(?:[（(，,]\s*不[^：:\n“「\"]{0,30})?\s*(?:[:：]|(?=[“「『\"`]))\s*"
    ),
    re.compile(
        r"\brepeat\b[^.\n:\"“`]{0,60}(?::|(?=[\"“`]))\s*"
        r"|\b(?:copy|echo|output|print|say|write|return)\b[^.\n:\"“`]{0,60}\b(?:exactly|verbatim|word for word|as is)\b"
        r"[^.\n:\"“`]{0,40}(?::|(?=[\"“`]))\s*",
        re.IGNORECASE,
    ),
)
_HAND_OVER = re.compile(r"[把将](?:下面的?|以下)?(?:文字|文本|内容|字符串|词|字)?\s*[:：]?\s*(?=[“「『\"`])")
_TO_REPEAT = re.compile(r"[^。\n“「\"]{0,12}(?:原样|重复|复述|照抄)")
#: How often to say what: the words around a text in quotes, or around one word.
_OFTEN = (
    re.compile(
        r"(?:重复|说|写|输出|打印|念)(?![了过着])[^。！？\n“「『\"`]{0,12}?(?P<times>\d{1,4})\s*[次遍]"
        r"[^。！？\n“「『\"`]{0,8}(?P<quote>[“「『\"`])"
    ),
    re.compile(
        r"(?P<quote>[“「『\"`])[^”」』\"`\n]{1,100}[”」』\"`][^。！？\n“「『\"`]{0,8}(?:重复|说|写|输出|打印|念)(?![了过着])"
        r"[^。！？\n“「『\"`\d]{0,8}(?P<times>\d{1,4})\s*[次遍]"
    ),
    re.compile(
        r"(?:重复|说|写|输出|打印|念)(?![了过着])[^。！？\n“「『\"`]{0,8}(?P<quote>[“「『\"`])[^”」』\"`\n]{1,100}[”」』\"`]"
        r"[^。！？\n“「『\"`\d]{0,8}(?P<times>\d{1,4})\s*[次遍]"
    ),
    re.compile(
        r"\b(?:repeat|say|write|print|output)\b[^.!?\n\"“`]{0,20}(?P<quote>[\"“`])[^\"”`\n]{1,100}[\"”`]"
        r"[^.!?\n\"“`\d]{0,20}(?P<times>\d{1,4})\s+times",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:repeat|say|write|print|output)\s+(?:the\s+)?(?:word\s+|text\s+)?(?P<word>[\w-]{1,40})\s+"
        r"(?P<times>\d{1,4})\s+times",
        re.IGNORECASE,
    ),
)
_WITHOUT_END = re.compile(
    r"(?:一直|不停地?|不断地?|无限)重复[^。\n“「『\"`]{0,8}(?=[“「『\"`])|\brepeat\b[^.\n\"“`]{0,30}(?=[\"“`])",
    re.IGNORECASE,
)
_FOREVER = re.compile(r"一直|不停|不断|无限|\b(?:forever|endlessly|over and over|without stopping)\b", re.IGNORECASE)
_FOREVER_TIMES = 500

_COUNT = (
    re.compile(
        r"从\s*(\d{1,5})\s*(?:开始)?[，,]?\s*(?:一直)?\s*(?:数|写|列|报|念|输出|打印|计数)数?\s*(?:到|至)\s*(\d{1,5})(?!\d|\s*年)"
    ),
    re.compile(r"从\s*(\d{1,5})\s*(?:到|至)\s*(\d{1,5})\s*(?:依次|逐个|数数|的(?:所有)?(?:整数|数字|自然数))"),
    re.compile(
        r"(?:写|列|输出|数|报|打印|念)[^。\n\d]{0,10}(\d{1,5})\s*(?:到|至|-|~|～|—)\s*(\d{1,5})\s*(?:之间)?的?"
        r"(?:所有|全部|每个)?(?:整数|数字|自然数)"
    ),
    re.compile(r"()(?<!\d)(?:数到|\bcount\s+(?:up\s+)?to)\s*(\d{1,5})(?!\d|\s*年)", re.IGNORECASE),
    re.compile(r"\bcount\b[^.\n\d]{0,30}\bfrom\s+(\d{1,5})\s+(?:up\s+)?to\s+(\d{1,5})\b", re.IGNORECASE),
    re.compile(
        r"\b(?:list|write|print|say|output)\b[^.\n\d]{0,20}\b(?:numbers|integers)\b[^.\n\d]{0,20}(\d{1,5})\s+to\s+(\d{1,5})\b",
        re.IGNORECASE,
    ),
)
_SEPARATORS = (
    ("每行", "\n"),
    ("换行", "\n"),
    ("per line", "\n"),
    ("newline", "\n"),
    ("空格", " "),
    ("spaces", " "),
    ("英文逗号", ","),
    ("半角逗号", ","),
)

_RANDOM = re.compile(
    r"随机(?!森林|变量|过程|梯度|分布|抽样|事件|性|游走|误差)(?:地)?(?:给|说|写|选|挑|生成|输出|想|报|取|抽|一|1)"
    r"|(?:给|说|写|选|挑|生成|输出|回答|回复|想|告诉|报|取|抽|来|讲|编)[^。！？\n]{0,20}随机"
    r"(?!森林|变量|过程|梯度|分布|抽样|事件|性|游走|误差)"
    r"|随便(?:说|写|给|选|想|挑|讲|编)"
    r"|\b(?:give|say|pick|choose|generate|create|make|invent|output|write|tell|name|print|return|think|answer|reply|respond)\b"
    r"[^.!?\n]{0,60}\brandom(?:ly)?\b|^\s*(?:a\s+)?random\b",
    re.IGNORECASE,
)
_RANGE = re.compile(r"(\d{1,12})\s*(?:到|至|-|~|～|—|–|and|to|和|与)\s*(\d{1,12})", re.IGNORECASE)
_HOW_MANY = re.compile(r"(\d{1,3})\s*(?:个|random\b)", re.IGNORECASE)
_DIGITS = re.compile(r"(1[0-8]|[1-9])\s*(?:位|-?\s*digit)", re.IGNORECASE)
_DEFAULT_RANGE = (1, 1_000_000)
_FIRST = "青红白蓝金银春夏秋冬山水云雨风雪星月花草松竹梅兰东南西北远近高长"
_SECOND = "石桥河湖林海田园船帆灯塔钟楼书笔茶琴鸟鱼马鹿门窗路街城村峰谷泉岛"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_STRING_CHARACTERS = 12


_ONLY_WORDS = (*_VERBS.split("|"), "回答", "回复", "输出", "返回", "说", "答", "写")
_OFTEN_WORDS = ("次", "遍", "times", "重复", "repeat")
_REPEAT_WORDS = ("重复", "复述", "照抄", "原样", "逐字", "repeat", "exactly", "verbatim", "word for word", "as is")
_LOT_WORDS = ("随机", "随便", "random")


class Thing(StrEnum):
    """What can be asked for at random."""

    NUMBER = "number"
    LETTER = "letter"
    STRING = "string"
    WORD = "word"
    ANYTHING = "anything"


_THINGS = (
    (Thing.NUMBER, re.compile(r"数字|整数|数值|随机数|的数|个数|位数|\b(?:number|integer|digit)s?\b", re.IGNORECASE)),
    (Thing.LETTER, re.compile(r"字母|\bletters?\b", re.IGNORECASE)),
    (Thing.STRING, re.compile(r"字符串|验证码|密码|\b(?:string|code|password|uuid|token)\b", re.IGNORECASE)),
    (
        Thing.WORD,
        re.compile(
            r"词|汉字|名字|颜色|动物|水果|城市|\b(?:words?|name|colou?r|animal|fruit|city|noun|verb)\b", re.IGNORECASE
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Random:
    """Something random: what, how often, and for numbers from where to where, both included."""

    thing: Thing
    many: int = 1
    low: int = _DEFAULT_RANGE[0]
    high: int = _DEFAULT_RANGE[1]

    def draw(self, number: int) -> str:
        """Give what is asked for; the same for the same number."""
        dice = Dice(number)
        return "，".join(self._one(dice) for _ in range(self.many))

    def _one(self, dice: Dice) -> str:
        if self.thing is Thing.NUMBER:
            return str(self.low + dice.below(self.high - self.low + 1))
        if self.thing is Thing.LETTER:
            return _LETTERS[dice.below(len(_LETTERS))]
        if self.thing is Thing.STRING:
            return "".join(_LETTERS[dice.below(len(_LETTERS))] for _ in range(_STRING_CHARACTERS))
        return _FIRST[dice.below(len(_FIRST))] + _SECOND[dice.below(len(_SECOND))] + _SECOND[dice.below(len(_SECOND))]


#: A text to say, or something random.
Order = str | Random


def said_only(text: str) -> str | None:
    """Give the text that is to be the whole answer, as a system message may order; None for no such order."""
    return _kept_only(text) if len(text) < _MAX_CACHED_CHARACTERS else _said_only(text)


def ordered(text: str) -> Order | None:
    """Give what a user message orders word for word, None for every other message."""
    is_request = len(text) <= _MAX_REQUEST_CHARACTERS  # others have something to work on
    if is_request and (only := said_only(text)) is not None:
        return only
    if (repeated := _repeated(text)) is not None:
        return repeated[:_MAX_TEXT_CHARACTERS]
    if not is_request:
        return None
    if _mentions(text, _LOT_WORDS) and _RANDOM.search(text):
        return _random(text)
    return _counted(text)


def _mentions(text: str, words: tuple[str, ...]) -> bool:
    """Look for words before patterns are tried: most texts have none of them."""
    small = text.lower()
    return any(word in small for word in words)


def _said_only(text: str) -> str | None:
    head = text[:_ORDER_CHARACTERS]
    if not _mentions(head, _ONLY_WORDS):
        return None
    for pattern in _ONLY:
        for found in pattern.finditer(head):
            bare = not found[0].isascii() or _BARE.search(found[0]) is not None
            said = _said(head, found.end(), plain=bool(found["colon"]), bare=bare)
            if said is None and found["colon"] and _EXACTLY.search(found[0]):
                said = _sentence(head, found.end())
            if said is not None and not _ONE_OF.match(head, said[1]):
                return said[0]
    for found in _WEAK.finditer(head):
        said = _said(head, found.end(), plain=bool(found["colon"] or found["ascii_colon"]), bare=True)
        if said is not None and _NOTHING_ELSE.match(head, said[1]):
            return said[0]
    return None


_kept_only = lru_cache(maxsize=128)(_said_only)


def _said(text: str, position: int, *, plain: bool, bare: bool) -> tuple[str, int] | None:
    """Give the text that stands at a position and where it ends: in quotes, as one word, after a colon `plain`.

    Without quotes, a word in small letters is the text itself only where `bare` says so: "only the summary" is not.
    """
    quoted = _quoted(text, position)
    if quoted is not None:
        return quoted
    found = _ASCII_WORD.match(text, position)
    if found is not None and found[0].lower() not in _FORMS and (plain or bare or not _is_small(found[0])):
        return found[0], found.end()
    found = _SHORT_TEXT.match(text, position) if plain else None
    return None if found is None or found[0].lower() in _FORMS else (found[0], found.end())


def _sentence(text: str, position: int) -> tuple[str, int] | None:
    found = _SENTENCE.match(text, position)
    return None if found is None else (found[0], found.end())


def _is_small(word: str) -> bool:
    return word == word.lower() and not any(character.isdigit() for character in word)


def _quoted(text: str, position: int) -> tuple[str, int] | None:
    closing = _QUOTES.get(text[position : position + 1])
    end = -1 if closing is None else text.find(closing, position + 1)
    return (text[position + 1 : end], end + 1) if end > position + 1 else None


def _repeated(text: str) -> str | None:
    head = text[:_REQUEST_CHARACTERS]
    if head == text and _mentions(head, _OFTEN_WORDS) and (often := _often(text)) is not None:
        return often
    if not _mentions(head, _REPEAT_WORDS):
        return None
    for found in _HAND_OVER.finditer(head):
        quoted = _quoted(text, found.end())
        if quoted is not None and _TO_REPEAT.match(text, quoted[1]):
            return quoted[0]
    for pattern in _REPEAT:
        asked = pattern.search(head)
        if asked is not None:
            return _rest(text[asked.end() :].strip())
    return None


def _often(text: str) -> str | None:
    """Give what a short text wants to be said so many times."""
    for pattern in _OFTEN:
        found = pattern.search(text)
        if found is not None:
            word = found.groupdict().get("word")
            quoted = None if word else _quoted(text, found.start("quote"))
            once = quoted[0] if quoted else word
            return None if once is None else _times(once, int(found["times"]), text)
    endless = _WITHOUT_END.search(text) if _FOREVER.search(text) else None
    quoted = _quoted(text, endless.end()) if endless is not None else None
    return _times(quoted[0], _FOREVER_TIMES, text) if quoted is not None else None


def _times(once: str, times: int, text: str) -> str:
    usual = " " if once.isascii() else ""
    return _separator(text, usual).join([once] * min(times, _MAX_NUMBERS))


def _separator(text: str, usual: str) -> str:
    return next((mark for words, mark in _SEPARATORS if words in text), usual)


def _rest(text: str) -> str | None:
    bare = text.rstrip("。.")
    if len(bare) > 1 and _QUOTES.get(bare[0]) == bare[-1]:
        return bare[1:-1]
    quoted = _quoted(text, 0)
    return quoted[0] if quoted is not None else text or None


def _counted(text: str) -> str | None:
    for pattern in _COUNT:
        found = pattern.search(text)
        if found is not None:
            low, high = int(found[1] or 1), int(found[2])
            step = 1 if high >= low else -1
            numbers = range(low, high + step, step)[:_MAX_NUMBERS]
            return _separator(text, ", " if text.isascii() else "，").join(map(str, numbers))
    return None


def _random(text: str) -> Random:
    thing = next((thing for thing, pattern in _THINGS if pattern.search(text)), Thing.ANYTHING)
    span, many = _RANGE.search(text), _HOW_MANY.search(text)
    low, high = sorted((int(span[1]), int(span[2]))) if span else _DEFAULT_RANGE
    digits = _DIGITS.search(text)
    if digits is not None and span is None:
        low, high = 10 ** (int(digits[1]) - 1), 10 ** int(digits[1]) - 1
    return Random(thing, max(1, min(int(many[1]), _MAX_RANDOM)) if many else 1, low, high)
