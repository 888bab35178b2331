# SPDX-License-Identifier: Apache-2.0
"""What a thought concludes is read only where it is certain: the last clear conclusion decides, all else is `None`."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omni_rewards import EMOTION_LABEL_SETS, PROBLEM_TYPES, conclusion_agrees
from work import soon

OPTIONS = ["A. praise", "B. taunt", "C. a joke", "D. calm, patient"]
MOODS = ["happy", "sad", "angry"]

# Problem type, options, thought, the answer that it concludes, another answer.
CLEAR = [
    ("yes_no", None, "He frowns. So the answer is no.", "no", "yes"),
    ("yes_no", None, "The voice is not happy, so the answer is no.", "No.", "Yes, they agree."),
    ("yes_no", None, "He smiles. Therefore, yes.", "Yes", "no"),
    ("yes_no", None, "So no, they do not.", "no", "yes"),
    ("yes_no", None, "They fit.\nFinal answer: **Yes**", "yes", "no"),
    ("yes_no", None, "Is it so? The verdict is yes, because he nods. That is my whole reasoning.", "yes", "no"),
    ("judge", None, "She nods.\nYes.", "yes", "no"),
    ("multiple choice", OPTIONS, "So the answer is B.", "B", "A"),
    ("multiple choice", OPTIONS, "It cannot be A. The answer is (B).", "(b)", "A"),
    ("multiple choice", OPTIONS, "The correct answer is B: taunt.", "B. taunt", "praise"),
    ("multiple choice", OPTIONS, "The best option is the taunt.", "B", "C"),
    ("multiple choice", OPTIONS, "The answer must be B, not A.", "B", "A"),
    ("multiple choice", OPTIONS, "The tone is warm, so it is B.", "B", "A"),
    ("multiple choice", OPTIONS, "Therefore he means it as a joke. I choose C.", "C", "A"),
    ("multiple choice", OPTIONS, "Option C is wrong, it is too serious.\nOption D fits best.", "D", "C"),
    ("multiple choice", OPTIONS, "He waits and smiles. This is calm, patient.", "D", "B"),
    ("multiple choice", OPTIONS, r"So \boxed{B}", "B", "D"),
    ("multiple choice", OPTIONS, "他皱着眉头。所以答案是B。", "B", "A"),
    ("multiple choice", OPTIONS, "他皱着眉头，因此选Ｂ", "B", "A"),
    ("multiple choice", OPTIONS, "答案：（B）", "B", "C"),
    ("multiple choice", OPTIONS, "At first the answer is A; yet at last the answer is B.", "B", "A"),
    ("multiple choice", OPTIONS, "Thus, option B is correct.", "B", "A"),
    ("multiple choice", OPTIONS, "So it is a joke.", "a joke", "taunt"),
    ("label", ["a joke", "a taunt"], "So it is a joke.", "a joke", "a taunt"),
    ("multiple choice", OPTIONS, "It's clearly a taunt.", "B", "A"),
    ("multiple choice", OPTIONS, "所以选项B是正确的。", "B", "A"),
    ("emer_ov_mc", OPTIONS, "So the answer is B and D.", "B, D", "A, B"),
    ("emer_ov_mc", OPTIONS, "The answer is B, D.", "B,D", "B"),
    ("numerical", None, "6 * 7 = 42.", "42", "41"),
    ("numerical", None, "Six rows of seven, so the answer is 42.", "42.0", "7"),
    ("numerical", None, r"Thus \boxed{1,250.5}", "1250.50", "1300"),
    ("numerical", None, "It is 40 m and 2 m more. So it is 42 m.", "42 m", "40 m"),
    ("regression", None, "Therefore -3.", "-3", "3"),
    ("numerical", None, "6乘7，所以答案是42。", "42", "41"),
    ("label", MOODS, "He shouts. Therefore the speaker is angry.", "anger", "happy"),
    ("label", OPTIONS, "The voice is warm, so this is praise.", "praise", "taunt"),
    ("label", None, "The voice is warm, so this is praise.", "praise", "taunt"),
    ("label", None, "The answer is anger.", "angry", "sad"),
    ("emotion", MOODS, "The answer is B.", "sad", "angry"),
    ("emotion", None, "He smiles, so he is happy.", "joy", "fear"),
    ("DFEW", None, "The trembling voice means much. It is fear.", "fear", "happy"),
    ("MAFW", None, "Overall, the speaker feels sad.", "sadness", "anger"),
    ("emotion", None, "所以答案是愤怒。", "angry", "happy"),
    ("RAVDESS", None, "So the answer is calm, since nothing moves.", "calm", "neutral"),
]


@pytest.mark.parametrize(("kind", "options", "think", "right", "wrong"), CLEAR)
def test_a_clear_conclusion_agrees_with_its_answer_alone(kind, options, think, right, wrong) -> None:
    assert conclusion_agrees(think, right, kind, options) is True
    assert conclusion_agrees(think, wrong, kind, options) is False


# What a wrong reading would turn into a contradiction: a sound thought, and an answer that it may well mean.
UNSURE = [
    ("yes_no", None, "There is no smile on his face.", "yes"),
    ("yes_no", None, "Is it yes or no?", "yes"),
    ("yes_no", None, "So is the answer no?", "yes"),
    ("yes_no", None, "Her answer is no. He walks away in the rain.", "yes"),
    ("yes_no", None, "She says the answer is no.", "yes"),
    ("yes_no", None, "The answer is no longer clear.", "yes"),
    ("yes_no", None, "So no smile is seen, and they agree.", "yes"),
    ("yes_no", None, "If he smiled, then the answer is no.", "yes"),
    ("yes_no", None, "They do not agree.", "yes"),
    ("multiple choice", OPTIONS, "A man is seen.", "B"),
    ("multiple choice", OPTIONS, "So A man claps.", "B"),
    ("multiple choice", OPTIONS, "The answer is A or B.", "B"),
    ("multiple choice", OPTIONS, "The answer is A, or rather B.", "B"),
    ("multiple choice", OPTIONS, "The answer is not A.", "B"),
    ("multiple choice", OPTIONS, "I do not think the answer is A.", "B"),
    ("multiple choice", OPTIONS, "It is unlikely that the answer is A.", "B"),
    ("multiple choice", OPTIONS, "So it could be that it is A.", "B"),
    ("multiple choice", OPTIONS, "The answer is A. But wait, he frowns.", "B"),
    ("multiple choice", OPTIONS, "The answer is A. Or is he mocking her?", "B"),
    ("multiple choice", OPTIONS, "Let me check option A. The praise is loud.", "B"),
    ("multiple choice", OPTIONS, "He was promised praise.", "B"),
    ("multiple choice", OPTIONS, "答案不是A。", "B"),
    ("multiple choice", OPTIONS, "答案是A吗？", "B"),
    ("multiple choice", OPTIONS, "如果他笑，答案是A。", "B"),
    ("multiple choice", OPTIONS, "不选A。", "B"),
    ("multiple choice", OPTIONS, "The options are:\nA. praise\nB. taunt\nC. a joke\nD. calm, patient", "B"),
    ("multiple choice", OPTIONS, "He believes the answer is A.", "B"),
    ("yes_no", None, "Yes.\nNo.\nYes.", "no"),
    ("multiple choice", OPTIONS, "The answer is A, B.", "B"),
    ("multiple choice", OPTIONS, "His whole act is a joke.", "B"),
    ("emer_ov_mc", OPTIONS, "So the answer is B. The final answer is D.", "B,D"),
    ("numerical", None, "I count 3 chairs and 4 stools.", "7"),
    ("numerical", None, "So the answer is 4200 cm.", "42 m"),
    ("numerical", None, "The answer is 5 million.", "5000000"),
    ("numerical", None, "So the answer is 3.14159.", "3.14"),
    ("numerical", None, "The answer is 3/4.", "0.75"),
    ("numerical", None, "12 = 3 * 4.", "12"),
    ("label", MOODS, "The face is happy while the voice is angry.", "angry"),
    ("label", MOODS, "So the face is happy while the voice is angry.", "sad"),
    ("label", MOODS, "The face is happy, so the others leave.", "sad"),
    ("label", MOODS, "He is so happy at first. The news comes.", "sad"),
    ("label", None, "The answer is clear.", "taunt"),
    ("label", None, "He yawns, so he is tired.", "complain"),
    ("label", None, "It is praise or taunt or joke.", "joke"),
    ("DFEW", None, "So he is amused.", "happy"),
    ("emotion", None, "因此，他很难过。", "sad"),
    ("multiple choice", OPTIONS, "Thus, option A is wrong.", "B"),
    ("multiple choice", OPTIONS, "Thus option A is the best, but not here.", "B"),
    ("emotion", None, "He is not happy.", "sad"),
    ("free-form", None, "So the answer is a fight.", "a party"),
    ("time_span", None, "So the answer is 3 to 7.5.", "[1, 2]"),
    ("emer_ov", None, "So the answer is sad.", "sad, tired"),
    ("multiple choice", None, "The answer is A.", "B"),
    ("some new type", None, "So the answer is a dance.", "a fight"),
    ("label", MOODS, "so " * 600 + "it is happy", "sad"),
    ("multiple choice", OPTIONS, "", "B"),
]


@pytest.mark.parametrize(("kind", "options", "think", "answer"), UNSURE)
def test_what_cannot_be_read_for_sure_is_none(kind, options, think, answer) -> None:
    assert conclusion_agrees(think, answer, kind, options) is None


GIVEN = {
    "yes_no": (None, ["yes", "no"]),
    "multiple choice": (OPTIONS, ["A", "B", "C", "D"]),
    "numerical": (None, ["42", "-7", "0.5", "1,000"]),
    "label": (MOODS, MOODS),
    "emotion": (None, ["joy", "sadness", "anger"]),
    "DFEW": (None, list(EMOTION_LABEL_SETS["DFEW"])),
}
rows = st.sampled_from(sorted(GIVEN)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.sampled_from(GIVEN[kind][1]), st.sampled_from(GIVEN[kind][1]))
)
FINAL = ["So the answer is {}.", "Therefore, {}.", "Final answer: {}", "I choose {}.", "The answer is {}, because of that.", "所以答案是{}。", r"\boxed{{{}}}"]  # fmt: skip
# What may stand before: words, other conclusions, doubts, and any text.
BEFORE = [
    *("So the answer is {}.", "Wait, it may be {}.", "Is it {}?", "The answer is not {}.", "{} or not?", "Hmm."),
    *("He smiles, and the voice is calm.", "If so, {}.", "First, {}.", "but", "答案是{}。"),
]
thoughts = st.lists(st.sampled_from(BEFORE) | st.text(max_size=20), max_size=5).map("\n".join)


@given(rows, thoughts, st.sampled_from(FINAL), st.sampled_from(["", " ", "\n"]))
def test_a_clear_final_conclusion_decides(row, before, final, after) -> None:
    """Mutants: the first conclusion taken for the last; a doubt before it that is kept."""
    kind, said, answer = row
    think = f"{before.replace('{}', answer)}\n{final.format(said)}{after}"
    assert conclusion_agrees(think, answer, kind, GIVEN[kind][0]) is (said == answer)


UNDONE = ["So the answer is not {}.", "Is the answer {}?", "I doubt that the answer is {}.", "If he smiled, the answer is {}.", "The answer is {} or not.", "It is not the case that the answer is {}.", "答案不是{}。", "答案是{}吗？"]  # fmt: skip


@given(rows, thoughts, st.sampled_from(UNDONE))
def test_a_denied_or_questioned_conclusion_is_none_and_lifts_those_before(row, before, undone) -> None:
    """Mutant: looking on for an earlier conclusion, past one that is denied."""
    kind, said, answer = row
    think = f"{before.replace('{}', said)}\n{undone.format(said)}"
    assert conclusion_agrees(think, answer, kind, GIVEN[kind][0]) is None


@given(
    rows,
    st.lists(st.sampled_from(["He smiles.", "The voice is low.", "A dog barks", "I listen again.", "他看着她。"])),
)
def test_a_thought_without_a_conclusion_is_none(row, sentences) -> None:
    kind, _, answer = row
    assert conclusion_agrees("\n".join(sentences), answer, kind, GIVEN[kind][0]) is None


@given(
    st.text(), st.text(max_size=30), st.sampled_from([*PROBLEM_TYPES, "new"]), st.sampled_from([None, MOODS, OPTIONS])
)
@example("The answer is 1e999.", "1.5e998", "numerical", None)
@example("The answer is 0.1.", "0", "numerical", None)
def test_any_text_gets_a_verdict(think, answer, kind, options) -> None:
    assert conclusion_agrees(think, answer, kind, options) in (True, False, None)


def test_aliases_are_words_for_labels() -> None:
    """Mutant: `aliases` left out, so that a word of the run's own contradicts its label."""
    think = "So the answer is ecstatic."
    assert conclusion_agrees(think, "happy", "label", None) is False
    assert conclusion_agrees(think, "happy", "label", None, {"ecstatic": "happy"}) is True


@pytest.mark.parametrize(
    "unit", ["so it is a ", "A. ", "B ", "1 ", "the answer is ", ".\n", "is ", "(B)", "=", "答案", "the "]
)
def test_long_thoughts_take_no_time(unit: str) -> None:
    think = unit * (100_000 // len(unit))
    with soon():
        for kind in ("yes_no", "multiple choice", "emer_ov_mc", "numerical", "label", "emotion"):
            conclusion_agrees(think, "B", kind, OPTIONS)
