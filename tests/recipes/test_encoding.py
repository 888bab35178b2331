# SPDX-License-Identifier: Apache-2.0
"""A prompt as ids and features: as many placeholders as features, whatever the mix, and nothing cut or dropped."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from itertools import product

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from media_files import grey_frames, tone, write_image, write_sound, write_video
from omni_grpo.data.encoding.encoder import PromptEncoder, prompt_key
from omni_grpo.data.encoding.inputs import MODALITIES, collate_media
from omni_grpo.data.encoding.prompt import encode_prompt
from omni_grpo.data.media.settings import MediaError
from omni_grpo.data.rows.prompts import build_messages
from omni_grpo.data.rows.schema import Example, MediaItem
from omni_grpo.families import family_of_processor
from omni_grpo.model.loading import load_model, load_processor


@pytest.fixture(scope="module")
def processor(tiny):
    return load_processor(tiny)


@pytest.fixture(scope="module")
def thinker(tiny):
    return load_model(tiny).eval()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> str:
    """Three seconds: two chunks of the interleaving."""
    folder = tmp_path_factory.mktemp("long")
    return str(write_video(folder / "long.mp4", grey_frames(24), sound=tone(300, 3.0, 16_000), sound_rate=16_000))


def messages(*media: MediaItem, problem: str = "Is it?", load_audio_from_video: bool = False):
    return build_messages(Example("row", problem, "yes_no", "yes", media=media), "short", load_audio_from_video)


def sound_item(folder, samples: int) -> MediaItem:
    return MediaItem("audio", str(write_sound(folder / f"{samples}.wav", tone(300, samples / 16_000, 16_000), 16_000)))


def assert_same_media(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("images", "videos", "sounds"), list(product((0, 1, 3), repeat=3)))
def test_placeholders_equal_features_for_every_mix(processor, settings, clips, images, videos, sounds):
    media = [MediaItem("image", str(clips / f"image{k}.png")) for k in range(images)]
    media += [MediaItem("video", str(clips / f"clip{k}.mp4"), k % 2 == 0) for k in range(videos)]
    media += [MediaItem("audio", str(clips / f"sound{k}.wav")) for k in range(sounds)]
    row = encode_prompt(processor, messages(*media), settings, "row")
    assert row.counts == {
        m: row.input_ids.count(token) for m, token in family_of_processor(processor).placeholders(processor).items()
    }
    heard = sounds + sum(1 for k in range(videos) if k % 2 == 0)
    assert row.counts == {"audio": 12 * heard, "image": 4 * images, "video": 4 * videos}  # 1 s, 56 × 56, 2 frames
    assert ("input_features" in row.media, "pixel_values" in row.media) == (heard > 0, images > 0)


@hypothesis.settings(max_examples=30)
@given(samples=st.integers(641, 48_000))
def test_the_audio_tower_returns_what_is_counted(processor, thinker, settings, tmp_path_factory, samples):
    row = encode_prompt(processor, messages(sound_item(tmp_path_factory.getbasetemp(), samples)), settings, "row")
    with torch.no_grad():
        features = thinker.get_audio_features(row.media["input_features"], row.media["feature_attention_mask"])
    assert features.last_hidden_state.shape[0] == row.counts["audio"] > 0


@pytest.mark.parametrize("samples", [1, 320, 640])
def test_a_sound_too_short_for_a_token_is_refused(processor, settings, tmp_path, samples):
    """The processor takes it without a word, and the model would answer without hearing it."""
    with pytest.raises(
        MediaError, match=r"row 'row': a sound lasts 0\.0\d+ s, too short for this model to hear; take"
    ):
        encode_prompt(processor, messages(sound_item(tmp_path, samples)), settings, "row")


def test_a_sound_longer_than_the_extractor_hears_is_refused(processor, settings, tmp_path):
    """The feature extractor cuts at its length without a word."""
    long = messages(sound_item(tmp_path, 48_001))
    with pytest.raises(
        MediaError, match=r"row 'row': a sound lasts 3\.00 s .* hears 3 s; shorten it or lower `max_audio"
    ):
        encode_prompt(processor, long, replace(settings, max_audio_seconds=None), "row")
    with pytest.raises(MediaError, match=r"row 'row': .*48001\.wav.*max_audio_seconds"):
        encode_prompt(processor, long, settings, "row")
    assert encode_prompt(processor, messages(sound_item(tmp_path, 48_000)), settings, "row").counts["audio"] == 37


def test_every_special_token_written_in_a_question_is_refused_by_name(processor, settings, clips):
    """Mutants: trusting the processor, which fills the first of two `<|AUDIO|>`; leaving turn ends alone."""
    sound = MediaItem("audio", str(clips / "sound0.wav"))
    tokens = [
        *processor.tokenizer.convert_ids_to_tokens(family_of_processor(processor).control_ids(processor)),
        "<|im_end|>",
        "<|im_start|>",
    ]
    assert "<|AUDIO|>" in tokens and "<|vision_bos|>" in tokens
    for token, media in product(tokens, ((), (sound,))):
        with pytest.raises(
            MediaError, match=rf"row 'row': its text holds the special token '{re.escape(token)}'; take"
        ):
            encode_prompt(processor, messages(*media, problem=f"Hear {token} this?"), settings, "row")
    encode_prompt(processor, messages(sound, problem="Is <think> | <|audio|> <AUDIO> plain text?"), settings, "row")


def test_a_prompt_over_the_limit_is_refused_with_its_counts(processor, settings, clips):
    row = messages(MediaItem("video", str(clips / "clip0.mp4"), True))
    length = len(encode_prompt(processor, row, settings, "row").input_ids)
    encode_prompt(processor, row, settings, "row", max_prompt_length=length)
    message = (
        rf"row 'row': the prompt has {length} tokens \(12 audio, 4 video\), `max_prompt_length` is {length - 1}; lower"
    )
    with pytest.raises(ValueError, match=message):
        encode_prompt(processor, row, settings, "row", max_prompt_length=length - 1)


def test_a_file_that_cannot_be_read_is_named_with_its_row(processor, settings, tmp_path):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(MediaError, match=r"row 'row': .*empty\.wav: the file is empty"):
        encode_prompt(processor, messages(MediaItem("audio", str(tmp_path / "empty.wav"))), settings, "row")


def test_interleaved_sound_lies_inside_its_video(processor, thinker, settings, clips, long_clip):
    """Mutant: not telling the processor which sound is whose, which transformers 5.23 refuses."""
    media = MediaItem("video", long_clip, True), MediaItem("audio", str(clips / "sound1.wav"))
    row = encode_prompt(processor, messages(*media, load_audio_from_video=True), settings, "row")
    apart = encode_prompt(processor, messages(*media), settings, "row")
    assert row.counts == apart.counts == {"audio": 37 + 12, "image": 0, "video": 4}
    assert row.media["use_audio_in_video"] and "use_audio_in_video" not in apart.media
    letters = {
        token: modality[0] for modality, token in family_of_processor(processor).placeholders(processor).items()
    }
    vision_end = processor.tokenizer.convert_tokens_to_ids("<|vision_eos|>")
    text = "".join("|" if i == vision_end else letters.get(i, " ") for i in row.input_ids)
    video, sound = text.split("|")
    assert (video.count("v"), video.count("a"), sound.count("a")) == (4, 37, 12)
    assert torch.equal(row.media["input_features"], apart.media["input_features"])
    inputs = {
        "input_ids": torch.tensor([row.input_ids]),
        "attention_mask": torch.ones(1, len(row.input_ids), dtype=int),
    }
    with torch.no_grad():
        assert thinker(**inputs, **row.media).logits.isfinite().all()


def test_interleaving_needs_the_sound_of_every_video(processor, settings, clips, long_clip, tmp_path):
    silent = str(write_video(tmp_path / "silent.mp4", grey_frames(8)))
    sounding = MediaItem("video", str(clips / "clip0.mp4"), True)

    def encode(*media):
        return encode_prompt(processor, messages(*media, load_audio_from_video=True), settings, "row")

    with pytest.raises(
        MediaError, match=r"row 'row' mixes videos with and without interleaved sound.*; give every video"
    ):
        encode(sounding, MediaItem("video", silent, "if_present"))
    with pytest.raises(MediaError, match=r"row 'row' interleaves .* different rates .*; use `video_sampling: fps`"):
        encode(sounding, MediaItem("video", long_clip, True))
    with_sound, without, text = encode(sounding), encode(MediaItem("video", silent)), encode()
    with pytest.raises(MediaError, match=r"rows \['row'\] have videos without interleaved sound in a batch"):
        collate_media([with_sound, without])
    assert collate_media([with_sound, text, with_sound])["use_audio_in_video"].item() is True


def test_sounds_of_different_lengths_collate_to_the_features_they_have_alone(processor, thinker, settings, tmp_path):
    """Mutant: padding the mask but not the features, or on the other side."""
    rows = [
        encode_prompt(processor, messages(sound_item(tmp_path, n)), settings, str(n)) for n in (16_000, 4_800, 48_000)
    ]
    batch = collate_media(rows)
    assert batch["input_features"].shape == (3, 80, 150)

    def heard(media):
        with torch.no_grad():
            return thinker.get_audio_features(
                media["input_features"], media["feature_attention_mask"]
            ).last_hidden_state

    torch.testing.assert_close(heard(batch), torch.cat([heard(row.media) for row in rows]), rtol=0, atol=1e-5)
    for i, row in enumerate(rows):
        frames = row.media["input_features"].shape[-1]
        assert torch.equal(batch["input_features"][i, :, :frames], row.media["input_features"][0])
        assert batch["feature_attention_mask"][i].sum() == frames


def test_collation_keeps_row_order_and_text_only_rows_add_nothing(processor, settings, mixed):
    rows = [encode_prompt(processor, row["prompt"], settings, row["id"]) for row in mixed]
    batch = collate_media(rows)
    for key, tensor in batch.items():
        if key not in ("input_features", "feature_attention_mask"):
            assert torch.equal(tensor, torch.cat([row.media[key] for row in rows if key in row.media]))
    assert collate_media([row for row in rows if not any(row.counts.values())]) == {}


def test_the_extractors_padding_side_does_not_matter(tiny, settings, clips, tmp_path):
    """Mutant: cutting every sound at the end, which leaves silence of one that was padded on the left."""
    left, right = load_processor(tiny), load_processor(tiny)
    left.feature_extractor.padding_side = "left"
    prompt = messages(MediaItem("audio", str(clips / "sound0.wav")), sound_item(tmp_path, 4_800))
    a, b = (encode_prompt(p, prompt, settings, "row") for p in (left, right))
    assert (a.input_ids, a.counts) == (b.input_ids, b.counts)
    assert torch.equal(a.media["feature_attention_mask"], b.media["feature_attention_mask"])
    for frames, one, other in zip((50, 15), a.media["input_features"], b.media["input_features"], strict=True):
        inner = slice(2, frames - 2)  # the outer frames reach over the edge of the sound, into padding or its mirror
        torch.testing.assert_close(one[:, inner], other[:, inner], rtol=0, atol=1e-4)
        assert not one[:, frames:].any() and not other[:, frames:].any()


@pytest.mark.parametrize("blank", MODALITIES)
def test_blanking_changes_the_features_of_its_modality_alone(processor, settings, clips, blank):
    media = [MediaItem("image", str(clips / "image0.png")), MediaItem("video", str(clips / "clip1.mp4"), True)]
    seen, unseen = (encode_prompt(processor, messages(*media), settings, "row", blank=b) for b in ((), (blank,)))
    changed = {key for key in seen.media if not torch.equal(seen.media[key], unseen.media[key])}
    assert changed == {{"audio": "input_features", "image": "pixel_values", "video": "pixel_values_videos"}[blank]}
    assert (seen.input_ids, seen.counts) == (unseen.input_ids, unseen.counts)


def test_a_blanked_item_is_a_grey_image_or_silence(processor, settings, clips, tmp_path):
    """Mutant: black, which a face in the dark would also be."""
    grey = write_image(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    silence = write_sound(tmp_path / "silence.wav", np.zeros(16_000, np.float32), 16_000)
    seen = messages(MediaItem("image", str(clips / "image0.png")), MediaItem("audio", str(clips / "sound0.wav")))
    blanked = encode_prompt(processor, seen, settings, "row", blank=("image", "audio"))
    true = encode_prompt(
        processor, messages(MediaItem("image", str(grey)), MediaItem("audio", str(silence))), settings
    )
    assert_same_media(blanked.media, true.media)


def test_equal_prompts_are_encoded_once_and_keep_their_own_names(processor, settings, clips):
    encoder = PromptEncoder(processor, settings)
    prompt = messages(MediaItem("image", str(clips / "image0.png")))
    first, second, other = encoder(prompt, "first"), encoder(prompt, "second"), encoder(messages(), "other")
    assert encoder.encoded == 2
    assert first.media["pixel_values"] is second.media["pixel_values"]
    assert [row.name for row in (first, second, other)] == ["first", "second", "other"]


def test_memory_is_bounded_and_the_least_recently_used_goes_first(processor, settings, tmp_path):
    paths = [write_image(tmp_path / f"{k}.png", frame) for k, frame in enumerate(grey_frames(3, 560, 560))]
    prompts = [messages(MediaItem("image", str(path))) for path in paths]
    large = replace(settings, max_pixels=560 * 560)
    size = sum(t.nbytes for t in encode_prompt(processor, prompts[0], large).media.values()) / 2**20
    encoder = PromptEncoder(processor, large, cache_mb=int(2.5 * size))  # room for two
    for k in (0, 1, 0, 2):
        encoder(prompts[k])
    assert encoder.encoded == 3
    encoder(prompts[0])
    assert encoder.encoded == 3, "the one used last was dropped"
    encoder(prompts[1])
    assert encoder.encoded == 4, "nothing was dropped"
    assert encoder._bytes <= 2.5 * size * 2**20 and len(encoder._cache) == 2


def test_a_prompt_that_fails_fails_again_and_leaves_nothing_behind(processor, settings, tmp_path):
    encoder = PromptEncoder(processor, settings)
    (tmp_path / "late.png").touch()
    prompt = messages(MediaItem("image", str(tmp_path / "late.png")))
    for _ in range(2):
        with pytest.raises(MediaError):
            encoder(prompt, "row")
    write_image(tmp_path / "late.png", grey_frames(1)[0])
    assert encoder(prompt, "row").counts["image"] == 4 and not encoder._turns


def test_threads_that_ask_for_the_same_prompts_get_the_same_and_encode_each_once(processor, settings, mixed):
    """Mutant: looking and storing without holding the prompt's turn."""
    alone = [encode_prompt(processor, row["prompt"], settings, row["id"]) for row in mixed]
    encoder = PromptEncoder(processor, settings)
    start, found, errors = threading.Barrier(8), {}, []

    def work(thread: int) -> None:
        start.wait()
        try:
            for i in range(len(alone)):
                k = (i + thread // 2) % len(alone)
                found[thread, k] = encoder(mixed[k]["prompt"], mixed[k]["id"])
        except Exception as error:  # handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert encoder.encoded == len({prompt_key(prompt) for prompt in mixed["prompt"]}) < len(alone)
    for (_, k), row in found.items():
        assert (row.input_ids, row.counts, row.name) == (alone[k].input_ids, alone[k].counts, alone[k].name)
        assert_same_media(row.media, alone[k].media)
