// A picture of the reader's own: drawn, or loaded, cropped and scaled here; nothing of it leaves the page. mmvae/show/known.py is
// its Python half: how far it is from its reconstruction, beside how far the pictures are that the model has not learnt from.

const LEAST = 1e-6;

function distance(unit, x, mean) {  // nats above the floor, or the root mean square of the difference
  let sum = 0;
  for (let i = 0; i < x.length; i++) {
    const p = within(LEAST, 1 - LEAST, mean[i]);
    if (unit === "nats") sum += (x[i] > 0 ? x[i] * Math.log(x[i] / p) : 0) + (x[i] < 1 ? (1 - x[i]) * Math.log((1 - x[i]) / (1 - p)) : 0);
    else sum += (x[i] - mean[i]) ** 2;
  }
  return unit === "nats" ? sum : Math.sqrt(sum / x.length);
}

function share(at, value) {  // of what lies nearer, from quantiles: 0 to 1
  const above = at.findIndex((v) => v >= value);
  if (above < 1) return above < 0 ? 1 : 0;
  return (above - 1 + (value - at[above - 1]) / (at[above] - at[above - 1])) / (at.length - 1);
}

function verdict(far, { unit, n, at }, of) {  // in words. of: whose pictures they are
  const brief = (v) => (unit ? `${Math.round(v)}` : v.toPrecision(2)), below = share(at, far), range = `${brief(at[0])} to ${brief(at.at(-1))}`;
  const said = unit ? `It is rebuilt ${brief(far)} nats above the floor` : `It is rebuilt with an error of ${brief(far)} (root mean square)`;
  const rank = below === 1 ? `worse than all ${n}` : below === 0 ? `better than all ${n}` : `worse than ${Math.round(100 * below)}\u00a0% of the ${n}`;
  return `${said}, ${rank} ${of} (${range}).` + (below === 1 ? " The model knows nothing like it." : "");
}

// places: names of the modalities it can stand for. views: theirs. given(m): the numbers to begin with. changed(m, numbers): it has
// been drawn on. { element, open(), numbers }
function drawing({ places, views, given, changed, x, far }) {
  const picks = places.map((m) => h("button", { type: "button", "aria-pressed": m === places[0], onclick: () => { at = m; open(); } }, `as x ${m}`));
  const pad = h("canvas", { class: "pad", role: "img", "aria-label": "yours: draw here" }), picker = h("input", { type: "file", accept: "image/*", "aria-label": "load a picture" });
  const note = h("p", { class: "why" }, "Draw on it, or load a picture: it stays in this page, nothing is sent.");
  let at = places[0], values, bitmap, last, queued, grey = 1, brush = 2;
  const of = () => views[at];
  const dial = (name, rest, input) => slider({ name, data: `own ${name}`, ...rest, input });
  const pens = [dial("grey", { min: 0, max: 100, step: 5, value: 100, text: (v) => `${v}\u00a0%` }, (v) => { grey = v / 100; }),
    dial("brush", { min: 1, max: 12, step: 1, value: 2, text: (v) => `${v} px` }, (v) => { brush = v; })];
  const where = { zoom: 1, across: 0, down: 0 };
  const crops = Object.keys(where).map((name) => dial(name, { min: name === "zoom" ? 1 : -1, max: name === "zoom" ? 4 : 1, step: 0.05, value: where[name],
    text: (v) => (name === "zoom" ? `${v.toFixed(2)}\u00d7` : signed(v)) }, (v) => { where[name] = v; crop(); }));
  const frame_ = h("div", { hidden: "" }, ...crops.map((row) => row.element)), button = (name, onclick) => h("button", { type: "button", onclick }, name);
  const element = h("div", { class: "own", hidden: "" }, h("p", { class: "head" }, "Your own"), pad, far, note,
    h("div", { class: "bar" }, ...(places.length > 1 ? picks : []), h("label", { class: "load" }, "load a picture", picker),
      button("the given one", () => open()), button("empty", () => fill(values.map(() => of().low)))),
    ...pens.map((row) => row.element), frame_);

  function fill(numbers) {
    values = Float32Array.from(numbers);
    [bitmap, frame_.hidden] = [null, true];
    told();
  }
  function told() {  // once a frame
    paint(pad, [values], of());
    pad.setAttribute("aria-label", `${x(at)}, yours: draw here`);
    picks.forEach((pick, i) => pick.setAttribute("aria-pressed", places[i] === at));
    queued ??= requestAnimationFrame(() => { queued = null; changed(at, values); });
  }
  async function open() { fill(await given(at)); }

  function stamp(px, py) {  // a round spot
    const { size: [H, W], channels, low, high } = of(), r = brush / 2;
    for (let y = Math.max(0, Math.floor(py - r)); y < Math.min(H, py + r); y++)
      for (let x0 = Math.max(0, Math.floor(px - r)); x0 < Math.min(W, px + r); x0++)
        if (Math.hypot(x0 + 0.5 - px, y + 0.5 - py) <= Math.max(r, 0.71)) for (let c = 0; c < channels; c++) values[(c * H + y) * W + x0] = low + grey * (high - low);
  }
  function stroke(event) {
    const box = pad.getBoundingClientRect(), { size: [H, W] } = of(), end = [((event.clientX - box.left) / box.width) * W, ((event.clientY - box.top) / box.height) * H];
    const [x0, y0] = last ?? end, steps = Math.max(1, Math.ceil(2 * Math.hypot(end[0] - x0, end[1] - y0)));
    values = values.slice();
    for (let i = 1; i <= steps; i++) stamp(x0 + ((end[0] - x0) * i) / steps, y0 + ((end[1] - y0) * i) / steps);
    last = end;
    told();
  }
  pad.onpointerdown = (event) => {
    pad.setPointerCapture(event.pointerId);
    event.preventDefault();
    [last, bitmap, frame_.hidden] = [null, null, true];
    stroke(event);
    pad.onpointermove = stroke;
    pad.onlostpointercapture = () => { pad.onpointermove = null; };
  };

  picker.onchange = async () => {
    const [file] = picker.files;
    if (!file) return;
    try { bitmap = await createImageBitmap(file); } catch { note.textContent = `${file.name} is no picture that this browser can read.`; return; }
    picker.value = "";
    Object.assign(where, { zoom: 1, across: 0, down: 0 });
    crops.forEach((row, i) => row.set(Object.values(where)[i]));
    frame_.hidden = false;
    crop();
  };
  function crop() {  // the largest part of the right shape, in the middle, less what zoom and the other two say
    const { size: [H, W], channels, low, high } = of(), by = Math.max(W / bitmap.width, H / bitmap.height) * where.zoom;
    const canvas = h("canvas", { width: W, height: H }), context = canvas.getContext("2d", { willReadFrequently: true });
      const corner = (whole, part, shift) => ((whole - part) * (1 + shift)) / 2;
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, corner(bitmap.width, W / by, where.across), corner(bitmap.height, H / by, where.down), W / by, H / by, 0, 0, W, H);
    const { data } = context.getImageData(0, 0, W, H), area = H * W;
    values = Float32Array.from({ length: channels * area }, (_, i) => {
      const p = 4 * (i % area), level = channels === 3 ? data[p + Math.floor(i / area)] : 0.2126 * data[p] + 0.7152 * data[p + 1] + 0.0722 * data[p + 2];
      return low + ((high - low) * level) / 255;
    });
    told();
  }
  return { element, open };
}
