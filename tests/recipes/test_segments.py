# SPDX-License-Identifier: Apache-2.0
"""`start` and `end` of a clip: the frames and samples of those seconds and no others, wherever media are read or kept."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from media_files import frame_numbers, grey_frames, tone, write_sound, write_video
from omni_grpo.data.dataset import load_sources, media_paths, preflight, to_dataset
from omni_grpo.data.encoding.encoder import PromptEncoder, prompt_key
from omni_grpo.data.media import scan
from omni_grpo.data.media.decode_cache import DecodeCache
from omni_grpo.data.media.keys import media_keys
from omni_grpo.data.media.playable import media_type, split_fragment
from omni_grpo.data.media.reader import media_fingerprint, read_audio, read_media, read_video
from omni_grpo.data.media.segment import WHOLE, Segment
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import DataError, Example, MediaItem
from omni_grpo.evaluation.donors import choose_donors
from omni_grpo.evaluation.variants import items_of, vary
from omni_grpo.model.loading import load_processor
from omni_grpo.report.embedding import choose_media

SETTINGS = MediaSettings(num_frames=96)  # of 24 frames in 3 s: every one is seen, whatever the segment
RATE = SETTINGS.sampling_rate
SEGMENTS = [  # and the frames whose time lies in them, of 24 at 8 frames a second
    (Segment(1.0, 2.0), range(8, 16)),
    (Segment(0.5), range(4, 24)),
    (Segment(0.0, 0.5), range(4)),
    (Segment(0.1, 0.3), (1, 2)),
    (Segment(0.125, 0.25), (1,)),
    (Segment(2.9, 3.0), (23,)),  # none begins there: the one on show
    (Segment(2.51, 2.625), (20,)),
]
FORMATS = [
    ("clip.mp4", "libx264", "yuv420p"),
    ("clip.mov", "libx264", "yuv444p"),
    ("clip.mkv", "ffv1", "yuv444p"),
    ("clip.webm", "libvpx-vp9", "yuv420p"),
    ("clip.ts", "libx264", "yuv420p"),
    ("clip.flv", "libx264", "yuv420p"),
    ("clip.avi", "mpeg4", "yuv420p"),
    ("b_frames.avi", "libx264", "yuv420p"),
]


@pytest.mark.parametrize("gop", [5, 100])
@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
def test_the_frames_of_a_segment_are_those_that_begin_in_it(tmp_path, name, codec, pix_fmt, gop):
    """Mutants: an end that is included, decoding from the key frame after the start, AVI's frames counted from there."""
    path = write_video(tmp_path / name, grey_frames(24), codec=codec, pix_fmt=pix_fmt, gop=gop)
    for segment, frames in SEGMENTS:
        video = read_video(path, SETTINGS, segment)
        assert sorted(set(frame_numbers(video.frames))) == list(frames), segment
        assert segment.start <= video.timestamps[0] and video.timestamps[-1] < (segment.end or 3.001)
        assert video.fps == pytest.approx(96 / ((segment.end or 3.0) - segment.start), rel=0.01)


def test_avi_with_reordered_frames_shows_in_a_segment_what_the_whole_shows_there(tmp_path):
    """Its frames are counted, and some of MPEG-4's never come out. Mutant: counting from a key frame."""
    path = write_video(tmp_path / "old.avi", grey_frames(24), codec="mpeg4", pix_fmt="yuv420p", gop=5, b_frames=2)
    whole = frame_numbers(read_video(path, SETTINGS).frames)  # 32 a second
    for start in (0, 1, 2):
        part = frame_numbers(read_video(path, MediaSettings(num_frames=32), Segment(start, start + 1)).frames)
        begun = [k for k in range(32) if start == 0 or whole[32 * start + k] != whole[32 * start - 1]]
        assert [part[k] for k in begun] == [whole[32 * start + k] for k in begun]


def test_frames_of_variable_rate_and_decimals_as_they_are_written(tmp_path):
    """Mutant: 0.1 as the binary fraction, which is more than a tenth and leaves the frame at 100 ms out."""
    times_ms = [0, 40, 100, 500, 540, 1000, 1010, 1900]
    path = write_video(tmp_path / "clip.mkv", grey_frames(8), times_ms=times_ms, gop=3)
    for start, end in [(0.1, 0.54), (0.04, 0.1), (0.5, 1.01), (1.0, None)]:
        wanted = [k for k, time in enumerate(times_ms) if 1000 * start <= time < 1000 * (end or 9)]
        assert sorted(set(frame_numbers(read_video(path, SETTINGS, Segment(start, end)).frames))) == wanted


OPUS = ("a.opus", "a.webm")  # which has no 44.1 kHz
SOUNDS = ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.opus", "a.mp4", "a.mkv", "a.webm", "a.ts", "a.flv", "a.avi"]
RATES = [(name, rate) for name in SOUNDS for rate in (48_000, 44_100) if rate == 48_000 or name not in OPUS]


@pytest.mark.parametrize(("name", "rate"), RATES)
def test_the_sound_of_a_segment_is_what_the_whole_has_there_sample_for_sample(tmp_path, name, rate):
    """Mutants: a decoder or a resampler that begins at the segment without what came before; a sample too few."""
    sound = (0.3 * np.random.default_rng(0).standard_normal(3 * rate)).clip(-1, 1).astype(np.float32)
    path, suffix = tmp_path / name, Path(name).suffix
    if suffix == ".opus":
        path = write_sound(tmp_path / "a.ogg", sound, rate, "OPUS")
    elif suffix in (".wav", ".flac", ".mp3", ".ogg"):
        write_sound(path, sound, rate)
    else:
        codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(suffix, "libx264")
        write_video(path, grey_frames(24), sound=sound, sound_rate=rate, codec=codec, pix_fmt="yuv420p")
    whole = read_audio(path, SETTINGS)
    for start, end in [(0.0, 1.0), (0.7, 1.3), (1.00003, 2.5), (0.11, 0.12), (2.5, None), (1 / 3, 2 / 3)]:
        part = read_audio(path, SETTINGS, Segment(start, end))
        wanted = whole[round(start * RATE) : None if end is None else round(end * RATE)]
        np.testing.assert_array_equal(part, wanted, err_msg=f"{start} to {end}")


def test_picture_and_sound_of_a_segment_belong_together(tmp_path):
    """Frame k and a tone of its own sound together; the picture begins late in the file. Mutant: times of the track's own."""
    times_ms = [700 + 125 * k for k in range(24)]
    sound = np.concatenate(
        [tone(440, 1.7), tone(880, 1.0), tone(440, 1.0)]
    )  # in the file's time: 1.0 to 2.0 of the clip
    path = write_video(tmp_path / "late.mkv", grey_frames(24), times_ms=times_ms, sound=sound)
    segment = Segment(1.0, 2.0)
    assert sorted(set(frame_numbers(read_video(path, SETTINGS, segment).frames))) == list(range(8, 16))
    heard = read_audio(path, SETTINGS, segment)
    spectrum = np.abs(np.fft.rfft(heard))
    assert len(heard) == RATE and spectrum.argmax() == 880 and spectrum[440] < spectrum[880] / 20


def test_a_film_too_large_to_be_kept_is_read_the_same(tmp_path, monkeypatch):
    """Mutant: the second pass that does not skip what the first one did."""
    path = write_video(tmp_path / "film.mp4", grey_frames(24), gop=5, sound=tone(440, 3.0))
    segment = Segment(1.1, 2.3)
    kept = read_video(path, SETTINGS, segment).frames, read_audio(path, SETTINGS, segment)
    monkeypatch.setattr(scan, "KEPT_BYTES", 100)
    np.testing.assert_array_equal(read_video(path, SETTINGS, segment).frames, kept[0])
    np.testing.assert_array_equal(read_audio(path, SETTINGS, segment), kept[1])


@pytest.mark.parametrize("kept", [2**26, 100])
def test_decoding_begins_at_the_key_frame_before_the_segment(tmp_path, monkeypatch, kept):
    """The work is counted: the end of a long film costs no more than its beginning. Mutants: decoding from the first
    frame, at once or where the file is read a second time."""
    monkeypatch.setattr(scan, "KEPT_BYTES", kept)
    path = write_video(tmp_path / "film.mp4", grey_frames(24), gop=4)
    counts = []
    for segment in (Segment(0.0, 0.5), Segment(2.5, 3.0)):
        with scan.scanned(path, lambda c, _: c.streams.video[0], segment) as found:
            counts.append(sum(1 for packet in found.packets if packet.size))
    assert counts[1] <= 4 < counts[0]


def test_max_audio_seconds_is_of_the_segment(tmp_path):
    path = write_sound(tmp_path / "long.wav", tone(440, 3.0))
    short = replace(SETTINGS, max_audio_seconds=1.0)
    assert len(read_audio(path, short, Segment(1.5, 2.5))) == RATE
    with pytest.raises(MediaError, match=r"lasts 1\.5 s, more than max_audio_seconds=1"):
        read_audio(path, short, Segment(1.5))


@pytest.mark.parametrize(
    ("kind", "segment"),
    [(k, s) for k in ("video", "audio") for s in (Segment(1.0, 3.2), Segment(3.0), Segment(5.0, 6.0), Segment(-1.0))],
)
def test_a_segment_outside_the_file_is_refused_and_the_remedy_helps(tmp_path, kind, segment):
    path = write_video(tmp_path / "clip.mp4", grey_frames(24), sound=tone(440, 3.0))
    with pytest.raises(MediaError, match=r"clip\.mp4: the file lasts 3\.\d+ s and the row asks for") as error:
        read_media(kind, path, SETTINGS, segment)
    most = float(re.search(r"set `end` to at most ([\d.]+)", str(error.value))[1])
    assert read_media(kind, path, SETTINGS, Segment(min(max(segment.start, 0), 2.0), most)) is not None


def test_an_end_that_was_rounded_up_is_the_end(tmp_path):
    """ffprobe says 0.666667 of two thirds; mutant: no room for rounding."""
    path = write_video(tmp_path / "clip.mp4", grey_frames(2), fps=3)
    assert read_video(path, SETTINGS, Segment(0, 0.666667)).fps == pytest.approx(144)


BAD = {
    "start a text": ({"start": "1"}, r"media\[0\]\.start: expected seconds, 0 or more, got '1'"),
    "start below 0": ({"start": -0.5}, r"media\[0\]\.start: expected seconds, 0 or more, got -0\.5"),
    "end true": ({"end": True}, r"media\[0\]\.end: expected seconds, 0 or more, got True"),
    "end infinite": ({"end": float("inf")}, r"media\[0\]\.end: expected seconds, 0 or more, got inf"),
    "end not a number": ({"end": float("nan")}, r"media\[0\]\.end: expected seconds, 0 or more, got nan"),
    "end too large for a float": ({"end": 10**400}, r"media\[0\]\.end: expected seconds, 0 or more"),
    "empty": (
        {"start": 2, "end": 2},
        r"media\[0\]: `start` 2 must be less than `end` 2; correct them, or leave `end` out",
    ),
    "reversed": ({"start": 2, "end": 1}, r"media\[0\]: `start` 2 must be less than `end` 1"),
    "end 0": ({"end": 0}, r"media\[0\]: `start` 0 must be less than `end` 0"),
    "of an image": (
        {"type": "image", "start": 1},
        r"media\[0\]\.start: an image has no time; take `start` and `end` out",
    ),
}


def write_row(folder: Path, *media: dict, **fields) -> Path:
    row = {"id": "r", "problem": "Is it?", "problem_type": "yes_no", "solution": "yes", "media": media, **fields}
    (folder / "rows.jsonl").write_text(json.dumps(row))
    return folder / "rows.jsonl"


@pytest.mark.parametrize(("fields", "message"), BAD.values(), ids=BAD)
def test_a_bad_segment_is_named_with_its_row(tmp_path, fields, message):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(DataError, match=rf"rows\.jsonl:1 \(id 'r'\): {message}"):
        load_examples(write_row(tmp_path, {"type": "video", "path": "a.mp4", **fields}))


@pytest.mark.parametrize("fields", [{}, {"start": None, "end": None}, {"start": 0}])
def test_null_is_the_whole_file(tmp_path, fields):
    (tmp_path / "a.mp4").touch()
    [row] = load_examples(write_row(tmp_path, {"type": "video", "path": "a.mp4", **fields}))
    assert row.media[0] == MediaItem("video", str(tmp_path / "a.mp4"))


@pytest.fixture(scope="module")
def processor(tiny):
    return load_processor(tiny)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Three seconds; a colour and a tone for each."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    sound = np.concatenate([tone(300 * (k + 1), 1.0, 16_000) for k in range(3)])
    return str(write_video(path, grey_frames(24, 64, 64), codec="ffv1", sound=sound, sound_rate=16_000, gop=4))


@pytest.mark.parametrize("interleaved", [False, True])
def test_the_model_is_given_the_segment_of_both_tracks(processor, settings, film, tmp_path, interleaved):
    """As a file would give it that holds these seconds alone. Mutant: the sound of the whole file beside the segment."""
    example = Example("r", "Is it?", "yes_no", "yes", media=(MediaItem("video", film, True, 1.0, 2.0),))
    given = PromptEncoder(processor, settings)(build_messages(example, "short", interleaved), "r")
    cut = write_video(tmp_path / "cut.mkv", grey_frames(24, 64, 64)[8:16], codec="ffv1")
    heard = read_audio(film, replace(settings, max_audio_seconds=None))[16_000:32_000]
    wav = write_sound(tmp_path / "cut.wav", heard, 16_000, "FLOAT")
    media = (MediaItem("video", str(cut)), MediaItem("audio", str(wav)))
    alone = PromptEncoder(processor, settings)(build_messages(replace(example, media=media), "short"), "r")
    for name in ("pixel_values_videos", "video_grid_thw", "input_features", "feature_attention_mask"):
        np.testing.assert_array_equal(given.media[name], alone.media[name], err_msg=name)
    assert given.media["video_second_per_grid"] == pytest.approx(alone.media["video_second_per_grid"])


def test_no_cache_mixes_two_segments_of_a_file_up(processor, settings, film, tmp_path):
    """Mutants: a segment left out of the decode cache's key, the prompt's, the item's, the fingerprint's."""
    rows = [
        Example(str(k), "Is it?", "yes_no", "yes", media=(MediaItem("video", film, True, k, k + 1.0),))
        for k in range(3)
    ]
    prompts = [build_messages(row, "short") for row in rows]
    cache = DecodeCache(tmp_path / "cache", 64)
    for _ in range(2):
        encoder = PromptEncoder(processor, settings, decode_cache=cache)
        for prompt in (*prompts, *prompts):
            plain = PromptEncoder(processor, settings)(prompt)
            kept = encoder(prompt)
            assert all((kept.media[name] == plain.media[name]).all() for name in plain.media)
    assert cache.decoded == 6  # catches: no entry is ever found again
    assert len({prompt_key(p) for p in prompts}) == 3
    assert len({key for p in prompts for keys in media_keys(p, settings).values() for key in keys}) == 6
    prints = {media_fingerprint(film, settings, s) for s in (WHOLE, Segment(1), Segment(0, 1), Segment(0, 1.5))}
    assert len(prints) == 4 and media_fingerprint(film, settings) in prints
    assert len({encoder(p).identity for p in prompts}) == 3


def test_the_preflight_looks_again_where_a_segment_changed(processor, settings, film, tmp_path):
    """Mutant: `start` and `end` lost on the way into Arrow, where the fingerprint is taken."""
    folder, done = Path(film).parent, tmp_path / "done"
    for end, wanted in ((2, 1), (2, 0), (2.5, 1)):
        rows = load_sources(str(write_row(folder, {"type": "video", "path": "film.mkv", "start": 1, "end": end})))
        encoder = PromptEncoder(processor, settings)
        preflight(to_dataset(rows, "short"), encoder, done)
        assert encoder.encoded == wanted
    rows = load_sources(str(write_row(folder, {"type": "video", "path": "film.mkv", "start": 1, "end": 3.5})))
    with pytest.raises(
        DataError, match=r"row 'r': .*film\.mkv: the file lasts 3\.008 s .*set `end` to at most 3\.008 "
    ):
        preflight(to_dataset(rows, "short"), PromptEncoder(processor, settings), done)


def test_logs_and_pages_say_which_seconds(film, tmp_path):
    """Mutant: two segments of a film as one medium of the rollout page."""
    rows = [
        Example("r", "Is it?", "yes_no", "yes", media=(MediaItem("video", film, False, k, k + 1.5),)) for k in (0, 1)
    ]
    ((first,), (second,)) = media_paths(to_dataset(rows, "short")["prompt"])
    assert (first, second) == (f"{film}#t=0,1.5", f"{film}#t=1,2.5") and split_fragment(second) == (film, "#t=1,2.5")
    clip = write_video(tmp_path / "clip.mp4", grey_frames(8))
    shown = choose_media([f"{clip}#t=0,0.5", f"{clip}#t=0.5"], tmp_path / "page.html", 1)
    assert media_type(f"{clip}#t=0,0.5") == "video/mp4"
    assert sorted(m.name for m in shown.values()) == ["clip.mp4#t=0,0.5", "clip.mp4#t=0.5"]
    assert sorted(bool(m.data) for m in shown.values()) == [False, True]
    assert all((m.data or m.link).endswith(path.removeprefix(str(clip))) for path, m in shown.items())


def test_a_donor_lends_its_own_seconds_and_none_that_overlap(film):
    """Mutants: the path lent without its segment; overlapping segments of one film taken for other evidence."""
    spans = {"a": (0.0, 1.0), "b": (0.5, 1.5), "c": (1.0, None)}
    rows = [
        Example(k, "Is it?", "yes_no", "yes", media=(MediaItem("video", film, True, *v),)) for k, v in spans.items()
    ]
    for interleaved in (False, True):
        prompts = {row.id: build_messages(row, "short", interleaved) for row in rows}
        donors = choose_donors(rows, prompts, ("audio",), "seed")
        assert {k: d.id for k, d in donors.items()} == {"a": "c", "c": "a"}
        varied = vary(prompts["a"], "swapped_audio", "a", prompts["c"])
        assert items_of(varied) == [("video", (film, Segment(0.0, 1.0))), ("audio", (film, Segment(1.0)))]
        keys = media_keys(varied, SETTINGS)
        assert keys["audio"][0].segment == Segment(1.0) and keys["video"][0].segment == Segment(0.0, 1.0)


def test_a_segment_that_overlaps_is_told_from_one_that_touches():
    assert Segment(0, 2).overlaps(Segment(1)) and Segment(1).overlaps(Segment(0, 2)) and WHOLE.overlaps(Segment(5, 6))
    assert not Segment(0, 2).overlaps(Segment(2, 3)) and not Segment(2).overlaps(Segment(0, 2))
