# SPDX-License-Identifier: Apache-2.0
"""
Plain TRL data, rows of `prompt` and `solution`, in TRL's own GRPOTrainer: the reward says what type they all are.

    python examples/plain_trl_rows.py
"""

import tempfile

from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from omni_rewards import AnswerReward

RIGHT = r"<think>Half of a half.</think><answer>\frac{1}{4}</answer>"
WRONG = r"<think>Twice a half.</think><answer>1</answer>"
TOKENS = ["<pad>", "<eos>", "What is 0.5²?", RIGHT, WRONG]  # a token is a whole completion: no model is smaller


def main() -> None:
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(vocab_size=len(TOKENS), eos_token_id=1, pad_token_id=0, **size, **heads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=Qwen2ForCausalLM(config),
            reward_funcs=AnswerReward(problem_type="math"),  # a row's own `problem_type`, where it has one, wins
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=32,
                num_generations=16,
                max_completion_length=1,
                max_steps=12,
                learning_rate=0.05,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": "What is 0.5²?", "solution": "$0.25$"}] * 64),
            processing_class=tokenizer,
        )
        trainer.train()
    steps = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    print(f"mean reward: {steps[0]:.2f} in the first step, {steps[-1]:.2f} in the last")


if __name__ == "__main__":
    main()
