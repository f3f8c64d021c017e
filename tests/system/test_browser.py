"""The page of a plan in headless Chromium: it is laid out without overflow at two widths, in both schemes, and loads nothing.

Needs `chromium` on PATH, or where UNITP_CHROMIUM says. Where that or CI is set, a missing browser is a failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

import unitp
from unitp.mesh import Mesh
from unitp.report import html
from unitp.testing.models import WIDE, tiny

pytestmark = [pytest.mark.browser, pytest.mark.system]

NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--enable-logging=stderr",
    "--log-level=0",
)
LIGHT, DARK = 1, 0

MEASURE = """
<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const wide = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll("body *")].filter(
    e => !e.closest(".scroll") && e.getBoundingClientRect().right > wide + 1).map(e => e.tagName + "." + e.className);
  const shown = e => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0; };
  const report = {
    width: document.documentElement.scrollWidth, window: wide, height: document.documentElement.scrollHeight, out: out,
    pictures: [...document.querySelectorAll("svg")].filter(e => !shown(e)).length,
    paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    resources: performance.getEntriesByType("resource").length,
  };
  document.body.setAttribute("data-report", JSON.stringify(report));
});
</script>
"""


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser. Where it is asked for but missing, that is a failure, not a skip."""
    wanted = os.environ.get("UNITP_CHROMIUM", "")
    found = shutil.which(wanted) if wanted else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and (wanted or os.environ.get("CI")):
        pytest.fail(f"no browser: {wanted or 'CI is set, but none'} is on PATH (apt-get install chromium)")
    if found is None:
        pytest.skip(
            "Chromium is not installed (apt-get install chromium); UNITP_CHROMIUM or CI would make this a failure"
        )
    return found


@pytest.fixture(scope="session")
def page() -> str:
    """Thirty layers on eight ranks, with pins."""
    model = tiny(WIDE)
    pins = ["blk.*.ffn_down.weight: S(1)@tp", "blk.*.ffn_up.weight: S(0)@tp"]
    return html.page(unitp.plan(model, Mesh(dp=2, tp=4), pins=pins), model.graph)


def browse(chromium: str, folder: Path, page: str, *arguments: str) -> str:
    """What Chromium prints for a page. Its sockets want a short path, so its own files have a folder of their own."""
    path = folder / "plan.html"
    path.write_text(page, "utf-8")
    with tempfile.TemporaryDirectory(prefix="unitp-", dir="/tmp", ignore_cleanup_errors=True) as own:
        switches = [*SWITCHES, f"--user-data-dir={own}/profile", *arguments, path.as_uri()]
        environment = {**os.environ, "TMPDIR": own, "HOME": own}
        done = subprocess.run(
            [chromium, *switches], capture_output=True, text=True, timeout=90, check=False, env=environment
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (said := [line for line in done.stderr.splitlines() if "CONSOLE" in line]), said
    return done.stdout


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_is_laid_out(chromium: str, page: str, tmp_path: Path, width: int, scheme: int) -> None:
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    measured, count = policy.subn("", page)  # it forbids the script that measures, too
    assert count == 1
    dom = browse(
        chromium,
        tmp_path,
        measured.replace("</body>", f"{MEASURE}</body>"),
        f"--window-size={width},900",
        f"--blink-settings=preferredColorScheme={scheme}",
        "--virtual-time-budget=3000",
        "--dump-dom",
    )
    found = re.search(r'data-report="([^"]*)"', dom)
    assert found, dom[-2000:]
    report = json.loads(found[1].replace("&quot;", '"'))
    assert report["window"] == width
    assert report["width"] == width, "the page is not wider than the window"
    assert not report["out"]
    assert report["pictures"] == 0, "every picture is seen"
    assert report["resources"] == 0
    assert report["height"] > 2000
    paper, ink = (np.mean([int(n) for n in re.findall(r"\d+", report[key])[:3]]) for key in ("paper", "ink"))
    assert (paper > 200 and ink < 60) if scheme == LIGHT else (paper < 60 and ink > 200)


def test_the_page_itself_is_shown(chromium: str, page: str, tmp_path: Path) -> None:
    """Unchanged, with the policy that forbids it to load anything: a picture in which many colours are seen."""
    shot = tmp_path / "shot.png"
    browse(chromium, tmp_path, page, "--window-size=1280,1800", f"--screenshot={shot}")
    data = shot.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 50_000, "an empty page is smaller"
