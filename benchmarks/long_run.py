# SPDX-License-Identifier: Apache-2.0
"""
Does a long run grow? Memory, file handles and threads of the smallest model's GRPO over many steps.

    python benchmarks/long_run.py [--steps 2000] [--output long_run.json]

Mixed rows of a few small clips, sounds and images, all sharing on, a log event and a checkpoint every 100 steps. The
parsed sections of the last 8,192 texts are remembered by design, so that many are parsed before; and the trainer keeps
every log event for its checkpoints. Reported, of the last three quarters of the steps: the first and the last 50, the
growth in 1,000 steps by a straight line, and how many standard errors of that line it is: below 2 it is noise.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "recipes"), str(ROOT / "rewards")]


def measured() -> dict[str, float]:
    """Resident memory in MB, open files and threads of this process, as Linux counts them."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    memory, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
    return {"memory_mb": memory, "files": len(os.listdir("/proc/self/fd")), "threads": threads}


def growth(values: list[float]) -> dict[str, float]:
    """
    Of the last three quarters (the first one fills caches): what 1,000 steps add by a straight line through them, and
    how many standard errors of that line it is. Successive values resemble each other, so 50 in a row count as one.
    """
    blocks = [statistics.fmean(values[i : i + 50]) for i in range(len(values) // 4, len(values) - 49, 50)]
    places = range(len(blocks))
    slope, start = statistics.linear_regression(places, blocks)
    left = sum((y - start - slope * x) ** 2 for x, y in zip(places, blocks, strict=True))
    spread = sum((x - statistics.fmean(places)) ** 2 for x in places)
    error = (left / max(len(blocks) - 2, 1) / spread) ** 0.5
    return {
        "first": blocks[0],
        "last": blocks[-1],
        "per_1000_steps": slope * 20,
        "standard_errors": slope / max(error, 1e-9),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--output", type=Path, help="where the figures go, every step's among them")
    options = parser.parse_args()

    import numpy as np
    import torch
    from transformers import PrinterCallback, TrainerCallback

    from conftest import TEXTS, mixed_rows
    from media_files import write_image, write_sound, write_video
    from omni_demo.model import TinyOmniConfig, save_tiny_omni
    from omni_grpo import OmniGRPOConfig, OmniGRPOTrainer, PromptEncoder
    from omni_grpo.data.dataset import to_dataset
    from omni_grpo.data.media.settings import MediaSettings
    from omni_grpo.data.rows.loading import load_examples
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.run.log_file import LogFile
    from omni_rewards import CONTEXT_THINK_ANSWER, parse_sections
    from small_runs import SMALL_RUN, length_reward

    torch.set_num_threads(1)
    steps: list[dict[str, float]] = []

    class Measure(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(measured())

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = TinyOmniConfig(
            width=32, text_layers=2, vision_layers=1, audio_layers=1, image_size_px=56, vocab_size=400
        )
        model = str(save_tiny_omni(folder / "tiny", TEXTS, size))
        tone = np.sin(np.arange(16_000) / 10).astype(np.float32)
        for k in range(4):
            frames = np.random.default_rng(k).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
            write_video(folder / f"clip{k}.mp4", frames, sound=tone, sound_rate=16_000)
            write_sound(folder / f"sound{k}.wav", tone, rate=16_000)
            write_image(folder / f"image{k}.png", frames[0])
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed_rows(folder, 24)))
        args = OmniGRPOConfig(
            **{**SMALL_RUN, "save_strategy": "steps", "disable_tqdm": True, "logging_steps": 100},
            output_dir=str(folder / "run"),
            max_steps=options.steps,
            save_steps=100,
            save_total_limit=2,
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=8,
        )
        trainer = OmniGRPOTrainer(
            load_model(model),
            [length_reward],
            args,
            to_dataset(load_examples(folder / "rows.jsonl"), "short"),
            encoder=PromptEncoder(
                load_processor(model), MediaSettings(num_frames=2, min_pixels=3136, max_pixels=3136)
            ),
            callbacks=[LogFile(folder / "run" / "log.jsonl"), Measure()],
        )
        trainer.remove_callback(PrinterCallback)
        for i in range(8192):
            parse_sections(f"{i} <context>as long as what is sampled here", CONTEXT_THINK_ANSWER)
        trainer.train()
    figures = {name: growth([step[name] for step in steps]) for name in steps[0]}
    for name, figure in figures.items():
        print(f"{name:10}", "  ".join(f"{key} {value:.3f}" for key, value in figure.items()))
    if options.output:
        options.output.write_text(json.dumps({"steps": steps, "growth": figures}))


if __name__ == "__main__":
    main()
