# SPDX-License-Identifier: Apache-2.0
"""
How long does `make sample` take, and do rows that are sampled again leave the difficulty band oftener than they must?

    make bench-sample            # after `make sft`; writes benchmarks/results/sample_band.md and .json
    python benchmarks/sample_band.py --rows 256 --results /tmp/sample_band.md

The demo's RL rows, sampled by its cold start on two processes with two seeds. If a row's completions are right with one
chance both times, its right ones fall to the first and the second time by the hypergeometric law, whatever that chance
is. From it follow how many rows must be expected to leave the band, and how likely it is that as many leave as did.
Exits with 1 where that is less than 1 in 100.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from math import comb
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "recipes"), str(ROOT / "rewards")]
CONFIG = "recipes/configs/demo/sample.yaml"
UNLIKELY = 0.01


def leaves(pairs: Sequence[tuple[int, int]], count: int, in_band: Callable[[int], bool]) -> dict[str, Any]:
    """
    Rows that are in the band the first time and not the second: how many are, how many noise makes expect, and how likely
    noise makes as many or more.

    Args:
        pairs (sequence of `(int, int)`): Right completions of each row, the first time and the second.
        count (`int`): Completions of a row each time.
        in_band (`Callable`): Whether a row with so many right completions is in the band.
    """
    law = [1.0]  # chances that 0, 1, … rows leave
    for k, other in pairs:
        both = k + other
        ways = [
            comb(count, j) * comb(count, both - j)
            for j in range(max(0, both - count), min(count, both) + 1)
            if in_band(j) and not in_band(both - j)
        ]
        chance = sum(ways) / comb(2 * count, both)
        law = [a * (1 - chance) + b * chance for a, b in zip([*law, 0.0], [0.0, *law], strict=True)]
    left = sum(in_band(k) and not in_band(other) for k, other in pairs)
    mean = sum(number * p for number, p in enumerate(law))
    spread = sum((number - mean) ** 2 * p for number, p in enumerate(law)) ** 0.5
    in_first = sum(in_band(k) for k, _ in pairs)
    return {"in_band": in_first, "left": left, "expected": mean, "sd": spread, "p": min(sum(law[left:]), 1.0)}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine, found = results["machine"], results["leaves"]
    busy = max(results["load"][0], results["load"][1] - 2) > 1  # the second is that of the first, and of others
    lines = [
        "# Sampling for a difficulty band",
        "",
        f"{results['date']}, {machine['processor']}, torch {machine['torch']}, transformers {machine['transformers']}; "
        f"{results['rows']:,} rows of the demo × {results['count']}, on two processes, "
        f"{'which shared two cores with others' if busy else 'alone on two cores'}; `{results['command']}`.",
        "",
        "| | first seed | second seed |",
        "|---|---|---|",
        "| minutes | " + " | ".join(f"{seconds / 60:.1f}" for seconds in results["seconds"]) + " |",
        "| minutes of processor time | " + " | ".join(f"{s / 60:.1f}" for s in results["processor_seconds"]) + " |",
        "| load of the machine at the start | " + " | ".join(f"{load:.1f}" for load in results["load"]) + " |",
        f"| rows by right completions, 0 to {results['count']} | "
        + " | ".join(" ".join(map(str, rates)) for rates in results["rates"])
        + " |",
        "",
        f"In the band of {results['band']} are {found['in_band']:,} rows the first time. The second time {found['left']} of "
        f"them leave it; noise alone makes expect {found['expected']:.1f} ± {found['sd']:.1f} (p = {found['p']:.2f} for as "
        f"many or more): {'oftener than' if found['p'] < UNLIKELY else 'no oftener than'} binomial noise predicts.",
        "",
    ]
    return "\n".join(lines)


def sampled(folder: Path, seed: int, words: Sequence[str]) -> dict[str, float]:
    """Run the sampling on two processes; its seconds, its processor's, and the load of the machine before it."""
    load, began, used = os.getloadavg()[0], time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    fields = ["--config", CONFIG, "--output_dir", str(folder), "--seed", str(seed), "--resume", "fresh", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launcher, "recipes/sample_omni.py", *fields], cwd=ROOT, env=environment, check=True)
    then = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = then.ru_utime + then.ru_stime - used.ru_utime - used.ru_stime
    return {"seconds": time.monotonic() - began, "processor_seconds": processor, "load": load}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="sample so many of the rows, from the file's start")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "runs/sample_band")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/sample_band.md")
    options = parser.parse_args(argv)

    from omni_grpo.run.machine import describe_machine
    from omni_grpo.run.stages import read_fields
    from omni_grpo.sampling.selection import ANY, Rule

    fields = read_fields(["--config", str(ROOT / CONFIG)])
    data, count = ROOT / fields["train_file"], fields["num_completions"]
    words = ["--media_root", str(data.parent), "--decode_cache", str(options.output_dir / "decode_cache")]
    if options.rows:
        few = options.output_dir / f"{options.rows}.jsonl"
        few.parent.mkdir(parents=True, exist_ok=True)
        few.write_text("".join(data.read_text(encoding="utf-8").splitlines(keepends=True)[: options.rows]))
        words += ["--train_file", str(few)]
    runs = [sampled(options.output_dir / f"seed{seed}", seed, words) for seed in (0, 1)]

    rule = Rule()
    least, most = rule.band[ANY]
    files = [options.output_dir / f"seed{seed}" / "samples.jsonl" for seed in (0, 1)]
    times = [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]
    right = [[[rule.is_right(c) for c in row["completions"]].count(True) for row in rows] for rows in times]
    assert [row["id"] for row in times[0]] == [row["id"] for row in times[1]]
    results = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "command": "make bench-sample"
        if not options.rows
        else f"python benchmarks/sample_band.py --rows {options.rows}",
        "rows": len(times[0]),
        "count": count,
        "band": f"{least * count} to {most * count} of {count}",
        **{name: [run[name] for run in runs] for name in runs[0]},
        "rates": [[numbers.count(k) for k in range(count + 1)] for numbers in right],
        "leaves": leaves(list(zip(*right, strict=True)), count, lambda k: least <= k / count <= most),
    }
    options.results.write_text(table(results), encoding="utf-8")
    options.results.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    sys.exit(results["leaves"]["p"] < UNLIKELY)


if __name__ == "__main__":
    main(sys.argv[1:])
