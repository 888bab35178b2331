# SPDX-License-Identifier: Apache-2.0
"""A run folder as self-contained HTML pages and PNG curves.

- the report: `run_folder` reads the folder, `curves` turns logs into series, which `drawing` draws, `tables`, `clips`,
  `confusion`, `length` and `shortcuts` ask what was answered, how well, at what length and without which channel; `page`
  puts all of it together
- the comparison of several runs: `comparison`
- the rollout viewer: `rollouts` reads what the trainer logged, `segments` and `rollout_flags` say what stands where and
  what is suspect, `embedding` chooses media, `viewer` writes the page
- what all pages share: `figures` has numbers as they are shown, `rendering` fills `templates/*.html.j2`, which escape
  whatever they show; `page.css`, `viewer.css` and the scripts go into the page

No page asks a server for anything: its own policy forbids it.
"""

from omni_grpo.report.comparison import write_comparison
from omni_grpo.report.page import write_report
from omni_grpo.report.viewer import write_viewer

__all__ = ["write_comparison", "write_report", "write_viewer"]
