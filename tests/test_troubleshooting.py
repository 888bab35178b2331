# SPDX-License-Identifier: Apache-2.0
"""Messages that docs/troubleshooting.md explains are messages of the code, and what remedies name is there."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")]
QUOTED = [match[1].replace("\\|", "|") for line in ROWS if (match := re.match(r"\| `(.+?)` \|", line))]


def template(node: ast.AST) -> str | None:
    """A string of the source, with `…` for what it is filled with."""
    if isinstance(node, ast.Constant):
        return re.sub(r"%[sdr]", "…", node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


@pytest.fixture(scope="module")
def templates() -> list[str]:
    files = [*(REPOSITORY / "rewards").rglob("*.py"), *(REPOSITORY / "recipes").rglob("*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return [text for node in nodes if (text := template(node))]


def test_there_are_many():
    assert len(QUOTED) >= 60 and len(set(QUOTED)) == len(QUOTED)


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_stands_in_the_code(message, templates):
    """Word by word; `…` may stand for anything. Mutant: one word of a message changed."""
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("…")), re.DOTALL)
    assert len(message.replace("…", "").split()) >= 3, "too short to find anything by"
    assert any(pattern.search(text) for text in templates), (
        f"no error says {message!r}; docs/troubleshooting.md is behind"
    )


def test_settings_that_remedies_name_are_fields():
    """Mutant: a field renamed."""
    from trl import ModelConfig

    from omni_grpo.config import DataArguments, OmniGRPOConfig, OmniSFTConfig
    from omni_grpo.data.media.settings import MediaSettings

    known = {
        f.name for c in (DataArguments, MediaSettings, OmniGRPOConfig, OmniSFTConfig, ModelConfig) for f in fields(c)
    }
    cells = [cell for line in ROWS for cell in line.split(" | ")[1:]]
    named = {m[1] for cell in cells for m in re.finditer(r"`(?:--)?([a-z]+(?:_[a-z0-9]+)+)(?::? [\w\[\]…]+)?`", cell)}
    assert {"max_missing_share", "resume"} & named and len(named) > 20
    assert sorted(named - known - {"reasoning_reward", "reward_funcs", "use_audio", "problem_type"}) == []
