# SPDX-License-Identifier: Apache-2.0
"""The report's diagnostics and the comparison of runs: bands, confusion, length, shortcuts, paired differences."""

from __future__ import annotations

import base64
import doctest
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chromium import Chromium, find_browser
from evaluated_runs import write_log
from omni_grpo.data.rows.schema import Example
from omni_grpo.evaluation.prediction_files import append
from omni_grpo.evaluation.prediction_rows import prediction_row
from omni_grpo.evaluation.scoring import summarise
from omni_grpo.evaluation.shortcut import summarise_shortcuts
from omni_grpo.evaluation.statistics import paired_bootstrap
from omni_grpo.report import confusion, curves, drawing, length, write_comparison, write_report
from omni_grpo.report.comparison import overlaid, run_names
from omni_grpo.report.confusion import NO_ANSWER, OTHER, UNREADABLE
from omni_grpo.report.run_folder import read_run
from omni_grpo.rollout.answers import Completion
from omni_rewards import CONTEXT_THINK_ANSWER, AnswerReward
from rollout_runs import write_rollouts, write_table

REPOSITORY = Path(__file__).resolve().parents[2]
BROWSER = find_browser()


LABELLED = [("joke", "shout"), ("taunt", "joke")]


def row(index: int, gold: str, answer: str | None, variant: str = "full", kind: str = "yes_no") -> dict:
    """A prediction as an evaluation writes it; `answer` is said without sections where it is none."""
    text = f"<context>a</context><think>b</think><answer>{answer}</answer>" if answer else "I cannot tell."
    example = Example(f"row-{index}", "Do they agree?", kind, gold, meta={"kind": "agreement"})
    completion = Completion(text, 10 + index, 0.1, False)
    return prediction_row(example, completion, CONTEXT_THINK_ANSWER, variant, False, AnswerReward())


def build(root: Path, name: str, right: int, n: int = 60, shift: float = 0.0) -> Path:
    """A run of `n` test rows of which the first `right` are right, with a variant without audio that is right by half."""
    run, gold = root / name, ["yes" if i % 2 else "no" for i in range(n)]
    wrong = {"yes": "no", "no": "yes"}
    results = {
        variant: [row(i, g, g if i < count else wrong[g], variant) for i, g in enumerate(gold)]
        for variant, count in (("full", right), ("no_audio", right // 2))
    }
    folder = run / "eval/rl"
    folder.mkdir(parents=True)
    for variant, rows in results.items():
        append(folder / ("predictions.jsonl" if variant == "full" else f"predictions.{variant}.jsonl"), rows)
    variants = {"no_audio": summarise(results["no_audio"])}
    variants["frames_reversed"] = variants["no_audio"]  # one that nobody knew of
    metrics = summarise(results["full"]) | {"variants": variants, "shortcuts": summarise_shortcuts(results)}
    (run / "metrics.json").write_text(json.dumps({"stages": {"rl": metrics}}))
    logs = {"loss": 0.1, "rewards/answer_reward/mean": 0.4}
    write_log(run / "rl", {s: logs | {"reward": shift + 0.01 * s} for s in range(1, 61)})
    return run


@pytest.mark.parametrize("module", [length], ids=lambda module: module.__name__)
def test_docstring_examples_hold(module):
    results = doctest.testmod(module)
    assert results.attempted and not results.failed


class TestBands:
    def test_the_band_covers_the_truth_about_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        hits = []
        for _ in range(300):
            values = tuple(rng.normal(0.0, 1.0, 150).tolist())
            line = curves.Series("x", "rl", tuple(range(150)), values)
            low, high = line.smooth[75] - line.reach[75], line.smooth[75] + line.reach[75]
            hits.append(low <= 0.0 <= high)
        assert 0.91 <= np.mean(hits) <= 0.985

    def test_a_quiet_line_has_a_narrow_band_and_a_short_one_none(self):
        still = curves.Series("x", "rl", tuple(range(60)), (0.5,) * 60)
        assert max(still.reach) < 1e-9
        assert np.isnan(curves.Series("x", "rl", (1, 2), (0.0, 1.0)).reach).all()


class TestConfusion:
    def test_every_answer_is_counted_where_it_belongs(self):
        rows = [
            row(0, "yes", "Yes."),
            row(1, "yes", "no"),
            row(2, "no", None),
            row(3, "no", "perhaps"),
            row(4, "no", "no"),
        ]
        found = confusion.confusion(rows)
        assert found == {"no": {NO_ANSWER: 1, UNREADABLE: 1, "no": 1}, "yes": {"yes": 1, "no": 1}}

    def test_an_answer_outside_the_gold_ones_is_another(self):
        found = confusion.confusion([row(i, g, a, kind="label") for i, (g, a) in enumerate(LABELLED)])
        assert found["joke"][OTHER] == 1 and found["taunt"]["joke"] == 1

    @given(st.lists(st.tuples(st.sampled_from(["yes", "no"]), st.sampled_from(["yes", "no", "x", None])), min_size=1))
    def test_nothing_is_lost_and_the_diagonal_is_what_was_right(self, pairs):
        rows = [row(i, gold, answer) for i, (gold, answer) in enumerate(pairs)]
        found = confusion.confusion(rows)
        assert sum(sum(counts.values()) for counts in found.values()) == len(rows)
        assert sum(counts[gold] for gold, counts in found.items()) == sum(r["answer_score"] for r in rows)

    def test_the_page_shows_it(self, tmp_path):
        source = write_report(build(tmp_path, "one", 30)).read_text()
        table = re.search(r"<caption>GRPO, agreement: gold.*?</table>", source, re.DOTALL)[0]
        assert re.findall(r'row">(\w+)<', table) == ["no", "yes"]
        assert re.findall(r"<td>(\d+)</td><td>([\d.]+)</td>", table) == [("30", "50.0"), ("30", "50.0")]


class TestLength:
    @given(st.lists(st.integers(0, 50), min_size=1, max_size=300))
    def test_fifths_hold_every_row_once_in_order(self, lengths):
        values = np.array(lengths)
        bins = [mask for _, mask in length.fifths(values)]
        assert (np.sum(bins, axis=0) == 1).all()
        ends = [(values[mask].min(), values[mask].max()) for mask in bins]
        assert all(a[1] < b[0] for a, b in pairwise(ends))

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=60))
    def test_the_rank_correlation_is_scipy_s(self, pairs):
        stats = pytest.importorskip("scipy.stats")
        a, b = map(np.array, zip(*pairs, strict=True))
        found = length.spearman(a, b)
        if found is None:
            assert len(set(a.tolist())) < 2 or len(set(b.tolist())) < 2
        else:
            assert found == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)

    def test_rewards_that_rise_with_length_are_told(self, tmp_path):
        run = build(tmp_path, "one", 30)
        rows = write_rollouts(run, [], groups=12)
        for r in rows:
            r["reward"] = float(len(r["completion"][0]["content"]))
        for file in (run / "rl/completions").glob("*"):
            file.unlink()
        write_table(run / "rl/completions", 1, rows)
        source = write_report(run).read_text()
        assert "the total reward rises with the length" in source
        assert "rank correlation −" in source  # the first rows are the shorter ones, and right


def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


class TestShortcuts:
    def test_accuracy_and_the_points_lost_with_their_interval(self, tmp_path):
        run = build(tmp_path, "one", 40)
        source = page(run)
        assert "Without audio" in source and "Frames reversed" in source
        assert source.index("Without audio") < source.index("Frames reversed")
        lost = [1.0 if 20 <= i < 40 else 0.0 for i in range(60)]
        low, high = (100 * end for end in paired_bootstrap(lost, [0.0] * 60, n_resamples=2_000).ci95)
        assert f'+33.3</span> <span class="ci">+{low:.1f} to +{high:.1f}' in source
        assert source.count('<span class="value">+33.3</span></td>') == 2  # no predictions of that one: no interval

    def test_less_accuracy_is_further_left(self, tmp_path):
        table = re.search(r"<caption>GRPO, accuracy.*?</table>", page(build(tmp_path, "one", 40)), re.DOTALL)[0]
        full, _, deaf, *_ = map(float, re.findall(r'circle cx="([\d.]+)"', table))
        assert deaf < full

    def test_the_index_and_what_did_not_change_are_shown_where_they_were_measured(self, tmp_path):
        """Mutant: a run of an earlier version, whose metrics.json has neither, has no report."""
        run = build(tmp_path, "one", 40)
        metrics = json.loads((run / "metrics.json").read_text())
        del metrics["stages"]["rl"]["shortcuts"]  # as an earlier version
        (run / "metrics.json").write_text(json.dumps(metrics))
        before = page(run)
        assert ">+33.3</span></td>" in before
        assert "shortcut index" not in before and "left out" not in before
        metrics = json.loads((run / "metrics.json").read_text())
        stage = metrics["stages"]["rl"]
        share = {"share": 0.333, "ci95": [0.3, 0.4], "n": 60}
        changed = {"lost": {"difference": 0.1, "ci95": [0.0, 0.2], "n": 60}, "answers": share, "contexts": None}
        index = {"audio": {"value": 0.125, "ci95": [0.1, 0.2], "n": 50, "n_known": 50}}
        stage["shortcuts"] = {
            "agreement": {"index": {}, "variants": {}},
            "all": {"index": index, "variants": {"swapped_audio": changed}},
        }
        stage["variants"]["no_audio"]["left_out"] = {"has no <audio>": ["row-1", "row-2"]}
        (run / "metrics.json").write_text(json.dumps(metrics))
        source = page(run)
        table = re.search(r"<caption>GRPO, shortcut index.*?</table>", source, re.DOTALL)[0]
        assert re.findall(r'row">(\w+)<', table) == ["all"]
        assert '>12.5</span> <span class="ci">10.0 – 20.0<' in table and table.endswith(
            "<td>–</td></tr>\n</tbody></table>"
        )
        table = re.search(r"<caption>GRPO, percent that do not change.*?</table>", source, re.DOTALL)[0]
        assert "Another row&#39;s audio" in table and ">33.3<" in table
        assert "Without audio: 2 rows are left out, for each has no &lt;audio&gt; (row-1, row-2)." in source
        assert "shortcut index" in write_report(run).read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    runs = [build(root, "plain", 30), build(root, "better", 45, shift=0.2)]
    return runs, write_comparison(runs, root / "out/comparison.html")


class TestComparison:
    def test_the_difference_is_the_paired_one_with_its_sign(self, pages):
        source = pages[1].read_text()
        table = re.search(r"<caption>Paired differences.*?</table>", source, re.DOTALL)[0]
        assert "better − plain" in table
        paired = paired_bootstrap([float(i < 45) for i in range(60)], [float(i < 30) for i in range(60)])
        low, high = (100 * end for end in paired.ci95)
        assert table.count(">+25.0<") == 2 and f"+{low:.1f} to +{high:.1f}" in table  # its group and all
        assert table.count("<td>60</td>") == 2

    def test_a_run_against_its_copy_differs_nowhere(self, tmp_path):
        runs = [build(tmp_path, name, 30) for name in ("a", "b")]
        table = write_comparison(runs, tmp_path / "c.html").read_text()
        assert ">+0.0<" in table and "<td>1.000</td>" in table

    def test_curves_lie_over_one_another_and_differ_not_by_colour_alone(self, pages):
        charts = overlaid({run.name: read_run(run) for run in pages[0]})
        rewards = next(c for c in charts if c.name == "reward")
        assert [(line.label, line.dash) for line in rewards.series] == [("plain", 0), ("better", 1)]
        assert len({line.tone for line in rewards.series}) == 2
        assert "stroke-dasharray" in base64.b64decode(drawing.addresses(rewards)[0].partition(",")[2]).decode()
        assert 'class="swatch dash-1"' in pages[1].read_text()

    def test_it_is_complete_without_scripts_and_asks_nobody(self, pages):
        source = pages[1].read_text()
        assert "<script" not in source and not re.search(r'(src|href)="(?!#|data:)', source)

    def test_runs_of_one_name_are_told_apart(self, tmp_path):
        assert run_names([tmp_path / "a/run", tmp_path / "b/run"]) == ["a/run", "b/run"]

    def test_one_run_or_the_same_twice_is_refused(self, pages):
        for runs in (pages[0][:1], [pages[0][0], pages[0][0]]):
            with pytest.raises(ValueError, match="different runs"):
                write_comparison(runs, pages[1])

    def test_the_script_compares_and_links(self, pages, tmp_path):
        (first, second), _ = pages
        write_rollouts(first, [])
        script = [sys.executable, REPOSITORY / "recipes/report.py"]
        both = ["--run", first, "--run", second, "--output", tmp_path / "both.html"]
        subprocess.run([*script, *both], check=True, capture_output=True)
        assert "Paired differences" in (tmp_path / "both.html").read_text()
        subprocess.run([*script, "--run", first, "--output", tmp_path / "one.html"], check=True, capture_output=True)
        assert '<a href="rollouts.html">' in (tmp_path / "one.html").read_text()
        assert (tmp_path / "rollouts.html").is_file()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_pages_fit_a_phone_and_can_be_read_in_both_themes(tmp_path):
    """WCAG 2.2: 4.5 to 1, on the colours that the browser computes."""
    runs = [build(tmp_path, "plain", 30), build(tmp_path, "better", 45)]
    pages = [write_report(runs[0]), write_comparison(runs, tmp_path / "comparison.html")]
    contrast = (REPOSITORY / "tests/contrast.js").read_text(encoding="utf-8")
    browser = Chromium(BROWSER)
    try:
        for page in pages:
            for dark in (False, True):
                browser.open(page, width=390, height=844, dark=dark)
                assert browser.errors() == []
                assert browser.ask("document.documentElement.scrollWidth") <= 390
                found = browser.ask(contrast)
                assert found["checked"] > 30 and found["faint"] == []
    finally:
        browser.close()
