# SPDX-License-Identifier: Apache-2.0
"""
What is chosen of the sampled rows, by name, and written: a difficulty band, worked examples, pairs. Nothing is sampled
again.

Each selection looks at one row's completions and at which of them are right, and gives the fields to add to the row, or
says why the row is left out.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from omni_grpo.config import DataArguments
from omni_grpo.data.dataset import load_sources
from omni_grpo.data.rows.writing import as_row, preference_rows
from omni_grpo.run.stages import RECORD, contents, input_files
from omni_grpo.sampling.sampling import SAMPLES, Row
from omni_rewards import PROBLEM_TYPES

Band = tuple[Fraction, Fraction]
Chosen = dict[str, str] | str
ANSWER = "answer_reward"
ANY = ""  # the problem types that have no band of their own


@dataclass(frozen=True)
class Rule:
    """
    What is right, and how much of it a difficulty band asks.

    Args:
        right_above (`Mapping[str, float]`):
            Scores by reward: a completion is right that earns more than each. HumanOmniV2's 0.2 by default.
        band (`Mapping[str, tuple[Fraction, Fraction]]`):
            Least and greatest share of right completions, both included, by problem type, and for all others under `""`;
            HumanOmniV2's 1 to 5 of 8 by default.
    """

    right_above: Mapping[str, float] = field(default_factory=lambda: {ANSWER: 0.2})
    band: Mapping[str, Band] = field(default_factory=lambda: {ANY: (Fraction(1, 8), Fraction(5, 8))})

    def is_right(self, drawn: Row) -> bool | None:
        """`None`, neither right nor wrong, where a reward gave no score and no other says that it is wrong."""
        above = [None if (s := drawn["rewards"][n]) is None else s > least for n, least in self.right_above.items()]
        return False if False in above else None if None in above else True


def difficulty_band(drawn: Sequence[Row], right: Sequence[bool | None], band: Band) -> Chosen:
    """
    The row as it is, where neither too few nor too many of its completions are right for it to teach anything.

    Source: HumanOmniV2 (https://huggingface.co/papers/2506.21277) keeps 1 to 5 of 8. Deviations: every problem type is
    scored by its own rule, and a row with a completion that a judge left without a score is left out, by that reason.
    """
    if None in right:
        return "without a score"
    share = Fraction(right.count(True), len(right))
    return "too hard" if share < band[0] else "too easy" if share > band[1] else {}


def worked_example(drawn: Sequence[Row], right: Sequence[bool | None], band: Band) -> Chosen:
    """As `target`, the shortest completion that is right, well-formed and whole."""
    good = [d for d, is_right in zip(drawn, right, strict=True) if is_right and d["format_ok"] and not d["truncated"]]
    return {"target": min(good, key=lambda d: d["num_tokens"])["text"]} if good else "none is right and well-formed"


def pair(drawn: Sequence[Row], right: Sequence[bool | None], band: Band) -> Chosen:
    """
    As `chosen` what [`worked_example`] takes; as `rejected` a wrong completion, well-formed if there is such a one, and
    nearest to it in length, so that form and length tell the two apart as little as can be.
    """
    good = worked_example(drawn, right, band)
    if isinstance(good, str) or False not in right:
        return good if isinstance(good, str) else "none is wrong"
    length = next(d["num_tokens"] for d in drawn if d["text"] == good["target"])
    wrong = [d for d, is_right in zip(drawn, right, strict=True) if is_right is False]
    rejected = min(wrong, key=lambda d: (not d["format_ok"], abs(d["num_tokens"] - length)))
    return {"chosen": good["target"], "rejected": rejected["text"]}


SELECTIONS = {"band": difficulty_band, "worked_examples": worked_example, "pairs": pair}


def select(name: str, samples: Sequence[Row], rule: Rule) -> dict[str, Chosen]:
    """
    By row, the fields to add to it, or why it is left out.

    Args:
        name (`str`): Key of [`SELECTIONS`].
        samples (sequence of `dict`): Lines of `samples.jsonl`.
        rule ([`Rule`]): What is right and what is asked.

    Raises:
        `ValueError`: A reward or a problem type of `rule` is unknown.
    """
    known = samples[0]["completions"][0]["rewards"]
    if unknown := [n for n in rule.right_above if n not in known]:
        raise ValueError(f"{unknown[0]!r} was not among the rewards of this sampling; there are {', '.join(known)}")
    if unknown := rule.band.keys() - {ANY, *PROBLEM_TYPES}:
        raise ValueError(f"problem type {min(unknown)!r} is unknown; one of {', '.join(PROBLEM_TYPES)}")
    found: dict[str, Chosen] = {}
    for row in samples:
        right = [rule.is_right(drawn) for drawn in row["completions"]]
        band = rule.band.get(row["problem_type"], rule.band[ANY])
        found[row["id"]] = SELECTIONS[name](row["completions"], right, band)
    return found


def write_selection(name: str, rule: Rule, folder: Path, destination: Path) -> str:
    """
    Write a selection's rows to `destination` and say how many they are, and why the others are not.

    A row of a `contrast_pairs` pair whose partner is not selected loses its `pair`. Media paths are relative to the
    folder of `destination` where all media lie below it, and absolute otherwise.

    Args:
        name (`str`): Key of [`SELECTIONS`].
        rule ([`Rule`]): What is right and what is asked.
        folder (`Path`): `output_dir` of the sampling.
        destination (`Path`): The JSONL file.

    Raises:
        `FileNotFoundError`: There is no sampling in `folder`.
        `ValueError`: It is not finished, its rows have changed since, `destination` is one of its data files, no row is
            selected, or as [`select`].
    """
    record = json.loads((folder / RECORD).read_text()) if (folder / RECORD).is_file() else {}
    if "num_completions" not in record.get("fields", {}):
        raise FileNotFoundError(f"{folder}: no sampling is there; run recipes/sample_omni.py, and name its output_dir")
    if not record["done"]:
        raise ValueError(f"{folder}: the sampling was cut; run recipes/sample_omni.py again, and it goes on")
    data = DataArguments(**record["data"])
    if not contents(input_files({"train_file": data.train_file})).items() <= record["contents"].items():
        raise ValueError(f"{data.train_file}: its rows are not those that were sampled; sample them anew")
    if destination.resolve() in [Path(file.strip()).resolve() for file in str(data.train_file).split(",")]:
        raise ValueError(f"{destination}: is what was sampled, and stays; name another file")
    found = select(name, [json.loads(line) for line in (folder / SAMPLES).read_bytes().splitlines()], rule)
    reasons = Counter(reason for reason in found.values() if isinstance(reason, str)).most_common()
    left_out = ", ".join(f"{count} {reason}" for reason, count in reasons) or "none"
    examples = load_sources(data.train_file, data.media_root, data.train_split, data.media_roots)
    chosen = [(e, added) for e in examples if not isinstance(added := found[e.id], str)]
    if not chosen:
        raise ValueError(f"no row is selected ({left_out}); move the limits, or sample from another checkpoint")
    told = f"{len(chosen)} of {len(found)} rows written to {destination}; left out: {left_out}"
    if name == "pairs":
        rows = preference_rows(chosen, data.prompt_style, record["load_audio_from_video"])
    else:
        paths, below = [Path(m.path).parent for e, _ in chosen for m in e.media], destination.parent.resolve()
        if not (are_below := all(path.is_relative_to(below) for path in paths)):
            told += f"\ntheir media lie elsewhere: train with `media_root: {os.path.commonpath(paths)}`"
        partners = Counter(e.pair for e, _ in chosen)
        kept = [(e if partners[e.pair] == 2 else replace(e, pair=None), added) for e, added in chosen]
        rows = [as_row(e, below if are_below else None) | added for e, added in kept]
    destination.parent.mkdir(parents=True, exist_ok=True)
    draft = destination.with_name(f"{destination.name}.tmp")  # the file is whole or not there
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(draft, destination)
    return told


def pass_rates(samples: Sequence[Row]) -> str:
    """For the terminal: rows of each problem type by how many completions are right by [`ANSWER`], or the first reward."""
    name = min(samples[0]["completions"][0]["rewards"], key=lambda name: name != ANSWER)
    right = [[Rule({name: 0.2}).is_right(drawn) for drawn in row["completions"]].count(True) for row in samples]
    counts = Counter((row["problem_type"] or "-", number) for row, number in zip(samples, right, strict=True))
    columns = range(len(samples[0]["completions"]) + 1)
    kinds = {kind: [counts[kind, k] for k in columns] for kind in sorted({kind for kind, _ in counts})}
    lines = [
        f"{kind:26}" + "".join(f"{n:>6}" for n in row) for kind, row in {"right completions": columns, **kinds}.items()
    ]
    return "\n".join([f"rows by {name}", *lines])
