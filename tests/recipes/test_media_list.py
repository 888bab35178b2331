# SPDX-License-Identifier: Apache-2.0
"""A list of media files with what must come of each: whole ones of every common kind are read, damaged and hostile ones
are refused by name, in seconds and little memory, and alike by all that read them."""

import builtins
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av.error
import numpy as np
import pytest
from PIL import Image

from hostile_media import HOSTILE, WHOLE
from media_files import frame_numbers, grey_frames, tone, write_sound, write_video
from omni_grpo.data.dataset import preflight, to_dataset
from omni_grpo.data.encoding.encoder import PromptEncoder
from omni_grpo.data.media.audio import has_audio
from omni_grpo.data.media.container import open_media
from omni_grpo.data.media.reader import read_media
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import DataError, Example, MediaItem
from omni_grpo.model.loading import load_processor
from omni_grpo.sft import OmniCollator

SETTINGS = MediaSettings()
SECONDS, BYTES = 15, 10**9  # most that a refusal may take, of processor time
READ_ALL = """
import json, re, sys, time
from omni_grpo.data.media.reader import read_media
from omni_grpo.data.media.settings import MediaError, MediaSettings
for line in sys.stdin:
    kind, path = json.loads(line)
    start = time.process_time()
    try:
        said = f"read: {read_media(kind, path, MediaSettings())!r:.60}"
    except MediaError as error:
        said = str(error)
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024  # of this program alone
    print(json.dumps([path, said, time.process_time() - start, peak]), flush=True)
"""


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_read(tmp_path, name):
    """Mutants: a container off the list; its ending believed; a tag that is not UTF-8 taken for damage."""
    write, kinds = WHOLE[name]
    write(tmp_path / name)
    for kind in kinds:
        item = read_media(kind, tmp_path / name, SETTINGS)
        if kind == "video":
            numbers = frame_numbers(item.frames)
            assert numbers == sorted(numbers) and numbers[0] <= 1 and numbers[-1] - numbers[0] >= 6
        elif kind == "audio":
            assert len(item) == pytest.approx(16_000, rel=0.13)
            assert np.abs(np.fft.rfft(item[2000:14_000])).argmax() * 16_000 / 12_000 == pytest.approx(440, abs=3)
        else:
            assert item.shape == (48, 64, 3)
    if kinds != ("image",):
        assert has_audio(tmp_path / name) == ("audio" in kinds)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, (write, _, _) in HOSTILE.items():
        write(folder / name)
    return folder


@pytest.fixture(scope="module")
def refusals(hostile) -> dict[str, tuple[str, float, float]]:
    """By name: what is said, in how many seconds, and the reading process's peak of memory so far."""
    jobs = "".join(json.dumps([kind, str(hostile / name)]) + "\n" for name, (_, kind, _) in HOSTILE.items())
    reader = subprocess.run([sys.executable, "-c", READ_ALL], input=jobs, capture_output=True, text=True, timeout=600)
    assert reader.returncode == 0, reader.stderr[-2000:]
    lines = [json.loads(line) for line in reader.stdout.splitlines()]
    return {Path(path).name: (said, seconds, peak) for path, said, seconds, peak in lines}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_or_hostile_file_is_refused_by_name_at_once(hostile, refusals, name):
    """Mutants: libav's own list of containers, which has playlists; a pipe that is opened; frames of any size."""
    said, seconds, peak = refusals[name]
    assert said.startswith(f"{hostile / name}: ") and re.search(HOSTILE[name][2], said), said
    assert re.search(r"get the file again|convert it|drop the row|name |set use_audio", said), "no remedy"
    assert seconds < SECONDS and peak < BYTES


def test_the_list_is_long_enough():
    assert len(WHOLE) >= 40 and len(HOSTILE) >= 40


@pytest.mark.parametrize(
    "name", ["list.mp4", "pipe.mp4", "cut.mkv", "turned_inf.mkv", "hole.flac", "bomb.png", "fast.wav"]
)
def test_preflight_training_and_evaluation_say_the_same(hostile, refusals, tiny, settings, name):
    """All come to the same encoder; each names the row. Mutant: the preflight that lets a class of errors through."""
    row = Example("bad", "Is it?", "yes_no", "yes", media=(MediaItem(HOSTILE[name][1], str(hostile / name)),))
    encoder = PromptEncoder(load_processor(tiny), settings)
    dataset, prompt = to_dataset([row], "short"), build_messages(row, "short")
    sft = OmniCollator(encoder)
    said = []
    for read in (
        lambda: encoder(prompt, "bad"),  # evaluation, and RL where a row was not foreseen
        lambda: (encoder.expect([(prompt, "bad")]), encoder(prompt, "bad")),  # RL
        lambda: sft([{**dataset[0], "target": "yes"}]),
        lambda: preflight(dataset, encoder),
    ):
        with pytest.raises((MediaError, DataError)) as error:
            read()
        said.append(str(error.value).splitlines()[-1])
    assert set(said) == {f"row 'bad': {refusals[name][0]}"}


OWN = [
    value for value in vars(av.error).values() if isinstance(value, type) and issubclass(value, av.error.FFmpegError)
]
NOT_A_LIBRARY_S = (Warning, NameError, ImportError, StopIteration, StopAsyncIteration, BaseExceptionGroup)
PLAIN = [
    value
    for value in vars(builtins).values()
    if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, NOT_A_LIBRARY_S)
]
LIBRARIES = [struct.error, zlib.error, Image.UnidentifiedImageError, np.exceptions.AxisError]


KINDS = list(dict.fromkeys(kind for kind in (*OWN, *PLAIN, *LIBRARIES) if kind is not Exception))


def raised(kind: type[Exception]) -> Exception:
    if kind in OWN:
        return kind(1, "it went wrong")
    if issubclass(kind, UnicodeDecodeError):
        return kind("utf-8", b"\xe9", 0, 1, "invalid")
    if issubclass(kind, UnicodeEncodeError):
        return kind("utf-8", "\xe9", 0, 1, "invalid")
    if issubclass(kind, UnicodeTranslateError):
        return kind("\xe9", 0, 1, "invalid")
    return kind("it went wrong")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
def test_whatever_a_library_raises_is_one_error_with_the_file_s_name(tmp_path, monkeypatch, kind):
    """Raised where a decoder would: by libav as it opens a film, within its frames, by Pillow within a picture. Mutants:
    a list of classes that somebody foresaw (`AttributeError`, `OverflowError`, `struct.error`, … were not on it)."""
    error = raised(kind)

    def fail(*_, **__):
        raise error

    film = write_video(tmp_path / "film.mp4", grey_frames(2))
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")
    if not issubclass(kind, StopIteration):  # which no generator lets through
        with (
            pytest.raises(MediaError, match=r"film\.mp4: .*; get the file again, or drop the row") as caught,
            open_media(film),
        ):
            fail()
        assert caught.value.__cause__ is error
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", fail)
        with pytest.raises(MediaError, match=r"film\.mp4: .*get the file again, or drop the row"):
            read_media("video", film, SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "getexif", fail)
        with pytest.raises(MediaError, match=r"picture\.png: .*; get the file again, or drop the row"):
            read_media("image", tmp_path / "picture.png", SETTINGS)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, NameError, ImportError])
def test_an_interruption_or_a_fault_of_ours_is_none_of_the_file(tmp_path, kind):
    """Mutant: everything caught."""
    film = write_video(tmp_path / "film.mp4", grey_frames(2))
    with pytest.raises(kind, match=r"^ours$"), open_media(film):
        raise kind("ours")


def test_a_picture_too_large_is_named(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(MediaError, match=r"picture\.png: is a damaged image .*decompression bomb"):
        read_media("image", tmp_path / "picture.png", SETTINGS)


@pytest.mark.parametrize(
    "name", ["concat:a.wav|b.wav", "pipe:0", "http:a.wav", "%03d.wav", "-", "tee:a.wav", "é\n.wav"]
)
def test_a_name_is_no_address(tmp_path, monkeypatch, name):
    """Mutant: the name given to libav as it is."""
    monkeypatch.chdir(tmp_path)
    write_sound(Path("plain.wav"), tone(440), 16_000).rename(name)
    assert len(read_media("audio", name, SETTINGS)) == 44_100


def test_no_descriptor_stays_open(tmp_path, hostile):
    """Mutant: a file that is opened for libav and not closed when it is refused."""
    before = len(os.listdir("/proc/self/fd"))
    for name, (_, kind, _) in HOSTILE.items():
        if "fast" not in name:
            with pytest.raises(MediaError):
                read_media(kind, hostile / name, SETTINGS)
    assert len(os.listdir("/proc/self/fd")) == before
