// The explorables: three small machines, one idea each. Exact formulas and small tables; no network runs here.
// mmvae/show/explorables.py is their Python half; its `combine` computes what the one below does, for a test to compare.

const HEIGHT = 300, FOOT = 40, HEAD = 12, SPAN = 4;  // pixels: a plot, below its axis, above its top; z from -4 to 4
const TRIANGLE = "M0,-8L8,7H-8z", CIRCLE = "M-7,0a7,7 0 1,0 14,0a7,7 0 1,0 -14,0", SQUARE = "M-6.5,-6.5H6.5V6.5H-6.5z", DIAMOND = "M0,-9L9,0L0,9L-9,0z";

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const marked = (tag, html, attributes) => { const element = h(tag, attributes); element.innerHTML = html; return element; };
const words = () => h("p", { class: "words", role: "status" });
const x_ = (m) => `x<sub>${String(m).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)}</sub>`;

// ---------------------------------------------------------------- plots, tables, buttons

const height = (d, top) => HEIGHT - FOOT - (d / top) * (HEIGHT - FOOT - HEAD);  // where d is in a plot from 0 to top
const track = (points) => "M" + points.map(([x, y]) => `${Math.round(10 * x) / 10},${Math.round(10 * y) / 10}`).join("L");
const GREY = "grey", worn = (colour) => (colour === GREY ? 'class="grey"' : colour ? `class="ink" style="${tint(colour)}"` : "");
const line = (d, kind, colour) => `<g ${worn(colour)}><path class="line ${kind}" d="${d}"/></g>`;
const label = (x, y, html, anchor = "middle", colour = "") =>
  `<text x="${x}" y="${y}" text-anchor="${anchor}" ${worn(colour)}>` +
  html.replace(/<sub>(.*?)<\/sub>/g, '<tspan dy="4" font-size="11">$1</tspan>') + "</text>";

function spread(labels, width) {  // labels, each inside the plot, and above what stands there already
  const taken = [];
  return labels.sort((a, b) => b[1] - a[1]).map(([x, y, html, anchor = "middle", colour]) => {
    const long = 7.4 * html.replace(/<.*?>/g, "").length, shift = { start: 0, middle: long / 2, end: long }[anchor];
    const left = within(0, width - long, x - shift);
    for (const [l, r, t] of taken) if (left < r + 4 && left + long > l - 4 && Math.abs(y - t) < 17) y = t - 17;
    taken.push([left, left + long, y]);
    return label(left + shift, Math.max(y, 13), html, anchor, colour);
  }).join("");
}

const table = (columns, rows) =>  // a row: its colour, its head, its cells
  `<thead><tr>${columns.map((text) => (text ? `<th scope="col">${text}</th>` : "<td></td>")).join("")}</tr></thead><tbody>` +
  rows.map(([colour, head, ...cells]) => `<tr ${worn(colour)}><th scope="row">${head}</th>` +
    cells.map((text) => `<td>${text}</td>`).join("") + "</tr>").join("") + "</tbody>";

function wire(model, draw, ...names) {  // draw when one of these traits has changed; returns a function that changes some
  for (const name of names) model.on(`change:${name}`, draw);
  return (some) => { for (const name in some) model.set(name, some[name]); model.save_changes(); };
}

function choices(values, pick) {  // {name: value}: a button for each, and a function that marks the one that is the case
  const all = Object.entries(values).map(([name, value]) =>
    [h("button", { type: "button", onclick: () => pick(value) }, name), JSON.stringify(value)]);
  return [all.map(([button]) => button),
    (now) => all.forEach(([button, value]) => button.setAttribute("aria-pressed", value === JSON.stringify(now)))];
}

// A plot as wide as its column: draw() when that changes. knobs: {name: [shape, colour]}. grab(name, x, y) returns a
// function (x, y) that follows the pointer from this knob on; while it does, `held`.
function board(draw, grab, knobs) {
  const element = marked("div", `<svg role="img" width="100%" height="${HEIGHT}"><g></g>` +
    Object.entries(knobs).map(([k, [shape, colour]]) => `<g ${worn(colour)}><g class="knob" data-k="${k}">` +
      `<circle r="20"/><path d="${shape}"/></g></g>`).join("") + "</svg>", { class: "board" });
  const picture = element.firstChild, watch = new ResizeObserver(() => { plot.width = element.clientWidth || 640; draw(); });
  const at = ({ clientX, clientY }, box = picture.getBoundingClientRect()) => [clientX - box.left, clientY - box.top];
  const show = (scene, text, places) => {
    picture.firstChild.innerHTML = scene;
    picture.setAttribute("aria-label", text);
    for (const k in places) picture.querySelector(`[data-k="${CSS.escape(k)}"]`).setAttribute("transform", `translate(${places[k]})`);
  };
  const plot = { element, show, held: false, width: 640, stop: () => watch.disconnect() };
  picture.onpointerdown = (down) => {
    const k = down.target.closest("[data-k]")?.dataset.k;
    if (!k) return;
    const follow = grab(k, ...at(down));
    down.preventDefault();
    plot.held = true;
    picture.setPointerCapture(down.pointerId);
    picture.onpointermove = (event) => follow(...at(event));
    picture.onlostpointercapture = () => { picture.onpointermove = null; plot.held = false; draw(); };
  };
  watch.observe(element);
  return plot;
}

async function load(model, say) {  // the pictures, by number; without them the rest still works
  const { sprites, size } = model.get("config");
  say("Loading the pictures \u2026");
  try {
    const sheet = await greys(URL.createObjectURL(new Blob([await talk(model).need(sprites)])), size);
    say("");
    return sheet;
  } catch (error) { say(`The pictures are missing: ${error.message}`); return null; }
}

// ---------------------------------------------------------------- experts: their product and mixtures

// values: {name: [mean, sd], ..., p: [mean, sd]}. Gaussian mixtures, [[weight, mean, sd], ...]; and the shares of the product's precision
function combine(values, prior) {
  const product = (keys) => {  // eq-poe-gaussian
    const lambda = keys.map((k) => values[k][1] ** -2), sum = lambda.reduce((a, b) => a + b);
    const shares = lambda.map((l) => l / sum);
    return [shares.reduce((mean, share, i) => mean + share * values[keys[i]][0], 0), sum ** -0.5, shares];
  };
  const p = prior ? ["p"] : [], names = Object.keys(values).filter((k) => k !== "p"), [mean, sd, shares] = product([...names, ...p]);
  const some = names.reduce((sets, k) => [...sets, ...sets.map((set) => [...set, k])], [[]])  // small ones first
    .sort((a, b) => a.length - b.length).map((set) => [...set, ...p]).filter((set) => set.length);  // no expert makes no density
  return { shares: from([...names, ...p], (k) => shares[[...names, ...p].indexOf(k)]), product: [[1, mean, sd]],
    mixture: names.map((k) => [1 / names.length, ...values[k]]),
    subsets: some.map((keys) => [1 / some.length, ...product(keys).slice(0, 2)]) };
}

const peak = (sd) => 1 / (sd * Math.sqrt(2 * Math.PI));  // of a Gaussian; and the standard deviation of one with this peak
const density = (parts, z) => parts.reduce((sum, [weight, mean, sd]) =>
  sum + weight * peak(sd) * Math.exp(-(((z - mean) / sd) ** 2) / 2), 0);

function meanAndSd(parts) {  // mean and standard deviation
  const mean = parts.reduce((sum, [weight, m]) => sum + weight * m, 0);
  return [mean, Math.sqrt(parts.reduce((sum, [weight, m, sd]) => sum + weight * (sd ** 2 + (m - mean) ** 2), 0))];
}

function verdict(values, { shares, product: [[, mean, sd]] }) {  // in words
  const [first] = Object.keys(shares).sort((a, b) => shares[b] - shares[a]), names = Object.keys(values).filter((k) => k !== "p");
  const others = names.filter((k) => k !== first), said = others.length === 1 ? `expert ${others[0]} says` : first === "p" ? "the experts say" : "the others say";
  if (shares[first] >= 0.75) return `${first === "p" ? "The prior" : `Expert ${first}`} holds ${percent(shares[first])} of the precision: ` +
    `the product follows it, whatever ${said}.`;
  const apart = (a, b) => Math.abs(values[a][0] - values[b][0]) > 2 * Math.hypot(values[a][1], values[b][1]);
  if (names.some((a) => names.some((b) => apart(a, b)))) return "The experts contradict each other. The product " +
    `settles at ${signed(mean)}, as sure (sd ${sd.toFixed(2)}) as if they agreed. A mixture keeps ${names.length > 2 ? "all" : "both"} opinions.`;
  return `No expert decides alone. Precisions add: the product (sd ${sd.toFixed(2)}) is surer than each of its factors.`;
}

async function experts({ model, el }) {
  const put = wire(model, draw, "values", "prior"), get = (name) => model.get(name), { colours, presets: start } = model.get("config");
  const names = Object.keys(get("values")).filter((k) => k !== "p"), shapes = [CIRCLE, SQUARE, TRIANGLE];
  const own = { ...from(names, (k) => [`q<sub>${k}</sub>`, colours[k], `expert ${k}`]), p: ["p", GREY, "the prior"] };
  const all = { ...own, product: ["product", colours.product], mixture: ["mixture", GREY], subsets: ["mixture of products", GREY] };
  const set = (k, mean, sd) => put({ values: { ...get("values"), [k]: [+mean.toFixed(2), +sd.toPrecision(3)] } });
  let top = 0, scale = 1;  // the density at the upper edge; pixels of 1 in z
  const X = (z) => (z + SPAN) * scale, Y = (d) => height(d, top);
  const plot = board(draw, (k, x0, y0) => {  // across: the mean; up: surer
    const [mean, sd] = get("values")[k], dx = X(mean) - x0, dy = Y(peak(sd)) - y0;
    return (x, y) => set(k, within(-3, 3, (x + dx) / scale - SPAN),
      within(0.1, 3, peak(Math.max(0.01, (top * (Y(0) - y - dy)) / (Y(0) - HEAD)))));
  }, { p: [DIAMOND, GREY], ...from(names.toReversed(), (k) => [shapes[names.indexOf(k) % 3], colours[k]]) });
  const check = (html, change) => {
    const input = h("input", { type: "checkbox", checked: "", onchange: () => change(input.checked) });
    return [input, h("label", {}, input, marked("span", html))];
  };
  const prior = check("multiply the prior in", (on) => put({ prior: on }));
  const drawn = from(["mixture", "subsets"], (k) =>
    check(`<svg class="key">${line("M0,5H34", k, GREY)}</svg> ${all[k][0]}`, () => draw()));
  const [presets, mark] = choices(start, (values) => put({ values }));
  const shares = h("div", { class: "shares", "aria-hidden": true }), numbers = h("table"), says = words();
  const rows = from(Object.keys(own), (k) => {
    const row = (name, spoken, rest) =>
      slider({ name, spoken: `${spoken} of ${all[k][2]}`, value: 0, data: name + k, ...rest });
    return [row("mean", "mean", { min: -3, max: 3, step: 0.05, input: (v) => set(k, v, get("values")[k][1]) }),
      row("sd", "standard deviation", { min: -1, max: 0.48, step: 0.02, text: (v) => (10 ** v).toFixed(2),
        input: (v) => set(k, get("values")[k][0], 10 ** v) })];
  });
  const { element: list, watch } = tasks({ apart: "Bring the experts together, then pull them apart until they contradict each other. How sure is the product?",
    holds: "Make one expert so sharp that it holds three quarters of the precision.", prior: "Leave the prior out." });
  frame(el, h("div", { class: "bar" }, ...presets), plot.element, shares, says,
    h("div", { class: "checks" }, prior[1], drawn.mixture[1], drawn.subsets[1]),
    h("div", { class: "thirds" }, ...Object.entries(own).map(([k, [name, colour, title]]) => h("fieldset",
      colour === GREY ? { class: GREY } : inked(colour), marked("legend", `${name}<i>${title}</i>`), ...rows[k].map((row) => row.element)))), numbers, list);

  function draw() {
    const values = get("values"), made = combine(values, get("prior")), { width } = plot;
    const even = (n, far, at = 0) => Array.from({ length: n }, (_, i) => at + far * ((2 * i) / (n - 1) - 1));
    const labels = [], lines = [], cells = [];
    const sharpest = Math.min(made.product[0][2], ...Object.values(values).map(([, sd]) => sd));
    scale = width / (2 * SPAN);
    if (!plot.held) top = Math.max(1.6, 1.12 * peak(sharpest));
    for (const [k, [name, colour]] of Object.entries(all)) {
      const parts = made[k] ?? [[1, ...values[k]]], [mean, sd] = meanAndSd(parts), mixed = drawn[k];
      cells.push([colour, name, signed(mean), sd.toFixed(2), mixed ? "" : (sd ** -2).toFixed(2),
        k in made.shares ? percent(made.shares[k]) : ""]);
      if (mixed && !mixed[0].checked) continue;
      const z = [even(161, SPAN), ...parts.map(([, m, s]) => even(25, 3 * s, m))].flat().sort((a, b) => a - b);
      const d = z.map((v) => density(parts, v)), curve = track(d.map((v, i) => [X(z[i]), Y(v)]));
      const half = Math.max(...d) / 2, tall = (v) => v > half, left = k === "subsets", out = k === "p" && !get("prior");
      const flank = left ? d.findIndex(tall) : d.findLastIndex(tall);  // where the label of a mixture stands
      labels.push(mixed ? [X(z[flank]) + (left ? -6 : 6), Y(d[flank]), name, left ? "end" : "start", colour]
        : [X(mean), Y(peak(sd)) - 14, out ? `${name}, left out` : name, "middle", colour]);
      lines.unshift(line(curve, `${own[k] ? (k === "p" ? "p" : "") : k}${out ? " out" : ""}`, colour));
      if (k === "product") lines.unshift(`<g ${worn(colour)}><path class="area" d="${curve}V${Y(0)}H0z"/></g>`);
    }
    says.textContent = verdict(values, made);
    watch("apart", says.textContent.startsWith("The experts contradict"));
    watch("holds", names.some((k) => made.shares[k] >= 0.75));
    watch("prior", !get("prior"));
    plot.show(line(`M0,${Y(0)}H${width}`, "axis") + label(width - 10, Y(0) + 20, "z") + [-3, -2, -1, 0, 1, 2, 3].map((v) =>
      line(`M${X(v)},${Y(0)}v5`, "axis") + label(X(v), Y(0) + 20, v ? signed(v, 0) : "0")).join("") +
      label(0, 14, "Drag a mark: across, its mean; up, surer.", "start", GREY) + lines.join("") + spread(labels, width),
    `Curves over z: ${names.length} experts, the prior, their product and mixtures. ${says.textContent}`,
    from(Object.keys(values), (k) => [X(values[k][0]), Y(peak(values[k][1]))]));
    for (const k in rows) { rows[k][0].set(values[k][0]); rows[k][1].set(Math.log10(values[k][1])); }
    mark(values);
    prior[0].checked = get("prior");
    shares.innerHTML = Object.entries(made.shares).map(([k, share]) => `<span ${all[k][1] === GREY ? `class="grey" style="` : `class="ink" style="${tint(all[k][1])};`}flex-grow:${share}">${share * width > 60 ? `${all[k][0]} ${percent(share)}` : ""}</span>`).join("");
    numbers.innerHTML = table(["", "mean", "sd", "precision \u03bb", "share"], cells);
  }
  draw();
  return plot.stop;
}

// ---------------------------------------------------------------- rate and distortion

const brief = (v) => (v < 1 ? v.toPrecision(3) : v.toFixed(v < 10 ? 2 : 1));

function round(most) {  // up to seven round numbers from 0 to most
  const ten = 10 ** Math.floor(Math.log10(most / 6)), step = ten * [1, 2, 5, 10].find((k) => 6 * k * ten >= most);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
}

async function rate({ model, el }) {
  const { modalities: ms, widths, every, draws, samples, images, size } = model.get("config"), LEFT = 42;
  const put = wire(model, draw, "image", "width", "beta"), get = (name) => model.get(name);
  const shown = () => images[get("image")], numbers = h("table"), says = words();
  const cost = (k) => shown().distortion[k] + get("beta") * shown().rate[k];
  const least = (f) => widths.reduce((k, _, i) => (f(i) < f(k) ? i : k), 0);
  let X, Y, top = 0, sheet, painted;
  const plot = board(draw, () => (x, y) => put({ width: widths[least((k) =>
    Math.hypot(X(shown().rate[k]) - x, Y(shown().distortion[k]) - y))] }), { s: [CIRCLE, ""] });
  const numbered = Object.fromEntries(images.map((_, k) => [`${ms.length > 1 ? "pair" : "image"} ${k + 1}`, k]));
  const [presets, mark] = choices(numbered, (image) => put({ image }));
  const [jump] = choices({ "go to the cheapest width": 0 }, () => put({ width: widths[least(cost)] }));
  const row = (name, spoken, trait, far, step) => slider({ name, spoken, min: -far, max: far, step, value: 0, data: trait, text: (v) => brief(2 ** v), input: (v) => put({ [trait]: 2 ** v }) });
  const width = row("width s", "width s of the posterior, times its own", "width", 3, 1 / 8);
  const beta = row("price \u03b2", "beta, the price of a nat of rate", "beta", 4, 1 / 4);
  const drawn = h("span", { class: "drawn" }), note = h("p", { class: "why" });
  const tiles = from(ms, (m) => Array.from({ length: 1 + draws }, (_, i) => h("canvas", { width: size, height: size,
    role: "img", "aria-label": i ? `x ${m} decoded from sample ${i}` : `x ${m}, given` })));
  const { element: list, watch } = tasks({ least: "Find the width at which D + \u03b2R is least.", price: "Raise \u03b2 to 4 or more. Which width is cheapest now?",
    wide: "Make the posterior eight times as wide. What do its samples look like?" });
  const { say } = frame(el, h("div", { class: "bar" }, ...(images.length > 1 ? presets : []), ...jump),
    h("div", { class: "plane" }, plot.element, h("div", {}, width.element, beta.element, numbers)), says,
    h("div", { class: "tiles" }, h("i"), h("span", {}, "given"), drawn,
      ...ms.flatMap((m) => [marked("b", x_(m)), ...tiles[m]])), note, list);

  function draw() {
    const { rate: R, distortion: D, floor } = shown(), b = get("beta"), wide = plot.width, right = 1.05 * Math.max(...R);
    const k = least((i) => Math.abs(Math.log(widths[i] / get("width")))), c = least(cost), near = Math.round(k / every);
    if (!plot.held) top = Math.max(1.15 * D[k], 2.4 * Math.min(...D));  // shows the bend, and the dot wherever it is
    X = (r) => LEFT + (r / right) * (wide - LEFT - 8);
    Y = (d) => height(d, top);
    const end = (i) => Math.min(right, cost(i) / b), middle = (R[k] + end(k)) / 2;
    const level = (i) => track([0, end(i)].map((r) => [X(r), Y(cost(i) - b * r)]));
    const marks = widths.map((_, i) => i).filter((i) => i % 8 === 0 && D[i] < top), spot = (i) => `${X(R[i])},${Y(D[i])}`;
    const labels = [[X(middle) - 8, Y(cost(k) - b * middle) + 16, `D + \u03b2R = ${cost(k).toFixed(1)}`, "end"],
      [X(R[k]) + 12, Y(D[k]) - 14, `s = ${brief(widths[k])}`, "start"],
      [X(R[c]) - 14, Y(D[c]) + 22, c === k ? "" : "cheapest", "end"],
      ...marks.filter((i) => Math.abs(i - k) > 3 && Math.abs(i - c) > 2).map((i) =>
        [X(R[i]) + 6, Y(D[i]) - 8, widths[i] < 1 ? `1/${1 / widths[i]}` : `${widths[i]}`, "start"])];
    watch("least", k === c);
    watch("price", b >= 4);
    watch("wide", k === widths.length - 1);
    says.textContent = `At \u03b2 = ${brief(b)} ` + (k === c
      ? "no width is cheaper: the line of slope \u2212\u03b2 touches the curve."
      : `this width costs ${brief(cost(k) - cost(c))} nats more than s = ${brief(widths[c])}: the line cuts the curve.`);
    plot.show(line(`M${LEFT},${HEAD}V${Y(0)}H${wide}`, "axis") + label(wide, Y(0) + 35, "rate R, nats", "end") +
      label(wide, HEAD + 6, "distortion D above its floor, nats", "end") +
      round(right).map((r) => label(X(r), Y(0) + 17, `${r}`)).join("") +
      round(top).map((d) => label(LEFT - 6, Y(d) + 5, `${d}`, "end")).join("") +
      line(level(c), "p") + line(level(k), "") + line(track(R.map((r, i) => [X(r), Y(D[i])])), "product") +
      marks.map((i) => `<circle r="4" transform="translate(${spot(i)})"/>`).join("") +
      `<path class="best" d="${DIAMOND}" transform="translate(${spot(c)}) scale(1.6)"/>` + spread(labels, wide),
    `Distortion against rate. ${says.textContent}`, { s: spot(k) });
    width.set(Math.log2(get("width")));
    beta.set(Math.log2(b));
    mark(get("image"));
    numbers.innerHTML = table(["nats", "here", "cheapest"], [["at s =", (i) => widths[i], brief], ["rate R", (i) => R[i]],
      ["distortion D", (i) => D[i]], ["D + \u03b2R", cost], ["\u2212ELBO", (i) => D[i] + R[i] + floor]].map(
      ([head, f, text = (v) => v.toFixed(1)]) => ["", head, text(f(k)), text(f(c))]));
    note.textContent = `R is exact. D is a mean over ${samples} samples, less its floor: the ${floor.toFixed(1)} nats of ` +
      "entropy in the grey levels. \u2212ELBO is R + D with the floor.";
    if (!sheet || painted === `${near} ${get("image")}`) return;
    painted = `${near} ${get("image")}`;
    drawn.textContent = `decoded: ${draws} samples of q at s = ${brief(widths[near * every])}`;
    ms.forEach((m, j) => tiles[m].forEach((canvas, i) =>  // in the sheet: the given images, then each sample of each width
      paint(canvas, [sheet(((i ? near * draws + i : 0) * ms.length + j) * images.length + get("image"))], { size: [size, size] })));
  }
  draw();
  sheet = await load(model, say);
  draw();
  return plot.stop;
}

// ---------------------------------------------------------------- the pair that four factors make

async function faces({ model, el }) {
  const { size, factors, pairs, axes, owners, colours } = model.get("config"), names = Object.keys(factors), ms = Object.keys(axes);
  const put = wire(model, draw, "factors"), get = () => model.get("factors"), n = from(names, (f) => factors[f].length);
  const rows = from(names, (f) => slider({ name: f, min: 0, max: n[f] - 1, step: 1, value: 0, text: (k) => factors[f][k],
    colour: colours[owners[f]], data: f, input: (k) => put({ factors: { ...get(), [f]: k } }) }));
  const group = (block, title) => h("fieldset", inked(colours[block]), marked("legend", title),
    ...names.filter((f) => owners[f] === block).map((f) => rows[f].element));
  const numbered = Object.fromEntries(pairs.map((at, k) => [`pair ${k + 1}`, at])), says = words();
  const [presets, mark] = choices(numbered, (at) => put({ factors: at })), notes = from(ms, () => h("figcaption"));
  const canvases = from(ms, () => h("canvas", { width: size, height: size, role: "img" }));
  const { element: list, done } = tasks({ ...from(ms, (m) => marked("span", `Change ${x_(m)} alone.`)), both: "Change both pictures at once." });
  const { say } = frame(el, h("div", { class: "bar" }, ...presets), h("div", { class: "pair" },
    h("div", { class: "pictures" }, ...ms.map((m) => h("figure", {}, canvases[m], notes[m]))),
    h("div", {}, group("S", `shared, in both ${ms.map(x_).join(" and ")}`), ...ms.map((m) => group(m, `private to ${x_(m)}`)))), says, list);
  let sheet, last;

  function draw() {
    const at = get(), cell = {};
    let start = 0;
    for (const m of ms) {  // as the explorer counts the cells
      cell[m] = start + axes[m].reduce((i, f) => i * n[f] + at[f], 0);
      start += axes[m].reduce((product, f) => product * n[f], 1);
    }
    const moved = ms.filter((m) => last && cell[m] !== last[m]), kept = ms.filter((m) => !moved.includes(m));
    for (const [f, row] of Object.entries(rows)) row.set(at[f]);
    mark(at);
    for (const m of ms) {
      const own = axes[m].filter((f) => owners[f] === m).map((f) => `${f} ${factors[f][at[f]]}`).join(", ");
      if (sheet) paint(canvases[m], [sheet(cell[m])], { size: [size, size] });
      canvases[m].classList.toggle("moved", moved.includes(m));
      canvases[m].setAttribute("aria-label", `x ${m}: ${axes[m].map((f) => `${f} ${factors[f][at[f]]}`).join(", ")}`);
      notes[m].innerHTML = `<b>${x_(m)}</b> ${own}`;
    }
    const turned = names.filter((f) => last && at[f] !== last.at[f]).join(", ");
    if (turned) done(kept.length ? moved[0] : "both");
    if (turned) says.innerHTML = `${capital(turned)}: ` + (kept.length
      ? `only ${x_(moved[0])} has changed; ${x_(kept[0])} has kept every pixel.` : "both pictures have changed.");
    last = { ...cell, at };
  }
  draw();
  sheet = await load(model, say);
  draw();
}

const renderers = { faces, experts, rate };
