"""Benchmark of the data-boundary scanner: what it finds, what it finds wrongly, and what a text costs.

    python tests/bench/boundary.py [--seed N] [--count N] [--show DETECTOR]

Texts are generated from the public standards (GB 11643, GB 32100, GB 11714, ISO/IEC 7812, the numbering plan), not
from the scanner's patterns. A third of them hold one labelled item in one of its spellings, a third a look-alike, the
rest neither. Recall counts an item as found when a hit of its detector has exactly its span; `covered` counts those
that a hit of any name covers. Precision counts hits that touch no item, or one of another name, as wrong.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import hashlib
import random
import statistics
import string
import timeit
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from batchrun.boundary import DETECTORS, Scanner

SENTENCES = (
    "这家店的服务态度非常好，环境也很干净，菜品味道不错，价格适中，下次还会再来。",
    "物流有点慢，等了三天才到，不过包装完好。",
    "请帮我分析一下这条评论的情感倾向。", "客服回复很及时，问题当天就解决了。",
    "屏幕分辨率很高，续航也不错，就是有点重。",
    "昨天晚上八点多去的，人不算多，一共消费了两百多块。", "会议定在下周三下午两点，地点在三楼会议室。",
    "孩子很喜欢这个玩具，一一试过之后爱不释手。", "一二三四五六七，我们数到七就出发。",
    "他说：“明天见！”——然后就走了……",
)  # fmt: skip
REGIONS = (
    "110101", "110108", "120103", "130102", "140105", "150102", "210102", "220104", "230103", "310101", "310115",
    "320106", "330106", "340104", "350203", "360103", "370202", "410105", "420106", "430104", "440305", "440106",
    "450103", "460105", "500112", "510107", "520103", "530102", "540102", "610113", "620102", "630104", "640104",
    "650102", "810000", "820000", "830000",
)  # fmt: skip
SEGMENTS = (
    "134", "135", "136", "137", "138", "139", "147", "150", "151", "152", "157", "158", "159", "172", "178", "182",
    "183", "184", "187", "188", "195", "197", "198", "130", "131", "132", "145", "155", "156", "166", "175", "176",
    "185", "186", "196", "133", "149", "153", "173", "177", "180", "181", "189", "190", "191", "193", "199", "192",
    "167", "165", "170", "171",
)  # fmt: skip
AREAS = (
    "010", "020", "021", "022", "023", "024", "025", "027", "028", "029", "0311", "0351", "0371", "0411", "0431",
    "0451", "0512", "0531", "0551", "0571", "0591", "0731", "0755", "0771", "0851", "0871", "0898", "0931", "0991",
)  # fmt: skip
CITY_AREAS = ("010", "020", "021", "022", "023", "024", "025", "027", "028", "029", "0755", "0571", "0512", "0371")
UNIONPAY = (
    "621700", "622202", "622848", "621661", "622588", "622609", "621483", "625912", "622262", "623058", "621799",
    "620058", "628288",
)  # fmt: skip
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
NAMES = ("张伟", "王芳", "李娜", "刘洋")
Draw = random.Random
Maker = Callable[[Draw], str]


# --- values, from the standards ---


def digits(draw: Draw, count: int) -> str:
    return "".join(draw.choices(string.digits, k=count))


def birthday(draw: Draw) -> str:
    return (datetime.date(1940, 1, 1) + datetime.timedelta(days=draw.randrange(28_000))).strftime("%Y%m%d")


def resident_id(draw: Draw) -> str:
    body = draw.choice(REGIONS) + birthday(draw) + digits(draw, 3)
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    number = body + "10X98765432"[sum(int(one) * weight for one, weight in zip(body, weights, strict=True)) % 11]
    return number.replace("X", draw.choice("Xx"))


def wrong_resident_id(draw: Draw) -> str:
    number = resident_id(draw)
    return number[:16] + str((int(number[16]) + draw.randrange(1, 10)) % 10) + number[17]


def mobile(draw: Draw) -> str:
    return draw.choice(SEGMENTS) + digits(draw, 8)


def landline(draw: Draw) -> tuple[str, str]:
    area = draw.choice(AREAS)
    return area, draw.choice("2345678") + digits(draw, 7 if area in CITY_AREAS else 6)


def luhn_digit(body: str) -> str:
    total = 0
    for place, one in enumerate(reversed(body)):
        doubled = int(one) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return str(-total % 10)


def unionpay(draw: Draw) -> str:
    body = draw.choice(UNIONPAY)
    body += digits(draw, draw.choice((16, 19, 19)) - 1 - len(body))
    return body + luhn_digit(body)


def foreign_card(draw: Draw) -> str:
    body, length = draw.choice((("4", 16), ("5" + draw.choice("12345"), 16), ("37", 15), ("3530", 16), ("6011", 16)))
    body += digits(draw, length - 1 - len(body))
    return body + luhn_digit(body)


def wrong_card(draw: Draw) -> str:
    number = unionpay(draw)
    return number[:-1] + str((int(number[-1]) + draw.randrange(1, 10)) % 10)


def passport(draw: Draw) -> str:
    return draw.choice((
        "E" + digits(draw, 8), "E" + draw.choice("ABCDEFGHJK") + digits(draw, 7), "G" + digits(draw, 8),
        draw.choice(("DE", "SE", "PE")) + digits(draw, 7),
    ))  # fmt: skip


def social_credit_code(draw: Draw) -> str:
    alphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    organisation = draw.choice(("MA" + "".join(draw.choices(alphabet, k=6)), digits(draw, 8)))
    total = sum(int(one, 36) * weight for one, weight in zip(organisation, (3, 7, 9, 10, 5, 8, 4, 2), strict=True))
    check = 11 - total % 11
    organisation += "X" if check == 10 else "0" if check == 11 else str(check)
    body = draw.choice(("91", "92", "11", "12", "51", "52", "93", "31")) + draw.choice(REGIONS[:30]) + organisation
    total = sum(alphabet.index(one) * pow(3, place, 31) for place, one in enumerate(body))
    return body + alphabet[-total % 31]


def email(draw: Draw) -> str:
    local = draw.choice(
        ("zhang.wei", "li_na88", "wangfang", "service", "a", "liu-yang+test", digits(draw, 9), mobile(draw))
    )
    return (
        local
        + "@"
        + draw.choice(("qq.com", "163.com", "126.com", "mail.tsinghua.edu.cn", "foxmail.com", "corp-x.co", "gmail.com"))
    )


def octet(draw: Draw) -> str:
    return str(draw.randrange(256))


def private_ip(draw: Draw) -> str:
    start = draw.choice(
        (f"10.{octet(draw)}", f"172.{draw.randrange(16, 32)}", "192.168", f"100.{draw.randrange(64, 128)}")
    )
    return f"{start}.{octet(draw)}.{octet(draw)}"


def public_ip(draw: Draw) -> str:
    return f"{draw.choice((8, 39, 47, 101, 114, 120, 203))}.{octet(draw)}.{octet(draw)}.{octet(draw)}"


def token(draw: Draw, count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(draw.choices(alphabet, k=count))


UPPER = string.ascii_uppercase + "234567"
HEX = "0123456789abcdef"
API_KEYS: tuple[Maker, ...] = (
    lambda draw: "sk-" + token(draw, 48), lambda draw: "sk-" + token(draw, 32, HEX),
    lambda draw: "sk-proj-" + token(draw, 120) + "-" + token(draw, 30),
    lambda draw: "sk-ant-api03-" + token(draw, 93) + "AA",
    lambda draw: "AKIA" + token(draw, 16, UPPER), lambda draw: "ASIA" + token(draw, 16, UPPER),
    lambda draw: "LTAI5t" + token(draw, 18), lambda draw: "LTAI" + token(draw, 12),
    lambda draw: "AKID" + token(draw, 32),
    lambda draw: "ghp_" + token(draw, 36), lambda draw: "github_pat_" + token(draw, 22) + "_" + token(draw, 59),
    lambda draw: "glpat-" + token(draw, 20),
    lambda draw: "xoxb-" + digits(draw, 12) + "-" + digits(draw, 12) + "-" + token(draw, 24),
    lambda draw: "AIza" + token(draw, 35), lambda draw: "hf_" + token(draw, 34),
    lambda draw: token(draw, 32, HEX) + "." + token(draw, 16), lambda draw: "gsk_" + token(draw, 52),
)  # fmt: skip


def api_key(draw: Draw) -> str:
    return draw.choice(API_KEYS)(draw)


def segment(draw: Draw, count: int) -> str:
    return base64.urlsafe_b64encode(draw.randbytes(count)).decode().rstrip("=")


def jwt(draw: Draw) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    body = base64.urlsafe_b64encode(f'{{"sub":"{digits(draw, 10)}","iat":1700000000}}'.encode()).decode().rstrip("=")
    return f"{head}.{body}.{segment(draw, 32)}"


def password(draw: Draw) -> str:
    return token(draw, draw.randrange(6, 20), string.ascii_letters + string.digits + "!#_-.~")


def private_key(draw: Draw) -> str:
    kind = draw.choice(
        ("RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "PGP PRIVATE KEY BLOCK")
    )
    lines = "\n".join(base64.b64encode(draw.randbytes(48)).decode() for _ in range(draw.randrange(3, 12)))
    return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----"


# --- spellings ---


def grouped(number: str, sizes: tuple[int, ...], gap: str) -> str:
    parts, start = [], 0
    for size in sizes:
        parts.append(number[start : start + size])
        start += size
    return gap.join([*parts, number[start:]] if number[start:] else parts)


def gap(draw: Draw) -> str:
    return draw.choice((" ", "-", "\u3000", "\u00a0", "－", "–", " - "[: draw.choice((1, 3))]))


def spelled(draw: Draw, number: str, *sizes: tuple[int, ...]) -> str:
    style = draw.randrange(6)
    if style == 0:
        return number.translate(FULL_WIDTH)
    if style == 1:
        return grouped(number, draw.choice(sizes), draw.choice((" ", "-", "\u3000", "\u00a0", "－", "–")))
    if style == 2:
        return grouped(number, draw.choice(sizes), draw.choice((" ", "-"))).translate({**FULL_WIDTH, 32: 0x3000})
    if style == 3:
        place = draw.randrange(1, len(number))
        return number[:place] + draw.choice("\u200b\u2060\ufeff") + number[place:]
    return number


def spelled_mobile(draw: Draw) -> str:
    number = mobile(draw)
    text = spelled(draw, number, (3, 4, 4), (3, 4, 4), (3, 3, 5), (4, 3, 4), (3, 8))
    if draw.random() < 0.3:
        text = draw.choice(("+86", "+86 ", "+86-", "0086", "0086-", "86-", "(+86)", "（+86）", "86", "＋86 ")) + text
    elif draw.random() < 0.08:
        text = number.translate(
            dict(
                zip(map(ord, string.digits), draw.choice(("零一二三四五六七八九", "〇幺二三四五六七八九")), strict=True)
            )
        )
    elif draw.random() < 0.05:
        text = " ".join(number)
    return text


def spelled_landline(draw: Draw) -> str:
    area, number = landline(draw)
    return draw.choice((
        f"{area}-{number}", f"({area}){number}", f"（{area}）{number}", f"{area} {number}", f"{area}－{number}",
        f"{area}-{number[:4]} {number[4:]}", f"{area}{number}", f"{area}-{number}".translate(FULL_WIDTH),
    ))  # fmt: skip


def spelled_email(draw: Draw) -> str:
    address = email(draw)
    return draw.choice((address, address, address.replace("@", "＠"), address.upper(), address.translate(FULL_WIDTH)))


SPELLED: dict[str, Maker] = {
    "resident_id": lambda draw: spelled(draw, resident_id(draw), (6, 8, 4), (6, 4, 4, 4), (4, 4, 4, 4, 2)),
    "mobile": spelled_mobile,
    "landline": spelled_landline,
    "bank_card": lambda draw: spelled(draw, draw.choice((unionpay, unionpay, foreign_card))(draw), (4, 4, 4, 4)),
    "passport": lambda draw: draw.choice((str, lambda text: text.translate(FULL_WIDTH), str.lower))(passport(draw)),
    "social_credit_code": lambda draw: spelled(draw, social_credit_code(draw), (4, 4, 4, 4, 2), (8, 10)),
    "email": spelled_email,
    "private_ip": private_ip,
    "api_key": api_key,
    "jwt": jwt,
    "bearer_token": lambda draw: segment(draw, draw.randrange(20, 60)),
    "private_key": private_key,
    "url_password": password,
}
#: Words around an item; an empty pair is an item on its own, adjacent to whatever stands there.
AROUND: dict[str, tuple[tuple[str, str], ...]] = {
    "resident_id": (("身份证号：", ""), ("身份证", "已登记"), ("", "是他的证件"), ("", ""),
                    ("（", "）"), ('"idCard":"', '"')),
    "mobile": (("电话：", ""), ("手机号", "请联系"), ("加微信", "咨询"), ("", "，找我"), ("", ""),
               ("（", "）"), ("tel:", "。"), ("致电 ", " 或"), ("1,张伟,", ",25"),
               ("vx", "详聊"), ('{"phone": "', '"}')),
    "landline": (("电话：", ""), ("座机", "转801"), ("热线", "咨询"), ("", "打这个"), ("", ""), ("（", "）")),
    "bank_card": (("卡号：", ""), ("银行卡", "尾号"), ("请转账到", "，谢谢"), ("工商银行 ", " 张伟"),
                  ("", ""), ("打款给", ""), ("信用卡", "被盗刷")),
    "passport": (("护照号：", ""), ("护照", "已过期"), ("", "是我的护照号"), ("passport no. ", " ok"), ("", "")),
    "social_credit_code": (("统一社会信用代码：", ""), ("税号", "开票"), ("", ""), ("公司", "已注销"), ("（", "）")),
    "email": (("邮箱：", ""), ("发到", "就行"), ("", ""), ("<", ">"), ("（", "）"), ("mailto:", "。")),
    "private_ip": (("服务器", "宕机"), ("http://", ":8080/api"), ("", ""), ("内网地址：", "/24"), ("ping ", " 不通")),
    "api_key": (("密钥", "别外传"), ("OPENAI_API_KEY=", ""), ('"', '"'), ("key: ", "\n"), ("", ""), ("用", "调用")),
    "jwt": (("token: ", ""), ("", ""), ("Cookie: session=", ";"), ("令牌", "过期")),
    "bearer_token": (("Authorization: Bearer ", ""), ("-H 'authorization: bearer ", "'"), ("Bearer ", "\n")),
    "url_password": (("mysql://root:", "@db.example.cn/shop"), ("http://admin:", "@gw/"), ("redis://:", "@r:6379")),
    "private_key": (("", ""), ("私钥：\n", "\n"), ("文件内容：", "。")),
}  # fmt: skip
ORDER_AROUND = (
    ("订单号：", ""), ("您的订单", "已发货"), ("单号", "查不到"), ("流水号 ", " 已入账"), ("编号", ""),
    ("", "这单退款"), ("", ""), ("运单号:", "。"),
    ("查询 ", " 的进度"), ("交易单号（", "）"), ('"order_id": "', '"'),
)  # fmt: skip


def timestamp(draw: Draw) -> str:
    moment = datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
        seconds=draw.randrange(400_000_000)
    )
    seconds = str(int(moment.timestamp()))
    return draw.choice((
        seconds, seconds + digits(draw, 3), seconds + digits(draw, 6), moment.strftime("%Y%m%d%H%M%S"),
        moment.strftime("%Y%m%d%H%M%S") + digits(draw, 3), moment.strftime("%Y-%m-%d %H:%M:%S"), moment.isoformat(),
        moment.strftime("%Y/%m/%d"), moment.strftime("%Y年%m月%d日"), moment.strftime("%Y.%m.%d"),
    ))  # fmt: skip


def ean(draw: Draw) -> str:
    body = draw.choice(("690", "692", "978")) + digits(draw, 9)
    number = body + str(-sum(int(one) * (3 if place % 2 else 1) for place, one in enumerate(body)) % 10)
    return draw.choice((number, f"ISBN {number[:3]}-{number[3]}-{number[4:8]}-{number[8:12]}-{number[12]}"))


def dated_order(draw: Draw) -> str:
    return birthday(draw).replace("19", "20", 1) + digits(draw, draw.choice((4, 6, 8, 10, 12)))


def price(draw: Draw) -> str:
    form = draw.choice(("￥{}.00", "{}元", "{},000.50 元", "${}.99", "RMB {}.0", "{}%"))
    return form.format(draw.randrange(1, 10 ** draw.randrange(2, 12)))


def product_code(draw: Draw) -> str:
    return f"{token(draw, 2, string.ascii_uppercase)}-{digits(draw, 4)}-{digits(draw, draw.choice((4, 6, 8)))}"


def tracking_number(draw: Draw) -> str:
    carrier = draw.choice(("SF", "YT", "JD00", "ZTO", "E", "JT", "DPK"))
    return carrier + digits(draw, draw.choice((8, 12, 13, 15)))


def tracking_digits(draw: Draw) -> str:
    return draw.choice(("73", "75", "78", "46", "31", "77", "43")) + digits(draw, draw.choice((10, 11, 12, 13)))


def version(draw: Draw) -> str:
    parts = (str(draw.randrange(30)) for _ in range(draw.choice((3, 4))))
    return draw.choice(("v", "版本", "version ", "V")) + ".".join(parts)


def identifier(draw: Draw) -> str:
    return draw.choice(("IMG_", "user", "ID", "img-", "T")) + mobile(draw) + draw.choice(("_1", "abc", "X7", "5"))


def table(draw: Draw) -> str:
    cells = (str(draw.randrange(10 ** draw.randrange(1, 5))) for _ in range(12))
    return draw.choice((" ", "\t", ", ", " | ")).join(cells)


def no_key(draw: Draw) -> str:
    return draw.choice((
        "sk-your-api-key-goes-right-here", "task-management-for-everyone-2024", "Bearer YOUR_ACCESS_TOKEN_HERE",
        "AKIA…", "-----BEGIN CERTIFICATE-----", "hf_model",
    ))  # fmt: skip


def no_email(draw: Draw) -> str:
    return draw.choice((
        "logo@2x.png", "npm i react@18.2.0", "icon@3x.jpg", "@张三 你好", "git@github.com:a/b.git",
    ))  # fmt: skip


def link(draw: Draw) -> str:
    return draw.choice(("https://item.jd.com/{}.html", "https://x.cn/item?id={}&spm=a1")).format(mobile(draw))


def english_order(draw: Draw) -> str:
    return draw.choice(("Order No. ", "order number: ", "Invoice #", "tracking no:")) + mobile(draw)


def card_length(draw: Draw) -> str:
    number = draw.choice("23456789") + digits(draw, draw.choice((15, 18)))
    return draw.choice(("", "客户号", "内部编码 ")) + number


def order_number(draw: Draw) -> str:
    length = draw.choice((8, 10, 12, 13, 15, 16, 17, 18, 19, 20, 22, 24, 28))
    return draw.choice("123456789") + digits(draw, length - 1)


def coordinates(draw: Draw) -> str:
    return f"{draw.randrange(18, 53)}.{digits(draw, 12)},{draw.randrange(73, 135)}.{digits(draw, 12)}"


LOOKALIKES: dict[str, Maker] = {
    "order number": order_number,
    "dated order number": dated_order,
    "random 18 digits": lambda draw: draw.choice("123456789") + digits(draw, 17),
    "timestamp": timestamp,
    "price": price,
    "uuid": lambda draw: str(uuid.UUID(bytes=draw.randbytes(16), version=4)),
    "hash": lambda draw: draw.choice((hashlib.md5, hashlib.sha1, hashlib.sha256))(draw.randbytes(8)).hexdigest(),
    "serial": lambda draw: token(draw, draw.randrange(8, 20), string.ascii_uppercase + string.digits * 3),
    "product code": product_code,
    "tracking number": tracking_number,
    "tracking number of digits": tracking_digits,
    "barcode": ean,
    "card failing Luhn": wrong_card,
    "id failing its check": wrong_resident_id,
    "version": version,
    "public address": public_ip,
    "digits in an identifier": identifier,
    "longer digits": lambda draw: digits(draw, draw.randrange(30, 60)),
    "table": table,
    "file name": no_email,
    "key that is none": no_key,
    "coordinates": coordinates,
    "grouped serial": lambda draw: grouped(digits(draw, 16), (4, 4, 4), draw.choice("- ")),
    "number in a link": link,
    "code like an area": lambda draw: f"{draw.choice(AREAS)}-{draw.choice('019')}{digits(draw, 7)}",
    "order number in English": english_order,
    "order number of a bank": lambda draw: "银行流水号" + digits(draw, draw.choice((16, 19))),
    "number of the length of a card": card_length,
    "code of the length of an organisation's": lambda draw: token(draw, 18, string.ascii_uppercase + string.digits),
    "11 digits called an order": lambda draw: "订单号" + mobile(draw),
}  # fmt: skip


# --- texts ---


@dataclass(frozen=True)
class Sample:
    """A text, what stands in it, and the kind of its look-alike if it has one."""

    text: str
    items: tuple[tuple[str, int, int], ...] = ()
    kind: str = "plain"


def generate(count: int, seed: int) -> Iterator[Sample]:
    draw = Draw(seed)
    kinds, lookalikes = list(SPELLED), list(LOOKALIKES)
    for number in range(count):
        if number % 3 == 0:
            yield _with_item(draw, kinds[number // 3 % len(kinds)])
        elif number % 3 == 1:
            yield _with_lookalike(draw, lookalikes[number // 3 % len(lookalikes)])
        else:
            amount = f"{draw.randrange(1, 20)}件，{draw.randrange(1, 2000)}.{digits(draw, 2)}元"
            prices = f"共{amount}，{draw.randrange(1, 13)}月{draw.randrange(1, 29)}日到。"
            yield Sample(_sentences(draw) + draw.choice((prices, "", "")) + _sentences(draw))


def _sentences(draw: Draw) -> str:
    return "".join(draw.choices(SENTENCES, k=draw.choice((0, 1, 2, 4))))


def _with_item(draw: Draw, detector: str) -> Sample:
    value = SPELLED[detector](draw)
    before, after = draw.choice(AROUND[detector])
    start = _sentences(draw) + draw.choice(("", draw.choice(NAMES))) + before
    return Sample(
        start + value + after + _sentences(draw), ((detector, len(start), len(start) + len(value)),), detector
    )


def _with_lookalike(draw: Draw, kind: str) -> Sample:
    before, after = draw.choice(ORDER_AROUND) if "order" in kind or "digits" in kind or "tracking" in kind else ("", "")
    return Sample(_sentences(draw) + before + LOOKALIKES[kind](draw) + after + _sentences(draw), kind=kind)


# --- judging ---


def judge(samples: list[Sample], scanner: Scanner, show: str | None) -> None:
    total, found, covered, right, wrong = (Counter[str]() for _ in range(5))
    alarms: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        hits = [(hit.detector, hit.start, hit.end) for hit in scanner.find(sample.text)]
        for item in sample.items:
            total[item[0]] += 1
            found[item[0]] += item in hits
            covered[item[0]] += any(start <= item[1] and end >= item[2] for _, start, end in hits)
            if show == item[0] and item not in hits:
                print("missed", repr(sample.text[max(0, item[1] - 12) : item[2] + 8]), hits)
        for name, start, end in hits:
            good = any(name == item[0] and start < item[2] and end > item[1] for item in sample.items)
            (right if good else wrong)[name] += 1
            if not good:
                alarms[name, sample.kind] += 1
                if show == name:
                    print("wrong", sample.kind, repr(sample.text[max(0, start - 12) : end + 8]))
    print(f"{'detector':20}{'items':>7}{'recall':>9}{'covered':>9}{'precision':>11}")
    for name in DETECTORS:
        precision = right[name] / max(1, right[name] + wrong[name])
        recall, cover = found[name] / total[name], covered[name] / total[name]
        print(f"{name:20}{total[name]:7}{recall:9.3%}{cover:9.3%}{precision:11.3%}")
    clean = sum(not sample.items for sample in samples)
    hit = sum(1 for sample in samples if not sample.items and scanner.find(sample.text))
    print(f"texts without an item: {clean}, of them hit: {hit} ({hit / clean:.3%})")
    for (name, kind), times in alarms.most_common():
        print(f"  {name} in {kind}: {times}")


def residual(scanner: Scanner, count: int) -> None:
    """Print how many random numbers without a word beside them are taken for something; no form can tell these."""
    draw = Draw(2)
    for length in range(8, 21):
        texts = (f"查询{draw.choice('123456789')}{digits(draw, length - 1)}的进度" for _ in range(count))
        names = Counter(hit.detector for text in texts for hit in scanner.find(text))
        taken = ", ".join(f"{name} 1 in {count / times:.0f}" for name, times in names.most_common())
        print(f"random numbers of {length} digits: {taken or 'none'}")


def clock(scanner: Scanner) -> None:
    draw = Draw(1)
    plain = "".join(draw.choices(SENTENCES[:8], k=60))
    bodies = {
        "no digits": ("", ""),
        "prices and dates": ("5月1日买了2件，199.00元，", ""),
        "an order number and a time": ("下单时间2023-05-01 12:30:45，订单号202305011230456789，", ""),
        "a mobile number": ("", "电话13800138000"),
    }
    for size, name in ((341, "1 KB (341 characters)"), (1000, "1,000 characters")):
        for what, (before, after) in bodies.items():
            text = before + plain[: size - len(before) - len(after)] + after
            times = timeit.repeat(lambda text=text: scanner.find(text), number=200, repeat=25)
            print(f"{name}, {what}: {statistics.median(times) / 200 * 1e6:.1f} µs (best {min(times) / 200 * 1e6:.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=24_000)
    parser.add_argument("--show", choices=DETECTORS, help="print what this detector missed or found wrongly")
    options = parser.parse_args()
    scanner = Scanner()
    judge(list(generate(options.count, options.seed)), scanner, options.show)
    residual(scanner, options.count)
    clock(scanner)


if __name__ == "__main__":
    main()
