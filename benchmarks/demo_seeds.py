# SPDX-License-Identifier: Apache-2.0
"""
The demo over several seeds: base, SFT (best checkpoint on validation), RL from it, and the control that continues SFT
for as long as that RL took. Writes benchmarks/results/demo_seeds.md and .json; resumable, like its stages.

    make demo-seeds            # or: python benchmarks/demo_seeds.py --seeds 0 1 2
"""

import argparse
import json
import sys
import time
from pathlib import Path

from demo_cells import predictions, stage

GROUPS = ("agreement", "intent", "intent+agreement", "face", "voice")


def scores(rows: list[dict], group: str) -> list[float]:
    return [r["answer_score"] for r in rows if r["meta"]["kind"] in group.split("+")]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/demo_seeds"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/demo_seeds.md"))
    args = parser.parse_args(argv)

    seconds: dict[str, list[float]] = {"sft": [], "rl": [], "control": []}
    for seed in args.seeds:
        run = args.output / str(seed)

        def took(name: str, run: Path = run) -> float:
            return json.loads((run / name / "stage.json").read_text())["seconds"]

        stage("sft_omni", "sft", seed=seed, output_dir=run / "sft")
        stage("grpo_omni", "rl", seed=seed, model_name_or_path=run / "sft", output_dir=run / "rl")
        stage(
            "sft_omni",
            "control",
            seed=seed,
            model_name_or_path=run / "sft",
            output_dir=run / "control",
            max_train_seconds=round(took("rl")),
        )
        names = ("sft", "rl", "control")
        stage(
            "eval_omni",
            "eval",
            models=["base=runs/demo/base", *(f"{name}={run / name}" for name in names)],
            output_dir=run / "eval",
            compare=["rl:sft", "rl:control"],
            ablated=["rl"],
            ablated_rows=800,
        )
        for name in names:
            seconds[name].append(took(name))
    write(args.seeds, args.output, seconds, args.results)


def write(seeds: list[int], output: Path, seconds: dict[str, list[float]], results: Path) -> None:
    """Pool the seeds and write the table."""
    import numpy as np

    from omni_grpo.evaluation.statistics import pooled_bootstrap, pooled_paired_bootstrap
    from omni_grpo.run.machine import describe_machine

    rows = {(s, m): predictions(output / str(s) / "eval" / m) for s in seeds for m in ("base", "sft", "rl", "control")}
    ablated = {
        (s, v): predictions(output / str(s) / "eval" / "rl", v)
        for s in seeds
        for v in ("no_audio", "no_video", "silent", "blank")
    }

    def pooled(key: str, group: str, table: dict) -> dict:
        per_seed = [scores(table[s, key], group) for s in seeds]
        accuracy, ci95, _ = pooled_bootstrap(per_seed)
        return {
            "accuracy": accuracy,
            "ci95": list(ci95),
            "by_seed": [float(np.mean(s)) for s in per_seed],
        }

    machine = describe_machine()
    summary = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "seeds": seeds,
        "seconds": seconds,
        "accuracy": {m: {g: pooled(m, g, rows) for g in GROUPS} for m in ("base", "sft", "control", "rl")},
        "ablations": {
            v: {g: pooled(v, g, ablated) for g in GROUPS[:3]} for v in ("no_audio", "no_video", "silent", "blank")
        },
        "format": {
            m: [float(np.mean([r["format_ok"] for r in rows[s, m]])) for s in seeds]
            for m in ("base", "sft", "control", "rl")
        },
        "ablated_format": {
            v: [float(np.mean([r["format_ok"] for r in ablated[s, v]])) for s in seeds]
            for v in ("no_audio", "no_video", "silent", "blank")
        },
        "comparisons": {},
    }
    for other in ("sft", "control"):
        for group in GROUPS[:3]:
            d = pooled_paired_bootstrap([(scores(rows[s, "rl"], group), scores(rows[s, other], group)) for s in seeds])
            summary["comparisons"][f"rl - {other} on {group}"] = {
                "difference": d.difference,
                "ci95": list(d.ci95),
                "n": d.n,
            }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")

    def percent(figure: dict) -> str:
        low, high = figure["ci95"]
        seeds_text = " / ".join(f"{100 * x:.1f}" for x in figure["by_seed"])
        return f"{100 * figure['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({seeds_text})"

    lines = [
        "# The demo over seeds",
        "",
        f"{summary['date']}, {machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, TRL {machine['trl']}, "
        f"transformers {machine['transformers']}; seeds {', '.join(map(str, seeds))}; `make demo-seeds`.",
        "Held-out accuracy in % [95 % bootstrap interval, items and seeds resampled] (each seed).",
        "",
        "| model | " + " | ".join(GROUPS) + " | valid format | minutes |",
        "|---" * (len(GROUPS) + 3) + "|",
    ]
    for model in ("base", "sft", "control", "rl"):
        cells = [percent(summary["accuracy"][model][g]) for g in GROUPS]
        valid = " / ".join(f"{100 * f:.1f}" for f in summary["format"][model])
        minutes = " / ".join(f"{s / 60:.1f}" for s in seconds.get(model, [])) or "–"
        lines.append(f"| {model} | " + " | ".join(cells) + f" | {valid} | {minutes} |")
    lines += [
        "",
        "RL with a channel taken out or blanked:",
        "",
        "| variant | " + " | ".join(GROUPS[:3]) + " | valid format |",
        "|---" * 5 + "|",
    ]
    for variant, groups in summary["ablations"].items():
        valid = " / ".join(f"{100 * f:.1f}" for f in summary["ablated_format"][variant])
        lines.append(f"| {variant} | " + " | ".join(percent(groups[g]) for g in GROUPS[:3]) + f" | {valid} |")
    lines += ["", "Paired differences in points [95 %, items and seeds resampled]:", ""]
    for name, d in summary["comparisons"].items():
        lines.append(
            f"- {name}: {100 * d['difference']:+.1f} [{100 * d['ci95'][0]:+.1f}, {100 * d['ci95'][1]:+.1f}], n = {d['n']}"
        )
    results.write_text("\n".join(lines) + "\n")
    print(results.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
