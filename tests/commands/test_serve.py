"""`vgg-lightning serve`: the page in a real browser, and the server from outside."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import launch, one_line

from vgg_lightning import FashionMNISTDataModule, load_classifier
from vgg_lightning.serve.command import classify

pytest.importorskip("gradio")

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "lightning_logs/reference/version_0"
LIMIT = 60_000  # ms
LABEL = "[data-testid=label-output-value]"


def start():
    """Start the server on a free port; return process and address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vgg_lightning", "serve", "--ckpt_path", str(REFERENCE), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    return process, re.search(r"http://127\.0\.0\.1:\d+", line)[0]


def stop(process, signum=signal.SIGTERM):
    process.send_signal(signum)
    try:
        return process.communicate(timeout=300)
    finally:
        process.kill()


@pytest.fixture(scope="module")
def server():
    """The address; at the end the server was quiet, and SIGTERM ends it in order."""
    process, address = start()
    yield address
    _, err = stop(process)
    assert process.returncode == 143
    assert err == "stopped by SIGTERM\n"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """The page, opened; at the end it has asked nobody but the server, and the browser saw no error."""
    page = browser.new_page(viewport={"width": 1000, "height": 720})
    page.set_default_timeout(LIMIT)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(server)
    page.wait_for_selector("input[type=file]", state="attached")
    yield page
    page.close()
    outside = [url for url in asked if not url.startswith((server, "data:", "blob:"))]
    assert not outside
    assert not errors


def test_a_picture_that_is_dropped_gets_its_class(page, tmp_path, fashion_mnist_dir):
    images, labels = FashionMNISTDataModule().pictures("test")
    file = tmp_path / "shop.jpg"
    sheet = Image.new("RGB", (500, 400), "white")
    sheet.paste(Image.fromarray(255 - images[2, 0].numpy()).resize((320, 320)).convert("RGB"), (90, 40))
    sheet.save(file)
    page.set_input_files("input[type=file]", file)
    page.wait_for_selector(LABEL)
    assert page.inner_text(LABEL).strip() == FashionMNISTDataModule.class_names[labels[2]] == "trouser"
    page.wait_for_selector("#seen img")
    assert page.evaluate("document.querySelector('#seen img').naturalWidth") == 28 * 8
    assert not page.is_visible("#note")


def test_a_drawing_gets_its_class_until_it_is_cleared(page):
    page.get_by_role("tab", name="Draw one").click()
    canvas = page.locator("canvas")
    canvas.wait_for()
    draw_two_legs(page, canvas.bounding_box())
    page.locator(LABEL, has_text="trouser").wait_for()
    page.wait_for_selector("#seen img")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Clear").and_(page.locator(":enabled")).click()
    page.locator(LABEL).wait_for(state="detached")
    assert page.get_by_role("button", name="Undo").is_disabled()


def draw_two_legs(page, box):
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for dx in (-24, 24):
        page.mouse.move(x + dx, y - 80)
        page.mouse.down()
        page.mouse.move(x + dx, y + 80, steps=10)
        page.mouse.up()


def test_a_tab_shows_the_answer_for_its_own_picture(page, tmp_path):
    file = tmp_path / "square.png"
    Image.fromarray(np.pad(np.full((80, 80), 255, np.uint8), 20)).save(file)
    page.set_input_files("input[type=file]", file)
    page.wait_for_selector(LABEL)
    page.get_by_role("tab", name="Draw one").click()
    page.locator(LABEL).wait_for(state="detached")
    page.get_by_role("tab", name="Drop a picture").click()
    page.wait_for_selector(LABEL)


def test_what_is_no_picture_gets_one_line(page, tmp_path):
    file = tmp_path / "bad.png"
    file.write_bytes(b"<script>alert(1)</script>")
    page.set_input_files("input[type=file]", file)
    page.wait_for_selector("#note textarea")
    assert page.input_value("#note textarea").startswith("it is no picture of a format")
    assert page.locator(LABEL).count() == 0 or not page.inner_text(LABEL).strip()


def get(address, path="/", **headers):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer


def test_it_answers_this_machine_only(server):
    answer = get(server)
    assert answer.status == 200
    assert "default-src 'self'" in answer.getheader("content-security-policy")
    assert get(server, Host="elsewhere.example").status == 400
    for file in ("/etc/hostname", ROOT / "README.md"):
        assert get(server, f"/gradio_api/file={file}").status in (403, 404)


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
@pytest.mark.parametrize("page_part", ["answer", "answer_1"])
def test_a_call_made_by_hand_opens_no_file_and_no_address(server, tmp_path, page_part, meta):
    file = tmp_path / "private.png"
    Image.new("L", (60, 60)).save(file)
    for path in (str(file), "http://127.0.0.1:9/private.png", "data:image/png;base64,A", "a\0b"):
        assert "it is no picture of a format" in call(server, page_part, {"path": path, **meta})


def call(address, name, value):
    """Return what a part of the page answers to a value."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    route = f"/gradio_api/call/{name}"
    connection.request("POST", route, json.dumps({"data": [value]}), {"Content-Type": "application/json"})
    event = json.load(connection.getresponse())["event_id"]
    connection.request("GET", f"{route}/{event}")
    return connection.getresponse().read().decode()


def test_a_large_upload_is_refused(server):
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=30)
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + b"\0" * 101_000_000
    try:
        connection.request("POST", "/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it did not even read to the end


@pytest.mark.parametrize("taken", [True, False])
def test_a_port_that_cannot_be_had_is_one_line(tmp_path, taken):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1]) if taken else "70000"
        launched = launch(["serve", "--ckpt_path", str(REFERENCE), "--port", port], tmp_path)
    assert launched.code == 2
    assert f"--port {port}" in one_line(launched)


@pytest.mark.parametrize(
    ("args", "word"),
    [([], "--ckpt_path"), (["--ckpt_path", "nowhere"], "nowhere"), (["--ckpt_path", "x", "--share"], "--share")],
)
def test_other_mistakes(tmp_path, args, word):
    launched = launch(["serve", "--port", "0", *args], tmp_path)
    assert launched.code == 2
    assert word in one_line(launched)


def test_a_drawing_may_be_black_on_white_white_on_black_or_on_nothing():

    shape = np.zeros((200, 200), np.uint8)
    shape[20:180, 60:95] = shape[20:180, 105:140] = shape[20:50, 60:140] = 255
    clear = np.zeros((200, 200, 4), np.uint8)
    clear[..., 3] = shape
    white = clear.copy()
    white[..., :3] = 255
    classifier, answers = load_classifier(REFERENCE), set()
    for pixels in (shape, 255 - shape, clear, white):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        classes, _ = classify(classifier, buffer.getvalue())
        answers.add(max(classes, key=classes.get))
    assert answers == {"trouser"}
