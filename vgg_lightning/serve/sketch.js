// A canvas to draw on that needs no WebGL. Gradio runs this once with `element`, the part of the page, and `props`.
const canvas = element.querySelector("canvas");
const [undo, clear] = element.querySelectorAll("button");
const pen = canvas.getContext("2d");
const strokes = [];  // each a list of points; the last one may still grow

function paint() {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.lineWidth = 24;
  pen.lineCap = pen.lineJoin = "round";
  for (const stroke of strokes) {
    pen.beginPath();
    stroke.forEach(([x, y]) => pen.lineTo(x, y));
    pen.stroke();
  }
}

function send() {
  paint();
  undo.disabled = clear.disabled = !strokes.length;
  props.value = strokes.length ? canvas.toDataURL("image/png") : "";
}

function point(event) {
  const scale = canvas.width / canvas.clientWidth;
  return [event.offsetX * scale, event.offsetY * scale];
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  canvas.setPointerCapture(event.pointerId);
  strokes.push([point(event), point(event)]);  // twice, so that a tap leaves a dot
  paint();
});
canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  strokes.at(-1).push(point(event));
  paint();
});
canvas.addEventListener("lostpointercapture", send);
undo.addEventListener("click", () => { strokes.pop(); send(); });
clear.addEventListener("click", () => { strokes.length = 0; send(); });
paint();
