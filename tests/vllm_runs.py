# SPDX-License-Identifier: Apache-2.0
"""What vLLM says of its tokens against the policy's own forward, one row at a time, at each batch that is sampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.families import base_of, family_of_processor, head_of
from omni_grpo.model.loading import load_model, load_processor
from small_runs import SMALL_RUN, length_reward

BASE = Path(__file__).parents[1] / "recipes/checkpoints/demo_base"


@torch.no_grad()
def own_logprobs(model, embedder, prompt, completion, forbidden, constraint=None):
    """Log-probabilities of one completion by a plain forward, its towers run anew, over what may be sampled."""
    row = replace(prompt, features={})
    ids = torch.tensor([[*prompt.input_ids, *completion]])
    media = {**prompt.media, **embedder.family.types(base_of(model), ids)}
    was_training = model.training
    model.eval()
    with embedder.expecting([row]):
        logits = head_of(model)(input_ids=ids, attention_mask=torch.ones_like(ids), **media).logits[0]
    model.train(was_training)
    logits = logits[len(prompt.input_ids) - 1 : -1].float()
    logits[:, forbidden] = -torch.inf
    if constraint is not None:
        masks = constraint.trace(tuple(completion))
        allowed = torch.stack([torch.from_numpy(constraint.allowed(mask)) for mask in masks])
        logits = logits.masked_fill(~allowed, -torch.inf)
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


class Watched:
    """A sampler, and the largest difference of each batch that it sampled."""

    def __init__(self, sampler, trainer):
        self.sampler, self.trainer, self.constraint = sampler, trainer, sampler.constraint
        self.differences, self.sampled = [], []

    def __call__(self, model, prompts, **asked):
        sampled = self.sampler(model, prompts, **asked)
        forbidden = family_of_processor(self.trainer.processing_class).control_ids(self.trainer.processing_class)
        own = [
            own_logprobs(model, self.trainer.media_embedder, prompt, ids, forbidden, self.constraint)
            for prompt, ids in zip(prompts, sampled.completion_ids, strict=True)
        ]
        pairs = zip(own, sampled.logprobs, strict=True)
        self.differences.append(max(float((a - torch.tensor(b)).abs().max()) for a, b in pairs))
        self.sampled.append(sampled)
        return sampled


def watched(
    folder, dataset, model=None, checkpoint=BASE, settings=None, peft_config=None, eval_dataset=None, **fields
):
    """A trainer of the demo's base that samples by vLLM, three steps, watched."""
    settings = settings or MediaSettings(num_frames=2, min_pixels=56 * 56, max_pixels=56 * 56, max_audio_seconds=3.0)
    args = {
        **SMALL_RUN,
        "output_dir": str(folder),
        "use_vllm": True,
        "per_device_train_batch_size": 6,
        "num_generations": 2,
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 2,
        "max_completion_length": 12,
        "max_steps": 3,
        "learning_rate": 1e-2,
        **fields,
    }
    trainer = OmniGRPOTrainer(
        model or load_model(str(checkpoint), dtype="float32"),
        [length_reward],
        OmniGRPOConfig(**args),
        dataset,
        eval_dataset=eval_dataset,
        encoder=PromptEncoder(load_processor(str(checkpoint)), settings),
        peft_config=peft_config,
    )
    trainer.sampler = Watched(trainer.sampler, trainer)
    return trainer
