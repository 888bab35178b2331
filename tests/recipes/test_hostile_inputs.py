# SPDX-License-Identifier: Apache-2.0
"""What users really give a script: configs, rows and media with the mistakes of editors, exports and hands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import eval_omni
import grpo_omni
import sft_omni
from hostile_media import sound as encoded_sound
from media_files import grey_frames, write_image, write_sound, write_video
from omni_grpo.run.console import is_message
from script_runs import SFT_FIELDS
from small_runs import SCRIPT_RUN

ROW = {
    "id": "a",
    "problem": "What?",
    "problem_type": "free-form",
    "solution": "x",
    "target": "<context>a</context><think>b</think><answer>x</answer>",
}
LINE = json.dumps(ROW)


def start(main: Callable, folder: Path, model: Path, config: Callable[[str], bytes] = str.encode, **fields) -> None:
    """An entry script on one step of the rows in `folder`."""
    where = {
        "model_name_or_path": str(model),
        "output_dir": str(folder / "out"),
        "train_file": str(folder / "rows.jsonl"),
    }
    own = {"save_strategy": "no", "decode_cache_mb": 0, "learning_rate": 1.0e-3}
    given = {**SCRIPT_RUN, **SFT_FIELDS, "max_steps": 1, "per_device_train_batch_size": 1, **own, **where, **fields}
    if main is grpo_omni.main:
        given.pop("sft_target")
    (folder / "run.yaml").write_bytes(config(yaml.safe_dump(given)))
    main(["--config", str(folder / "run.yaml")])


def refusal(main: Callable, folder: Path, model: Path, *config, **fields) -> str:
    """What the script says; a message to the user, with nothing begun."""
    with pytest.raises(Exception) as caught:
        start(main, folder, model, *config, **fields)
    assert is_message(caught.value) or isinstance(caught.value, yaml.YAMLError), repr(caught.value)
    assert not (folder / "out/log.jsonl").exists()
    return str(caught.value)


CONFIGS: dict[str, tuple[Callable[[str], bytes], str]] = {
    "a tab": (lambda s: (s + "\tseed: 1\n").encode(), r"found character '\\t'.*run\.yaml\", line \d+"),
    "a tab below a key": (lambda s: (s + "env:\n\ta: b\n").encode(), r"found character '\\t'.*run\.yaml\", line \d+"),
    "utf-16": (lambda s: s.encode("utf-16"), r"--config: .*run\.yaml is not in UTF-8 .*; save it so"),
    "latin-1": (lambda s: s.encode() + b"# f\xfcr\n", r"--config: .*run\.yaml is not in UTF-8"),
    "a field twice": (lambda s: s.encode() + b"max_steps: 9\n", r"max_steps is written twice; take one out.*run\.yaml"),
    "a setting twice": (
        lambda s: s.encode() + b"env: {A: 1, A: 2}\n",
        r"A is written twice; take one out.*run\.yaml\", line \d+",
    ),
    "two documents": (lambda s: (s + "---\nseed: 1\n").encode(), r"expected a single document.*run\.yaml"),
    "a number as a field": (lambda s: s.encode() + b"1: 5\n", "^1: no such config key"),
    "a truth value as a field": (lambda s: s.encode() + b"on: 5\n", "^True: no such config key"),
    "nothing": (lambda s: b"", "output_dir: not given; name a folder"),
    "comments": (lambda s: b"# seed: 1\n", "output_dir: not given; name a folder"),
    "a near key": (lambda s: s.encode() + b"learning_rte: 1\n", "learning_rte: no such config key; did you mean 'learning_rate'"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "message"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_is_refused_with_its_file_or_field(tmp_path, tiny, config, message):
    """Mutants: YAML's last value taken for both; a key that is no text sorted among texts; a bare decoding error."""
    assert re.search(message, refusal(sft_omni.main, tmp_path, tiny, config), re.DOTALL)


FIELDS = {
    "a list of files": ({"train_file": ["a.jsonl", "b.jsonl"]}, "train_file: must be one text, got .*; put it in quotes, commas"),
    "a number as a file": ({"train_file": 5}, "train_file: must be one text, got 5"),
    "a list as a folder": ({"output_dir": ["x"]}, r"output_dir: must be one text, got \['x'\]"),
    "a number as a model": ({"model_name_or_path": 5}, "model_name_or_path: must be one text, got 5"),
    "no model": ({"model_name_or_path": None}, "model_name_or_path: not given; name a checkpoint's folder, or"),
    "no rows": ({"train_file": None}, "train_file: not given; name a JSONL file"),
    "a file as a folder": ({"output_dir": __file__}, r"output_dir: .*test_hostile_inputs\.py is a file; name a folder"),
    "a model that is not there": ({"model_name_or_path": "./no such/dir"}, r"\./no such/dir is no folder with a checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), FIELDS.values(), ids=FIELDS)
def test_a_value_of_another_kind_names_its_field(tmp_path, tiny, fields, message):
    """Mutant: the stage's folder and inputs looked up by what is no path."""
    (tmp_path / "rows.jsonl").write_text(LINE)
    assert re.search(message, refusal(sft_omni.main, tmp_path, tiny, **fields))


@pytest.mark.parametrize("models", [5, {"a": "b"}, [5], [None]])
def test_models_of_another_kind_are_refused_by_name(tmp_path, models):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"models": models, "output_dir": "o", "test_file": "t.jsonl"}))
    with pytest.raises(ValueError, match=r"^models: ") as caught:
        eval_omni.main(["--config", str(tmp_path / "run.yaml")])
    assert is_message(caught.value)


REWARDS = {
    "mistyped": (["omni_rewards.anser_reward"], "cannot import 'omni_rewards.anser_reward'.*did you mean 'answer_reward'"),
    "no module": (["answer_reward"], "reward_funcs: cannot import 'answer_reward'"),
    "two in one": ("omni_rewards.answer_reward, omni_rewards.section_format_reward", "reward_funcs: cannot import"),
    "a number": ([1], "reward_funcs: cannot import '1'"),
    "a map": ({"omni_rewards.answer_reward": 1}, "reward_funcs: must be list"),
}  # fmt: skip


@pytest.mark.parametrize(("rewards", "message"), REWARDS.values(), ids=REWARDS)
def test_rewards_that_are_none_are_refused_by_name(tmp_path, tiny, rewards, message):
    (tmp_path / "rows.jsonl").write_text(LINE)
    assert re.search(message, refusal(grpo_omni.main, tmp_path, tiny, reward_funcs=rewards))


def row(**fields) -> str:
    return json.dumps(ROW | fields)


ROWS = {
    "a comma behind": (f"{LINE},\n", ":1: not JSON .*; write one object a line"),
    "a comma within": (f"{LINE[:-1]},}}\n", ":1: not JSON"),
    "python's quotes": (f"{ROW!r}\n", ":1: not JSON"),
    "an id twice": (f"{LINE}\n\n{LINE}\n", r":3 \(id 'a'\): id: already used at .*rows\.jsonl:1; ids are unique"),
    "a field twice": (f'{LINE[:-1]}, "solution": "y"}}\n', ":1: not JSON .'solution' is written twice"),
    "half of a character": (row(problem="so \ud83d"), ":1: not JSON .*surrogates not allowed"),
    "half of a character, in a list": (f"[{row(problem=chr(0xDC00))}]", "rows.jsonl: not a JSON array .*surrogates"),
    "a list for a text": (row(problem=["What?"]), r":1 \(id 'a'\): problem: expected a non-empty string, got \['What\?'\]"),
    "a number as id": (row(id=1), r":1 \(id 1\): id: expected a non-empty string"),
    "a path for media": (row(media="a.mp4"), r"\(id 'a'\): media: expected a list of objects"),
    "options in a text": (row(options="a, b"), r"\(id 'a'\): options: expected a list of non-empty strings"),
    "brackets without end": ("[" * 100_000, r"rows\.jsonl: not a JSON array \(nested too deeply\)"),
    "objects without end": (LINE[:-1] + ', "meta": ' + '{"a":' * 100_000 + "1" + "}" * 100_001, ":1: not JSON .nested too"),
    "a pretty object": (json.dumps({"data": [ROW]}, indent=1), ":1: not JSON .*; write one object a line"),
    "nothing": ("", r"rows\.jsonl: no rows, the file or split is empty"),
    "lines of blanks": ("\n  \n\r\n", r"rows\.jsonl: no rows, the file or split is empty"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), ROWS.values(), ids=ROWS)
def test_a_row_is_refused_with_file_line_and_field(tmp_path, tiny, content, message):
    """Mutants: the last of two values taken; half a character handed on to Arrow, which names no row."""
    (tmp_path / "rows.jsonl").write_bytes(content.encode("utf-8"))
    found = refusal(sft_omni.main, tmp_path, tiny)
    assert re.search(message, found, re.DOTALL) and str(tmp_path / "rows.jsonl") in found


def test_a_column_that_a_csv_has_twice_is_refused(tmp_path, tiny):
    (tmp_path / "rows.csv").write_text("id,solution,problem,problem_type,solution,target\na,x,W?,free-form,y,z\n")
    found = refusal(sft_omni.main, tmp_path, tiny, train_file=str(tmp_path / "rows.csv"))
    assert re.search(r"rows\.csv: not CSV in UTF-8 \('solution' is written twice\)", found)


def picture(path: Path, **options) -> None:
    Image.new("RGB", (64, 64), 5).save(path, **options)


def mute(path: Path) -> None:
    write_video(path, grey_frames(8))


# A file's name, its type, how it is written, what is said of it.
REFUSED = {
    "a folder": ("clip.mp4", "video", Path.mkdir, r"media\[0\]\.path: no file at .*; fix the path"),
    "a picture of no bytes": ("a.png", "image", Path.touch, "the file is empty .0 bytes.; get the file again, or drop"),
    "a clip of no bytes": ("a.mp4", "video", Path.touch, "the file is empty"),
    "a sound of no bytes": ("a.wav", "audio", Path.touch, "the file is empty"),
    "no samples": ("a.wav", "audio", lambda p: write_sound(p, np.zeros(0, np.float32)), "holds nothing to present; get"),
    "one sample": ("a.wav", "audio", lambda p: write_sound(p, np.zeros(1, np.float32), 16_000), "too short for this model to hear; take"),
    "sound alone": ("a.mp4", "video", encoded_sound("aac"), 'has no video stream; give it as {"type": "audio"}'),
    "a clip as a picture": ("a.mp4", "image", mute, "is not an image"),
    "a picture as a clip": ("a.png", "video", picture, 'is a still image; give it as {"type": "image"}'),
    "a mute clip as a sound": ("a.mp4", "audio", mute, "has no sound track; give a file that has one, or drop the row"),
    "a page of an error": ("a.mp4", "video", lambda p: p.write_text("<html>404</html>"), "is not a video or sound file"),
    "a pointer of Git's": ("a.mp4", "video", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "is not a video"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "write", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_is_refused_with_its_row_and_name(tmp_path, tiny, name, kind, write, message):
    """Mutant: `use_audio` named as the remedy for an item that may have none."""
    write(tmp_path / name)
    (tmp_path / "rows.jsonl").write_text(row(media=[{"type": kind, "path": name}]))
    found = refusal(sft_omni.main, tmp_path, tiny)
    assert re.search(message, found) and re.search(r"row 'a'|\(id 'a'\)", found)
    assert name in found or "too short" in found


def test_what_only_looks_odd_works(tmp_path, tiny):
    """
    A mark, Windows' line ends and empty lines; blanks and other scripts in every name; a picture with the ending of
    another kind; GIFs of one frame; a film's sound alone. Mutant: names taken for patterns, addresses or ASCII.
    """
    folder = tmp_path / "mit Leer é 名 [x] #1"
    folder.mkdir()
    write_image(folder / "bild ü 图 #1?.png", np.zeros((64, 64, 3), np.uint8))
    write_video(folder / "film é%20.mp4", grey_frames(8))
    picture(folder / "png.jpg", format="PNG")
    picture(folder / "still.gif")
    encoded_sound("aac")(folder / "ton.mp4")
    media = [("image", "bild ü 图 #1?.png"), ("video", "film é%20.mp4"), ("image", "png.jpg")]
    media += [("image", "still.gif"), ("video", "still.gif"), ("audio", "ton.mp4")]
    rows = [ROW | {"id": f"{i}", "media": [{"type": kind, "path": name}]} for i, (kind, name) in enumerate(media)]
    lines = "\r\n\r\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\r\n \r\n"
    (folder / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    marked = lambda s: b"\xef\xbb\xbf" + s.replace("\n", "\r\n").encode()  # noqa: E731
    start(sft_omni.main, folder, tiny, marked, max_steps=6, max_audio_seconds=None)
    assert json.loads((folder / "out/stage.json").read_text())["steps"] == 6
