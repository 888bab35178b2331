# SPDX-License-Identifier: Apache-2.0
"""Where we hold on to TRL and transformers. When one of these fails, upstream moved the part it names."""

from __future__ import annotations

from inspect import getsource, signature

import pytest
from transformers import DynamicCache, Qwen2_5OmniThinkerForConditionalGeneration, Trainer
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerModel
from trl import GRPOTrainer, SFTTrainer
from trl.trainer import grpo_trainer
from trl.trainer.utils import RepeatSampler

SEAMS = {
    (GRPOTrainer, "_tokenize_prompts"): ["self", "prompts"],
    (GRPOTrainer, "_generate"): ["self", "prompts"],
    (GRPOTrainer, "_generate_and_score_completions"): ["self", "inputs"],
    (GRPOTrainer, "_compute_loss"): ["self", "model", "inputs"],
    (GRPOTrainer, "_calculate_rewards"): ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    (GRPOTrainer, "_get_per_token_logps_and_entropies"): [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
    ],
    (GRPOTrainer, "_generate_single_turn"): ["self", "prompt_ids", "images", "multimodal_fields"],
    (GRPOTrainer, "_log_completion_extra"): ["self", "column", "values"],
    (GRPOTrainer, "log"): ["self", "logs", "start_time"],
    (SFTTrainer, "compute_loss"): ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    (SFTTrainer, "evaluate"): ["self", "eval_dataset", "ignore_keys", "metric_key_prefix"],
    (Trainer, "_save_checkpoint"): ["self", "model", "trial"],
    (Trainer, "_get_grad_norm"): ["self", "model", "grad_norm"],
    (Trainer, "compute_loss"): ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    (Trainer, "get_batch_samples"): ["self", "epoch_iterator", "num_batches", "device"],
    (Trainer, "get_train_dataloader"): ["self"],
    (Qwen2_5OmniThinkerModel, "get_audio_features"): ["self", "input_features", "feature_attention_mask"],
    (Qwen2_5OmniThinkerModel, "get_image_features"): ["self", "pixel_values", "image_grid_thw"],
    (Qwen2_5OmniThinkerModel, "get_video_features"): ["self", "pixel_values_videos", "video_grid_thw"],
    (Qwen2_5OmniThinkerForConditionalGeneration, "_supports_mm_encoder_outputs"): ["self"],
    (Qwen2_5OmniThinkerForConditionalGeneration, "_prepare_position_ids_for_generation"): [
        "self",
        "inputs_tensor",
        "model_kwargs",
    ],
    (DynamicCache, "reorder_cache"): ["self", "beam_idx"],
    (GRPOTrainer, "_prepare_inputs"): ["self", "generation_batch"],
    (GRPOTrainer, "_get_train_sampler"): ["self", "dataset"],
}


@pytest.mark.parametrize(("owner", "method"), SEAMS, ids=lambda x: getattr(x, "__name__", x))
def test_seam_is_where_we_left_it(owner, method):
    leading = SEAMS[owner, method]
    assert list(signature(getattr(owner, method)).parameters)[: len(leading)] == leading


def test_the_reference_is_made_by_the_function_we_replace():
    assert "self.ref_model = create_model_from_path(" in getsource(grpo_trainer.GRPOTrainer.__init__)


def test_what_is_overridden_whole_is_what_it_was():
    """Our `_prepare_inputs`, `_generate_single_turn` and scoring take the place of these lines of TRL's."""
    lines = {
        "_prepare_inputs": [
            "generate_every = self.args.steps_per_generation * self.num_iterations",
            "if self._step % generate_every == 0 or self._buffered_inputs is None:",
            "generation_batch = shuffle_sequence_dict(generation_batch)",
            "self._buffered_inputs[self._step % self.args.steps_per_generation]",
        ],
        "_generate_single_turn": [
            "prompt_completion_ids = unwrapped_model.generate(",
            "unwrap_model_for_generation(",
            "self._dist.summon_full_params(self.model_wrapped, recurse=False)",
        ],
        "_get_per_token_logps_and_entropies": [
            "labels = input_ids_batch.masked_fill(attention_mask_batch == 0, -100)",
            "labels[:, :-logits_to_keep] = -100",
            "outputs = model(**model_inputs, labels=labels, fused_lm_head=True)",
        ],
    }
    for method, wanted in lines.items():
        source = getsource(getattr(GRPOTrainer, method))
        assert not [line for line in wanted if line not in source], method


def test_tokens_outside_tool_mask_are_left_out_of_loss_and_counts():
    """Where the tokens that constrained decoding forced are handed to TRL."""
    assert 'completion_mask * inputs["tool_mask"]' in getsource(grpo_trainer.GRPOTrainer._compute_loss)
    source = getsource(grpo_trainer.GRPOTrainer._generate_and_score_completions)
    assert "loss_mask = completion_mask if tool_mask is None else completion_mask * tool_mask" in source


def test_checkpoints_are_rotated_by_the_limit_that_we_put_off():
    """We let older ones go only once the new one has its mark."""
    source = getsource(Trainer._save_checkpoint)
    assert "save_total_limit=self.args.save_total_limit" in source


def test_the_gradients_norm_is_known_just_before_the_step():
    source = getsource(Trainer._run_epoch)
    assert source.index("self._get_grad_norm(") < source.index("self.optimizer.step()")


def test_deepspeed_asks_its_engine_to_step_through_the_attribute_that_we_replace():
    from accelerate.utils.deepspeed import DeepSpeedEngineWrapper

    assert "self.engine.step()" in getsource(DeepSpeedEngineWrapper.backward)


def test_the_sampler_of_rows_holds_what_pairs_and_resumed_epochs_read():
    """An order is drawn by the sampler's own generator when an epoch begins, and rows are repeated by these fields."""
    leading = ["data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed"]
    assert list(signature(RepeatSampler).parameters) == leading
    sampler = RepeatSampler(list("abcdef"), 2, 3, 2, True, 1)
    assert [getattr(sampler, name) for name in leading] == [list("abcdef"), 2, 3, 2, True, 1]
    state = sampler.generator.get_state()
    next(iter(sampler))
    assert not sampler.generator.get_state().equal(state)
    assert list(RepeatSampler([0, 1], 2, 1, 2, shuffle=False)) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert "return RepeatSampler(" in getsource(GRPOTrainer._get_train_sampler)


def test_the_table_of_completions_is_kept_under_the_names_that_we_write_to():
    begun, scored = (getsource(getattr(GRPOTrainer, n)) for n in ("__init__", "_generate_and_score_completions"))
    for column in ("prompt", "completion", "advantages"):
        assert f'"{column}": deque(maxlen=args.generation_batch_size)' in begun
        assert f'self._logs["{column}"].extend(' in scored
    for columns in ("rewards", "extra"):
        assert f'"{columns}": defaultdict(lambda: deque(maxlen=args.generation_batch_size))' in begun
    assert "self._metrics = {" in begun
    assert "self._pending_extra_logs[column].extend(values)" in getsource(GRPOTrainer._log_completion_extra)


def test_what_a_plain_tokenizer_means_to_trl():
    """Prompts that our encoder leaves to TRL, and what is refused where it does not."""
    tokenized = getsource(GRPOTrainer._tokenize_prompts)
    for name in (
        "tools=self.tools",
        "**self.chat_template_kwargs",
        'self.processing_class(text=prompts)["input_ids"]',
    ):
        assert name in tokenized
    given = list(signature(GRPOTrainer.__init__).parameters)
    assert {"tools", "rollout_func", "environment_factory"} < set(given)
    assert given[1:7] == ["model", "reward_funcs", "args", "train_dataset", "eval_dataset", "processing_class"]
