"""Take the images of TensorBoard in docs/ with a real browser: `python -m benchmarks.screenshots [RUNS]`.

RUNS is a folder with runs made with `--show all`, by default lightning_logs/reference. It needs Chromium on the path.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # for root, and without a GPU
WAIT = 180_000  # milliseconds that TensorBoard may take to show something, on a busy machine
COLOURS = 256  # in a stored image
DRAWINGS = (
    "confusion",
    "classes_recall",
    "mistakes",
    "gradcam",
    "first_layer",
    "reliability",
)  # what the callbacks draw


def browser_path() -> str | None:
    """Return the Chromium that is installed, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@contextlib.contextmanager
def tensorboard(runs: Path) -> Iterator[str]:
    """Start TensorBoard on a free port of this machine, and yield its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", runs.name, "--host", "127.0.0.1", "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=runs.parent, stdout=log, stderr=log)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: IO[str]) -> str:
    """Return what TensorBoard prints once it listens."""
    end = time.monotonic() + WAIT / 1000
    while time.monotonic() < end and process.poll() is None:
        log.seek(0)
        if found := re.search(r"http://127\.0\.0\.1:\d+/", log.read()):
            return found[0]
        time.sleep(0.3)
    log.seek(0)
    raise RuntimeError(f"TensorBoard does not start: {log.read()[-300:]}")


@contextlib.contextmanager
def browser_page(width: int = 1280, height: int = 800) -> Iterator[Any]:
    """Yield a page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(WAIT)
            yield page
        finally:
            browser.close()


def go_to(page: Any, address: str, tab: str, width: int = 1280, height: int = 800) -> None:
    """Open a tab of TensorBoard anew."""
    page.set_viewport_size({"width": width, "height": height})
    page.goto("about:blank")
    page.goto(f"{address}#{tab}")


def wait_until(page: Any, holds: Callable[[], bool], what: str) -> None:
    """Wait until the page shows something that no selector can ask for.

    Raises:
        TimeoutError: it does not come.
    """
    end = time.monotonic() + WAIT / 1000
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"TensorBoard does not show {what}")
        page.wait_for_timeout(1000)


def wait_until_still(page: Any) -> None:
    """Wait until the page looks the same for two seconds."""
    seen: list[bytes] = [b"", b"", b""]

    def still() -> bool:
        seen[:] = [*seen[1:], page.screenshot()]
        return len(set(seen)) == 1

    wait_until(page, still, "a page that keeps still")


def open_first_screen(page: Any, address: str) -> Any:
    """Open TensorBoard as a user does, and return the charts of the first group once their lines are drawn."""
    go_to(page, address, "", height=860)
    charts = page.locator("metrics-card-groups metrics-card-grid").first.locator("scalar-card-component")
    charts.first.locator("line-chart").wait_for()
    wait_until_still(page)
    return charts


def open_hyperparameters(page: Any, address: str) -> list[str]:
    """Open the tab HPARAMS, and return the cells of its table, its headings first."""
    go_to(page, address, "hparams")
    cells = page.locator("vaadin-grid-cell-content")
    wait_until(page, lambda: "Trial ID" in cells.all_inner_texts(), "the table of hyperparameters")
    wait_until_still(page)
    return [text for text in cells.all_inner_texts() if text]


def open_images(page: Any, address: str) -> Any:
    """Open the tab IMAGES as it opens, and return its images once they are loaded."""
    go_to(page, address, "images", width=1440, height=1760)
    pictures = page.locator("tf-image-loader img")
    pictures.first.wait_for()
    widths = "found => found.map(image => image.complete ? image.naturalWidth : 0)"
    wait_until(page, lambda: all(pictures.evaluate_all(widths)), "all images")
    wait_until_still(page)
    return pictures


def open_projector(page: Any, address: str) -> Any:
    """Open the tab PROJECTOR, and return its frame once the cloud is drawn, which turns for ever."""
    go_to(page, address, "projector", width=1600, height=900)
    frame = page.frame_locator("iframe").frame_locator("iframe")  # that of the plugin, and in it the projector's page
    canvas = frame.locator("canvas").first
    canvas.wait_for()
    frame.get_by_text(re.compile("Points: *[1-9]")).first.wait_for()
    wait_until(page, lambda: dark(canvas.screenshot()) > 0.005, "the cloud")  # the black of the little images
    return frame


def dark(picture: bytes) -> float:
    """Return which share of a PNG is nearly black."""
    grey = Image.open(io.BytesIO(picture)).convert("L")
    return sum(grey.histogram()[:40]) / (grey.width * grey.height)


def _take(page: Any, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    file = DOCS / f"{name}.png"
    picture.quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


def take_screenshots(runs: Path) -> None:
    """Take the images of TensorBoard's tabs."""
    with tensorboard(runs) as address, browser_page() as page:
        open_first_screen(page, address)
        _take(page, "tensorboard")
        open_images(page, address)
        _take(page, "tensorboard-images")
        open_projector(page, address)
        _take(page, "tensorboard-projector")
        go_to(page, address, "pr_curves", width=1600, height=720)
        page.locator("tf-pr-curve-card vz-line-chart2").first.wait_for()
        wait_until_still(page)
        _take(page, "tensorboard-curves")
        go_to(page, address, "histograms", width=1600, height=720)
        page.locator("vz-histogram-timeseries").first.wait_for()
        wait_until_still(page)
        _take(page, "tensorboard-histograms")


def save_drawings(run: Path) -> None:
    """Copy the newest image of each kind out of the event files of a run."""
    events = EventAccumulator(str(run)).Reload()
    for name in DRAWINGS:
        (DOCS / f"{name}.png").write_bytes(events.Images(f"val_pictures/{name}")[-1].encoded_image_string)


def main(args: list[str]) -> None:
    """Take all images from the runs below a folder; the drawings are those of the first run."""
    runs = Path(args[0]) if args else ROOT / "lightning_logs" / "reference"
    if browser_path() is None:
        raise SystemExit("error: no Chromium on the path: install one, such as Debian's package chromium")
    save_drawings(next(iter(sorted(runs.glob("**/version_*")))))
    take_screenshots(runs)


if __name__ == "__main__":
    main(sys.argv[1:])
