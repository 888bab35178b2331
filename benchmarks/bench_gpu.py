# SPDX-License-Identifier: Apache-2.0
"""
What it saves to compute a prompt once, on a GPU: one GRPO update of Qwen2.5-Omni-7B's real architecture with random
weights in bfloat16, stock TRL's plain path beside ours over SDPA blocks and over FlexAttention's block mask.

    make bench-gpu                                        # needs CUDA, 80 GB for the shapes as they are
    python benchmarks/bench_gpu.py --device cpu --tiny    # the same code on a model of 0.1 M parameters

Two ways to train: LoRA on all 28 layers, and full fine-tuning of as many as half of the memory holds; the towers are
frozen in both. Two works: a picture that fills the prompt (against stock TRL) and a clip of 32 frames with 40 s of
sound (against our plain path). Each path is built, samples its own batch, takes the rollouts of the first path, and is
freed before the next: they do not fit side by side. Tokens a second are those of the rollouts, G (P + C), on every
path; MFU counts what a path has to compute (`update_flops.py`) over the device's dense bfloat16 peak. Peak memory is
that of the updates. The last line is JSON.
"""

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from grpo_media import TEXT, Shape, clip_examples, image_examples, write_clips, write_pictures
from grpo_trainers import omni_trainer, trl_trainer
from grpo_work import Work, timed
from omni_7b import REAL, TINY, build_thinker, depth_that_fits, omni_7b_config, save_processor
from peft import LoraConfig
from trl.trainer.utils import get_peak_flops
from update_flops import update_flops

from omni_grpo.data.media.settings import MediaSettings
from omni_grpo.families import base_of
from omni_grpo.model.loading import freeze_towers, language_model_targets
from omni_grpo.run.machine import describe_machine

TEXT_TOKENS = 45
PLAIN = {"share_prompt": "off", "share_media": "off"}
Make = Callable[[Any, Any, dict[str, Any]], Any]  # model, LoRA and fields of a run to a trainer


def works(folder: Path, shape: Shape, is_tiny: bool) -> Iterator[tuple[str, dict[str, Make]]]:
    """Name of a work, and its paths: the baseline first."""
    directory = str(folder)
    pictures = write_pictures(folder, shape, TEXT_TOKENS)
    fits = MediaSettings(min_pixels=56 * 56, max_pixels=4096 * 28 * 28)

    def stock(model: Any, lora: Any, fields: dict[str, Any]) -> Any:
        return trl_trainer(directory, pictures, shape, folder, model, lora, **fields)

    def on_pictures(model: Any, lora: Any, fields: dict[str, Any]) -> Any:
        return omni_trainer(directory, image_examples(pictures), shape, folder, fits, model, lora, **fields)

    yield "image", {"stock TRL": stock, "SDPA blocks": on_pictures, "FlexAttention": on_pictures}
    size = (
        {"frames": 4, "seconds": 2.9, "sound_tokens": 36}
        if is_tiny
        else {"frames": 32, "seconds": 40.0, "sound_tokens": 1000}
    )
    clips, settings = write_clips(folder, shape, TEXT_TOKENS, **size)

    def on_clips(model: Any, lora: Any, fields: dict[str, Any]) -> Any:
        return omni_trainer(directory, clip_examples(clips), shape, folder, settings, model, lora, **fields)

    def plain(model: Any, lora: Any, fields: dict[str, Any]) -> Any:
        return on_clips(model, lora, fields | PLAIN)

    yield "video and audio", {"plain": plain, "SDPA blocks": on_clips, "FlexAttention": on_clips}


def measure(work: Work, path: str, rounds: int, trains_all: bool, device: str) -> dict[str, Any]:
    """
    Figures of one path.

    Raises:
        `RuntimeError`: The path did not share prompts, its scores differ from the plain ones.
    """
    model, on_gpu = work.trainer.model, device == "cuda"
    is_packed = path in ("SDPA blocks", "FlexAttention")
    text = base_of(model).language_model.config
    if path == "FlexAttention":
        text._attn_implementation = "flex_attention"  # sampling went by SDPA
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    losses = [work.update()]  # and what is compiled or verified once
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = [timed(lambda: losses.append(work.update())) for _ in range(rounds)]
    if is_packed and not work.trainer.scorer.shares:
        raise RuntimeError(f"{path}: prompts are not shared, see the log")
    prompt, (group, completion) = work.inputs["prompt_ids"].size(1), work.inputs["completion_ids"].shape
    needed = update_flops(text, prompt, completion, group, is_packed=is_packed, trains_all=trains_all)
    peak = get_peak_flops(torch.cuda.get_device_name(), "bfloat16") if on_gpu else None
    return {
        "path": path,
        "prompt": prompt,
        "completion": completion,
        "group": group,
        "update_s": median(seconds),
        "tokens_per_s": group * (prompt + completion) / median(seconds),
        "computed_tokens": needed["tokens"],
        "mfu": needed["flops"] / median(seconds) / peak if peak else None,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        "losses": losses,
    }


def run(folder: Path, device: str, is_tiny: bool, shape: Shape, rounds: int) -> list[dict[str, Any]]:
    """All paths, one after another."""
    processor = save_processor(folder, [TEXT] * 20, TINY if is_tiny else REAL)
    memory = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else 0
    depth = 1 if is_tiny else depth_that_fits(omni_7b_config(processor).text_config, memory)
    fields = {"bf16": True, "use_cpu": device == "cpu"}
    rows: list[dict[str, Any]] = []
    for training in ("LoRA", "full"):
        lora = LoraConfig(r=16, target_modules=language_model_targets(None)) if training == "LoRA" else None
        for name, paths in works(folder, shape, is_tiny):
            rollouts = None
            for path, make in paths.items():
                if device == "cpu" and path == "FlexAttention":
                    continue  # it has no backward pass there
                model = build_thinker(processor, device, is_tiny, None if lora else depth)
                freeze_towers(model, vision=True, audio=True)
                work = Work(make(model, lora, fields), rollouts)
                rollouts = work.inputs["completion_ids"]
                layers = model.config.text_config.num_hidden_layers
                rows.append(
                    {"training": training, "layers": layers, "work": name}
                    | measure(work, path, rounds, lora is None, device)
                )
                print(line(rows[-1]), flush=True)
                del model, work
                gc.collect()
                if device == "cuda":
                    torch.cuda.empty_cache()
    return rows


def line(row: dict[str, Any]) -> str:
    """One path as a row of the table."""
    mfu = "–" if row["mfu"] is None else f"{row['mfu']:.1%}"
    memory = "–" if row["peak_memory_gb"] is None else f"{row['peak_memory_gb']:.1f}"
    return (
        f"| {row['training']}, {row['layers']} layers | {row['work']} | {row['path']} | "
        f"{row['prompt']} : {row['completion']} × {row['group']} | {row['update_s']:.3f} | {row['tokens_per_s']:,.0f} | "
        f"{mfu} | {memory} |"
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model of 0.1 M parameters and short prompts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=4096)
    parser.add_argument("--completion", type=int, default=256)
    parser.add_argument("--group", type=int, default=8)
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "bench-gpu: no CUDA device here; `--device cpu --tiny` runs the same code on a tiny model", file=sys.stderr
        )
        return 2
    if args.device == "cpu" and not args.tiny:
        print("bench-gpu: the 7B model on a CPU takes days; add --tiny", file=sys.stderr)
        return 2
    shape = Shape(160, 8, 2) if args.tiny else Shape(args.prompt, args.completion, args.group)
    machine = describe_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print("| training | work | path | P : C × G | update, s | tokens/s | MFU | peak memory, GB |")
    print("|---" * 8 + "|")
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), args.device, args.tiny, shape, args.rounds)
    print(json.dumps({"machine": machine, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
