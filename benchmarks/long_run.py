# SPDX-License-Identifier: Apache-2.0
"""
Does a long run grow? Memory, file handles and threads of the smallest model's GRPO over many steps.

    OMP_NUM_THREADS=1 nice python benchmarks/long_run.py     # writes benchmarks/results/long_run.md and .json
    python benchmarks/long_run.py --warm_up 5 --steps 40 --every 1 --results /tmp/long_run.md

Mixed rows of a few small clips, sounds and images through the trainer, all sharing on, a log event and a checkpoint
every 100 steps. Measured after a warm-up of as many steps as fill what is remembered by design: the parsed sections of
the last 8,192 texts, four a step, whose table takes its final size with the 10,923rd. Exits with 1 where something grows
beyond noise.
"""

import argparse
import ctypes
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, linear_regression
from typing import Any

from scipy.stats import t

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "recipes"), str(ROOT / "rewards")]

WARM_UP, TEXTS_A_STEP = 2800, 4
TOGETHER = 5  # successive samples resemble each other: so many count as one
NAMES = {"memory_mb": "resident memory, MB", "files": "open files", "threads": "threads"}


def measured() -> dict[str, float]:
    """
    Resident memory in MB, open files and threads of this process, as Linux counts them, once glibc has given back what
    it only keeps at hand: that rises with each new peak and never falls, which is no leak.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    memory, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
    return {"memory_mb": memory, "files": len(os.listdir("/proc/self/fd")), "threads": threads}


def growth(values: list[float], every: int) -> dict[str, Any]:
    """
    What 1,000 steps add, by a straight line through the samples, and its 95 % interval.

    Args:
        values (`list[float]`): Samples of a figure.
        every (`int`): Steps from one to the next.
    """
    means = [fmean(values[i : i + TOGETHER]) for i in range(0, len(values) - TOGETHER + 1, TOGETHER)]
    slope, start = linear_regression(places := range(len(means)), means)
    left = sum((y - start - slope * x) ** 2 for x, y in zip(places, means, strict=True))
    error = (left / (len(means) - 2) / sum((x - fmean(places)) ** 2 for x in places)) ** 0.5
    half, per_1000 = float(t.ppf(0.975, len(means) - 2)) * error, 1000 / (every * TOGETHER)
    ends = [(slope - half) * per_1000, (slope + half) * per_1000]
    return {"first": means[0], "last": means[-1], "per_1000_steps": slope * per_1000, "ci95": ends}


def log_event_bytes(history: list[dict[str, Any]]) -> float:
    """What an event of the trainer's log history holds, in bytes; what several share counts once."""
    held = {id(part): part for event in history for part in (event, *event.keys(), *event.values())}
    return sum(map(sys.getsizeof, held.values())) / len(history)


def grows(figure: dict[str, Any]) -> bool:
    """Whether the whole interval lies above zero."""
    return figure["ci95"][0] > 0


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine, figures = results["machine"], results["growth"]
    lines = [
        "# Long runs",
        "",
        f"{results['date']}, {machine['processor']}, torch {machine['torch']}, TRL {machine['trl']}, transformers "
        f"{machine['transformers']}; {results['steps']:,} GRPO steps of the smallest model after "
        f"{results['warm_up']:,} that fill its caches, a sample every {results['every']}, {results['minutes']:.0f} minutes, "
        "`python benchmarks/long_run.py`. Growth by a straight line [95 % interval; "
        f"{TOGETHER} samples in a row count as one].",
        "",
        "| of the process | at first | at last | growth in 1,000 steps |",
        "|---|---|---|---|",
    ]
    for name, words in NAMES.items():
        row = figures[name]
        low, high = row["ci95"]
        shown = f"{row['per_1000_steps']:+.2f} [{low:+.2f}, {high:+.2f}]"
        lines.append(f"| {words} | {row['first']:.1f} | {row['last']:.1f} | {shown} |")
    grown = [words for name, words in NAMES.items() if grows(figures[name])]
    told = f"Beyond noise grows: {', '.join(grown)}." if grown else "Nothing grows beyond noise."
    kept = results["log_event_bytes"]
    design = (
        "By design, each log event stays in the trainer's log history, which checkpoints hold: "
        f"{kept / 1000:.1f} KB here, {kept * 1e-5:.2f} MB in 1,000 steps at `logging_steps: 100`, {kept * 1e-3:.1f} MB at "
        "1. And the parsed sections of the last 8,192 texts are remembered, in a table that doubles once, by 0.28 MB, with "
        "the 10,923rd text: within the warm-up."
    )
    return "\n".join([*lines, "", told, "", design, "", *([results["note"], ""] if "note" in results else [])])


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--warm_up", type=int, default=WARM_UP, help="steps before these")
    parser.add_argument("--every", type=int, default=20, help="steps from one sample to the next")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/long_run.md")
    options = parser.parse_args(argv)

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
    from omni_grpo.run.machine import describe_machine
    from small_runs import SMALL_RUN, length_reward

    torch.set_num_threads(1)
    samples, began = list[dict[str, float]](), time.monotonic()

    class Measure(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            step = state.global_step - options.warm_up
            if step > 0 and step % options.every == 0:
                samples.append(measured())

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
            max_steps=options.warm_up + options.steps,
            save_steps=100,
            save_total_limit=2,
            per_device_train_batch_size=TEXTS_A_STEP,
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
        trainer.train()
    results = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "steps": options.steps,
        "warm_up": options.warm_up,
        "every": options.every,
        "minutes": (time.monotonic() - began) / 60,
        "log_event_bytes": log_event_bytes(trainer.state.log_history),
        "growth": {name: growth([sample[name] for sample in samples], options.every) for name in NAMES},
        "samples": samples,
    }
    options.results.write_text(table(results), encoding="utf-8")
    options.results.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    sys.exit(any(map(grows, results["growth"].values())))


if __name__ == "__main__":
    main(sys.argv[1:])
