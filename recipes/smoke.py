# SPDX-License-Identifier: Apache-2.0
"""
The whole loop in under a minute: a few clips are drawn and spoken, a tiny random model takes two SFT steps and two
GRPO steps on them, and answers. It learns nothing; it shows that everything turns.

    python recipes/smoke.py
"""

import sys
import tempfile
from pathlib import Path

import grpo_omni
import make_demo_base
import make_demo_data
import sft_omni

CONFIGS = Path(__file__).resolve().parent / "configs" / "demo"
MEDIA = ["--num_frames", "2", "--min_pixels", "3136", "--max_pixels", "3136"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data, runs = f"{folder}/data", f"{folder}/runs"
        sizes = {"sft_agreement": 8, "sft_intent": 4, "sft_face": 6, "sft_voice": 6}
        sizes |= {"rl_agreement": 8, "rl_intent": 4, "rl_face": 6, "rl_voice": 6}
        sizes |= {f"base_text_{kind}": n for kind, n in (("agreement", 64), ("told", 32), ("face", 36), ("voice", 36))}
        make_demo_data.main(
            ["--config", f"{CONFIGS}/data.yaml", "--output_dir", data, "--splits", "base_text,sft,rl"]
            + [part for name, n in sizes.items() for part in (f"--{name}", str(n))]
        )
        make_demo_base.main(["--output_dir", f"{runs}/base", "--texts", f"{data}/base_text.jsonl"])
        steps = ["--max_steps", "2", "--logging_steps", "1", "--save_strategy", "no"]
        sft_omni.main(
            [
                "--config",
                f"{CONFIGS}/sft.yaml",
                "--model_name_or_path",
                f"{runs}/base",
                "--output_dir",
                f"{runs}/sft",
                "--train_file",
                f"{data}/sft.jsonl",
                "--per_device_train_batch_size",
                "4",
                *steps,
                *MEDIA,
                "--validation_file",
                f"{data}/sft.jsonl",
                "--eval_steps",
                "2",
                "--load_best_model_at_end",
                "false",
                "--validation_max_new_tokens",
                "16",
            ]
        )
        grpo_omni.main(
            [
                "--config",
                f"{CONFIGS}/rl.yaml",
                "--model_name_or_path",
                f"{runs}/sft",
                "--output_dir",
                f"{runs}/rl",
                "--train_file",
                f"{data}/rl.jsonl",
                "--per_device_train_batch_size",
                "8",
                *steps,
                *MEDIA,
                "--num_generations",
                "4",
                "--max_completion_length",
                "24",
                "--num_completions_to_print",
                "2",
            ]
        )
    print("the loop turns: data → SFT → GRPO, on video, image, audio and text")


if __name__ == "__main__":
    sys.exit(main())
