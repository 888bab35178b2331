# SPDX-License-Identifier: Apache-2.0
"""Files to data sets, and a preflight that meets every bad row before training does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, IterableDataset

from conftest import TEXTS
from media_files import cut_file, grey_frames, tone, write_image, write_sound, write_video
from omni_grpo.data.dataset import (
    SFT_TARGETS,
    load_sources,
    media_paths,
    modalities_of,
    preflight,
    to_dataset,
    with_sft_targets,
)
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.inputs import MODALITIES
from omni_grpo.data.encoding.prompt import encode_prompt
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.prompts import PROMPT_STYLES, build_messages
from omni_grpo.data.rows.schema import DataError, Example, MediaItem
from omni_grpo.model.loading import load_processor
from omni_grpo.sft import OmniCollator
from omni_rewards import parse_sections


@pytest.fixture(scope="module")
def processor(tiny):
    return load_processor(tiny)


@pytest.fixture
def encoder(processor, settings):
    return PromptEncoder(processor, settings, max_prompt_length=100)


def example(name: str, *media: MediaItem, **fields) -> Example:
    return Example(id=name, **{"problem": "Is it?", "problem_type": "yes_no", "solution": "yes"} | fields, media=media)


def video(path: Path, use_audio: bool | str = False) -> MediaItem:
    return MediaItem("video", str(path), use_audio)


def test_every_bad_row_is_named_before_training(encoder, clips, tmp_path):
    """Mutants: stopping at the first; the reader's message as it is, without the row."""
    cut = cut_file(write_video(tmp_path / "cut.mp4", grey_frames(8)), keep=0.6)
    (tmp_path / "zero.wav").touch()
    long = write_sound(tmp_path / "long.wav", tone(300, 4.0, 16_000), 16_000)
    (tmp_path / "note.png").write_text("no image")
    good = video(clips / "clip0.mp4", True)
    rows = [
        example("good", good),
        example("cut", video(cut)),
        example("zero", MediaItem("audio", str(tmp_path / "zero.wav"))),
        example("long sound", MediaItem("audio", str(long))),
        example("no image", MediaItem("image", str(tmp_path / "note.png"))),
        example("long prompt", good, problem="Is it? " * 100),
        example("token", problem="Is it <|VIDEO|>?"),
        example("text"),
    ]
    with pytest.raises(DataError) as error:
        preflight(to_dataset(rows, "short"), encoder)
    head, *lines = str(error.value).splitlines()
    assert head == "6 row(s) cannot be used:"
    wanted = {
        "cut": r"cut\.mp4: the file is truncated, .*; get the file again, or drop the row",
        "zero": r"zero\.wav: the file is empty \(0 bytes\); get the file again",
        "long sound": r"long\.wav: its sound lasts 4\.0 s, more than max_audio_seconds=3",
        "no image": r"note\.png",
        "long prompt": r"the prompt has \d+ tokens \(12 audio, 4 video\), `max_prompt_length` is 100; lower",
        "token": r"its text holds the special token '<\|VIDEO\|>'; take it out",
    }
    for (name, message), line in zip(wanted.items(), lines, strict=True):
        assert re.match(rf"row '{name}': .*{message}", line), line
        assert line.count("row '") == 1


def test_every_row_whose_sound_cannot_be_used_is_named_at_once(clips, tmp_path):
    """Mutant: the first such row ending the reading of all."""
    silent = write_video(tmp_path / "silent.mp4", grey_frames(8))
    cut = cut_file(write_video(tmp_path / "cut.mp4", grey_frames(8), sound=tone(300)), keep=0.6)
    rows = [
        example("a", video(silent, True)),
        example("b", video(clips / "clip0.mp4", True)),
        example("c", video(cut, True)),
    ]
    with pytest.raises(DataError) as error:
        to_dataset(rows, "short")
    head, a, c = str(error.value).splitlines()
    assert head == "2 row(s) cannot be used:"
    assert re.match(r"row 'a': .*silent\.mp4 has no sound track.*set `use_audio`", a)
    assert re.match(r"row 'c': .*cut\.mp4: the file is truncated", c)


def test_a_row_is_told_all_that_is_wrong_with_it_and_each_remedy_works(processor, settings, tmp_path):
    """
    One launch, not four: two files, a control token, the sound against both its limits, the prompt, the target. Then all
    remedies at once, and the run goes on. Mutants: the first error alone; lengths of the row with its sound uncut;
    `lower max_audio_seconds` as the whole remedy.
    """
    long = write_sound(tmp_path / "long.wav", tone(300, 5.0, 16_000), 16_000)
    cut = cut_file(write_video(tmp_path / "cut.mp4", grey_frames(8)), keep=0.6)
    (tmp_path / "zero.wav").touch()

    def row(*media, **fields):
        return example("bad", MediaItem("audio", str(long)), *media, **{"target": TEXTS[0]} | fields)

    def told(row, limit, length, settings=settings, escape=False) -> list[str]:
        encoder = PromptEncoder(processor, settings, limit, escape=escape)
        try:
            preflight(to_dataset([row], "short"), encoder, collator=OmniCollator(encoder, length))
        except DataError as error:
            [line] = str(error).splitlines()[1:]
            return line.removeprefix("row 'bad': ").split("; also: ")
        return []

    sound = r"long\.wav: its sound lasts 5\.0 s, more than max_audio_seconds=2; .* set long_audio: truncate"
    model = r"long\.wav: its sound lasts at least 4\.00 s and .* hears 3 s; .*to 3 with `long_audio: truncate`"
    prompt = r"the prompt has \d+ tokens \(25 audio\), `max_prompt_length` is 60; lower"
    target = r"prompt \(\d+\) and target \(\d+\) have more tokens than `max_length` \(80\); raise it"
    strict = replace(settings, max_audio_seconds=2.0)
    found = told(row(problem="Is it <|im_end|>?"), 60, 80, strict)
    wanted = [r"problem: its text holds the special token '<\|im_end\|>'", sound, model, prompt, target]
    assert len(found) == len(wanted) and all(map(re.search, wanted, found)), found
    found = told(row(MediaItem("audio", str(tmp_path / "zero.wav")), video(cut)), 60, 80, strict)
    wanted = [sound, model, r"zero\.wav: the file is empty", r"cut\.mp4: the file is truncated"]
    assert len(found) == len(wanted) and all(map(re.search, wanted, found)), found
    mended = replace(strict, long_audio="truncate")
    assert told(row(problem="Is it <|im_end|>?"), 200, 400, mended, escape=True) == []
    assert told(row(), None, None, replace(settings, max_audio_seconds=3, long_audio="truncate")) == []
    assert len(told(row(), 40, None, mended)) == 1 and len(told(row(), 40, 60, mended)) == 2


def test_many_bad_rows_are_counted(encoder, tmp_path):
    (tmp_path / "zero.wav").touch()
    rows = [example(f"r{i}", MediaItem("audio", str(tmp_path / "zero.wav"))) for i in range(23)]
    with pytest.raises(DataError) as error:
        preflight(to_dataset(rows, "short"), encoder)
    lines = str(error.value).splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("23 row(s) cannot be used:", 22, "… and 3 more")


def test_a_target_too_long_is_met_by_the_preflight_too(encoder):
    """Mutant: checking prompts alone, so that the collator raises in the middle of an epoch."""
    targets = {"fits": TEXTS[0], "long": TEXTS[0] * 9, "longer": TEXTS[0] * 10}
    dataset = to_dataset([example(name, target=target) for name, target in targets.items()], "short")
    preflight(dataset, encoder)
    with pytest.raises(
        DataError, match=r"2 row\(s\) cannot be used:\nrow 'long': prompt \(\d+\) and target .*\nrow 'longer'"
    ):
        preflight(dataset, encoder, collator=OmniCollator(encoder, max_length=120))


def test_an_unchanged_data_set_is_not_decoded_again(processor, settings, clips, tmp_path):
    """Mutants: a fingerprint without the files, the settings, the limit, the text or the order of the rows."""
    for k in range(2):
        write_sound(tmp_path / f"{k}.wav", tone(300 + k, 0.5, 16_000), 16_000)
    rows = [example(f"r{k}", MediaItem("audio", str(tmp_path / f"{k}.wav"))) for k in range(2)]
    done = tmp_path / "run" / "preflight"

    def decoded(rows=rows, settings=settings, limit=100, collator=None) -> int:
        encoder = PromptEncoder(processor, settings, limit)
        preflight(to_dataset(rows, "short"), encoder, done, collator=collator and collator(encoder))
        return encoder.encoded

    assert (decoded(), decoded()) == (2, 0)
    write_sound(tmp_path / "1.wav", tone(300, 0.6, 16_000), 16_000)
    assert (decoded(), decoded()) == (2, 0), "a file changed"
    assert (decoded(limit=99), decoded(limit=99)) == (2, 0)
    assert decoded(settings=replace(settings, max_audio_seconds=2.0)) == 2
    assert (decoded(rows[::-1]), decoded([*rows, example("text")])) == (2, 3)
    assert decoded([rows[0], replace(rows[1], problem="Was it?")]) == 2
    with_targets = [replace(row, target="yes") for row in rows]
    assert decoded(with_targets, collator=lambda e: OmniCollator(e, 90)) == 2
    assert decoded(with_targets, collator=lambda e: OmniCollator(e, 90)) == 0
    assert decoded(with_targets, collator=lambda e: OmniCollator(e, 91)) == 2
    assert decoded([replace(row, target="no") for row in rows], collator=lambda e: OmniCollator(e, 91)) == 2


def test_a_failed_preflight_is_not_remembered(encoder, tmp_path):
    (tmp_path / "a.wav").touch()
    dataset = to_dataset([example("a", MediaItem("audio", str(tmp_path / "a.wav")))], "short")
    for _ in range(2):
        with pytest.raises(DataError):
            preflight(dataset, encoder, tmp_path / "done")
    assert not (tmp_path / "done").exists()


def test_what_the_preflight_encoded_training_finds_in_memory(encoder, mixed):
    preflight(mixed, encoder)
    encoded = encoder.encoded
    OmniCollator(encoder)(list(mixed))
    assert encoder.encoded == encoded > 0


def test_sft_targets_by_mode():
    rows = [example("both", target=TEXTS[0]), example("bare", solution="no")]
    dataset = to_dataset(rows, "short")
    assert with_sft_targets(dataset, "solution")["target"][:] == ["yes", "no"]
    assert with_sft_targets(dataset, "target_or_solution")["target"][:] == [TEXTS[0], "no"]
    assert with_sft_targets(dataset.select([0]), "target")["target"][:] == [TEXTS[0]]
    for mode in SFT_TARGETS[1:3]:
        assert with_sft_targets(dataset, mode)["prompt"][:] == dataset["prompt"][:]
    with pytest.raises(
        DataError, match=r"1 row\(s\) have no `target` to imitate: \['bare'\]; .*`sft_target: solution`"
    ):
        with_sft_targets(dataset, "target")
    with pytest.raises(
        ValueError, match=r"sft_target: 'targets' is unknown; one of target, solution, target_or_solution"
    ):
        with_sft_targets(dataset, "targets")


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_sft_targets_in_the_sections_of_the_style(style):
    """Mutants: the whole target, the bare answer, the solution in place of what the target answers."""
    schema = PROMPT_STYLES[style].schema
    rows = [example("both", target=TEXTS[0], solution="yes"), example("bare", solution="no")]
    dataset = to_dataset(rows, style)
    (target,) = with_sft_targets(dataset.select([0]), "sections", schema)["target"][:]
    sections = parse_sections(target, schema)
    assert sections.ok and sections.texts == {n: parse_sections(TEXTS[0]).texts[n] for n in schema.names}
    if schema.names == ("answer",):
        targets = with_sft_targets(dataset, "sections", schema)["target"][:]
        assert targets == ["<answer>no</answer>"] * 2  # the first target answers no, whatever its solution
        return
    with pytest.raises(
        DataError, match=rf"1 row\(s\) have no `target` with the sections {', '.join(schema.names)} to"
    ):
        with_sft_targets(dataset, "sections", schema)


def test_several_files_are_read_in_order_each_beside_its_media(tmp_path):
    files = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_image(folder / "a.png", grey_frames(1)[0])
        row = {"id": name, "problem": "Is it?", "problem_type": "yes_no", "solution": "yes"}
        files.append(folder / "rows.jsonl")
        files[-1].write_text(json.dumps(row | {"media": [{"type": "image", "path": "a.png"}]}) + "\n")
    rows = load_sources(f"{files[1]} , {files[0]},")
    assert [row.id for row in rows] == ["two", "one"]
    assert [row.media[0].path for row in rows] == [str(tmp_path / n / "a.png") for n in ("two", "one")]
    assert load_sources(str(files[0])) == load_examples(files[0])


@pytest.mark.parametrize("sources", [None, "", " , "])
def test_no_source_is_said_with_the_field_to_set(sources):
    """Mutant: `None.split`, or a data set named by an empty text."""
    with pytest.raises(DataError, match="train_file: not given; name a JSONL file"):
        load_sources(sources)


def test_modalities_that_occur(mixed, clips):
    text, sound = (
        to_dataset([example("t")], "short"),
        to_dataset([example("v", video(clips / "clip0.mp4", True))], "short"),
    )
    inside = to_dataset([example("v", video(clips / "clip0.mp4", True))], "short", load_audio_from_video=True)
    plain = Dataset.from_dict({"prompt": [[{"role": "user", "content": "Is it?"}]]})
    assert modalities_of(text) == modalities_of(None) == modalities_of(plain) == frozenset()
    assert modalities_of(sound) == modalities_of(inside) == modalities_of(text, None, sound) == {"video", "audio"}
    assert modalities_of(mixed) == set(MODALITIES)
    stream = IterableDataset.from_generator(lambda: iter([{"prompt": []}]))
    assert modalities_of(text, stream) == set(MODALITIES)


def test_prompts_survive_arrow(processor, settings, mixed_file, tmp_path):
    """Arrow orders keys anew and fills what is missing: neither may reach ids, nor the memory's keys."""
    examples = load_examples(mixed_file)
    to_dataset(examples, "short").save_to_disk(str(tmp_path / "saved"))
    stored = Dataset.load_from_disk(str(tmp_path / "saved"))
    encoder = PromptEncoder(processor, settings)
    for row, original in zip(stored, examples, strict=True):
        messages = build_messages(original, "short")
        assert row["prompt"] == messages
        assert row["id"] == original.id and row["solution"] == original.solution and row["options"] is None
        assert encoder(row["prompt"]).input_ids == encode_prompt(processor, messages, settings).input_ids
    encoded = encoder.encoded
    for original in examples:
        encoder(build_messages(original, "short"))
    assert encoder.encoded == encoded, "the same prompt has another key after Arrow"


def test_options_and_unicode_survive_arrow():
    row = example("ü", problem="¿“是”吗?\n", problem_type="multiple choice", options=("A. 是", "B. не"), solution="B")
    [stored] = to_dataset([row, example("none")], "short").select([0])
    assert (stored["id"], stored["problem"], stored["options"]) == (row.id, row.problem, list(row.options))


def test_paths_for_logs_of_any_kind_of_prompt(mixed, clips):
    """Mutant: taking every prompt for one of parts, when TRL also passes plain text."""
    first = str(clips / "clip0.mp4")
    assert media_paths(mixed["prompt"])[:2] == [[first, first], []]
    plain = (
        [{"role": "user", "content": "Is it?"}],
        "Is it?",
        [{"role": "user", "content": [{"type": "text", "text": "?"}]}],
    )
    assert media_paths(plain) == [[], [], []]
