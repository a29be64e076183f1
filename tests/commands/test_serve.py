"""`vgg-lightning serve`: the page in a real browser, and the server from outside."""

import contextlib
import functools
import http.client
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import launch, one_line

from vgg_lightning import FashionMNISTDataModule, load_classifier
from vgg_lightning.serve.command import classify
from vgg_lightning.serve.uploads import UNUSED, Uploads

pytest.importorskip("gradio")

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "lightning_logs/reference/version_0"
LIMIT = 60_000  # ms
LABEL = "[data-testid=label-output-value]"


def start(folder="/tmp"):
    """Start the server on a free port, with its temporary files in `folder`; return process and address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vgg_lightning", "serve", "--ckpt_path", str(REFERENCE), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
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
def temporary(tmp_path_factory):
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(temporary):
    """The address; at the end the server was quiet, and SIGTERM ends it in order and leaves no file."""
    process, address = start(temporary)
    yield address
    _, err = stop(process)
    assert process.returncode == 143
    assert err == "stopped by SIGTERM\n"
    assert not list(temporary.iterdir())


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
    images, labels = FashionMNISTDataModule().images("test")
    file = tmp_path / "shop.jpg"
    sheet = Image.new("RGB", (500, 400), "white")
    sheet.paste(Image.fromarray(255 - images[2, 0].numpy()).resize((320, 320)).convert("RGB"), (90, 40))
    sheet.save(file)
    page.set_input_files("input[type=file]", file)
    page.wait_for_selector(LABEL)
    assert FashionMNISTDataModule.class_names[labels[2]] == "trouser"
    page.locator(LABEL, has_text="trouser").wait_for()
    page.wait_for_function("document.querySelector('#seen img')?.naturalWidth == 28 * 8")
    page.wait_for_function("document.querySelector('#looked img')?.naturalWidth == 28 * 8")
    page.wait_for_function("document.querySelectorAll('.confidence-set').length == 5")  # the next classes stand below
    assert not page.is_visible("#note")


def test_an_empty_image_is_named(page, tmp_path):
    Image.new("RGB", (300, 300), "white").save(tmp_path / "paper.png")
    page.set_input_files("input[type=file]", tmp_path / "paper.png")
    page.wait_for_selector("#note textarea")
    note = "document.querySelector('#note textarea')?.value"
    page.wait_for_function(note + "?.includes('it is empty: nothing in it differs from its background')")
    assert not page.locator(LABEL).count()


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
    page.get_by_role("tab", name="Drop an image").click()
    page.wait_for_selector(LABEL)


def test_what_is_no_picture_gets_one_line(page, tmp_path):
    file = tmp_path / "bad.png"
    file.write_bytes(b"<script>alert(1)</script>")
    page.set_input_files("input[type=file]", file)
    page.wait_for_selector("#note textarea")
    note = "document.querySelector('#note textarea')?.value"
    page.wait_for_function(note + "?.startsWith('it is not an image in a supported format')")
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
        assert "it is not an image in a supported format" in call(server, page_part, {"path": path, **meta})


def call(address, name, value):
    """Return what a part of the page answers to a value."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    route = f"/gradio_api/call/{name}"
    connection.request("POST", route, json.dumps({"data": [value]}), {"Content-Type": "application/json"})
    event = json.load(connection.getresponse())["event_id"]
    connection.request("GET", f"{route}/{event}")
    return connection.getresponse().read().decode()


def bytes_in(folder):
    """Count the bytes of the files in a folder, while its server may remove one."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def post(address, path, body, **headers):
    """Send a request as a program does; return status and text of the answer."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("POST", path, body, headers, encode_chunked="Transfer-Encoding" in headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def upload(address, content, **headers):
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    return post(address, "/gradio_api/upload", body, **{"Content-Type": "multipart/form-data; boundary=x", **headers})


def eventually(true, seconds=20):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.2)
    return true()


ELSEWHERE = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},  # another port of this machine
]


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_another_page_can_send_nothing_and_read_nothing(server, temporary, headers):
    before = bytes_in(temporary)
    assert upload(server, b"0" * 3_000_000, **headers)[0] == 403
    assert post(server, "/gradio_api/call/answer", b'{"data": [null]}', **headers)[0] == 403
    assert bytes_in(temporary) <= before
    answer = get(server, "/config", **headers)
    assert answer.status == 403
    assert answer.getheader("Access-Control-Allow-Origin") is None


def test_a_link_on_another_page_opens_this_one(server):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert get(server, **link).status == 200
    assert post(server, "/gradio_api/upload", b"", **link)[0] == 403


def test_its_own_page_and_programs_are_answered(server):
    for headers in ({}, {"Origin": server, "Sec-Fetch-Site": "same-origin"}):
        assert upload(server, b"0" * 1000, **headers)[0] == 200


ATTACK = """
async (address) => {
  const form = new FormData();
  form.append("files", new Blob([new Uint8Array(2000000)]), "a.png");
  const said = [];
  for (const [path, options] of [
    ["/config", {}],
    ["/gradio_api/upload", {method: "POST", body: form}],
    ["/gradio_api/upload", {method: "POST", body: form, mode: "no-cors"}],
    ["/gradio_api/queue/join", {method: "POST", body: "x".repeat(1000000), mode: "no-cors"}],
  ]) {
    try { const answer = await fetch(address + path, options); said.push(answer.type + answer.status); }
    catch (error) { said.push("refused"); }
  }
  return said;
}
"""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_in_a_real_browser_a_page_of_another_port_gets_nowhere(browser, server, temporary, tmp_path, host):
    (tmp_path / "index.html").write_text("<p>another page</p>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        page, before = browser.new_page(), bytes_in(temporary)
        page.goto(f"http://{host}:{other.server_address[1]}")
        said = page.evaluate(ATTACK, server.replace("127.0.0.1", host))
        page.close()
        other.shutdown()
    assert said == ["refused", "refused", "opaque0", "opaque0"]
    assert bytes_in(temporary) <= before


def in_chunks(size):
    yield from (b"x" * 1_000_000 for _ in range(size // 1_000_000))


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/call/answer_1"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_that_is_too_large_is_not_held_in_memory(server, path, chunked):
    headers = {"Content-Type": "application/json"} | ({"Transfer-Encoding": "chunked"} if chunked else {})
    body = in_chunks(60_000_000) if chunked else b"x" * 60_000_000
    assert post(server, path, body, **headers) == (413, b'{"detail": "this is too large"}')


def test_an_upload_without_a_length_is_cut_off(server, temporary):
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Transfer-Encoding": "chunked"}
    start = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = (part for chunks in ([start], in_chunks(130_000_000)) for part in chunks)
    assert post(server, "/gradio_api/upload", body, **headers)[0] == 413
    assert bytes_in(temporary) < 2 * 101_000_000


def test_what_is_not_understood_is_not_sent_back(server):
    status, text = post(server, "/gradio_api/queue/join", b'{"secret": "' + b"s" * 10_000 + b'"}')
    assert status == 422
    assert len(text) < 100


def test_nothing_describes_the_server(server):
    for path in ("/openapi.json", "/docs", "/redoc"):
        assert get(server, path).status == 404


def test_an_upload_is_gone_after_its_answer(server, temporary, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.pad(np.full((81, 81), 255, np.uint8), 20)).save(buffer, "PNG")
    status, text = upload(server, buffer.getvalue())
    (path,) = json.loads(text)
    assert status == 200
    assert Path(path).is_file()
    answer = call(server, "answer", {"path": path, "meta": {"_type": "gradio.FileData"}})
    assert "confidences" in answer
    assert eventually(lambda: not Path(path).exists())
    assert "confidences" in call(server, "answer", {"path": path, "meta": {"_type": "gradio.FileData"}})


def test_uploads_that_nobody_asks_for_do_not_fill_the_disk(tmp_path):
    uploads = Uploads(tmp_path)
    for number, age in (("old", UNUSED + 1), ("new", 0), ("large", 5), ("too much", 10)):
        file = tmp_path / number / "a.png"
        file.parent.mkdir()
        file.touch()
        os.truncate(file, 150_000_000 if number in ("large", "too much") else 10)
        os.utime(file, (time.time() - age,) * 2)
    uploads.tidy()
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["large", "new"]


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


@pytest.mark.parametrize("host", ["", " "])
def test_an_empty_host_is_not_the_whole_network(tmp_path, host):
    launched = launch(["serve", "--ckpt_path", str(REFERENCE), "--host", host, "--port", "0"], tmp_path)
    assert launched.code == 2
    assert "--host is empty" in one_line(launched)


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
        classes, *_ = classify(classifier, buffer.getvalue())
        answers.add(max(classes, key=classes.get))
    assert answers == {"trouser"}
