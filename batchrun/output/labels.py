"""What an answer says of a piece of JSON in it: an example, a draft, the final one, one of several."""

from __future__ import annotations

import re
from enum import Enum


class Label(Enum):
    """What the words beside a candidate call it."""

    NONE = "none"
    EXAMPLE = "example"
    DRAFT = "draft"
    FINAL = "final"


_LINE_MARKS = re.compile(r"(?:`{3,}|~{3,})[\w+-]*[ \t]*\Z")
_SENTENCE_END = re.compile(r"[。！？!?]+(?=[^。！？!?]*\w)")
#: A mention of an example that was followed is no label, nor is one that is denied, nor a title.
_FOLLOWED = re.compile(
    r"《[^》\n]{0,60}》|\{[^{}\n]{0,60}\}|(?:不是|并非|而非|不属于|没有|无需|未参考)(?:一个|任何)?(?:格式|输出)?(?:示例|样例|范例|例子|模板|初稿|草稿|草案)"
    r"|\bnot (?:an?|the) (?:example|sample|template|draft)\b|"
    r"(?:按照?|依照|参照|参考|根据|遵循|仿照|符合|基于|following|based on|according to|per)[^，。,:：\n]{0,12}?"
    r"(?:示例|样例|范例|例子|模板|格式|example|sample|template|format|draft|初稿|草稿|原文|输入|input)",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(
    r"(?:示例|样例|范例|例子|例如|比如|譬如|举例|举个例|模板(?=(?:如下|为|是)?[：:\s]*\Z|示|格)|格式为|格式应|格式要求|格式说明|占位|勿当|参考(?:资料|文献|字段|格式)|资料来源|数据来源|附注|脚注|取值范围|可选值|枚举值|标签集|(?<![\u4e00-\u9fff])参考(?=[：:\s]*\Z))(?=.{0,14}\Z)"
    r"|(?:不应|不应该|不要|不能|不可|没有|并未|而不是|而非|不是|禁止|避免)(?:再|直接|只)?(?:输出|返回|写成?|填写?|给出)?[\s:：]*\Z"
    r"|\b(?:not|instead of|rather than)\s*\Z"
    r"|(?:如果|若是|若|假如|倘若|万一|否则)(?=[^。！？\n]{0,60}(?:返回|输出|填写?|写成?|记为|应为|则为))"
    r"|\b(?:if|when|otherwise)\b(?=[^.!?\n`(){}]{0,60}\b(?:return|output|respond|reply|use)\b)"
    r"|\b(?:examples?|e\.g|sample|template|for instance|placeholder)\b(?=.{0,36}\Z)",
    re.IGNORECASE,
)
_DRAFT = re.compile(
    r"初稿|草稿|草案|初步|初版|第一次|初次|修改前|更正前|修正前|旧版|旧的|旧结果|旧值|原值|原结果|原来的|之前的|一开始|有误|错误(?:的|写法|示范)|不正确|不对|废弃|作废|截断|中断|不完整|待(?:校对|处理|分析|修正|标注|审核|清洗)|(?:提供|给出|输入|发来|粘贴)的|仅供(?:参考|对照)"
    r"|\bdraft\b|\binitial(?:ly)?\b|\bfirst (?:attempt|version|try|pass)\b|\bpreliminary\b"
    r"|\bwrong\b|\bincorrect\b|\bprevious\b"
    r"|\binput\b|输入(?:数据|为|如下|：|:)|原始(?:数据|输入|文本)",
    re.IGNORECASE,
)
#: These name a draft and nothing else, also where it stands alone.
_ONLY_DRAFT = re.compile(r"初稿|草稿|草案|\bdraft\b", re.IGNORECASE)
_FINAL = re.compile(
    r"最终|最后|终稿|定稿|终版|(?:修正|更正|改正|修订|修改|纠正|调整|校对|完善)(?:后|版|如下|为|结果|：|:)|更正|正式|正确(?:的|答案|结果|输出|版|写法)|应(?:该)?(?:为|是|改为)"
    r"|改为|重新(?:完整)?(?:地)?(?:输出|给出|生成|整理)|再次输出|\bfinal(?:ly)?\b|\bcorrected\b|\brevised\b|\bupdated\b|结论|综上",
    re.IGNORECASE,
)
# On the line of its end, or on the next one if that points back.
_CLOSED = r"(?:[ \t]*+\n?[ \t]*+(?:`{3,}|~{3,}))?"
_AFTERWARDS = re.compile(
    rf"{_CLOSED}(?:[ \t]*+[（(【\[<!—-]*+[ \t]*+(?:(?://|#)[ \t]*+)?|\s*+[（(【\[<!—-]*+\s*+(?=这|以上|上述|上面|此))"
    r"(?:这|以上|上述|上面|此)?(?:里|处|个|段)?(?:只|仅|仅仅|只是)?(?:是|为|作)?(?:一个|个|为)?"
    r"(?:格式|输出|JSON|简单)?的?(?P<label>示例|例子|样例|范例|模板|初稿|草稿|草案)(?!\w*中)",
)
_AFTERWARDS_EN = re.compile(
    rf"{_CLOSED}(?:[ \t]*+[(\[]?|\s*+[(\[]?(?=this|the above|that))"
    r"(?:this|the above|that)?(?:'s| is| was)?[ \t]*+(?:only[ \t]*+|just[ \t]*+)?(?:an?[ \t]++|the[ \t]++|my[ \t]++)?"
    r"(?:first[ \t]++|rough[ \t]++)?(?P<label>example|sample|template|draft)\b(?! of the)",
    re.IGNORECASE,
)
_DROPPED = re.compile(
    r"[ \t]*(?:已经?|应|请|可|均)?(?:被)?(?:忽略|作废|略过|删除|弃用|废弃)"
    r"|[ \t]*(?:是|为|属于)?(?:错误|占位|不正确|不对|旧)"
)
_ALTERNATIVE = re.compile(
    r"或者|或是|\A\W*或\W*\Z|要么|也可以|也可能|也有可能|另一种|另一个可能|另有|备选|方案\s*[一二三四五\dA-D]|选项\s*[一二三四五\dA-D]|版本\s*[一二三四五\dA-D]|[A-D一二三四五甲乙]\s*(?:版本?|方案|选项)|两者都|都可以|均可|任选|都说得通|两种理解|自行选择"
    r"|\A\W*(?:以及|和|与|及|还有|并且|另外)\W*\Z|\A\W*(?:and|plus)\W*\Z|可能(?:性|结果|的)|之一|二选一|\bor\b|\balternative(?:ly)?\b|\beither\b|\boption\b|\bpossib",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"[一二三四五六七八九十\d甲乙丙丁①②③④⑤⑥⑦⑧⑨⑩]+|(?<![A-Za-z])[A-D](?![A-Za-z])")
_NAME = re.compile(r"[\W_]*(\w{1,10})[\W_]*[:：]?[\W_]*")
_RESULT = re.compile(
    r"结果|输出|答案|JSON|如下|回答|分析|思考|提取|抽取|整理|返回|总结|[修改更最正错新旧前后]|result|output|answer|final|analysis",
    re.IGNORECASE,
)
_FINAL_HERE = re.compile(
    r"(?:最终|最后|修正|更正|改正|修改|修订|改为|正确|输出|final|corrected|revised|output)[^\n{}\[\]：:]{0,10}[：:]\s*"
    r"(?:(?:`{3,}|~{3,})\w*\s*)?[{\[｛［\"“]",
    re.IGNORECASE,
)
_WITHDRAWN = re.compile(
    r"(?:上面|以上|上述|前面|刚才|之前)[^。！？\n{}\[\]]{0,14}(?:有误|错误|不对|不正确|作废|忽略|无效|撤回|不可用|不成立)"
    r"|\b(?:ignore|disregard) the (?:above|previous)\b|\bthe above (?:is|was) (?:wrong|incorrect|invalid)\b",
    re.IGNORECASE,
)
_NUMBER = r"[一二三四五六七八九十两\d①②③④⑤⑥⑦⑧⑨⑩]+"
_ENUMERATED = re.compile(
    rf"第\s*{_NUMBER}\s*(?:条|个|则|篇|段|句|项|件|位|份|组|行|题)|(?:评论|样本|文本|记录|条目|商品|订单|句子|段落|文章|新闻|题目|问题|客户|用户|数据|结果|例|条)\s*{_NUMBER}"
    rf"|\b(?:item|review|record|text|sample|entry|result|sentence|question|answer|part|case)\s*#?\d+"
    rf"|\A\W*(?:{_NUMBER}\s*[.、)）:：]|[（(]\s*{_NUMBER}\s*[)）]|[①②③④⑤⑥⑦⑧⑨⑩]|[A-D]\s*[.、)）:：])",
    re.IGNORECASE,
)


def words_before(text: str, begin: int, start: int) -> str:
    """Give the sentence that stands before a place: the last line with words in it, back to `begin` at most."""
    words = text[max(begin, start - 300) : start].rstrip()
    words = _LINE_MARKS.sub("", words).rstrip().rsplit("\n", 1)[-1]
    parts = _SENTENCE_END.split(words)
    return parts[-1].strip()


def label_of(before: str, after: str) -> Label:
    """Tell what the words before and after a piece of JSON call it; the nearest word counts."""
    afterwards = _AFTERWARDS.match(after) or _AFTERWARDS_EN.match(after)
    if afterwards:
        return Label.DRAFT if _ONLY_DRAFT.search(afterwards["label"]) else Label.EXAMPLE
    if _DROPPED.match(after):
        return Label.DRAFT
    words = _FOLLOWED.sub("", before)
    final = max((one.end() for one in _FINAL.finditer(words)), default=-1)
    clause = max(words.rstrip("，,：: ").rfind(sign) for sign in "，,")
    example = max((one.end() for one in _EXAMPLE.finditer(words)), default=-1)
    draft = max((one.end() for one in _DRAFT.finditer(words, max(clause, 0))), default=-1)
    draft = max((one.end() for one in _ONLY_DRAFT.finditer(words)), default=draft)
    best = max(final, example, draft)
    if best < 0:
        return Label.NONE
    if best == draft:
        return Label.DRAFT
    return Label.EXAMPLE if best == example else Label.FINAL


def is_only_a_draft(before: str, after: str) -> bool:
    """Tell whether a piece of JSON that stands alone is called a draft."""
    return bool(_ONLY_DRAFT.search(before[-40:]) or _ONLY_DRAFT.search(after[:20]))


def is_alternative(between: str) -> bool:
    """Tell whether words join what stands before and after them as two possibilities."""
    return _ALTERNATIVE.search(between[-200:]) is not None


def is_of_another(one: str, other: str) -> bool:
    """Tell whether the words before two pieces of JSON name two things: 张三：{…} 李四：{…}."""
    names = [_NAME.fullmatch(words) for words in (one, other)]
    if names[0] is None or names[1] is None:
        return False
    first, second = names[0].group(1), names[1].group(1)
    return first != second and not any(_RESULT.search(name) for name in (first, second))


def is_series(one: str, other: str) -> bool:
    """Tell whether the words before two pieces of JSON differ in nothing but a number."""
    series = _ORDINAL.sub("#", one)
    return "#" in series and one != other and series == _ORDINAL.sub("#", other)


def names_final(text: str, begin: int) -> int | None:
    """Give where something begins, after a place, that the words before it call final or the output; or None."""
    found = _FINAL_HERE.search(text, begin)
    return found.end() - 1 if found else None


def is_withdrawn(after: str) -> bool:
    """Tell whether the words after a piece of JSON take it back."""
    return _WITHDRAWN.search(after) is not None


def is_enumerated(before: str) -> bool:
    """Tell whether the words before a piece of JSON number it as one of several."""
    return _ENUMERATED.search(before) is not None
