# SPDX-License-Identifier: Apache-2.0
"""README's tables are what the code says, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import omni_rewards
from readme_tables import configs_table, fill, header, results, rewards_table, tables

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["schema", "configs", "rewards", "attacks", "demo", "credit", "index", "shortcut", "speed"]
)
def test_a_table_in_the_readme_is_the_one_generated(name):
    """`make readme` writes them."""
    match = re.search(rf"<!-- {name}:begin -->\n(.*?)\n<!-- {name}:end -->", README, re.DOTALL)
    assert match, f"README.md lacks the markers of {name}"
    assert match[1] == tables()[name], "README.md is behind the code; run `make readme`"


def test_filling_in_changes_nothing_else_and_nothing_twice():
    old = "a\n<!-- schema:begin -->\nold\n<!-- schema:end -->\nz"
    new = fill(old, {"schema": "| new |"})
    assert new == "a\n<!-- schema:begin -->\n| new |\n<!-- schema:end -->\nz"
    assert fill(new, {"schema": "| new |"}) == new


@pytest.mark.parametrize(
    "readme",
    [
        "",
        "<!-- schema:begin -->",
        "<!-- schema:end --><!-- schema:begin -->",
        "<!-- schema:begin --><!-- schema:end -->" * 2,
    ],
)
def test_missing_or_doubled_markers_are_refused(readme):
    with pytest.raises(ValueError, match=r"README.md needs <!-- schema:begin --> and <!-- schema:end --> once each"):
        fill(readme, {"schema": ""})


def test_the_tables_have_a_line_for_each_thing():
    rewards = re.findall(r"^\| `omni_rewards\.(\w+)` \| \S.*[.:] \| \S.* \|$", rewards_table(), re.MULTILINE)
    assert rewards == sorted(n for n in omni_rewards.__all__ if n.endswith("_reward"))
    assert "| `solution`, `problem_type`, [`options`] |" in rewards_table()
    configs = re.findall(r"^\| \[`\S+`\]\((\S+)\) \| \S.* \| `\S.*` \|$", configs_table(), re.MULTILINE)
    assert configs == [str(p.relative_to(REPOSITORY)) for p in sorted(REPOSITORY.glob("recipes/configs/**/*.yaml"))]


def test_a_header_is_read_part_by_part(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "# Title: of it.\n#\n# Needs:    a GPU;\n#           and time\n# Command:  make x   (long)\n\n# no header\na: 1\n"
    )
    assert header(file) == {"title": "Title: of it.", "Needs": "a GPU;\nand time", "Command": "make x   (long)"}


def test_make_readme_runs_the_generator():
    done = subprocess.run(["make", "-n", "readme"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "recipes/readme_tables.py --write" in done.stdout


def test_links_within_the_repository_lead_somewhere():
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", README)
    assert links and [link for link in links if not (REPOSITORY / link).exists()] == []


def test_the_index_tells_the_models_of_known_truth_apart():
    """Intervals do not touch: of the voice's index the deaf model's and the others', of the face's the blind one's."""
    models = results("blind_models")["models"]
    for sense, without_it in (("audio", "deaf"), ("video", "blind")):
        lowest = models[without_it][sense]["ci95"][0]
        assert all(model[sense]["ci95"][1] < lowest for name, model in models.items() if name != without_it)


def test_differences_told_in_words_are_those_measured():
    shortcut, credit = (results(name)["differences"] for name in ("planted_shortcut", "ablate_credit"))
    pairs, paper = shortcut["paper, contrast pairs"], shortcut["paper, context gain"]
    for figure in (pairs["index_audio"], pairs["index_video"], pairs["out"]):
        ends = sorted(abs(100 * end) for end in figure["ci95"])
        assert re.search(
            rf"{abs(100 * figure['value']):.1f}( points)?( more)? \[{ends[0]:.1f}, {ends[1]:.1f}\]", README
        )
    assert paper["index_audio"]["ci95"][0] < 0 < paper["index_audio"]["ci95"][1], "context gain does not lower it"
    low, high = (100 * end for end in credit["strict"]["ci95"])
    assert f"[{low:.1f}, {high:.1f}]".replace("-", "−") in README
