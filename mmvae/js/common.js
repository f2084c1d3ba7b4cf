// What the explorer and the explorables share: elements, sliders, assets, pictures.

function h(tag, attributes = {}, ...children) {  // h("button", { class: "play", onclick: f }, "text", element)
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const signed = (value, digits = 2) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);

// A slider with its value, text(value); spoken: its name for a screen reader. mark(mean, sd) draws a Gaussian on it.
function slider({ name, spoken = name, min, max, step, value, text = signed, block, data, input, before = "" }) {
  const range = h("input", { type: "range", min, max, step, "aria-label": spoken, "data-slider": data });
  const output = h("output"), bar = h("i", { class: "mark" }), at = (v) => Math.max(0, Math.min(1, (v - min) / (max - min)));
  const element = h("div", { class: "dial", "data-block": block }, before, h("span", { class: "name" }, name),
    h("span", { class: "track" }, range, bar), output);
  const set = (value) => {  // beyond its ends too
    [range.min, range.max, range.value] = [Math.min(min, value), Math.max(max, value), value];
    output.textContent = text(value);
    range.setAttribute("aria-valuetext", text(value));
  };
  const mark = (mean, sd) => {
    bar.style.cssText = `--from:${at(mean - sd)};--to:${at(mean + sd)};--mean:${at(mean)}`;
    range.title = `posterior ${signed(mean)} \u00b1 ${sd.toFixed(2)}`;
  };
  range.addEventListener("input", () => { set(+range.value); input(+range.value); });
  set(value);
  return { element, range, set, mark };
}

function frame(el, ...children) {  // keys stay inside, so that arrows reach the sliders in JupyterLab too
  const status = h("p", { class: "status", role: "status" }), stay = (event) => event.stopPropagation();
  const root = h("div", { class: "mmvae", onkeydown: stay, onkeyup: stay }, ...children, status);
  el.append(root);
  return { root, say: (text) => { status.textContent = text; } };
}

const fetcher = (model) => (name) => new Promise((resolve, reject) => {  // an asset, from the kernel or the page's host
  model.on("msg:custom", ({ asset, error }, buffers) => {
    if (asset === name) error ? reject(Error(error)) : resolve(buffers[0]);
  });
  model.send({ need: name });
});

async function greys(url, width) {  // of an image file that holds a grid of images: a function (k) -> image k, in [0, 1]
  const file = h("img", { src: url });
  await file.decode();
  const canvas = h("canvas", { width: file.width, height: file.height }), columns = file.width / width;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(file, 0, 0);
  return (k) => {
    const { data } = context.getImageData((k % columns) * width, Math.floor(k / columns) * width, width, width);
    return Float32Array.from({ length: width * width }, (_, i) => data[4 * i] / 255);
  };
}

function paint(canvas, images, size) {  // images in [0, 1], as a square of squares
  const columns = Math.round(Math.sqrt(images.length)), side = columns * size;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const picture = new ImageData(side, side), words = new Uint32Array(picture.data.buffer);
  images.forEach((image, n) => {
    const corner = Math.floor(n / columns) * size * side + (n % columns) * size;
    for (let y = 0, i = 0; y < size; y++)
      for (let x = corner + y * side, end = x + size; x < end; x++, i++)
        words[x] = 0xff000000 | (Math.round(255 * image[i]) * 0x010101);
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
