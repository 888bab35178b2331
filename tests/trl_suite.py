# SPDX-License-Identifier: Apache-2.0
"""
TRL's own tests of `GRPOTrainer`, with `OmniGRPOTrainer` in its place: whatever stock TRL passes, ours must pass.

    python tests/trl_suite.py CHECKOUT [--tiktoken qwen.tiktoken] [-k EXPRESSION]

`CHECKOUT` is a clone of github.com/huggingface/trl, best at the tag of the installed version: TRL ships no tests. Its
test file runs twice, under the installed TRL, once as it is and once with our class. The hub is not asked: the tests
run in a folder in which their models (tiny, random weights) and their data (lines of the Zen of Python) lie under the
hub's names. The tests of tools name token ids of Qwen's vocabulary: `--tiktoken` is its file, `qwen.tiktoken`, which
the package dashscope brings; without it they fail under both classes. Tests of images are left out.

Prints the tests that stock TRL passes and ours does not; none of them: exit code 0.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from text_models import with_own_code

HERE = Path(__file__).resolve()
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(11)))
CALLS = ("<tool_call>", "</tool_call>")  # at their places in Qwen's vocabulary, and no special tokens there
ZEN = [
    ("Beautiful is better than", "ugly."),
    ("Explicit is", "better than implicit."),
    ("Simple is better", "than complex."),
    ("Complex", "is better than complicated."),
    ("Flat is better than", "nested."),
    ("Sparse is better", "than dense."),
    ("Readability", "counts."),
    ("Special cases aren't special", "enough to break the rules."),
    ("Although practicality beats", "purity."),
    ("Errors should never", "pass silently."),
    ("Unless explicitly", "silenced."),
    ("In the face of ambiguity, refuse", "the temptation to guess."),
    ("There should be one-- and preferably", "only one --obvious way to do it."),
    ("Although that way may not be obvious at first unless", "you're Dutch."),
    ("Now is better", "than never."),
    ("Although never is often", "better than *right* now."),
    ("If the implementation is hard", "to explain, it's a bad idea."),
    ("If the implementation is easy to", "explain, it may be a good idea."),
    ("Namespaces are one", "honking great idea -- let's do more of those!"),
]
SMALL = {
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
}
MOE = {"num_experts_per_tok": 2}
MAMBA = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "layers_block_type": ["mamba", "attention", "moe"],
    "mamba_num_heads": 8,
    "mamba_head_dim": 4,
    "mamba_n_groups": 1,
    "ssm_state_size": 16,
    "n_routed_experts": 4,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "use_mamba_kernels": False,
    **MOE,
}
# name on the hub -> class, chat template that TRL ships, configuration
MODELS = {
    "tiny-Qwen2ForCausalLM-2.5": ("Qwen2ForCausalLM", "qwen2_5", SMALL),
    "tiny-Qwen3ForCausalLM": ("Qwen3ForCausalLM", "qwen3", SMALL),
    "tiny-Qwen3MoeForCausalLM": ("Qwen3MoeForCausalLM", "qwen3", {**SMALL, **MOE, "num_experts": 4}),
    "tiny-RemoteForCausalLM": ("LlamaForCausalLM", "qwen2_5", SMALL),
    "tiny-LlamaForCausalLM-3.2": ("LlamaForCausalLM", "qwen2_5", SMALL),
    "tiny-MistralForCausalLM-0.2": ("MistralForCausalLM", "qwen2_5", SMALL),
    "tiny-Cohere2ForCausalLM": ("Cohere2ForCausalLM", "qwen2_5", SMALL),
    "tiny-Gemma2ForCausalLM": ("Gemma2ForCausalLM", "qwen2_5", SMALL),
    "tiny-Glm4MoeForCausalLM": ("Glm4MoeForCausalLM", "qwen2_5", {**SMALL, **MOE, "n_routed_experts": 4}),
    "tiny-GptOssForCausalLM": ("GptOssForCausalLM", "qwen2_5", {**SMALL, **MOE, "num_local_experts": 4}),
    "tiny-NemotronHForCausalLM-nano": ("NemotronHForCausalLM", "qwen2_5", MAMBA),
    "tiny-Qwen2ForSequenceClassification-2.5": ("Qwen2ForSequenceClassification", "qwen2_5", SMALL),
    "tiny-Qwen3ForSequenceClassification": ("Qwen3ForSequenceClassification", "qwen3", SMALL),
    "tiny-LlamaForSequenceClassification-3.2": ("LlamaForSequenceClassification", "qwen2_5", SMALL),
}

CALLERS = ("tiny-Qwen3MoeForCausalLM",)  # of tools; with a small vocabulary the others are several times faster


def qwen_tokenizer(tiktoken: Path | None):
    """Qwen's own with its ids, or one of bytes alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AddedToken, PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    if tiktoken is not None:
        lines = (line.split() for line in tiktoken.read_bytes().splitlines())
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        converter = TikTokenConverter(str(tiktoken), extra_special_tokens=[])
        converter.load_tiktoken_bpe = lambda _: ranks  # its own wants the package tiktoken
        fast = converter.converted()
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        fast = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    for name in (*SPECIAL, *CALLS):
        tokenizer.add_tokens([AddedToken(name, special=name in SPECIAL, normalized=False)])
    return tokenizer


def build_hub(folder: Path, tiktoken: Path | None) -> None:
    """The models and data of the tests, under their names on the hub."""
    import torch
    import transformers
    import trl
    from datasets import Dataset

    templates = Path(trl.__file__).parent / "chat_templates"
    hub, bytewise = folder / "trl-internal-testing", qwen_tokenizer(None)
    for name, (model_class, template, fields) in MODELS.items():
        torch.manual_seed(0)
        tokenizer = qwen_tokenizer(tiktoken) if name in CALLERS else bytewise
        cls = getattr(transformers, model_class)
        ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        labels = {"num_labels": 1} if "Classification" in model_class else {}
        config = cls.config_class(vocab_size=len(tokenizer), **fields, **labels)
        for field, value in ids.items():
            setattr(config, field, value)
        model = cls(config)
        with torch.no_grad():  # wide enough for rewards and gradients to differ, as in TRL's own tiny models
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(0.0, 0.3)
        model.to(torch.bfloat16).save_pretrained(hub / name)
        tokenizer.chat_template = (templates / f"{template}.jinja").read_text()
        tokenizer.save_pretrained(hub / name)
    with_own_code(hub / "tiny-RemoteForCausalLM")
    zen = hub / "zen"
    zen.mkdir(parents=True)
    listed = []
    for config in ("standard_prompt_only", "conversational_prompt_only"):
        for split, rows in (("train", ZEN[:17]), ("test", ZEN[17:])):
            turns = [[{"role": "user", "content": f"What is better than {prompt}?"}] for prompt, _ in rows]
            column = turns if config.startswith("conversational") else [prompt for prompt, _ in rows]
            Dataset.from_dict({"prompt": column}).to_parquet(zen / config / f"{split}.parquet")
        listed.append(f"- config_name: {config}\n  data_files:\n" + "".join(
            f"  - split: {split}\n    path: {config}/{split}.parquet\n" for split in ("train", "test")
        ))  # fmt: skip
    (zen / "README.md").write_text("---\nconfigs:\n" + "".join(listed) + "---\n")


def pytest_configure() -> None:
    """As a plugin: a checkout of another version may ask the installed TRL whether packages are there that it never asks for."""
    from trl import import_utils

    def missing(name: str):
        if name.startswith("is_") and name.endswith("_available"):
            package = name.removeprefix("is_").removesuffix("_available")
            return lambda *_: importlib.util.find_spec(package) is not None
        raise AttributeError(name)

    vars(import_utils).setdefault("__getattr__", missing)


def pytest_collection_modifyitems(items) -> None:
    """As a plugin: our class in the place of TRL's, wherever the tests name it."""
    if os.environ.get("TRL_SUITE_CLASS") == "ours":
        from omni_grpo import OmniGRPOTrainer

        for module in {item.module for item in items}:
            module.GRPOTrainer = OmniGRPOTrainer


def outcomes(tests: Path, folder: Path, which: str, expression: str) -> dict[str, str]:
    """Test -> passed, failed or skipped, and why it failed."""
    report = folder / f"{which}.xml"
    paths = [str(HERE.parents[1] / part) for part in ("rewards", "recipes", "tests")]
    environment = {
        **os.environ,
        "TRL_SUITE_CLASS": which,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "pytest", str(tests / "test_grpo_trainer.py"), "-p", "trl_suite", "-q"]
    command += ["--rootdir", str(folder), "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}"]
    command += ["-k", f"not VLM and not Slow and ({expression})" if expression else "not VLM and not Slow"]
    with (folder / f"{which}.log").open("w") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=False)
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        said = "passed" if case.find("skipped") is None else "skipped"
        found[f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}"] = (
            said if bad is None else f"failed: {bad.get('message', '').splitlines()[0][:200]}"
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a clone of github.com/huggingface/trl")
    parser.add_argument("--tiktoken", type=Path, help="qwen.tiktoken, for the tests of tools")
    parser.add_argument("-k", default="", help="tests to run, as pytest's -k")
    parser.add_argument("--keep", type=Path, help="folder for the models and the two logs; else they are not kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        # The tests alone: beside them the checkout's own package would be imported in the place of the installed one.
        shutil.copytree(asked.checkout / "tests", folder / "tests", dirs_exist_ok=True)
        if not (folder / "trl-internal-testing").is_dir():
            build_hub(folder, asked.tiktoken and asked.tiktoken.resolve())
        stock, ours = (outcomes(folder / "tests", folder, which, asked.k) for which in ("stock", "ours"))
    for which, found in (("stock TRL", stock), ("OmniGRPOTrainer", ours)):
        print(which, dict(Counter(said.partition(":")[0] for said in found.values())))
    lost = [f"{name}\n    {ours.get(name)}" for name, said in stock.items() if said == "passed" != ours.get(name)]
    print(f"{len(lost)} test(s) that stock TRL passes and OmniGRPOTrainer does not", *lost, sep="\n")
    return int(bool(lost) or "passed" not in stock.values())


if __name__ == "__main__":
    sys.exit(main())
