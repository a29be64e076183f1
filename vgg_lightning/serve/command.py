"""`vgg-lightning serve`: a local page that classifies an image you drop or draw.

The page comes from Gradio, with all of its ways to the outside shut: no analytics, no share link, no fonts or scripts
from elsewhere. What the browser sends is read by the code that reads files for `predict`, not by Gradio's.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.text import install_line, printable
from vgg_lightning.cli.network_arguments import Parser
from vgg_lightning.data.images.decode import MOST_BYTES
from vgg_lightning.data.options import CLASSES
from vgg_lightning.serve.gradio_private import take_as_sent
from vgg_lightning.serve.guard import Guard
from vgg_lightning.serve.uploads import Uploads

if TYPE_CHECKING:
    from vgg_lightning.classifier import Classifier

LOCAL = ("127.0.0.1", "localhost", "::1")
ENLARGED = 8  # times, so that 28 x 28 pixels can be seen
MOST_NAMED = 12  # classes
ONE_AT_A_TIME = threading.Lock()  # layer_cam listens to the network, whoever asks it
HELLO = """## What is it?
Drop an image of one {thing} on a plain background, or draw its shape and fill it."""
CANVAS = """<canvas width="336" height="336" aria-label="Draw here with the mouse or a finger"></canvas>
<div><button disabled>Undo</button> <button disabled>Clear</button></div>"""
CANVAS_STYLE = """
canvas {width: 100%; max-width: 336px; display: block; margin: 0 auto 8px; touch-action: none; cursor: crosshair;
        border: 1px solid var(--border-color-primary); border-radius: 4px}
div {text-align: center}
button {padding: 4px 16px; border: 1px solid var(--border-color-primary); border-radius: 4px; cursor: pointer;
        color: var(--body-text-color)}
button:disabled {opacity: 0.4; cursor: default}
"""
PAGE_STYLE = """
.gradio-container {width: 100%; max-width: 960px !important; margin: auto}
#seen img {image-rendering: pixelated}
"""


class Answer(NamedTuple):
    """What the page shows of an image.

    Attributes:
        classes: the probability of each.
        seen: the image as the network sees it.
        looked: the same under the heat of what speaks for the most probable class.
    """

    classes: dict[str, float]
    seen: Image.Image
    looked: Image.Image


def main(args: list[str]) -> int:
    """Serve a page on which a checkpoint classifies images, until Ctrl-C or SIGTERM."""
    parser = Parser("serve", main.__doc__ or "")
    parser.add_argument(
        "--ckpt_path", required=True, metavar="FILE_OR_RUN_FOLDER", help="checkpoint whose weights to use"
    )
    parser.add_argument("--host", default=LOCAL[0], help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s; 0 selects a free one)")
    options = parser.parse_args(args)
    from vgg_lightning.classifier import load_classifier

    with _listening(options.host, options.port) as listener, tempfile.TemporaryDirectory() as folder:
        classifier = load_classifier(options.ckpt_path)
        uploads: Uploads[Answer] = Uploads(Path(folder).resolve())
        app = application(classifier, uploads, _hosts(options.host))
        _serve(app, listener, options.host, uploads)
    return 0


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Take the port before anything else is done."""
    if not host.strip():
        raise UserError(f"--host is empty: name the address to listen at, such as {LOCAL[0]}; 0.0.0.0 is all of them")
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} is out of range: it takes 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen at --host {host} --port {port}: {reason}; choose another port") from error
    with listener:
        yield listener


def _hosts(host: str) -> list[str]:
    """Return the names under which a browser may ask, so that no page from elsewhere passes for this one."""
    return ["127.0.0.1", "localhost", "[::1]"] if host in LOCAL else ["*"]


def _serve(app: Any, listener: socket.socket, host: str, uploads: Uploads[Answer]) -> None:
    """Serve in a thread of its own: signals come to this one, which ends the other in order and tidies up."""
    import uvicorn

    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        print(f"open http://{shown}:{listener.getsockname()[1]} in the browser; Ctrl-C ends this", flush=True)
        while thread.is_alive():
            thread.join(0.5)
            uploads.tidy()
    finally:
        server.should_exit = True
        thread.join(5)


def application(classifier: Classifier, uploads: Uploads[Answer], hosts: list[str]) -> Any:
    """Return the page as an application (ASGI).

    Args:
        classifier: what answers.
        uploads: for what the browser uploads.
        hosts: names under which the page may be asked for; "*" is any.

    Raises:
        UserError: if Gradio is not installed.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(uploads.folder)}
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError(f"serve needs the package gradio: {install_line('serve')}") from error
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    Image.MAX_IMAGE_PIXELS = 64_000_000  # for what Gradio itself may open
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app, _page(gr, classifier, uploads), "/", footer_links=[], run_history=False, show_error=False,
        max_file_size=MOST_BYTES, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=PAGE_STYLE,
    )  # fmt: skip
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    return Guard(app)


def _page(gr: Any, classifier: Classifier, uploads: Uploads[Answer]) -> Any:
    with gr.Blocks(title="What is it?", analytics_enabled=False) as page:
        gr.Markdown(hello(classifier.class_names))
        with gr.Row():
            with gr.Column():
                with gr.Tab("Drop an image") as drop:
                    dropped = gr.Image(sources=["upload", "clipboard"], show_label=False, height=400, buttons=[])
                with gr.Tab("Draw one") as draw:
                    drawn = gr.HTML(
                        html_template=CANVAS, css_template=CANVAS_STYLE, js_on_load=_sketch(), apply_default_css=False
                    )
            with gr.Column():
                label = gr.Label(label="classes", num_top_classes=5)
                note = gr.Textbox(label="note", visible=False, elem_id="note")
                with gr.Row():
                    shown = {"height": 230, "min_width": 140, "interactive": False, "buttons": []}
                    seen = gr.Image(label="what the network sees", elem_id="seen", **shown)
                    looked = gr.Image(label="where it looked (bright)", elem_id="looked", **shown)
        for tab, component, sent in ((drop, dropped, _upload(uploads.folder)), (draw, drawn, _drawing)):
            take_as_sent(component, sent)
            gr.on(
                [component.change, tab.select], _answer(gr, classifier, uploads), component,
                [label, seen, looked, note],
                trigger_mode="always_last", show_progress="hidden",
            )  # fmt: skip
    return page


def hello(class_names: Sequence[str]) -> str:
    """Return the text at the top of the page, in Markdown: what the classes are that the network knows."""
    if tuple(class_names) == CLASSES:
        return HELLO.format(thing="piece of clothing")
    names = [re.sub(r"([^\w\s])", r"\\\1", printable(name)) for name in class_names[:MOST_NAMED]]
    more = f" and {len(class_names) - MOST_NAMED} more" if len(class_names) > MOST_NAMED else ""
    return f"{HELLO.format(thing='thing')}\n\nIt knows {len(class_names)} classes: {', '.join(names)}{more}."


def _sketch() -> str:
    return Path(__file__).with_name("sketch.js").read_text(encoding="utf-8")


def _upload(folder: Path) -> Callable[[Any], str | bytes | None]:
    """Return what takes the path out of what the browser sends; a path to other than uploads is no image."""

    def preprocess(payload: Any) -> str | bytes | None:
        if not payload or not payload.path:
            return None
        try:
            path = Path(os.path.realpath(payload.path))
        except ValueError:
            return b""
        return str(path) if path.is_relative_to(folder) else b""

    return preprocess


def _drawing(payload: Any) -> bytes | None:
    """Return the file in what the canvas sends, a data URL; without strokes nothing, and of nonsense no image."""
    if not payload:
        return None
    try:
        return base64.b64decode(str(payload).partition(",")[2])
    except ValueError:
        return b""


def _answer(
    gr: Any, classifier: Classifier, uploads: Uploads[Answer]
) -> Callable[[str | bytes | None], tuple[Any, Any, Any, Any]]:
    """Return what fills the right side of the page."""

    def answer(picture: str | bytes | None) -> tuple[Any, Any, Any, Any]:
        if picture is None:
            return None, None, None, gr.update(visible=False)
        try:
            if isinstance(picture, str):
                found = uploads.answer(picture, lambda path: classify(classifier, path))
            else:
                found = classify(classifier, picture)
        except UserError as error:
            return None, None, None, gr.update(value=getattr(error, "reason", str(error)), visible=True)
        return *found, gr.update(visible=False)

    return answer


def classify(classifier: Classifier, picture: str | bytes) -> Answer:
    """Return the probability of every class, the image as the network sees it, and where it looked, enlarged.

    Raises:
        UnreadablePictureError: a UserError with the reason.
    """
    from vgg_lightning.data.images.decode import to_uint8
    from vgg_lightning.show.gradcam import layer_cam, overlay

    pixels = to_uint8(picture)
    with ONE_AT_A_TIME:
        probabilities = classifier.predict(pixels).probabilities[0].tolist()
        _, heat = layer_cam(classifier, classifier.preprocess(pixels.to(classifier.device)))
    values = pixels[0, 0].numpy()
    image = Image.fromarray(values)
    size = (image.width * ENLARGED, image.height * ENLARGED)
    names = map(printable, classifier.class_names)
    classes = dict(zip(names, probabilities, strict=True))
    return Answer(classes, image.resize(size, Image.Resampling.NEAREST), overlay(values, heat[0].numpy(), size[0]))
