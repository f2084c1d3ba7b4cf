// What all widgets share: elements, sliders, colours, and talk with whoever answers: a kernel, or the page's host.

function h(tag, attributes = {}, ...children) {  // h("button", { class: "play", onclick: f }, "text", element)
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const signed = (value, digits = 2) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);
const from = (keys, make) => Object.fromEntries(keys.map((k) => [k, make(k)]));

// A colour, [on light ground, on dark], as the style of an element of class "ink"; its children have it too.
const tint = (colour) => (colour ? `--light:${colour[0]};--dark:${colour[1]}` : "");
const inked = (colour) => (colour ? { class: "ink", style: tint(colour) } : {});

// A slider with its value, text(value); spoken: its name for a screen reader. mark(mean, sd) draws a Gaussian on it.
function slider({ name, spoken = name, min, max, step, value, text = signed, colour, data, input, before = "" }) {
  const range = h("input", { type: "range", min, max, step, "aria-label": spoken, "data-slider": data });
  const output = h("output"), bar = h("i", { class: "mark" }), at = (v) => Math.max(0, Math.min(1, (v - min) / (max - min)));
  const element = h("div", { class: `dial ${colour ? "ink" : "grey"}`, style: tint(colour) }, before, h("span", { class: "name" }, name),
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

// { need(name): an asset, ask(question): a kernel's answer, with its buffers }
function talk(model) {
  const open = {}, own = Math.random();
  let count = 0;
  const send = (key, message) => new Promise((resolve, reject) => {
    (open[key] ??= []).push([resolve, reject]);
    model.send(message);
  });
  model.on("msg:custom", ({ asset, answer, error, ...found }, buffers) => {
    const all = open[asset ?? answer] ?? [];
    delete open[asset ?? answer];
    for (const [resolve, reject] of all) error ? reject(Error(error)) : resolve({ ...found, buffers });
  });
  return { need: (name) => send(name, { need: name }).then(({ buffers }) => buffers[0]),
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
