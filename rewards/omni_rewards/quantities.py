# SPDX-License-Identifier: Apache-2.0
"""Scores of answers that are numbers: with thousands separators, per cent signs, fractions, magnitudes and units."""

import re
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from ._scored import UNREADABLE, Scored
from ._written import MAX_NUMBER_LENGTH, NUMBER, plain_digits, read_number, unwrap

# One dimension a line: units, each with its size in the first one; lines whose first unit is made of others come after.
_UNIT_LINES = """
m 1 meter 1 metre 1 mm 0.001 millimeter 0.001 millimetre 0.001 cm 0.01 centimeter 0.01 centimetre 0.01 dm 0.1
    km 1000 kilometer 1000 kilometre 1000 in 0.0254 inch 0.0254 inches 0.0254 ft 0.3048 foot 0.3048 feet 0.3048
    yd 0.9144 yard 0.9144 mi 1609.344 mile 1609.344 米 1 厘米 0.01 毫米 0.001 公里 1000
kg 1 kilogram 1 g 0.001 gram 0.001 mg 0.000001 milligram 0.000001 t 1000 ton 1000 tonne 1000 lb 0.45359237
    lbs 0.45359237 pound 0.45359237 oz 0.028349523125 ounce 0.028349523125 克 0.001 公斤 1
s 1 sec 1 second 1 ms 0.001 millisecond 0.001 min 60 minute 60 h 3600 hr 3600 hour 3600 day 86400 week 604800
    秒 1 分钟 60 小时 3600 天 86400
m/s 1 kmh 5/18 kph 5/18 mph 0.44704
m^2 1 sqm 1 ha 10000 hectare 10000
m^3 1 l 0.001 liter 0.001 litre 0.001 ml 0.000001 milliliter 0.000001 millilitre 0.000001
Hz 1 hz 1 hertz 1 kHz 1000 khz 1000 MHz 1000000 GHz 1000000000
kg*m/s^2 1 N 1 newton 1 kN 1000
N*m 1 J 1 joule 1 kJ 1000 cal 4.184 kcal 4184 kWh 3600000
J/s 1 W 1 watt 1 mW 0.001 kW 1000 kilowatt 1000 MW 1000000
N/m^2 1 Pa 1 pascal 1 kPa 1000 MPa 1000000 bar 100000
V 1 volt 1 mV 0.001 kV 1000
A 1 ampere 1 amp 1 mA 0.001
B 1 byte 1 kB 1000 KB 1000 MB 1000000 GB 1000000000 TB 1000000000000
° 1 deg 1 degree 1
°C 1 °c 1 celsius 1
°F 1 °f 1 fahrenheit 1
K 1 kelvin 1
rad 1 radian 1
dB 1 db 1 decibel 1
month 1
year 1 yr 1
$ 1 usd 1 dollar 1 cent 0.01
€ 1 eur 1 euro 1
£ 1 gbp 1
¥ 1 yuan 1 rmb 1 cny 1 元 1
% 1 percent 1 pct 1
"""
_FACTOR = re.compile(r"(°[CFcf]?|[%$€£¥]|[^\W\d_]+)(?:\^?([+-]?[1-9]))?")
_MAGNITUDES = {
    **{"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12},
    **{"k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9, "t": 10**12, "tn": 10**12},
    **{"十": 10, "百": 100, "千": 10**3, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8},
}
# B, K and T are magnitudes of money alone, as is m; elsewhere they are units.
_MAGNITUDE = (
    r"\s?((?i:hundred|thousand|million|billion|trillion|dozen|bn|mn|tn)s?(?![A-Za-z])|"
    r"(?(currency)[kKmMbBtT]|[kM])(?![A-Za-z])|[十百千万萬亿億])"
)
_QUANTITY = re.compile(
    rf"(?P<sign>[+-]?)(?P<currency>[$€£¥])?\s?(?P<number>{NUMBER})(?:\s?/\s?(?P<below>[0-9]+))?"
    rf"(?:\s?[x*]\s?10\^(?P<power>[+-]?[0-9]{{1,3}}))?(?P<magnitude>(?:{_MAGNITUDE})*)\s?(?P<unit>.*)"
)
_POWERS = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
# Other ways to write a number and its unit, in LaTeX and in words, each with the one that is read.
_SPELLINGS = {
    r"\\[,;:! ]|~| +": " ",
    r"\\([%$])|\{(,)\}": r"\1\2",
    r"\^\{?\\circ\}?\s*": "°",
    r"℃": "°C",
    r"㎡": "m^2",
    r"\\times|\\cdot|[×·⋅]": "*",
    r"\^\{([+-]?[0-9]+)\}": r"^\1",
    r"(?<![⁺⁻⁰¹²³⁴-⁹0-9.])([^\W\d_]|10)(?=[⁺⁻]?[⁰¹²³⁴-⁹])": r"\1^",
    r"\b(?:square|sq) (\w+)|(\w+) squared\b": r"\1\2^2",
    r"\bcubic (\w+)|(\w+) cubed\b": r"\1\2^3",
    r" per ": "/",
}


class Measure(NamedTuple):
    """What a unit measures, as lines of the table with their powers, and its size."""

    dimensions: frozenset[tuple[int, int]]
    size: Fraction


def _read_units() -> dict[str, Measure]:
    units: dict[str, Measure] = {}
    for line, text in enumerate(_UNIT_LINES.replace("\n    ", " ").strip().splitlines()):
        words = text.split()
        of_others = _measure(words[0], units)
        dimensions = of_others.dimensions if of_others else frozenset({(line, 1)})
        units |= {u: Measure(dimensions, Fraction(size)) for u, size in zip(words[::2], words[1::2], strict=True)}
    return units


def _measure(unit: str, units: Mapping[str, Measure]) -> Measure | None:
    """The product of the units of `m/s^2`, `kg m^2 s^-2` and their like; `None` where one of them is not known."""
    powers, size = Counter[int](), Fraction(1)
    for side, sign in zip(unit.split("/", 1), (1, -1), strict=False):  # all that follows the first stroke is below it
        for factor in re.split(r"[/*()\s]+", side.strip(" ()")):
            match = _FACTOR.fullmatch(factor)
            known = units.get(_known_unit(match[1], units)) if match else None
            if match is None or known is None:
                return None
            power = sign * int(match[2] or 1)
            size *= known.size**power
            for line, times in known.dimensions:
                powers[line] += times * power
    return Measure(frozenset((line, power) for line, power in powers.items() if power), size)


def _known_unit(written: str, units: Mapping[str, Measure]) -> str:
    """As written, else in lower case, else without a plural's s."""
    lower = written.casefold()
    return next((unit for unit in (written, lower, lower.removesuffix("s")) if unit in units), lower)


_UNITS = _read_units()
_PERCENT = _UNITS["%"]


class Quantity(NamedTuple):
    """A number as written, and its unit: of the table or made of some of it, another word, or none."""

    value: Fraction
    unit: str
    measure: Measure | None = None


def read_quantity(text: str) -> Quantity | None:
    """
    The number that `text` is, with at most one magnitude and one unit; `None` where it holds anything else.

    >>> read_quantity("1,250.5 km")[:2], read_quantity("5 million people")[:2]
    ((Fraction(2501, 2), 'km'), (Fraction(5000000, 1), 'people'))
    >>> read_quantity("42 or 43") is None
    True
    """
    if len(text.strip()) > MAX_NUMBER_LENGTH:
        return None
    written = plain_digits(unwrap(text))
    for spelling, instead in _SPELLINGS.items():
        written = re.sub(spelling, instead, written)
    written = re.sub(r"(?<=\^)[⁺⁻⁰¹²³⁴-⁹]+", lambda power: power[0].translate(_POWERS), written)
    match = _QUANTITY.fullmatch(written.rstrip(" .。!"))
    number = read_number(match["number"]) if match else None
    if match is None or number is None or (match["currency"] and match["unit"]):
        return None
    if (match["sign"] and match["number"][0] in "+-") or (match["below"] and not int(match["below"])):
        return None
    value = Fraction(number) / int(match["below"] or 1) * (-1 if match["sign"] == "-" else 1)
    value *= Fraction(10) ** int(match["power"] or 0)
    for magnitude in re.findall(r"[a-z]+|[^\sa-z]", match["magnitude"].casefold()):
        value *= _MAGNITUDES.get(magnitude) or _MAGNITUDES[magnitude.removesuffix("s")]
    unit = match["unit"] or match["currency"] or ""
    measure = _measure(unit, _UNITS) if unit else None
    if unit and measure is None and not re.fullmatch(r"[^\W\d_⁰¹²³⁴-⁹][^\W\d_]*(?:/[^\W\d_]+)*", unit):
        return None
    return Quantity(value, _known_unit(unit, _UNITS), measure)


def comparable_pairs(answer: Quantity, gold: Quantity) -> list[tuple[Fraction, Fraction]]:
    """
    Values of answer and gold answer in the gold answer's unit; two pairs where a per cent sign may be read in two ways,
    none where the units do not compare.

    A unit that one side leaves out is not asked of the other; an answer's unit must be known, or be the gold's word.
    """
    if answer.measure and gold.measure:
        is_same = answer.measure.dimensions == gold.measure.dimensions
        return [(answer.value * answer.measure.size / gold.measure.size, gold.value)] if is_same else []
    if answer.unit != gold.unit and answer.unit and not (answer.measure and not gold.unit):
        return []
    pairs = [(answer.value, gold.value)]
    if answer.measure == _PERCENT:
        pairs.append((answer.value / 100, gold.value))  # 50% is 50, and 0.5
    if gold.measure == _PERCENT:
        pairs.append((answer.value, gold.value / 100))
    return pairs


@lru_cache(maxsize=1024)  # one gold answer comes once for each of its completions
def _read_gold(solution: str) -> Quantity:
    gold = read_quantity(solution)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is not a number")
    return gold


def score_number(answer: str, solution: str, tolerance: float, absolute_tolerance: float) -> Scored:
    """Whether `answer` is the gold number, or differs from it by no more than a tolerance; exact by default."""
    gold, found = _read_gold(solution), read_quantity(answer)
    if found is None:
        return UNREADABLE
    relative, absolute = Fraction(repr(tolerance)), Fraction(repr(absolute_tolerance))
    is_right = any(abs(x - y) <= max(relative * abs(y), absolute) for x, y in comparable_pairs(found, gold))
    return Scored(float(is_right), answer.strip())


def score_regression(answer: str, solution: str, regression_scale: float) -> Scored:
    """One minus the error relative to the gold number, or to `regression_scale` where that is larger; 0 at least."""
    gold, found = _read_gold(solution), read_quantity(answer)
    if found is None:
        return UNREADABLE
    best = 0.0
    for x, y in comparable_pairs(found, gold):
        error, scale = abs(x - y), max(abs(y), Fraction(repr(regression_scale)))
        if error < scale or error == 0:
            best = max(best, 1.0 - float(error / scale) if error else 1.0)
    return Scored(best, answer.strip())
