# SPDX-License-Identifier: Apache-2.0
"""Scores of answers that are numbers: with thousands separators, per cent signs, fractions and units."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from ._scored import UNREADABLE, Options, Scored
from ._written import MAX_NUMBER_LENGTH, NUMBER, plain_digits, read_number

# One dimension a line: units, each with its size in the first one.
_UNIT_LINES = """
m 1 meter 1 metre 1 mm 0.001 millimeter 0.001 millimetre 0.001 cm 0.01 centimeter 0.01 centimetre 0.01 dm 0.1
    km 1000 kilometer 1000 kilometre 1000 in 0.0254 inch 0.0254 inches 0.0254 ft 0.3048 foot 0.3048 feet 0.3048
    yd 0.9144 yard 0.9144 mi 1609.344 mile 1609.344
kg 1 kilogram 1 g 0.001 gram 0.001 mg 0.000001 milligram 0.000001 t 1000 ton 1000 tonne 1000 lb 0.45359237
    lbs 0.45359237 pound 0.45359237 oz 0.028349523125 ounce 0.028349523125
s 1 sec 1 second 1 ms 0.001 millisecond 0.001 min 60 minute 60 h 3600 hr 3600 hour 3600 day 86400 week 604800
m/s 1 km/h 5/18 kmh 5/18 kph 5/18 mph 0.44704
m² 1 m^2 1 sqm 1 cm² 0.0001 cm^2 0.0001 mm² 0.000001 mm^2 0.000001 km² 1000000 km^2 1000000 ha 10000 hectare 10000
l 1 liter 1 litre 1 ml 0.001 milliliter 0.001 millilitre 0.001 cm³ 0.001 cm^3 0.001 m³ 1000 m^3 1000
Hz 1 hz 1 hertz 1 kHz 1000 khz 1000 MHz 1000000 GHz 1000000000
W 1 watt 1 mW 0.001 kW 1000 kilowatt 1000 MW 1000000
J 1 joule 1 kJ 1000 cal 4.184 kcal 4184 kWh 3600000
V 1 volt 1 mV 0.001 kV 1000
A 1 ampere 1 amp 1 mA 0.001
N 1 newton 1 kN 1000
Pa 1 pascal 1 kPa 1000 MPa 1000000 bar 100000
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
¥ 1 yuan 1 rmb 1 cny 1
% 1 percent 1 pct 1
"""


def _read_units() -> dict[str, tuple[int, Fraction]]:
    units: dict[str, tuple[int, Fraction]] = {}
    for dimension, line in enumerate(_UNIT_LINES.replace("\n    ", " ").strip().splitlines()):
        words = line.split()
        units |= {unit: (dimension, Fraction(size)) for unit, size in zip(words[::2], words[1::2], strict=True)}
    return units


_UNITS = _read_units()  # symbols are looked up as written first, then in lower case
_PERCENT = _UNITS["%"][0]

_QUANTITY = re.compile(
    rf"(?P<sign>[+-]?)(?P<currency>[$€£¥]?)\s?(?P<number>{NUMBER})(?:\s?/\s?(?P<below>[0-9]+))?"
    r"\s?(?P<unit>[%$€£¥]|°[CFcf]?|(?![⁰¹²³⁴-⁹])[^\W\d_](?:[^\W\d_]|\^[23]|/)*)?\.?"
)


class Quantity(NamedTuple):
    """A number as written, and its unit: one of the table, another word, or none."""

    value: Fraction
    unit: str


def read_quantity(text: str) -> Quantity | None:
    """
    The number that `text` is, with at most one unit; `None` where it holds anything else.

    >>> read_quantity("1,250.5 km")
    Quantity(value=Fraction(2501, 2), unit='km')
    >>> read_quantity("42 or 43") is None
    True
    """
    written = plain_digits(text)
    match = _QUANTITY.fullmatch(written) if len(written) <= MAX_NUMBER_LENGTH else None
    number = read_number(match["number"]) if match else None
    if match is None or number is None or (match["currency"] and match["unit"]):
        return None
    if (match["sign"] and match["number"][0] in "+-") or (match["below"] and not int(match["below"])):
        return None
    value = Fraction(number) / int(match["below"] or 1) * (-1 if match["sign"] == "-" else 1)
    return Quantity(value, _known_unit(match["unit"] or match["currency"]))


def _known_unit(written: str) -> str:
    lower = written.casefold()
    return next((unit for unit in (written, lower, lower.removesuffix("s")) if unit in _UNITS), lower)


def comparable_pairs(answer: Quantity, gold: Quantity) -> list[tuple[Fraction, Fraction]]:
    """
    Values of answer and gold answer in one unit; two pairs where a per cent sign may be read in two ways, none where
    the units do not compare.

    A unit that one side leaves out is not asked of the other; an answer's unit must be known, or be the gold's word.
    """
    known, gold_known = _UNITS.get(answer.unit), _UNITS.get(gold.unit)
    pair = (answer.value, gold.value)
    if answer.unit == gold.unit or not answer.unit or (known and not gold.unit):
        pairs = [pair]
        if answer.unit != gold.unit and known and known[0] == _PERCENT:
            pairs.append((answer.value / 100, gold.value))  # 50% is 50, and 0.5
        if answer.unit != gold.unit and gold_known and gold_known[0] == _PERCENT:
            pairs.append((answer.value, gold.value / 100))
        return pairs
    if known and gold_known and known[0] == gold_known[0]:
        return [(answer.value * known[1], gold.value * gold_known[1])]
    return []


@lru_cache(maxsize=1024)  # one gold answer comes once for each of its completions
def _read_gold(solution: str) -> Quantity:
    gold = read_quantity(solution)
    if gold is None:
        raise ValueError(f"gold answer {solution!r} is not a number")
    return gold


def score_number(
    answer: str, solution: str, options: Options = None, tolerance: float = 0.0, absolute_tolerance: float = 0.0
) -> Scored:
    """Whether `answer` is the gold number, or differs from it by no more than a tolerance; exact by default."""
    gold, found = _read_gold(solution), read_quantity(answer)
    if found is None:
        return UNREADABLE
    relative, absolute = Fraction(repr(tolerance)), Fraction(repr(absolute_tolerance))
    is_right = any(abs(x - y) <= max(relative * abs(y), absolute) for x, y in comparable_pairs(found, gold))
    return Scored(float(is_right), answer.strip())


def score_regression(answer: str, solution: str, options: Options = None, regression_scale: float = 0.0) -> Scored:
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
