# SPDX-License-Identifier: Apache-2.0
"""The rollout viewer: what is read, what the filters mean, and the page itself in a headless Chromium."""

from __future__ import annotations

import doctest
import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chromium import Chromium, find_browser
from media_files import write_image, write_sound, write_video
from omni_grpo.data.media import playable
from omni_grpo.report import embedding, rollout_flags, rollouts, segments, write_viewer
from omni_grpo.report.rollout_flags import flag
from omni_grpo.report.rollouts import Group, Rollout, read_rollouts
from omni_rewards import CONTEXT_THINK_ANSWER, parse_sections
from rollout_runs import HOSTILE, completion_row, write_rollouts, write_table

REPOSITORY = Path(__file__).resolve().parents[2]
BROWSER = find_browser()
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)


def groups_of(page: Path) -> dict:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(data)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> list[Path]:
    """Four clips with sound, a sound and a picture."""
    folder = tmp_path_factory.mktemp("media with spaces")
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(32_000) / 16_000).astype(np.float32)
    for k in range(4):
        frames = np.random.default_rng(k).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
        write_video(folder / f"clip {k}.mp4", frames, sound=tone, sound_rate=16_000)
    write_sound(folder / "sound.wav", tone, rate=16_000)
    write_image(folder / "image.png", frames[0])
    return [*(folder / f"clip {k}.mp4" for k in range(4)), folder / "sound.wav", folder / "image.png"]


@pytest.mark.parametrize("module", [segments, rollout_flags, playable], ids=lambda module: module.__name__)
def test_docstring_examples_hold(module):
    results = doctest.testmod(module)
    assert results.attempted and not results.failed


class TestReading:
    def test_every_row_arrives_in_its_group(self, tmp_path, media):
        rows = write_rollouts(tmp_path, media, groups=12, size=4)
        found = read_rollouts(tmp_path)
        assert [len(group.rollouts) for group in found] == [4] * 12
        assert [r.text for g in found for r in g.rollouts] == [row["completion"][0]["content"] for row in rows]
        assert [g.gold for g in found for _ in g.rollouts] == [row["solution"] for row in rows]
        first = found[0]
        assert first.media == (str(media[0]),) and first.question.startswith("Does the voice")
        assert list(first.rollouts[0].rewards) == ["answer_reward", "context_reward", "section_format_reward"]
        assert first.rollouts[0].by_place["outside"] is None
        assert first.rollouts[0].by_place["tag"] == rows[0]["advantage_tag"]
        assert first.rollouts[0].notes["judge_verdict"] == rows[0]["judge_verdict"]

    @pytest.mark.parametrize("named", [True, False])
    def test_a_batch_that_served_two_steps_is_taken_once(self, tmp_path, named):
        rows = write_rollouts(tmp_path, [], groups=4, size=4, per_step=2)
        again = [row | {"step": 3} for row in rows[8:]]
        folder = tmp_path / "rl/completions"
        for step, some in ((1, rows[:8]), (2, rows[8:]), (3, again)):
            kept = some if named else [{k: v for k, v in r.items() if k != "group"} for r in some]
            write_table(folder, step, kept)
        assert [group.step for group in read_rollouts(tmp_path)] == [1, 1, 2, 2]

    def test_steps_come_in_the_order_of_numbers(self, tmp_path):
        rows = write_rollouts(tmp_path, [], groups=1)
        for step in (99_999, 100_000):
            write_table(
                tmp_path / "rl/completions", step, [r | {"step": step, "group": f"train {step}"} for r in rows]
            )
        assert [group.step for group in read_rollouts(tmp_path)] == [1, 99_999, 100_000]

    def test_a_stage_that_was_set_aside_is_not_read(self, tmp_path):
        write_rollouts(tmp_path, [], groups=2)
        (tmp_path / "rl").rename(tmp_path / "rl.20260102-030405")
        with pytest.raises(FileNotFoundError, match="log_completions"):
            write_viewer(tmp_path)

    @given(
        st.lists(st.sampled_from([f"<{e}{n}>" for n in CONTEXT_THINK_ANSWER.names for e in ("", "/")] + ["a", " "]))
    )
    def test_segments_keep_every_character_and_agree_with_the_parser(self, parts):
        text = "".join(parts)
        pieces = segments.segments(text, CONTEXT_THINK_ANSWER)
        assert "".join(piece for _, piece in pieces) == text
        inside = {place: piece for place, piece in pieces if place not in ("tag", "outside")}
        assert inside == parse_sections(text).texts


def group_of(*rollouts: tuple[str, dict[str, float | None]]) -> Group:
    made = [Rollout(text, scores, sum(s for s in scores.values() if s), 0.0, {}, {}) for text, scores in rollouts]
    return Group("rl", 1, False, "a", "What is it?", "B", None, (), CONTEXT_THINK_ANSWER, made)


GOOD = "<context>A man shouts loudly.</context><think>He is very angry.</think><answer>B</answer>"
SHELL = GOOD.replace("A man shouts loudly.", "see, see above")


class TestFlags:
    def flags(self, *rollouts) -> list[set[str]]:
        group = group_of(*rollouts)
        flag([group])
        return [r.flags for r in group.rollouts]

    def test_wrong_needs_an_answer_s_reward_below_a_half(self):
        scores = [0.0, 0.49, 0.5, 1.0, None]
        found = self.flags(*((GOOD, {"format_reward": 1.0, "answer_reward": s}) for s in scores))
        assert ["wrong" in f for f in found] == [True, True, False, False, False]

    def test_without_an_answer_s_reward_nothing_is_wrong(self):
        group = group_of((GOOD, {"answer_format_reward": 0.0}))
        assert flag([group]) is None and group.rollouts[0].flags == set()

    def test_gamed_is_a_wrong_answer_that_earns_what_a_right_one_does(self):
        found = self.flags(
            (GOOD, {"answer_reward": 1.0, "context_reward": 0.2}),
            (GOOD, {"answer_reward": 0.0, "context_reward": 1.0}),
            (GOOD, {"answer_reward": 0.0, "context_reward": 1.3}),
            (GOOD, {"answer_reward": 1.0, "context_reward": 0.9}),
        )
        assert ["rewarded" in f for f in found] == [False, False, True, False]

    def test_a_group_without_a_right_answer_is_held_to_the_page_s_median(self):
        right = group_of(*((GOOD, {"answer_reward": 1.0, "judge": x}) for x in (0.0, 1.0, 2.0)))
        wrong = group_of(*((GOOD, {"answer_reward": 0.0, "judge": x}) for x in (1.9, 2.0)))
        flag([right, wrong])
        assert ["rewarded" in r.flags for r in wrong.rollouts] == [False, True]

    def test_disagreement_is_within_the_group(self):
        found = self.flags(
            (GOOD, {"answer_reward": 1.0, "context_reward": 0.0}),
            (GOOD, {"answer_reward": 0.0, "context_reward": 1.0}),
            (GOOD, {"answer_reward": 1.0, "context_reward": 1.0}),
            (GOOD, {"answer_reward": 0.0, "context_reward": 0.0}),
        )
        assert ["disagree" in f for f in found] == [True, True, False, False]
        alike = self.flags(*[(GOOD, {"answer_reward": 1.0, "context_reward": 0.0})] * 4)
        assert not any("disagree" in f for f in alike)

    def test_a_shell_is_well_formed_and_says_nothing(self):
        found = self.flags(*((text, {"answer_reward": 1.0}) for text in (GOOD, SHELL, SHELL[:-4])))
        assert ["shell" in f for f in found] == [False, True, False]
        assert ["malformed" in f for f in found] == [False, False, True]

    def test_the_same_words_in_every_group_are_a_shell(self):
        def groups(n):
            own = "The {} of a man who shouts"
            texts = [GOOD if k < 3 else GOOD.replace("A man shouts loudly.", own.format(k)) for k in range(n)]
            return [
                group_of((text.replace("He is", f"He {k} is"), {"answer_reward": 1.0})) for k, text in enumerate(texts)
            ]

        few, enough, many = groups(19), groups(29), groups(30)
        for some in (few, enough, many):
            flag(some)
        assert Counter("shell" in g.rollouts[0].flags for g in few)[True] == 0
        assert Counter("shell" in g.rollouts[0].flags for g in enough)[True] == 3
        assert Counter("shell" in g.rollouts[0].flags for g in many)[True] == 0  # a tenth is not more than a tenth


class TestPage:
    def test_media_are_embedded_up_to_a_number_and_linked_beyond(self, tmp_path, media):
        write_rollouts(tmp_path / "run", media)
        data = {}
        for number in (0, 2, 100):
            page = write_viewer(tmp_path / "run", tmp_path / "pages" / f"{number}.html", num_embedded=number)
            source, data = page.read_text(), groups_of(page)
            assert source.count('<script type="text/plain"') == min(number, len(media))
            links = [link for _, _, link, reason in data["media"] if link and not reason]
            assert len(links) == len(media) - min(number, len(media))
            assert all((page.parent / link.replace("%20", " ")).is_file() for link in links)

    def test_a_file_that_is_gone_or_of_no_known_kind_is_named(self, tmp_path):
        (tmp_path / "a.mkv").write_bytes(b"x")
        write_rollouts(tmp_path / "run", [tmp_path / "a.mkv", tmp_path / "gone.mp4"])
        reasons = {name: reason for name, _, _, reason in groups_of(write_viewer(tmp_path / "run"))["media"]}
        assert reasons["a.mkv"].startswith("a browser cannot") and reasons["gone.mp4"].startswith("was not found")

    def test_a_budget_holds_for_all_files_together(self, tmp_path, monkeypatch):
        files = [tmp_path / f"{k}.wav" for k in range(5)]
        for file in files:
            file.write_bytes(b"x" * 1_000)
        monkeypatch.setattr(embedding, "MAX_EMBEDDED_BYTES", 2_500)
        chosen = embedding.choose_media(map(str, files), tmp_path / "page.html", 5)
        assert sum(bool(m.data) for m in chosen.values()) == 2

    def test_writing_twice_gives_the_same_bytes(self, tmp_path, media):
        write_rollouts(tmp_path, media)
        assert write_viewer(tmp_path).read_bytes() == write_viewer(tmp_path).read_bytes()

    def test_a_negative_number_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="-1"):
            write_viewer(tmp_path, num_embedded=-1)

    def test_sections_stay_apart_for_the_colour_blind(self):
        """CIE76 distance of at least 15 between any two of context, think, answer and tags, in either theme, for
        protanopes, deuteranopes and tritanopes (Machado et al. 2009, severity 1)."""
        css = (REPOSITORY / "recipes/omni_grpo/report/page.css").read_text()
        for root in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
            colours = dict(re.findall(r"--([\w-]+): (#\w{6})", root))
            for matrix in SEEN:
                labs = [lab(matrix, colours[name]) for name in ("context", "think", "answer", "muted")]
                assert min(float(np.linalg.norm(a - b)) for a, b in combinations(labs, 2)) >= 15


SEEN = [
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
]


def lab(matrix: np.ndarray, colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(matrix @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    chromium = Chromium(BROWSER)
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory, media) -> Path:
    """5,000 rollouts in 625 groups; one says what it can to break the page."""
    run = tmp_path_factory.mktemp("large") / "run"
    rows = write_rollouts(run, media, groups=625, size=8, per_step=25)
    hostile = rows[-8:]
    hostile[0]["completion"][0]["content"] = HOSTILE
    hostile[0]["judge_verdict"] = hostile[0]["id"] = HOSTILE
    write_table(run / "rl/completions", 26, [r | {"step": 26, "group": "train 26"} for r in hostile])
    return write_viewer(run, num_embedded=3)  # whichever the hash of their paths takes: a clip is in, and one is not


@pytest.fixture(scope="module")
def ready(browser, large):
    """A browser with the large page open in it."""
    browser.open(large)
    browser.until("document.documentElement.dataset.ready")
    return browser


def click(flag_name: str) -> str:
    return f"document.querySelector('[data-flag={flag_name}]').click()"


COUNT = "document.getElementById('count').textContent"
CONTRAST = (REPOSITORY / "tests/contrast.js").read_text(encoding="utf-8")


@needs_browser
@pytest.mark.xdist_group("viewer")  # one browser and one large page
class TestInChromium:
    def test_it_loads_without_an_error_and_asks_nobody(self, ready):
        assert ready.errors() == []
        assert [url for url in ready.requests() if not url.startswith(("data:", "file:"))] == []
        assert ready.ask(COUNT) == "626 of 626 groups, 5,008 completions"

    def test_hostile_text_is_shown_and_not_run(self, ready):
        ready.ask("document.getElementById('list').focus()")
        ready.press("Home")
        assert ready.ask("window.hacked") is None
        assert "</script><script>window.hacked" in ready.ask("document.getElementById('group').textContent")
        assert ready.ask("document.querySelectorAll('#group img[onerror]').length") == 0
        assert ready.errors() == []

    @pytest.mark.parametrize("name", ["wrong", "disagree", "rewarded", "shell", "malformed"])
    def test_a_filter_lists_what_the_flags_say(self, ready, large, name):
        data = groups_of(large)
        bit = 1 << [f[0] for f in data["flags"]].index(name)
        hits = [sum(bool(r[6] & bit) for r in group[8]) for group in data["groups"]]
        ready.ask(click(name))
        groups, completions = sum(map(bool, hits)), sum(hits)
        assert ready.ask(COUNT) == f"{groups:,} of 626 groups, {completions:,} completions"
        shown = ready.ask("document.querySelectorAll('.card').length")
        listed = ready.ask("document.querySelector('.row[aria-selected=true] .hits')?.textContent || ''")
        if groups:
            assert 0 < shown <= 8 and (shown == 8 or listed == f"{shown} of 8 match")
        ready.press("Escape")
        assert ready.ask(COUNT).startswith("626 of 626")

    def test_search_needs_every_word(self, ready):
        def found(text):
            ready.ask(f"(search.value = {json.dumps(text)}, search.dispatchEvent(new Event('input')))")
            return int(ready.ask(COUNT).split()[0].replace(",", ""))

        assert found("step:1") == 25 and found("step:2-3") == 50
        assert found("id:ROW-3.3.7") == 1 and found("in 3.3.7? voice") == 1
        assert found("does not follow") == 626 and found("xyzzy") == 0
        assert "No group meets all of this" in ready.ask("document.getElementById('group').textContent")
        assert found("") == 626

    def test_arrows_go_through_groups_and_orders_sort(self, ready):
        step = "Number(document.querySelector('#group h2').firstChild.textContent.replace('Step ', ''))"
        ready.press("Home")
        assert ready.ask(step) == 26
        for _ in range(3):
            ready.press("ArrowDown")
        assert ready.ask("document.querySelector('.row[aria-selected=true]').getAttribute('aria-posinset')") == "4"
        ready.press("k")
        assert ready.ask("document.querySelector('.row[aria-selected=true]').getAttribute('aria-posinset')") == "3"
        ready.press("End")
        assert ready.ask(step) == 1
        ready.ask(
            "(s => { s.selectedIndex = 1; s.dispatchEvent(new Event('change')) })(document.getElementById('sort'))"
        )
        ready.press("Home")
        assert ready.ask(step) == 1
        ready.press("ArrowRight")
        assert ready.ask("document.activeElement.getAttribute('aria-label')") == "Completion 1"
        ready.ask(
            "(s => { s.selectedIndex = 0; s.dispatchEvent(new Event('change')) })(document.getElementById('sort'))"
        )

    def test_only_rows_in_sight_are_in_the_page(self, ready):
        assert ready.ask("document.querySelectorAll('.row').length") < 40
        assert ready.ask("document.getElementById('tall').clientHeight") == 626 * 76

    @pytest.mark.parametrize("inside", [True, False])
    def test_a_clip_plays_with_its_sound(self, ready, large, inside):
        """Both from the page itself and from the file beside it."""
        data = groups_of(large)
        embedded = {int(n) for n in re.findall(r'id="medium-(\d+)"', large.read_text())}
        place = next(
            i
            for i, group in enumerate(data["groups"])
            if group[7] and data["media"][group[7][0]][1] == "video/mp4" and (group[7][0] in embedded) is inside
        )
        ready.ask(f"choose(state.listed.findIndex(group => group.index === {place}))")
        ready.until("document.querySelector('video')?.readyState >= 2")
        ready.ask("document.querySelector('video').play()")
        ready.until("document.querySelector('video').currentTime > 0.2")
        assert ready.ask("document.querySelector('video').error") is None
        assert ready.until("document.querySelector('video').webkitAudioDecodedByteCount > 0")
        ready.ask("document.querySelector('video').pause()")

    def test_it_is_quick(self, browser, large):
        """5,000 rollouts: processor time of the page's thread, so that a busy machine is no failure."""
        browser.send("Performance.enable", timeDomain="threadTicks")
        busy = "TaskDuration"

        def spent() -> float:
            return {m["name"]: m["value"] for m in browser.send("Performance.getMetrics")["metrics"]}[busy]

        browser.open(large)
        browser.until("document.documentElement.dataset.ready")
        load = spent()
        costs = {}
        for name in ("wrong", "disagree", "malformed"):
            before = spent()
            browser.ask(f"({click(name)}, document.body.offsetHeight)")
            costs[name] = spent() - before
            browser.ask(click(name))
        before = spent()
        browser.ask(
            "(search.value = 'face rain', search.dispatchEvent(new Event('input')), document.body.offsetHeight)"
        )
        costs["search"] = spent() - before
        browser.ask("clear()")
        browser.send("Performance.disable")
        print(f"load {load:.2f} s, { ({k: f'{1000 * v:.0f} ms' for k, v in costs.items()}) }")
        assert load < 2.0
        assert max(costs.values()) < 0.25

    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    @pytest.mark.parametrize("width", [390, 1280])
    def test_nothing_scrolls_sideways_and_all_text_can_be_read(self, browser, large, width, dark):
        """WCAG 2.2: 4.5 to 1, on the colours that the browser computes."""
        browser.open(large, width=width, height=844, dark=dark)
        browser.until("document.documentElement.dataset.ready")
        for place in (0, 8):
            browser.ask(f"(choose({place}), document.querySelectorAll('details').forEach(d => d.open = true))")
            assert browser.ask("document.documentElement.scrollWidth") <= width
            found = browser.ask(CONTRAST)
            assert found["checked"] > 30 and found["faint"] == []


def test_a_row_without_media_and_without_a_group_column(tmp_path):
    """Tables that an earlier version wrote."""
    import random

    rng = random.Random(1)
    gone = ("group", "solution", "problem_type", "reward")
    rows = [completion_row(rng, 1, str(k // 4), k, "yes", "") for k in range(8)]
    rows = [{k: v for k, v in r.items() if k not in gone and not k.startswith("advantage_")} for r in rows]
    write_table(tmp_path / "rl/completions", 1, rows)
    found = read_rollouts(tmp_path)
    assert [len(g.rollouts) for g in found] == [4, 4] and found[0].gold is None and found[0].media == ()
    assert found[0].rollouts[0].total == pytest.approx(sum(v for v in found[0].rollouts[0].rewards.values() if v))
    assert rollouts.read_rollouts(tmp_path)[0].rollouts[0].by_place["context"] is None
