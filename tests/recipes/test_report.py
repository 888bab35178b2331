# SPDX-License-Identifier: Apache-2.0
"""The report of a small but real run: a decodable clip, logs of a resumed training, four evaluated stages."""

import base64
import doctest
import hashlib
import html
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluated_runs import write_evaluation, write_lines, write_log, write_stage
from media_files import write_sound, write_video
from omni_grpo.data.rows.kinds import kind_of
from omni_grpo.report import clips, curves, drawing, embedding, figures, run_folder, write_report
from omni_grpo.report.comparison import RUN_TONES
from omni_grpo.report.page import render_page
from omni_grpo.report.rendering import environment
from omni_grpo.report.run_folder import read_log, read_run
from omni_grpo.run.machine import describe_machine

REPOSITORY = Path(__file__).resolve().parents[2]
CSS = (REPOSITORY / "recipes/omni_grpo/report/page.css").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "img", "br", "hr", "input", "link", "source"}
INSIDE = "\"</pre><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>& \u202e"
HOSTILE = "<think>\"</think></pre><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>& \u202e"


class Page(HTMLParser):
    """Elements with their attributes and text; fails on a tag that is not closed, or closed in the wrong place."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, f"</{tag}> closes nothing, inside {self.stack}"

    def handle_data(self, data):
        if self.stack:
            self.texts.append((self.stack[-1], data))

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    def text(self, *tags: str) -> str:
        return " ".join(data for tag, data in self.texts if not tags or tag in tags)


def write_clip(path: Path) -> None:
    frames = np.stack([np.full((64, 64, 3), 30 * t, dtype=np.uint8) for t in range(8)])
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000).astype(np.float32)
    write_video(path, frames, sound=tone, sound_rate=16_000)


def row(index: int, media: Path) -> dict:
    kind = ("agreement", "face", "voice")[index % 3]
    files = {"agreement": ["clip.mp4"], "face": ["face.png", "voice.wav"], "voice": ["voice.wav"]}[kind]
    types = {".mp4": "video", ".png": "image", ".wav": "audio"}
    items = [{"type": types[Path(name).suffix], "path": str(media / name)} for name in files]
    return {
        "id": f"row-{index}",
        "problem": f"Does clip {index} <agree>?",
        "problem_type": "yes_no",
        "options": ["A. yes", "B. no"] if kind == "face" else None,
        "solution": "yes",
        "media": [item | ({"use_audio": True} if item["type"] == "video" else {}) for item in items],
        "meta": {"kind": kind},
    }


def says(model: str, name: str, heard: bool) -> str:
    """The base writes no sections; RL is right more often than the cold start, and less often without sound."""
    index = int(name.removeprefix("row-"))
    right = index % 8 > 0 if model == "rl" and heard else index % 4 > 0
    if model == "base":
        return "yes" if right else HOSTILE
    return f"<context>{INSIDE}</context><think>{INSIDE}</think><answer>{'yes' if right else 'no'}</answer>"


def write_run(root: Path, checkpoint: str) -> Path:
    """Every file by the product's own code: evaluation, its records, logs, seconds of the stages."""
    media = root / "media"
    media.mkdir(parents=True)
    write_clip(media / "clip.mp4")
    Image.new("RGB", (64, 64), "teal").save(media / "face.png")
    write_sound(media / "voice.wav", 0.3 * np.sin(np.arange(16_000) / 9).astype(np.float32), rate=16_000)
    run = root / "demo"
    write_stage(run / "sft", 30.0)
    write_stage(run / "rl", 390.0)
    stages, rows = ["base", "sft", "control", "rl"], [row(index, media) for index in range(24)]
    variants = {"variants": ["full", "no_audio", "blank"], "ablated": ["rl"]}
    write_evaluation(run, stages, rows, says, checkpoint, compare=["rl:sft"], bare=["base"], **variants)
    write_log(run / "sft", {s: {"loss": 2 / s, "learning_rate": 1e-4} for s in range(1, 41)})
    rewards = {
        s: {
            "loss": 0.01 * (-1) ** s,
            "kl": float("nan") if s == 3 else 0.001 * s,
            "reward": 0.5 + 0.01 * s,
            "rewards/answer_reward/mean": 0.4 + 0.01 * s,
            "rewards/context_reward/mean": 0.3,
            "completions/mean_length": 60.0 - s,
            "frac_reward_zero_std": 0.25,
        }
        for s in range(1, 41)
    }
    write_log(run / "rl", rewards)
    return run


@pytest.fixture(scope="session")
def written(tmp_path_factory, tiny) -> Path:
    return write_run(tmp_path_factory.mktemp("someone"), tiny)


@pytest.fixture
def build_run(written):
    """A copy of the run, whose media are beside it."""

    def copied(root: Path) -> Path:
        shutil.copytree(written.parent / "media", root / "media")
        run = Path(shutil.copytree(written, root / "demo"))
        for file in run.rglob("*.jsonl"):
            file.write_text(file.read_text().replace(str(written.parent / "media"), str(root / "media")))
        return run

    return copied


@pytest.fixture(scope="module")
def run(written) -> Path:
    return written


@pytest.fixture(scope="module")
def source(run) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source) -> Page:
    return Page(source)


@pytest.mark.parametrize("module", [curves, run_folder], ids=lambda module: module.__name__)
def test_docstring_examples_hold(module):
    results = doctest.testmod(module)
    assert results.attempted and not results.failed


class TestSelfContained:
    def test_every_reference_is_inline_or_a_fragment(self, page):
        references = [v for _, a in page.elements for k, v in a.items() if k in ("src", "href", "poster", "srcset")]
        assert len(references) > 12
        assert all(value.startswith(("data:", "#")) for value in references)
        assert not re.search(r"url\(|@import", CSS)
        assert not page.tags("link") and not page.tags("iframe")

    def test_fragments_lead_somewhere(self, page):
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len(set(ids))
        assert {a["href"] for a in page.tags("a")} <= {f"#{name}" for name in ids}

    def test_the_policy_lets_the_page_s_own_style_and_script_run_and_nothing_else(self, source, page):
        """A wrong digest would leave a page without style in the browser."""
        policy = next(a["content"] for a in page.tags("meta") if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")
        for tag in ("style", "script"):
            (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", source, flags=re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert not [a for _, a in page.elements if any(key == "style" or key.startswith("on") for key in a)]

    def test_media_arrive_whole_and_decode(self, run, page):
        embedded = base64.b64decode(page.tags("video")[0]["src"].partition(",")[2])
        assert embedded == (run.parent / "media/clip.mp4").read_bytes()
        with av.open(BytesIO(embedded)) as container:
            assert len(list(container.decode(video=0))) == 8
        assert all("controls" in a and "playsinline" in a for a in page.tags("video"))
        assert page.tags("audio")[0]["src"].startswith("data:audio/wav;base64,UklGR")
        assert any(a["src"].startswith("data:image/png;base64,iVBOR") for a in page.tags("img"))

    def test_the_author_s_folders_are_not_told(self, run, source):
        assert str(run) not in source
        assert "someone" not in source

    def test_writing_twice_gives_the_same_bytes(self, run, source):
        assert render_page(read_run(run)) == source


class TestUntrustedText:
    def test_a_hostile_completion_is_shown_and_not_run(self, page):
        assert len(page.tags("script")) == 1
        assert not [a for a in page.tags("img") if "onerror" in a]
        assert HOSTILE in [data for tag, data in page.texts if tag == "pre"]
        assert [data for tag, data in page.texts if tag == "p"].count(INSIDE) == 2 * 36
        assert "Does clip 0 <agree>?" in page.text("p")

    @given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
    def test_escaping_is_lossless(self, value):
        """Mutant: `autoescape` left to the templates' names, which end in `.j2` and would not be escaped."""
        shown = environment().from_string("{{ value }}").render(value=value)
        assert not re.search("[<>\"']", shown)
        assert html.unescape(shown) == value

    def test_text_that_utf8_or_html_cannot_hold_is_replaced(self):
        """Mutant: `finalize` left out."""
        shown = environment().from_string("{{ a }}{{ b }}").render(a="a\ud800b\0c\r\n\td", b=None)
        assert shown == "a\ufffdb\ufffdc\ufffd\n\td–"

    def test_no_template_lets_anything_past_the_escaping_but_its_own_words(self):
        """`safe` may stand behind a text that the template itself holds. Mutant: `{{ content|safe }}`."""
        templates = list((REPOSITORY / "recipes/omni_grpo/report/templates").glob("*.j2"))
        assert len(templates) > 4
        for template in templates:
            unsafe = re.findall(r"(\S+)\|\s*safe\b|(autoescape|Markup)", template.read_text(encoding="utf-8"))
            assert all(words.endswith('"') for words, _ in unsafe), (template.name, unsafe)

    def test_hostile_names_and_labels(self, tmp_path, build_run):
        """Every string of every input file is hostile, and the page stays balanced, with one script."""
        run = build_run(tmp_path)
        for file in run.rglob("*.jsonl"):
            file.write_text(file.read_text().replace('"agreement"', '"</p><script>1</script>"'))
        metrics = (run / "metrics.json").read_text()
        created = json.loads(metrics)["stages"]["rl"]["created"]
        for name in ("agreement", describe_machine()["processor"], "rl", "no_audio", created):
            assert f'"{name}"' in metrics
            metrics = metrics.replace(f'"{name}"', '"</p><script>1</script>"')
        (run / "metrics.json").write_text(metrics)
        assert len(Page(render_page(read_run(run))).tags("script")) == 1


class TestFigures:
    def test_the_results_table_holds_the_numbers_of_metrics_json(self, run, source):
        stages = json.loads((run / "metrics.json").read_text())["stages"]
        table = re.search(r"<caption>Accuracy in percent.*?</table>", source, re.DOTALL)[0]
        rows = {re.search(r'row">(.*?)<', row)[1]: row for row in table.split("<tr>")[2:]}
        assert list(rows) == ["all", "agreement", "face", "voice"]  # the compared group leads
        for name, row in rows.items():
            shown = re.findall(r'"value">([\d.]+)</span> <span class="ci">([\d.]+) – ([\d.]+)<', row)
            expected = [(g["accuracy"], *g["ci95"]) for g in (stages[s]["groups"][name] for s in stages)]
            assert [tuple(map(float, cell)) for cell in shown] == [
                pytest.approx([100 * value for value in cell], abs=0.0501) for cell in expected
            ]
            assert f"<td>50.0</td><td>{24 if name == 'all' else 8}</td>" in row

    def test_headline_goes_from_sft_to_rl(self, run, page):
        headline, metrics = page.text(), json.loads((run / "metrics.json").read_text())
        before, after = (f"{100 * metrics['stages'][s]['groups']['all']['accuracy']:.1f}" for s in ("sft", "rl"))
        assert (before, after) == ("75.0", "87.5")
        assert re.search(rf"Accuracy on all\s+{before}\s+→\s+{after}", headline)
        (tile,) = re.findall(r"Wall time\s+7\.\d\u00a0min\s+(.*)", headline)
        assert {"Cold start 30\u00a0s", "GRPO 6.5\u00a0min"} < set(tile.split(" · "))

    def test_the_page_says_on_what_it_was_run(self, run, page, build_run, tmp_path):
        """By the names that [`describe_machine`] writes. Mutant: other ones, which nothing writes."""
        machine = describe_machine()
        where = machine["processor"] if machine["accelerator"] == "none" else machine["accelerator"]
        assert f", on {where}." in page.text("p")
        shown = {data for tag, data in page.texts if tag == "dd"}
        assert {str(machine[name]) for name in ("processor", "cores", "torch", "trl")} <= shown
        metrics = run / "metrics.json"
        with_gpu = build_run(tmp_path)
        record = json.loads(metrics.read_text())
        assert record["machine"] == machine
        record["machine"]["accelerator"] = "NVIDIA H100"
        (with_gpu / "metrics.json").write_text(json.dumps(record))
        assert ", on NVIDIA H100." in Page(render_page(read_run(with_gpu))).text("p")

    def test_a_difference_keeps_its_sign(self, run, page):
        (found,) = json.loads((run / "metrics.json").read_text())["comparisons"]
        assert found["difference"] == 0.125
        assert "+12.5" in page.text("span")
        low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in found["ci95"])
        assert f"{low} to {high}" in page.text("td")

    def test_ablations_of_both_shapes(self, run, build_run, tmp_path):
        """As they are written, and as an earlier version wrote them: groups without a name around them."""
        older = build_run(tmp_path)
        record = json.loads((older / "metrics.json").read_text())
        measured = record["stages"]["rl"]["variants"]
        measured["no_audio"] = measured["no_audio"]["groups"]
        (older / "metrics.json").write_text(json.dumps(record))
        for some in (run, older):
            source = render_page(read_run(some))
            table = re.search(r"<caption>GRPO, accuracy.*?</table>", source, re.DOTALL)[0]
            assert re.findall(r'row">(.*?)<', table) == ["All media", "Without audio", "Blank picture"]
            shown = list(map(float, re.findall(r'"value">([\d.]+)<', table)))
            assert shown == [87.5] * 4 + [75.0] * 4 + [87.5] * 4

    def test_accuracy_where_the_format_is_valid_counts_only_those_rows(self, run, source):
        table = re.search(r"<caption>Format.*?</table>", source, re.DOTALL)[0]
        accuracies = re.findall(
            r"</td><td>(?:<[^>]*>)?([\d.–]+)(?:</span> <[^>]*>of (\d+)</span>)?</td><td>20<", table
        )
        assert accuracies == [
            ("–", ""),
            *[("75.0", "24")] * 2,
            ("87.5", "24"),
        ]  # the base is right as often, in a format that is not valid
        reasons = [row["format_reason"] for row in read_run(run).predictions["base"].values()]
        assert all(f"{reason} {reasons.count(reason)}×" in table for reason in set(reasons)) and "ok" not in reasons

    @pytest.mark.parametrize(
        ("seconds", "shown"), [(0, "0 s"), (99.4, "99 s"), (390, "6.5 min"), (12_000, "3 h 20 min"), (None, "–")]
    )
    def test_durations(self, seconds, shown):
        assert figures.duration(seconds).replace("\u00a0", " ") == shown

    @pytest.mark.parametrize("value", [None, "0.5", True, math.nan, math.inf])
    def test_what_is_not_a_number_is_a_dash(self, value):
        shown = [form(value) for form in (figures.percent, figures.points, figures.p_value, figures.short)]
        assert shown == ["–"] * 4 and figures.share(value) == "–"
        assert figures.interval([0.1, value]) == ""


class TestMissingParts:
    @pytest.mark.parametrize(
        ("removed", "told"),
        [
            (["eval", "metrics.json"], "No evaluation yet"),
            (["sft", "rl"], "No training log"),
            (["metrics.json"], "No paired comparison"),
            (["eval/sft", "metrics.json"], "“sft” was trained, but not evaluated"),
            (
                ["sft", "rl", "metrics.json", "eval/sft", "eval/control", "eval/rl"],
                "with media taken away in this run",
            ),
            (["media"], "clip.mp4 was not found"),
        ],
    )
    def test_the_page_says_what_is_not_there(self, tmp_path, build_run, removed, told):
        run = build_run(tmp_path)
        for name in removed:
            path = run.parent / name if name == "media" else run / name
            path.rename(tmp_path / name.replace("/", "-").join(("gone-", "")))
        page = Page(render_page(read_run(run)))
        assert told in page.text("p")

    def test_no_clips_and_no_predictions(self, tmp_path, build_run):
        run = build_run(tmp_path)
        assert not Page(render_page(read_run(run), num_clips=0)).tags("article")
        with pytest.raises(ValueError, match="-1"):
            render_page(read_run(run), num_clips=-1)

    def test_stages_that_were_set_aside_are_not_shown(self, tmp_path, build_run):
        run = build_run(tmp_path)
        before = render_page(read_run(run))
        for name in ("sft", "eval/rl"):
            shutil.copytree(run / name, run / f"{name}.20260102-030405")
        assert render_page(read_run(run)) == before

    def test_an_empty_folder_is_refused(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no log"):
            write_report(tmp_path)

    def test_broken_metrics_are_refused_by_name(self, tmp_path):
        (tmp_path / "metrics.json").write_text("[1]")
        with pytest.raises(ValueError, match=r"metrics\.json must hold a JSON object, got list"):
            write_report(tmp_path)


class TestLogs:
    def test_the_last_row_of_a_repeated_step_wins(self, tmp_path):
        """A resumed run repeats steps 2 and 3; a trainer logs the evaluation of a step in a row of its own."""
        log = tmp_path / "log.jsonl"
        rows = [(1, 9.0), (2, 8.0), (3, 7.0), (2, 5.0), (3, 4.0), (4, 3.0)]
        write_lines(log, [{"step": s, "loss": v} for s, v in rows] + [{"step": 4, "eval_loss": 3.5}])
        assert read_log(log) == [
            {"step": 1, "loss": 9.0},
            {"step": 2, "loss": 5.0},
            {"step": 3, "loss": 4.0},
            {"step": 4, "loss": 3.0, "eval_loss": 3.5},
        ]

    def test_half_a_line_is_skipped_and_told(self, tmp_path, build_run):
        run = build_run(tmp_path)
        with (run / "sft/log.jsonl").open("a") as log:
            log.write('{"step": 41, "lo')
        assert "sft/log.jsonl: 1 unreadable lines were skipped." in read_run(run).notes

    def test_line_separators_inside_a_text_do_not_split_the_row(self, tmp_path):
        (tmp_path / "log.jsonl").write_text('{"step": 1, "text": "a\u2028b\x85c"}\n', encoding="utf-8")
        assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "text": "a\u2028b\x85c"}]

    def test_curves_leave_out_what_was_not_logged_or_is_not_finite(self, run):
        built = {curve.name: curve for curve in curves.build_curves(read_run(run))}
        assert set(built) == {
            "loss_sft",
            "loss_rl",
            "rewards_rl",
            "reward",
            "completion_length",
            "zero_variance",
            "kl",
        }
        assert 3.0 not in built["kl"].series[0].steps
        assert [(line.label, line.tone) for line in built["rewards_rl"].series] == [
            ("answer", "answer"),
            ("context", "context"),
        ]

    def test_every_reward_has_a_tone_of_its_own_while_they_last(self):
        names = ["accuracy", "answer", "judge", "structure", "tags"]
        tones = curves.reward_tones([{f"rewards/{name}/mean": 1.0 for name in names}])
        assert len(set(tones.values())) == len(names)
        assert tones["accuracy"] == "answer" and tones["structure"] == "format"

    def test_one_png_a_curve(self, run, source):
        names = {path.stem for path in (run / "plots").glob("*.png")}
        assert names == {curve.name for curve in curves.build_curves(read_run(run))}
        for path in (run / "plots").glob("*.png"):
            image = Image.open(path)
            assert image.size == (900, 480) and len(image.convert("L").getcolors()) > 10

    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
    def test_the_running_mean_stays_within_the_values(self, values):
        smooth = curves.Series("x", "rl", tuple(range(len(values))), tuple(values)).smooth
        assert len(smooth) == len(values)
        assert min(values) - 1e-3 <= min(smooth) and max(smooth) <= max(values) + 1e-3

    def test_the_running_mean_keeps_a_straight_line(self):
        """Off-centre windows would shift it."""
        line = curves.Series("x", "rl", tuple(range(100)), tuple(range(100)))
        half = line.window // 2
        assert half > 0
        assert line.smooth[half:-half] == pytest.approx(line.values[half:-half])


def drawn(curve: curves.Curve, theme: int = 0) -> ElementTree.Element:
    """The curve's picture, as the page has it."""
    return ElementTree.fromstring(base64.b64decode(drawing.addresses(curve)[theme].partition(",")[2]))


def shape(curve: curves.Curve, theme: int = 0) -> list[tuple[float, float]]:
    """Corners of the last line drawn, in its tone, y downwards."""
    colour = drawing.palettes()[theme][curve.series[0].tone]
    paths = [path for path in drawn(curve, theme).iter(f"{SVG}path") if f"stroke: {colour}" in path.get("style", "")]
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", paths[-1].attrib["d"])]


class TestDrawing:
    @pytest.mark.parametrize("values", [(0.0,), (5.0, 5.0), (-3.0, -3.0), (1e-9, 2e-9), (-1.0, 1e6)])
    def test_any_values_stay_inside_the_drawing(self, values):
        curve = curves.Curve("x", "X", (curves.Series("x", "rl", tuple(range(len(values))), values),))
        *_, width, height = map(float, drawn(curve).attrib["viewBox"].split())
        assert shape(curve) and all(0 <= x <= width and 0 <= y <= height for x, y in shape(curve))

    @pytest.mark.parametrize("theme", [0, 1])
    def test_larger_is_higher_and_later_is_further_right(self, theme):
        line = curves.Series("x", "rl", (0, 1, 2), (0.1, 0.9, 0.4))
        (x0, y0), (x1, y1), (x2, y2) = shape(curves.Curve("x", "X", (line,)), theme)
        assert x0 < x1 < x2 and y1 < y2 < y0

    def test_a_long_run_is_thinned_but_keeps_its_end(self):
        line = curves.Series("x", "rl", tuple(range(50_000)), tuple(np.random.default_rng(0).uniform(size=50_000)))
        curve = curves.Curve("x", "X", (line,))
        (light, _), ends = (
            drawing.addresses(curve),
            curves.Curve("x", "X", (replace(line, steps=(0, 49_999), values=(0, 1)),)),
        )
        assert len(light) < 60_000
        assert shape(curve)[-1][0] == pytest.approx(shape(ends)[-1][0], abs=0.01)

    def test_the_numbers_beside_the_lines_are_not_cut(self):
        """Mutant: all decimals of the picture rounded, and 0.005 reads 0.00."""
        line = curves.Series("x", "rl", (0, 1), (-0.01, 0.01))
        labels = {text.text for text in drawn(curves.Curve("x", "X", (line,))).iter(f"{SVG}text")}
        assert {"0.005", "−0.005"} <= labels

    def test_each_theme_has_its_colours(self):
        """Mutant: the light picture in both."""
        line = curves.Series("x", "answer", (0, 1), (0.0, 1.0))
        for theme, colours in enumerate(drawing.palettes()):
            other = drawing.palettes()[1 - theme]
            source = ElementTree.tostring(drawn(curves.Curve("x", "X", (line,)), theme), encoding="unicode")
            assert colours["answer"] in source and colours["muted"] in source
            assert other["answer"] not in source and other["muted"] not in source


class TestClips:
    def test_the_choice_does_not_look_at_scores_or_completions(self, run):
        chosen = clips.choose_clips(read_run(run), 7)
        other = read_run(run)
        for rows in other.predictions.values():
            for row in rows.values():
                row |= {"answer_score": 1 - row["answer_score"], "completion": "", "format_ok": not row["format_ok"]}
        assert clips.choose_clips(other, 7) == chosen

    @given(st.randoms())
    def test_the_order_of_the_file_does_not_matter(self, run, random):
        folder = read_run(run)
        expected = clips.choose_clips(folder, 9)
        for stage, rows in folder.predictions.items():
            shuffled = random.sample(sorted(rows), len(rows))
            folder.predictions[stage] = {key: rows[key] for key in shuffled}
        assert clips.choose_clips(folder, 9) == expected

    def test_kinds_take_turns_and_more_clips_extend_fewer(self, run):
        folder = read_run(run)
        rows = folder.predictions["base"]
        chosen = clips.choose_clips(folder, 9)
        assert [kind_of(rows[key]) for key in chosen] == ["agreement", "face", "voice"] * 3
        assert chosen[:4] == clips.choose_clips(folder, 4)
        assert sorted(clips.choose_clips(folder, 1_000)) == sorted(rows)

    def test_only_rows_that_every_stage_answered_with_all_media(self, run, page):
        folder = read_run(run)
        dropped = clips.choose_clips(folder, 1)[0]
        del folder.predictions["sft"][dropped]
        assert dropped not in clips.choose_clips(folder, 1_000)
        assert "BLIND" not in page.text()

    def test_each_card_shows_every_stage_and_the_rule_is_stated(self, page):
        assert len(page.tags("article")) == 12
        assert page.text("h4").split().count("GRPO") == 12
        assert "from the 24 test rows that every stage answered" in page.text("p")
        assert "Scores play no part" in page.text("p")
        assert page.text("h5").split().count("context") == 36  # not for the base, whose format is not valid

    def test_large_and_unknown_files_are_named_not_embedded(self, tmp_path, build_run, monkeypatch):
        run = build_run(tmp_path)
        monkeypatch.setattr(embedding, "MAX_MEDIA_BYTES", 1_000)
        file = run / "eval/base/predictions.jsonl"
        file.write_text(file.read_text().replace("face.png", "face.svg"))
        page = Page(render_page(read_run(run)))
        assert "clip.mp4 is too large to embed" in page.text("p")
        assert "face.svg: a browser cannot show" in page.text("p")
        assert not page.tags("video") and not [a for a in page.tags("img") if "test row" in a["alt"]]


class TestAccessibility:
    def test_headings_do_not_skip_a_level(self, page):
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        assert levels.count(1) == 1 and levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))

    def test_every_picture_and_player_has_words(self, page):
        assert all(a.get("alt") for a in page.tags("img"))
        assert all(a.get("aria-label") for a in page.tags("video") + page.tags("audio"))
        assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in page.tags("svg"))
        assert any("goes from 2 at step 1 to 0.05 at step 40" in a["alt"] for a in page.tags("img"))

    def test_tables_have_captions_and_scoped_headers(self, page):
        assert len(page.tags("table")) == len([1 for tag, _ in page.elements if tag == "caption"]) > 3
        assert all(a.get("scope") in ("row", "col") for a in page.tags("th"))

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_contrast(self, theme):
        """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for lines and dots, on paper and on cards."""
        light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", light if theme == "light" else dark))
        for ground in ("paper", "card"):
            for name in ("ink", "muted", "right", "wrong", "context", "think", "answer"):
                assert contrast(colours[name], colours[ground]) >= 4.5, name
            for name in tones():
                assert contrast(colours[name], colours[ground]) >= 3, name

    def test_plots_and_page_share_their_tones(self):
        light = re.search(r":root \{(.*?)\}", CSS, re.DOTALL)[1]
        assert all(f"--{name}: #" in light and f".tone-{name} {{ --tone: var(--{name}); }}" in CSS for name in tones())
        assert len(drawing.DASHES) - 1 == len(re.findall(r"\.swatch\.dash-\d", CSS))


def tones() -> set[str]:
    """Every tone that a line may have."""
    rewards = curves.reward_tones(
        [{f"rewards/{name}/mean": 1.0 for name in ("format", "context", "think", "answer", *"abc")}]
    )
    return {*run_folder.STAGES, *rewards.values(), *RUN_TONES}


def contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_the_script_writes_where_it_is_told(tmp_path):
    write_lines(tmp_path / "run/sft/log.jsonl", [{"step": 1, "loss": 2.0}])
    page = tmp_path / "new/page.html"
    command = [sys.executable, REPOSITORY / "recipes/report.py", "--run", tmp_path / "run", "--output", page]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert str(page) in finished.stdout
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (tmp_path / "run/plots/loss_sft.png").exists()
