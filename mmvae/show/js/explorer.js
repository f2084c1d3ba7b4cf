// The explorer: sliders for the latents of a trained model, for the factors of what it sees, and what it makes of them.
// What the package builds runs here (nets.js); other models are asked in their kernel. mmvae/show/widgets.py is its Python half.

const SPAN = 2.5, PERIOD = 3200;  // standard deviations, ms of a traversal

async function render({ model, el }) {
  const { modalities, given, models, pairs, noun, factors, axes, owners, sprites, colours, clips } = model.get("config");
  const { need, ask } = talk(model), get = (name) => model.get(name), about = () => models[get("model")];
  const asked = newest(ask), inferred = newest(ask), all = Object.keys(modalities), ms = all.filter((m) => given[m]);
  const still = Object.keys(models).filter((name) => models[name].live && model.unattended);  // no kernel is there
  if (still.includes(get("model"))) model.set("model", Object.keys(models).find((name) => !still.includes(name)));
  const rows = {}, noise = {}, drawn = {}, sounds = {};
  let q, net, tiles, sheet, playing, turn = 0, queued;

  const put = (changes) => { for (const name in changes) model.set(name, changes[name]); model.save_changes(); };
  const blocks = (value) => Object.fromEntries(Object.entries(about().blocks).map(([b, dim]) => [b, value(b, dim)]));
  const move = (b, k, value) => put({ latents: { ...get("latents"), [b]: get("latents")[b].with(k, value) } });
  const able = (subset) => subset in about().infer || (!subset && Object.keys(about().infer).length > 1);
  const x_ = (m) => h("b", {}, "x", h("sub", {}, m)), x = (m) => `x ${m}`;

  const button = (name, onclick) => h("button", { type: "button", onclick }, name);
  const large = all.length > 2 ? 136 : LARGE;  // three still stand side by side
  const seen = from(ms, (m) => view(modalities[m], `${x(m)}, given`, { "data-seen": m }));
  const made = from(all, (m) => view({ ...modalities[m], large }, `${x(m)}, decoded`, { "data-made": m })), notes = from(all, () => h("span"));
  const hear = (m, what, sound) => h("button", { type: "button", class: "play hear", "aria-label": `play ${x(m)}, ${what}`, onclick: async () => {
    try { await new Audio(URL.createObjectURL(new Blob([await sound()], { type: "audio/wav" }))).play(); }
    catch (error) { say(`This failed: ${error.message}`); }
  } });
  const heard = from(ms.filter((m) => clips[m]), (m) => hear(m, "given", () => need(clips[m][get("pair")])));
  const imagined = (m) => (clips[m] && !model.unattended ? hear(m, "decoded", () =>
    ask({ model: get("model"), listen: m, values: [...sounds[m]] }).then(({ buffers }) => buffers[0])) : "");
  const switches = from(ms, (m) => h("input", { type: "checkbox", "data-switch": m,
    onchange: () => put({ observed: ms.filter((k) => switches[k].checked).join("+") }) }));
  const pick = h("select", { "aria-label": "model", onchange: () => put({ model: pick.value }) },
    ...Object.entries(models).map(([value, { label }]) => h("option", { value, ...(still.includes(value) && { disabled: "" }) }, label)));
  const presets = pairs.map((at, k) => button(`${noun} ${k + 1}`, () => put({ pair: k, factors: at })));
  const turns = Object.entries(factors).map(([f, words]) => [f, slider({ name: f, min: 0, max: words.length - 1, step: 1,
    value: 0, text: (k) => words[k], colour: colours[owners[f]], data: f,
    input: (k) => put({ pair: -1, factors: { ...get("factors"), [f]: k } }) })]);
  const why = h("p", { class: "why" }), latents = h("div"), alone = still.map((name) => `${models[name].label}: ${models[name].live}`);
  const { root, say } = frame(el,
    h("div", { class: "bar" }, ...(pick.length > 1 ? [pick] : []), ...presets,
      button("sample from the prior", () => { stop(); put({ latents: blocks((b, dim) => normals(dim)) }); }),
      button("reset", () => { stop(); put({ latents: blocks((b) => q[b].mu) }); })),
    ...alone.map((text) => h("p", { class: "why" }, text)),
    h("div", { class: "halves" },
      h("section", {}, h("h4", {}, "The model sees"), h("div", { class: "pictures" }, ...ms.map((m) => h("figure", {},
        h("div", { class: "shown" }, seen[m].element, heard[m] ?? ""), h("label", {}, switches[m], " ", x_(m), " observed")))),
      why, ...turns.map(([, row]) => row.element)),
      h("section", {}, h("h4", {}, "It makes of it"), h("div", { class: "pictures", style: `--box:${large}px` }, ...all.map((m) =>
        h("figure", {}, h("div", { class: "shown" }, made[m].element, imagined(m)), h("figcaption", {}, x_(m), " ", notes[m])))), latents)));

  function build() {  // the sliders of the chosen model
    net = null;
    latents.replaceChildren(...Object.entries(about().blocks).filter(([, dim]) => dim).map(([b, dim]) => {
      const z = b === "Z" ? "z" : `z ${b}`, title = about().titles[b], colour = colours[b];
      rows[b] = Array.from({ length: dim }, (_, k) => slider({ name: `${k + 1}`, spoken: `${z} ${k + 1}${title && `, ${title}`}`,
        min: -3, max: 3, step: 0.05, value: 0, colour, data: b + k, input: (value) => { stop(); move(b, k, value); },
        before: h("button", { type: "button", class: "play", "aria-label": `play ${z} ${k + 1}`, onclick: () => play(b, k) }) }));
      return h("fieldset", { class: "ink", style: tint(colour) }, h("legend", {}, "z", h("sub", {}, b === "Z" ? "" : b), h("i", {}, title)),
        ...rows[b].map((row) => row.element));
    }));
  }

  const stop = () => { playing?.classList.remove("playing"); playing = null; };

  function play(b, k) {  // to and fro from where it stands; for readers who ask for no motion, a step a click
    const row = rows[b][k].element, again = playing === row, value = get("latents")[b][k];
    stop();
    if (again) return;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return move(b, k, value >= 2 ? -2 : Math.floor(value) + 1);
    const phase = Math.asin(within(-1, 1, value / SPAN));
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
    try { return await (ready[name] ??= need(name).then(weights)); } catch (error) { delete ready[name]; throw error; }
  }

  async function images(k, at) {  // {modality: its numbers}: a preset, or a cell of the grid of factors
    tiles ??= Promise.all(ms.map((m) => read(given[m], modalities[m])));
    if (k >= 0) return tiles.then((read) => Object.fromEntries(ms.map((m, i) => [m, read[i](k)])));
    const [height, width] = modalities[ms[0]].size, n = (f) => factors[f].length;
    if (!sheet) say("Loading the faces \u2026");
    sheet ??= await greys(URL.createObjectURL(new Blob([await need(sprites)])), width, height);
    let start = 0;
    return Object.fromEntries(Object.entries(axes).map(([m, names]) => {
      const index = start + names.reduce((i, f) => i * n(f) + at[f], 0);
      start += names.reduce((product, f) => product * n(f), 1);
      return [m, sheet(index)];
    }));
  }

  async function infer(subset, x, k) {  // {block: {mu, logvar}}
    if (subset === about().whole && k >= 0) return about().start[k];
    if (!subset || !about().live) return posterior(subset && (await load("encoders")), about(), subset, x);
    return (await inferred({ model: get("model"), subset: subset.split("+"), pair: k, factors: get("factors") }))?.posterior;
  }

  async function see(first) {  // what is given may have changed: the pictures, the posterior, the latents at its mean
    const mine = ++turn, k = get("pair"), subset = able(get("observed")) ? get("observed") : about().whole;
    const shown = subset.split("+"), without = (m) => ms.filter((o) => (o === m) !== shown.includes(o)).join("+");
    stop();
    pick.value = get("model");
    presets.forEach((preset, i) => preset.setAttribute("aria-pressed", i === k));
    turns.forEach(([f, row]) => row.set(get("factors")[f]));
    ms.forEach((m) => {
      [switches[m].disabled, switches[m].checked] = [!able(without(m)), shown.includes(m)];
      seen[m].element.classList.toggle("missing", !shown.includes(m));
      if (heard[m]) heard[m].hidden = k < 0;
    });
    why.textContent = ms.length < 2 || ms.some((m) => able(without(m))) ? ""
      : `It needs ${ms.length > 2 ? "all of them" : "both"}: nothing can be switched off.`;
    const values = await images(k, get("factors")), found = await infer(subset, values, k), decoders = about().live ? {} : await load("decoders");
    if (mine !== turn || !found) return;  // something else has changed in the meantime
    [q, net] = [found, decoders];
    say("");
    ms.forEach((m) => seen[m].show([values[m]]));
    for (const m of all) {
      const dim = shown.includes(m) ? 0 : about().blocks[m], picture = modalities[m].kind === "picture";
      noise[m] = dim ? Array.from({ length: made[m].count() }, () => normals(dim)) : null;
      notes[m].replaceChildren(...(dim ? ["z", h("sub", {}, m.length < 3 ? m : ""), picture ? " from the prior" : " from prior, \u00b1 sd"] : []));
      made[m].name = `${x(m)}, decoded${dim ? `: ${picture ? noise[m].length : "the mean of"} samples of z ${m} from the prior` : ""}`;
      made[m].element.classList.toggle("sampled", !!dim);
      rows[m]?.forEach(({ range }) => { range.disabled = dim > 0; });
      drawn[m] = null;
    }
    for (const [b, { mu, logvar }] of Object.entries(q)) mu.forEach((mean, i) => rows[b][i].mark(mean, Math.exp(logvar[i] / 2)));
    if (!first) put({ latents: blocks((b) => q[b].mu) });
    await draw();
  }

  function show(m, draws) { sounds[m] = draws[0]; made[m].show(draws, made[m].name); }

  async function draw() {  // only what the latents that have moved can reach
    const z = get("latents"), draws = (m) => (noise[m] ?? [z[m]]).map((own) => (own ? { ...z, [m]: own } : z)), { make, live } = about();
    for (const b in z) rows[b]?.forEach((row, k) => row.set(z[b][k]));
    if (!net) return;
    const moved = all.filter((m) => drawn[m] !== (drawn[m] = live ? JSON.stringify(z) : `${reaching(make[m], z)}`));
    if (!live) return moved.forEach((m) => show(m, draws(m).map((one) => decode(net, make[m], one))));
    const mine = turn, found = moved.length && (await asked({ model: get("model"), means: from(all, draws) }));
    if (!found || mine !== turn) return;
    found.means.forEach((m, i) => {
      const { buffer, byteOffset, byteLength } = found.buffers[i], values = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
      const count = draws(m).length, n = values.length / count;
      show(m, Array.from({ length: count }, (_, k) => values.subarray(k * n, (k + 1) * n)));
    });
  }

  const failed = (error) => say(`This failed: ${error.message}`);
  const again = () => { queued = null; see().catch(failed); };
  model.on("change:model", build);
  for (const name of ["model", "pair", "observed", "factors"])  // once for several
    model.on(`change:${name}`, () => { queued ??= Promise.resolve().then(again); });
  model.on("change:latents", () => { draw().catch(failed); });
  build();
  await see(true);
  return stop;
}

const renderers = { explorer: render };
