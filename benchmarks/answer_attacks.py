# SPDX-License-Identifier: Apache-2.0
"""Wrong answers that were paid in full once, or are paid elsewhere: group, problem type, gold answer, answer."""

_MATHS = (
    (r"6.626\times10^{-34}", r"9.1\times10^{-31}"),
    (r"1.6\times10^{-19}", r"1.7\times10^{-19}"),
    ("0.0000001", "0.0000002"),
    (r"\frac1{2004!}", r"\frac1{2006!}"),
    (r"\frac{2^{2005}+1}{3\cdot2^{2006}}", r"\frac{1}{3\cdot2^{2006}}"),
    (r"1-\frac1{\mathrm e}", r"1+\frac1{\mathrm e}"),
    (r"2+\mathrm i", r"2-\mathrm i"),
    ("5", r"5\mathrm i"),
    ("4", r"4\cbrt{2}"),
    ("4", r"4\sqrt(2)"),
    ("3", r"3\ldots"),
    ("101_2", "101_3"),
    ("f(x)=0", r"\forall x>0, f(x)=0"),
)
_VERDICTS = (
    *(("yes", "not yes"), ("yes", "isn't a yes"), ("yes", "definitely not a yes"), ("yes", "anything but yes")),
    *(("no", "not a no"), ("no", "no doubt"), ("no", "I have no idea"), ("no", "There is no sound")),
    *(("是", "不是"), ("否", "不否认")),
)
_NUMBERS = (
    *(
        ("5 million", "5"),
        ("5 million", "5 thousand"),
        ("2 billion", "2"),
        ("2 dozen", "2"),
        ("5万", "5"),
        ("3亿", "3"),
    ),
    *(("$5M", "$5"), ("5k", "5"), ("9.8 m/s²", "9.8 m/s"), ("9.8 m/s²", "9.8 m²/s"), ("5 m²", "5 m³")),
)
_EMOTIONS = (
    *(("happy, sad and angry", "happy"), ("happy, sad and angry", "happy, sad"), ("开心和难过", "开心")),
    ("happy & sad", "happy, sad, angry, afraid"),
)
ANSWER_ATTACKS: tuple[tuple[str, str, str, str], ...] = (
    *(("formula", "math", *pair) for pair in _MATHS),
    *(("yes or no", "yes_no", *pair) for pair in _VERDICTS),
    *(("number", "numerical", *pair) for pair in _NUMBERS),
    *(("words", "emer_ov", *pair) for pair in _EMOTIONS),
)
