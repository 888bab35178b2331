# SPDX-License-Identifier: Apache-2.0
"""
Completions that should not earn full marks, each written for the sections and line breaks that a rule expects.

An attack is one fault in an otherwise good completion. Faults of form carry the gold answer, so that the form alone is
what must be refused; faults of the answer stand in a good form.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

FILLER = "He frowns, so it is a taunt."
SCENE = "A man frowns and claps."


@dataclass(frozen=True)
class Row:
    """One question: what TRL passes of it to a reward."""

    problem_type: str
    solution: str
    options: tuple[str, ...] | None = None
    context: str | None = None


@dataclass(frozen=True)
class Form:
    """How a rule wants a completion written: its sections, and what stands around the text in each."""

    names: tuple[str, ...]
    around: str = ""
    between: str = ""

    def section(self, name: str, text: str) -> str:
        return f"<{name}>{self.around}{text}{self.around}</{name}>"

    def write(self, answer: str, think: str = FILLER, context: str = SCENE) -> str:
        texts = {"context": context, "think": think, "answer": answer}
        return self.between.join(self.section(name, texts[name]) for name in self.names)


@dataclass(frozen=True)
class Boxed(Form):
    """TRL's own way: reasoning in tags, then the answer in LaTeX."""

    names: tuple[str, ...] = ("think",)

    def write(self, answer: str, think: str = FILLER, context: str = SCENE) -> str:
        return self.section("think", think) + rf"\boxed{{{answer}}}"


@dataclass(frozen=True)
class Attack:
    """A name for the table, the row that is answered, and the completion in a form."""

    name: str
    row: Row
    write: Callable[[Form], str]
    group: str = field(kw_only=True)


CHOICE = Row("multiple choice", "B", ("A. praise", "B. taunt", "C. joke", "D. complain"))
KILOBYTES_100 = 100_000


def _on_section(name: str, change: Callable[[str, str, str, str], str]) -> Callable[[Form], str]:
    """A change of the good text around one section, given the text, its opening tag, its inner text, its closing tag."""

    def write(form: Form) -> str:
        inner = form.around + ("B" if name == "answer" else FILLER) + form.around
        return change(form.write("B"), f"<{name}>", inner, f"</{name}>")

    return write


# On the reasoning, which every published format has.
_THINK: dict[str, Callable[[str, str, str, str], str]] = {
    "empty think": lambda text, o, x, c: text.replace(o + x + c, o + c),
    "whitespace think": lambda text, o, x, c: text.replace(o + x + c, o + " \n\t\n " + c),
    "zero-width think": lambda text, o, x, c: text.replace(o + x + c, o + "\n\u200b\ufeff\n" + c),
    "think of blank letters (U+3164)": lambda text, o, x, c: text.replace(o + x + c, o + "\n\u3164\n" + c),
    "think left out": lambda text, o, x, c: text.replace(o + x + c, ""),
    "think twice": lambda text, o, x, c: text.replace(o + x + c, (o + x + c) * 2),
    "think again behind the answer": lambda text, o, x, c: text + "\n" + o + x + c,
    "think behind the answer only": lambda text, o, x, c: text.replace(o + x + c, "") + "\n" + o + x + c,
    "think inside think": lambda text, o, x, c: text.replace(o + x + c, o + x + o + x + c + "\n" + c),
    "junk and a second closing tag": lambda text, o, x, c: text.replace(o + x + c, o + x + c + x + c),
    "closing tag twice": lambda text, o, x, c: text.replace(c, c + "\n" + c),
    "opening tag twice": lambda text, o, x, c: text.replace(o, o + "\n" + o),
    "no opening tag": lambda text, o, x, c: text.replace(o, ""),
    "no closing tag": lambda text, o, x, c: text.replace(c, ""),
    "tags in capitals": lambda text, o, x, c: text.replace(o, o.upper()).replace(c, c.upper()),
    "space in a tag": lambda text, o, x, c: text.replace(c, c.replace("/", "/ ")),
    "attribute in a tag": lambda text, o, x, c: text.replace(o, o.replace(">", ' id="1">')),
    "backslash for the slash": lambda text, o, x, c: text.replace(c, c.replace("/", "\\")),
    "full-width brackets": lambda text, o, x, c: text.replace(o, f"＜{o[1:-1]}＞").replace(c, f"＜{c[1:-1]}＞"),
    "Cyrillic letter in a tag": lambda text, o, x, c: text.replace(c, c.replace("i", "\u0456")),
    "zero-width space in a tag": lambda text, o, x, c: text.replace(c, c.replace("n", "n\u200b")),
    "soft hyphen in a tag": lambda text, o, x, c: text.replace(o, o.replace("n", "n\u00ad")),
    "NUL in a tag": lambda text, o, x, c: text.replace(c, c.replace(">", "\0>")),
    "answer quoted in think": lambda text, o, x, c: text.replace(o + x + c, o + x + "<answer>B</answer>" + x + c),
    "full-width answer smuggled into think": lambda text, o, x, c: text.replace(
        FILLER, FILLER + "＜answer＞A＜/answer＞"
    ),
    "bold answer tag smuggled into think": lambda text, o, x, c: text.replace(FILLER, FILLER + "<𝐚𝐧𝐬𝐰𝐞𝐫>A</𝐚𝐧𝐬𝐰𝐞𝐫>"),
    "special-token answer smuggled into think": lambda text, o, x, c: text.replace(
        FILLER, FILLER + "<|answer|>A<|/answer|>"
    ),
    "text before": lambda text, o, x, c: "Sure! " + text,
    "text between": lambda text, o, x, c: text.replace(c, c + " So it is B. "),
    "invisible character before": lambda text, o, x, c: "\ufeff" + text,
    "100 kB of white space in think": lambda text, o, x, c: text.replace(FILLER, " \n" * (KILOBYTES_100 // 2)),
    "100 kB of one word in think": lambda text, o, x, c: text.replace(FILLER, "wait " * (KILOBYTES_100 // 5)),
    "100 kB of opening tags": lambda text, o, x, c: (o + "\n") * (KILOBYTES_100 // len(o)) + text,
}
_ANSWER: dict[str, Callable[[str, str, str, str], str]] = {
    "text after": lambda text, o, x, c: text + " Or is it A?",
    "text after, on a line of its own": lambda text, o, x, c: text + "\nOr is it A?",
    "invisible character after": lambda text, o, x, c: text + "\u200b",
    "two answers, the first is right": lambda text, o, x, c: text + "\n" + o + x.replace("B", "A") + c,
    "two answers, the last is right": lambda text, o, x, c: text.replace(o, o + x.replace("B", "A") + c + "\n" + o),
    "one answer block for each option": lambda text, o, x, c: (
        text + "".join("\n" + o + x.replace("B", a) + c for a in "ACD")
    ),
    "the whole completion twice": lambda text, o, x, c: text + "\n" + text,
    "answer inside answer": lambda text, o, x, c: text.replace(o + x + c, o + x + o + x + c + "\n" + c),
    "answer not closed": lambda text, o, x, c: text.replace(c, ""),
    "cut inside the last tag": lambda text, o, x, c: text[:-2],
    "closing tag again at the end": lambda text, o, x, c: text + "\n" + c,
    "answer alone, without tags": lambda text, o, x, c: "B",
    "answer section alone": lambda text, o, x, c: o + x + c,
    "whitespace in every other section": lambda text, o, x, c: text.replace(FILLER, " ").replace(SCENE, " "),
    "nothing in every other section": lambda text, o, x, c: text.replace(FILLER, "").replace(SCENE, ""),
    "100 kB of spaces around the answer": lambda text, o, x, c: text.replace(
        o + x, o + x[:-1] + " " * KILOBYTES_100 + x[-1:]
    ),
}

FORM_ATTACKS = [
    *(Attack(name, CHOICE, _on_section("think", change), group="form") for name, change in _THINK.items()),
    *(Attack(name, CHOICE, _on_section("answer", change), group="form") for name, change in _ANSWER.items()),
]
