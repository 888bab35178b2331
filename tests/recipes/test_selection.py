# SPDX-License-Identifier: Apache-2.0
"""What is chosen of sampled rows, by relations: the samples are written by the product, the model's words alone are given."""

from __future__ import annotations

import json
import random
import re
import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

import select_rows
from omni_grpo.data.dataset import load_sources
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.writing import as_row
from omni_grpo.model.loading import load_processor
from omni_grpo.sampling.selection import ANSWER, ANY, SELECTIONS, Rule, pass_rates, select
from omni_rewards import CONTEXT_THINK_ANSWER, answer_reward, parse_sections
from sampled_runs import numbered, read, write_samples
from script_runs import GRPO, GRPO_FIELDS, ROOT, SFT, SFT_FIELDS, start, write_config

pytestmark = pytest.mark.xdist_group("processes")

COUNT = 8
FORMS = {  # of a completion, by how its answer is wrapped; the second is right, but not as the style asks
    "whole": "<context>A face{more}.</context><think>So it is.</think><answer>{answer}</answer>",
    "no context": "<think>So it is{more}.</think><answer>{answer}</answer>",
    "cut": "<context>A face{more}.</context><think>So it is.</think><answer>{answer}</answer>",
}


def says(name: str, draw: int) -> tuple[str, int, bool]:
    """A row has as many right completions as its number says, over all forms and lengths; even rows answer yes."""
    number, chance = numbered(name), random.Random(f"{name} {draw}")
    right = (draw + number) % COUNT < number % (COUNT + 1)
    form = chance.choice(list(FORMS))
    answer = ("yes", "no")[(number % 2 == 0) != right]
    return FORMS[form].format(answer=answer, more=f" {draw}"), chance.randint(5, 30), form == "cut"


@pytest.fixture(scope="module")
def data(mixed_file) -> Path:
    """Eighteen mixed rows of two problem types, two of them a pair, beside their media."""
    lines = [json.loads(line) for line in mixed_file.read_text().splitlines()]
    rows = [{**lines[i % 6], "id": f"row{i}", "solution": "no" if i % 2 else "yes"} for i in range(18)]
    rows[2] |= {"problem_type": "label"}
    rows[5] |= {"problem_type": "label"}
    rows[3] |= {"pair": "p"}
    rows[4] |= {"pair": "p"}
    file = mixed_file.with_name("eighteen.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def folder(data, tiny, tmp_path_factory) -> Path:
    """A finished sampling of them."""
    folder = tmp_path_factory.mktemp("sampled") / "samples"
    both = ["omni_rewards.answer_reward", "omni_rewards.section_format_reward"]
    write_samples(folder, data, tiny, says, num_completions=COUNT, reward_funcs=both)
    return folder


@pytest.fixture(scope="module")
def samples(folder):
    found = read(folder)
    drawn = [c for row in found for c in row["completions"]]
    assert any(c["rewards"][ANSWER] == 1.0 and not c["format_ok"] for c in drawn), "right, and not strict"
    assert any(c["rewards"][ANSWER] == 1.0 and c["truncated"] for c in drawn)
    return found


def chosen(name: str, samples, rule: Rule | None = None) -> dict[str, dict[str, str]]:
    found = select(name, samples, rule or Rule())
    assert found.keys() == {row["id"] for row in samples}
    return {row: added for row, added in found.items() if isinstance(added, dict)}


def written(folder: Path, file: Path, name: str, *words: str) -> list[dict]:
    """The rows that the script writes to `file`."""
    select_rows.main([str(folder), str(file), "--select", name, *words])
    assert not list(file.parent.glob("*.tmp"))
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


shares = st.fractions(0, 1, max_denominator=COUNT)


@given(st.lists(shares, min_size=4, max_size=4).map(sorted), st.sampled_from([ANY, "label", "yes_no"]))
def test_a_wider_band_holds_the_narrower_and_a_type_moves_its_own_rows_alone(samples, ends, kind):
    """Mutants: the greatest share left out of the band; the band of a type used for all."""
    rule = Rule(band={ANY: (Fraction(0), Fraction(1)), kind: (ends[1], ends[2])})
    wide = replace(rule, band={**rule.band, kind: (ends[0], ends[3])})
    narrow, wider = chosen("band", samples, rule), chosen("band", samples, wide)
    assert narrow.keys() <= wider.keys()
    for row in samples:
        share = Fraction([c["rewards"][ANSWER] for c in row["completions"]].count(1.0), COUNT)
        asked = (ends[1], ends[2]) if kind in (ANY, row["problem_type"]) else (0, 1)
        assert (row["id"] in narrow) == (asked[0] <= share <= asked[1])


def test_the_published_band_is_one_to_five_of_eight(samples):
    """HumanOmniV2's: a score above 0.2 is right. Mutants: 1 to 6 of 8, or any."""
    rights = {row["id"]: [c["rewards"][ANSWER] > 0.2 for c in row["completions"]].count(True) for row in samples}
    assert {*rights.values()} == {*range(COUNT + 1)}
    assert chosen("band", samples).keys() == {row for row, right in rights.items() if 1 <= right <= 5}


def test_the_table_of_pass_rates_counts_each_row_once_in_its_type(samples):
    """Mutant: completions counted in place of rows."""
    said, header, *lines = [line.split() for line in pass_rates(samples).splitlines()]
    assert said[-1] == ANSWER and header[2:] == [str(k) for k in range(COUNT + 1)]
    shown = {line[0]: [int(n) for n in line[1:]] for line in lines}
    types = [row["problem_type"] for row in samples]
    assert {kind: sum(numbers) for kind, numbers in shown.items()} == {kind: types.count(kind) for kind in types}
    band = sum(sum(numbers[1:6]) for numbers in shown.values())
    assert band == len(chosen("band", samples))


def test_worked_examples_are_right_strict_whole_and_the_shortest(folder, data):
    """Scored anew. Mutants: the first right one in place of the shortest; form not asked for; one that was cut."""
    rows = written(folder, data.with_name("examples.jsonl"), "worked_examples")
    source = {row["id"]: row for row in map(json.loads, data.read_text().splitlines())}
    assert rows and len(rows) < len(source)
    for row in rows:
        drawn = next(r["completions"] for r in read(folder) if r["id"] == row["id"])
        mine = [c for c in drawn if c["text"] == row["target"]]
        good = [c for c in drawn if c["rewards"][ANSWER] == 1.0 and c["format_ok"] and not c["truncated"]]
        assert mine and mine[0]["num_tokens"] == min(c["num_tokens"] for c in good) and not mine[0]["truncated"]
        turn = [[{"role": "assistant", "content": row["target"]}]]
        assert answer_reward(turn, [row["solution"]], problem_type=[row["problem_type"]]) == [1.0]
        assert parse_sections(row["target"], CONTEXT_THINK_ANSWER).ok
        assert {**row, "target": None, "pair": None} == {**source[row["id"]], "target": None, "pair": None}


def test_pairs_are_of_one_row_and_differ_in_reward(samples):
    """Mutants: `rejected` any other completion; the longest; one of another row."""
    pairs = chosen("pairs", samples)
    for row in samples:
        by_text = {c["text"]: c for c in row["completions"]}
        right = [c for c in row["completions"] if c["rewards"][ANSWER] == 1.0]
        good = [c for c in right if c["format_ok"] and not c["truncated"]]
        assert (row["id"] in pairs) == (bool(good) and len(right) < COUNT)
        if row["id"] in pairs:
            won, lost = (by_text[pairs[row["id"]][side]] for side in ("chosen", "rejected"))
            assert won["rewards"][ANSWER] > lost["rewards"][ANSWER] and won["format_ok"] and not won["truncated"]
            wrong = [c for c in row["completions"] if c["rewards"][ANSWER] == 0.0]
            assert lost["format_ok"] == any(c["format_ok"] for c in wrong)
            apart = [abs(c["num_tokens"] - won["num_tokens"]) for c in wrong if c["format_ok"] == lost["format_ok"]]
            assert abs(lost["num_tokens"] - won["num_tokens"]) == min(apart)
    assert len(pairs) > 3


@given(st.data())
def test_without_a_score_is_neither_right_nor_wrong(samples, data):
    """
    A second reward that a judge left out here and there: never chosen for being right, never for being wrong, unless
    the answer is wrong anyway.

    Mutants: `None` taken for wrong, or for right; a band that counts it as wrong.
    """
    rule = Rule({ANSWER: 0.2, "judged": 0.5})
    marked = [
        {**row, "completions": [{**c, "rewards": {**c["rewards"], "judged": score}} for c, score in judged]}
        for row in samples
        for judged in [[(c, data.draw(st.sampled_from([None, 0.0, 1.0]))) for c in row["completions"]]]
    ]
    found = {name: chosen(name, marked, rule) for name in SELECTIONS}
    for row in marked:
        by_text = {c["text"]: c["rewards"] for c in row["completions"]}
        unknown = [r for r in by_text.values() if r[ANSWER] > 0.2 and r["judged"] is None]
        if unknown:
            assert row["id"] not in found["band"] and select("band", marked, rule)[row["id"]] == "without a score"
        for name, side in (("worked_examples", "target"), ("pairs", "chosen")):
            if row["id"] in found[name]:
                assert by_text[found[name][row["id"]][side]]["judged"] == 1.0
        if row["id"] in found["pairs"]:
            assert by_text[found["pairs"][row["id"]]["rejected"]] not in unknown


@pytest.mark.parametrize("where", ["beside the data", "elsewhere"])
def test_the_rl_script_takes_the_band_as_it_is(folder, data, tiny, tmp_path, where, capsys):
    """
    Its rows are those of the data; of a pair that lost a row, the other is no pair. Elsewhere with the remedy that is told.

    Mutants: media relative to the working directory; `pair` left in a row whose partner is gone.
    """
    file = data.with_name("band.jsonl") if where == "beside the data" else tmp_path / "band.jsonl"
    rows = written(folder, file, "band", "--band", "1/8:3/8")
    said = capsys.readouterr().out
    assert [row["id"] for row in rows if "pair" in row] == [] and "row3" in [row["id"] for row in rows]
    remedy = dict(re.findall(r"`(media_root): (.+)`", said))
    assert bool(remedy) == (where == "elsewhere")
    before = {e.id: e for e in load_examples(data)}
    for example in load_sources(str(file), **remedy):
        assert replace(example, pair=None) == replace(before[example.id], pair=None)
    if where == "elsewhere":
        words = write_config(tmp_path / "rl", GRPO_FIELDS, train_file=str(file), model_name_or_path=tiny, max_steps=1)
        start(GRPO, *words, *(f"--{name}={value}" for name, value in remedy.items()))
        assert (tmp_path / "rl" / "model.safetensors").is_file()


def test_the_sft_script_takes_the_worked_examples_as_they_are(folder, data, tiny, tmp_path):
    """Mutant: `target` under another name."""
    file = data.with_name("for_sft.jsonl")
    assert written(folder, file, "worked_examples")
    words = write_config(tmp_path / "sft", SFT_FIELDS, train_file=str(file), model_name_or_path=tiny, max_steps=1)
    start(SFT, *words)
    assert (tmp_path / "sft" / "model.safetensors").is_file()


def test_the_commands_of_the_page_select(folder, tmp_path, monkeypatch):
    """docs/own_data.md's own words, on this sampling. Mutant: an option of another name."""
    page = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python recipes/select_rows\.py (.+?) *(?:#.*)?$", page, re.MULTILINE)
    commands += [f"{commands[0]} {words}" for words in re.findall(r"`(--band .+?)`", page)]
    (tmp_path / "runs/own_data").mkdir(parents=True)
    (tmp_path / "runs/own_data/samples").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        select_rows.main(shlex.split(command))
    assert {file.name for file in (tmp_path / "data/own").iterdir()} == {"rl.jsonl", "sft.jsonl", "pairs.jsonl"}
    assert len(commands) == 4


def test_trls_dpo_trainer_takes_the_pairs(data, tiny, tmp_path):
    """A step of a small model of text on the file as it is. Mutant: contents of plain text as lists of parts."""
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl import DPOConfig, DPOTrainer

    lines = [line for line in data.read_text().splitlines(keepends=True) if not json.loads(line)["media"]]
    (tmp_path / "text.jsonl").write_text("".join(lines))
    write_samples(tmp_path / "text", tmp_path / "text.jsonl", tiny, says, num_completions=COUNT)
    written(tmp_path / "text", tmp_path / "pairs.jsonl", "pairs")
    rows = Dataset.from_json(str(tmp_path / "pairs.jsonl"))
    tokenizer = load_processor(tiny).tokenizer
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    asked = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes)
    model, reference = Qwen2ForCausalLM(asked), Qwen2ForCausalLM(asked)
    arguments = DPOConfig(str(tmp_path / "dpo"), max_steps=1, use_cpu=True, bf16=False, report_to="none")
    trainer = DPOTrainer(model, reference, args=arguments, train_dataset=rows, processing_class=tokenizer)
    assert trainer.train().training_loss > 0


def test_trls_collator_finds_the_pictures_of_the_pairs(folder, tiny, tmp_path):
    """Pictures are TRL's `images`, one for each mark. Mutant: paths of pictures left in the prompt alone."""
    from datasets import Image
    from datasets import List as ListOf
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    written(folder, tmp_path / "pairs.jsonl", "pairs")
    rows = Dataset.from_json(str(tmp_path / "pairs.jsonl")).cast_column("images", ListOf(Image()))
    pictured = [row for row in rows if row["images"]]
    assert pictured and len(pictured) < len(rows)
    alone = [row for row in pictured if {p["type"] for t in row["prompt"] for p in t["content"]} == {"image", "text"}]
    batch = DataCollatorForVisionPreference(load_processor(tiny))(alone[:1])
    assert batch["pixel_values"].numel() and batch["input_ids"].size(0) == 2
    files = {p["path"] for row in rows for t in row["prompt"] for p in t["content"] if p["type"] in ("audio", "video")}
    assert files and all(Path(file).is_file() for file in files)


def test_rows_of_trls_form_are_written_back_as_they_are_read(mixed_file, tmp_path):
    """Turns with media between texts, pictures in a column, segments. Mutant: pictures of the column named twice."""
    clip, picture = "clip0.mp4", "image0.png"
    rows = [
        {"id": "turns", "prompt": [{"role": "user", "content": [
            {"type": "text", "text": "One."}, {"type": "video", "path": clip, "start": 0.1, "use_audio": True},
            {"type": "image", "path": picture}, {"type": "text", "text": "Two."}]}], "mine": 3},
        {"id": "column", "prompt": [{"role": "user", "content": "What?"}], "images": [picture], "solution": "yes"},
        {"id": "asked", "problem": "What?", "problem_type": "yes_no", "solution": "no", "image": picture, "mine": 4},
        {"id": "plain", "prompt": "What?"},
        {"id": "ours", "problem": "What?", "problem_type": "multiple choice", "options": ["A. a", "B. b"], "solution": "A",
         "media": [{"type": "video", "path": clip, "use_audio": "if_present", "end": 0.5}], "meta": {"a": [1]}},
    ]  # fmt: skip
    source = mixed_file.with_name("forms.jsonl")
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = load_examples(source)
    for below in (source.parent, None):
        back = source.with_name(f"back{bool(below)}.jsonl")
        back.write_text("".join(json.dumps(as_row(example, below)) + "\n" for example in examples))
        assert load_examples(back) == examples
        assert (str(source.parent) in json.loads(back.read_text().splitlines()[-1])["media"][0]["path"]) == (not below)


def test_what_cannot_be_selected_is_told_with_a_remedy(folder, data, tiny, tmp_path):
    """Nothing is written then. Mutants: a cut sampling selected from; rows that have changed since; the data overwritten."""
    mistakes = {
        "'judged' was not among the rewards of this sampling; there are answer_reward, section_format_reward": (
            ["--right_above", "judged=0.5"]
        ),
        "problem type 'labels' is unknown; one of multiple choice": ["--band", "labels=1/8:3/8"],
        r"no row is selected \(18 too easy\); move the limits": ["--band", "0:0", "--right_above", "-1"],
    }
    for message, words in mistakes.items():
        with pytest.raises(ValueError, match=message):
            select_rows.main([str(folder), str(tmp_path / "out.jsonl"), "--select", "band", *words])
    before = data.read_bytes()
    with pytest.raises(ValueError, match="is what was sampled, and stays; name another file"):
        select_rows.main([str(folder), str(data), "--select", "band"])
    with pytest.raises(FileNotFoundError, match="no sampling is there"):
        select_rows.main([str(tmp_path), str(tmp_path / "out.jsonl"), "--select", "band"])
    try:
        data.write_bytes(before + b"\n")
        with pytest.raises(ValueError, match="its rows are not those that were sampled; sample them anew"):
            select_rows.main([str(folder), str(tmp_path / "out.jsonl"), "--select", "band"])
    finally:
        data.write_bytes(before)
    with pytest.raises(RuntimeError, match="a power cut"):
        write_samples(tmp_path / "cut", data, tiny, lambda *_: (_ for _ in ()).throw(RuntimeError("a power cut")))
    with pytest.raises(ValueError, match="the sampling was cut"):
        select_rows.main([str(tmp_path / "cut"), str(tmp_path / "out.jsonl"), "--select", "band"])
    write_samples(tmp_path / "cut", data, tiny, says)  # the remedy
    assert written(tmp_path / "cut", tmp_path / "now.jsonl", "band")
    assert not (tmp_path / "out.jsonl").exists() and data.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--band", ["1/8", "5/8:1/8", "1:5", "yes_no=", "1/0:1", "x"]),
        ("--right_above", ["x=a", "", "answer_reward="]),
    ],
)
def test_an_option_that_cannot_be_read_shows_how_it_is_written(option, words, folder, tmp_path, capsys):
    """And what it shows can be read. Mutant: argparse's own "invalid value value"."""
    for word in words:
        with pytest.raises(SystemExit):
            select_rows.main([str(folder), str(tmp_path / "out.jsonl"), "--select", "band", option, word])
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"argument {option}: {word!r} is not [" in said
        shown = re.search(r"e\.g\. (\S+) or (\S+)$", said)
    for example in (shown[1], shown[2].replace("reasoning_reward", "section_format_reward")):
        assert written(folder, tmp_path / "out.jsonl", "band", option, example)
