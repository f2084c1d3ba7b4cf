// What all widgets share: elements, sliders, colours, and talk with whoever answers: a kernel, or the page's host.

function h(tag, attributes = {}, ...children) {  // h("button", { class: "play", onclick: f }, "text", element)
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const signed = (value, digits = 2) => (+value.toFixed(digits) < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);
const from = (keys, make) => Object.fromEntries(keys.map((k) => [k, make(k)]));

// A colour, [on light ground, on dark], as the style of an element of class "ink"; its children have it too.
const tint = (colour) => (colour ? `--light:${colour[0]};--dark:${colour[1]}` : "");
const inked = (colour) => (colour ? { class: "ink", style: tint(colour) } : {});

// A slider with its value, text(value); spoken: its name for a screen reader; does: in words. mark(mean, sd) draws a Gaussian on it.
// A finger says nothing until it is lifted or has gone along the slider: one that goes up or down scrolls the page.
function slider({ name, spoken = name, min, max, step, value, text = signed, colour, data, input, before = "", does }) {
  const range = h("input", { type: "range", min, max, step, "aria-label": spoken, "data-slider": data });
  const output = h("output"), bar = h("i", { class: "mark" }), at = (v) => Math.max(0, Math.min(1, (v - min) / (max - min)));
  const element = h("div", { class: `dial ${colour ? "ink" : "grey"}`, style: tint(colour) }, before, h("span", { class: "name" }, name),
    ...(does === undefined ? [] : [h("span", { class: "does" }, does)]), h("span", { class: "track" }, range, bar), output);
  let start, from_, held = false;
  const set = (value) => {  // beyond its ends too
    [range.min, range.max, range.value] = [Math.min(min, value), Math.max(max, value), value];
    output.textContent = text(value);
    range.setAttribute("aria-valuetext", text(value));
  };
  const mark = (mean, sd) => {
    bar.style.cssText = `--from:${at(mean - sd)};--to:${at(mean + sd)};--mean:${at(mean)}`;
    range.title = `posterior ${signed(mean)} \u00b1 ${sd.toFixed(2)}`;
  };
  const moved = () => { if (!held) { set(+range.value); input(+range.value); } };
  range.addEventListener("pointerdown", ({ pointerType, clientX }) => { [start, from_, held] = [+range.value, clientX, pointerType === "touch"]; });
  range.addEventListener("pointermove", ({ clientX }) => { if (Math.abs(clientX - from_) > 4) held = false; });
  range.addEventListener("pointerup", () => { if (held) { held = false; moved(); } });
  range.addEventListener("pointercancel", () => {
    range.value = start;
    moved();  // nothing, where nothing had been said
    held = false;
  });
  range.addEventListener("input", moved);
  set(value);
  return { element, range, set, mark };
}

function frame(el, ...children) {  // keys stay inside, so that arrows reach the sliders in JupyterLab too
  const status = h("p", { class: "status", role: "status" }), stay = (event) => event.stopPropagation();
  const root = h("div", { class: "mmvae", onkeydown: stay, onkeyup: stay }, ...children, status);
  el.append(root);
  const say = (text, again) => status.replaceChildren(text, ...(again ? [" ", h("button", { type: "button", onclick: again }, "Try again")] : []));
  return { root, say, line: status };
}

// Things to try, {name: what}: done(name) ticks one off. Nothing is kept when the page is left.
function tasks(all) {
  const rows = from(Object.keys(all), (name) => h("li", { "data-task": name }, h("span", { class: "tick", "aria-hidden": "true" }), all[name],
    h("span", { class: "unseen" })));
  const done = (name) => {
    if (!rows[name] || rows[name].classList.contains("done")) return;
    rows[name].classList.add("done");
    rows[name].lastChild.textContent = " (done)";
  };
  const was = {}, watch = (name, now) => {  // ticked when it becomes the case, not where it is so from the start
    if (now && was[name] === false) done(name);
    was[name] = now;
  };
  return { element: h("div", { class: "tasks" }, h("p", { class: "head" }, "Try"), h("ul", {}, ...Object.values(rows))), done, watch };
}

// { need(name): an asset, ask(question): a kernel's answer, with its buffers }. bytes: of the asset, tell(share): how much has come
function talk(model) {
  const open = {}, own = Math.random(), telling = {};
  let count = 0;
  const send = (key, message) => new Promise((resolve, reject) => {
    (open[key] ??= []).push([resolve, reject]);
    model.send(message);
  });
  model.on("msg:custom", ({ asset, answer, error, share, ...found }, buffers) => {
    if (share !== undefined) return telling[asset]?.(share);
    const all = open[asset ?? answer] ?? [];
    delete open[asset ?? answer];
    for (const [resolve, reject] of all) error ? reject(Error(error)) : resolve({ ...found, buffers });
  });
  const need = (name, bytes, tell) => {
    if (tell) telling[name] = tell;
    return send(name, { need: name, ...(bytes && { bytes }) }).then(({ buffers }) => buffers[0]);
  };
  return { need,
    ask: (question, id = `${own} ${count++}`) => send(id, { ask: id, ...question }) };
}

const heard = (render) => ({ model, el }) => {  // and under it what the callbacks in a kernel print: the last lines, the last pictures
  const end = render({ model, el }), text = h("pre"), images = h("div"), area = h("div", { class: "mmvae-told", hidden: "" }, text, images);
  el.append(area);
  model.on("msg:custom", ({ told, pictures }) => {
    if (told === undefined) return;
    text.textContent = `${text.textContent}${told}`.split("\n").slice(-13).join("\n");
    if (pictures.length) images.replaceChildren(...pictures.map((png) => h("img", { src: `data:image/png;base64,${png}`, alt: "" })));
    area.hidden = false;
  });
  return end;
};

function newest(work) {  // one at a time; of those that wait only the last is done, and the others come to nothing
  let busy = false, waiting = null;
  const go = ([job, resolve, reject]) => {
    busy = true;
    work(job).then(resolve, reject).finally(() => {
      const next = waiting;
      [busy, waiting] = [false, null];
      if (next) go(next);
    });
  };
  return (job) => new Promise((resolve, reject) => {
    if (!busy) return go([job, resolve, reject]);
    waiting?.[1](null);
    waiting = [job, resolve, reject];
  });
}
