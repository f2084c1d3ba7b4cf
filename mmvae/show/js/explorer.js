// The explorer: sliders for the latents of a trained model, for the factors of what it sees, and what it makes of them.
// What the package builds runs here (nets.js); other models are asked in their kernel. mmvae/show/widgets.py is its Python half.

const SPAN = 2.5, PERIOD = 3200, MOST = 32, OWN = -2;  // standard deviations, ms of a traversal, draws at most, no preset

async function render({ model, el }) {
  const { modalities, given, models, pairs, noun, factors, axes, owners, sprites, colours, clips, begin, bytes, unseen } = model.get("config");
  const { need, ask } = talk(model), get = (name) => model.get(name), about = () => models[get("model")];
  const asked = newest(ask), inferred = newest(ask), all = Object.keys(modalities), ms = all.filter((m) => given[m]);
  const still = Object.keys(models).filter((name) => models[name].live && model.unattended);  // no kernel is there
  if (still.includes(get("model"))) model.set("model", Object.keys(models).find((name) => !still.includes(name)));
  const rows = {}, drawn = {}, shown = {}, dims = () => Object.entries(about().blocks).filter(([, dim]) => dim);
  let noise = {}, q, net, values = {}, tiles, sheet, playing, turn = 0, queued, acting, free = false, mine, touch = {}, since = {}, late = 0;

  const put = (changes) => {
    acting = true;
    for (const name in changes) model.set(name, changes[name]);
    model.save_changes();
    acting = false;
  };
  const by = (next, changes) => { touched(next); put(changes); };  // what a hand does
  function touched(next) {  // from here on changes are counted, until something else is touched
    if (JSON.stringify(next) !== JSON.stringify(touch)) since = { shown: { ...shown }, values, q, pair: get("pair"), factors: get("factors") };
    touch = next;
  }
  const blocks = (value) => Object.fromEntries(Object.entries(about().blocks).map(([b, dim]) => [b, value(b, dim)]));
  const move = (b, k, value) => by({ b, k }, { latents: { ...get("latents"), [b]: get("latents")[b].with(k, value) } });
  const able = (subset) => subset in about().infer || (!subset && Object.keys(about().infer).length > 1);
  const isPicture = (m) => modalities[m].kind === "picture", reach = (m) => Object.keys(about().blocks).filter((b) => b === m || !all.includes(b));
  const x_ = (m) => h("b", {}, "x", h("sub", {}, m)), x = (m) => `x ${m}`;
  const z_ = (b, k) => h("b", { class: "ink", style: tint(colours[b]) }, "z", h("sub", {}, b === "Z" ? "" : b), ...(k === undefined ? [] : [` ${k + 1}`]));
  const does = (b, k) => about().does?.[b]?.[k], worn = (b, k) => [z_(b, k), ...(does(b, k) ? [` (${does(b, k)})`] : [])];

  const button = (name, onclick, more = {}) => h("button", { type: "button", onclick, ...more }, name);
  const large = all.length > 2 ? 136 : LARGE;  // three still stand side by side
  const seen = from(ms, (m) => view(modalities[m], `${x(m)}, given`, { "data-seen": m }));
  const made = from(all, (m) => view({ ...modalities[m], large }, `${x(m)}, decoded`, { "data-made": m })), notes = from(all, () => h("span"));
  const inUse = from(ms, () => h("span", {}, "given"));
  const hear = (m, what, sound) => h("button", { type: "button", class: "play hear", "aria-label": `play ${x(m)}, ${what}`, onclick: async () => {
    try { await new Audio(URL.createObjectURL(new Blob([await sound()], { type: "audio/wav" }))).play(); } catch (error) { failed(error); }
  } });
  const heard = from(ms.filter((m) => clips[m]), (m) => hear(m, "given", () => need(clips[m][get("pair")])));
  const imagined = (m) => (clips[m] && !model.unattended ? hear(m, "decoded", () =>
    ask({ model: get("model"), listen: m, values: [...shown[m][0]] }).then(({ buffers }) => buffers[0])) : "");
  const switches = from(ms, (m) => h("input", { type: "checkbox", "data-switch": m,
    onchange: () => by({ sees: m }, { observed: ms.filter((k) => switches[k].checked).join("+") }) }));
  const pick = h("select", { "aria-label": "model", onchange: () => by({ model: pick.value }, { model: pick.value }) },
    ...Object.entries(models).map(([value, { label }]) => h("option", { value, ...(still.includes(value) && { disabled: "" }) }, label)));
  const presets = pairs.map((at, k) => button(`${noun} ${k + 1}`, () => by({ pair: k }, { pair: k, factors: at })));
  const turns = Object.entries(factors).map(([f, words]) => [f, slider({ name: f, min: 0, max: words.length - 1, step: 1,
    value: 0, text: (k) => words[k], colour: colours[owners[f]], data: f,
    input: (k) => by({ f }, { pair: -1, factors: { ...get("factors"), [f]: k } }) })]);
  const places = ms.filter((m) => Object.values(models).some(({ known }) => known[m])), far = h("p", { class: "far", role: "status" });
  const own = places.length ? drawing({ places, views: modalities, x,
    given: (m) => images(get("pair") === OWN ? 0 : get("pair"), get("factors")).then((found) => found[m]),
    far, changed: (m, numbers) => { mine = { m, numbers }; touched({ own: m }); if (get("pair") === OWN) again(); else put({ pair: OWN }); } }) : null;
  const mineButton = own && button("your own picture", () => { if (get("pair") !== OWN) own.open().catch(failed); }, { "data-own": "" });
  const why = h("p", { class: "why" }), latents = h("div"), alone = still.map((name) => `${models[name].label}: ${models[name].live}`);
  const sees = h("p", { class: "head" }), makes = h("p", { class: "head" }), says = h("p", { class: "words", role: "status" }), progress = h("progress", { max: 1, "aria-label": "loading", hidden: "" });
  const two = ms.length > 1 && dims().some(([b]) => all.includes(b)), most = places.length && Object.values(models).some(({ known }) => known[places[0]]);
  const ideas = [two && ["one", "Find a latent that changes one picture, and leaves every pixel of the other."], all.length > 1 && able("") &&
      ["hide", "Take a picture away, and see what is imagined in its place."], most && ["far", "Draw something that the model rebuilds worse than any picture here."],
    turns.length && ["turn", "Turn one factor of the input, until a latent\u2019s bar has moved by more than 1."], ["idle", "Find a latent that changes next to nothing."],
    ["prior", "Sample from the prior, and then move a latent."], ["both", "Find a latent that changes something by more than ten grey levels a pixel."]];
  const { element: list, done } = tasks(Object.fromEntries(ideas.filter(Boolean).slice(0, 3)));
  const dials = h("div", {}, ...turns.map(([, row]) => row.element));
  const halves = h("div", { class: "halves" },
    h("section", {}, sees, h("div", { class: "pictures" }, ...ms.map((m) => h("figure", {},
      h("div", { class: "shown" }, seen[m].element, heard[m] ?? ""), h("label", {}, switches[m], " ", x_(m), " ", inUse[m])))),
    why, dials, ...(own ? [own.element] : [])),
    h("section", {}, makes, h("div", { class: "pictures", style: `--box:${large}px` }, ...all.map((m) =>
      h("figure", {}, h("div", { class: "shown" }, made[m].element, imagined(m)), h("figcaption", {}, x_(m), " ", notes[m])))), says, latents));
  const bar = h("div", { class: "bar" }, ...(pick.length > 1 ? [pick] : []), ...presets, ...(own ? [mineButton] : []),
    button("sample from the prior", () => { stop(); [free, noise] = [true, {}]; by({ prior: Math.random() }, { latents: blocks((b, dim) => normals(dim)) }); }),
    button("reset", () => { stop(); touched({ reset: Math.random() }); again(); }));
  const { root, say, line } = frame(el, bar, ...alone.map((text) => h("p", { class: "why" }, text)), halves, list);
  halves.before(h("div", { class: "load-line" }, line, progress));
  const busy = (on) => { halves.inert = on; };

  function build() {  // the sliders of the chosen model
    net = null;
    for (const b in rows) delete rows[b];
    latents.replaceChildren(...dims().map(([b, dim]) => {
      const z = b === "Z" ? "z" : `z ${b}`, title = about().titles[b], colour = colours[b];
      rows[b] = Array.from({ length: dim }, (_, k) => slider({ name: `${k + 1}`, spoken: `${z} ${k + 1}${title && `, ${title}`}${does(b, k) ? `, ${does(b, k)}` : ""}`,
        min: -3, max: 3, step: 0.05, value: 0, colour, data: b + k, does: does(b, k), input: (value) => { stop(); move(b, k, value); },
        before: h("button", { type: "button", class: "play", "aria-label": `play ${z} ${k + 1}`, onclick: () => play(b, k) }) }));
      return h("fieldset", { class: "ink", style: tint(colour) }, h("legend", {}, "z", h("sub", {}, b === "Z" ? "" : b), h("i", {}, title)),
        ...rows[b].map((row) => row.element));
    }), Object.keys(about().does).length ? h("p", { class: "small" }, "\u2248: the share of a latent\u2019s variance that goes with this factor, on data not learnt from.") : "");
  }

  const stop = () => { playing?.classList.remove("playing"); playing = null; };

  function play(b, k) {  // to and fro from where it stands; for readers who ask for no motion, a step a click
    const row = rows[b][k].element, same = playing === row, value = get("latents")[b][k];
    stop();
    if (same) return;
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

  function fetched(name) {  // an asset's weights; what has failed can be asked for again
    const found = (ready[name] ??= need(name, bytes[name], (share) => { progress.value = share; }).then(weights));
    found.then(() => { found.here = true; }, () => { delete ready[name]; });
    return found;
  }
  function faces() {
    const [height, width] = modalities[ms[0]].size;
    sheet ??= need(sprites, bytes[sprites], (share) => { progress.value = share; })
      .then((found) => greys(URL.createObjectURL(new Blob([found])), width, height));
    sheet.then(() => { sheet.here = true; }, () => { sheet = null; });
    return sheet;
  }
  async function waiting(what, found) {  // until it is there
    if (!found.here) {
      say(`Loading the ${what} \u2026`);
      progress.hidden = false;
    }
    try { return await found; } finally { progress.hidden = true; }
  }
  const load = (part) => waiting(`${part} of ${about().label}`, fetched(about()[part]));  // "decoders" or "encoders"

  async function images(k, at) {  // {modality: its numbers}: a preset, a cell of the grid of factors, or the reader's own
    tiles ??= Promise.all(ms.map((m) => read(given[m], modalities[m])));
    if (k === OWN) return from(ms, (m) => (about().known[mine.m]?.subset.split("+").includes(m) ? mine.numbers : mine.numbers.map(() => modalities[m].low)));
    if (k >= 0) return tiles.then((read) => Object.fromEntries(ms.map((m, i) => [m, read[i](k)])));
    const cell = await waiting("faces", faces()), n = (f) => factors[f].length;
    let start = 0;
    return Object.fromEntries(Object.entries(axes).map(([m, names]) => {
      const index = start + names.reduce((i, f) => i * n(f) + at[f], 0);
      start += names.reduce((product, f) => product * n(f), 1);
      return [m, cell(index)];
    }));
  }

  async function infer(subset, x, k, at = get("factors")) {  // {block: {mu, logvar}}
    if (subset === about().whole && k >= 0) return about().start[k];
    if (!subset || !about().live) return posterior(subset && (await load("encoders")), about(), subset, x);
    return (await inferred({ model: get("model"), subset: subset.split("+"), pair: k, factors: at }))?.posterior;
  }

  async function see(first) {  // what is given may have changed: the pictures, the posterior, the latents at its mean
    if (get("pair") === OWN && !(mine && about().known[mine.m])) return put({ pair: 0, factors: pairs[0] });  // that model is shown none
    const here = ++turn, k = get("pair"), subset = k === OWN ? about().known[mine.m].subset : able(get("observed")) ? get("observed") : about().whole;
    const seeing = subset ? subset.split("+") : [], without = (m) => ms.filter((o) => (o === m) !== seeing.includes(o)).join("+");
    stop();
    pick.value = get("model");
    presets.forEach((preset, i) => preset.setAttribute("aria-pressed", i === k));
    mineButton?.setAttribute("aria-pressed", k === OWN);
    if (own) [own.element.hidden, dials.hidden] = [k !== OWN && !touch.own, k === OWN];
    if (k !== OWN) far.replaceChildren();
    turns.forEach(([f, row]) => row.set(get("factors")[f]));
    ms.forEach((m) => {
      [switches[m].disabled, switches[m].checked] = [k === OWN || !able(without(m)), seeing.includes(m)];
      seen[m].element.classList.toggle("missing", !seeing.includes(m));
      if (heard[m]) heard[m].hidden = k < 0;
    });
    why.textContent = ms.length < 2 || k === OWN || ms.some((m) => able(without(m))) ? ""
      : `It needs ${ms.length > 2 ? "all of them" : "both"}: nothing can be switched off.`;
    const numbers = await images(k, get("factors")), found = await infer(subset, numbers, k);
    if (touch.f && since.pair >= 0) {  // from a preset to the grid of factors: changes are counted on the grid
      [since.values, since.pair] = [await images(-1, since.factors), -1];
      since.q = await infer(subset, since.values, -1, since.factors);
    }
    if (first && found && get("model") === Object.keys(models)[0] && k === 0) await ahead(numbers, found);
    const decoders = about().live ? {} : await load("decoders");
    if (here !== turn || !found) return;  // something else has changed in the meantime
    [q, net, values, free] = [found, decoders, numbers, false];
    say("");
    ms.forEach((m) => seen[m].show([values[m]]));
    const open = dims().filter(([b]) => !seeing.length || (all.includes(b) && !seeing.includes(b)));  // of which nothing given tells
    noise = Object.fromEntries(open.map(([b, dim]) => [b, noise[b]?.[0].length === dim ? noise[b] : Array.from({ length: MOST }, () => normals(dim))]));
    all.forEach((m) => { drawn[m] = null; });
    marks(q);
    if (!first) put({ latents: blocks((b) => q[b].mu) });
    busy(false);
    await draw();
    if (k === OWN) judge();
  }

  const marks = (q) => Object.entries(q).forEach(([b, { mu, logvar }]) => mu.forEach((mean, i) => rows[b][i].mark(mean, Math.exp(logvar[i] / 2))));

  async function ahead(numbers, found) {  // the first pictures, which the page has as pictures: the networks are on their way
    busy(true);
    const ready = await Promise.all(all.map((m) => begin[m] && read({ png: begin[m] }, modalities[m])));
    ms.forEach((m) => seen[m].show([numbers[m]]));
    all.forEach((m, i) => { if (ready[i]) made[m].show([ready[i](0)]); });
    q = found;
    marks(found);
    for (const b in found) rows[b]?.forEach((row, k) => row.set(found[b].mu[k]));
    names();
    el.closest(".mmvae-space")?.setAttribute("data-drawn", "");
  }

  function names() {  // what is given, what is rebuilt, and what is imagined
    const z = get("latents"), hand = (b) => !noise[b] && q?.[b].mu.some((mean, k) => Math.abs(mean - z[b][k]) > 1e-9);
    const seeing = ms.filter((m) => switches[m].checked), moved = Object.keys(z).some(hand);
    sees.textContent = free ? "The model sees nothing" : get("pair") === OWN ? "The model sees yours" : seeing.length ? "The model sees" : "The model sees nothing";
    makes.textContent = free || !seeing.length ? "It imagines" : moved ? "Moved by hand" : "It makes of it";
    halves.firstChild.classList.toggle("unused", free);
    halves.classList.toggle("free", free);  // no posterior is in force
    for (const m of ms) inUse[m].textContent = free ? "put aside" : "given";
    for (const m of all) {
      const open = reach(m).filter((b) => noise[b]), picture = isPicture(m), inside = !free && seeing.includes(m);
      const times = open.length ? (picture ? `, ${made[m].count()} times` : ", \u00b1 sd") : "";
      notes[m].replaceChildren(inside ? (reach(m).some(hand) ? "rebuilt, moved by hand" : "rebuilt") : "imagined",
        ...(free ? [" from the prior"] : open.length ? [", ", ...many(open.map((b) => ["z", h("sub", {}, b.length < 3 && b !== "Z" ? b : "")])), ` from the prior${times}`] : []));
      made[m].name = `${x(m)}, ${notes[m].textContent}`;
      made[m].element.classList.toggle("sampled", open.length > 0 || free);
    }
    for (const b in rows) rows[b].forEach(({ element, range }) => { element.querySelector("button").disabled = range.disabled = b in noise; });
  }

  function show(m, draws) { shown[m] = draws; made[m].show(draws, made[m].name); }

  async function draw() {  // only what the latents that have moved can reach
    const z = get("latents"), { make, live } = about(), open = (m) => reach(m).filter((b) => noise[b]);
    const draws = (m) => (open(m).length ? Array.from({ length: made[m].count() }, (_, i) => ({ ...z, ...from(open(m), (b) => noise[b][i]) })) : [z]);
    for (const b in z) rows[b]?.forEach((row, k) => row.set(z[b][k]));
    if (!net) return;
    names();
    const moved = all.filter((m) => drawn[m] !== (drawn[m] = `${free} ${live ? JSON.stringify(z) : reaching(make[m], z)}`));
    if (live) {
      const here = turn, found = moved.length && (await asked({ model: get("model"), means: from(all, draws) }));
      if (!found || here !== turn) return;
      found.means.forEach((m, i) => {
        const { buffer, byteOffset, byteLength } = found.buffers[i], numbers = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
        const count = draws(m).length, n = numbers.length / count;
        show(m, Array.from({ length: count }, (_, k) => numbers.subarray(k * n, (k + 1) * n)));
      });
    } else moved.forEach((m) => show(m, draws(m).map((one) => decode(net, make[m], one))));
    tell();
  }

  function tell() {  // and outline what has moved
    const { b, k, f } = touch, differ = (list, before, now) => from(list, (m) => apart(before?.[m], now(m), modalities[m]));
    const moving = b ? differ(all, since.shown, (m) => shown[m]) : {}, turning = f ? differ(ms, from(ms, (m) => [since.values[m]]), (m) => [values[m]]) : {};
    for (const m of all) made[m].element.classList.toggle("moved", moving[m] > 0);
    for (const m of ms) seen[m].element.classList.toggle("moved", turning[m] > 0);
    const changed = Object.values(moving).filter(Boolean).length, seeing = ms.filter((m) => switches[m].checked), sd = f && since.q && farthest(since.q, q);
    if (b && changed === 1 && all.length > 1) done("one");
    if (b && Math.max(...Object.values(moving)) > 10) done("both");
    if (b && Math.abs(get("latents")[b][k] - q[b].mu[k]) > 1 && Math.max(...Object.values(moving)) < 0.5) done("idle");
    if (b && free) done("prior");
    if (!free && get("pair") !== OWN && seeing.length < ms.length) done("hide");
    if (sd && Math.abs(sd[2]) > 1) done("turn");
    if (playing && performance.now() - late < 250) return;
    late = performance.now();
    const hidden = ms.filter((m) => !seeing.includes(m)), open = Object.keys(noise);
    says.replaceChildren(...(b ? [...worn(b, k), ": ", ...changes(moving, x_, isPicture)]
      : f ? [`${f}: `, ...changes(turning, x_, isPicture), ...(sd[0] ? [" The posterior of ", ...worn(sd[0], sd[1]), ` has moved most, by ${signed(sd[2])}.`] : [])]
      : free ? ["No picture is given: every latent is a draw from the prior."]
      : get("pair") === OWN ? ["Yours is given as ", ...many(seeing.map((m) => [x_(m)])), "; here is what the model makes of it."]
      : touch.sees && hidden.length ? (seeing.length ? [...many(hidden.map((m) => [x_(m)])), hidden.length > 1 ? " are hidden, and the model imagines them" : " is hidden, and the model imagines it",
        ...(open.length ? [": ", ...many(open.map((b) => [z_(b)])), open.length > 1 ? " come from the prior." : " comes from the prior."] : [" from what is given."])]
        : ["Nothing is given: ", ...many(open.map((b) => [z_(b)])), " come from the prior, the shared one too."])
      : touch.sees ? [x_(touch.sees), " is given again."] : "reset" in touch ? ["Back at the means of the posterior of what is given."]
      : "pair" in touch ? [`${noun[0].toUpperCase()}${noun.slice(1)} ${touch.pair + 1} is given.`] : touch.model ? [`${about().label} sees the same now.`]
      : touch.python ? ["The latents were moved from Python."] : ["Move a latent. Which pictures will change?"]));
  }

  function judge() {  // the reader's own picture: how well the model rebuilds it
    const known = about().known[mine.m], off = distance(known.unit, mine.numbers, shown[mine.m][0]);
    const whose = unseen ? `pictures of ${unseen} people whom it has never seen` : `${noun}s to start from`;
    far.replaceChildren(verdict(off, known, whose));
    if (share(known.at, off) === 1) done("far");
  }

  const failed = (error) => { busy(false); progress.hidden = true; say(`This failed: ${error.message}.`, () => { say(""); again(); }); };
  const again = () => { queued = null; see().catch(failed); };
  model.on("change:model", build);
  for (const name of ["model", "pair", "observed", "factors"])  // once for several
    model.on(`change:${name}`, () => { if (name === "model") busy(true); queued ??= Promise.resolve().then(again); });
  model.on("change:latents", () => { if (!acting) touched({ python: 1 }); draw().catch(failed); });
  build();
  await see(true);
  busy(false);
  new IntersectionObserver(([{ isIntersecting }]) => { if (!isIntersecting) stop(); }).observe(root);  // nothing plays unseen
  if (model.unattended && !navigator.connection?.saveData) (globalThis.requestIdleCallback ?? ((f) => setTimeout(f, 2000)))(() => {
    if (about().encoders) fetched(about().encoders).catch(() => {});  // what will be needed next
    if (sprites) faces().catch(() => {});
  });
  return stop;
}

const renderers = { explorer: render };
