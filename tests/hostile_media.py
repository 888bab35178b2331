# SPDX-License-Identifier: Apache-2.0
"""Media files of every common kind, and damaged and hostile ones; each with what must come of it."""

import os
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

from media_files import cut_file, grey_frames, quadrants, tone, write_video

# ---------------------------------------------------------------------------------------------------------------------
# Whole files: one second of eight frames, of a tone, or both. name -> how it is written, and the modalities to be read.


def film(codec: str, pix_fmt: str = "yuv420p", sound: str | None = "aac", **options) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with av.open(str(path), "w", **options) as container:
            video = container.add_stream(codec, rate=25 if codec == "mpeg2video" else 8)
            video.width, video.height, video.pix_fmt, video.codec_context.thread_count = 64, 48, pix_fmt, 1
            audio = None
            if sound:
                audio = container.add_stream(sound, rate=48_000)
                audio.layout = "mono"
            for k, pixels in enumerate(grey_frames(25 if codec == "mpeg2video" else 8)):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = k, 1 / video.codec_context.framerate
                container.mux(video.encode(frame))
            container.mux(video.encode())
            if audio:
                _encode(container, audio, tone(440, 1.0, 48_000))

    return write


def sound(codec: str, rate: int = 48_000, container_format: str | None = None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with av.open(str(path), "w", format=container_format) as container:
            audio = container.add_stream(codec, rate=rate)
            audio.layout = "mono"
            _encode(container, audio, tone(440, 1.0, rate))

    return write


def _encode(container, audio, samples: np.ndarray) -> None:
    block = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    block.rate, block.pts, block.time_base = audio.rate, 0, Fraction(1, audio.rate)
    resampler = av.AudioResampler(
        audio.format.name, audio.layout.name, audio.rate, audio.codec_context.frame_size or None
    )
    for frame in [*resampler.resample(block), *resampler.resample(None)]:
        container.mux(audio.encode(frame))
    container.mux(audio.encode())


def by_soundfile(
    subtype: str | None = None, rate: int = 48_000, kind: str | None = None, seconds: float = 1.0
) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, tone(440, seconds, rate), rate, subtype=subtype, format=kind)


def picture(mode: str = "RGB") -> Callable[[Path], None]:
    return lambda path: Image.fromarray(quadrants()).convert(mode).save(path)


def animation(path: Path) -> None:
    first, *others = [Image.fromarray(pixels) for pixels in grey_frames(8)]
    first.save(path, save_all=True, append_images=others, duration=125)


def named_wrongly(write: Callable[[Path], None], name: str) -> Callable[[Path], None]:
    """A file under the ending of another kind."""

    def write_and_rename(path: Path) -> None:
        write(path.with_name(name))
        path.with_name(name).rename(path)

    return write_and_rename


def with_latin_tags(path: Path) -> None:
    """What older programs wrote: a title in Latin-1, which is not UTF-8."""
    by_soundfile("PCM_16", 16_000)(path)
    content = bytearray(path.read_bytes())
    title = b"LIST" + struct.pack("<I", 4 + 8 + 8) + b"INFOINAM" + struct.pack("<I", 8) + b"Caf\xe9 M\xfc\0"
    path.write_bytes(_riff_sized(content + title))


def mp3_with_latin_tags(path: Path) -> None:
    by_soundfile()(path)
    path.write_bytes(path.read_bytes() + b"TAG" + b"Caf\xe9 M\xfcller".ljust(124, b"\0") + b"\x0c")


def mkv_with_latin_tags(path: Path) -> None:
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Cafe Mueller"
        audio = container.add_stream("flac", rate=16_000)
        audio.layout = "mono"
        _encode(container, audio, tone(440, 1.0, 16_000))
    path.write_bytes(path.read_bytes().replace(b"Cafe Mueller", b"Caf\xe9 M\xfcller "))


BOTH, VIDEO, AUDIO, IMAGE = ("video", "audio"), ("video",), ("audio",), ("image",)
WHOLE: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "h264_aac.mp4": (film("libx264"), BOTH),
    "mpeg4_mp3.mp4": (film("mpeg4", sound="libmp3lame"), BOTH),
    "h264_aac.mov": (film("libx264"), BOTH),
    "mjpeg_pcm.mov": (film("mjpeg", "yuvj420p", "pcm_s16le"), BOTH),
    "fragmented.mp4": (film("libx264", options={"movflags": "frag_keyframe+empty_moov"}), BOTH),
    "h264.3gp": (film("libx264"), BOTH),
    "h264_opus.mkv": (film("libx264", sound="libopus"), BOTH),
    "ffv1_flac.mkv": (film("ffv1", "yuv444p", "flac"), BOTH),
    "vp9_opus.webm": (film("libvpx-vp9", sound="libopus"), BOTH),
    "vp8_opus.webm": (film("libvpx", sound="libopus"), BOTH),
    "h264_aac.flv": (film("libx264"), BOTH),
    "mpeg4_mp3.avi": (film("mpeg4", sound="libmp3lame"), BOTH),
    "mjpeg_pcm.avi": (film("mjpeg", "yuvj420p", "pcm_s16le"), BOTH),
    "h264_aac.ts": (film("libx264"), BOTH),
    "mpeg2_mp2.mpg": (film("mpeg2video", sound="mp2"), BOTH),
    "wmv2_mp3.wmv": (film("wmv2", sound="libmp3lame"), BOTH),
    "silent.mp4": (film("libx264", sound=None), VIDEO),
    "animation.gif": (animation, ("video", "image")),
    "pcm_16.wav": (by_soundfile("PCM_16"), AUDIO),
    "pcm_24.wav": (by_soundfile("PCM_24"), AUDIO),
    "float.wav": (by_soundfile("FLOAT"), AUDIO),
    "adpcm.wav": (by_soundfile("IMA_ADPCM"), AUDIO),
    "large.wav": (by_soundfile("PCM_16", kind="RF64"), AUDIO),
    "tone.w64": (by_soundfile("PCM_16"), AUDIO),
    "tone.mp3": (by_soundfile(), AUDIO),
    "tone.m4a": (sound("aac", container_format="ipod"), AUDIO),
    "alac.m4a": (sound("alac", container_format="ipod"), AUDIO),
    "tone.aac": (sound("aac", container_format="adts"), AUDIO),
    "tone.flac": (by_soundfile("PCM_16"), AUDIO),
    "tone.ogg": (by_soundfile("VORBIS"), AUDIO),
    "tone.opus": (sound("libopus"), AUDIO),
    "tone.aiff": (by_soundfile("PCM_16"), AUDIO),
    "tone.au": (by_soundfile("PCM_16"), AUDIO),
    "tone.caf": (by_soundfile("PCM_16"), AUDIO),
    "tone.ac3": (sound("ac3"), AUDIO),
    "picture.png": (picture(), IMAGE),
    "clear.png": (picture("RGBA"), IMAGE),
    "picture.jpg": (picture(), IMAGE),
    "four_inks.jpg": (picture("CMYK"), IMAGE),
    "picture.webp": (picture(), IMAGE),
    "picture.bmp": (picture(), IMAGE),
    "picture.tiff": (picture(), IMAGE),
    "mp4_called.mp3": (named_wrongly(film("libx264"), "true.mp4"), BOTH),
    "wav_called.mp4": (named_wrongly(by_soundfile("PCM_16"), "true.wav"), AUDIO),
    "webm_without_ending": (named_wrongly(film("libvpx-vp9", sound="libopus"), "true.webm"), BOTH),
    "latin_tags.wav": (with_latin_tags, AUDIO),
    "latin_tags.mp3": (mp3_with_latin_tags, AUDIO),
    "latin_tags.mkv": (mkv_with_latin_tags, AUDIO),
}

# ---------------------------------------------------------------------------------------------------------------------
# Damaged and hostile files: name -> how it is written, the kind it is read as, and what the refusal says.


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content)


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content)


def cut(write: Callable[[Path], None], keep: float) -> Callable[[Path], None]:
    return lambda path: (write(path), cut_file(path, keep))


def replaced(write: Callable[[Path], None], *pairs: tuple[bytes, bytes]) -> Callable[[Path], None]:
    """Some bytes of a file put in the place of others, every time they occur."""

    def write_and_replace(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        for old, new in pairs:
            if old not in content or len(old) != len(new):
                raise ValueError(f"{path.name} has no {old!r}")
            content = content.replace(old, new)
        path.write_bytes(content)

    return write_and_replace


def rotated(value: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        plain = write_video(path.with_name("plain.mkv"), grey_frames(8))
        with av.open(str(plain)) as source, av.open(str(path), "w", format="matroska") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            stream.metadata["rotate"] = value
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)

    return write


def late(kind: str, seconds: int) -> Callable[[Path], None]:
    """The last packet of a track at an absurd time."""

    def write(path: Path) -> None:
        plain = path.with_name(f"plain_{path.name}")
        film("mpeg4")(plain)
        with av.open(str(plain)) as source, av.open(str(path), "w") as target:
            streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
            packets = [packet for packet in source.demux() if packet.size and packet.dts is not None]
            last = max((p for p in packets if p.stream.type == kind), key=lambda p: p.dts)
            last.pts = last.dts = last.dts + round(seconds / last.time_base)
            for packet in packets:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)

    return write


def png_bomb(side: int) -> Callable[[Path], None]:
    """A few kilobytes that say to be a picture of `side` × `side`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    zeros = zlib.compress(bytes(10**6), 9)
    return raw(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zeros) + chunk(b"IEND", b""))


def gif_canvas(side: int) -> Callable[[Path], None]:
    head = b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + b"\xff\xff\xff\0\0\0"
    block = b"\x2c" + struct.pack("<HHHH", 0, 0, 2, 2) + b"\0\x02\x03\x44\x02\x05\0"
    return raw(head + block * 4 + b"\x3b")


def wav_header(channels: int, rate: int, bits: int, tag: int = 1) -> Callable[[Path], None]:
    align = max(channels * bits // 8, 1)
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", 4000) + bytes(4000)
    return raw(b"RIFF" + struct.pack("<I", len(body)) + body)


def many_samples(path: Path) -> None:
    """An mp4 whose index says that it has two thousand million samples of one byte."""
    write_video(path, grey_frames(8))
    content = bytearray(path.read_bytes())
    box = content.index(b"stsz")
    content[box + 8 : box + 16] = struct.pack(">II", 1, 2**31 - 1)
    path.write_bytes(content)


def _riff_sized(content: bytes) -> bytes:
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(name: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(name)


def zeroed(write: Callable[[Path], None], start: float, share: float) -> Callable[[Path], None]:
    def write_and_zero(path: Path) -> None:
        write(path)
        content = bytearray(path.read_bytes())
        first, last = round(start * len(content)), round((start + share) * len(content))
        content[first:last] = bytes(last - first)
        path.write_bytes(content)

    return write_and_zero


NO_MEDIA, DAMAGED, TRUNCATED = "is not a video or sound file", "damaged", "the file is truncated"
MISSING = "more than max_missing_share=0.05"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n"
DASH = '<?xml version="1.0"?><MPD type="static"><Period><BaseURL>{}</BaseURL></Period></MPD>'
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
HOSTILE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "list.m3u8": (text(HLS.format("/etc/passwd")), "video", r"is a playlist \(hls\)"),
    "list.mp4": (text(HLS.format("http://127.0.0.1:1/x.ts")), "audio", r"is a playlist \(hls\)"),
    "live.ts": (text(HLS.format("pipe:0").replace("9", "1")), "video", r"is a playlist \(hls\)"),
    "list.mpd": (text(DASH.format("http://127.0.0.1:1/")), "video", r"is a playlist \(dash\)"),
    "list.wav": (text("ffconcat version 1.0\nfile /dev/zero\n"), "audio", r"is a playlist \(concat\)"),
    "call.sdp": (text(SDP), "audio", r"is a playlist \(sdp\)"),
    "list.pls": (text("[playlist]\nFile1=http://127.0.0.1:1/\n"), "audio", r"is a playlist \(pls\)"),
    "list.asx": (text("<asx version='3.0'><entry><ref href='http://127.0.0.1:1'/></entry></asx>"), "video", "asx"),
    "link.url": (text("rtsp://127.0.0.1:1/film"), "video", r"is a playlist \(rtsp\)"),
    "vector.mp4": (
        text('<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
        "video",
        "",
    ),
    "filter.avi": (text("movie=/etc/passwd"), "video", NO_MEDIA),
    "page.mp4": (text("<html>404</html>" * 50), "video", NO_MEDIA),
    "subtitles.mkv": (text("1\n00:00:01,000 --> 00:00:02,000\nHello\n"), "audio", NO_MEDIA),
    "metadata.mp4": (text(";FFMETADATA1\ntitle=x\n"), "video", NO_MEDIA),
    "archive.mp4": (raw(b"PK\3\4" + bytes(2000)), "video", NO_MEDIA),
    "noise.mp3": (raw(np.random.default_rng(0).bytes(20_000)), "audio", ""),
    "zeros.ts": (raw(bytes(200_000)), "video", NO_MEDIA),
    "pipe.mp4": (pipe, "video", "is a pipe, a socket or a device"),
    "pipe.png": (pipe, "image", "is a pipe, a socket or a device"),
    "zero.wav": (device("/dev/zero"), "audio", "is a pipe, a socket or a device"),
    "null.mp4": (device("/dev/null"), "video", "is a pipe, a socket or a device"),
    "cut.mp4": (cut(film("libx264"), 0.6), "video", TRUNCATED),
    "cut.mkv": (cut(film("libx264"), 0.6), "audio", TRUNCATED),
    "cut.flac": (cut(by_soundfile("PCM_16"), 0.6), "audio", TRUNCATED),
    "cut.wav": (cut(by_soundfile("PCM_16"), 0.6), "audio", TRUNCATED),
    "cut.jpg": (cut(picture(), 0.6), "image", "is a damaged image"),
    "hole.ogg": (zeroed(by_soundfile("OPUS", seconds=6.0), 0.4, 0.3), "audio", MISSING),
    "hole.flac": (zeroed(by_soundfile("PCM_16"), 0.4, 0.2), "audio", MISSING),
    "fourcc.avi": (replaced(film("mpeg4"), (b"FMP4", b"ZZZZ")), "video", "cannot be decoded"),
    "fourcc.mp4": (replaced(film("libx264"), (b"avc1", b"zzz1")), "video", "cannot be decoded"),
    "codec.mkv": (replaced(film("libx264"), (b"A_AAC", b"A_ZZZ")), "audio", "its sound is coded in a way"),
    "turned_inf.mkv": (rotated("inf"), "video", DAMAGED),
    "turned_nan.mkv": (rotated("nan"), "video", DAMAGED),
    "turned_word.mkv": (rotated("sideways"), "video", DAMAGED),
    "late_sound.mkv": (late("audio", 10**6), "audio", "which cannot be right"),
    "late_sound_too.mkv": (late("audio", 10**5), "audio", MISSING),
    "late_picture.mkv": (late("video", 10**5), "video", MISSING),
    "late_sound.mp4": (late("audio", 10**4), "audio", MISSING),
    "bomb.png": (png_bomb(60_000), "image", "damaged"),
    "short.png": (png_bomb(9_000), "image", "damaged"),
    "canvas.gif": (gif_canvas(16_000), "video", "its frames are 16000×16000 pixels; scale it down"),
    "canvas_image.gif": (gif_canvas(40_000), "image", DAMAGED),
    "no_channel.wav": (wav_header(0, 16_000, 16), "audio", ""),
    "no_rate.wav": (wav_header(1, 0, 16), "audio", ""),
    "no_bits.wav": (wav_header(1, 16_000, 0), "audio", ""),
    "many_channels.wav": (wav_header(60_000, 16_000, 16), "audio", ""),
    "fast.wav": (wav_header(1, 2**31 - 1, 8), "audio", ""),
    "unknown_tag.wav": (wav_header(1, 16_000, 16, 0x7777), "audio", ""),
    "many_samples.mp4": (many_samples, "video", ""),
}
