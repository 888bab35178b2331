# SPDX-License-Identifier: Apache-2.0
"""
The whole loop in under a minute: a few clips are drawn and spoken, a tiny random model takes two SFT steps and two
GRPO steps on them, and answers. It learns nothing; it shows that everything turns.

    python recipes/smoke.py
"""

import tempfile
from pathlib import Path

import grpo_omni
import make_demo_base
import make_demo_data
import sft_omni
from omni_grpo.run.console import run

CONFIGS = Path(__file__).resolve().parent / "configs" / "demo"
STAGE = {"max_steps": 2, "logging_steps": 1, "save_strategy": "no"}
MEDIA = {"num_frames": 2, "min_pixels": 3136, "max_pixels": 3136}


def words(**fields: object) -> list[str]:
    return [part for name, value in fields.items() for part in (f"--{name}", str(value))]


def main(argv: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data, runs = f"{folder}/data", f"{folder}/runs"
        rows = {"agreement": 8, "intent": 4, "face": 6, "voice": 6}
        sizes = {f"{split}_{kind}": n for split in ("sft", "rl") for kind, n in rows.items()}
        sizes |= {f"base_text_{kind}": n for kind, n in (("agreement", 64), ("told", 32), ("face", 36), ("voice", 36))}
        where = {"config": CONFIGS / "data.yaml", "output_dir": data, "splits": "base_text,sft,rl"}
        make_demo_data.main(words(**where, **sizes))
        make_demo_base.main(words(output_dir=f"{runs}/base", texts=f"{data}/base_text.jsonl"))
        validation = {"validation_file": f"{data}/sft.jsonl", "eval_steps": 2, "validation_max_new_tokens": 16}
        files = {"model_name_or_path": f"{runs}/base", "output_dir": f"{runs}/sft", "train_file": f"{data}/sft.jsonl"}
        sizes = {"per_device_train_batch_size": 4, "load_best_model_at_end": "false"}
        sft_omni.main(words(config=CONFIGS / "sft.yaml", **files, **sizes, **STAGE, **MEDIA, **validation) + argv)
        files = {"model_name_or_path": f"{runs}/sft", "output_dir": f"{runs}/rl", "train_file": f"{data}/rl.jsonl"}
        sizes = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 24}
        grpo_omni.main(words(config=CONFIGS / "rl.yaml", **files, **sizes, **STAGE, **MEDIA) + argv)
    print("the loop turns: data → SFT → GRPO, on video, image, audio and text")


if __name__ == "__main__":
    run(main)
