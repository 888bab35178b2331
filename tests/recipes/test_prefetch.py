# SPDX-License-Identifier: Apache-2.0
"""The next batch is encoded while the model works: same rows, same order, same weights, and errors where they belong."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from killed_run import letters_reward
from media_files import tone, write_sound
from omni_grpo.config import OmniGRPOConfig, OmniSFTConfig
from omni_grpo.data.dataset import to_dataset
from omni_grpo.data.encoding import encoder as encoder_module
from omni_grpo.data.encoding.encoder import PromptEncoder, prompt_key
from omni_grpo.data.encoding.lookahead import LookAhead
from omni_grpo.data.media.decode_cache import DecodeCache
from omni_grpo.data.media.settings import MediaError
from omni_grpo.data.rows.schema import Example, MediaItem
from omni_grpo.model.loading import load_model, load_processor
from omni_grpo.sft import OmniSFTTrainer
from omni_grpo.trainer import OmniGRPOTrainer

COMMON = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "gradient_checkpointing": False}


@pytest.fixture(scope="module")
def processor(tiny):
    return load_processor(tiny)


@given(batches=st.integers(0, 12), depths=st.lists(st.integers(0, 5), min_size=13, max_size=13))
def test_batches_come_in_their_order_each_announced_in_time(batches, depths):
    """Mutants: a batch lost at the end, announced twice, or announced after it was handed out."""
    announced, handed = [], []
    ahead = LookAhead(iter(range(batches)), announced.append, finish=lambda k: (k, len(announced)))
    for depth in depths:
        ahead.depth = depth
        if (given := next(ahead, None)) is None:
            break
        handed.append(given)
        k, known = given
        assert known >= min(k + 1 + depth, batches)
    assert [k for k, _ in handed] == announced == list(range(batches))


def test_an_expected_prompt_is_encoded_once_in_another_thread(processor, settings, mixed, monkeypatch):
    """Mutants: encoding at once, in the thread that asks; encoding again when it is asked for."""
    threads: list[str] = []
    plain = encoder_module.encode_prompt

    def watched(*args):
        threads.append(threading.current_thread().name)
        return plain(*args)

    monkeypatch.setattr(encoder_module, "encode_prompt", watched)
    alone = PromptEncoder(processor, settings, cache_mb=0)
    wanted = [alone(row["prompt"], row["id"]) for row in mixed]
    threads.clear()
    encoder = PromptEncoder(processor, settings, cache_mb=0)  # room for one: what is expected is kept beside it
    encoder.expect((row["prompt"], row["id"]) for row in mixed)
    encoder.expect((row["prompt"], "another row") for row in mixed)
    distinct = {prompt_key(row["prompt"]): row for row in mixed}.values()
    found = [encoder(row["prompt"], row["id"]) for row in distinct]
    assert encoder.encoded == len(distinct) == len(threads) and all("encode-ahead" in name for name in threads)
    by_name = {row.name: row for row in wanted}
    for row in found:
        assert row.input_ids == by_name[row.name].input_ids
        assert all(torch.equal(row.media[key], by_name[row.name].media[key]) for key in row.media)
    assert not encoder._ahead


def test_what_was_expected_for_nothing_is_dropped(processor, settings, mixed):
    encoder = PromptEncoder(processor, settings)
    encoder.expect((row["prompt"], row["id"]) for row in mixed)
    encoder.forget()
    assert not encoder._ahead
    assert encoder(mixed[0]["prompt"], "again").name == "again"


def test_a_bad_row_raises_where_it_is_asked_for_with_its_name(processor, settings, tmp_path):
    """Mutants: an error that stays in the thread; one that names the row that was expected, not the one that asks."""
    (tmp_path / "a.wav").touch()
    example = Example("bad", "Is it?", "yes_no", "yes", media=(MediaItem("audio", str(tmp_path / "a.wav")),))
    (row,) = to_dataset([example], "short")
    encoder = PromptEncoder(processor, settings)
    encoder.expect([(row["prompt"], "twin")])
    with pytest.raises(MediaError, match=r"row 'bad': .*a\.wav: the file is empty"):
        encoder(row["prompt"], "bad")
    encoder.expect([(row["prompt"], "twin")])
    encoder._ahead[prompt_key(row["prompt"])].exception()  # it has failed by now
    write_sound(tmp_path / "a.wav", tone(300, 0.5, 16_000), 16_000)
    assert encoder(row["prompt"], "bad").counts["audio"] > 0, "a failure is not remembered"


def test_a_failure_of_the_thread_itself_is_said_and_made_good(processor, settings, mixed, monkeypatch, caplog):
    plain, failed = encoder_module.encode_prompt, []

    def fails_in_threads(*args):
        if threading.current_thread() is not threading.main_thread():
            failed.append(args)
            raise MemoryError("no memory in this thread")
        return plain(*args)

    monkeypatch.setattr(encoder_module, "encode_prompt", fails_in_threads)
    encoder = PromptEncoder(processor, settings)
    encoder.expect([(mixed[0]["prompt"], "row0")])
    assert encoder(mixed[0]["prompt"], "row0").name == "row0" and failed
    assert (
        "row 'row0': encoding it ahead failed (MemoryError('no memory in this thread')); encoding it now"
        in caplog.text
    )


def test_encodings_from_the_decode_cache_are_those_of_the_files(processor, settings, mixed, tmp_path):
    first, second = DecodeCache(tmp_path, 64), DecodeCache(tmp_path, 64)
    encoders = [PromptEncoder(processor, settings, decode_cache=cache) for cache in (None, first, second)]
    for row in mixed:
        for blank in ((), ("audio", "video")):
            plain, *cached = (encoder(row["prompt"], row["id"], blank) for encoder in encoders)
            for other in cached:
                assert other.input_ids == plain.input_ids and other.media.keys() == plain.media.keys()
                assert all(torch.equal(other.media[key], plain.media[key]) for key in plain.media)
    assert first.decoded > 0 and second.decoded == 0


class Watched(PromptEncoder):
    """Notes where each prompt was encoded, and which were expected when each was asked for."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.threads, self.asked = Counter(), Counter()

    def _encode(self, key, messages, name, blank):
        self.threads[threading.current_thread().name.startswith("encode-ahead")] += 1
        return super()._encode(key, messages, name, blank)

    def _take(self, key, name):
        row = super()._take(key, name)
        self.asked[row is not None or self._recall(key) is not None] += 1
        return row


def trained(tiny, processor, settings, dataset, folder, kind: str, foresight: bool, **fields):
    random.seed(0)
    encoder = Watched(processor, settings)
    config = OmniGRPOConfig if kind == "grpo" else OmniSFTConfig
    args = config(output_dir=str(folder), learning_rate=1e-3, seed=1, **COMMON, **fields)
    made = {"model": load_model(tiny), "args": args, "train_dataset": dataset, "encoder": encoder}
    trainer = OmniGRPOTrainer(reward_funcs=letters_reward, **made) if kind == "grpo" else OmniSFTTrainer(**made)
    if not foresight:
        trainer._ahead_encoder = None
    trainer.train()
    assert not encoder._ahead and trainer._ahead is None
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return trainer.model.state_dict(), losses, encoder


GRPO = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_generations": 2,
    "num_iterations": 2,
    "max_completion_length": 4,
    "max_steps": 5,
    "logging_steps": 1,
}
SFT = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3, "max_steps": 4, "logging_steps": 1}


@pytest.mark.parametrize(("kind", "fields"), [("grpo", GRPO), ("sft", SFT)])
def test_training_is_the_same_bit_for_bit_and_encodes_in_threads(
    tiny, processor, settings, mixed, tmp_path, kind, fields
):
    """Over the border of an epoch. Mutants: a batch dropped or doubled by looking ahead; nothing encoded ahead."""
    plain, foreseen = (
        trained(tiny, processor, settings, mixed, tmp_path / str(sight), kind, sight, **fields)
        for sight in (False, True)
    )
    assert plain[1] == foreseen[1] and len(plain[1]) == fields["max_steps"]
    assert all(torch.equal(plain[0][name], foreseen[0][name]) for name in plain[0])
    assert plain[2].threads.keys() == {False} and foreseen[2].threads.keys() == {True}
    assert plain[2].encoded == foreseen[2].encoded
    assert not foreseen[2].asked[False], "every prompt was begun before it was asked for"


def test_steps_never_look_beyond_the_last(tiny, processor, settings, mixed, tmp_path):
    """Mutant: encoding a batch that no step will take."""
    rows = mixed.select(range(6))
    fields = {**SFT, "gradient_accumulation_steps": 1, "max_steps": 2}
    _, _, encoder = trained(tiny, processor, settings, rows, tmp_path, "sft", True, **fields)
    assert encoder.encoded == 2


@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_a_bad_row_stops_training_by_name(tiny, processor, settings, mixed, clips, tmp_path, kind):
    sound = write_sound(tmp_path / "a.wav", tone(300, 0.5, 16_000), 16_000)
    good = [Example(f"r{k}", f"Is it {k}?", "yes_no", "yes", target="yes") for k in range(3)]
    bad = Example("bad", "Is it?", "yes_no", "yes", target="yes", media=(MediaItem("audio", str(sound)),))
    dataset = to_dataset([*good, bad], "short")
    sound.write_bytes(b"")  # after the preflight
    fields = {**(GRPO if kind == "grpo" else SFT), "max_steps": 20}
    with pytest.raises(MediaError, match=r"row 'bad': .*a\.wav: the file is empty"):
        trained(tiny, processor, settings, dataset, tmp_path / "run", kind, True, **fields)
