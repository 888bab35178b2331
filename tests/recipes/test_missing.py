# SPDX-License-Identifier: Apache-2.0
"""Holes in sound and picture: what is there stands at its time, what is not is silence, and too much is refused."""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_files import frame_numbers, grey_frames, tone, write_sound, write_video
from omni_grpo.data.media.decode_cache import DecodeCache
from omni_grpo.data.media.missing import Missing
from omni_grpo.data.media.reader import read_audio, read_media, read_video
from omni_grpo.data.media.segment import Segment
from omni_grpo.data.media.settings import MediaError, MediaSettings

SETTINGS = MediaSettings()
ALL = replace(SETTINGS, max_missing_share=1.0)
RATE = SETTINGS.sampling_rate
CLICK = 3.2  # seconds
CODECS = {".webm": "libvpx-vp9", ".flv": "flv1"}


def clicking(rate: int = 48_000) -> np.ndarray:
    """Five seconds of noise, so that every packet has bytes of its own, with a click."""
    sound = (0.02 * np.random.default_rng(0).standard_normal(5 * rate)).astype(np.float32)
    sound[round(CLICK * rate) : round(CLICK * rate) + rate // 500] = 0.9
    return sound


def click_time(sound: np.ndarray) -> float:
    return float(np.abs(sound).argmax() / RATE)


def film(path: Path) -> Path:
    frames = [grey_frames(25)[k % 25] for k in range(40)]
    codec = CODECS.get(path.suffix, "libx264")
    return write_video(
        path, frames, codec=codec, pix_fmt="yuv420p", b_frames=False, sound=clicking(), sound_rate=48_000
    )


def without(source: Path, target: Path, is_lost: Callable[[str, float], bool]) -> Path:
    """A copy without the packets of which `is_lost(kind, seconds from the first)` holds."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        packets = [packet for packet in old.demux() if packet.dts is not None]
        first = min(packet.pts * packet.time_base for packet in packets)
        for packet in packets:
            kind, time = packet.stream.type, float(packet.pts * packet.time_base - first)
            if not is_lost(kind, time):
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return target


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".flv", ".webm", ".mp4"])
@pytest.mark.parametrize(("start", "end"), [(1.0, 1.2), (1.0, 2.0), (2.9, 3.1), (0.5, 0.55)])
def test_a_hole_in_sound_is_silence_and_what_follows_stays_at_its_time(tmp_path, suffix, start, end, caplog):
    """Mutants: samples closed up (the click heard too early), the hole counted and not filled, nothing said."""
    path = without(
        film(tmp_path / f"a{suffix}"), tmp_path / f"b{suffix}", lambda k, t: k == "audio" and start <= t < end
    )
    with caplog.at_level(logging.WARNING):
        sound = read_audio(path, ALL)
    assert click_time(sound) == pytest.approx(CLICK, abs=0.02)
    assert len(sound) == pytest.approx(5 * RATE, abs=0.03 * RATE)
    inside = sound[round((start + 0.05) * RATE) : round((end - 0.05) * RATE)]
    assert not inside.any() and sound[: round((start - 0.03) * RATE)].any()
    assert np.count_nonzero(sound == 0) == pytest.approx((end - start) * RATE, abs=0.06 * RATE)
    assert re.search(rf"{path.name}: \\d\\.\\d\\d s of its sound are missing".replace("\\\\", "\\"), caplog.text)
    if end - start < 0.24:
        np.testing.assert_array_equal(read_audio(path, SETTINGS), sound)
        return
    with pytest.raises(MediaError, match=r"s of its sound are missing .*, more than max_missing_share=0\.05") as error:
        read_audio(path, SETTINGS)
    share = float(re.search(r"set max_missing_share to ([\d.]+)", str(error.value))[1])
    assert share == pytest.approx((end - start) / 5, abs=0.02)
    np.testing.assert_array_equal(read_audio(path, replace(SETTINGS, max_missing_share=share)), sound)


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".webm"])
@pytest.mark.parametrize("edge", ["late", "early"])
def test_sound_that_starts_late_or_stops_early(tmp_path, suffix, edge):
    """Mutant: the end of the picture not looked at, so that half a track passes for a whole one."""
    path = film(tmp_path / f"a{suffix}")
    for seconds, fits in ((0.2, True), (1.0, False)):
        span = (0.0, seconds) if edge == "late" else (5.0 - seconds, 9.0)
        cut = without(path, tmp_path / f"b{suffix}", lambda k, t, span=span: k == "audio" and span[0] <= t < span[1])
        if not fits:
            with pytest.raises(MediaError, match="of its sound are missing"):
                read_audio(cut, SETTINGS)
        sound = read_audio(cut, SETTINGS if fits else ALL)
        assert len(sound) == pytest.approx(5 * RATE, abs=0.03 * RATE) and click_time(sound) == pytest.approx(
            CLICK, abs=0.02
        )


def test_mp4_says_itself_how_long_its_tracks_are(tmp_path):
    """A clip with music over its second half is a whole file: its index lists every packet that there is."""
    path = write_video(tmp_path / "half.mp4", grey_frames(24), sound=tone(440, 1.0), sound_start=1.0)
    sound = read_audio(path, SETTINGS)
    assert len(sound) == 3 * RATE and not sound[: RATE - 500].any() and not sound[2 * RATE + 500 :].any()


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_hole_in_the_picture(tmp_path, suffix):
    """At a key frame, so that what is left can be decoded. Mutants: gaps of a rate that is not constant counted; none."""
    frames = [grey_frames(25)[k % 25] for k in range(40)]
    path = write_video(tmp_path / f"a{suffix}", frames, pix_fmt="yuv420p", b_frames=False, gop=1)
    small = without(path, tmp_path / f"b{suffix}", lambda _, t: 2.0 <= t < 2.2)  # two of forty: 5 %
    shown = frame_numbers(read_video(small, replace(SETTINGS, num_frames=40)).frames)
    assert shown == [15 if k in (16, 17) else k % 25 for k in range(40)]
    large = without(path, tmp_path / f"c{suffix}", lambda _, t: 2.0 <= t < 2.9)
    with pytest.raises(MediaError, match=r"1\.00 s of its picture are missing \(20\.0% of 5\.00 s\)"):
        read_video(large, SETTINGS)
    assert len(read_video(large, replace(SETTINGS, max_missing_share=0.2)).frames) == 8
    assert len(read_video(large, SETTINGS, Segment(0.0, 2.0)).frames) == 8  # of the segment nothing is missing
    with pytest.raises(MediaError, match=r"0\.50 s of its picture are missing \(50\.0% of 1\.00 s\)"):
        read_video(large, SETTINGS, Segment(1.5, 2.5))


def test_a_picture_that_ends_long_before_its_sound(tmp_path):
    path = without(film(tmp_path / "a.mkv"), tmp_path / "b.mkv", lambda k, t: k == "video" and t >= 3.0)
    with pytest.raises(MediaError, match=r"2\.0\d s of its picture are missing \(40"):
        read_video(path, SETTINGS)
    assert read_video(path, ALL).fps == pytest.approx(8 / 3.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_transport_stream_that_lost_packets(tmp_path, seed):
    """Each of 188 bytes, as a network loses them. Mutants: half a frame decoded as if it were whole; closed up."""
    content = film(tmp_path / "a.ts").read_bytes()
    packets = [content[at : at + 188] for at in range(0, len(content), 188)]
    chance = np.random.default_rng(seed).random(len(packets))
    lossy = tmp_path / "b.ts"
    lossy.write_bytes(b"".join(p for k, p in enumerate(packets) if k < 10 or chance[k] > 0.02))
    sound = read_audio(lossy, ALL)
    assert len(sound) == pytest.approx(5 * RATE, abs=0.2 * RATE)
    if sound.max() > 0.5:  # the click itself was not lost
        assert click_time(sound) == pytest.approx(CLICK, abs=0.02)
    lost = {(p[1] & 0x1F) << 8 | p[2] for k, p in enumerate(packets) if k >= 10 and chance[k] <= 0.02}  # by stream
    for stream, read in ((256, read_video), (257, read_audio)):
        if stream in lost:
            with pytest.raises(MediaError, match="are missing"):
                read(lossy, replace(SETTINGS, max_missing_share=0.0))


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.ogg", "VORBIS"), ("a.ogg", "OPUS")])
@pytest.mark.parametrize("how", ["zeroed", "cut out"])
@pytest.mark.parametrize("share", [0.001, 0.2])
def test_damaged_pages_and_frames_of_sound_files(tmp_path, name, subtype, how, share):
    """A page of Ogg is a second, so that few bytes may be many samples. Mutant: what is left closed up."""
    whole = read_audio(write_sound(tmp_path / name, clicking(), 48_000, subtype), SETTINGS)
    content = bytearray((tmp_path / name).read_bytes())
    start, count = len(content) * 3 // 10, max(round(share * len(content)), 40)
    content[start : start + count] = bytes(count) if how == "zeroed" else b""
    (tmp_path / name).write_bytes(content)
    sound = read_audio(tmp_path / name, ALL)
    assert len(sound) == len(whole)
    hole = np.flatnonzero(sound == 0)
    lost = (hole[-1] + 1 - hole[0]) / RATE
    assert share * 5 * 0.8 < lost < share * 5 + 1.1
    kept = np.r_[0 : hole[0] - RATE // 20, hole[-1] + RATE // 20 : len(whole)]
    if subtype != "VORBIS":  # whose decoder drops 128 samples where it begins
        assert np.abs(sound[kept] - whole[kept]).max() < 0.02
    assert click_time(sound) == pytest.approx(CLICK, abs=0.003)
    if lost > 0.26:
        with pytest.raises(MediaError, match="of its sound are missing"):
            read_audio(tmp_path / name, SETTINGS)


def test_a_segment_of_a_file_with_holes_is_what_the_whole_has_there(tmp_path):
    """Mutants: holes outside the segment counted; those before it closed up."""
    path = without(film(tmp_path / "a.mkv"), tmp_path / "b.mkv", lambda k, t: k == "audio" and 1.0 <= t < 2.0)
    whole = read_audio(path, ALL)
    for start, end in ((0.0, 0.9), (2.5, 4.0), (3.0, None), (0.5, 2.5), (1.2, 1.8)):
        part = read_audio(path, ALL, Segment(start, end))
        np.testing.assert_array_equal(part, whole[round(start * RATE) : None if end is None else round(end * RATE)])
        if (start, end) in ((0.5, 2.5), (1.2, 1.8)):
            with pytest.raises(MediaError, match="of its sound are missing"):
                read_audio(path, SETTINGS, Segment(start, end))
        else:
            np.testing.assert_array_equal(read_audio(path, SETTINGS, Segment(start, end)), part)


def test_whole_files_miss_nothing(tmp_path, caplog):
    """Mutant: a codec's padding, or rounded time stamps, taken for a hole."""
    for suffix in (".mkv", ".ts", ".flv", ".webm", ".mp4", ".mov"):
        path = film(tmp_path / f"a{suffix}")
        strict = replace(SETTINGS, max_missing_share=0.0)
        read_audio(path, strict), read_video(path, strict)
    assert not caplog.records


def test_caches_keep_what_was_allowed_apart(tmp_path):
    """Mutant: a file that passed at 1.0 handed out at 0.05."""
    path = without(film(tmp_path / "a.mkv"), tmp_path / "b.mkv", lambda _, t: 1.0 <= t < 2.0)
    cache = DecodeCache(tmp_path / "cache", 64)
    for kind in ("audio", "video"):
        assert cache.read(kind, path, ALL) is not None
        with pytest.raises(MediaError, match="are missing"):
            cache.read(kind, path, SETTINGS)
        assert read_media(kind, path, ALL) is not None


@given(
    length=st.floats(0.1, 1e4),
    allowed=st.floats(0, 1),
    parts=st.lists(st.floats(0, 1), max_size=5),
)
def test_the_share_that_is_named_is_enough_and_little_more_than_enough(length, allowed, parts):
    """Mutants: the share rounded down; `<` in place of `<=`."""
    total = max(sum(parts), 1.0)
    lost = [length * part / total for part in parts]

    def counted(share: float) -> Missing:
        missing = Missing("a.ts", "sound", length, share)
        for seconds in lost:
            missing.add(seconds)
        return missing

    try:
        counted(allowed).notes()
    except MediaError as error:
        assert sum(lost) > allowed * length * (1 - 1e-9)
        named = float(re.search(r"set max_missing_share to ([\d.]+)", str(error))[1])
        assert named <= sum(lost) / length + 0.0101
        assert bool(counted(named).notes()) == (sum(lost) > 0)
    else:
        assert sum(lost) <= (allowed + 1e-9) * length


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share):
    with pytest.raises(ValueError, match=r"max_missing_share=.* must be a share from 0 to 1"):
        MediaSettings(max_missing_share=share)
