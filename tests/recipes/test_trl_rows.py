# SPDX-License-Identifier: Apache-2.0
"""TRL's own forms of a row: its pictures reach the model as those of our own rows do, or the row is refused at start."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from datasets import Dataset, Image, IterableDataset
from datasets import List as ListOf
from PIL import Image as Picture

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, OmniSFTConfig, OmniSFTTrainer, PromptEncoder
from omni_grpo.data.dataset import preflight, to_dataset, with_files, with_sft_targets
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import DataError, pictures_folder
from omni_grpo.model.loading import load_model, load_processor
from omni_rewards import answer_reward
from small_runs import SMALL_RUN, length_reward

ASK = "What is shown?"


@pytest.fixture(scope="module")
def encoder(tiny, settings):
    return PromptEncoder(load_processor(tiny), settings)


def bytes_of(clips: Path, k: int) -> bytes:
    return (clips / f"image{k}.png").read_bytes()


def embedded(clips: Path, k: int) -> dict:
    return {"bytes": bytes_of(clips, k), "path": None}


# form -> the row for pictures 0 and 1, given one embedded or as a path by `p`; and the types of its user's parts in order
FORMS = {
    "plain prompt, image": (lambda p: {"prompt": ASK, "image": p(0)}, ["image", "text"], [0]),
    "plain prompt, images": (lambda p: {"prompt": ASK, "images": [p(0), p(1)]}, ["image", "image", "text"], [0, 1]),
    "turns, image": (lambda p: {"prompt": [{"role": "user", "content": ASK}], "image": p(1)}, ["image", "text"], [1]),
    "a system turn of its own": (
        lambda p: {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK}],
            "images": [p(0)],
        },
        ["image", "text"],
        [0],
    ),
    "marks": (
        lambda p: {
            "prompt": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "First"},
                        {"type": "image"},
                        {"type": "text", "text": "then"},
                        {"type": "image"},
                    ],
                }
            ],
            "images": [p(1), p(0)],
        },
        ["text", "image", "text", "image"],
        [1, 0],
    ),
    "files in parts": (
        lambda p: {
            "prompt": [{"role": "user", "content": [{"type": "image", "image": p(1)}, {"type": "text", "text": ASK}]}]
        },
        ["image", "text"],
        [1],
    ),
    "no pictures": (lambda p: {"prompt": [{"role": "user", "content": ASK}], "images": []}, ["text"], []),
}


@pytest.mark.parametrize("how", ["path", "embedded"])
@pytest.mark.parametrize("form", FORMS)
def test_pictures_stand_where_trl_puts_them_and_are_counted_as_ours(encoder, clips, tmp_path, form, how):
    """
    From a file and in Python alike, each picture's encoding equals that of our own row with the same file. Mutants:
    pictures behind the text, all at the first mark, in the order of their hashes.
    """
    make, types, pictures = FORMS[form]
    row = make((lambda k: embedded(clips, k)) if how == "embedded" else lambda k: str(clips / f"image{k}.png"))
    row |= {"solution": "noise"}
    if how == "path":
        file = clips / f"{form}.jsonl"
        file.write_text(json.dumps(row) + "\n")
    else:
        file = tmp_path / "rows.parquet"
        Dataset.from_list([row]).to_parquet(file)
    from_file = to_dataset(load_examples(file), "short")
    in_python = with_files(Dataset.from_list([row]))
    for dataset in (from_file, in_python):
        [user] = [turn["content"] for turn in dataset[0]["prompt"] if turn["role"] == "user"]
        assert [part["type"] for part in user] == types
        assert [Path(p["path"]).read_bytes() for p in user if p["path"]] == [bytes_of(clips, k) for k in pictures]
        ours = [{"type": "image", "path": str(clips / f"image{k}.png")} for k in pictures]
        (clips / "ours.jsonl").write_text(
            json.dumps({"id": "o", "problem": ASK, "problem_type": "label", "solution": "x", "media": ours})
        )
        [own] = load_examples(clips / "ours.jsonl", media_root="/")
        mine, theirs = encoder(build_messages(own, "short")), encoder(dataset[0]["prompt"], "trl")
        assert mine.counts == theirs.counts
        assert all((mine.media[name] == theirs.media[name]).all() for name in mine.media)
    assert in_python[0]["prompt"] == from_file[0]["prompt"]
    has_own = row["prompt"][0]["role"] == "system" if isinstance(row["prompt"], list) else False
    styled = build_messages(load_examples(file)[0], "context_think_answer")
    assert styled[0]["role"] == "system" and (styled[0]["content"][0]["text"] == "Be brief.") == has_own
    assert styled[-1] == from_file[0]["prompt"][-1]


def test_an_embedded_picture_is_one_file_by_its_content(clips, tmp_path):
    """Written once, by every form; mutants: a name by row, by the path in its struct, or one that the run decides."""
    jpeg = io.BytesIO()
    Picture.open(clips / "image0.png").save(jpeg, "JPEG")
    content = jpeg.getvalue()
    forms = [content, {"bytes": content, "path": "other.png"}, {"bytes": content, "path": None}]
    paths = set()
    for picture in forms:
        Dataset.from_list([{"prompt": ASK, "image": picture}]).to_parquet(tmp_path / "rows.parquet")
        [example] = load_examples(tmp_path / "rows.parquet")
        paths.add(example.media[0].path)
    [path] = paths
    assert Path(path).read_bytes() == content and Path(path).parent == pictures_folder() and path.endswith(".jpeg")
    before = Path(path).stat()
    load_examples(tmp_path / "rows.parquet")
    assert Path(path).stat().st_mtime_ns == before.st_mtime_ns
    Path(path).unlink()
    load_examples(tmp_path / "rows.parquet")
    assert Path(path).read_bytes() == content


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "P", "CMYK", "I;16", "LAB"])
def test_a_picture_in_memory_keeps_its_pixels(mode):
    """A stream hands out pictures; mutants: JPEG, or PNG for the modes that it does not have."""
    picture = Picture.linear_gradient("L").convert("RGB").resize((32, 16))
    picture = Picture.new(mode, (32, 16), 700) if mode in ("I;16", "LAB") else picture.convert(mode)
    stream = IterableDataset.from_generator(lambda: iter([{"prompt": ASK, "image": picture}]))
    [row] = with_files(stream)
    kept = Picture.open(row["prompt"][0]["content"][0]["path"])
    assert list(kept.convert(mode).getdata()) == list(picture.getdata())


TURN = [{"role": "user", "content": ASK}]
MARKED = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASK}]}]
# row -> what the message says of it
REFUSED = {
    "a picture beside a part that has its own": (
        {"prompt": [{"role": "user", "content": [{"type": "image", "image": "image0.png"}]}], "image": "image1.png"},
        r"prompt and image: .*Number of images provided \(1\) does not match number of image placeholders \(0\)",
    ),
    "fewer marks": ({"prompt": MARKED, "images": ["image0.png"] * 2}, r"provided \(2\) .* placeholders \(1\)"),
    "more marks": ({"prompt": MARKED}, r"provided \(0\) .* placeholders \(1\).*write the prompt as a text"),
    "both columns": (
        {"prompt": ASK, "image": "image0.png", "images": ["image0.png"]},
        r"image and images: name all media in one",
    ),
    "media, too": (
        {"prompt": ASK, "image": "image0.png", "media": [{"type": "image", "path": "image0.png"}]},
        r"name all media in one: in `media` beside a `problem`",
    ),
    "media beside turns": (
        {"prompt": TURN, "media": [{"type": "image", "path": "image0.png"}]},
        r"name all media in one: in `media` beside a `problem`",
    ),
    "a picture that is none": ({"prompt": ASK, "image": {"bytes": b"no picture"}}, r"image: .*cannot identify image"),
    "a number": ({"prompt": ASK, "image": 7}, r"expected a path, or a picture as `datasets.Image` holds it, got 7"),
    "no such file": ({"prompt": ASK, "image": "gone.png"}, r"media\[0\]\.path: no file at .*gone\.png"),
    "out of the root": ({"prompt": ASK, "image": "../../etc/hostname"}, r"media\[0\]\.path: .*(leaves|no file)"),
    "an unknown role": ({"prompt": [{"role": "human", "content": ASK}]}, r"Invalid role in message: human"),
    "OpenAI's parts": (
        {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}]},
        r"not a form of TRL's .*'url': 'a.png'.*give the file of any other medium as the `path` of its part",
    ),
    "a sound without a file": ({"prompt": [{"role": "user", "content": [{"type": "audio"}]}]}, r"'audio'.*the `path`"),
    "turns without content": ({"prompt": [{"role": "user"}]}, r"not a form of TRL's \('content'\)"),
    "a prompt that is a number": ({"prompt": 7}, r"not a form of TRL's"),
    "no turns": ({"messages": [], "image": "image0.png"}, r"not a form of TRL's"),
    "a completion with a picture": (
        {"prompt": ASK, "completion": [{"role": "assistant", "content": [{"type": "image", "path": "image0.png"}]}]},
        r"prompt and completion: .*a completion is text alone",
    ),
    "an audio column": ({"prompt": ASK, "audio": "sound0.wav"}, r"audio: only pictures are read from a column"),
    "a broken solution": (
        {"prompt": ASK, "problem_type": "yes_no", "solution": "maybe"},
        r"solution: .*neither yes nor no",
    ),
    "an unknown type": ({"prompt": ASK, "problem_type": "yesno"}, r"problem_type: 'yesno' is unknown"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_supported_is_refused_at_start_by_row(clips, name):
    row, message = REFUSED[name]
    rows = [{"prompt": ASK, "label": "good"}, row]
    if "bytes" in str(row):
        with pytest.raises(DataError) as error:
            with_files(Dataset.from_list([{"prompt": ASK, "image": None}, row]))
        assert "row:1" in str(error.value)
    else:
        (clips / "refused.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        with pytest.raises(DataError) as error:
            load_examples(clips / "refused.jsonl")
        assert "refused.jsonl:2 (" in str(error.value)
    head, *lines = str(error.value).splitlines()
    assert head == "1 problem(s) in the data:" and re.search(message, lines[0]), lines


class Seen:
    """A reward that reads columns of the user's own, and keeps what it was given."""

    __name__ = "seen"

    def __init__(self):
        self.rows = []

    def __call__(self, prompts, completions, label, image=None, images=None, **kwargs):
        given = images if images is not None else [[picture] for picture in image]
        self.rows += [(label[i], [p.size for p in given[i]], prompts[i]) for i in range(len(prompts))]
        return length_reward(completions)


def stock(clips: Path, form: str) -> Dataset:
    """A stock TRL vision data set of four rows, its pictures embedded as `datasets` embeds them."""
    rows = [{"prompt": [{"role": "user", "content": f"{ASK} {k}"}], "label": k} for k in range(4)]
    if form == "images":
        rows = [row | {"images": [{"path": str(clips / f"image{k}.png")}] * 2} for k, row in enumerate(rows)]
        return Dataset.from_list(rows).cast_column("images", ListOf(Image()))
    if form == "text":
        rows = [row | {"prompt": row["prompt"][0]["content"]} for row in rows]
    rows = [row | {"image": embedded(clips, k)} for k, row in enumerate(rows)]
    return Dataset.from_list(rows).cast_column("image", Image())


def trainer(tiny, encoder, folder, dataset, reward, **more):
    fields = {
        **SMALL_RUN,
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": 2,
        "max_completion_length": 6,
        "max_steps": 1,
        "beta": 0.1,
        "learning_rate": 0.0,
    }
    return OmniGRPOTrainer(
        load_model(tiny), reward, OmniGRPOConfig(**fields | more), dataset, encoder=encoder, eval_dataset=dataset
    )


@pytest.mark.parametrize("form", ["image", "images", "text", "stream"])
def test_a_stock_data_set_trains_and_every_pass_sees_its_pictures(tiny, encoder, clips, tmp_path, form):
    """
    KL is exactly 0 at learning rate 0, so scoring saw what sampling saw; rewards read the columns as stock TRL gives
    them. Mutants: TRL placing the pictures a second time; columns of pictures taken from the rewards, too.
    """
    dataset = stock(clips, "image" if form == "stream" else form)
    seen = Seen()
    run = trainer(tiny, encoder, tmp_path, dataset.to_iterable_dataset() if form == "stream" else dataset, seen)
    run.train()
    assert [log["kl"] for log in run.state.log_history if "kl" in log] == [0.0]
    assert sorted(label for label, _, _ in seen.rows) == [0, 0, 1, 1, 2, 2, 3, 3]
    for label, sizes, prompt in seen.rows:
        pictures = [p["path"] for p in prompt[0]["content"] if p["type"] == "image"]
        assert sizes == [(64, 64)] * len(pictures) == [(64, 64)] * (2 if form == "images" else 1)
        assert {Path(p).read_bytes() for p in pictures} == {bytes_of(clips, label)}
    wanted = sum(encoder(prompt).counts["image"] for _, _, prompt in seen.rows)
    assert run.media_embedder.placed["image"] >= wanted > 0
    assert "eval_reward" in run.evaluate()


def test_prompts_that_are_texts_alone_stay_trls(tiny, encoder, tmp_path):
    """No chat template around them, as in TRL; mutant: a `TypeError` where modalities are looked for."""
    seen = []

    def reward(prompts, completions, **kwargs):
        seen.extend(prompts)
        return [float(len(c)) for c in completions]

    dataset = Dataset.from_dict({"prompt": [f"{ASK} {k}" for k in range(4)]})
    assert with_files(dataset) is dataset
    trainer(tiny, encoder, tmp_path, dataset, reward).train()
    assert set(seen) == set(dataset["prompt"])


def test_a_file_of_trls_form_trains_with_columns_of_the_users_own(tiny, encoder, clips, tmp_path):
    """Through `load_examples` and `to_dataset`, as the scripts do; `answer_reward` beside it where the type is known."""
    table = stock(clips, "image").add_column("solution", ["noise"] * 4).add_column("problem_type", ["label"] * 4)
    table.to_parquet(tmp_path / "rows.parquet")
    rows = to_dataset(load_examples(tmp_path / "rows.parquet"), "short")
    preflight(rows, encoder)
    seen = Seen()
    trainer(tiny, encoder, tmp_path, rows, [seen, answer_reward]).train()
    assert {(label, *sizes) for label, sizes, _ in seen.rows} == {(k, (64, 64)) for k in range(4)}
    assert len(set(rows["id"])) == 4 and str(tmp_path / "rows.parquet") in rows["id"][0]


@pytest.mark.parametrize("form", ["messages", "prompt and completion", "texts"])
def test_sft_imitates_trls_forms(tiny, encoder, clips, tmp_path, form):
    """Mutants: the last turn left in the prompt; a target without its row's pictures."""
    answer, turn = "<answer>noise</answer>", {"role": "user", "content": ASK}
    said = {"role": "assistant", "content": answer}
    row = {
        "messages": {"messages": [turn, said]},
        "prompt and completion": {"prompt": [turn], "completion": [said]},
        "texts": {"prompt": ASK, "completion": answer},
    }[form]
    rows = Dataset.from_list([row | {"image": embedded(clips, k)} for k in range(4)]).cast_column("image", Image())
    made = with_files(rows, targets=True)
    assert made["target"][:] == [answer] * 4
    assert all([t["role"] for t in prompt] == ["user"] and len(prompt[0]["content"]) == 2 for prompt in made["prompt"])
    rows.to_parquet(tmp_path / "rows.parquet")
    from_file = with_sft_targets(to_dataset(load_examples(tmp_path / "rows.parquet"), "short"), "target")
    assert from_file["prompt"][:] == made["prompt"][:] and from_file["target"][:] == made["target"][:]
    args = OmniSFTConfig(**SMALL_RUN, output_dir=str(tmp_path), per_device_train_batch_size=4, max_steps=1)
    run = OmniSFTTrainer(load_model(tiny), args, rows, encoder=encoder)
    run.train()
    assert run.media_embedder.placed["image"] == 4 * encoder(made[0]["prompt"]).counts["image"]


def test_films_and_sounds_stand_in_parts(encoder, clips):
    parts = [
        {"type": "video", "path": "clip0.mp4", "use_audio": True},
        {"type": "audio", "audio": "sound1.wav"},
        {"type": "text", "text": ASK},
    ]
    (clips / "films.jsonl").write_text(json.dumps({"prompt": [{"role": "user", "content": parts}]}))
    dataset = to_dataset(load_examples(clips / "films.jsonl"), "short")
    assert [p["type"] for p in dataset[0]["prompt"][0]["content"]] == ["video", "audio", "audio", "text"]
    counts = encoder(dataset[0]["prompt"]).counts
    assert counts["video"] and counts["audio"] and not counts["image"]


def test_a_damaged_picture_is_refused_by_row_before_training(encoder, clips, tmp_path):
    jpeg = io.BytesIO()
    Picture.open(clips / "image0.png").save(jpeg, "JPEG")
    cut = {"bytes": jpeg.getvalue()[:1500], "path": None}
    Dataset.from_list([{"prompt": ASK, "image": cut}]).to_parquet(tmp_path / "rows.parquet")
    rows = to_dataset(load_examples(tmp_path / "rows.parquet"), "short")
    with pytest.raises(DataError, match=r"row '.*rows\.parquet:0': .*damaged image"):
        preflight(rows, encoder)
