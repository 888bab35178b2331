# SPDX-License-Identifier: Apache-2.0
"""The sound of files and of videos: pitch, length, channels, alignment with the picture, caps."""

import logging
from dataclasses import replace

import av
import numpy as np
import pytest

from media_files import grey_frames, tone, write_sound, write_video
from omni_grpo.data.media.audio import has_audio, resampled
from omni_grpo.data.media.reader import read_audio
from omni_grpo.data.media.settings import MediaError, MediaSettings

SETTINGS = MediaSettings()
RATE = SETTINGS.sampling_rate
MILLISECOND = RATE // 1000


def pitch(sound: np.ndarray) -> float:
    """The loudest frequency, in Hz."""
    return float(np.abs(np.fft.rfft(sound)).argmax() * RATE / len(sound))


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("tone.wav", "PCM_U8"),
        ("tone.wav", "PCM_16"),
        ("tone.wav", "PCM_24"),
        ("tone.wav", "FLOAT"),
        ("tone.wav", "DOUBLE"),
        ("tone.wav", "ULAW"),
        ("tone.flac", "PCM_16"),
        ("tone.flac", "PCM_24"),
        ("tone.mp3", None),
    ],
)
@pytest.mark.parametrize("rate", [44_100, 16_000])
def test_a_second_is_a_second_in_every_format(tmp_path, name, subtype, rate):
    """Catches: a resampler that is not flushed (16 samples fewer at 44.1 kHz), integers left unscaled."""
    sound = read_audio(write_sound(tmp_path / name, tone(440, rate=rate), rate, subtype), SETTINGS)
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert len(sound) == pytest.approx(RATE, abs=MILLISECOND - 1)
    assert pitch(sound) == pytest.approx(440, abs=1)
    assert np.abs(sound[1000:-1000]).max() == pytest.approx(0.5, abs=0.03)


def test_ogg_loses_no_more_than_its_codec_does(tmp_path):
    sound = read_audio(write_sound(tmp_path / "tone.ogg", tone(440)), SETTINGS)
    assert len(sound) == pytest.approx(RATE, abs=5 * MILLISECOND)  # libav's Vorbis decoder drops 128 samples
    assert pitch(sound) == pytest.approx(440, abs=2)


def test_the_tail_is_there(tmp_path):
    """A click in the last millisecond; catches: an unflushed resampler, whatever the length says."""
    sound = np.zeros(44_100, np.float32)
    sound[-40:] = 0.5
    assert np.abs(read_audio(write_sound(tmp_path / "click.wav", sound), SETTINGS)[-16:]).max() > 0.3


def test_sound_at_the_wanted_rate_is_untouched(tmp_path):
    sound = tone(440, rate=RATE)
    path = write_sound(tmp_path / "tone.wav", sound, RATE, "FLOAT")
    np.testing.assert_array_equal(read_audio(path, SETTINGS), sound)


def test_other_sampling_rates_can_be_asked_for(tmp_path):
    sound = read_audio(write_sound(tmp_path / "tone.wav", tone(440)), replace(SETTINGS, sampling_rate=24_000))
    assert len(sound) == 24_000


@pytest.mark.parametrize("form", ["flt", "fltp", "s16", "s16p"])
def test_what_needs_no_resampling_is_what_the_resampler_gives(form):
    """Mutants: 32767 in place of 32768, a -0.0 kept, a sample too few."""
    sound = np.concatenate([[0.0, -0.0, -1.0, 1.0], np.random.default_rng(0).uniform(-1, 1, 999)]).astype(np.float32)
    if form.startswith("s16"):
        sound = (sound * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(sound[None], format=form, layout="mono")
    frame.rate = RATE
    resampler = av.AudioResampler(format="flt", rate=RATE)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    wanted = np.concatenate([piece.to_ndarray().reshape(-1, 1).mean(axis=1) for piece in pieces])
    found = np.concatenate(list(resampled([frame], RATE)))
    assert found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("rate", [44_100, RATE])
@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 16])
def test_channels_are_averaged(tmp_path, channels, rate):
    """Only the first channel sounds; catches: libswresample's own weights (0.71 of each of two, which clips)."""
    sound = np.zeros((rate, channels), np.float32)
    sound[:, 0] = tone(440, rate=rate)
    heard = read_audio(write_sound(tmp_path / "wide.wav", sound, rate), SETTINGS)
    assert np.abs(heard[1000:-1000]).max() == pytest.approx(0.5 / channels, rel=0.02)


def test_two_channels_mix_both_tones_and_cannot_clip(tmp_path):
    path = write_sound(tmp_path / "two.wav", np.stack([tone(440, amplitude=0.8), tone(1000, amplitude=0.4)], axis=1))
    spectrum = np.abs(np.fft.rfft(read_audio(path, SETTINGS))) / (RATE / 2)
    assert spectrum[440] == pytest.approx(0.4, abs=0.01) and spectrum[1000] == pytest.approx(0.2, abs=0.01)
    loud = write_sound(tmp_path / "loud.wav", np.full((8000, 2), 3.0, np.float32), RATE, "FLOAT")
    assert np.abs(read_audio(loud, SETTINGS)).max() == 1.0


def test_format_may_change_midway(tmp_path):
    """Two mp3 files joined end to end, mono 44.1 kHz then stereo 22.05 kHz."""
    first = write_sound(tmp_path / "a.mp3", tone(440)).read_bytes()
    second = write_sound(tmp_path / "b.mp3", np.stack([tone(880, rate=22_050)] * 2, axis=1), 22_050).read_bytes()
    (tmp_path / "joined.mp3").write_bytes(first + second)
    sound = read_audio(tmp_path / "joined.mp3", SETTINGS)
    assert len(sound) == pytest.approx(2 * RATE, rel=0.1)
    assert pitch(sound[: RATE // 2]) == pytest.approx(440, abs=3)
    assert pitch(sound[-RATE // 2 :]) == pytest.approx(880, abs=3)


def test_no_sample_is_lost_where_the_format_changes():
    """Catches: a resampler that is dropped with its tail still in it."""
    mono = av.AudioFrame.from_ndarray(tone(440)[None], format="fltp", layout="mono")
    stereo = av.AudioFrame.from_ndarray(np.stack([tone(440, rate=22_050)] * 2), format="fltp", layout="stereo")
    mono.rate, stereo.rate = 44_100, 22_050
    assert sum(map(len, resampled([mono, stereo, mono], RATE))) == 3 * RATE


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv", "clip.webm", "clip.ts"])
def test_sound_track_of_a_video(tmp_path, name):
    webm = {"codec": "libvpx-vp9", "pix_fmt": "yuv420p"} if name == "clip.webm" else {}
    path = write_video(tmp_path / name, grey_frames(16), sound=tone(440, 2.0, 48_000), sound_rate=48_000, **webm)
    assert has_audio(path)
    sound = read_audio(path, SETTINGS)
    padding = 0 if name in ("clip.mp4", "clip.mov") else 25  # of the last AAC packet; mp4 tells it from sound
    assert -MILLISECOND < len(sound) - 2 * RATE < (padding + 1) * MILLISECOND
    assert pitch(sound) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_sound_that_starts_late_is_led_by_silence(tmp_path, name):
    """In mp4, which lists its packets, it is meant so; in mkv it may have been lost, and the user says."""
    path = write_video(tmp_path / name, grey_frames(24), sound=tone(440, 2.0), sound_start=1.0)
    sound = read_audio(path, SETTINGS if name == "clip.mp4" else replace(SETTINGS, max_missing_share=0.34))
    assert len(sound) == pytest.approx(3 * RATE, abs=30 * MILLISECOND)
    assert np.abs(sound[: RATE - 30 * MILLISECOND]).max() < 0.02
    assert np.abs(sound[RATE + 30 * MILLISECOND :]).max() > 0.4


def test_sound_before_the_picture_is_left_out_and_said(tmp_path, caplog):
    times_ms = [700 + 125 * k for k in range(8)]
    ramp = np.linspace(0, 1, 2 * 44_100, dtype=np.float32) * tone(440, 2.0, amplitude=1.0)  # the level tells the time
    path = write_video(tmp_path / "late.mp4", grey_frames(8), times_ms=times_ms, sound=ramp)
    with caplog.at_level(logging.WARNING):
        sound = read_audio(path, SETTINGS)
    assert len(sound) == pytest.approx(1.3 * RATE, abs=2 * MILLISECOND)
    assert np.abs(sound[:400]).max() == pytest.approx(0.35, abs=0.05)
    assert "late.mp4" in caplog.text and "0.70 s" in caplog.text


def test_digital_silence_is_sound(tmp_path):
    path = write_video(tmp_path / "silent.mp4", grey_frames(16), sound=np.zeros(2 * 44_100, np.float32))
    assert has_audio(path)
    sound = read_audio(path, SETTINGS)
    assert not sound.any() and len(sound) == pytest.approx(2 * RATE, abs=MILLISECOND)


def test_long_sound_is_refused_or_truncated_aloud(tmp_path, caplog):
    path = write_sound(tmp_path / "speech.wav", np.concatenate([tone(440, 2.0), tone(880, 1.0)]))
    short = replace(SETTINGS, max_audio_seconds=2.0)
    with pytest.raises(MediaError, match=r"speech\.wav.* 3\.0 s.*max_audio_seconds=2.*long_audio: truncate"):
        read_audio(path, short)
    with caplog.at_level(logging.WARNING):
        sound = read_audio(path, replace(short, long_audio="truncate"))
    assert len(sound) == 2 * RATE and pitch(sound) == pytest.approx(440, abs=1)  # the beginning
    assert "speech.wav" in caplog.text and "truncated" in caplog.text
    assert len(read_audio(path, replace(short, max_audio_seconds=None))) == 3 * RATE


def test_sound_of_exactly_the_cap_passes(tmp_path, caplog):
    """Catches: AAC's padding, or a sample of rounding, taken for sound past the cap."""
    cap = replace(SETTINGS, max_audio_seconds=2.0)
    assert len(read_audio(write_sound(tmp_path / "two.wav", tone(440, 2.0)), cap)) == 2 * RATE
    clip = write_video(tmp_path / "two.mp4", grey_frames(16), sound=tone(440, 2.0))
    assert len(read_audio(clip, cap)) == 2 * RATE
    assert not caplog.records
