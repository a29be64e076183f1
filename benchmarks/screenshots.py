"""Take the pictures in docs/ of TensorBoard in a real browser: `python -m benchmarks.screenshots [RUNS]`, or `make screenshots`.

RUNS is a folder with runs, by default lightning_logs/reference. It needs Chromium on the path and playwright.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT = 60_000  # milliseconds
COLOURS = 160  # of a stored picture
# Picture -> (tab of TensorBoard, what must be there before it is taken, width and height)
VIEWS: dict[str, tuple[str, str, tuple[int, int]]] = {
    "tensorboard-curves": ("custom_scalars", "vz-line-chart2 svg", (1280, 760)),
    "tensorboard-pictures": ("images", "tf-image-loader img, image-card img", (1280, 1000)),
    "tensorboard-classes": ("scalars", "vz-line-chart2, line-chart", (1280, 820)),
    "tensorboard-pr": ("pr_curves", "vz-line-chart2 svg", (1280, 760)),
    "tensorboard-histograms": ("histograms", "vz-histogram-timeseries svg, tb-histogram svg", (1280, 760)),
    "tensorboard-projector": ("projector", "vz-projector canvas", (1280, 800)),
}


def browser_path() -> str | None:
    """Return the Chromium that is installed, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@contextlib.contextmanager
def tensorboard(runs: Path) -> Iterator[str]:
    """Start TensorBoard on a free port of this machine, and yield its address."""
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            for line in process.stderr:
                log.write(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    yield found[0]
                    return
            log.seek(0)
            raise RuntimeError(f"TensorBoard does not start: {log.read()[-300:]}")
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def page(size: tuple[int, int] = (1280, 800)) -> Iterator[Any]:
    """Yield a page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # root, and no GPU
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=arguments)
        try:
            view = browser.new_page(viewport={"width": size[0], "height": size[1]})
            view.set_default_timeout(WAIT)
            yield view
        finally:
            browser.close()
