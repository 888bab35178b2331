# SPDX-License-Identifier: Apache-2.0
"""One prompt, token for token, in SFT, RL and evaluation; media in their order, sound after its video."""

from __future__ import annotations

from itertools import groupby

import pytest

from media_files import cut_file, grey_frames, tone, write_sound, write_video
from omni_grpo.config import OmniGRPOConfig
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.encoding.prompt import encode_prompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.prompts import PROMPT_STYLES, build_messages, question_text
from omni_grpo.data.rows.schema import Example, MediaItem
from omni_grpo.evaluation.evaluate import vary
from omni_grpo.families import family_of_processor
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.rollout.record import Rollout
from omni_grpo.sft import IGNORED, OmniCollator
from omni_grpo.trainer import OmniGRPOTrainer
from omni_rewards import CHOICE_TYPES, PROBLEM_TYPES, answer_reward, answer_score


@pytest.fixture(scope="module")
def processor(tiny):
    return load_processor(tiny)


@pytest.fixture(scope="module")
def silent(tmp_path_factory) -> str:
    return str(write_video(tmp_path_factory.mktemp("silent") / "silent.mp4", grey_frames(8)))


def example(*media: MediaItem, **fields) -> Example:
    return Example(
        **{"id": "row", "problem": "Is it?", "problem_type": "yes_no", "solution": "yes"} | fields, media=media
    )


def user_parts(row: Example, load_audio_from_video: bool = False) -> list[tuple[str, str | None, bool]]:
    parts = build_messages(row, "short", load_audio_from_video)[-1]["content"]
    return [(p["type"], p["path"], p["audio_in_video"]) for p in parts if p["type"] != "text"]


@pytest.fixture(scope="module")
def trainer(tiny, settings, mixed, tmp_path_factory):
    return OmniGRPOTrainer(
        model=load_model(tiny),
        reward_funcs=answer_reward,
        args=OmniGRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("rl")),
            use_cpu=True,
            bf16=False,
            report_to="none",
            num_generations=2,
            gradient_checkpointing=False,
        ),
        train_dataset=mixed,
        encoder=PromptEncoder(load_processor(tiny), settings),
    )


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_one_prompt_in_sft_rl_and_evaluation(trainer, processor, settings, mixed_file, style):
    """Mutants: an own template or system prompt in one of the three; the generation header left out of SFT."""
    examples = load_examples(mixed_file)
    dataset = to_dataset(examples, style)
    batch = OmniCollator(PromptEncoder(processor, settings))(list(dataset))
    sft = [
        ids[: (labels != IGNORED).nonzero()[0]].tolist()
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    ]
    with trainer._at(Rollout.begin(list(dataset), "train", "0", 1, 0)):
        rl, *_ = trainer._tokenize_prompts(dataset["prompt"])
    evaluation = [
        encode_prompt(processor, vary(build_messages(e, style), "full"), settings, e.id).input_ids for e in examples
    ]
    assert sft == rl == evaluation
    for ids in sft:
        text = processor.tokenizer.decode(ids)
        assert text.endswith("Answer yes or no.<|im_end|>\n<|im_start|>assistant\n")
        system = PROMPT_STYLES[style].system
        assert text.startswith(f"<|im_start|>system\n{system}<|im_end|>\n" if system else "<|im_start|>user\n")


def test_media_keep_their_order_and_sound_follows_its_video(processor, settings, clips):
    path = {name: str(clips / name) for name in ("image0.png", "clip0.mp4", "sound1.wav", "clip2.mp4", "image3.png")}
    row = example(
        MediaItem("image", path["image0.png"]),
        MediaItem("video", path["clip0.mp4"], True),
        MediaItem("audio", path["sound1.wav"]),
        MediaItem("video", path["clip2.mp4"]),
        MediaItem("image", path["image3.png"]),
    )
    assert user_parts(row) == [
        ("image", path["image0.png"], False),
        ("video", path["clip0.mp4"], False),
        ("audio", path["clip0.mp4"], False),
        ("audio", path["sound1.wav"], False),
        ("video", path["clip2.mp4"], False),
        ("image", path["image3.png"], False),
    ]
    ids = encode_prompt(processor, build_messages(row, "short"), settings, "row").input_ids
    names = {token: name for name, token in family_of_processor(processor).placeholders(processor).items()}
    runs = [name for name, _ in groupby(names.get(i) for i in ids) if name]  # each item has marks around it
    assert runs == ["image", "video", "audio", "audio", "video", "image"]


def test_interleaved_sound_is_part_of_its_video(clips):
    clip = str(clips / "clip0.mp4")
    row = example(MediaItem("video", clip, True), MediaItem("audio", str(clips / "sound1.wav")))
    assert user_parts(row, load_audio_from_video=True) == [
        ("video", clip, True),
        ("audio", str(clips / "sound1.wav"), False),
    ]


def test_if_present_hears_what_is_there(clips, silent):
    sounding = str(clips / "clip0.mp4")
    assert user_parts(example(MediaItem("video", sounding, "if_present"))) == [
        ("video", sounding, False),
        ("audio", sounding, False),
    ]
    assert user_parts(example(MediaItem("video", silent, "if_present"))) == [("video", silent, False)]
    assert user_parts(example(MediaItem("video", sounding, False))) == [("video", sounding, False)]


def test_sound_asked_of_a_silent_video_names_row_file_and_remedy(silent):
    with pytest.raises(
        MediaError, match=r'row \'row\': .*silent\.mp4 has no sound track.*; set `use_audio` to false or "if_p'
    ):
        build_messages(example(MediaItem("video", silent, True)), "short")


@pytest.mark.parametrize("use_audio", [True, "if_present"])
def test_a_broken_video_is_named_with_its_row_when_its_sound_is_looked_for(tmp_path, use_audio):
    """Mutant: the reader's error as it is, which knows no row."""
    clip = cut_file(write_video(tmp_path / "cut.mp4", grey_frames(8), sound=tone(300)), keep=0.5)
    with pytest.raises(MediaError, match=r"row 'row': .*cut\.mp4"):
        build_messages(example(MediaItem("video", str(clip), use_audio)), "short")


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_the_question_ends_in_its_types_instruction(problem_type):
    options = ("A. red", "B. blue") if problem_type in CHOICE_TYPES else None
    lines = question_text(example(problem_type=problem_type, options=options)).splitlines()
    assert lines[0] == "Is it?"
    assert lines[1:-1] == (["Options:", "A. red", "B. blue"] if options else [])
    assert lines[-1] == PROBLEM_TYPES[problem_type].instruction


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("red", "blue"), ["A. red", "B. blue"]),
        (("A. red", "B. blue"), ["A. red", "B. blue"]),
        (("(a) red", "(b) blue"), ["(a) red", "(b) blue"]),
        (("A、red", "B、blue"), ["A、red", "B、blue"]),
        (("A：red", "B：blue"), ["A：red", "B：blue"]),
        (("A．red", "B．blue"), ["A．red", "B．blue"]),
        (("A) red", "B) blue"), ["A) red", "B) blue"]),
        (("[A] red", "[B] blue"), ["[A] red", "[B] blue"]),
        (("Option A: red", "Option B: blue"), ["Option A: red", "Option B: blue"]),
        (("A", "B"), ["A", "B"]),  # what they stand for is in the picture
        (("1. Red", "2. Blue"), ["A. Red", "B. Blue"]),
        (("（1）red", "（2）blue"), ["A. red", "B. blue"]),
        (("1. Mai", "2. Mai"), ["A. 1. Mai", "B. 2. Mai"]),  # dates
        (("1.5", "2.25"), ["A. 1.5", "B. 2.25"]),  # decimals, not numbers of options
        (("1", "2"), ["A. 1", "B. 2"]),
        (("A and B", "B and C"), ["A. A and B", "B. B and C"]),
        (("I. Newton", "A. Einstein"), ["A. I. Newton", "B. A. Einstein"]),  # initials, not letters
    ],
)
def test_options_are_shown_by_the_letter_that_the_reward_reads(options, shown):
    """Mutants: plain options without letters under an instruction that asks for the letter; letters put before letters."""
    row = example(problem_type="multiple choice", options=options, solution="B")
    assert question_text(row).splitlines()[2:-1] == shown
    for line, letter in zip(shown, "AB", strict=True):
        for gold in ("A", "B"):
            assert answer_score(line, gold, "multiple choice", options) == float(gold == letter)
            assert answer_score(letter, line, "multiple choice", options) == 1.0


@pytest.mark.parametrize("style", [s for s in PROMPT_STYLES if not s.startswith("short")])
def test_a_system_prompt_asks_for_the_sections_of_its_schema(style):
    system, schema = PROMPT_STYLES[style].system, PROMPT_STYLES[style].schema
    assert [name for name in ("context", "think", "answer") if f"<{name}> </{name}>" in system] == list(schema.names)


def test_short_styles_ask_alike_and_differ_in_their_sections():
    """A control that was trained on other sections is asked the same question."""
    short = [s for s in PROMPT_STYLES if s.startswith("short")]
    asked = [build_messages(example(), s) for s in short]
    assert len({PROMPT_STYLES[s].schema for s in short}) == len(short) == 3
    assert all(messages == asked[0] for messages in asked)


def test_an_unknown_style_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError,
        match=r"prompt_style 'cot' is unknown; one of context_think_answer, think_answer, text_think_answer, answer, short, ",
    ):
        build_messages(example(), "cot")


def test_a_prompt_without_media_holds_text_alone(tmp_path):
    sound = write_sound(tmp_path / "a.wav", tone(300))
    bare, heard = (to_dataset([example(*m)], "short")["prompt"][0] for m in ((), (MediaItem("audio", str(sound)),)))
    assert [[p["type"] for p in m["content"]] for m in bare] == [["text"]]
    assert [m["content"][-1] for m in bare] == [m["content"][-1] for m in heard]
