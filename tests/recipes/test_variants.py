# SPDX-License-Identifier: Apache-2.0
"""Other evidence for the same questions: whose media are shown, that they are shown, and that no cache mixes them up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from media_files import frame_numbers, grey_frames, tone, write_video
from omni_grpo.data.encoding.encoder import PromptEncoder, prompt_key
from omni_grpo.data.encoding.prompt import _load, encode_prompt
from omni_grpo.data.media.keys import media_keys
from omni_grpo.data.media.reader import read_media
from omni_grpo.data.media.settings import MediaError
from omni_grpo.data.rows.loading import load_examples
from omni_grpo.data.rows.prompts import build_messages, text_part
from omni_grpo.data.rows.schema import Example, MediaItem
from omni_grpo.evaluation.donors import choose_donors, plan_variant
from omni_grpo.evaluation.evaluate import Share, evaluate, predict
from omni_grpo.evaluation.variants import VARIANTS, alters, items_of, vary
from omni_grpo.model.feature_cache import FeatureCache
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.model.towers import attach_media_embedder

MIXES = ("", "a", "v", "i", "va", "ia", "w", "aa")  # audio, video, image, a video with its sound interleaved
TYPES = {"a": "audio", "v": "video", "i": "image", "w": "video"}


def row(name: str, mix: str, files: str, question: str = "Is it?") -> tuple[Example, list]:
    """An example with its prompt, made by hand: no file is opened."""
    parts = [
        {"type": TYPES[letter], "path": f"/{letter}{file}", "text": None, "audio_in_video": letter == "w"}
        for letter, file in zip(mix, files, strict=False)
    ]
    prompt = [{"role": "user", "content": [*parts, text_part(question)]}]
    return Example(name, question, "yes_no", "yes"), prompt


rows_of_all_mixes = st.lists(
    st.tuples(st.sampled_from(MIXES), st.text("123", min_size=2, max_size=2), st.sampled_from(["A?", "B?"])),
    max_size=12,
).map(lambda drawn: [row(f"row{i}", *parts) for i, parts in enumerate(drawn)])


def files(prompt, modalities) -> set[str]:
    return {path for modality, path in items_of(prompt) if modality in modalities}


def may_lend(one, other, modalities) -> bool:
    kinds = [[(p["type"], p["audio_in_video"]) for p in prompt[0]["content"]] for prompt in (one[1], other[1])]
    return kinds[0] == kinds[1] and not files(one[1], modalities) & files(other[1], modalities)


@pytest.mark.parametrize("modalities", [("audio",), ("video", "image")])
@hypothesis_settings(max_examples=50)
@given(rows=rows_of_all_mixes, data=st.data())
def test_a_donor_has_the_same_kinds_and_other_files_and_is_found_where_there_is_one(modalities, rows, data):
    """Mutants: the row itself, a row with one file in common, another mix, the other question though the own is there."""
    prompts = {example.id: prompt for example, prompt in rows}
    rows = [pair for pair in rows if files(pair[1], modalities)]
    examples = [example for example, _ in rows]
    donors = choose_donors(examples, prompts, modalities, "seed")
    for one in rows:
        lenders = [other for other in rows if may_lend(one, other, modalities)]
        own = [other[0].id for other in lenders if other[0].problem == one[0].problem]
        donor = donors.get(one[0].id)
        assert (donor is None) == (not lenders)
        if donor is not None:
            assert donor.id in (own or [other[0].id for other in lenders])
    shuffled = data.draw(st.permutations(examples))
    again = choose_donors(shuffled, prompts, modalities, "seed")
    assert {k: d.id for k, d in again.items()} == {k: d.id for k, d in donors.items()}, "the file's order matters"


def test_donors_are_spread_over_those_that_may_lend_and_change_with_the_seed():
    """Mutant: the first that fits lends to everybody."""
    rows = [row(f"row{i:03}", "va", [f"{i}", f"{i}"]) for i in range(200)]
    prompts, examples = {e.id: p for e, p in rows}, [e for e, _ in rows]
    audio, video = ([d.id for d in choose_donors(examples, prompts, ("audio",), s).values()] for s in ("a", "v"))
    assert len(set(audio)) > 100 and sum(a == v for a, v in zip(audio, video, strict=True)) < 20


@pytest.mark.parametrize("variant", VARIANTS)
@hypothesis_settings(max_examples=25)
@given(rows=rows_of_all_mixes)
def test_a_variant_changes_what_it_says_and_nothing_else(variant, rows):
    """Mutants: the text touched, the other sense swapped too, interleaved sound left behind or carried along."""
    done = VARIANTS[variant]
    prompts = {example.id: prompt for example, prompt in rows}
    has_any = [example for example, prompt in rows if alters(prompt, variant)]
    donors = choose_donors(has_any, prompts, done.swapped, variant)
    for example, prompt in rows:
        if done.swapped and example.id not in donors:
            continue
        lent = prompts[donors[example.id].id] if done.swapped else None
        varied = vary(prompt, variant, example.id, lent)
        before, after = items_of(prompt), items_of(varied)
        assert varied[0]["content"][-1] == prompt[0]["content"][-1]
        assert [i for i in before if i[0] not in done.touched] == [i for i in after if i[0] not in done.touched]
        if done.swapped:
            swapped = [i for i in after if i[0] in done.swapped]
            assert swapped == [i for i in items_of(lent) if i[0] in done.swapped] and len(before) == len(after)
        elif done.removed:
            assert not any(modality in done.removed for modality, _ in after)
        else:
            assert before == after
        unseen = not alters(prompt, variant) or done.blanked  # blanking is the encoder's
        assert (varied == prompt) == bool(unseen)


def test_a_swap_without_a_donor_or_with_one_of_other_media_is_refused():
    (_, one), (_, two), (_, more) = row("a", "a", "1"), row("b", "v", "2"), row("c", "aa", "34")
    for donor, fault in ((None, "needs another row's media"), (two, "fewer items"), (more, "more items")):
        with pytest.raises(ValueError, match=f"row 'a': .*{fault}"):
            vary(one, "swapped_audio", "a", donor)


@pytest.fixture(scope="module")
def processor(tiny):
    return load_processor(tiny)


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    """Three clips of eight flat frames with a tone each; one is longer."""
    folder = tmp_path_factory.mktemp("talking")
    return [
        str(
            write_video(
                folder / f"{k}.mp4",
                grey_frames(8 + 8 * (k == 2), 64, 64)[:: -1 if k else 1],
                sound=tone(300 * (k + 1), 1.0 + (k == 2), 16_000),
                sound_rate=16_000,
            )
        )
        for k in range(3)
    ]


def asking(path: str, name: str = "row", interleaved: bool = False):
    return build_messages(
        Example(name, "Is it?", "yes_no", "yes", media=(MediaItem("video", path, True),)), "short", interleaved
    )


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("donor", [1, 2])
def test_swapped_media_reach_the_model(processor, settings, talking, interleaved, donor):
    """Sound of one file and picture of another, also where they are interleaved by time. Mutant: the video's own sound."""
    settings = replace(settings, load_audio_from_video=interleaved)
    own, lent = (asking(talking[k], interleaved=interleaved) for k in (0, donor))
    whole = {k: encode_prompt(processor, p, settings) for k, p in (("own", own), ("lent", lent))}
    for variant, source in (("swapped_audio", ("own", "lent")), ("swapped_video", ("lent", "own"))):
        got = encode_prompt(processor, vary(own, variant, "row", lent), settings)
        assert torch.equal(got.media["pixel_values_videos"], whole[source[0]].media["pixel_values_videos"])
        assert torch.equal(got.media["input_features"], whole[source[1]].media["input_features"])
        assert ("use_audio_in_video" in got.media) == interleaved
        assert got.items["video"][0].path != got.items["audio"][0].path


def test_shuffled_frames_are_the_same_frames_in_another_order(processor, settings, talking):
    """Mutants: an order that may be the file's own, one that is drawn anew each time, sound shuffled along."""
    settings = replace(settings, num_frames=8)
    orders = {}
    for name in ("a", "b", "c", "d"):
        asked = vary(asking(talking[0]), "shuffled_frames", name)
        loaded, _, _ = _load(asked, settings, (), read_media)
        orders[name] = tuple(frame_numbers(loaded["video"][0]))
        again, _, _ = _load(asked, settings, (), read_media)
        assert tuple(frame_numbers(again["video"][0])) == orders[name]
        assert np.array_equal(loaded["audio"][0], read_media("audio", talking[0], settings))
    assert all(sorted(order) == list(range(8)) != list(order) for order in orders.values())
    assert len(set(orders.values())) > 1, "each row has its own order"
    two = replace(settings, num_frames=2)
    for name in map(str, range(6)):  # half of the draws would be the order as it was
        loaded, _, _ = _load(vary(asking(talking[0]), "shuffled_frames", name), two, (), read_media)
        assert frame_numbers(loaded["video"][0])[0] > frame_numbers(loaded["video"][0])[1]
    one = replace(settings, num_frames=1, frame_multiple=1)
    with pytest.raises(MediaError, match=r"row 'a': .*a single frame has no other order"):
        encode_prompt(processor, vary(asking(talking[0]), "shuffled_frames", "a"), one, "a")


@pytest.mark.parametrize("interleaved", [False, True])
def test_no_variant_is_answered_with_the_encoding_of_another(processor, settings, talking, interleaved, tmp_path):
    """
    One encoder for all, asked twice in two orders, against each prompt encoded by itself.

    Mutants: a key without the frame order, or without the other file's sound; frames shuffled in place.
    """
    settings = replace(settings, load_audio_from_video=interleaved)
    encoder = PromptEncoder(processor, settings)
    asked = {}
    for k, variant in ((k, v) for k in (0, 1) for v in VARIANTS):
        own, lent = (asking(talking[file], interleaved=interleaved) for file in (k, 1 - k))
        asked[k, variant] = vary(own, variant, f"row{k}", lent if VARIANTS[variant].swapped else None)
    asked[0, "shuffled_frames", "again"] = vary(
        asking(talking[0], interleaved=interleaved), "shuffled_frames", "other"
    )
    for order in (list(asked), list(asked)[::-1]):
        for case in order:
            blank = VARIANTS[case[1]].blanked
            encoder.expect([(asked[case], "row")], blank)
            got, alone = (
                encoder(asked[case], "row", blank),
                encode_prompt(processor, asked[case], settings, blank=blank),
            )
            assert got.input_ids == alone.input_ids and got.media.keys() == alone.media.keys()
            assert all(torch.equal(got.media[key], alone.media[key]) for key in got.media)
    # The same for both rows: the text alone, and the sound of either in the picture of the other, whoever asks.
    different = len(asked) - 3
    assert encoder.encoded == different
    keys = [media_keys(prompt, settings, VARIANTS[case[1]].blanked) for case, prompt in asked.items()]
    assert len({json.dumps(k, default=repr, sort_keys=True) for k in keys}) == different
    assert len({prompt_key(p, VARIANTS[case[1]].blanked) for case, p in asked.items()}) == different
    store = FeatureCache(tmp_path, {"video": "v", "audio": "a"})
    items = {item for key in keys for some in key.values() for item in some}
    assert len({store.name_of(item) for item in items}) == len(items)


@pytest.fixture(scope="module")
def examples(mixed_file):
    return load_examples(mixed_file)


@pytest.fixture
def parts(tiny, settings):
    model = load_model(tiny).eval()
    return model, attach_media_embedder(model), PromptEncoder(load_processor(tiny), settings)


def test_rows_that_nobody_can_lend_to_are_left_out_by_name(examples):
    """Of the mixed rows two are clips with sound; every other kind is there once, or has nothing to swap."""
    plan = plan_variant(examples, "short", False, "swapped_audio")
    assert [e.id for e in plan.examples] == ["row0", "row6"]
    assert {k: d.id for k, d in plan.donors.items()} == {"row0": "row6", "row6": "row0"}
    assert plan.left_out == {
        "has no audio": ["row1", "row3", "row5", "row7"],
        "no other row has other files of the same kinds": ["row2", "row4"],
    }
    assert [e.id for e in plan_variant(examples, "short", False, "shuffled_frames").examples] == [
        "row0",
        "row3",
        "row6",
    ]
    assert plan_variant(examples, "short", False, "no_audio").examples is examples
    with pytest.raises(
        ValueError, match=r"swapped_audio can ask no row \(has no audio: row1.*take it out of `variants`"
    ):
        plan_variant(examples[1:2], "short", False, "swapped_audio")
    twice = [examples[0], replace(examples[0], id="twin")]  # the same file is no other evidence
    with pytest.raises(ValueError, match=r"no other row has other files of the same kinds: row0, twin"):
        plan_variant(twice, "short", False, "swapped_video")


def test_donors_do_not_depend_on_batches_processes_or_what_was_done(parts, examples, tmp_path):
    """Mutants: a donor from the batch, from a process's share, or from the rows that are left."""
    more = [
        *examples,
        *(replace(e, id=f"more-{e.id}", media=examples[3 * (k % 3)].media) for k, e in enumerate(examples)),
    ]
    runs = {}
    for name, size, count in (("one", 16, 1), ("small", 1, 1), ("three", 2, 3)):
        file = tmp_path / f"{name}.jsonl"
        for index in reversed(range(count)):
            got = predict(*parts, more, "short", "swapped_video", file, size, 2, share=Share(index, count))
        runs[name] = [(r["id"], r["donor"], r["completion"], r["altered"]) for r in got]
    assert runs["one"] == runs["small"] == runs["three"] and len(runs["one"]) > 4
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join((tmp_path / "one.jsonl").read_text().split("\n")[:3]) + "\n")
    resumed = predict(*parts, more, "short", "swapped_video", cut, 2, 2)
    assert [(r["id"], r["donor"], r["completion"], r["altered"]) for r in resumed] == runs["one"]


def test_an_evaluation_says_whom_it_left_out_and_what_did_not_change(parts, examples, tmp_path, caplog):
    variants = ("full", "neither", "swapped_audio", "shuffled_frames")
    metrics, _ = evaluate(*parts, examples, "short", tmp_path / "m", variants, batch_size=8, max_new_tokens=2)
    written = json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert written["variants"]["swapped_audio"]["left_out"]["has no audio"] == ["row1", "row3", "row5", "row7"]
    assert written["variants"]["neither"]["left_out"] == {} and written["variants"]["neither"]["n"] == len(examples)
    assert "swapped_audio: 4 rows are left out, for each has no audio: row1, row3" in caplog.text
    found = written["shortcuts"]["all"]
    assert {v: f["answers"]["n"] for v, f in found["variants"].items()} == {
        "neither": 6,  # two rows are text alone: nothing was taken from them
        "swapped_audio": 2,
        "shuffled_frames": 3,
    }
    assert found["index"]["audio"]["n"] == 2 and "video" not in found["index"]
    lines = (tmp_path / "m" / "predictions.swapped_audio.jsonl").read_text().splitlines()
    assert [json.loads(line)["donor"] for line in lines] == ["row6", "row0"]
    full = (tmp_path / "m" / "predictions.jsonl").read_text()
    assert '"donor"' not in full and json.loads(json.dumps(metrics["shortcuts"])) == written["shortcuts"]
