# SPDX-License-Identifier: Apache-2.0
"""
A language model that grades completions, behind any OpenAI-compatible endpoint.

- `settings`: `Judge`, the frozen settings that a run's YAML gives, and the two ways to ask, `ask` and `ask_async`
- `questions`: one thing to grade, and how texts of the policy are fenced off from the instructions
- `media`: what a judge sees and hears of a row
- `asking`: a batch of questions: each distinct one once, many in flight, retries, a budget of time
- `http`: one request, over connections that outlive a batch
- `verdicts`: the score in what the judge wrote, or `None`
- `record`: replies on disk, keyed by content: cache, record and replay
- `rows`: from the questions of a batch's rows to their rewards
"""

from .questions import Question
from .settings import Judge
from .verdicts import read_score

__all__ = ["Judge", "Question", "read_score"]
