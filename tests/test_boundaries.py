# SPDX-License-Identifier: Apache-2.0
"""Imports run one way: entry scripts → omni_grpo → omni_rewards → standard library."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
REWARDS = sorted((REPOSITORY / "rewards/omni_rewards").rglob("*.py"))
LIBRARY = sorted((REPOSITORY / "recipes/omni_grpo").rglob("*.py"))
DEMO = sorted((REPOSITORY / "recipes/omni_demo").rglob("*.py"))
SCRIPTS = sorted((REPOSITORY / "recipes").glob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
PACKAGES = ["rewards/omni_rewards", "recipes/omni_grpo"]


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported, those below `if`, `try` and `with` and in classes included."""
    for node in body:
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from at_import(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from at_import(handler.body)


def imported(nodes) -> set[str]:
    """Absolute module names that the import statements among `nodes` name; relative ones begin with a dot."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names.update({module, *(f"{module}.{alias.name}" for alias in node.names if not node.level)})
    return names


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names if not name.startswith(".")}


def part(name: str) -> str:
    """`omni_grpo.data.media.video` → `data`; a module of the package itself is its own part."""
    return name.split(".")[1] if name.count(".") else ""


def test_the_parts_of_the_package_do_not_import_in_a_circle():
    root = REPOSITORY / "recipes/omni_grpo"
    needs: dict[str, set[str]] = {}
    for path in LIBRARY:
        here = path.relative_to(root).parts[0].removesuffix(".py")
        named_there = {n for n in imported(ast.walk(tree(path))) if n.startswith("omni_grpo.")}
        needs.setdefault(here, set()).update({part(n) for n in named_there} - {here})
    needs = {name: {n for n in others if n in needs} for name, others in needs.items() if name != "__init__"}
    assert needs["trainer"] > {"rollout", "scoring", "credit"}  # the graph is there
    assert list(TopologicalSorter(needs).static_order())  # CycleError names the circle


def test_the_lists_are_not_empty():
    assert len(REWARDS) >= 4 and len(LIBRARY) >= 20 and len(SCRIPTS) >= 5 and Path(__file__) in TESTS


@pytest.mark.parametrize("path", REWARDS, ids=named)
def test_the_rewards_import_the_standard_library_alone(path):
    assert tops(imported(at_import(tree(path).body))) <= {*sys.stdlib_module_names, "omni_rewards"}
    assert tops(imported(ast.walk(tree(path)))).isdisjoint({"omni_grpo", "torch", "trl", "transformers"})


def test_the_rewards_run_where_nothing_is_installed():
    code = (
        "import sys; sys.path.insert(0, 'rewards'); import omni_rewards; "
        "print(omni_rewards.section_format_reward(['<context>a</context><think>b</think><answer>c</answer>']))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]  # no site-packages
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout == "[1.0]\n"


@pytest.mark.parametrize("path", [*LIBRARY, *DEMO], ids=named)
def test_the_library_knows_no_entry_script(path):
    assert tops(imported(ast.walk(tree(path)))).isdisjoint({script.stem for script in SCRIPTS})


@pytest.mark.parametrize("path", LIBRARY, ids=named)
def test_the_library_knows_no_demo(path):
    """The wheel is without it."""
    assert "omni_demo" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*REWARDS, *LIBRARY, *SCRIPTS], ids=named)
def test_nothing_imports_tests(path):
    assert tops(imported(ast.walk(tree(path)))).isdisjoint({"tests", "pytest", "hypothesis", *(t.stem for t in TESTS)})


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_entry_scripts_leave_torch_to_main(path):
    assert tops(imported(at_import(tree(path).body))).isdisjoint({"torch", "trl", "transformers", "datasets"})


@pytest.mark.parametrize("path", [*REWARDS, *LIBRARY], ids=named)
def test_library_code_does_not_print(path):
    calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"] == []


# Why a whole class is caught there: what upstream raises has no class of its own, and the outcome is stated and tested.
WHOLE = {
    "rewards/omni_rewards/_maths_worker.py": "the parser raises `Exception` itself: the formula is unreadable",
    "recipes/omni_grpo/scoring/scorer.py": "whatever stops packing, rows are scored one by one, and the log says why",
}


@pytest.mark.parametrize(
    "path", [p for p in (*REWARDS, *LIBRARY, *DEMO, *SCRIPTS) if named(p) not in WHOLE], ids=named
)
def test_no_error_is_swallowed_whole(path):
    handlers = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]
    caught = [(h.lineno, ast.unparse(h.type) if h.type else "") for h in handlers]
    assert [c for c in caught if c[1] in ("", "Exception", "BaseException")] == []


@pytest.mark.parametrize("path", [*REWARDS, *LIBRARY, *DEMO, *SCRIPTS, *TESTS], ids=named)
def test_every_file_names_its_licence_first(path):
    assert path.read_text(encoding="utf-8").startswith("# SPDX-License-Identifier: Apache-2.0\n")


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, omni_grpo.run.command_line; print(sorted({'torch', 'trl', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY / "recipes", capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_wheel_holds_the_two_packages_and_nothing_beside_them():
    """A wheel with a top-level `recipes` or `rewards` overwrites other projects' files."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == PACKAGES
    assert wheel.keys() <= {"packages", "exclude"}, "another key may put files at the top level"
    assert project["tool"]["hatch"]["build"].keys() == {"targets"}
    assert all((REPOSITORY / package / "__init__.py").is_file() for package in PACKAGES)
    assert not any((REPOSITORY / package).parent.joinpath("__init__.py").exists() for package in PACKAGES)
    assert project["project"]["dependencies"] == []
