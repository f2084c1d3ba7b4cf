// The explorer: sliders for the latents of a trained model, for the factors of what it sees, and what it makes of them.
// All networks run here. mmvae/widgets.py is its Python half, and says what an asset is.

const PATCH = 8, SPAN = 2.5, PERIOD = 3200;  // pixels of mmvae.nets.Encoder; standard deviations, ms of a traversal
const TITLE = { I: "private to I", S: "shared", T: "private to T", Z: "not partitioned" };
const ready = {};  // weights, parsed: shared by the explorers of a page

async function weights(view) {  // gzip of a safetensors file; a tensor: the low bytes of its fp16 numbers, then the high
  const unzipped = new Blob([view]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(unzipped).arrayBuffer()), tensors = {};
  const start = 8 + new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  for (const [name, { data_offsets: [from, to] }] of Object.entries(header)) {
    const n = (to - from) / 2, low = bytes.subarray(start + from), high = low.subarray(n), words = new Uint32Array(n);
    for (let i = 0; i < n; i++) words[i] = ((high[i] & 0x80) << 24) | ((high[i] & 0x7f) << 21) | (low[i] << 13);
    tensors[name] = new Float32Array(words.buffer).map((value) => value * 2 ** 112);  // the exponents' origins differ
  }
  return tensors;
}

function dense(net, layer, x, from = 0, to = net[layer + ".bias"].length) {  // rows from..to of a linear layer
  const weight = net[layer + ".weight"], out = net[layer + ".bias"].slice(from, to), n = x.length;
  for (let o = 0, k = from * n; o < out.length; o++) {
    let a = 0, b = 0, c = 0, d = 0, i = 0;  // four sums at a time: none waits for the other
    for (; i + 3 < n; i += 4, k += 4) {
      a += weight[k] * x[i]; b += weight[k + 1] * x[i + 1]; c += weight[k + 2] * x[i + 2]; d += weight[k + 3] * x[i + 3];
    }
    for (; i < n; i++, k++) a += weight[k] * x[i];
    out[o] += a + b + c + d;
  }
  return out;
}

const silu = (x) => x.map((value) => value / (1 + Math.exp(-value)));

function encode(net, blocks, subset, x, size) {  // mmvae.nets.Encoder: {block: {mu, logvar}}
  const at = `encoders.${subset}.`, side = size / PATCH, patch = PATCH * PATCH, patches = new Float32Array(subset.length * patch);
  const bias = net[at + "patches.bias"], conv = new Float32Array(bias.length * side * side);
  for (let place = 0; place < side * side; place++) {
    const corner = Math.floor(place / side) * PATCH * size + (place % side) * PATCH;
    for (let i = 0; i < patches.length; i++)
      patches[i] = x[subset[Math.floor(i / patch)]][corner + Math.floor((i % patch) / PATCH) * size + (i % PATCH)] - 0.5;
    dense(net, at + "patches", patches).forEach((value, f) => { conv[f * side * side + place] = value; });
  }
  const hidden = silu(dense(net, at + "hidden2", silu(dense(net, at + "hidden1", silu(conv))))), q = {};
  const mu = [...dense(net, at + "mu", hidden)], logvar = [...dense(net, at + "logvar", hidden)];
  for (const [b, dim] of Object.entries(blocks))  // mmvae.models.seen_by
    if ("SZ".includes(b) || subset.includes(b)) q[b] = { mu: mu.splice(0, dim), logvar: logvar.splice(0, dim) };
  return q;
}

function product(experts, dim) {  // times the prior: eq-poe-gaussian. Of no expert: the prior
  const d = Array.from({ length: dim }, (_, k) => k), sum = (term) => d.map((k) => experts.reduce((s, e) => s + term(e, k), 0));
  const precision = sum((e, k) => Math.exp(-e.logvar[k])).map((p) => p + 1);
  return { mu: sum((e, k) => e.mu[k] * Math.exp(-e.logvar[k])).map((s, k) => s / precision[k]), logvar: precision.map((p) => -Math.log(p)) };
}

function posterior(net, { blocks, sees, single_prior }, subset, x, size) {  // of the observed modalities: {block: {mu, logvar}}
  const experts = (sees.includes(subset) ? [subset] : [...subset]).map((s) => encode(net, blocks, s, x, size));
  return Object.fromEntries(Object.entries(blocks).map(([b, dim]) => {
    const own = experts.map((e) => e[b]).filter(Boolean);
    return [b, own.length === 1 && !(b === "S" && single_prior) ? own[0] : product(own, dim)];
  }));
}

const reaching = (z, m) => Float32Array.from(z.Z ?? [...z[m], ...z.S]);  // what the decoder of m sees; of one type: fast

function decode(net, z, m, pixels) {  // mmvae.nets.Decoder: one image in [0, 1]; a decoder "IT" has both, I before T
  const own = `decoders.${m}.pixels.bias` in net, at = `decoders.${own ? m : "IT"}.`, from = own || m === "I" ? 0 : pixels;
  const hidden = silu(dense(net, at + "hidden2", silu(dense(net, at + "hidden1", reaching(z, m)))));
  return dense(net, at + "pixels", hidden, from, from + pixels).map((logit) => 1 / (1 + Math.exp(-logit)));
}

const normals = (length) =>
  Array.from({ length }, () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()));

async function render({ model, el }) {
  const { size, modalities, inputs, pairs, factors, sprites, models } = model.get("config"), ms = [...modalities];
  const ask = fetcher(model), get = (name) => model.get(name), about = () => models[get("model")];
  const rows = {}, noise = {}, drawn = {};
  let q, net, given, sheet, playing, turn = 0, queued;

  const put = (changes) => { for (const name in changes) model.set(name, changes[name]); model.save_changes(); };
  const all = (value) => Object.fromEntries(Object.entries(about().blocks).map(([b, dim]) => [b, value(b, dim)]));
  const move = (b, k, value) => put({ latents: { ...get("latents"), [b]: get("latents")[b].with(k, value) } });

  const each = (make) => Object.fromEntries(ms.map((m) => [m, make(m)])), x_ = (m) => h("b", {}, "x", h("sub", {}, m));
  const button = (name, onclick) => h("button", { type: "button", onclick }, name);
  const seen = each((m) => h("canvas", { role: "img", "aria-label": `x ${m}, given`, "data-seen": m }));
  const made = each((m) => h("canvas", { role: "img", "data-made": m })), notes = each(() => h("span"));
  const switches = each((m) => h("input", { type: "checkbox", "data-switch": m,
    onchange: () => put({ observed: ms.filter((k) => switches[k].checked).join("") }) }));
  const pick = h("select", { "aria-label": "model", onchange: () => put({ model: pick.value }) },
    ...Object.entries(models).map(([value, { label }]) => h("option", { value }, label)));
  const presets = pairs.map((at, k) => button(`${ms[1] ? "pair" : "image"} ${k + 1}`, () => put({ pair: k, factors: at })));
  const turns = Object.entries(factors).map(([f, words]) => [f, slider({ name: f, min: 0, max: words.length - 1, step: 1,
    value: 0, text: (k) => words[k], block: { elevation: "I", light: "T" }[f] ?? "S", data: f,
    input: (k) => put({ pair: -1, factors: { ...get("factors"), [f]: k } }) })]);
  const why = h("p", { class: "why" }), latents = h("div");
  const { root, say } = frame(el,
    h("div", { class: "bar" }, ...(pick.length > 1 ? [pick] : []), ...presets,
      button("sample from the prior", () => { stop(); put({ latents: all((b, dim) => normals(dim)) }); }),
      button("reset", () => { stop(); put({ latents: all((b) => q[b].mu) }); })),
    h("div", { class: "halves" },
      h("section", {}, h("h4", {}, "The model sees"), h("div", { class: "pictures" },
        ...ms.map((m) => h("figure", {}, seen[m], h("label", {}, switches[m], " ", x_(m), " observed")))),
      why, ...turns.map(([, row]) => row.element)),
      h("section", {}, h("h4", {}, "It makes of it"), h("div", { class: "pictures" },
        ...ms.map((m) => h("figure", {}, made[m], h("figcaption", {}, x_(m), " ", notes[m])))), latents)));

  function build() {  // the sliders of the chosen model
    net = null;
    latents.replaceChildren(...Object.entries(about().blocks).filter(([, dim]) => dim).map(([b, dim]) => {
      const z = b === "Z" ? "z" : `z ${b}`;
      rows[b] = Array.from({ length: dim }, (_, k) => slider({ name: `${k + 1}`, spoken: `${z} ${k + 1}, ${TITLE[b]}`,
        min: -3, max: 3, step: 0.05, value: 0, block: b, data: b + k, input: (value) => { stop(); move(b, k, value); },
        before: h("button", { type: "button", class: "play", "aria-label": `play ${z} ${k + 1}`, onclick: () => play(b, k) }) }));
      return h("fieldset", { "data-block": b }, h("legend", {}, "z", h("sub", {}, b === "Z" ? "" : b), h("i", {}, TITLE[b])),
        ...rows[b].map((row) => row.element));
    }));
  }

  const stop = () => { playing?.classList.remove("playing"); playing = null; };

  function play(b, k) {  // to and fro from where it stands; for readers who ask for no motion, a step a click
    const row = rows[b][k].element, again = playing === row, value = get("latents")[b][k];
    stop();
    if (again) return;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return move(b, k, value >= 2 ? -2 : Math.floor(value) + 1);
    const phase = Math.asin(Math.max(-1, Math.min(1, value / SPAN)));
    const step = (start) => (now) => {
      if (playing !== row || !root.isConnected) return;
      move(b, k, SPAN * Math.sin(phase + (2 * Math.PI * (now - (start ??= now))) / PERIOD));
      requestAnimationFrame(step(start));
    };
    playing = row;
    row.classList.add("playing");
    requestAnimationFrame(step());
  }

  async function load(part) {  // "decoders" or "encoders"
    const name = about()[part];
    if (!ready[name]) say(`Loading the ${part} of ${about().label} \u2026`);
    try { return await (ready[name] ??= ask(name).then(weights)); } catch (error) { delete ready[name]; throw error; }
  }

  async function images(k, at) {  // {modality: (size * size) in [0, 1]}: a preset pair, or a cell of the grid of factors
    given ??= await greys(inputs, size);
    if (k >= 0) return each((m) => given(ms.indexOf(m) * pairs.length + k));
    if (!sheet) say("Loading the faces \u2026");
    sheet ??= await greys(URL.createObjectURL(new Blob([await ask(sprites)])), size);
    const { identity, azimuth, elevation, light } = factors, cell = at.identity * azimuth.length + at.azimuth;
    return { I: sheet(cell * elevation.length + at.elevation),
      T: sheet((identity.length * azimuth.length * elevation.length) + cell * light.length + at.light) };
  }

  async function see(first) {  // what is given may have changed: the images, the posterior, the latents at its mean
    const mine = ++turn, k = get("pair"), able = about().sees.length > 1, subset = able ? get("observed") : modalities;
    stop();
    pick.value = get("model");
    presets.forEach((preset, i) => preset.setAttribute("aria-pressed", i === k));
    turns.forEach(([f, row]) => row.set(get("factors")[f]));
    ms.forEach((m) => {
      [switches[m].disabled, switches[m].checked] = [!able, subset.includes(m)];
      seen[m].classList.toggle("missing", !subset.includes(m));
    });
    why.textContent = able || ms.length < 2 ? "" : "One encoder, which needs both images: nothing can be switched off.";
    const x = await images(k, get("factors")), start = subset === modalities && about().start[k];
    const found = start || posterior(await load("encoders"), about(), subset, x, size), decoders = await load("decoders");
    if (mine !== turn) return;  // something else has changed in the meantime
    [q, net] = [found, decoders];
    say("");
    for (const m of ms) {
      const dim = subset.includes(m) ? 0 : about().blocks[m], count = made[m].clientWidth < 3 * size ? 4 : 9;
      noise[m] = dim ? Array.from({ length: count }, () => normals(dim)) : null;
      notes[m].textContent = dim ? `z${m} from the prior` : "";
      made[m].setAttribute("aria-label", `x ${m}, decoded${dim ? `: ${count} samples of z ${m} from the prior` : ""}`);
      made[m].classList.toggle("sampled", dim > 0);
      rows[m]?.forEach(({ range }) => { range.disabled = dim > 0; });
      paint(seen[m], [x[m]], size);
      drawn[m] = null;
    }
    for (const [b, { mu, logvar }] of Object.entries(q)) mu.forEach((mean, i) => rows[b][i].mark(mean, Math.exp(logvar[i] / 2)));
    if (!first) put({ latents: all((b) => q[b].mu) });
    draw();
  }

  function draw() {  // only what the latents that have moved can reach
    const z = get("latents");
    for (const b in z) rows[b]?.forEach((row, k) => row.set(z[b][k]));
    for (const m of net ? ms : []) {
      const code = `${reaching(z, m)}`;
      if (drawn[m] !== code) paint(made[m], (noise[m] ?? [z[m]]).map((own) => decode(net, { ...z, [m]: own }, m, size * size)), size);
      drawn[m] = code;
    }
  }

  const again = () => { queued = null; see().catch((error) => say(`This failed: ${error.message}`)); };
  model.on("change:model", build);
  for (const name of ["model", "pair", "observed", "factors"])  // once for several
    model.on(`change:${name}`, () => { queued ??= Promise.resolve().then(again); });
  model.on("change:latents", draw);
  build();
  await see(true);
  return stop;
}

const renderers = { explorer: render };
