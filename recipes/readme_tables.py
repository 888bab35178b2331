# SPDX-License-Identifier: Apache-2.0
"""
README's tables, from what they describe: the data schema, the configs, the rewards, attacks on the rewards, results.

    python recipes/readme_tables.py            prints them
    python recipes/readme_tables.py --write    fills them in between README's markers
"""

import argparse
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import omni_rewards
from omni_grpo.data.rows.schema import schema_table

REPOSITORY = Path(__file__).resolve().parent.parent


def header(config: Path) -> dict[str, str]:
    """A YAML file's leading comment: its first line as `title`, then its `Needs:`, `Command:`, `Result:`, … in full."""
    parts, name = {}, "title"
    for line in config.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        if parts and (match := re.match(r"([A-Z]\w+): +(.*)", text)):
            name, text = match.groups()
        parts[name] = f"{parts.get(name, '')}\n{text}".strip()
    return parts


def configs_table() -> str:
    """Path, purpose and command of each YAML file below `recipes/configs`."""
    lines = ["| config | what it does | command |", "|---|---|---|"]
    for config in sorted(REPOSITORY.glob("recipes/configs/**/*.yaml")):
        parts, path = header(config), config.relative_to(REPOSITORY)
        title = re.sub(r"<\w+>", r"`\g<0>`", parts["title"])  # a tag would vanish
        command = re.split(r" {2,}|\n", parts["Command"])[0]
        lines.append(f"| [`{path.relative_to('recipes/configs')}`]({path}) | {title} | `{command}` |")
    return "\n".join(lines)


def rewards_table() -> str:
    """Dotted path, first docstring line and data columns of each reward; columns in brackets may be missing."""
    lines = ["| reward | what it scores | columns it reads |", "|---|---|---|"]
    for name in sorted(n for n in omni_rewards.__all__ if n.endswith("_reward")):
        reward = getattr(omni_rewards, name)
        summary = (inspect.getdoc(reward) or "").partition("\n")[0]
        columns = [
            f"`{column}`" if parameter.default is parameter.empty else f"[`{column}`]"
            for column, parameter in inspect.signature(reward).parameters.items()
            if column != "completions" and parameter.kind is not parameter.VAR_KEYWORD
        ]
        lines.append(f"| `omni_rewards.{name}` | {summary} | {', '.join(columns) or '–'} |")
    return "\n".join(lines)


def attacks_table() -> str:
    """The summary, the first table, of what `benchmarks/reward_attacks.py --write` wrote."""
    results = (REPOSITORY / "benchmarks/results/reward_attacks.md").read_text(encoding="utf-8")
    return next(block for block in results.split("\n\n") if block.startswith("|"))


def results(name: str) -> dict[str, Any]:
    """What a benchmark wrote as JSON, beside its Markdown."""
    return json.loads((REPOSITORY / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))


def percent(figure: Mapping[str, Any], mean: str) -> str:
    """A share and its interval in percent."""
    low, high = figure["ci95"]
    return f"{100 * figure[mean]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def demo_table() -> str:
    """Each model of `make demo-seeds`: held-out accuracy and valid format."""
    measured = results("demo_seeds")
    meaning = {
        "sft": "cold start (best of its checkpoints on validation)",
        "control": "control: the cold start goes on for as long as RL takes",
        "rl": "RL from the cold start",
    }
    lines = ["| % of held-out questions | agreement | intent | both | valid format |", "|---|---|---|---|---|"]
    for model, words in meaning.items():
        figures = measured["accuracy"][model]
        shown = [percent(figures[group], "accuracy") for group in ("agreement", "intent", "intent+agreement")]
        valid = " / ".join(f"{100 * share:.1f}" for share in measured["format"][model])
        lines.append(f"| {words} | {' | '.join(shown)} | {valid} |")
    return "\n".join(lines)


def credit_table() -> str:
    """Each credit map of `make ablate-credit`: accuracy, format, context, length."""
    lines = ["| credit | intent + agreement, % | valid format, % | context, % | tokens |", "|---|---|---|---|---|"]
    for name, cell in results("ablate_credit")["cells"].items():
        by_seed = [
            " / ".join(f"{scale * value:.1f}" for value in cell[key])
            for key, scale in (("format", 100), ("context", 100), ("length", 1))
        ]
        lines.append(f"| {name} | {percent(cell['accuracy']['intent+agreement'], 'mean')} | {' | '.join(by_seed)} |")
    return "\n".join(lines)


def index_table() -> str:
    """The shortcut index of the three models of `make validate-index`."""
    lines = ["| model, by its training | accuracy, % | index, voice, % | index, face, % |", "|---|---|---|---|"]
    for name, model in results("blind_models")["models"].items():
        figures = " | ".join(percent(model[key], "value") for key in ("accuracy", "audio", "video"))
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines)


def shortcut_table() -> str:
    """What each method of `make ablate-shortcut` learnt where the face told nine answers in ten."""
    lines = [
        "| method | seeds | as in training, % | face tells nothing, % | index, voice, % | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for name, cell in results("planted_shortcut")["cells"].items():
        figures = " | ".join(percent(cell[key], "value") for key in ("in", "out", "index_audio"))
        minutes = " / ".join(f"{seconds / 60:.1f}" for seconds in cell["seconds"]) or "–"
        lines.append(f"| {name} | {len(cell['seeds'])} | {figures} | {minutes} |")
    return "\n".join(lines)


def speed_table() -> str:
    """The newest of what `make bench` wrote, groups of eight."""
    newest = max((REPOSITORY / "benchmarks/results").glob("20*.json"))
    lines = ["| work | P : C | bound | update | sampling | step | activation bytes |", "|---" * 7 + "|"]
    for row in json.loads(newest.read_text(encoding="utf-8"))["rows"]:
        if row["group"] == 8:
            figures = " | ".join(f"{row[part]['ratio']:.2f}" for part in ("update", "sampling", "step"))
            shape = f"{row['prompt']} : {row['completion']} | {row['token_bound']:.2f}"
            lines.append(f"| {row['work']} | {shape} | {figures} | {row['memory']:.0%} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """Marker -> table."""
    return {
        "schema": schema_table(),
        "configs": configs_table(),
        "rewards": rewards_table(),
        "attacks": attacks_table(),
        "demo": demo_table(),
        "credit": credit_table(),
        "index": index_table(),
        "speed": speed_table(),
        "shortcut": shortcut_table(),
    }


def fill(readme: str, tables: Mapping[str, str]) -> str:
    """
    `readme` with each table between `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        `ValueError`: A pair of markers is missing, or there twice.
    """
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if readme.count(begin) != 1 or readme.count(end) != 1 or readme.index(end) < readme.index(begin):
            raise ValueError(f"README.md needs {begin} and {end} once each, in this order")
        before, _, rest = readme.partition(begin)
        readme = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    return readme


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="fill README.md in place")
    if not parser.parse_args().write:
        print("\n\n".join(tables().values()))
        return
    path = REPOSITORY / "README.md"
    path.write_text(fill(path.read_text(encoding="utf-8"), tables()), encoding="utf-8")


if __name__ == "__main__":
    main()
