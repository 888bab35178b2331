# SPDX-License-Identifier: Apache-2.0
"""The work of what `benchmarks/rewards_speed.py` times."""

from rewards_speed import GOLD, rows

from gold_answers import GOLD as TYPES
from omni_rewards import answer_reward, parse_sections, section_format_reward
from work import lines_run


def test_the_benchmark_has_every_type_that_needs_no_library_and_texts_of_2_kb() -> None:
    completions, solutions, kinds, options = rows(200)
    assert set(GOLD) == set(kinds) == set(TYPES) - {"math"}
    assert {len(completion) for completion in completions} == {2000}
    assert len(solutions) == len(options) == 200


def both(completions: list[str], *columns: list) -> None:
    section_format_reward(completions)
    answer_reward(completions, *columns)


def test_both_rewards_run_few_lines_a_row_however_long_it_is() -> None:
    """
    About 610 lines for 2 kB and 1,120 for 8 kB, once what comes with every row is known. Mutants: texts parsed by each
    reward anew; a gold answer read word by word for each completion; a loop over characters.
    """
    both(*rows(256))
    short, long = (lines_run(both, *rows(256, length, seed=1)) / 256 for length in (2000, 8000))
    assert short < 800 and long < 3 * short


def test_what_the_parser_remembers_cannot_be_changed_by_its_readers() -> None:
    text = rows(1)[0][0]
    first = parse_sections(text)
    first.texts.clear(), first.spans.clear()
    assert parse_sections(text).texts.keys() == parse_sections(text).spans.keys() == {"context", "think", "answer"}
