# SPDX-License-Identifier: Apache-2.0
"""
Answer a test file or a benchmark with one or more models and score them: accuracy with 95 % intervals, format, ….

    python recipes/eval_omni.py --config recipes/configs/demo/eval.yaml [--any_field value]
    accelerate launch --num_processes 8 recipes/eval_omni.py --config recipes/configs/benchmarks/intentbench.yaml \\
        --models rl=runs/rl --media_root data/intentbench/videos

Without --config it evaluates the demo's models. Results: <output_dir>/<model>/predictions*.jsonl and metrics.json, and
metrics.json with comparisons one folder above. A cut run goes on at the row where it stopped, on as many processes as
you like.
"""

import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from omni_grpo.run.command_line import help_text, parse, with_default_config
from omni_grpo.run.console import run
from omni_grpo.run.scripts import announce, claim, watch


def main(argv: list[str]) -> None:
    argv = with_default_config(argv, "demo/eval.yaml")
    if {"-h", "--help"} & set(argv):
        print(help_text("eval", __doc__))
        return
    stage = claim(argv)
    if stage is None:
        return
    watch(stage)
    start = time.time()

    import torch
    from accelerate import PartialState

    from omni_grpo.config import DataArguments
    from omni_grpo.data.encoding.encoder import PromptEncoder, processing_key
    from omni_grpo.data.media.decode_cache import open_decode_cache
    from omni_grpo.data.media.settings import MediaSettings
    from omni_grpo.data.rows.loading import load_examples
    from omni_grpo.data.rows.schema import DataError
    from omni_grpo.evaluation.arguments import EvalArguments
    from omni_grpo.evaluation.benchmarks import load_benchmark
    from omni_grpo.evaluation.evaluate import Share, evaluate
    from omni_grpo.evaluation.results_table import headline, table
    from omni_grpo.evaluation.scoring import compare
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.model.towers import attach_media_embedder
    from omni_grpo.rollout.vllm.answering import AnsweringEngine
    from omni_grpo.run.machine import describe_machine
    from omni_grpo.run.scripts import as_trained, begin

    data, media, args = parse((DataArguments, MediaSettings, EvalArguments), argv)
    # Without `cpu` it takes each of several processes on CPUs for the only one. A share may take long to wait for.
    processes = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    begin(stage)
    processes.wait_for_everyone()
    if args.benchmark:
        examples = load_benchmark(args.benchmark, args.test_file, data.media_root, data.media_roots)
    else:
        examples = load_examples(args.test_file, data.media_root, args.test_split, media_roots=data.media_roots)
        every = args.protocol().answers.problem_type or ""
        examples = [replace(e, problem_type=e.problem_type or every) for e in examples]
        if open_ended := [e.id for e in examples if not (e.problem_type and e.solution)]:
            raise DataError(
                f"{args.test_file}: rows {open_ended[:5]}: add `problem_type` and `solution` to score answers"
            )
    protocol = args.protocol()
    share = Share(processes.process_index, processes.num_processes, processes.wait_for_everyone)

    stages, predictions = {}, {}
    decoded = open_decode_cache(data.decode_cache, data.decode_cache_mb, args.output_dir)
    encoders: dict[Any, PromptEncoder] = {}  # models that process prompts alike share what is decoded
    for entry in args.models:
        name, _, path = entry.partition("=")
        processor = load_processor(path)
        own, seen = as_trained(path, argv, data, media)
        encoder = PromptEncoder(
            processor, seen, data.max_prompt_length, args.prompt_cache_mb, decoded, own.escape_control_tokens
        )
        model = load_model(path, dtype=args.dtype).to(processes.device).eval()
        embedder = attach_media_embedder(model)
        stages[name], predictions[name] = evaluate(
            model,
            embedder,
            encoders.setdefault((processing_key(processor), seen, encoder.escape), encoder),
            examples,
            own.prompt_style,
            Path(args.output_dir) / name,
            args.variants if name in args.ablated else args.variants[:1],
            args.combined,
            args.batch_size,
            args.max_new_tokens,
            bare=name in args.bare or args.parser == "completion",
            ablated_rows=args.ablated_rows,
            protocol=protocol,
            share=share,
            engine=AnsweringEngine(model, processor, embedder) if args.backend == "vllm" else None,
        )
        stages[name].update(model=path, data=args.test_file)
    if share.index:
        return

    comparisons = [
        compare(predictions[a], predictions[b], (a, b), group, protocol.group_by)
        for a, b in (pair.split(":") for pair in args.compare)
        for group in (*args.combined, "all")
    ]
    run_dir = Path(args.run_dir) if args.run_dir else Path(args.output_dir).parent
    run_dir.mkdir(parents=True, exist_ok=True)
    folders = [f for f in run_dir.iterdir() if "." not in f.name]  # one with a date behind a dot was set aside
    records = {f.name: f / "stage.json" for f in folders if (f / "stage.json").is_file()}
    seconds = {n: json.loads(f.read_text()).get("seconds") for n, f in records.items()}
    summary = {
        "stages": stages,
        "comparisons": comparisons,
        "benchmark": args.benchmark,
        "machine": describe_machine(),
        "seconds": {**{n: s for n, s in seconds.items() if s is not None}, "eval": time.time() - start},
    }
    (run_dir / "metrics.json").write_text(json.dumps(summary, indent=1))
    stage.finish(seconds=time.time() - start)
    (run_dir / "metrics.txt").write_text(table(summary) + "\n", encoding="utf-8")
    where = f"answers in {args.output_dir}, every figure in {run_dir / 'metrics.txt'}"
    announce(f"{headline(summary)}\n{where}\nnext: python recipes/report.py --run {run_dir}")


if __name__ == "__main__":
    run(main)
