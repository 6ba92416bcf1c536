"""What benchmark tools of the field wrote, read into one form.

One registered class per tool and file; `read` finds the one that a file belongs to. `_run.Run` is the form: what was sent, what was
measured, which requests each figure counts, and what the file left open.
"""

from sim.study.bench._find import known, read, read_tree
from sim.study.bench._run import Run

__all__ = ["Run", "known", "read", "read_tree"]
