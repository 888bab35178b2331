# SPDX-License-Identifier: Apache-2.0
"""
Put a trained thinker back into the full Omni checkpoint that it came from: one folder that speaks again.

    python recipes/export_omni.py --model runs/qwen2_5_omni_7b/rl --into Qwen/Qwen2.5-Omni-7B --output omni-rl
    python recipes/export_omni.py --model runs/lora --into Qwen/Qwen2.5-Omni-7B --output adapter --keep_adapter

Talker, codec, configuration and every other file stay as they are, to the bit; the thinker's weights take the type that
they have there. An adapter is merged, or with --keep_adapter written anew for the full model, as plain peft loads it.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from omni_grpo.run.console import run

PREFIX = "thinker."


def stored(folder: Path) -> dict[str, Path]:
    """File of each weight in a checkpoint."""
    from safetensors import safe_open

    named = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            named |= dict.fromkeys(weights.keys(), file)
    return named


def full_name(name: str) -> str:
    """A thinker that was loaded from a full checkpoint is saved under that one's names, any other under its own."""
    return PREFIX + name.removeprefix(PREFIX)


def put_back(trained: Path, full: Path, output: Path) -> None:
    """The full checkpoint at `output`, its thinker's weights those of `trained`; file by file, so that one fits in memory."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    new = {full_name(name): (name, file) for name, file in stored(trained).items()}
    old = {name for name in stored(full) if name.startswith(PREFIX)}
    if strange := new.keys() ^ old:
        raise ValueError(
            f"{trained} is no thinker of {full}: {len(strange)} weights are in one alone, {min(strange)} say"
        )
    for file in sorted(f for f in full.rglob("*") if f.is_file()):
        target = output / file.relative_to(full)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != ".safetensors":
            shutil.copyfile(file, target)
            continue
        weights = {}
        with safe_open(file, "pt") as source:
            for name in source.keys():  # noqa: SIM118
                weights[name] = source.get_tensor(name)
                if name in new:
                    own, there = new[name]
                    with safe_open(there, "pt") as trained_weights:
                        weights[name] = trained_weights.get_tensor(own).to(weights[name].dtype)
            save_file(weights, target, metadata=source.metadata())


def put_adapter(adapter: Path, full: str, output: Path) -> None:
    """An adapter of the thinker as one of the full model: its weights' names and its targets, in full."""
    from safetensors.torch import load_file, save_file

    root = "base_model.model."
    weights = load_file(adapter / "adapter_model.safetensors")
    output.mkdir(parents=True, exist_ok=True)
    renamed = {root + PREFIX + name.removeprefix(root): weight for name, weight in weights.items()}
    save_file(renamed, output / "adapter_model.safetensors", metadata={"format": "pt"})
    targets = sorted({name.removeprefix(root).partition(".lora_")[0] for name in renamed})
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"target_modules": targets, "base_model_name_or_path": full, "auto_mapping": None}
    (output / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a finished run")
    parser.add_argument("--into", required=True, help="full checkpoint: directory or hub name")
    parser.add_argument("--output", type=Path, required=True, help="a new directory")
    parser.add_argument("--keep_adapter", action="store_true", help="write the run's adapter for the full model")
    args = parser.parse_args(argv)
    if args.output.exists() and any(args.output.iterdir()):
        raise ValueError(f"{args.output} is not empty; name a new directory")

    from huggingface_hub import snapshot_download

    from omni_grpo.model.loading import load_model

    full = Path(args.into if Path(args.into).is_dir() else snapshot_download(args.into))
    if not any(name.startswith(PREFIX) for name in stored(full)):
        raise ValueError(f"{args.into} is not a full Omni model: no weight of it is the {PREFIX.rstrip('.')}'s")
    is_adapter = (args.model / "adapter_config.json").is_file()
    if args.keep_adapter:
        if not is_adapter:
            raise ValueError(f"--keep_adapter: {args.model} holds no adapter; leave it out")
        put_adapter(args.model, args.into, args.output)
    elif is_adapter:
        with tempfile.TemporaryDirectory(dir=args.output.parent) as merged:
            load_model(str(args.model)).save_pretrained(merged)
            put_back(Path(merged), full, args.output)
    else:
        put_back(args.model, full, args.output)
    print(f"{'adapter of the full model' if args.keep_adapter else 'full model'} in {args.output}")


if __name__ == "__main__":
    run(main)
