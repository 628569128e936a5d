"""Detectors of numbers that belong to people and organisations of mainland China, and of payment cards.

A number is taken where its check digits, its form or the words before it tell it from an order number. All patterns
begin with a set or a literal, which makes the search fast, and are bounded, which makes it linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from re import Match

from batchrun.boundary.checksums import (
    PROVINCES,
    is_birthday,
    luhn,
    organisation_code,
    resident_id,
    social_credit_code,
)
from batchrun.boundary.detector import Detector, Span, accepted

#: What stands between the groups of a number.
_GAP = r"(?: ?[-.·] ?| {1,2})"
#: Seven digits with at most a gap between each two; no number looked for here has fewer.
_DIGITS = re.compile(r"[0-9](?:[ .·\-()（）]{0,3}[0-9]){6}")
_NOT_ALNUM = re.compile(r"[^0-9A-Za-z]+")
_CONTEXT = 16  # characters before a number in which a word can say what it is

# --- what stands around a number --------------------------------------------------------------------------------

_LABEL = re.compile(
    r"(?:(?:订单|运单|快递|物流|流水|序列|批次?|货|工单|发票|合同|凭证|交易|商品|产品|物料|设备|资产|保单|出库|入库|单)"
    r"(?:单|编)?(?:号码?|码)|订单|编号|编码|条码|条形码"
    r"|(?<![a-z])(?:order|tracking|serial|invoice|sku|isbn|ean|upc|imei|sn|s/n|batch)[ _-]?(?:no\.?|number|id|num)?"
    r"|[?&](?:item|goods|product|sku|order)?_?id)(?:是|为)?[\s:：#＃='\"（(]{0,4}$",
    re.IGNORECASE,
)
_AMOUNT_BEFORE = re.compile(r"[¥￥$€£] ?$|[0-9]\.$")
#: `.0` alone is how a table of numbers with gaps spells its whole numbers.
_AMOUNT_AFTER = re.compile(r"\.(?!0(?![0-9]))[0-9]| ?(?:元|円|美元|[¥￥%％])")


def _is_labelled_otherwise(view: str, start: int) -> bool:
    """Tell whether the words right before say that this is an order number or the like."""
    return _LABEL.search(view, max(0, start - _CONTEXT), start) is not None


def _is_amount(view: str, start: int, end: int) -> bool:
    return bool(_AMOUNT_BEFORE.search(view, max(0, start - 2), start) or _AMOUNT_AFTER.match(view, end))


def _has_word(words: re.Pattern[str], view: str, start: int, end: int | None = None, after: int = 0) -> bool:
    """Tell whether a word that names the number stands shortly before it, or within `after` characters behind it."""
    if words.search(view, max(0, start - _CONTEXT), start):
        return True
    return end is not None and bool(words.search(view, end, end + after))


def _is_alnum_before(view: str, start: int) -> bool:
    return start > 0 and (view[start - 1] == "_" or (view[start - 1].isascii() and view[start - 1].isalnum()))


# --- resident ids -----------------------------------------------------------------------------------------------

_RESIDENT_ID = re.compile(
    r"[1-9](?<![0-9].)(?:[ \-]?[0-9]){5}[ \-]?(?:1[ \-]?[89]|2[ \-]?0)(?:[ \-]?[0-9]){9}[ \-]?[0-9Xx](?![0-9A-Za-z])"
)
_OLD_RESIDENT_ID = re.compile(r"[1-8](?<![0-9A-Za-z_].)[0-9]{14}(?![0-9A-Za-z_]|[.\-][0-9])")
_ID_WORD = re.compile(r"身份证|证件号|公民身份|居民身份|id ?card", re.IGNORECASE)


def _accept_resident_id(_view: str, found: Match[str]) -> Span | None:
    return found.span() if resident_id(_NOT_ALNUM.sub("", found[0])) else None


def _accept_old_resident_id(view: str, found: Match[str]) -> Span | None:
    """The form of 15 digits has no check digit, so a word must say what it is."""
    number = found[0]
    plausible = number[:2] in PROVINCES and is_birthday("19" + number[6:12])
    return found.span() if plausible and _has_word(_ID_WORD, view, found.start()) else None


def _resident_ids(view: str) -> Iterator[Span]:
    yield from accepted(_RESIDENT_ID, _accept_resident_id, view)
    yield from accepted(_OLD_RESIDENT_ID, _accept_old_resident_id, view)


# --- telephones -------------------------------------------------------------------------------------------------

#: The networks' numbers: the third digit that each second one can have.
_NETWORK = r"1(?:3[0-9]|4[579]|5[0-35-9]|6[12567]|7[0-35-8]|8[0-9]|9[0-35-9])"
_SINGLE = re.compile(r"1([ .·\-])[3-9](?:\1[0-9]){9}(?![0-9A-Za-z_]|[ .·\-][0-9])")
_MOBILE = re.compile(
    rf"{_NETWORK}(?:{_GAP}?[0-9]{{4}}{_GAP}?[0-9]{{4}}|{_GAP}[0-9]{{3}}{_GAP}[0-9]{{5}}|[0-9]{_GAP}[0-9]{{3}}{_GAP}[0-9]{{4}})"
    r"(?![0-9A-Za-z_])"
)
_COUNTRY = re.compile(rf"(?:(?:\+|00) ?86|(?<![0-9.\-])86)[)）]?{_GAP}?$|[(（](?:\+|00)?86[)）]{_GAP}?$")
_MOBILE_WORD = re.compile(
    r"(?<![A-Za-z])(?:tel|telephone|phone|mobile|mob|cell|wechat|weixin|wx|vx|v)_?$", re.IGNORECASE
)
_MOBILE_BEFORE = re.compile(rf"(?<![0-9])(?:86)?{_NETWORK}[0-9]{{8}}-$")
_MOBILE_AFTER = re.compile(rf"-(?:86)?{_NETWORK}[0-9]{{8}}(?![0-9])")
_ROW_BEFORE = re.compile(r"(?<![0-9])[0-9]{1,4} {1,2}$")
_ROW_AFTER = re.compile(r" {1,2}[0-9]{1,4}(?![0-9])")
_GROUP_BEFORE = re.compile(r"(?<![0-9])[0-9]{4}[ \-]$")
_GROUP_AFTER = re.compile(r"[ \-][0-9]{4}(?![0-9])")
_CODE_BEFORE = re.compile(r"[0-9A-Za-z]-$")
#: The rest of a longer code, or the end of a file's name.
_JOINED_AFTER = re.compile(
    r"-[A-Za-z]{0,3}[0-9]|\.(?:html?|jpe?g|png|gif|webp|pdf|mp[34]|zip|txt|docx?|xlsx?|csv|json|php)(?![A-Za-z])"
)


def _accept_mobile(view: str, found: Match[str]) -> Span | None:
    start, end = found.span()
    if country := _COUNTRY.search(view, max(0, start - 9), start):
        start = country.start()
    if _is_joined(view, start) or _is_part_of_longer(view, start, end, grouped=len(found[0]) > 11):
        return None
    if _is_amount(view, start, end) or _is_labelled_otherwise(view, start):
        return None
    return start, end


def _is_part_of_longer(view: str, start: int, end: int, *, grouped: bool) -> bool:
    """Tell whether further groups of digits make a longer number or a row of numbers of it."""
    if grouped and (_GROUP_BEFORE.search(view, max(0, start - 6), start) or _GROUP_AFTER.match(view, end)):
        return True
    if grouped and _ROW_AFTER.match(view, end) and _ROW_BEFORE.search(view, max(0, start - 7), start):
        return True
    if _CODE_BEFORE.search(view, max(0, start - 2), start):
        named = _MOBILE_WORD.search(view, max(0, start - 11), start - 1)
        return not named and not _MOBILE_BEFORE.search(view, max(0, start - 16), start)
    return bool(_JOINED_AFTER.match(view, end)) and not _MOBILE_AFTER.match(view, end)


def _accept_single(view: str, found: Match[str]) -> Span | None:
    """Digits one by one: 1 3 8 …; the longer row of numbers before or behind them is none."""
    start, end = found.span()
    if not re.fullmatch(_NETWORK + "[0-9]{8}", _NOT_ALNUM.sub("", found[0])):
        return None
    if view[max(0, start - 2) : start - 1].isdecimal() or _is_joined(view, start):
        return None
    return start, end


def _is_joined(view: str, start: int) -> bool:
    """Tell whether letters or digits stand right before, other than a word for a telephone."""
    return _is_alnum_before(view, start) and not _MOBILE_WORD.search(view, max(0, start - 10), start)


def _mobiles(view: str) -> Iterator[Span]:
    yield from accepted(_MOBILE, _accept_mobile, view)
    yield from accepted(_SINGLE, _accept_single, view)


def _canonical_mobile(value: str) -> str:
    return _NOT_ALNUM.sub("", value)[-11:]


#: Area codes behind their 0: Peking and the 02x, then those of four digits.
_AREA = (
    r"(?:10|2[0-57-9]|3(?:1[0-9]|35|49|5[0-9]|7[0-79]|9[1-68])|4(?:1[125-9]|2[179]|3[1-9]|5[1-9]|6[4789]|7[0-9]|8[23])"
    r"|5(?:1[0-9]|2[37]|3[0-9]|4[36]|5[0-9]|6[1-6]|7[0-9]|80|9[1-9])|6(?:3[1-5]|6[0238]|9[12])"
    r"|7(?:0[1-9]|1[0-9]|2[248]|3[0-9]|4[3-6]|5[0-9]|6[023689]|7[0-9]|9[0-9])"
    r"|8(?:1[2-9]|2[5-7]|3[0-9]|5[1-9]|7[0-9]|8[3678]|9[1-8])|9(?:0[1-9]|1[0-9]|3[0-9]|4[13]|5[1-5]|7[0-9]|9[0-9]))"
)
_LANDLINE = re.compile(
    rf"[(（0](?:(?<=0){_AREA}(?P<bare>{_GAP}?)|(?<=[(（]) ?(?:(?:\+|00)?86[- ]?)?0{_AREA} ?[)）] ?-? ?)"
    r"(?!20[0-3][0-9](?:0[1-9]|1[0-2])[0-3][0-9])"  # a date behind a code
    r"(?P<number>[2-8](?:[0-9]{6,7}|[0-9]{3}[ \-][0-9]{3,4}|[0-9]{2}[ \-][0-9]{4}))"
    r"(?![0-9A-Za-z_]|[./][0-9])"
)
_LANDLINE_WORD = re.compile(r"电话|座机|固话|热线|传真|tel|phone|fax", re.IGNORECASE)
_HYPHEN_BEFORE = re.compile(r"[0-9A-Za-z][.\-/]$")
_GROUPS_AFTER = re.compile(r"[ \-][0-9]")
_LONGER_AFTER = re.compile(r"[ \-][0-9]{6,}|-[0-9A-Za-z]+-|-[A-Za-z]")


def _accept_landline(view: str, found: Match[str]) -> Span | None:
    start, end = found.span()
    if _is_alnum_before(view, start) or _HYPHEN_BEFORE.search(view, max(0, start - 2), start):
        return None
    if _LONGER_AFTER.match(view, end) or _is_labelled_otherwise(view, start):
        return None
    if not found["number"].isdigit() and _GROUPS_AFTER.match(view, end):
        return None
    if found["bare"] == "" and not _has_word(_LANDLINE_WORD, view, start):
        return None
    return start, end


# --- cards ------------------------------------------------------------------------------------------------------

_CARD = re.compile(
    r"[2-9](?<![0-9A-Za-z_].)(?:[0-9]{12,18}"
    r"|[0-9]{3}(?P<gap>[ \-])[0-9]{4}(?P=gap)[0-9]{4}(?P=gap)[0-9]{3,4}(?:(?P<more>(?P=gap)?[0-9]{1,3}))?"
    r"|[0-9]{3}[ \-][0-9]{6}[ \-][0-9]{4,5}|[0-9]{5}[ \-][0-9]{10,13})(?![0-9A-Za-z_])"
)
_CARD_WORD = re.compile(
    r"卡号|银行|信用卡|储蓄卡|借记卡|账[号户]|帐[号户]|汇款|转账|打款|收款|还款|刷卡|card|visa|master|amex|jcb",
    re.IGNORECASE,
)
#: Issuers' prefixes of the schemes other than UnionPay, with the lengths of their cards.
_SCHEMES: tuple[tuple[re.Pattern[str], frozenset[int]], ...] = (
    (re.compile(r"4"), frozenset({16})),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), frozenset({16})),
    (re.compile(r"3[47]"), frozenset({15})),
    (re.compile(r"35(?:2[89]|[3-8])"), frozenset({16})),
    (re.compile(r"3(?:0[0-5]|[689])"), frozenset({14})),
    (re.compile(r"6011|64[4-9]|65"), frozenset({16})),
    (re.compile(r"436742|421349|456351|601382|9558|955[59]9|6013"), frozenset({19})),
)
_UNIONPAY = re.compile(r"62[0-9]")
_CARD_JOINED_BEFORE = re.compile(r"[0-9][.\-/]$|[A-Za-z][-.]$")
_CARD_JOINED_AFTER = re.compile(r"[.\-/][0-9A-Za-z]")


def _accept_card(view: str, found: Match[str]) -> Span | None:
    start, end = found.span()
    span = _valid_card(view, start, end, grouped=not found[0].isdigit())
    if span is None and found["more"]:
        span = _valid_card(view, start, found.start("more"), grouped=True)
    if span is None or _CARD_JOINED_AFTER.match(view, span[1]):
        return None
    joined = _CARD_JOINED_BEFORE.search(view, max(0, start - 2), start)
    if joined or (found["gap"] and _GROUP_BEFORE.search(view, max(0, start - 6), start)):
        return None
    return None if _is_amount(view, *span) or _is_labelled_otherwise(view, start) else span


def _valid_card(view: str, start: int, end: int, *, grouped: bool) -> Span | None:
    digits = _NOT_ALNUM.sub("", view[start:end])
    if not luhn(digits) or len(set(digits)) < 2:
        return None
    named = _has_word(_CARD_WORD, view, start)
    if _UNIONPAY.match(digits):
        usual = len(digits) in (16, 19)
        plausible = usual or named or (len(digits) == 17 and grouped)
    else:
        plausible = (named or grouped) and any(
            len(digits) in lengths and prefix.match(digits) for prefix, lengths in _SCHEMES
        )
    return (start, end) if plausible else None


# --- papers and organisations -----------------------------------------------------------------------------------

_PASSPORT = re.compile(
    r"[DEGPSKHMdegpskhm](?<![0-9A-Za-z_].)(?:[0-9]{8}|[A-HJ-NP-Za-hj-np-z][0-9]{7}|[ \-][0-9]{8})"
    r"(?![0-9A-Za-z_]|[.\-][0-9])"
)
_PASSPORT_WORD = re.compile(r"护照|passport", re.IGNORECASE)
#: Not one by one: a row of single digits would cost a check at each of them.
_SOCIAL_CREDIT = re.compile(
    r"[1-9ANYany](?<![0-9A-Za-z].)(?![ \-].[ \-])(?:[0-9A-Za-z]{17}|(?:[ \-]?[0-9A-Za-z]){17})(?![0-9A-Za-z])"
)
_SOCIAL_CREDIT_FORM = re.compile(
    r"(?:1[1239]|2[19]|3[1-59]|4[19]|5[1239]|6[129]|7[129]|8[19]|9[123]|A[19]|N[1239]|Y1)(?P<region>[0-9]{2})[0-9]{4}"
    r"(?P<organisation>[0-9A-Z]{9})[0-9A-Z]"
)
_SOCIAL_CREDIT_WORD = re.compile(r"信用代码|社会信用|税号|纳税人|识别号|uscc", re.IGNORECASE)


def _accept_passport(view: str, found: Match[str]) -> Span | None:
    """A letter and eight digits can be anything, so a word must say what it is."""
    return found.span() if _has_word(_PASSPORT_WORD, view, found.start(), found.end(), after=12) else None


def _passports(view: str) -> Iterator[Span]:
    if "护照" in view or "passport" in view.lower():
        yield from accepted(_PASSPORT, _accept_passport, view)


def _accept_social_credit(view: str, found: Match[str]) -> Span | None:
    code = _NOT_ALNUM.sub("", found[0]).upper()
    form = _SOCIAL_CREDIT_FORM.fullmatch(code)
    if form is None or not social_credit_code(code):
        return None
    if form["region"] not in PROVINCES and form["region"] != "10":  # 100000: registered with the state itself
        return None
    # The organisation's own code has a check character too, but not every authority gave it a right one.
    sure = organisation_code(form["organisation"]) or _has_word(_SOCIAL_CREDIT_WORD, view, found.start())
    return found.span() if sure else None


def _canonical_number(value: str) -> str:
    return _NOT_ALNUM.sub("", value).upper()


_number = partial(Detector, trigger=_DIGITS.search, canonical=_canonical_number)
NUMBERS = (
    _number("resident_id", find=_resident_ids),
    _number("social_credit_code", find=partial(accepted, _SOCIAL_CREDIT, _accept_social_credit)),
    _number("bank_card", find=partial(accepted, _CARD, _accept_card)),
    Detector("mobile", _DIGITS.search, _mobiles, _canonical_mobile),
    _number("landline", find=partial(accepted, _LANDLINE, _accept_landline)),
    _number("passport", find=_passports),
)
