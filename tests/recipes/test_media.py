# SPDX-License-Identifier: Apache-2.0
"""The frames of a video, images, sizes, settings and fingerprints, from real files."""

import logging
import struct
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from media_files import (
    cut_file,
    frame_numbers,
    grey_frames,
    quadrants,
    set_display_matrix,
    tone,
    write_sound,
    write_tracks,
    write_video,
)
from omni_grpo.data.media.decode_cache import DecodeCache
from omni_grpo.data.media.image import fitted_size
from omni_grpo.data.media.reader import media_fingerprint, read_audio, read_image, read_media, read_video
from omni_grpo.data.media.scan import Span
from omni_grpo.data.media.settings import MediaError, MediaSettings
from omni_grpo.data.media.video import frame_count, sample_instants, shown_at

SETTINGS = MediaSettings()
RATE = SETTINGS.sampling_rate
MIDDLES_OF_24 = [1, 4, 7, 10, 13, 16, 19, 22]  # 8 parts of 24 frames


def on_show(times_ms: list[int], end_ms: float, count: int) -> list[int]:
    """The definition, by brute force: the last frame that is not after the middle of each part."""
    start = times_ms[0]
    middles = [start + (end_ms - start) * (part + 0.5) / count for part in range(count)]
    return [max(k for k, time in enumerate(times_ms) if time <= middle) for middle in middles]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("clip.mp4", "libx264", "yuv420p"),
        ("clip.mov", "libx264", "yuv444p"),
        ("clip.mkv", "ffv1", "yuv444p"),
        ("clip.webm", "libvpx-vp9", "yuv420p"),
        ("clip.ts", "libx264", "yuv420p"),
        ("clip.flv", "libx264", "yuv420p"),
        ("clip.avi", "mpeg4", "yuv420p"),
        ("b_frames.avi", "libx264", "yuv420p"),  # catches: trusting the presentation times that libav guesses for AVI
    ],
)
def test_uniform_takes_the_middle_of_each_part(tmp_path, name, codec, pix_fmt):
    video = read_video(write_video(tmp_path / name, grey_frames(24), codec=codec, pix_fmt=pix_fmt), SETTINGS)
    assert frame_numbers(video.frames) == MIDDLES_OF_24  # catches: linspace over the ends, first of each part
    assert video.frames.shape == (8, 48, 64, 3) and video.frames.dtype == np.uint8
    assert video.fps == pytest.approx(8 / 3.0)
    np.testing.assert_allclose(video.timestamps, (np.arange(8) + 0.5) * 3 / 8, atol=1e-3)


@pytest.mark.parametrize(("name", "b_frames"), [("clip.mp4", False), ("clip.mkv", True)])
@pytest.mark.parametrize(
    "times_ms",
    [
        [0, 40, 80, 500, 540, 1000, 1010, 1900],  # bursts and pauses
        [0, 1000, 1010, 1020, 1030, 1040, 1050, 1060],  # catches: choosing by index, or by mean frame rate
        [700, 800, 900, 2000, 2100, 2200, 2300, 2400],  # catches: instants counted from 0, not from the first frame
    ],
)
def test_variable_frame_rate_goes_by_presentation_time(tmp_path, name, b_frames, times_ms):
    path = write_video(tmp_path / name, grey_frames(8, 35, 27), times_ms=times_ms, b_frames=b_frames)
    video = read_video(path, replace(SETTINGS, num_frames=16))
    assert frame_numbers(video.frames) == on_show(times_ms, times_ms[-1] + 125, 16)
    assert video.frames.shape[1:] == (27, 35, 3)


def test_reordered_frames_of_variable_rate_in_mp4(tmp_path):
    """Catches: the decode-time gap of the last frame shown (here 1.1 s) taken for how long it is shown."""
    times_ms = [700, 800, 900, 2000, 2100, 2200, 2300, 2400]
    video = read_video(write_video(tmp_path / "clip.mp4", grey_frames(8), times_ms=times_ms), SETTINGS)
    assert frame_numbers(video.frames) == on_show(times_ms, 2400 + 1700 / 7, 8)  # the mean gap


def test_frames_before_the_edit_list_are_never_shown(tmp_path):
    """Five frames with negative times, as a cut without re-encoding leaves them: decoded, hidden by an edit list."""
    times_ms = [125 * (k - 5) for k in range(24)]
    video = read_video(write_video(tmp_path / "cut.mp4", grey_frames(24), times_ms=times_ms), SETTINGS)
    assert frame_numbers(video.frames) == [5 + k for k in on_show(times_ms[5:], 125 * 19, 8)]
    assert video.timestamps[-1] < 19 / 8


@pytest.mark.parametrize(
    ("turn", "corners"),  # clockwise from the top left, of a picture that is stored as r g b k
    [(0, "rgbk"), (90, "krgb"), (180, "bkrg"), (270, "gbkr"), ("mirrored", "grkb"), ("90 mirrored", "rkbg")],
)
@pytest.mark.parametrize(("width", "height"), [(64, 48), (35, 27)])
def test_display_matrix_is_applied(tmp_path, turn, corners, width, height):
    path = set_display_matrix(write_video(tmp_path / "turned.mp4", [quadrants(width, height)] * 4), turn)
    frame = read_video(path, SETTINGS).frames[0]
    assert frame.shape == ((width, height, 3) if turn in (90, 270, "90 mirrored") else (height, width, 3))
    colours = [frame[2, 2], frame[2, -3], frame[-3, -3], frame[-3, 2]]
    assert "".join("rgb"[pixel.argmax()] if pixel.max() > 128 else "k" for pixel in colours) == corners


def test_turned_variable_rate_clip_keeps_its_frames(tmp_path):
    times_ms = [0, 40, 80, 500, 540, 1000, 1010, 1900]
    path = write_video(tmp_path / "both.mp4", grey_frames(8, 35, 27), times_ms=times_ms)
    plain, turned = read_video(path, SETTINGS), read_video(set_display_matrix(path, 90), SETTINGS)
    np.testing.assert_array_equal(turned.frames, np.rot90(plain.frames, -1, axes=(1, 2)))


def test_rotate_tag_is_applied_where_there_is_no_matrix(tmp_path):
    path = write_video(tmp_path / "tagged.mkv", [quadrants()] * 4)
    plain = read_video(path, SETTINGS).frames[0]
    with av.open(str(path)) as source, av.open(str(tmp_path / "new.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.metadata["rotate"] = "90"
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    np.testing.assert_array_equal(read_video(tmp_path / "new.mkv", SETTINGS).frames[0], np.rot90(plain, -1))


def test_colours_follow_the_stream_s_matrix(tmp_path):
    """BT.709 and BT.601 code one colour differently; catches: one fixed matrix for both."""
    colour = np.array([200, 30, 60])
    for colorspace, name in ((1, "itu709"), (5, "itu601")):
        path = tmp_path / f"{name}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
            stream.codec_context.colorspace = colorspace
            pixels = np.tile(colour.astype(np.uint8), (48, 64, 1))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv444p", dst_colorspace=name)
            frame.pts = 0
            container.mux([*stream.encode(frame), *stream.encode()])
        assert np.abs(read_video(path, SETTINGS).frames[0, 5, 5].astype(int) - colour).max() <= 3


def test_size_that_changes_midway_is_brought_to_the_first(tmp_path):
    """As a video call records it: VP9 may start a new size at any key frame."""
    parts = [
        write_video(tmp_path / f"{width}.webm", grey_frames(8, width, 48), codec="libvpx-vp9", pix_fmt="yuv420p")
        for width in (64, 96)
    ]
    with av.open(str(tmp_path / "call.webm"), "w") as target:
        stream = target.add_stream("libvpx-vp9", rate=8)
        stream.width, stream.height, stream.time_base = 64, 48, Fraction(1, 1000)
        for part, path in enumerate(parts):
            with av.open(str(path)) as source:
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = packet.pts + 1000 * part
                        packet.stream = stream
                        target.mux(packet)
    video = read_video(tmp_path / "call.webm", SETTINGS)
    assert video.frames.shape == (8, 48, 64, 3)
    assert frame_numbers(video.frames) == [1, 3, 5, 7] * 2


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("default", [(0, 0), (1, 1), (1, 2)])
def test_of_several_tracks_the_default_one_is_read_and_said(tmp_path, caplog, suffix, default):
    """Mutants: the first track, whichever is marked; a cache that says nothing at the second reading."""
    films = [grey_frames(8), grey_frames(24)[16:]]
    sounds = [tone(300 * (k + 1), 1.0, 16_000) for k in range(3)]
    path = write_tracks(tmp_path / f"film.{suffix}", films, sounds, default)
    cache = DecodeCache(tmp_path / "cache", 64)
    for read in (read_media, cache.read, cache.read):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            video, sound = read("video", path, SETTINGS), read("audio", path, SETTINGS)
        assert frame_numbers(video.frames) == [k + 16 * default[0] for k in range(8)]
        assert np.abs(np.fft.rfft(sound[:16_000])).argmax() == pytest.approx(300 * (default[1] + 1), abs=2)
        language = ("deu", "eng", "fra")[default[1]]
        assert f"has 2 video tracks; the default one is read (stream {default[0]})" in caplog.text
        assert (
            f"has 3 audio tracks; the default one is read (stream {2 + default[1]}, language {language})"
            in caplog.text
        )
        assert caplog.text.count(path.name) == 2


def test_sound_begins_with_the_picture_that_is_shown(tmp_path):
    """Mutant: with the first picture, where another is the default."""
    films, sound = [grey_frames(8), grey_frames(8)], np.concatenate([tone(440, 0.5, RATE), tone(880, 1.0, RATE)])
    path = write_tracks(tmp_path / "film.mkv", films, [sound], (1, 0), starts=(0, 4))
    heard = read_audio(path, SETTINGS)
    assert len(heard) == pytest.approx(RATE, abs=1100) and np.abs(np.fft.rfft(heard[:RATE])).argmax() == 880


def test_one_track_is_not_worth_a_word(tmp_path, caplog):
    path = write_video(tmp_path / "clip.mp4", grey_frames(8), sound=tone(440))
    read_video(path, SETTINGS), read_audio(path, SETTINGS)
    assert not caplog.records


def test_short_clip_repeats_its_frames_evenly(tmp_path):
    path = write_video(tmp_path / "short.mp4", grey_frames(3))
    assert frame_numbers(read_video(path, SETTINGS).frames) == [0, 0, 0, 1, 1, 2, 2, 2]
    path = write_video(tmp_path / "still.mp4", grey_frames(1))
    assert frame_numbers(read_video(path, SETTINGS).frames) == [0] * 8


def test_fps_sampling_counts_frames_from_the_clip_s_length(tmp_path):
    path = write_video(tmp_path / "clip.mp4", grey_frames(24))  # 3 s
    video = read_video(path, replace(SETTINGS, video_sampling="fps", fps=4.0))
    assert len(video.frames) == 12 and video.fps == pytest.approx(4.0)
    assert frame_numbers(video.frames) == list(range(1, 24, 2))
    few = read_video(path, replace(SETTINGS, video_sampling="fps", fps=4.0, max_frames=6))
    assert frame_numbers(few.frames) == [2, 6, 10, 14, 18, 22]  # thinned over the whole clip; catches: cut at the cap
    assert (
        frame_count(2.99, replace(SETTINGS, video_sampling="fps")) == 6
    )  # catches: 3 s less a rounding made 4 frames
    assert few.fps == pytest.approx(2.0)  # the true rate, which places the frames in time
    assert len(read_video(path, replace(SETTINGS, video_sampling="fps", fps=0.1)).frames) == 4  # min_frames


def test_reading_twice_gives_equal_arrays(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [np.roll(quadrants(), 5 * k, axis=1) for k in range(20)])
    np.testing.assert_array_equal(read_video(path, SETTINGS).frames, read_video(path, SETTINGS).frames)


@given(
    start=st.integers(-1000, 10**9),
    ticks=st.integers(1, 10**7),
    count=st.integers(1, 768),
)
def test_instants_are_the_middles_of_equal_parts(start, ticks, count):
    instants = sample_instants(Span(Fraction(start), Fraction(start + ticks)), count)
    assert len(instants) == count
    assert instants[0] - start == start + ticks - instants[-1] == Fraction(ticks, 2 * count)
    assert {later - earlier for earlier, later in pairwise(instants)} <= {Fraction(ticks, count)}


@given(
    gaps=st.lists(st.integers(1, 5000), min_size=1, max_size=60),
    start=st.integers(-100, 10_000),
    count=st.integers(1, 64),
)
def test_choice_of_frames_matches_the_definition(gaps, start, count):
    """Monotone, in range, exactly `count`, and each the last one not after its instant, for any frame times."""
    times = [start + sum(gaps[:k]) for k in range(len(gaps))]
    instants = sample_instants(Span(Fraction(start), Fraction(start + sum(gaps))), count)
    chosen = list(shown_at(((time, k) for k, time in enumerate(times)), instants))
    assert len(chosen) == count and chosen == sorted(chosen)
    assert chosen[0] >= 0 and chosen[-1] < len(times)
    for k, instant in zip(chosen, instants, strict=True):
        assert times[k] <= instant and (k + 1 == len(times) or times[k + 1] > instant)


@given(frames=st.integers(1, 400), count=st.integers(1, 64), ticks=st.integers(1, 1001))
def test_constant_rate_is_sampled_uniformly(frames, count, ticks):
    instants = sample_instants(Span(Fraction(0), Fraction(frames * ticks)), count)
    chosen = list(shown_at(((k * ticks, k) for k in range(frames)), instants))
    assert chosen == [(2 * part + 1) * frames // (2 * count) for part in range(count)]
    steps = {later - earlier for earlier, later in pairwise(chosen)}
    assert max(steps, default=0) - min(steps, default=0) <= 1
    if frames <= count:  # every frame is seen, equally often up to one
        repeats = np.bincount(chosen, minlength=frames)
        assert repeats.min() >= 1 and repeats.max() - repeats.min() <= 1


@given(
    seconds=st.floats(0.01, 10_000),
    fps=st.floats(0.1, 30),
    multiple=st.integers(1, 4),
    low=st.integers(1, 8),
    extra=st.integers(0, 100),
)
def test_fps_frame_count_stays_in_its_caps(seconds, fps, multiple, low, extra):
    caps = {"frame_multiple": multiple, "min_frames": low * multiple, "max_frames": (low + extra) * multiple}
    count = frame_count(seconds, MediaSettings(video_sampling="fps", fps=fps, num_frames=multiple, **caps))
    assert count % multiple == 0 and caps["min_frames"] <= count <= caps["max_frames"]
    if caps["min_frames"] < count < caps["max_frames"]:
        assert abs(count - seconds * fps) <= multiple / 2 + 1e-6


def test_frames_are_read_no_further_than_needed():
    read = []

    def frames():
        for k in range(100):
            read.append(k)
            yield k, k

    assert list(shown_at(frames(), [Fraction(5), Fraction(7)])) == [5, 7]
    assert read[-1] == 8


@given(
    height=st.integers(28, 3000),
    width=st.integers(28, 3000),
    low=st.integers(1, 50),
    extra=st.integers(0, 2000),
)
def test_fitted_size_is_in_bounds_and_in_step(height, width, low, extra):
    if max(height, width) > 20 * min(height, width):
        return
    settings = MediaSettings(min_pixels=low * 28 * 28, max_pixels=(4 * low + 20 + extra) * 28 * 28)
    fitted = fitted_size(height, width, settings, "clip.mp4")
    assert fitted[0] % 28 == 0 and fitted[1] % 28 == 0
    assert settings.min_pixels <= fitted[0] * fitted[1] <= settings.max_pixels
    assert fitted == fitted_size(width, height, settings, "clip.mp4")[::-1]  # a turned frame gets the turned size


def test_bounds_set_the_size_of_frames_and_images(tmp_path):
    settings = MediaSettings(max_pixels=28 * 56)
    path = set_display_matrix(write_video(tmp_path / "turned.mp4", [quadrants(120, 60)] * 4), 90)
    assert read_video(path, settings).frames.shape == (8, 56, 28, 3)
    Image.fromarray(quadrants(120, 60)).save(tmp_path / "wide.png")
    image = read_image(tmp_path / "wide.png", settings)
    assert image.flags.writeable, "resized, too"
    assert image.shape == (28, 56, 3)
    assert image[5, 5].argmax() == 0 and image[5, -5].argmax() == 1 and image[-5, -5].argmax() == 2


ODD_TAGS = {  # tag, type, count, value: what cameras and editors get wrong
    "a resolution in words": (0x011A, 2, 4, b"abc\0"),
    "a software of floats": (0x0131, 12, 1, struct.pack("<d", 1.5)),
    "a date that is a number": (0x0132, 4, 1, struct.pack("<I", 7)),
    "an offset beyond the tags": (0x8769, 4, 1, struct.pack("<I", 99_999)),
    "an unknown type": (0x9C9B, 99, 1, b"\1\2\3\4"),
    "a text of no length": (0x010E, 2, 0, bytes(4)),
    "an orientation twice, in words": (0x0112, 2, 2, b"6\0\0\0"),
    "a count past the end": (0x013B, 2, 4000, struct.pack("<I", 8)),
}


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("odd", ODD_TAGS.values(), ids=ODD_TAGS)
def test_an_odd_tag_is_no_reason_to_refuse_a_photo(tmp_path, odd, kind):
    """Mutant: Pillow's exif_transpose, which writes the tags anew (`struct.error`, `TypeError`)."""
    tag, form, count, value = odd
    is_far = len(value) > 4
    entries = [struct.pack("<HHI4s", 0x0112, 3, 1, struct.pack("<I", 6))]
    entries.append(struct.pack("<HHI4s", tag, form, count, struct.pack("<I", 38) if is_far else value))
    tags = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + b"".join(sorted(entries)) + bytes(4)
    Image.fromarray(quadrants()).save(tmp_path / f"photo.{kind}", exif=tags + (value if is_far else b""), quality=100)
    pixels = read_image(tmp_path / f"photo.{kind}", SETTINGS)
    assert pixels.flags.writeable, "torch warns of memory that it may not write"
    if tag == 0x0112:  # the orientation itself cannot be read: as it is stored
        assert pixels.shape == (48, 64, 3)
    else:
        assert pixels.shape == (64, 48, 3) and pixels[2, -3].argmax() == 0 and pixels[-3, -3].argmax() == 1


@pytest.mark.parametrize("odd", [False, True])
def test_a_turned_tiff_is_turned_once(tmp_path, odd):
    """Pillow turns a TIFF as it loads it. Mutant: its orientation looked up before that."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = 6
    if odd:
        tags.tagtype[0x011A], tags[0x011A] = 2, "abc"
    Image.fromarray(quadrants()).save(tmp_path / "scan.tiff", tiffinfo=tags)
    assert read_image(tmp_path / "scan.tiff", SETTINGS).shape == (64, 48, 3)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by 90 degrees
    Image.fromarray(quadrants()).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "phone.jpg", SETTINGS)
    assert image.shape == (64, 48, 3) and image.dtype == np.uint8
    assert image[2, -3].argmax() == 0 and image[2, 2].max() < 64  # red went to the top right


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(tmp_path, mode):
    """Catches: convert("RGB"), which shows the black that lies beneath."""
    clear = {"RGBA": (0, 0, 0, 0), "LA": (0, 0), "P": 0}[mode]
    image = Image.new(mode, (40, 30), clear)
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 10, 10])
    image.paste({"RGBA": (10, 10, 10, 255), "LA": (10, 255), "P": 1}[mode], (0, 0, 20, 30))
    image.save(tmp_path / "cut_out.png", **({"transparency": 0} if mode == "P" else {}))
    pixels = read_image(tmp_path / "cut_out.png", SETTINGS)
    assert (pixels[:, 20:] == 255).all() and (pixels[:, :20] == 10).all()


def test_half_transparent_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(tmp_path / "veil.png")
    assert np.abs(read_image(tmp_path / "veil.png", SETTINGS).astype(int) - 127).max() <= 1


def test_grey_images_of_8_and_16_bits(tmp_path):
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "grey.png", SETTINGS) == 77).all()
    assert (read_image(tmp_path / "deep.png", SETTINGS) == 127).all()  # catches: clipping to 255, dropping high bits


def test_fingerprint_follows_content_and_settings_alone(tmp_path):
    first = write_sound(tmp_path / "a.wav", tone(440, 0.1))
    copy = tmp_path / "b.wav"
    copy.write_bytes(first.read_bytes())
    key = media_fingerprint(first, SETTINGS)
    assert key == media_fingerprint(copy, MediaSettings())
    assert key != media_fingerprint(first, replace(SETTINGS, num_frames=4))
    assert key != media_fingerprint(cut_file(copy, 0.9), SETTINGS)
    with pytest.raises(MediaError, match=r"gone\.wav: there is no such file"):
        media_fingerprint(tmp_path / "gone.wav", SETTINGS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"video_sampling": "random"}, "video_sampling='random' must be one of"),
        ({"long_audio": "drop"}, "long_audio='drop' must be one of"),
        ({"num_frames": 7}, "num_frames=7 must be a positive multiple of frame_multiple=2"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"video_sampling": "fps", "min_frames": 3}, "min_frames=3"),
        ({"video_sampling": "fps", "min_frames": 8, "max_frames": 6}, "min_frames=8 is more than max_frames=6"),
        ({"fps": 0.0}, "fps=0.0 must be more than 0"),
        ({"fps": float("nan")}, "fps=nan must be more than 0"),
        ({"min_pixels": 100, "max_pixels": 50}, "min_pixels=100 is more than max_pixels=50"),
        ({"max_audio_seconds": 0.0}, "max_audio_seconds=0.0 must be more than 0"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MediaSettings(**values)


def test_media_paths_may_look_like_addresses(tmp_path, monkeypatch):
    """Catches: a colon in a name taken for a protocol."""
    write_video(tmp_path / "clip.mp4", grey_frames(8)).rename(tmp_path / "http:clip %d.mp4")
    monkeypatch.chdir(tmp_path)
    assert frame_numbers(read_video("http:clip %d.mp4", SETTINGS).frames) == list(range(8))
