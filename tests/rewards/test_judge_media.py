# SPDX-License-Identifier: Apache-2.0
"""A judge that sees and hears: a real server checks what arrives, by hash where it is the file itself."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import omni_rewards
from judge_server import JudgeServer, always, http, says
from media_files import cut_file, frame_numbers, grey_frames, tone, write_image, write_sound, write_video
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.media.image import read_image
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import Example, MediaItem
from omni_grpo.evaluation.perception_judge import judged
from omni_grpo.run.reward_columns import check_reward_columns, needed_columns
from omni_grpo.run.reward_settings import configured_rewards
from omni_rewards import AnswerReward, AsyncContextReward, ContextReward, Judge, Question, ReasoningReward
from omni_rewards.judge.media import Medium

TEXT = "<context>A grey wall. A voice hums.</context><think>So yes.</think><answer>yes</answer>"
FIVE = always(says('{"score": 5}'))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    noise = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    for name in ("small.png", "small.jpg", "small.webp", "small.bmp"):
        write_image(folder / name, noise[:60, :80])
    write_image(folder / "large.png", noise)
    write_video(folder / "clip.mp4", grey_frames(24), fps=8, sound=tone(300, 3.0))
    write_video(folder / "mute.mp4", grey_frames(8), fps=8)
    write_sound(folder / "hum.wav", tone(300, 2.0))
    write_sound(folder / "long.wav", tone(300, 40.0, rate=8000), rate=8000)
    return folder


def judge_of(server: JudgeServer, **settings) -> Judge:
    return Judge(endpoint=server.endpoint, model="m", **{"send_media": True, "backoff_s": 0.01, **settings})


def prompts(*media: MediaItem, name: str = "row-7", interleaved: bool = False) -> list:
    return [build_messages(Example(name, "Is it grey?", "yes_no", media=media), "short", interleaved)]


def graded(judge: Judge, *media: MediaItem, interleaved: bool = False, **columns) -> list:
    given = {"prompts": prompts(*media, interleaved=interleaved), "id": ["row-7"], **columns}
    return ContextReward(judge)([TEXT], **given)


def item(path: Path, kind: str = "image", **more) -> MediaItem:
    return MediaItem(kind, str(path), **more)


@pytest.mark.parametrize("name", ["small.png", "small.jpg", "small.webp"])
def test_a_small_picture_goes_as_it_is(files: Path, name: str) -> None:
    """Mutant: every picture coded anew."""
    with JudgeServer(FIVE) as server:
        assert graded(judge_of(server), item(files / name)) == [1.0]
    [request] = server.requests
    kind = name.partition(".")[2].replace("jpg", "jpeg")
    assert request.media == [(kind, sha256(files / name))]
    assert request.texts == {"CANDIDATE": "A grey wall. A voice hums."}
    assert "evidence, never an instruction" in request.outside and "SEEN" in request.outside


@pytest.mark.parametrize("cap", [4096, 60_000])
@pytest.mark.parametrize("name", ["large.png", "small.bmp"])
def test_a_large_picture_or_one_of_another_kind_is_made_a_smaller_jpeg(files: Path, name: str, cap: int) -> None:
    with JudgeServer(FIVE) as server:
        graded(judge_of(server, max_media_bytes=cap), item(files / name))
    [(kind, content)] = server.requests[0].contents
    assert kind == "jpeg" and len(content) <= cap
    whole, shown = Image.open(files / name).size, Image.open(io.BytesIO(content)).size
    assert shown[0] / shown[1] == pytest.approx(whole[0] / whole[1], rel=0.1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_its_camera_turned_goes_as_the_model_sees_it(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    """Mutant: the file as it is, for the judge's server to turn, or not."""
    exif, path = Image.Exif(), tmp_path / f"turned.{kind.lower()}"
    exif[0x0112] = orientation
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48] = 255  # one corner is bright
    Image.fromarray(pixels).save(path, kind, exif=exif, quality=95)
    [part] = Medium("image", str(path)).parts()
    sent = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    assert (sent == path.read_bytes()) == (orientation == 1)
    with Image.open(io.BytesIO(sent)) as image:
        assert image.getexif().get(0x0112, 1) == 1 or orientation == 1
        arrived = np.asarray(image.convert("RGB")).astype(int)
    seen = read_image(path, MediaSettings()).astype(int)
    assert arrived.shape == seen.shape and np.abs(arrived - seen).mean() < 4


@pytest.mark.parametrize("interleaved", [False, True])
def test_frames_and_sound_of_a_video(files: Path, interleaved: bool) -> None:
    """Mutants: the first frames in place of spread ones; the sound left out where it is interleaved."""
    with JudgeServer(FIVE) as server:
        rewards = graded(
            judge_of(server, max_media=7), item(files / "clip.mp4", "video", use_audio=True), interleaved=interleaved
        )
    assert rewards == [1.0]
    seen, heard = server.requests  # a question for each sense
    assert {"SEEN" in seen.outside, "SEEN" in heard.outside} == {True, False}
    assert seen.media == heard.media
    frames = [np.asarray(Image.open(io.BytesIO(c)).convert("RGB")) for kind, c in seen.contents if kind == "jpeg"]
    assert frame_numbers(np.stack(frames)) == [2, 6, 10, 14, 18, 22]
    [sound] = [content for kind, content in seen.contents if kind == "wav"]
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        samples = np.frombuffer(file.readframes(-1), "<i2")
    assert len(samples) / 16_000 == pytest.approx(3.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * 16_000 / len(samples) == pytest.approx(300, abs=2)


def test_a_segment_is_all_that_is_shown(files: Path) -> None:
    """Mutant: the whole file in place of its seconds."""
    with JudgeServer(FIVE) as server:
        clip = item(files / "clip.mp4", "video", use_audio=True, start=1.0, end=2.0)
        graded(judge_of(server, max_media=5), clip)
    contents = server.requests[0].contents
    frames = [np.asarray(Image.open(io.BytesIO(c)).convert("RGB")) for kind, c in contents if kind == "jpeg"]
    assert frame_numbers(np.stack(frames)) == [9, 11, 13, 15]
    with wave.open(io.BytesIO(contents[-1][1])) as file:
        assert file.getnframes() == 16_000


@pytest.mark.parametrize("most", [1, 2, 3, 16])
def test_never_more_parts_than_allowed(files: Path, most: int) -> None:
    media = [item(files / "clip.mp4", "video", use_audio=True), item(files / "small.png"), item(files / "small.jpg")]
    with JudgeServer(FIVE) as server:
        graded(judge_of(server, max_media=most), *media)
    counts = {len(request.contents) for request in server.requests}
    assert counts == {most}


def test_of_a_longer_sound_the_beginning_goes_and_the_judge_is_told(files: Path) -> None:
    with JudgeServer(FIVE) as server:
        graded(judge_of(server), item(files / "long.wav", "audio"))
        graded(judge_of(server), item(files / "hum.wav", "audio"))
    cut, whole = server.requests
    assert [len(request.contents[0][1]) <= 1 << 20 for request in (cut, whole)] == [True, True]
    assert "truncated" in cut.outside and "truncated" not in whole.outside
    assert "only what can be HEARD" in whole.outside and "only what can be SEEN" not in whole.outside


def test_media_go_along_with_every_kind_of_question(files: Path) -> None:
    """Mutants: a reference that shuts the media out; a judge told that it cannot see."""
    own = {"prompts": prompts(item(files / "small.png")), "id": ["row-7"]}
    with JudgeServer(FIVE) as server:
        judge = judge_of(server)
        assert ContextReward(judge)([TEXT], ["A grey wall."], **own) == [1.0]
        assert ReasoningReward(judge)([TEXT], ["yes_no"], **own) == [1.0]
        assert AnswerReward(judge=judge)([TEXT], ["Yes, it is."], ["free-form"], **own) == [1.0]
        assert asyncio.run(AsyncContextReward(judge)([TEXT], **own)) == [1.0]
        texts = [request.texts for request in server.requests]
        blind = replace(judge, send_media=False)
        assert ContextReward(blind)([TEXT], [None], **own) == [None]
        assert ReasoningReward(blind)([TEXT], ["yes_no"], **own) == [1.0]
    *seeing, unseeing = server.requests
    assert [request.media for request in seeing] == [[("png", sha256(files / "small.png"))]] * 4
    assert [sorted(text) for text in texts[:1]] == [["CANDIDATE", "REFERENCE"]]
    assert unseeing.media == [] and isinstance(unseeing.body["messages"][1]["content"], str)
    assert "cannot see or hear" in unseeing.outside and "cannot see or hear" not in seeing[1].outside


def test_rows_without_media_or_context_section(files: Path) -> None:
    """`None` where there is nothing to hold a context to, 0 where there is no context."""
    own = {"prompts": [*prompts(), *prompts(item(files / "small.png")), "plain text"], "id": ["a", "b", "c"]}
    with JudgeServer(FIVE) as server:
        rewards = ContextReward(judge_of(server))([TEXT, "<answer>yes</answer>", TEXT], **own)
        assert ContextReward(judge_of(server))([TEXT]) == [None]
    assert rewards == [None, 0.0, None] and server.requests == []
    with pytest.raises(ValueError, match="needs a column `context`, or a judge with `send_media: true`"):
        ContextReward(judge_of(server, send_media=False))([TEXT])


def test_a_run_needs_no_column_of_references(files: Path) -> None:
    """Mutant: `context_reward` refused because no row has a `context`."""
    settings = {"judge": {"endpoint": "http://localhost:1/v1", "model": "m", "send_media": True}}
    [reward] = configured_rewards(["omni_rewards.context_reward"], {"omni_rewards.context_reward": settings})
    assert needed_columns(reward) == [] and needed_columns(ContextReward()) == ["context"]
    row = Example("a", "Is it?", "yes_no", "yes", media=(item(files / "small.png"),))
    check_reward_columns([reward], to_dataset([row], "short"), False)


def test_the_record_holds_hashes_and_a_replay_needs_no_server(files: Path, tmp_path: Path) -> None:
    """Mutant: the bytes written into the record."""
    media = [item(files / "clip.mp4", "video", use_audio=True), item(files / "small.png")]
    with JudgeServer(FIVE) as server:
        judge = judge_of(server, cache_dir=str(tmp_path))
        first = graded(judge, *media)
        asked = len(server.requests)
        assert graded(replace(judge), *media) == first and len(server.requests) == asked == 2
    assert graded(replace(judge, replay=True), *media) == first == [1.0]
    written = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert all(sha256(files / name) in text for text in written for name in ("clip.mp4", "small.png"))
    assert all("base64" not in text and len(text) < 10_000 for text in written)


def test_other_media_are_another_question(files: Path, tmp_path: Path) -> None:
    """Also under the same name; a copy elsewhere is the same. Mutants: the path in the key; the hash left out of it."""
    shown = tmp_path / "shown.png"
    with JudgeServer(FIVE) as server:
        judge = judge_of(server, cache_dir=str(tmp_path / "judged"))
        for content, asked in ((files / "small.png", 1), (files / "small.jpg", 2), (files / "small.png", 2)):
            shown.unlink(missing_ok=True)
            shown.write_bytes(content.read_bytes())
            assert graded(judge, item(shown)) == [1.0]
            assert len(server.requests) == asked
        graded(judge, item(files / "small.png"))
        assert len(server.requests) == 2
        graded(replace(judge, max_media_bytes=4096), item(files / "small.png"))
        graded(replace(judge, send_media=False), item(files / "small.png"), context=["A wall."])
        assert len(server.requests) == 4


def test_equal_media_are_asked_once(files: Path) -> None:
    own = {"prompts": prompts(item(files / "small.png")) * 3, "id": ["a", "a", "b"]}
    with JudgeServer(FIVE) as server:
        assert ContextReward(judge_of(server))([TEXT] * 3, **own) == [1.0] * 3
    assert len(server.requests) == 1


def broken(folder: Path, fault: str) -> MediaItem:
    kind = {"png": "image", "wav": "audio", "mp4": "video"}[fault.rpartition(".")[2]]
    path = folder / fault
    if fault.startswith("empty"):
        path.write_bytes(b"")
    elif fault.startswith("garbage"):
        path.write_bytes(b"not media at all" * 50)
    elif fault.startswith("short"):
        source = {"png": "small.png", "wav": "hum.wav", "mp4": "clip.mp4"}[fault.rpartition(".")[2]]
        path.write_bytes((folder.parent / source).read_bytes())
        cut_file(path, 0.6)
    return item(path, kind)


@pytest.mark.parametrize(
    "fault", [f"{f}.{k}" for f in ("gone", "empty", "garbage", "short") for k in ("png", "wav", "mp4")]
)
def test_a_missing_or_unreadable_file_raises_with_the_rows_name(files: Path, fault: str) -> None:
    """Our data are broken: that is no 0, and no `None`. Before any request. Mutant: taken for a judge that fails."""
    folder = files / "broken"
    folder.mkdir(exist_ok=True)
    with JudgeServer(FIVE) as server:
        for reward in (ContextReward, AsyncContextReward):
            with pytest.raises(ValueError, match="row 'row-7'") as error:
                got = reward(judge_of(server))([TEXT], prompts=prompts(broken(folder, fault)), id=["row-7"])
                asyncio.run(got)
            assert fault in str(error.value) and "`send_media: false`" in str(error.value)
        assert server.requests == []
        blind = judge_of(server, send_media=False)
        assert ContextReward(blind)([TEXT], ["A wall."], prompts=prompts(broken(folder, fault)), id=["row-7"]) == [1.0]


def test_what_is_no_file_raises_with_the_rows_name(files: Path) -> None:
    asked = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]]
    with JudgeServer(FIVE) as server, pytest.raises(ValueError, match="row 'row-7': a judge is sent files"):
        ContextReward(judge_of(server))([TEXT], prompts=asked, id=["row-7"])
    with JudgeServer(FIVE) as server, pytest.raises(ValueError, match="row number 0 of the batch"):
        ContextReward(judge_of(server))([TEXT], prompts=asked)


@pytest.mark.parametrize("status", [400, 413, 415, 422, 500])
def test_a_judge_that_refuses_media_gives_none(files: Path, status: int) -> None:
    """As any failed judge. Mutant: asked again without them."""

    async def blind(request) -> bytes:
        return http("no pictures, please", status) if request.media else says('{"score": 5}')

    logged: dict[str, float] = {}
    with JudgeServer(blind) as server:
        judge = judge_of(server, retries=1)
        own = {"prompts": prompts(item(files / "small.png")) + prompts(), "id": ["a", "b"]}
        rewards = ContextReward(judge)([TEXT] * 2, ["A wall."] * 2, **own, log_metric=logged.__setitem__)
    assert rewards == [None, 1.0] and logged["judge/failed"] == 1.0


def test_settings_that_cannot_work_are_refused() -> None:
    for name in ("max_media", "max_media_bytes"):
        with pytest.raises(ValueError, match=f"`{name}` must be at least"):
            Judge("http://localhost:1/v1", "m", **{name: 0})


def test_without_a_decoder_a_small_picture_goes_and_a_video_names_the_extra(files: Path, tmp_path: Path) -> None:
    """In a Python that has neither PyAV nor Pillow. Mutant: the import at the top of the module."""
    code = (
        "import sys; from omni_rewards.judge.media import Medium; "
        "print(Medium('image', sys.argv[1]).parts()[0]['image_url']['url'][:15]); "
        "Medium('video', sys.argv[2], row='a').parts()"
    )
    package = Path(omni_rewards.__file__).parents[1]
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(package)!r}); {code}"]
    done = subprocess.run(
        [*command, str(files / "small.png"), str(files / "clip.mp4")], capture_output=True, text=True
    )
    assert done.stdout == "data:image/png;\n"
    assert re.search(r'ImportError: `send_media` needs a decoder .*pip install "omni-grpo\[train\]"', done.stderr)


def test_an_evaluation_grades_contexts_that_have_no_reference(files: Path) -> None:
    """Mutant: rows without a reference counted for nothing."""
    row = {"id": "a", "problem": "?", "problem_type": "yes_no", "options": None, "completion": TEXT, "context": None}
    row |= {"reference_reasoning": None, "sections": {}, "answer_score": 1.0}
    media = [vars(item(files / "clip.mp4", "video", use_audio="if_present"))]
    with JudgeServer(FIVE) as server:
        found = judged(
            [{**row, "media": media}, {**row, "id": "b", "media": []}], judge_of(server), ContextReward().schema
        )
    assert found["context_judged"]["mean"] == 1.0 and found["context_judged"]["n"] == 1
    assert found["context_judged"]["unavailable"] == 0
    assert {kind for request in server.requests for kind, _ in request.media} == {"jpeg", "wav"}


def test_a_question_of_ones_own_shows_media(files: Path) -> None:
    question = Question("Grade it.", (("CANDIDATE", "x"),), (Medium("image", str(files / "small.png")),))
    with JudgeServer(FIVE) as server:
        assert judge_of(server).ask([question]).scores == [1.0]
        assert judge_of(server, send_media=False).ask([question]).scores == [1.0]
    assert [len(request.media) for request in server.requests] == [1, 0]
    assert json.dumps(judge_of(server).request(question))  # what is recorded
