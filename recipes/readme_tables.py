# SPDX-License-Identifier: Apache-2.0
"""
The tables of README.md, of docs/ and of the recipes' own pages, from what they describe.

    python recipes/readme_tables.py            prints them
    python recipes/readme_tables.py --write    fills them in between the markers of each page
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
from omni_rewards import problem_types

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
    """Path, purpose and command of each YAML file below `recipes/configs`, for a page in `docs`."""
    lines = ["| config | what it does | command |", "|---|---|---|"]
    for config in sorted(REPOSITORY.glob("recipes/configs/**/*.yaml")):
        parts, path = header(config), config.relative_to(REPOSITORY)
        command = re.split(r" {2,}|\n", parts["Command"])[0]
        name = path.relative_to("recipes/configs")
        lines.append(f"| [`{name}`](../{path}) | {_in_a_cell(parts['title'])} | `{command}` |")
    return "\n".join(lines)


def recipe_table(folder: Path) -> str:
    """What each config of a recipe needs and gave, from its header."""
    lines = ["| config | what it needs | result |", "|---|---|---|"]
    for config in sorted(folder.rglob("*.yaml")):
        parts, name = header(config), config.relative_to(folder)
        needs = parts["Needs"].partition("\npython recipes/convert_data.py")[0]
        lines.append(f"| [`{name}`]({name}) | {_in_a_cell(needs)} | {_in_a_cell(parts['Result'])} |")
    return "\n".join(lines)


def _in_a_cell(text: str) -> str:
    """Several lines as one, with tags that are shown."""
    return re.sub(r"<\w+>", r"`\g<0>`", " ".join(text.split()).rstrip(":"))


def types_table() -> str:
    """What is right for each problem type, as the list in `omni_rewards.problem_types` says it."""
    lines = ["| problem type | what is right |", "|---|---|"]
    told = re.findall(r"^- (`.+?`): (.+)$", problem_types.__doc__ or "", re.MULTILINE)
    return "\n".join(lines + [f"| {names} | {what} |" for names, what in told])


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


def method_table() -> str:
    """What each arm of `make ablate-method` learnt, with two rewards and with four."""
    columns = {
        "accuracy": "accuracy, %",
        "context": "context right, %",
        "consistent": "reasoning consistent, %",
        "index_audio": "index, voice, %",
        "index_video": "index, face, %",
    }
    lines = [f"| arm | seeds | {' | '.join(columns.values())} | minutes |", "|---" * (len(columns) + 3) + "|"]
    for name, cell in results("ablate_method")["cells"].items():
        figures = " | ".join(percent(cell[key], "value") for key in columns)
        minutes = " / ".join(f"{seconds / 60:.1f}" for seconds in cell["seconds"]) or "–"
        lines.append(f"| {name} | {len(cell['seeds'])} | {figures} | {minutes} |")
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


def tables() -> dict[str, dict[str, str]]:
    """Page -> marker -> table."""
    recipes = sorted(REPOSITORY.glob("recipes/configs/*/README.md"))
    return {
        "README.md": {"demo": demo_table()},
        "docs/own_data.md": {"schema": schema_table()},
        "docs/rewards.md": {"rewards": rewards_table(), "types": types_table(), "attacks": attacks_table()},
        "docs/credit.md": {"credit": credit_table(), "method": method_table(), "shortcut": shortcut_table()},
        "docs/speed.md": {"speed": speed_table()},
        "docs/evaluation.md": {"index": index_table()},
        "docs/results.md": {"configs": configs_table()},
        **{str(page.relative_to(REPOSITORY)): {"recipe": recipe_table(page.parent)} for page in recipes},
    }


def fill(text: str, tables: Mapping[str, str], page: str) -> str:
    """
    The `text` of a page with each table between `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        `ValueError`: A pair of markers is missing, or there twice.
    """
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
            raise ValueError(f"{page} needs {begin} and {end} once each, in this order")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="fill the pages in place")
    write = parser.parse_args().write
    for page, named in tables().items():
        path = REPOSITORY / page
        if write:
            path.write_text(fill(path.read_text(encoding="utf-8"), named, page), encoding="utf-8")
        else:
            print(f"{page}\n\n" + "\n\n".join(named.values()))


if __name__ == "__main__":
    main()
