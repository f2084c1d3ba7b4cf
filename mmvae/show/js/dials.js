// A dial for each latent of a small model of a pair, and a switch that hides the second picture: it is then imagined, nine times.
// The networks: nets.js. mmvae/experiment/dials.py is its Python half.

const DRAWS = 9;

async function dials({ model, el }) {
  const { size, names, make, decoders, start, colours } = model.get("config"), ms = Object.keys(make), [first, second] = ms;
  const get = (name) => model.get(name), x = (m) => h("b", {}, "x", h("sub", {}, m)), blocks = Object.keys(names);
  const put = (changes) => { for (const name in changes) model.set(name, changes[name]); model.save_changes(); };
  const net = await talk(model).need(decoders).then(weights);
  let touched, shown, noise, was = false;

  const canvases = from(ms, (m) => h("canvas", { role: "img", "data-made": m })), notes = from(ms, () => h("figcaption"));
  const says = h("p", { class: "words", role: "status" });
  const rows = from(blocks, (b) => slider({ name: h("span", {}, `${names[b]} `, h("i", {}, "z", h("sub", {}, b))), spoken: `${names[b]}, z ${b}`,
    min: -2.5, max: 2.5, step: 0.05, value: 0, colour: colours[b], data: b,
    input: (value) => { touched = b; put({ latents: { ...get("latents"), [b]: value } }); } }));
  const hide = h("input", { type: "checkbox", "data-switch": second, onchange: () => put({ hidden: hide.checked }) });
  const back = h("button", { type: "button", onclick: () => { touched = ""; put({ latents: start, hidden: false }); } }, "reset");
  const { element: list, done } = tasks({ both: "Find the dial that moves both pictures.", one: "Find a dial that moves only one.",
    hide: "Hide the second picture, and move the first one." });
  frame(el, h("div", { class: "pair dials" }, h("div", { class: "pictures" }, ...ms.map((m) => h("figure", {}, canvases[m], notes[m]))),
    h("div", {}, ...blocks.map((b) => rows[b].element), h("div", { class: "checks" }, h("label", {}, hide, " hide the second picture"), back))), says, list);

  function tell(changed, hidden) {  // what the last touch did, of the pictures as they are painted
    const kept = ms.filter((m) => !changed.includes(m)), many = hidden ? "all nine " : "", name = (m) => (m === second ? [many, x(m)] : [x(m)]);
    const who = touched && h("span", { class: "ink", style: tint(colours[touched]) }, names[touched][0].toUpperCase() + names[touched].slice(1), ": ");
    if (hidden !== was) return hidden ? [x(second), " is hidden, and the model imagines it: the same head nine times, each under a lamp drawn from the prior of z",
      h("sub", {}, second), "."] : [x(second), " is seen again, under its own lamp."];
    if (touched === "") return ["Back at the pair that the model was given."];
    if (!who || !changed.length) return says.childNodes.length ? [...says.childNodes] : ["Move a dial. Which of the two pictures will change?"];
    if (!kept.length) return [who, ...name(first), " and ", ...name(second), " have changed: this latent is shared."];
    return [who, "only ", ...name(changed[0]), " has changed; ", ...name(kept[0]), kept[0] === second && hidden ? " have" : " has", " kept every pixel."];
  }

  function draw() {
    const z = from(blocks, (b) => [get("latents")[b]]), hidden = get("hidden");
    if (hidden && !noise) noise = Array.from({ length: DRAWS }, () => normals(1));
    if (!hidden) noise = null;
    const all = from(ms, (m) => (m === second && hidden ? noise.map((own) => ({ ...z, [second]: own })) : [z]).map((one) => decode(net, make[m], one)));
    const levels = from(ms, (m) => all[m].map((image) => image.map((v) => Math.round(255 * v)).join()).join());
    const changed = ms.filter((m) => shown && levels[m] !== shown[m]);
    for (const b of blocks) rows[b].set(get("latents")[b]);
    for (const m of ms) {
      paint(canvases[m], all[m], { size: [size, size] });
      canvases[m].classList.toggle("moved", changed.includes(m) && hidden === was);
      canvases[m].classList.toggle("sampled", m === second && hidden);
      canvases[m].setAttribute("aria-label", m === second && hidden ? `x ${m}, hidden: nine pictures, z ${m} from the prior` : `x ${m}, a head`);
      notes[m].replaceChildren(x(m), m === first ? " the first picture" : hidden ? " imagined nine times" : " the second picture");
    }
    rows[second].range.disabled = hide.checked = hidden;
    says.replaceChildren(...tell(changed, hidden));
    if (touched && hidden === was) done(changed.length > 1 ? "both" : changed.length ? "one" : "");
    if (touched && hidden && was && changed.includes(first)) done("hide");
    [shown, was, touched] = [levels, hidden, undefined];
  }

  let queued;
  const again = () => { queued ??= Promise.resolve().then(() => { queued = null; draw(); }); };
  for (const name of ["latents", "hidden"]) model.on(`change:${name}`, again);
  draw();
}

const renderers = { dials };
