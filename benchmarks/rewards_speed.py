# SPDX-License-Identifier: Apache-2.0
"""
Seconds of one core that the format and answer rewards take for 4,096 mixed completions of 2 kB.

    python benchmarks/rewards_speed.py
"""

import argparse
import random
import time

from omni_rewards import CHOICE_TYPES, answer_reward, section_format_reward

GOLD = {
    "multiple choice": "B",
    "emer_ov_mc": "A,B",
    "yes_no": "yes",
    "judge": "No",
    "label": "happy",
    "emotion": "anger",
    "DFEW": "fear",
    "MAFW": "contempt",
    "RAVDESS": "calm",
    "emer_ov": "sad, tired",
    "numerical": "1,250.5 km",
    "regression": "0.5",
    "OCR": "exit only at the next junction, trucks keep right, speed limit 80 " * 3,
    "transcription": "she said that she would come, and then she left again. " * 5,
    "free-form": "He laughs because the joke was at his own expense, and nobody minds. " * 3,
    "box": "[10, 20, 110.5, 220]",
    "box_giou": "[1, 2, 3, 4]",
    "time_span": "3.5 to 7",
}
OPTIONS = ["A. praise", "B. taunt", "C. calm", "D. anger"]
WORDS = ["the", "man", "looks", "at", "her", "and", "then", "his", "voice", "rises", "she", "laughs", "<b>", "2 < 3"]
OTHER_WORDS = ["她", "笑了", "“quoted”", "naïve", "–"]


def rows(num_rows: int, num_characters: int = 2000, seed: int = 0) -> tuple[list[str], list[str], list[str], list]:
    """Completions of every type but `math`, a third of them wrong, a quarter not ASCII, and their columns."""
    rng = random.Random(seed)
    kinds = [list(GOLD)[k % len(GOLD)] for k in range(num_rows)]
    completions = []
    for k, kind in enumerate(kinds):
        answer = " ".join(rng.choices(WORDS, k=8)) if k % 3 == 0 else GOLD[kind]
        words = WORDS if k % 4 else WORDS + OTHER_WORDS
        body = " ".join(rng.choices(words, k=num_characters))[: num_characters - len(answer) - 53]
        middle = len(body) // 3
        completions.append(
            f"<context>{body[:middle]}</context>\n<think>{body[middle:]}</think>\n<answer>{answer}</answer>"
        )
    options = [OPTIONS if kind in CHOICE_TYPES else None for kind in kinds]
    return completions, [GOLD[kind] for kind in kinds], kinds, options


def seconds(completions: list[str], *columns: list) -> tuple[float, float]:
    """Processor time of the format reward and of the answer reward, with everything that they log."""
    hooks = {"log_extra": lambda name, values: None, "log_metric": lambda name, value: None}
    started = time.process_time()
    section_format_reward(completions, **hooks)
    between = time.process_time()
    answer_reward(completions, *columns, **hooks)
    return between - started, time.process_time() - between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    # Other texts each time: what was read before is remembered.
    batches = [rows(args.rows, seed=seed) for seed in range(args.repeats)]
    size = sum(map(len, batches[0][0])) / args.rows
    runs = [seconds(*batch) for batch in batches]
    form, answers = min(runs, key=sum)
    print(f"{args.rows} completions of {size:.0f} characters, best of {args.repeats}: ", end="")
    print(f"format {form:.3f} s + answer {answers:.3f} s = {form + answers:.3f} s of one core")


if __name__ == "__main__":
    main()
