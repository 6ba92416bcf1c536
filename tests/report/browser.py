"""A page in a real browser: what it drew, what went wrong, what it fetched."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PROBE = """<script>
const timer = setInterval(() => {
  if (document.body.dataset.plots === undefined) return;
  clearInterval(timer);
  const fetched = performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"));
  document.body.dataset.fetched = fetched.join(" ");
  document.body.dataset.overflow = document.documentElement.scrollWidth - window.innerWidth;
}, 50);
</script>"""


@dataclass(frozen=True)
class Seen:
    """``plots`` drawn, JavaScript ``errors``, ``console`` lines, addresses ``fetched``, pixels the page is too wide."""

    plots: int
    errors: str
    console: list[str]
    fetched: str
    overflow: int


def browser() -> str:
    """Path of a browser; skips the test without one."""
    found = next((p for p in map(shutil.which, _BROWSERS) if p), None)
    if found is None:
        pytest.skip("no chromium on this machine")
    return found


def look(page: str, folder: Path, width: int = 1240) -> Seen:
    """Open an HTML text and wait until its plots are drawn."""
    path = folder / "page.html"
    path.write_text(page.replace("</body>\n</html>", _PROBE + "</body>\n</html>"), encoding="utf-8")
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},2000"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    body = re.search(r"<body([^>]*)>", done.stdout)
    assert body, done.stderr[-2000:]
    data = dict(re.findall(r'data-(\w+)="([^"]*)"', body[1]))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(int(data["plots"]), data["errors"], console, data["fetched"], int(data["overflow"]))
