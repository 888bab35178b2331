# SPDX-License-Identifier: Apache-2.0
"""
Ask a model about a clip, an image or a sound of your own; prints what it perceives, how it reasons, its answer.

    python recipes/ask_omni.py --model runs/demo/rl --video clip.mp4 --question "Does the voice agree with the face?"

Media settings and prompt style are those that the model was trained with (the config beside it), unless you say
otherwise.
"""

import argparse
import sys
from pathlib import Path

from omni_grpo.run.console import run


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint directory or hub name")
    parser.add_argument("--question", required=True)
    parser.add_argument("--video", action="append", default=[], help="its sound is heard too, where there is one")
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--audio", action="append", default=[])
    parser.add_argument("--option", action="append", default=[], help='e.g. --option "A. praise" --option "B. taunt"')
    parser.add_argument("--problem_type", default=None, help="yes_no, label, numerical, …; decides the instruction")
    parser.add_argument("--prompt_style", default=None, help="a key of omni_grpo.data.rows.prompts.PROMPT_STYLES")
    parser.add_argument("--max_new_tokens", type=int, default=512)
    parser.add_argument("--backend", choices=["generate", "vllm"], default="generate", help="vllm: see docs/vllm.md")
    parser.add_argument("--raw", action="store_true", help="print the completion as it is")
    args = parser.parse_args(argv)

    import torch

    from omni_grpo.data.encoding.encoder import PromptEncoder
    from omni_grpo.data.media.settings import MediaSettings
    from omni_grpo.data.rows.loading import check_rows
    from omni_grpo.data.rows.prompts import DEFAULT_STYLE, PROMPT_STYLES, build_messages
    from omni_grpo.model.loading import load_model, load_processor
    from omni_grpo.model.towers import attach_media_embedder
    from omni_grpo.rollout.answers import generate
    from omni_grpo.rollout.vllm.answering import AnsweringEngine
    from omni_grpo.run.scripts import trained_settings
    from omni_rewards import parse_sections

    trained = trained_settings(args.model)
    own, escape = trained.pop("prompt_style", DEFAULT_STYLE), trained.pop("escape_control_tokens", False)
    style, media = args.prompt_style or own, MediaSettings(**trained)
    if trained and style != own:
        print(f"{args.model} was trained with prompt_style {own} (here {style})", file=sys.stderr)
    kind = args.problem_type or ("multiple choice" if args.option else "free-form")
    row = {
        "id": "yours",
        "problem": args.question,
        "problem_type": kind,
        "solution": "?",
        "options": args.option or None,
        "media": [
            *({"type": "video", "path": str(Path(p).absolute()), "use_audio": "if_present"} for p in args.video),
            *({"type": "image", "path": str(Path(p).absolute())} for p in args.image),
            *({"type": "audio", "path": str(Path(p).absolute())} for p in args.audio),
        ],
    }
    (example,) = check_rows([("your question", row)], Path("/"))
    messages = build_messages(example, style, media.load_audio_from_video)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(args.model, dtype="auto" if device == "cuda" else torch.float32).to(device).eval()
    processor = load_processor(args.model)
    prompt = PromptEncoder(processor, media, escape=escape)(messages, "yours")
    embedder = attach_media_embedder(model)
    engine = AnsweringEngine(model, processor, embedder) if args.backend == "vllm" else None
    (completion,) = generate(model, processor, embedder, [prompt], args.max_new_tokens, engine)
    sections = parse_sections(completion.text, PROMPT_STYLES[style].schema)
    if args.raw or not sections.ok:
        print(completion.text)
    if not sections.ok:
        print(
            f"\n(not in the sections {', '.join(PROMPT_STYLES[style].schema.names)}: {sections.reason})",
            file=sys.stderr,
        )
    elif not args.raw:
        for name, text in sections.texts.items():
            print(f"{name:>8}  {text.strip()}")


if __name__ == "__main__":
    run(main)
