# SPDX-License-Identifier: Apache-2.0
"""Every file that cannot be used is refused by name, with what is wrong and what to do."""

import re
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from media_files import cut_file, grey_frames, quadrants, tone, write_sound, write_video
from omni_grpo.data.media.audio import has_audio
from omni_grpo.data.media.reader import read_audio, read_image, read_video
from omni_grpo.data.media.settings import MediaError, MediaSettings

SETTINGS = MediaSettings()
RATE = SETTINGS.sampling_rate
READERS = {"video": read_video, "audio": read_audio, "image": read_image}
AGAIN = "get the file again, or drop the row"


def refusal(read: Callable, path: Path) -> str:
    """The message, less the path that it must begin with."""
    with pytest.raises(MediaError) as caught:
        read(path, SETTINGS)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def noisy_clip(path: Path, **options) -> Path:
    """A clip whose every frame takes many bytes, so that a cut anywhere loses some."""
    noise = np.random.default_rng(0).integers(0, 255, (24, 48, 64, 3), dtype=np.uint8)
    return write_video(path, list(noise), sound=tone(440, 3.0), **options)


@pytest.mark.parametrize("kind", READERS)
def test_missing_file(tmp_path, kind):
    assert refusal(READERS[kind], tmp_path / "gone.mp4") == (
        "there is no such file; correct the row's path, or media_root"
    )


@pytest.mark.parametrize("kind", READERS)
def test_directory(tmp_path, kind):
    assert refusal(READERS[kind], tmp_path) == "is a directory; name a file in it"


@pytest.mark.parametrize("kind", READERS)
def test_empty_file(tmp_path, kind):
    path = tmp_path / "empty.mp4"
    path.touch()
    assert refusal(READERS[kind], path) == f"the file is empty (0 bytes); {AGAIN}"


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_text_in_a_media_file_s_name(tmp_path, kind):
    path = tmp_path / "page.mp4"
    path.write_text("<html><body>404 not found</body></html>\n" * 20)
    message = refusal(READERS[kind], path)
    assert message.startswith("is not a video or sound file") and message.endswith(AGAIN)


def test_text_in_an_image_s_name(tmp_path):
    path = tmp_path / "page.jpg"
    path.write_text("<html></html>")
    assert re.fullmatch(rf"is not an image \(.*\); {AGAIN}", refusal(read_image, path))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.95, 0.999])
def test_cut_video(tmp_path, name, keep):
    """Whether the index is behind the data (lost) or the container counts its bytes in front."""
    path = cut_file(noisy_clip(tmp_path / name), keep)
    for read in (read_video, read_audio):
        assert re.fullmatch(rf"the file is truncated, \d+ bytes are missing; {AGAIN}", refusal(read, path))
    with pytest.raises(MediaError, match="truncated"):
        has_audio(path)  # catches: "if_present" finding no sound in a file that lost it


def test_cut_between_two_packets_of_a_file_whose_boxes_were_made_whole(tmp_path):
    """An mp4 with its index in front and the data box's size corrected: only the index knows what is missing."""
    path = noisy_clip(tmp_path / "clip.mp4", mux={"movflags": "faststart"})
    with av.open(str(path)) as container:
        cut = max(packet.pos for packet in container.demux(video=0) if packet.size and packet.pts < 20_000)
    content = bytearray(path.read_bytes()[:cut])
    box = content.index(b"mdat") - 4
    content[box : box + 4] = (len(content) - box).to_bytes(4, "big")
    path.write_bytes(content)
    assert re.fullmatch(
        rf"the file is truncated, \d+ of 24 video packets are there; {AGAIN}", refusal(read_video, path)
    )


def test_index_lost_in_a_file_that_does_not_say_its_size(tmp_path):
    path = noisy_clip(tmp_path / "clip.mp4")
    content = bytearray(path.read_bytes())
    box = content.index(b"mdat") - 4
    content[box : box + 4] = bytes(4)  # "to the end of the file", as a recorder that crashed leaves it
    path.write_bytes(content[: content.index(b"moov") - 4])
    message = refusal(read_video, path)
    assert "truncated before its index" in message and message.endswith(AGAIN)


def test_damage_in_the_middle(tmp_path):
    path = noisy_clip(tmp_path / "clip.mp4")
    content = bytearray(path.read_bytes())
    content[20_000:30_000] = bytes(10_000)
    path.write_bytes(content)
    assert re.fullmatch(rf"cannot be decoded, it is damaged \(.*\); {AGAIN}", refusal(read_video, path))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("tone.wav", r"the file is truncated, \d+ bytes are missing"),
        ("tone.aiff", r"the file is truncated, \d+ bytes are missing"),
        ("tone.caf", r"the file is truncated, the packet at 1\.\d\d s is cut short"),
        ("tone.flac", r"the file is truncated, 88200 samples are declared, \d+ are there"),
    ],
)
def test_cut_sound(tmp_path, name, what):
    path = cut_file(write_sound(tmp_path / name, tone(440, 2.0)), 0.6)
    assert re.fullmatch(rf"{what}; {AGAIN}", refusal(read_audio, path))


def test_live_recording_that_declares_no_length_is_read(tmp_path):
    """Catches: a declared size of "unknown" taken for a number."""
    path = noisy_clip(tmp_path / "live.mkv", mux={"live": "1"})
    assert read_video(path, SETTINGS).frames.shape == (8, 48, 64, 3)
    wav = write_sound(tmp_path / "pipe.wav", tone(440))
    content = bytearray(wav.read_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    wav.write_bytes(content)
    assert len(read_audio(wav, SETTINGS)) == SETTINGS.sampling_rate


MARKS = [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000]


@pytest.mark.parametrize("riff", MARKS)
@pytest.mark.parametrize("data", [*MARKS, None])
def test_wav_from_a_pipe_is_read_to_its_end(tmp_path, riff, data):
    """What a program that cannot go back leaves where a size belongs. Mutants: one of the marks taken for a number, a
    wav that ends within a block of samples refused, or its last whole sample lost."""
    sound = tone(440, 1.01, RATE)
    for surplus in range(3):  # bytes that are no whole sample of two channels
        path = write_sound(tmp_path / "pipe.wav", np.stack([sound, sound], axis=1), RATE, "PCM_16")
        content = bytearray(path.read_bytes()) + bytes(surplus if data is not None else 0)
        content[4:8] = riff.to_bytes(4, "little")
        if data is not None:
            content[40:44] = data.to_bytes(4, "little")
        path.write_bytes(content)
        np.testing.assert_allclose(read_audio(path, SETTINGS), sound, atol=1e-4)


@pytest.mark.parametrize("samples", [2048, 4096, 3000])
def test_wav_from_a_pipe_that_ends_in_half_a_sample_after_a_whole_packet(tmp_path, samples):
    """Mutant: the lone byte given to the decoder, which fails on it."""
    path = write_sound(tmp_path / "pipe.wav", np.full(samples, 0.5, np.float32), RATE, "PCM_16")
    content = bytearray(path.read_bytes()) + b"\1"
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    assert len(read_audio(path, SETTINGS)) == samples


def test_wav_whose_samples_are_counted_though_the_file_is_not(tmp_path):
    """Mutant: the size of the samples not looked at where the file's own is unknown."""
    path = cut_file(write_sound(tmp_path / "pipe.wav", tone(440)), 0.7)
    content = bytearray(path.read_bytes())
    content[4:8] = bytes(4)
    path.write_bytes(content)
    assert re.fullmatch(rf"the file is truncated, \d+ bytes are missing; {AGAIN}", refusal(read_audio, path))


@pytest.mark.parametrize("keep", [1.0, 0.7])
def test_flv_with_h264_and_aac(tmp_path, keep):
    """A whole one is read. Mutant: the packets counted against FLV's index, which holds the headers too."""
    path = cut_file(noisy_clip(tmp_path / "clip.flv", pix_fmt="yuv420p"), keep)
    if keep < 1:
        assert re.fullmatch(
            rf"the file is truncated, the packet at .* is cut short; {AGAIN}", refusal(read_video, path)
        )
    else:
        assert read_video(path, SETTINGS).frames.shape == (8, 48, 64, 3)
        assert len(read_audio(path, SETTINGS)) == pytest.approx(3 * RATE, rel=0.02)


def test_sound_without_samples(tmp_path):
    message = refusal(read_audio, write_sound(tmp_path / "nothing.wav", np.zeros(0, np.float32)))
    assert message == f"its audio stream holds nothing to present; {AGAIN}"


def test_samples_that_are_not_numbers(tmp_path):
    path = write_sound(tmp_path / "nan.wav", np.full(1000, np.nan, np.float32), 16_000, "FLOAT")
    assert refusal(read_audio, path) == f"its sound holds samples that are not finite numbers; {AGAIN}"


def test_video_without_sound(tmp_path):
    path = write_video(tmp_path / "mute.mp4", grey_frames(8))
    assert not has_audio(path)
    assert refusal(read_audio, path) == "has no sound track; give a file that has one, or drop the row"


def test_sound_given_as_video(tmp_path):
    path = write_sound(tmp_path / "tone.wav", tone(440))
    assert refusal(read_video, path) == 'has no video stream; give it as {"type": "audio"}, or drop the row'


def test_cover_of_a_song_is_no_video(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        song = container.add_stream("libmp3lame", rate=44_100)
        song.layout = "mono"
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(quadrants(), format="rgb24")
        sound = av.AudioFrame.from_ndarray(tone(440)[None], format="fltp", layout="mono")
        picture.pts, sound.pts, sound.rate = 0, 0, 44_100
        container.mux([*cover.encode(picture), *cover.encode()])
        container.mux([*song.encode(sound), *song.encode()])
    assert refusal(read_video, path).startswith("has no video stream")
    assert len(read_audio(path, SETTINGS)) == pytest.approx(SETTINGS.sampling_rate, abs=16)


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg"])
def test_image_given_as_video(tmp_path, name):
    Image.fromarray(quadrants()).save(tmp_path / name)
    assert refusal(read_video, tmp_path / name) == 'is a still image; give it as {"type": "image"}'
    assert not has_audio(tmp_path / name)


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg"])
def test_cut_image(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    message = refusal(read_image, cut_file(tmp_path / name, 0.5))
    assert re.fullmatch(rf"is a damaged image \(.*truncated.*\); {AGAIN}", message)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_too_thin_to_resize(tmp_path, kind):
    strip = np.zeros((2, 402, 3), np.uint8)
    path = tmp_path / "strip.png"
    if kind == "video":
        path = write_video(tmp_path / "strip.mp4", [strip] * 4)
    else:
        Image.fromarray(strip).save(path)
    with pytest.raises(MediaError, match=rf"{path.name}: 402×2 pixels is thinner than 1:200; crop it"):
        READERS[kind](path, MediaSettings(max_pixels=100_000))
    assert READERS[kind](path, SETTINGS) is not None  # left to the processor


def test_playlist_does_not_reach_other_files(tmp_path):
    write_video(tmp_path / "secret.mp4", grey_frames(8))
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile secret.mp4\n")
    assert refusal(read_video, path) == "is a playlist (concat); name the media file itself"
