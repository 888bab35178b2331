# SPDX-License-Identifier: Apache-2.0
"""
Lines of code of the product, by room: no docstring, no comment, no blank line.

    python benchmarks/code_lines.py [--root OTHER_CHECKOUT]
"""

import argparse
import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Lines that hold code; a statement over several lines counts each of them."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines.difference_update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def rooms(root: Path) -> Counter[str]:
    """Lines of code of each folder that ships: the two packages, their sub-packages, the entry scripts."""
    found: Counter[str] = Counter()
    for folder in ("rewards", "recipes"):
        for file in sorted((root / folder).rglob("*.py")):
            found[str(file.parent.relative_to(root))] += code_lines(file.read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout, to compare with")
    counted = rooms(parser.parse_args().root)
    for room, lines in counted.items():
        print(f"{lines:6}  {room}")
    demo = sum(lines for room, lines in counted.items() if "demo" in room)
    print(f"{counted.total():6}  in all; {counted.total() - demo} without the demo")


if __name__ == "__main__":
    main()
