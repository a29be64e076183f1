"""TensorBoard in a real browser: headless Chromium sees the charts, images and the projector of a run."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.screenshots import (
    browser_page,
    browser_path,
    dark,
    go_to,
    open_first_screen,
    open_hyperparameters,
    open_images,
    open_projector,
    tensorboard,
    wait_until,
)

pytest.importorskip("playwright", reason="playwright is not installed: make install")
pytestmark = pytest.mark.skipif(browser_path() is None, reason="no Chromium on the path, such as Debian's chromium")

REFERENCE = Path(__file__).parents[1] / "lightning_logs" / "reference"
BEFORE = "custom_scalars__config__"  # in the events of runs whose metrics have the names of `self.log`


@pytest.fixture(scope="module")
def small_runs(tmp_path_factory):
    """The folder of a small run with everything."""
    folder = tmp_path_factory.mktemp("runs")
    assert small.fit(folder, "--show", "all", "--trainer.max_epochs", "2", "--trainer.limit_val_batches", "4").code == 0
    return folder / "lightning_logs"


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=int)


def near(picture, colour):
    """Return how many pixels have about that colour."""
    return int((abs(pixels(picture) - colour).max(axis=-1) < 12).sum())


def has_values(chart):
    return all(f"/{split}\n" in chart.inner_text() for split in ("train", "val", "test"))


def has_two_lines(chart):
    colours = {tuple(pixel) for pixel in pixels(chart.locator("line-chart").screenshot()).reshape(-1, 3)}
    return len([colour for colour in colours if max(colour) - min(colour) > 100]) >= 2


def look(runs):
    """Look at all that the event files of one run say is there."""
    (run,) = runs.glob("**/version_*")
    tags = EventAccumulator(str(run)).Reload().Tags()
    with tensorboard(runs) as address, browser_page() as page:
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        charts = open_first_screen(page, address)
        if BEFORE not in tags["tensors"]:
            names = ["curves/accuracy", "curves/loss"]
            assert [text.replace("\n", "") for text in charts.locator("tb-truncated-path").all_inner_texts()] == names
            for chart in charts.all():
                wait_until(page, lambda chart=chart: has_values(chart), "the values of a chart")
                wait_until(page, lambda chart=chart: has_two_lines(chart), "two lines in a chart")
        if tags["images"]:
            pictures = open_images(page, address)
            wait_until(page, lambda: pictures.count() == len(tags["images"]), "all images")
            for i in range(pictures.count()):
                natural, drawn = pictures.nth(i).evaluate("image => [image.naturalWidth, image.clientWidth]")
                assert natural == drawn or BEFORE in tags["tensors"]  # legible where it opens
                pictures.nth(i).scroll_into_view_if_needed()
                wait_until(
                    page, lambda i=i: pixels(pictures.nth(i).screenshot()).std() > 10, "an image that is not blank"
                )
            for tag in tags["images"]:
                page.get_by_text(tag).first.wait_for()
        if (run / "projector_config.pbtxt").is_file():
            frame = open_projector(page, address)
            rows = next(run.glob("*/features/metadata.tsv")).read_text().splitlines()[1:]
            frame.get_by_text(re.compile(rf"Points: *{len(rows)}\b")).first.wait_for()
            canvas = frame.locator("canvas").first
            wait_until(page, lambda: dark(canvas.screenshot()) > 0.005, "the black of the little images")
        assert not problems


def test_a_run_with_everything(small_runs):
    look(small_runs)


def test_hyperparameters_that_differ_come_first(small_runs, tmp_path):
    runs = shutil.copytree(small_runs, tmp_path / "lightning_logs")
    other = ("--model.batch_norm", "false", "--trainer.max_epochs", "1", "--show", "none")
    assert small.fit(tmp_path, *other).code == 0
    with tensorboard(runs) as address, browser_page() as page:
        cells = open_hyperparameters(page, address)
    assert cells[:4] == ["Trial ID", "Show Metrics", "batch_norm", "max_epochs"]
    assert {"true", "false"} <= set(cells)


def test_the_text_is_there(small_runs):
    with tensorboard(small_runs) as address, browser_page() as page:
        go_to(page, address, "text")
        page.get_by_text("seed_everything: 0").first.wait_for()
        page.get_by_text("multiply-adds").first.wait_for()


def test_the_reference_run(tmp_path):
    look(shutil.copytree(REFERENCE, tmp_path / "reference"))
