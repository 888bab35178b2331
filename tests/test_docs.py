# SPDX-License-Identifier: Apache-2.0
"""Tables on the pages are what the code says, links lead somewhere, and what is told is what was measured."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import omni_rewards
from readme_tables import configs_table, fill, header, recipe_table, results, rewards_table, tables, types_table

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "recipes/configs/*/*.md", "benchmarks/results/*.md")
    for path in REPOSITORY.glob(pattern)
)


def read(page: str | Path) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def told(page: str) -> str:
    """A page as one line, with one kind of minus."""
    return " ".join(read(page).replace("−", "-").split())


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, found in tables().items() for name in found])
def test_a_table_on_a_page_is_the_one_generated(page, name):
    """`make readme` writes them."""
    match = re.search(rf"<!-- {name}:begin -->\n(.*?)\n<!-- {name}:end -->", read(page), re.DOTALL)
    assert match, f"{page} lacks the markers of {name}"
    assert match[1] == tables()[page][name], f"{page} is behind the code; run `make readme`"


def test_each_table_has_its_page_and_each_mark_its_table():
    """Mutant: a page that is no longer filled, with its old table."""
    names = [name for found in tables().values() for name in found if name != "recipe"]
    wanted = [
        "schema",
        "configs",
        "rewards",
        "types",
        "attacks",
        "demo",
        "credit",
        "index",
        "speed",
        "shortcut",
        "method",
    ]
    assert sorted(names) == sorted(wanted)
    marked = {named(page): set(re.findall(r"<!-- (\w+):begin -->", read(page))) for page in PAGES}
    assert {page: marks for page, marks in marked.items() if marks} == {p: set(found) for p, found in tables().items()}


def test_filling_in_changes_nothing_else_and_nothing_twice():
    old = "a\n<!-- schema:begin -->\nold\n<!-- schema:end -->\nz"
    new = fill(old, {"schema": "| new |"}, "a.md")
    assert new == "a\n<!-- schema:begin -->\n| new |\n<!-- schema:end -->\nz"
    assert fill(new, {"schema": "| new |"}, "a.md") == new


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- schema:begin -->",
        "<!-- schema:end --><!-- schema:begin -->",
        "<!-- schema:begin --><!-- schema:end -->" * 2,
    ],
)
def test_missing_or_doubled_markers_are_refused(text):
    with pytest.raises(ValueError, match=r"docs/a.md needs <!-- schema:begin --> and <!-- schema:end --> once each"):
        fill(text, {"schema": ""}, "docs/a.md")


def test_the_tables_have_a_line_for_each_thing():
    rewards = re.findall(r"^\| `omni_rewards\.(\w+)` \| \S.*[.:] \| \S.* \|$", rewards_table(), re.MULTILINE)
    assert rewards == sorted(n for n in omni_rewards.__all__ if n.endswith("_reward"))
    assert "| `solution`, `problem_type`, [`options`] |" in rewards_table()
    configs = re.findall(r"^\| \[`\S+`\]\(\.\./(\S+)\) \| \S.* \| `\S.*` \|$", configs_table(), re.MULTILINE)
    assert configs == [str(p.relative_to(REPOSITORY)) for p in sorted(REPOSITORY.glob("recipes/configs/**/*.yaml"))]
    types = re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| (`.+`) \| \S.* \|$", types_table(), re.MULTILINE)))
    assert sorted(types) == sorted(omni_rewards.PROBLEM_TYPES)


def test_every_recipe_has_a_page_with_a_line_for_each_config():
    folders = {config.relative_to(REPOSITORY / "recipes/configs").parts[0] for config in CONFIGS}
    for name in sorted(folders):
        folder = REPOSITORY / "recipes/configs" / name
        assert (folder / "README.md").is_file(), f"recipes/configs/{name} has no README.md"
        lines = re.findall(r"^\| \[`(\S+)`\]\(\1\) \| \S.* \| \S.* \|$", recipe_table(folder), re.MULTILINE)
        assert lines == [str(config.relative_to(folder)) for config in sorted(folder.rglob("*.yaml"))]
        assert re.search("expected", read(folder / "README.md"), re.I) and re.search(
            "measured", read(folder / "README.md"), re.I
        )


CONFIGS = sorted(REPOSITORY.glob("recipes/configs/**/*.yaml"))


def test_a_header_is_read_part_by_part(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "# Title: of it.\n#\n# Needs:    a GPU;\n#           and time\n# Command:  make x   (long)\n\n# no header\na: 1\n"
    )
    assert header(file) == {"title": "Title: of it.", "Needs": "a GPU;\nand time", "Command": "make x   (long)"}


def test_make_readme_runs_the_generators():
    done = subprocess.run(["make", "-n", "readme"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "recipes/readme_tables.py --write" in done.stdout and "docs/draw_architecture.py" in done.stdout


# Links and paths.


def headings(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def broken_links(path: Path) -> list[str]:
    """Relative links of a page to what is not there."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in headings(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        "# One, two\n[a](b.md) [b](#one-two) [c](#three) [d](a.md#four) [e](https://x) ![f](g.png) `[h](i)`"
    )
    assert broken_links(page) == ["b.md", "#three", "a.md#four", "g.png", "i"]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_a_file_or_a_heading(page):
    assert broken_links(page) == []


def test_every_page_is_reached_from_the_readme():
    """Mutant: a page that no other names."""
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = re.findall(r"\]\((?!https?:|#)([^)#\s]+\.md)", read(page))
        waiting += {(page.parent / link).resolve() for link in links} - reached
    assert {named(page) for page in PAGES} - {named(page) for page in reached} <= {
        "benchmarks/results/blind_models.md",
        "benchmarks/results/2026-11-22-amd-epyc.md",
    }


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "results"], ids=named)
def test_files_that_a_page_names_are_there(page):
    """Paths in text and in commands; `NAME` stands for yours. Mutant: a module moved, a page that is not."""
    text = re.sub(r"\]\([^)]*\)|<!-- (\w+):begin -->.*?<!-- \1:end -->", "", read(page), flags=re.DOTALL)
    roots = r"(?:recipes|rewards/omni_rewards|tests|docs|benchmarks|examples|accelerate_configs)"
    names = {name.rstrip(".") for name in re.findall(rf"(?<![\w/]){roots}/[\w./*-]+", text)}
    missing = [name for name in names if not re.search("NAME|[*]", name) and not (REPOSITORY / name).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_make_targets_that_a_page_names_are_targets(page):
    targets = set(re.search(r"\.PHONY: (.*)", read("Makefile"))[1].split())  # type: ignore[index]
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", read(page), re.MULTILINE)) <= targets


# README.


def test_the_readme_is_short_and_begins_with_the_two_commands():
    lines = README.splitlines()
    assert len(lines) <= 150
    first = README.split("```bash\n")[1].splitlines()[:2]
    assert [line.split()[:2] for line in first] == [["make", "demo"], ["make", "test"]]


def test_what_the_readme_says_a_command_prints_is_what_it_prints():
    assert "the loop turns: data → SFT → GRPO, on video, image, audio and text" in README
    assert '"the loop turns: data → SFT → GRPO, on video, image, audio and text"' in read("recipes/smoke.py")


def test_commands_on_pages_name_a_script_and_its_fields():
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", read(page), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.partition("  #")[0])
                for word in words:
                    if word.endswith((".py", ".yaml")) and "…" not in word:
                        assert (REPOSITORY / word).exists(), f"{named(page)}: {word}"


# What is told in words.


def test_the_index_tells_models_trained_to_ignore_a_modality_apart():
    """Intervals do not touch: of the voice's index the deaf model's and the others', of the face's the blind one's."""
    models = results("blind_models")["models"]
    for sense, without_it in (("audio", "deaf"), ("video", "blind")):
        lowest = models[without_it][sense]["ci95"][0]
        assert all(model[sense]["ci95"][1] < lowest for name, model in models.items() if name != without_it)


def test_differences_told_in_words_are_those_measured():
    credit_page = told("docs/credit.md")
    shortcut, credit = (results(name)["differences"] for name in ("planted_shortcut", "ablate_credit"))
    pairs, gain = shortcut["paper, contrast pairs"], shortcut["paper, context gain"]
    for figure in (pairs["index_audio"], pairs["index_video"], pairs["out"]):
        ends = sorted(abs(100 * end) for end in figure["ci95"])
        shown = rf"{abs(100 * figure['value']):.1f}( points)?( more)? \[{ends[0]:.1f}, {ends[1]:.1f}\]"
        assert re.search(shown, credit_page)
    for sense in ("index_audio", "index_video"):
        assert gain[sense]["ci95"][0] < 0 < gain[sense]["ci95"][1], "context gain does not lower it"
    low, high = (100 * end for end in credit["strict"]["ci95"])
    assert f"[{low:.1f}, {high:.1f}]" in credit_page


def test_what_the_section_rewards_bought_is_told_as_measured():
    """In the docs and in README, with its interval. Mutant: a new table under an old sentence."""
    found = results("ablate_method")
    for arm, key, pages in (
        ("four rewards, uniform", "context", ("docs/credit.md", "README.md")),
        ("four rewards, uniform", "accuracy", ("docs/credit.md", "README.md")),
        ("four, paper", "accuracy", ("docs/credit.md",)),
    ):
        figure = found["differences"][arm][key]
        value, low, high = (f"{100 * x:+.1f}" for x in (figure["value"], *figure["ci95"]))
        assert all(f"{value} [{low}, {high}]" in told(page) for page in pages), (arm, key)
    gained, lost = (found["differences"]["four rewards, uniform"][key]["ci95"] for key in ("context", "accuracy"))
    assert gained[0] > 0 > lost[0] and lost[1] > 0, "right contexts, and no more right answers"


def test_the_demos_page_tells_what_was_measured():
    """Expected is the interval over seeds, measured each seed, minutes of each."""
    page, measured = told("recipes/configs/demo/README.md"), read("benchmarks/results/demo_seeds.md")
    for words, model in (("cold start", "sft"), ("control: more SFT", "control"), ("RL", "rl")):
        low, high = results("demo_seeds")["accuracy"][model]["intent+agreement"]["ci95"]
        line = next(line for line in measured.splitlines() if line.startswith(f"| {model} |"))
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        seeds = cells[3][cells[3].index("(") + 1 : -1]
        assert f"| {words} | {100 * low:.1f} to {100 * high:.1f} | {seeds} | {cells[-1]} |" in page


def test_controls_are_told_as_their_configs_have_them():
    page = told("docs/evaluation.md")
    for name in ("format_only_rl", "answer_only_sft", "uniform_grpo"):
        result = header(REPOSITORY / f"recipes/configs/demo/controls/{name}.yaml")["Result"]
        share, low, high = re.search(r"([\d.]+) % \[([\d.]+), ([\d.]+)\]", result).groups()  # type: ignore[union-attr]
        assert f"| {share} [{low}, {high}] |" in page


def test_memory_is_what_the_parameters_say():
    """Counted again from the architecture. Mutant: gradients of frozen towers counted in."""
    import torch
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    small = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16}
    small |= {"num_key_value_heads": 2, "vocab_size": 151936, "layer_types": ["full_attention"] * 36}
    sizes = {
        "7B": ({}, {"hidden_size": 1280}, {}),
        "3B": (small, {"hidden_size": 1280, "out_hidden_size": 2048}, {"output_dim": 2048}),
    }
    page = told("docs/hardware.md")
    for name, (text, vision, audio) in sizes.items():
        config = Qwen2_5OmniThinkerConfig(
            text_config={"rope_parameters": rope, "tie_word_embeddings": False, **text},
            vision_config=vision,
            audio_config=audio,
        )
        with torch.device("meta"):
            model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config)
        every = dict(model.named_parameters())
        language = {key: p for key, p in every.items() if "visual" not in key and "audio_tower" not in key}
        whole, trained = (sum(p.numel() for p in part.values()) / 1e9 for part in (every, language))
        rank_32 = sum(32 * sum(p.shape) for k, p in language.items() if ".layers." in k and p.ndim == 2) / 1e9
        row = f"| Qwen2.5-Omni-{name}, {whole:.1f} B |"
        assert f"{row} LoRA | one GPU, `single_gpu.yaml` | {2 * whole + 16 * rank_32:.1f} |" in page
        assert f"8 GPUs, `zero2.yaml` | {2 * whole + 14 * trained / 8:.1f} |" in page
        if name == "7B":
            assert f"`zero3.yaml` | {(4 * whole + 14 * trained) / 8:.1f} |" in page
        heads = 2 * model.config.text_config.vocab_size * model.config.text_config.hidden_size / 1e9
        in_4_bits = f"{(trained - heads) / 2 + 2 * (whole - trained + heads):.1f}"
        assert f"| {in_4_bits} + adapters |" in page
        if name == "3B":
            needs = header(REPOSITORY / "recipes/configs/families/qwen2_5_omni_3b_qlora.yaml")["Needs"].replace(
                "\n", " "
            )
            kept, logits = 36 * 7000 * 2048 * 2 / 1e9, 3 * 4096 * 151936 * 4 / 1e9
            parts = (float(in_4_bits), round(16 * rank_32, 1), round(kept, 1), round(logits, 1))
            found = tuple(map(float, re.findall(r"(?:weights|optimizer|tokens|needs) (\d+\.\d)", needs)))
            assert found == parts and f": {sum(parts):.1f} in all" in needs


# What others run.


def test_the_workflow_runs_what_ci_runs():
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    python = next(step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    assert f'requires-python = ">={python}"' in read("pyproject.toml"), "the oldest that is promised"


def test_the_hooks_are_the_projects_own_tools():
    hooks = [hook for repo in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    assert [hook["id"] for hook in hooks] == ["ruff", "ruff-format", "pyright"]
    for hook in hooks:
        tool = shlex.split(hook["entry"])[0].removeprefix(".venv/bin/")
        assert hook["language"] == "system" and f'"{tool}>=' in read("pyproject.toml")


@pytest.mark.parametrize("package", ["rewards/omni_rewards", "recipes/omni_grpo"])
def test_a_package_ships_its_types(package):
    assert (REPOSITORY / package / "py.typed").is_file()
