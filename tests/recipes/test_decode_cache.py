# SPDX-License-Identifier: Apache-2.0
"""Decoded once: what comes from disk is what the readers give, whoever was killed, whatever was spoilt, however full."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from media_files import cut_file, grey_frames, tone, write_image, write_sound, write_video
from omni_grpo.data.media import decode_cache
from omni_grpo.data.media.decode_cache import DecodeCache, open_decode_cache
from omni_grpo.data.media.entry_store import ABANDONED_SECONDS, BLOCK, ENDING, HEAD, EntryStore
from omni_grpo.data.media.reader import read_media
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.data.media.video import Video

SETTINGS = MediaSettings(num_frames=4, max_pixels=56 * 56)
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """A clip with sound, a sound and an image, all noisy."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)
    return {
        "video": write_video(tmp_path / "clip.mp4", list(frames), sound=tone(300)),
        "audio": write_sound(tmp_path / "tone.wav", tone(440)),
        "image": write_image(tmp_path / "picture.png", frames[0]),
    }


@pytest.fixture
def cache(tmp_path) -> DecodeCache:
    return DecodeCache(tmp_path / "cache", 64)


def same(a: Video | np.ndarray, b: Video | np.ndarray) -> bool:
    """Bit for bit, type and shape included."""
    if isinstance(a, Video) and isinstance(b, Video):
        return a.fps == b.fps and same(a.timestamps, b.timestamps) and same(a.frames, b.frames)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def entries(folder: Path) -> list[Path]:
    return list(folder.glob(f"*/*{ENDING}"))


def test_what_comes_from_disk_is_what_the_readers_give(files, cache):
    """Mutants: the type, the shape, the rate or the timestamps of the frames lost."""
    again = DecodeCache(cache.store.folder, 64)  # the next run
    for kind, path in {**files, "sound of the clip": files["video"]}.items():
        kind = "audio" if kind.startswith("sound") else kind
        plain = read_media(kind, path, SETTINGS)
        for reader in (cache.read, cache.read, again.read):
            item = reader(kind, path, SETTINGS)
            assert same(item, plain)
        assert (item.frames if kind == "video" else item).flags.writeable  # as torch wants it
    assert (cache.decoded, again.decoded) == (4, 0)


def test_a_file_is_known_by_its_content_and_its_ending(files, cache, tmp_path):
    """Mutants: keys of paths; keys without the ending, by which libav guesses the format."""
    for kind, path in files.items():
        cache.read(kind, path, SETTINGS)
        copy = tmp_path / f"copy{path.suffix.upper()}"
        copy.write_bytes(path.read_bytes())
        cache.read(kind, copy, SETTINGS)
    assert cache.decoded == 3
    cache.read("audio", files["audio"].rename(tmp_path / "tone.bin"), SETTINGS)
    assert cache.decoded == 4


@pytest.mark.parametrize(
    ("kind", "matters", "does_not"),
    [
        ("video", {"num_frames": 2}, {"sampling_rate": 8000, "fps": 1.0, "max_audio_seconds": 2.0}),
        ("video", {"video_sampling": "fps"}, {"load_audio_from_video": True}),
        ("video", {"max_pixels": 28 * 28}, {"long_audio": "truncate"}),
        ("audio", {"sampling_rate": 8000}, {"num_frames": 2, "max_pixels": 28 * 28}),
        ("audio", {"max_audio_seconds": 1.5}, {"video_sampling": "fps"}),
        ("image", {"pixel_multiple": 14}, {"num_frames": 2, "sampling_rate": 8000}),
    ],
)
def test_settings_that_matter_and_settings_that_do_not(files, cache, kind, matters, does_not):
    cache.read(kind, files[kind], SETTINGS)
    other = replace(SETTINGS, **matters)
    assert same(cache.read(kind, files[kind], other), read_media(kind, files[kind], other))
    cache.read(kind, files[kind], replace(SETTINGS, **does_not))
    assert cache.decoded == 2


def test_another_version_of_the_readers_decodes_anew(files, cache, monkeypatch):
    cache.read("image", files["image"], SETTINGS)
    monkeypatch.setattr(decode_cache, "DECODERS", [*decode_cache.DECODERS, "next"])
    cache.read("image", files["image"], SETTINGS)
    assert cache.decoded == 2


def test_a_file_that_changed_is_read_anew_though_size_and_time_are_the_same(tmp_path, cache, monkeypatch):
    """Mutant: remembering the hash by size and time of modification alone."""
    monkeypatch.setattr(decode_cache, "SETTLED_NS", 0)
    path = write_sound(tmp_path / "a.wav", tone(440))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    first = cache.read("audio", path, SETTINGS)
    write_sound(path, tone(880))
    os.utime(path, ns=times)
    second = cache.read("audio", path, SETTINGS)
    assert not same(first, second) and same(second, read_media("audio", path, SETTINGS))


def test_a_file_that_may_change_within_a_tick_is_hashed_at_each_reading(tmp_path, cache, monkeypatch):
    """On a file system whose clock stands still. Mutant: remembering the hash of a file written a moment ago."""
    plain, now = decode_cache._state, time.time_ns()
    monkeypatch.setattr(decode_cache, "_state", lambda path: [*plain(path)[:2], now, now, plain(path)[4]])
    monkeypatch.setattr(decode_cache, "SETTLED_NS", 3600 * 10**9)
    sounds = []
    for hz in (440, 880):
        path = write_sound(tmp_path / "a.wav", tone(hz))
        sounds.append(cache.read("audio", path, SETTINGS))
        assert same(sounds[-1], read_media("audio", path, SETTINGS))
    assert not same(*sounds)


def test_a_settled_file_is_hashed_once_and_not_by_the_next_run(files, cache, monkeypatch):
    """Mutants: hashing at each epoch; keeping the hash in memory alone."""
    monkeypatch.setattr(decode_cache, "SETTLED_NS", 0)
    cache.read("video", files["video"], SETTINGS)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("the file was read again"))
    again = DecodeCache(cache.store.folder, 64)
    for reader in (cache, again, again):
        reader.read("video", files["video"], SETTINGS)
    os.utime(files["video"])
    with pytest.raises(pytest.fail.Exception):
        cache.read("video", files["video"], SETTINGS)


def test_failures_are_the_readers_own_and_are_not_kept(files, cache, tmp_path):
    (tmp_path / "empty.wav").touch()
    bad = [("audio", tmp_path / "gone.wav"), ("audio", tmp_path / "empty.wav"), ("audio", tmp_path)]
    bad += [("video", cut_file(files["video"], 0.6)), ("image", files["audio"])]
    for kind, path in bad:
        with pytest.raises(MediaError) as plain:
            read_media(kind, path, SETTINGS)
        for _ in range(2):
            with pytest.raises(MediaError) as cached:
                cache.read(kind, path, SETTINGS)
            assert str(cached.value) == str(plain.value)
    assert cache.decoded == 0


def test_a_sound_cut_to_length_is_said_at_each_reading(files, cache, caplog):
    """Mutant: the warning of the first run alone."""
    short = replace(SETTINGS, max_audio_seconds=0.5, long_audio="truncate")
    for reading in range(1, 3):
        assert len(cache.read("audio", files["audio"], short)) == 8000
        assert caplog.text.count("tone.wav: sound of 1.0 s truncated to max_audio_seconds=0.5") == reading
    assert cache.decoded == 1


@settings(max_examples=40)
@given(
    spoil=st.one_of(
        st.integers(0, 1 << 20).map(lambda at: ("flip", at)), st.integers(0, 1 << 20).map(lambda at: ("cut", at))
    )
)
def test_a_spoilt_entry_is_found_and_made_anew(tmp_path_factory, spoil):
    """Mutants: no checksum, a checksum of the numbers without the header, a length that is not looked at."""
    folder = tmp_path_factory.mktemp("store")
    store = EntryStore(folder, 1 << 20)
    content = np.random.default_rng(0).bytes(10_000)
    store.write("abc", content)
    (path,) = entries(folder)
    spoilt = bytearray(path.read_bytes())
    how, at = spoil[0], spoil[1] % len(spoilt)
    if how == "flip":
        spoilt[at] ^= 1
    else:
        del spoilt[at:]
    path.write_bytes(spoilt)
    assert store.read("abc") is None and not path.exists()
    store.write("abc", content)
    assert store.read("abc") == content


def test_a_spoilt_item_is_decoded_again_with_a_line_in_the_log(files, cache, caplog):
    plain = cache.read("video", files["video"], SETTINGS)
    for path in entries(cache.store.folder):
        os.truncate(path, path.stat().st_size - 1)
    assert same(cache.read("video", files["video"], SETTINGS), plain)
    assert "is damaged; it is made anew" in caplog.text
    assert same(cache.read("video", files["video"], SETTINGS), plain)
    assert cache.decoded == 2


WRITER = """
import sys
from pathlib import Path
from omni_grpo.data.media.entry_store import EntryStore
store = EntryStore(Path(sys.argv[1]), 1 << 40)
for k in range(10_000):
    store.write(f"{k:04}", bytes([k % 256]) * (16 << 20))
"""


def test_a_killed_writer_leaves_no_bad_entry(tmp_path, caplog):
    """A real process, killed with a draft half written; mutant: writing in place."""
    environment = {**os.environ, "PYTHONPATH": str(RECIPES)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], env=environment)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if len(entries(tmp_path)) > 1 and (drafts := list(tmp_path.glob("*/*.tmp"))):
                os.kill(writer.pid, signal.SIGSTOP)
                if any(path.exists() and path.stat().st_size < 16 << 20 for path in drafts):
                    break
                os.kill(writer.pid, signal.SIGCONT)
    finally:
        writer.kill()
        writer.wait()
    (draft,) = tmp_path.glob("*/*.tmp")
    whole = {path.stem for path in entries(tmp_path)}
    store = EntryStore(tmp_path, 1 << 40)
    assert whole and all(store.read(key) == bytes([int(key) % 256]) * (16 << 20) for key in whole)
    killed_at = draft.name.partition(".")[0]
    assert killed_at not in whole and store.read(killed_at) is None
    store.write(killed_at, b"now")
    assert store.read(killed_at) == b"now" and draft.exists() and not caplog.records
    os.utime(draft, (0, time.time() - ABANDONED_SECONDS - 1))
    EntryStore(tmp_path, 1 << 40).write("ffff", b"next run")
    assert not draft.exists()


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5 * BLOCK)), max_size=60))
def test_the_folder_never_outgrows_its_bound(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("store")
    store = EntryStore(folder, 12 * BLOCK)
    for key, size in written:
        store.write(f"{key:04}", bytes(size))
        assert sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in entries(folder)) <= 12 * BLOCK
        assert store.read(f"{key:04}") == bytes(size), "what was written last is there"


def test_the_least_recently_used_goes_first(tmp_path):
    """Mutant: the oldest written goes first."""
    store = EntryStore(tmp_path, 8 * BLOCK)
    for key in range(8):
        store.write(f"{key:04}", bytes(BLOCK - HEAD))
        os.utime(tmp_path / "00" / f"{key:04}{ENDING}", (0, key))
    assert store.read("0000") is not None
    store.write("1000", b"new")
    assert store.read("0000") is not None and store.read("1000") is not None and store.read("0001") is None
    store.write("2000", bytes(9 * BLOCK))
    assert store.read("2000") is None and store.read("1000") is not None, (
        "too large for the folder: nothing is removed"
    )


def test_a_folder_of_the_user_s_own_loses_nothing(tmp_path):
    """Mutant: making room by removing whatever lies in the folder, such as the clips of a data set."""
    (tmp_path / "clips").mkdir()
    own = [tmp_path / "clips" / name for name in ("1.mp4", "1.entry.mp4", "2.tmp", "entry")]
    for path in own:
        path.write_bytes(bytes(3 * BLOCK))
        os.utime(path, (0, 0))
    store = EntryStore(tmp_path, 4 * BLOCK)
    for key in range(9):
        store.write(f"{key:04}", bytes(BLOCK))
    assert all(path.stat().st_size == 3 * BLOCK for path in own) and entries(tmp_path)


def test_threads_that_fill_and_clear_one_folder_all_read_the_truth(files, tmp_path):
    """Two caches, as of two processes, with room for a few entries: some are removed while others read them."""
    caches = [DecodeCache(tmp_path / "cache", 1) for _ in range(2)]
    for cache in caches:
        cache.store.max_bytes = 12 * BLOCK
    jobs = [
        (kind, path, replace(SETTINGS, num_frames=2 + 2 * k, pixel_multiple=7 * (k + 1), sampling_rate=8000 + k))
        for k in range(3)
        for kind, path in files.items()
    ]
    truth = [read_media(*job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: caches[i % 2].read(*jobs[i % len(jobs)]), range(10 * len(jobs))))
    assert all(same(item, truth[i % len(jobs)]) for i, item in enumerate(found))


def test_a_disk_that_refuses_is_named_once_and_does_not_stop_the_run(files, cache, caplog, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("omni_grpo.data.media.entry_store.os.replace", refuse)
    for kind, path in files.items():
        assert same(cache.read(kind, path, SETTINGS), read_media(kind, path, SETTINGS))
    assert caplog.text.count("No space left on device") == 1
    assert not list(cache.store.folder.glob("*/*"))


def test_the_run_s_fields_name_the_folder(tmp_path):
    beside = open_decode_cache(None, 1, tmp_path / "run" / "rl")
    assert beside is not None and beside.store.folder == tmp_path / "run" / "decode_cache"
    named = open_decode_cache(str(tmp_path / "named"), 1, tmp_path / "run" / "rl")
    assert named is not None and named.store.folder == tmp_path / "named"
    assert open_decode_cache(None, 0, tmp_path / "off" / "rl") is None and not (tmp_path / "off").exists()
    (tmp_path / "taken").touch()
    with pytest.raises(ValueError, match=r"taken: cannot be made \(.*\); name another folder"):
        open_decode_cache(str(tmp_path / "taken"), 1, tmp_path)


def test_after_the_first_epoch_no_decoder_works(files, cache, monkeypatch):
    """Counted in the decoders themselves; `benchmarks/decode_speed.py` times it. Mutants: nothing kept, or in memory alone."""
    opened: list[str] = []
    for library, name in ((av, "open"), (Image, "open")):
        real = getattr(library, name)
        monkeypatch.setattr(
            library, name, lambda file, *a, real=real, **k: (opened.append(str(file)), real(file, *a, **k))[1]
        )
    jobs = [*files.items(), ("audio", files["video"])]

    def epoch(reader: DecodeCache) -> int:
        before = len(opened)
        for kind, path in jobs:
            reader.read(kind, path, SETTINGS)
        return len(opened) - before

    assert epoch(cache) >= len(jobs)
    assert epoch(cache) == 0
    assert epoch(DecodeCache(cache.store.folder, 64)) == 0  # the next run


def test_grey_frames_are_told_apart(tmp_path, cache):
    """The clips of a data set are alike: each keeps its own frames."""
    clips = [write_video(tmp_path / f"{k}.mp4", grey_frames(12)[k:]) for k in range(3)]
    for _ in range(2):
        means = [cache.read("video", clip, SETTINGS).frames[0].mean() for clip in clips]
        assert means == sorted(means) and len(set(means)) == 3
