# SPDX-License-Identifier: Apache-2.0
"""The picture of the rooms is drawn from the code's imports, the same each time, and can be read."""

from __future__ import annotations

import importlib.util
import re
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

REPOSITORY = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("draw_architecture", REPOSITORY / "docs/draw_architecture.py")
assert _spec and _spec.loader
drawing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(drawing)
SVG = "{http://www.w3.org/2000/svg}"


def write(root: Path, **modules: str) -> Path:
    """A package `recipes/house` of these modules; `room__part` is a module within a room."""
    for name, source in {"__init__": "", **modules}.items():
        path = root / "recipes/house" / f"{name.replace('__', '/') if name != '__init__' else name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return root


def arrows(picture: str) -> set[tuple[str, str]]:
    """Arrows of a picture, by their titles."""
    paths = ElementTree.fromstring(picture).iter(f"{SVG}path")
    return {tuple(title.split(" imports ")) for path in paths if (title := path.findtext(f"{SVG}title"))}


def boxes(picture: str) -> dict[str, tuple[float, float, float, float]]:
    """Label -> left, top, right, bottom of each room."""
    parts = list(ElementTree.fromstring(picture))
    found = {}
    for rect, text in pairwise(parts):
        if rect.get("class") == "room":
            x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
            found[text.text] = (x, y, x + width, y + height)
    return found


def test_the_committed_picture_is_the_one_drawn():
    """`make readme` draws it. Mutant: sorting left out of `read`, and another machine draws another picture."""
    committed = (REPOSITORY / drawing.OUTPUT).read_text(encoding="utf-8")
    assert committed == drawing.draw(), "docs/architecture.svg is behind the code; run `make readme`"


def test_every_room_is_there_once_inside_the_frame_and_over_no_other():
    """Mutant: the sweep back into the frame left out of `place`."""
    picture = drawing.draw()
    packages = [init.parent for init in REPOSITORY.glob("re*/*/__init__.py")]
    rooms = [p for package in packages for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    rooms += REPOSITORY.glob("recipes/*.py")
    labels = [f"{p.name}/" if p.is_dir() else p.name for p in rooms if not p.name.startswith("_")]
    found, width = boxes(picture), float(ElementTree.fromstring(picture).attrib["width"])
    assert found.keys() == set(labels)
    assert re.findall(r"</rect>|class=\"room\"", picture).count('class="room"') == len(labels)
    for (a, (left, top, right, bottom)), (b, (x0, y0, x1, y1)) in combinations(found.items(), 2):
        assert right <= x0 or x1 <= left or bottom <= y0 or y1 <= top, f"{a} and {b} overlap"
    assert all(left >= 6 and right <= width - 6 for left, _, right, _ in found.values())


def test_an_arrow_goes_to_what_is_imported_from_anywhere_in_a_room(tmp_path):
    """Mutant: imports within functions, or relative ones, not read."""
    root = write(
        tmp_path,
        top="def f():\n    from house.low import x\n",
        room____init__="",
        room__part="from . import other\nfrom ..mid import y\n",
        room__other="import house.low\n",
        mid="",
        low="",
    )
    assert arrows(drawing.draw(root)) == {("top.py", "low.py"), ("room/", "mid.py"), ("room/", "low.py")}


def test_what_follows_from_other_arrows_is_left_out(tmp_path):
    root = write(tmp_path, a="import house.b, house.c\n", b="import house.c\n", c="")
    assert arrows(drawing.draw(root)) == {("a.py", "b.py"), ("b.py", "c.py")}


def test_a_private_module_is_part_of_those_that_import_it(tmp_path):
    """Mutant: private rooms dropped with what they import."""
    root = write(tmp_path, a="import house._b\n", _b="from house import _c\n", _c="import house.d\n", d="")
    assert arrows(drawing.draw(root)) == {("a.py", "d.py")}


def test_an_import_of_another_package_is_a_dot_in_its_colour(tmp_path):
    root = write(tmp_path, a="import shed.tool\n", b="")
    (root / "rewards/shed").mkdir(parents=True)
    (root / "rewards/shed/__init__.py").write_text("")
    (root / "rewards/shed/tool.py").write_text("")
    dots = ElementTree.fromstring(drawing.draw(root)).iter(f"{SVG}circle")
    assert [dot.findtext(f"{SVG}title") for dot in dots] == ["a.py imports shed"]


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_any_imports_can_be_drawn_and_none_is_lost(edges):
    """Circles too. What can be reached by arrows is what is imported, also through others. Mutant: `reach` of one step."""
    graph: dict[str, set[str]] = {str(k): set() for k in range(7)}
    for a, b in sorted(edges):
        if a != b:
            graph[str(a)].add(str(b))
    open_graph = drawing.without_circles(graph)
    drawn = drawing.arrows(open_graph)
    assert all(drawn[room] <= graph[room] for room in graph)
    assert all(drawing.reach(drawn, room) == drawing.reach(open_graph, room) for room in graph)
    assert all(room not in drawing.reach(open_graph, room) for room in graph)
    layer = drawing.layers(drawn)
    assert all(layer[room] < layer[other] for room in graph for other in drawn[room])
    if all(a < b for a, b in edges):
        assert open_graph == graph, "there was no circle to open"


@pytest.mark.parametrize("scripts", [0, 1, 30])
def test_any_number_of_scripts_fits(tmp_path, scripts):
    write(tmp_path, a="")
    for k in range(scripts):
        (tmp_path / f"recipes/script_number_{k}.py").write_text("import house.a\n")
    picture = drawing.draw(tmp_path)
    assert len(boxes(picture)) == scripts + 1
    assert float(ElementTree.fromstring(picture).attrib["width"]) <= drawing.LEAST_WIDTH + 1
