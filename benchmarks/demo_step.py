# SPDX-License-Identifier: Apache-2.0
"""
What the demo's RL gains by computing each prompt, each clip and each prefill once: the same run on the plain path and
on the fast one, same seed, in turns (A B A B), with the learning curves of both.

    make bench-demo            # 20 steps each; writes benchmarks/results/demo_step.md and .json
    python benchmarks/demo_step.py --steps 2 --rounds 1 --results /tmp/demo_step.md --any_field_of_the_config value

Plain: `share_prompt: off, share_media: off, decode_cache_mb: 0`; every completion is sampled and scored with a prompt
of its own, whose media each pass encodes. Fast: the fields as the config has them; its decode cache is filled by the
check of the data, as in any run. Both look ahead. Sampling may come apart where rounding flips a draw: the table says
at which step, and what comes after it is another run, no error of either.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from paired_ratios import cell, ratio
from step_clock import StepTimes

CONFIG = "recipes/configs/demo/rl.yaml"
PATHS = {"plain": {"share_prompt": "off", "share_media": "off", "decode_cache_mb": "0"}, "fast": {}}


def start_model() -> str:
    """The demo's cold start, or the base that it starts from."""
    for folder in ("runs/demo/sft", "runs/demo/base", "recipes/checkpoints/demo_base"):
        if (Path(folder) / "config.json").is_file():
            return folder
    raise FileNotFoundError("no model to start from: run `make sft`, or name one with --model_name_or_path")


def curve_differences(plain: list[dict[str, float]], fast: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """
    Of each curve the largest difference of a step, the curve's largest value, and the one relative to the other. (A loss
    whose advantages cancel out is rounding alone; there the relative difference says nothing.)
    """
    found = {}
    for name in plain[0] if plain else ():
        a, b = ([step[name] for step in steps] for steps in (plain, fast))
        scale, apart = max(map(abs, a)), max(abs(x - y) for x, y in zip(a, b, strict=True))
        found[name] = {"difference": apart, "largest": scale, "relative": apart / scale if scale else float(apart > 0)}
    return found


def first_apart(plain: list[str], fast: list[str]) -> int | None:
    """The first step, from 1, whose completions differ in any token; `None` if none does."""
    return next((i for i, (a, b) in enumerate(zip(plain, fast, strict=True), 1) if a != b), None)


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Ratios plain : fast over paired steps, first steps left out where there are more, and the curves of round 1."""

    def pairs(part: str) -> list[tuple[float, float]]:
        skip = 1 if len(rounds[0]["plain"]["times"]) > 1 else 0
        both = [(turn["plain"]["times"][skip:], turn["fast"]["times"][skip:]) for turn in rounds]
        return [(getattr(a, part), getattr(b, part)) for plain, fast in both for a, b in zip(plain, fast, strict=True)]

    plain, fast = rounds[0]["plain"], rounds[0]["fast"]
    whole = [sum(step.step for turn in rounds for step in turn[path]["times"]) for path in PATHS]
    apart = [first_apart(turn["plain"]["sampled"], turn["fast"]["sampled"]) for turn in rounds]
    together = (apart[0] or len(plain["curves"]) + 1) - 1
    return {
        **{part: ratio(pairs(part)) for part in StepTimes._fields},
        "all_steps": whole[0] / whole[1],
        "sampled_apart_at": apart,
        "curves": {path: rounds[0][path]["curves"] for path in PATHS},
        "largest_difference": curve_differences(plain["curves"], fast["curves"]),
        "largest_difference_before": curve_differences(plain["curves"][:together], fast["curves"][:together]),
        "repeats_itself": all(turn[path]["curves"] == rounds[0][path]["curves"] for turn in rounds for path in PATHS),
        "encoded_items": {path: rounds[0][path]["encoded"] for path in PATHS},
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine, steps = results["machine"], results["curves"]["plain"]
    repeats = "one round does not tell" if results["rounds"] == 1 else "yes" if results["repeats_itself"] else "no"
    apart = [f"step {at}" if at else "never" for at in results["sampled_apart_at"]]
    lines = [
        "# The demo's RL, each prompt and each clip computed once",
        "",
        f"{results['date']}, {machine['processor']}, {machine['cores']} cores, {results['threads']} threads, accelerator "
        f"{machine['accelerator']}, torch {machine['torch']}, TRL {machine['trl']}, transformers "
        f"{machine['transformers']}; {len(steps)} steps from {results['model']}, same seed, rounds A B: "
        f"{results['rounds']}, `make bench-demo`. Geometric mean of paired steps [95 % bootstrap interval, which takes steps as "
        "independent], the first step of each run left out.",
        "",
        "| part | plain, s | fast, s | times faster |",
        "|---|---|---|---|",
    ]
    for part, name in (("step", "step"), ("sampling", "sampling"), ("update", "update"), ("rest", "the rest")):
        row = results[part]
        lines.append(f"| {name} | {row['baseline_s']:.3f} | {row['ours_s']:.3f} | {cell(row)} |")
    items = {path: sum(counts.values()) for path, counts in results["encoded_items"].items()}
    lines += [
        "",
        f"Medians. All steps, the first and its verification included: {results['all_steps']:.2f} times. Media items "
        f"encoded: {items['plain']} → {items['fast']}. The rest is decoding that was not ready, rewards, logs. "
        f"The first completions that differ in a token, round by round: {', '.join(apart)}. Runs of one path repeat "
        f"each other exactly: {repeats}.",
        "",
        "## Learning curves",
        "",
        "Largest difference of any step, and relative to the curve's largest value (where that is rounding, as a loss whose "
        "advantages cancel out, the relative figure says nothing):",
        "",
        "| curve | largest value | difference | relative | relative, before completions differ |",
        "|---|---|---|---|---|",
    ]
    before = results["largest_difference_before"]
    for name, row in results["largest_difference"].items():
        alike = f"{before[name]['relative']:.1e}" if before else "–"
        lines.append(f"| {name} | {row['largest']:.3g} | {row['difference']:.1e} | {row['relative']:.1e} | {alike} |")
    shown = [name for name in ("loss", "reward", "grad_norm") if name in steps[0]]
    lines += [
        "",
        "| step | " + " | ".join(f"{n}, plain | {n}, fast" for n in shown) + " |",
        "|---" * (2 * len(shown) + 1) + "|",
    ]
    for i, (plain, fast) in enumerate(zip(steps, results["curves"]["fast"], strict=True), 1):
        lines.append(f"| {i} | " + " | ".join(f"{plain[n]:.6g} | {fast[n]:.6g}" for n in shown) + " |")
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model_name_or_path")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/demo_step.md"))
    args, overrides = parser.parse_known_args(argv)
    model = args.model_name_or_path or start_model()

    import torch
    from demo_run import run_stage

    from omni_grpo.run.machine import describe_machine

    fields = ["--config", args.config, "--model_name_or_path", model, "--max_steps", str(args.steps), *overrides]
    rounds: list[dict[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            rounds.append({})
            for path in PATHS:
                rounds[-1][path] = run_stage(fields, Path(folder) / path, PATHS[path])
                seconds = sum(step.step for step in rounds[-1][path]["times"])
                print(f"round {turn + 1}, {path}: {args.steps} steps in {seconds:.1f} s", flush=True)
    results = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "model": model,
        "rounds": args.rounds,
        **summary(rounds),
    }
    args.results.write_text(table(results), encoding="utf-8")
    args.results.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main(sys.argv[1:])
