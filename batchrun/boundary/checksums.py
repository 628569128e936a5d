"""The check digits of numbers that people and organisations have."""

from __future__ import annotations

from datetime import UTC, date, datetime

_LUHN_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_USCC_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
_ORGANISATION_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)
_OLDEST_YEAR = 1890
#: Codes of the provinces by GB/T 2260, with the residence permits of Hong Kong, Macao and Taiwan (81 to 83).
PROVINCES = frozenset(map(str, (
    *range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, *range(81, 84),
)))  # fmt: skip


def luhn(digits: str) -> bool:
    """Tell whether the last digit is the check digit of ISO/IEC 7812."""
    values = [ord(digit) - 48 for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_LUHN_DOUBLED[value] for value in values[1::2])) % 10 == 0


def resident_id(number: str) -> bool:
    """Tell whether 18 characters are a resident id by GB 11643: region, date of birth, check digit (MOD 11-2).

    Permanent residents from abroad have a 9 before the province.
    """
    region = number[1:3] if number[0] == "9" else number[:2]
    if region not in PROVINCES or not is_birthday(number[6:14]):
        return False
    # The weights of the standard are the powers of 2 modulo 11, so the digits can be read as a number to base 13.
    check = (1 - 2 * int(number[:17], 13)) % 11
    return number[17].upper() == ("X" if check == 10 else str(check))


def is_birthday(digits: str) -> bool:
    """Tell whether YYYYMMDD is a day on which somebody alive today, or nearly, can have been born."""
    try:
        day = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return False
    return day.year >= _OLDEST_YEAR and day <= datetime.now(UTC).date()


def social_credit_code(code: str) -> bool:
    """Tell whether 18 upper-case characters end in the check character of GB 32100 (modulo 31)."""
    try:
        values = [_USCC_ALPHABET.index(character) for character in code]
    except ValueError:
        return False
    total = sum(value * weight for value, weight in zip(values, _USCC_WEIGHTS, strict=False))
    return values[17] == (31 - total) % 31


def organisation_code(code: str) -> bool:
    """Tell whether 9 upper-case characters end in the check character of GB 11714 (modulo 11)."""
    total = sum(int(character, 36) * weight for character, weight in zip(code, _ORGANISATION_WEIGHTS, strict=False))
    return code[8] == "0123456789X0"[11 - total % 11]
