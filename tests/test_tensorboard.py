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
    open_curves,
    open_images,
    open_projector,
    tensorboard,
)

pytest.importorskip("playwright", reason="playwright is not installed: make install")
pytestmark = pytest.mark.skipif(browser_path() is None, reason="no Chromium on the path, such as Debian's chromium")

REFERENCE = Path(__file__).parents[1] / "lightning_logs" / "reference"
ORANGE = (255, 112, 67)  # in which TensorBoard draws the first run


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


def look(runs):
    """Look at all that the event files of one run say is there."""
    (run,) = runs.glob("**/version_*")
    tags = EventAccumulator(str(run)).Reload().Tags()
    with tensorboard(runs) as address, browser_page() as page:
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        if "custom_scalars__config__" in tags["tensors"]:
            charts = open_curves(page, address)
            assert charts.count() >= 2
            for i in range(2):  # loss and accuracy, of training and validation
                assert near(charts.nth(i).screenshot(), ORANGE) > 100
            assert page.get_by_text("Matches (2)").count() >= 2
        else:
            page.goto(f"{address}#scalars")
            page.locator("vz-line-chart2").first.wait_for()
        if tags["images"]:
            pictures = open_images(page, address)
            assert pictures.count() == len(tags["images"])
            for i in range(pictures.count()):
                assert pictures.nth(i).evaluate("image => image.naturalWidth") > 300
                pictures.nth(i).scroll_into_view_if_needed()
                assert pixels(pictures.nth(i).screenshot()).std() > 10  # not blank
            for tag in tags["images"]:
                assert page.get_by_text(tag).count()
        if (run / "projector_config.pbtxt").is_file():
            frame = open_projector(page, address)
            rows = next(run.glob("*/features/metadata.tsv")).read_text().splitlines()[1:]
            assert frame.get_by_text(re.compile(rf"Points: *{len(rows)}\b")).count()
            assert dark(frame.locator("canvas").first.screenshot()) > 0.005  # the black of the little images
        assert not problems


def test_a_run_with_everything(small_runs):
    look(small_runs)


def test_the_reference_run(tmp_path):
    look(shutil.copytree(REFERENCE, tmp_path / "reference"))
