# SPDX-License-Identifier: Apache-2.0
"""
What it saves to compute a prompt once: ours beside stock TRL on images, and beside our own plain path on video with
sound, in one process, turn by turn (A B A B) on the same rollouts.

    make bench                 # all shapes, about 40 minutes on two cores; writes benchmarks/results/<date>-<machine>.*
    make bench QUICK=1         # 16 prompt tokens to 1 of completion, 8 completions; the last line is JSON

A model of the real architecture with random weights (hidden size 256, 6 layers, vision and audio towers of 2 layers),
every weight trained, float32. The token bound G (P + C) / (P + G C) is how many times fewer tokens the language model
sees; the rest of a ratio beyond it is media encoded once and attention over shorter rows. Activation bytes are what an
update's forward pass keeps for its backward pass.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench_plot import plot
from grpo_media import TEXT, Shape, clip_examples, image_examples, write_clips, write_pictures
from grpo_trainers import omni_trainer, trl_trainer
from grpo_work import Work, timed, token_bound
from paired_ratios import cell, ratio

from omni_demo.model import TinyOmniConfig, save_tiny_omni
from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.run.machine import describe_machine

RATIOS, GROUPS = (16, 4, 1), (4, 8, 16)
COMPLETION = {16: 32, 4: 64, 1: 128}  # tokens, by ratio
MODEL = TinyOmniConfig(width=256, text_layers=6, vision_layers=2, audio_layers=2, image_size_px=504, vocab_size=1024)
TEXT_TOKENS = 45  # of a prompt, about: turns, instruction, question


def compare(baseline: Work, ours: Work, rounds: int) -> dict[str, Any]:
    """
    Every figure of one shape.

    Raises:
        `AssertionError`: The two do not do the same work: other prompts, or other gradients.
    """
    assert torch.equal(baseline.inputs["prompt_ids"], ours.inputs["prompt_ids"]), "the prompts differ"
    theirs, mine = baseline.gradients(), ours.gradients()
    largest = max(g.norm() for g in theirs.values())
    difference = max(((mine[n] - g).norm() / g.norm()).item() for n, g in theirs.items() if g.norm() > 1e-4 * largest)
    assert difference < 1e-4, f"the gradients differ by {difference:.1e}"
    prompt, (rows, completion) = baseline.inputs["prompt_ids"].size(1), baseline.inputs["completion_ids"].shape
    figures: dict[str, Any] = {
        "prompt": prompt,
        "completion": completion,
        "group": rows,
        "token_bound": token_bound(prompt, completion, rows),
        "gradient_difference": difference,
        "memory": ours.activation_bytes() / baseline.activation_bytes(),
        "flops": baseline.flops() / ours.flops(),
        "encoded_items": [baseline.encoded_items(), ours.encoded_items()],
    }
    updates, samplings, steps = [], [], []
    for work in (baseline, ours):
        work.update()
    for _ in range(rounds):
        updates.append((timed(baseline.update), timed(ours.update)))
        (step_a, sampling_a), (step_b, sampling_b) = baseline.timed_step(), ours.timed_step()
        steps.append((step_a, step_b))
        samplings.append((sampling_a, sampling_b))
    return figures | {"update": ratio(updates), "sampling": ratio(samplings), "step": ratio(steps)}


def image_pair(model_dir: str, shape: Shape, folder: Path) -> tuple[Work, Work]:
    """Stock TRL and ours on a picture that fills the prompt."""
    pictures = write_pictures(folder, shape, TEXT_TOKENS)
    settings = MediaSettings(min_pixels=56 * 56, max_pixels=4096 * 28 * 28)
    baseline = Work(trl_trainer(model_dir, pictures, shape, folder))
    ours = omni_trainer(model_dir, image_examples(pictures), shape, folder, settings)
    return baseline, Work(ours, baseline.inputs["completion_ids"])


def clip_pair(model_dir: str, shape: Shape, folder: Path) -> tuple[Work, Work]:
    """Our plain path and our fast one on a clip with sound."""
    clips, settings = write_clips(folder, shape, TEXT_TOKENS)
    plain = Work(
        omni_trainer(model_dir, clip_examples(clips), shape, folder, settings, share_prompt="off", share_media="off")
    )
    ours = omni_trainer(model_dir, clip_examples(clips), shape, folder, settings)
    return plain, Work(ours, plain.inputs["completion_ids"])


PAIRS: dict[str, Callable[[str, Shape, Path], tuple[Work, Work]]] = {
    "image, against stock TRL": image_pair,
    "video and audio, against our plain path": clip_pair,
}


def shapes(quick: bool) -> Iterator[tuple[str, int, Shape]]:
    """What is measured: name of the work, prompt tokens to one of completion, shape."""
    for name in list(PAIRS)[: 1 if quick else None]:
        for times in RATIOS[: 1 if quick else None]:
            for group in (8,) if quick else GROUPS:
                yield name, times, Shape(times * COMPLETION[times], COMPLETION[times], group)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine = results["machine"]
    lines = [
        "# A prompt computed once",
        "",
        f"{results['date']}, {machine['processor']}, {machine['cores']} cores, {results['threads']} threads, accelerator "
        f"{machine['accelerator']}, torch {machine['torch']}, TRL {machine['trl']}, transformers "
        f"{machine['transformers']}; {results['rounds']} rounds A B A B, `make bench`. Times faster than the baseline, "
        "geometric mean of paired ratios [95 % bootstrap interval].",
    ]
    for name in PAIRS:
        rows = [row for row in results["rows"] if row["work"] == name]
        if not rows:
            continue
        lines += [
            "",
            f"## {name[0].upper()}{name[1:]}",
            "",
            "| P : C | G | token bound | update | sampling | step | activation bytes | FLOPs of an update "
            "| items encoded in a step |",
            "|---" * 9 + "|",
        ]
        for row in rows:
            theirs, ours = row["encoded_items"]
            lines.append(
                f"| {row['prompt']} : {row['completion']} | {row['group']} | {row['token_bound']:.2f} | "
                f"{cell(row['update'])} | {cell(row['sampling'])} | {cell(row['step'])} | {row['memory']:.0%} | "
                f"1/{row['flops']:.1f} | {theirs} → {ours} |"
            )
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shape; nothing is written")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "threads": args.threads,
        "rounds": args.rounds,
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model_dir = str(save_tiny_omni(folder / "model", [TEXT] * 20, MODEL))
        for name, times, shape in shapes(args.quick):
            figures = compare(*PAIRS[name](model_dir, shape, folder), args.rounds)
            results["rows"].append({"work": name, "ratio": times, **figures})
            row = results["rows"][-1]
            print(
                f"{name}: P {row['prompt']}, C {row['completion']}, G {row['group']}: update {cell(row['update'])} "
                f"(bound {row['token_bound']:.2f}), sampling {cell(row['sampling'])}, step {cell(row['step'])}, "
                f"activations {row['memory']:.0%}",
                flush=True,
            )
    if args.quick:
        print(table(results))
        row = results["rows"][0]
        speedups = {f"{part}_speedup": round(row[part]["ratio"], 3) for part in ("update", "sampling", "step")}
        print(
            json.dumps({**speedups, "update_memory_ratio": round(row["memory"], 4), "token_bound": row["token_bound"]})
        )
        return
    machine = re.sub(r"[^a-z0-9]+", "-", str(results["machine"]["processor"]).lower()).strip("-")
    path = args.results / f"{results['date']}-{machine}.md"
    path.write_text(table(results))
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    plot(results, list(PAIRS), path.with_suffix(".png"))
    print(table(results))


if __name__ == "__main__":
    main(sys.argv[1:])
