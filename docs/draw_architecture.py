# SPDX-License-Identifier: Apache-2.0
"""
Draws the rooms of the code and what each imports, from the code's own import statements, as `docs/architecture.svg`.

    python docs/draw_architecture.py

A room is a folder or a module directly below a package; the packages are the folders of `recipes` and `rewards` that
have an `__init__.py`, and the entry scripts stand above them. Modules that begin with an underscore are drawn as part of
those that import them. The drawing is the same for the same code, so that a test can compare it with the committed one.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT = Path("docs/architecture.svg")
COLOURS = ("#6b7280", "#2e7d4f", "#2f6f9f", "#b45309", "#7c3aed", "#be185d")  # scripts first, then the packages
HEIGHT, LAYER, GAP, PAD, CHARACTER, LEAST_WIDTH = 26, 56, 14, 22, 7.2, 1000  # pixels
SCRIPTS = "entry scripts"
Graph = dict[str, set[str]]


@dataclass
class Package:
    """A package with its rooms: what each imports within it, and which other packages it imports."""

    name: str
    rooms: Graph = field(default_factory=dict)
    beyond: dict[str, set[str]] = field(default_factory=dict)


def imported(path: Path, package: list[str]) -> Iterator[str]:
    """Absolute dotted names that a module's import statements name, wherever in it they stand."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


def read(folder: Path, known: set[str]) -> Package:
    """The rooms of one package."""
    package, labels = Package(folder.name), {}
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).parts
        room = inside[0].removesuffix(".py")
        labels[room] = f"{room}/" if len(inside) > 1 else inside[0]
        names = set(imported(path, [folder.name, *inside[:-1]]))
        there = {name.split(".")[1] for name in names if name.startswith(f"{folder.name}.")}
        package.rooms.setdefault(room, set()).update(there - {room})
        package.beyond.setdefault(room, set()).update({n.partition(".")[0] for n in names} & (known - {folder.name}))
    package.rooms.pop("__init__", None)
    rooms = {room: {other for other in others if other in package.rooms} for room, others in package.rooms.items()}
    for hidden in [room for room in rooms if room.startswith("_")]:
        through, beyond = rooms.pop(hidden), package.beyond.pop(hidden)
        for room, others in rooms.items():
            if hidden in others:
                others.remove(hidden)
                others |= through - {room}
                package.beyond[room] |= beyond
    package.rooms = {labels[room]: {labels[other] for other in others} for room, others in rooms.items()}
    package.beyond = {labels[room]: package.beyond[room] for room in rooms}
    return package


def packages(repository: Path) -> list[Package]:
    """The entry scripts, then each package before those that it imports."""
    folders = sorted(init.parent for init in repository.glob("re*/*/__init__.py"))
    known = {folder.name for folder in folders}
    scripts, files = Package(SCRIPTS), sorted(repository.glob("recipes/*.py"))
    for path in files:
        names = {name.partition(".")[0] for name in imported(path, [])}
        scripts.rooms[path.name] = {file.name for file in files if file.stem in names}
        scripts.beyond[path.name] = names & known
    read_ones = [read(folder, known) for folder in folders]
    return [scripts, *sorted(read_ones, key=lambda p: (-len(set().union(*p.beyond.values())), p.name))]


def without_circles(graph: Graph) -> Graph:
    """The graph without the imports that would close a circle."""
    kept: Graph = {room: set() for room in graph}
    for room in sorted(graph):
        kept[room] = {other for other in sorted(graph[room]) if room not in reach(kept, other) | {other}}
    return kept


def reach(graph: Graph, room: str) -> set[str]:
    """All that a room imports, also through others."""
    found, waiting = set[str](), [room]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def arrows(graph: Graph) -> Graph:
    """The imports that do not follow from others."""
    return {
        room: {o for o in others if not any(o in reach(graph, x) for x in others)} for room, others in graph.items()
    }


def layers(graph: Graph) -> dict[str, int]:
    """Layer of each room, 0 at the top: below all that import it, and close to them."""
    depth: dict[str, int] = {}

    def below(room: str) -> int:
        if room not in depth:
            depth[room] = 1 + max((below(other) for other in graph[room]), default=-1)
        return depth[room]

    top = max(map(below, sorted(graph)), default=0)
    placed: dict[str, int] = {}
    for room in sorted(graph, key=lambda r: (-depth[r], r)):
        importers = [placed[other] for other in placed if room in graph[other]]
        placed[room] = 1 + max(importers) if importers else top - depth[room]
    return placed


def rows_of(graph: Graph, layer: Mapping[str, int]) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of names from the top, with a nameless place (`a>b:3`) where an arrow passes; the arrows as chains of names."""
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for room in sorted(graph):
        rows[layer[room]].append(room)
    chains = []
    for room in sorted(graph):
        for other in sorted(graph[room]):
            between = [f"{room}>{other}:{k}" for k in range(layer[room] + 1, layer[other])]
            for k, name in enumerate(between, layer[room] + 1):
                rows[k].append(name)
            chains.append([room, *between, other])
    return rows, chains


def place(
    rows: list[list[str]], chains: list[list[str]], width: Mapping[str, float], frame: float
) -> dict[str, float]:
    """Middle of each name from the left: near to those that it is joined to, and never over its neighbours."""
    joined: dict[str, list[str]] = {name: [] for row in rows for name in row}
    for chain in chains:
        for a, b in pairwise(chain):
            joined[a].append(b)
            joined[b].append(a)
    x = {name: (k + 0.5) * frame / len(row) for row in rows for k, name in enumerate(row)}
    for _ in range(40):
        for row in rows:
            wanted = {n: sum(x[o] for o in joined[n]) / len(joined[n]) if joined[n] else x[n] for n in row}
            row.sort(key=lambda n: (wanted[n], n))
            edge = PAD - GAP
            for name in row:  # to the right of the neighbour
                x[name] = max(wanted[name], edge + GAP + width[name] / 2)
                edge = x[name] + width[name] / 2
            edge = frame - PAD + GAP
            for name in reversed(row):  # and back into the frame
                x[name] = min(x[name], edge - GAP - width[name] / 2)
                edge = x[name] - width[name] / 2
    ends = [(x[name] - width[name] / 2, x[name] + width[name] / 2) for name in x]
    aside = (frame - min(left for left, _ in ends) - max(right for _, right in ends)) / 2 if ends else 0
    return {name: middle + aside for name, middle in x.items()}


def draw(repository: Path = REPOSITORY) -> str:
    """The picture as SVG."""
    found, frame, plans = packages(repository), float(LEAST_WIDTH), []
    for package in found:
        graph = arrows(without_circles(package.rooms))
        rows, chains = rows_of(graph, wrapped(graph) if package.name == SCRIPTS else layers(graph))
        width = {name: len(name) * CHARACTER + 24 if name in graph else 2.0 for row in rows for name in row}
        frame = max(frame, *(2 * PAD - GAP + sum(width[name] + GAP for name in row) for row in rows))
        plans.append((package, graph, rows, chains, width))
    colours = {package.name: COLOURS[k % len(COLOURS)] for k, package in enumerate(found)}
    body, y = list[str](), 14.0
    for package, graph, rows, chains, width in plans:
        x, top, colour = place(rows, chains, width, frame), y + 40, colours[package.name]
        ys = {name: top + LAYER * k for k, row in enumerate(rows) for name in row}
        bottom = top + LAYER * (len(rows) - 1) + HEIGHT + 16
        body.append(
            f'<rect x="6" y="{y:.1f}" width="{frame - 12:.1f}" height="{bottom - y:.1f}" rx="10" fill="#fafafa" '
            f'stroke="{colour}"/><text x="20" y="{y + 21:.1f}" class="title" style="fill:{colour}">{escape(package.name)}</text>'
        )
        body += [curve(chain, x, ys) for chain in chains]
        for room in sorted(graph):
            left, above = x[room] - width[room] / 2, ys[room]
            body.append(
                f'<rect class="room" x="{left:.1f}" y="{above:.1f}" width="{width[room]:.1f}" height="{HEIGHT}" rx="5" '
                f'fill="white" stroke="{colour}"/><text x="{x[room]:.1f}" y="{above + 17:.1f}">{escape(room)}</text>'
            )
            for k, other in enumerate(sorted(package.beyond[room])):
                body.append(
                    f'<circle cx="{left + width[room] - 8 - 11 * k:.1f}" cy="{above + HEIGHT:.1f}" r="4.5" '
                    f'fill="{colours[other]}"><title>{escape(room)} imports {escape(other)}</title></circle>'
                )
        y = bottom + 14
    legend = "An arrow goes to what is imported; one that follows from others is left out. A dot is an import of the package"
    body.append(f'<text x="20" y="{y + 8:.1f}" class="legend">{legend} in its colour.</text>')
    return "\n".join([HEAD.format(width=f"{frame:.0f}", height=f"{y + 22:.0f}"), *body, "</svg>", ""])


def wrapped(graph: Graph) -> dict[str, int]:
    """Rows of as many rooms as there is space for; those that import others above these."""
    layer, row, used, before = {}, 0, 0.0, None
    depth = layers(graph)
    for room in sorted(graph, key=lambda r: (not graph[r], depth[r] if graph[r] else 0, r)):
        needed, kind = len(room) * CHARACTER + 24 + GAP, depth[room] if graph[room] else -1
        if used and (used + needed > LEAST_WIDTH - 2 * PAD or kind != before):
            row, used = row + 1, 0.0
        layer[room], used, before = row, used + needed, kind
    return layer


def curve(chain: list[str], x: Mapping[str, float], y: Mapping[str, float]) -> str:
    """An arrow from the first name of a chain to its last, between the rooms of the rows that it passes."""
    at = y[chain[0]] + HEIGHT
    path = f"M{x[chain[0]]:.1f} {at:.1f}"
    for name, following in pairwise(chain):
        middle, end = (at + y[following]) / 2, y[following]
        path += f" C{x[name]:.1f} {middle:.1f} {x[following]:.1f} {middle:.1f} {x[following]:.1f} {end:.1f}"
        at = end + HEIGHT
        path += f" V{at:.1f}" if following != chain[-1] else ""
    return f'<path d="{path}"><title>{escape(chain[0])} imports {escape(chain[-1])}</title></path>'


HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>Rooms of the code and what they import</title>
<style>text{{font:12px ui-monospace,Menlo,Consolas,monospace;text-anchor:middle;fill:#1f2937}}
.title{{font-size:14px;font-weight:bold;text-anchor:start}} .legend{{font-family:sans-serif;text-anchor:start}}
path{{fill:none;stroke:#64748b;stroke-width:1.1;marker-end:url(#head)}}</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 8 4 0 8Z" style="fill:#64748b;stroke:none;marker-end:none"/></marker></defs>
<rect width="{width}" height="{height}" fill="white"/>"""


def main() -> None:
    (REPOSITORY / OUTPUT).write_text(draw(), encoding="utf-8")
    print(OUTPUT)


if __name__ == "__main__":
    main()
