# SPDX-License-Identifier: Apache-2.0
"""A run folder as one self-contained HTML page and PNG curves.

`run_folder` reads the folder, `curves` turns logs into series and PNG files, `drawing` draws the same series as
inline SVG, `tables` and `clips` write the two halves of the evidence, `markup` makes untrusted text safe, `page` puts
all of it into `page.html`, `page.css` and `page.js`. The page makes no request: its own policy forbids any.
"""

from omni_grpo.report.page import write_report

__all__ = ["write_report"]
