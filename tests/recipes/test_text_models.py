# SPDX-License-Identifier: Apache-2.0
"""Text-only causal language models: exact against the model's own forward, in SFT, RL, LoRA and the entry scripts."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM
from trl import ModelConfig
from trl.trainer.utils import add_fused_lm_head, pad

import ask_omni
import eval_omni
import grpo_omni
import sft_omni
from omni_grpo import (
    OmniGRPOConfig,
    OmniGRPOTrainer,
    OmniSFTConfig,
    OmniSFTTrainer,
    PromptEncoder,
    load_model,
    load_processor,
    to_dataset,
)
from omni_grpo.data.dataset import preflight
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.data.rows.loading import check_rows, load_examples
from omni_grpo.data.rows.schema import DataError
from omni_grpo.model.towers import attach_media_embedder
from omni_grpo.rollout import sampler
from omni_grpo.rollout.answers import generate
from omni_grpo.run.scripts import peft_config
from omni_grpo.scoring.scorer import Batch, Scorer
from small_runs import SMALL_RUN, length_reward
from text_models import KINDS, tiny_text, with_own_code

QUESTIONS = ["Is the sea red?", "Is a door that is shut a door that is open, or not? Think, then answer."]
TARGET = "<context>The sea.</context><think>It is blue.</think><answer>no</answer>"
ROWS = [
    {"id": f"q{i}", "problem": q, "problem_type": "yes_no", "solution": "no", "target": TARGET}
    for i, q in enumerate(QUESTIONS * 2)
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Directory of each kind, made when it is first asked for."""
    made: dict[str, str] = {}
    torch.set_num_threads(1)

    def build(kind: str) -> str:
        if kind not in made:
            made[kind] = tiny_text(tmp_path_factory.mktemp("models") / kind, [*QUESTIONS, TARGET], kind, spread=0.3)
        return made[kind]

    return build


@pytest.fixture(scope="module")
def rows():
    return to_dataset(check_rows([(row["id"], row) for row in ROWS], None), "short")


def encoder_of(path: str) -> PromptEncoder:
    return PromptEncoder(load_processor(path), MediaSettings())


def batch_of(prompts, vocabulary: int, each: int = 3) -> Batch:
    """Every prompt with completions of unequal lengths."""
    generator = torch.Generator().manual_seed(1)
    rows = [prompt for prompt in prompts for _ in range(each)]
    said = [torch.randint(3, vocabulary, (3 + 4 * (i % 3),), generator=generator) for i in range(len(rows))]
    asked = [torch.tensor(row.input_ids) for row in rows]
    sides = [
        (pad(ids, 0, padding_side=side), pad([torch.ones_like(i) for i in ids], 0, padding_side=side))
        for ids, side in ((asked, "left"), (said, "right"))
    ]
    ids, mask = (torch.cat(part, dim=1) for part in zip(*sides, strict=True))
    return Batch(rows, ids, mask, sides[1][0].size(1))


def own_logps(model, batch: Batch) -> torch.Tensor:
    """The model's own forward, untouched, one row at a time without padding."""
    logps = torch.zeros(len(batch.prompts), batch.kept)
    rows = []
    for prompt, ids, mask in zip(batch.prompts, batch.input_ids, batch.attention_mask, strict=True):
        n, start = int(mask[-batch.kept :].sum()), len(prompt.input_ids)
        whole = torch.cat([torch.tensor(prompt.input_ids), ids[-batch.kept :][:n]])
        logits = model(input_ids=whole[None]).logits[0, start - 1 : -1].float()
        row = logits.log_softmax(-1).gather(1, whole[start:, None])[:, 0]
        rows.append(torch.nn.functional.pad(row, (0, batch.kept - n)))
    return logps + torch.stack(rows)


@pytest.mark.parametrize(
    ("kind", "share"),
    # Learned positions count padding in TRL's plain pass, which `off` is to the last bit.
    [(kind, share) for kind in KINDS for share in ("auto", "off") if (kind, share) != ("gpt2", "off")],
)
def test_scores_and_gradients_are_the_models_own(built, kind, share, caplog):
    """
    Whether it is packed or not: log-probabilities within 2e-6, gradients within 1e-4 of their norm. What cannot be packed
    says so.

    Mutants: positions of a segment that go on from the segment before; a window that packed rows do not keep, with the
    scorer's own comparison taken out.
    """
    path = built(kind)
    model, own = load_model(path), AutoModelForCausalLM.from_pretrained(path)
    encoder = encoder_of(path)
    prompts = [encoder([{"role": "user", "content": [part(q)]}], f"q{i}") for i, q in enumerate(QUESTIONS)]
    batch = batch_of(prompts, model.config.vocab_size)
    add_fused_lm_head(model)  # as TRL's trainer does
    with caplog.at_level(logging.INFO):
        scorer = Scorer(Accelerator(cpu=True), model, attach_media_embedder(model), share)
        scores = scorer(model, batch)
    scored = batch.attention_mask[:, -batch.kept :].bool()
    wanted = own_logps(own, batch)
    assert ((scores.logps - wanted) * scored).abs().max() <= 2e-6
    for logps in (scores.logps, wanted):
        (logps * scored * torch.linspace(-1, 1, logps.numel()).view_as(logps)).sum().backward()
    largest = max(p.grad.norm() for p in own.parameters())
    for (name, ours), theirs in zip(model.named_parameters(), own.parameters(), strict=True):
        if theirs.grad.norm() > 1e-4 * largest:
            assert (ours.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm(), name
    if share == "auto" and not scorer.shares:
        assert "share_prompt: off" in caplog.text
    if kind in ("qwen3", "llama", "smollm3", "gpt2", "mixture"):
        assert scorer.shares == (share == "auto")


def part(text: str) -> dict:
    return {"type": "text", "text": text, "path": None, "audio_in_video": False}


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_the_models_own(built, kind):
    """
    Each prompt four times, computed once where the cache can be repeated: the tokens that `generate` of transformers
    gives for it alone.

    Mutants: the cache not repeated in the rows' order; positions that count the padding.
    """
    path = built(kind)
    model, own, encoder = load_model(path), AutoModelForCausalLM.from_pretrained(path), encoder_of(path)
    prompts = [encoder([{"role": "user", "content": [part(q)]}], f"q{i}") for i, q in enumerate(QUESTIONS)] * 4
    sampler.notice.cache_clear()
    answers = generate(model, encoder.processor, attach_media_embedder(model), prompts, 8)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt.input_ids])
        alone = own.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        said = encoder.processor.decode(alone[0, ids.size(1) :], skip_special_tokens=True)
        assert answer.text == said


@pytest.mark.parametrize("kind", ["llama", "gemma3", "mamba"])
def test_every_kind_trains(built, rows, tmp_path, kind):
    """By name and path alone; SFT, then RL from what it saved."""
    sft = OmniSFTConfig(output_dir=str(tmp_path / "sft"), max_steps=2, **SMALL_RUN)
    trainer = OmniSFTTrainer(built(kind), sft, rows)
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert any(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())
    trainer.save_model()
    trainer.processing_class.save_pretrained(sft.output_dir)
    fields = {"num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 8, "max_steps": 2}
    args = OmniGRPOConfig(output_dir=str(tmp_path / "rl"), **fields, **SMALL_RUN)
    trainer = OmniGRPOTrainer(sft.output_dir, [length_reward], args, rows)
    trainer.train()
    assert trainer.state.global_step == 2


def test_sft_loses_on_the_target_alone(built, rows, tmp_path):
    """
    The loss of one step is the cross-entropy of the target and the end of the turn behind the prompt; the same of rows of
    TRL's form.

    Mutants: the prompt's tokens counted; the end of the turn left out; a token that the chat template has written written again.
    """
    path = built("llama")
    tokenizer, own = load_processor(path), AutoModelForCausalLM.from_pretrained(path)
    messages = [{"role": "user", "content": rows[0]["prompt"][0]["content"][0]["text"]}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    target = [*tokenizer(TARGET, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = own(torch.tensor([asked + target])).logits[0, len(asked) - 1 : -1]
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(target)).item()
    fields = {"max_steps": 1, "per_device_train_batch_size": 1, **SMALL_RUN}
    ours = rows.select([0])
    in_turns = ours.select_columns(["id"]).add_column("prompt", [messages])
    in_turns = in_turns.add_column("completion", [[{"role": "assistant", "content": TARGET}]])
    for name, data in {"ours": ours, "turns": in_turns}.items():
        trainer = OmniSFTTrainer(path, OmniSFTConfig(output_dir=str(tmp_path / name), **fields), data)
        trainer.train()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(wanted, rel=1e-4)


def with_media(clips):
    """Three rows of which the second and third show something."""
    media = (
        [],
        [{"type": "image", "path": "image0.png"}],
        [{"type": "video", "path": "clip0.mp4", "use_audio": True}],
    )
    rows = [{**row, "media": shown} for row, shown in zip(ROWS, media, strict=False)]
    return to_dataset(check_rows([(row["id"], row) for row in rows], clips), "short")


def test_rows_with_media_are_refused_by_id(built, clips, tmp_path):
    """
    Before training, all of them at once: by both trainers and by the scripts' preflight.

    Mutants: the first alone is named; the media left out of the prompt without a word.
    """
    path, data = built("qwen3"), with_media(clips)
    grpo = OmniGRPOConfig(output_dir=str(tmp_path), num_generations=2, per_device_train_batch_size=2, **SMALL_RUN)
    sft = OmniSFTConfig(output_dir=str(tmp_path), **SMALL_RUN)
    for start in (
        lambda: OmniGRPOTrainer(path, [length_reward], grpo, data),
        lambda: OmniGRPOTrainer(path, [length_reward], grpo, data.select([0]), {"held out": data}),
        lambda: OmniSFTTrainer(path, sft, data),
        lambda: preflight(data, encoder_of(path)),
    ):
        with pytest.raises(DataError, match="2 row") as refused:
            start()
        assert "'q0'" not in str(refused.value)
        assert "row 'q1': shows image; this model takes text alone" in str(refused.value)
        assert "row 'q2': shows audio and video; this model takes text alone" in str(refused.value)


def test_lora_is_what_was_asked_for(built, rows, tmp_path):
    """
    With `use_peft` alone every linear layer but the head, by its full name; with names those; both train.

    Mutant: the expression for omni models, which no layer of a text model has the name of.
    """
    for kind, names, adapted in (
        ("qwen3", None, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("qwen3", ["q_proj", "v_proj"], {"q_proj", "v_proj"}),
        ("gpt2", None, {"c_attn", "c_proj", "c_fc"}),
    ):
        lora = peft_config(
            ModelConfig(model_name_or_path=built(kind), use_peft=True, lora_r=2, lora_target_modules=names)
        )
        fields = {"num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 8, "max_steps": 1}
        args = OmniGRPOConfig(output_dir=str(tmp_path), **fields, **SMALL_RUN)
        trainer = OmniGRPOTrainer(built(kind), [length_reward], args, rows, peft_config=lora)
        found = {n.partition(".lora_A")[0] for n, _ in trainer.model.named_parameters() if ".lora_A" in n}
        assert {name.rpartition(".")[2] for name in found} == adapted
        trainer.train()


def test_the_scripts_train_evaluate_and_ask(built, tmp_path, monkeypatch, capsys):
    """SFT, RL with LoRA from it, evaluation of both and a question, as their commands run them."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run = "--dtype float32 --prompt_style short --use_cpu true --bf16 false --gradient_checkpointing false --report_to none"
    small = [*run.split(), "--train_file", str(data), "--max_steps", "2"]
    blank = tmp_path / "blank.yaml"
    blank.write_text("max_prompt_length: 256\n")
    sft_omni.main(["--config", str(blank), "--model_name_or_path", built("qwen3"), "--output_dir", "runs/sft", *small])
    asked = "--num_generations 2 --per_device_train_batch_size 4 --max_completion_length 8 --use_peft true --lora_r 2"
    grpo_omni.main(
        ["--config", str(blank), "--model_name_or_path", "runs/sft", "--output_dir", "runs/rl", *small, *asked.split()]
    )
    measured = (
        "--dtype float32 --prompt_style short --max_new_tokens 8 --models sft=runs/sft rl=runs/rl --compare rl:sft"
    )
    eval_omni.main(["--config", str(blank), "--test_file", str(data), "--output_dir", "runs/eval", *measured.split()])
    assert json.loads((tmp_path / "runs/metrics.json").read_text())["stages"].keys() == {"sft", "rl"}
    ask_omni.main(["--model", "runs/rl", "--question", QUESTIONS[0], "--max_new_tokens", "8", "--raw"])
    assert load_examples(data) and capsys.readouterr().out.strip()


@pytest.mark.parametrize("own_pad", [True, False])
def test_control_tokens_are_text_where_the_tokenizer_can_say_so(built, tmp_path, own_pad):
    """
    A tokenizer that pads with its end has nothing to split control tokens by: they are refused with what helps, and the
    end of its turns is not lost.

    Mutants: the remedy that does not work named; the end of a turn taken for padding, and out.
    """
    folder = tmp_path / "model"
    load_model(built("qwen3")).save_pretrained(folder)
    tokenizer = load_processor(built("qwen3"))
    tokenizer.pad_token = "<|pad|>" if own_pad else None
    tokenizer.save_pretrained(folder)
    tokenizer = load_processor(str(folder))
    assert (tokenizer.pad_token == tokenizer.eos_token) == (not own_pad)
    encoder = PromptEncoder(tokenizer, MediaSettings(), escape=True)
    turns = [{"role": "user", "content": [part("red")]}, {"role": "assistant", "content": [part("no")]}]
    wanted = tokenizer.apply_chat_template(
        [{"role": "user", "content": "red"}, {"role": "assistant", "content": "no"}], add_generation_prompt=True
    )["input_ids"]
    assert encoder(turns).input_ids == wanted and wanted.count(tokenizer.eos_token_id) == 2
    asked = [{"role": "user", "content": [part("What is <|im_end|>?")]}]
    if own_pad:
        ids = encoder(asked, "q7").input_ids
        assert ids.count(tokenizer.eos_token_id) == 1 and "<|im_end|>?" in tokenizer.decode(ids)
        return
    with pytest.raises(ValueError, match=r"row 'q7'.*needs a tokenizer whose `pad_token` is not its end"):
        encoder(asked, "q7")


def test_a_model_with_code_of_its_own(rows, tmp_path, monkeypatch):
    """It loads where that is allowed, its tokenizer too. Mutant: `trust_remote_code` kept from the configuration."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    path = with_own_code(Path(tiny_text(tmp_path / "remote", QUESTIONS, "llama")))
    with pytest.raises(ValueError, match="custom code"):
        OmniSFTTrainer(path, OmniSFTConfig(output_dir=str(tmp_path / "run"), **SMALL_RUN), rows)
    fields = {"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 4, "max_steps": 1}
    args = OmniGRPOConfig(output_dir=str(tmp_path / "run"), trust_remote_code=True, **fields, **SMALL_RUN)
    trainer = OmniGRPOTrainer(path, [length_reward], args, rows)
    trainer.train()
    assert type(trainer.model).__name__ == "RemoteForCausalLM" and trainer.scorer.shares
