# SPDX-License-Identifier: Apache-2.0
"""For each problem type: options, gold answers that must earn the maximum, and answers that must earn nothing."""

from omni_rewards import CHOICE_TYPES

OPTIONS = ["A. praise", "B. taunt", "C. calm, patient", "D. He asks: why?"]

# type -> gold answers, answers that earn nothing beside any of them
GOLD: dict[str, tuple[list[str], list[str]]] = {
    "multiple choice": (["B", "(b)", "B. taunt", "taunt"], ["A", "A,B,C,D", "A or B", "none"]),
    "emer_ov_mc": (["B,C", "b, c", "B. taunt; C. calm, patient", "C"], ["A", "A,D", "A,B,C,D", "all"]),
    "yes_no": (["yes", "Yes, he is."], ["no", "yes or no", "I don't know"]),
    "judge": (["No", "no."], ["yes", "unknown", "not sure"]),
    "label": (["happy", "very happy", "好"], ["sad", "happy or sad"]),
    "emotion": (["anger", "Angry", "ecstatic"], ["sad", "angry or sad", "angry, sad, happy"]),
    "DFEW": (["fear", "happiness"], ["contempt", "happy or fear"]),
    "MAFW": (["contempt", "anxiety", "disappointment"], ["calm", "contempt, anxiety"]),
    "RAVDESS": (["calm", "fearful"], ["neutral", "contempt"]),
    "emer_ov": (["tired, sad", "['angry', 'worried']"], ["happy", "none of these"]),
    "numerical": (
        ["42", "1,250.5", "50%", "5 km", "-3", "1/2", "$20", "12 people"],
        ["43", "42 or 43", "nan", "many"],
    ),
    "regression": (["10", "0", "0.5", "50%", "5 km"], ["-100", "inf", "ten"]),
    "math": ([r"\frac{1}{2}", "$x^2+1$", "(1, 2)"], ["7", "1 or 2", "I think so"]),
    "OCR": (["Exit only", "出口 EXIT", "C++ 3.5%"], ["entry", "入", "x " * 50]),
    "transcription": (["She said: I'm fine.", "你好，世界。"], ["nothing", "no no no no"]),
    "free-form": (["He laughs at the joke.", "他笑了。", "?!"], ["nothing", "zzz"]),
    "box": (
        ["[10, 20, 110, 220]", "(1,2),(3,4)", '{"bbox": [1, 2, 3, 4]}'],
        ["[500, 500, 501, 501]", "[4,4,1,1]", "NaN"],
    ),
    "box_giou": (["[10, 20, 110, 220]"], ["[4,4,1,1]", "[1, 2, NaN, 4]", "[1, 2, 1e999, 4]"]),
    "time_span": (
        ["3 to 7.5", "[3, 7.5]", "00:03 - 00:07", "1-2, 5-9"],
        ["100 to 200", "7 to 3", "nan to 3", "whole clip"],
    ),
}


def options_of(problem_type: str) -> list[str] | None:
    return OPTIONS if problem_type in CHOICE_TYPES else None


def completion(answer: str, think: str = "I think.") -> str:
    return f"<context>A man.</context><think>{think}</think><answer>{answer}</answer>"
