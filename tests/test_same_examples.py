# SPDX-License-Identifier: Apache-2.0
"""Property tests draw the same examples in every run and in every worker."""

import importlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st


def drawn() -> list[str]:
    texts: list[str] = []

    @given(st.text(max_size=8))
    def collect(text: str) -> None:
        texts.append(text)

    collect()
    return texts


def test_examples_do_not_depend_on_the_modules_that_are_loaded(tmp_path: Path, monkeypatch) -> None:
    before = drawn()
    (tmp_path / "late_module.py").write_text("".join(f"WORD_{k} = 'word {k}'\n" for k in range(200)))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("late_module")
    assert len(before) > 50
    assert drawn() == before
