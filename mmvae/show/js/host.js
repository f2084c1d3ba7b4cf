// The static page's side of a widget: no kernel, no Jupyter, no third party. book/stage.py puts it in front of the modules
// (globalThis.mmvae = {kind: module}) and the style sheet, in one file, and writes what the modules ask for beside it.
(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, ""), waiting = {};

  // An asset is a script that calls this: scripts load from file:// too, where fetch may not.
  globalThis.mmvaeAsset = (name, text) => waiting[name](Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));

  const asset = (name) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting[name] = resolve;
    script.fetchPriority = "high";
    script.src = `${here}${name}.js`;
    script.onload = () => script.remove();
    script.onerror = () => { script.remove(); reject(Error(`${name}.js could not be loaded`)); };
    document.head.append(script);
  });
  const loaded = {};

  async function piecemeal(name, bytes, tell) {  // the same from a server, and meanwhile how much of it is here
    const lost = () => Error(`${name}.js could not be loaded`), answer = await fetch(`${here}${name}.js`).catch(() => { throw lost(); });
    if (!answer.ok) throw lost();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let next; !(next = await reader.read().catch(() => { throw lost(); })).done; tell(Math.min(1, text.length / (bytes * 4 / 3)))) text += next.value;
    return Uint8Array.from(atob(text.slice(text.indexOf('","') + 3, text.lastIndexOf('"'))), (c) => c.charCodeAt(0));
  }

  // Animations are large: those that are not here yet wait until the sliders stand.
  const nothing = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
  let starting = 0;
  function hold() {
    starting++;
    for (const image of document.querySelectorAll(".mmvae-picture picture > img:not([data-later])")) {
      if (image.complete && image.naturalWidth > 1) continue;
      image.dataset.later = image.getAttribute("src");
      image.src = nothing;
    }
  }
  function go() {
    if (--starting) return;
    for (const image of document.querySelectorAll("img[data-later]")) {
      image.src = image.dataset.later;
      delete image.dataset.later;
    }
  }

  class Model {  // of what anywidget's model does, what the modules use
    listeners = {};
    unattended = true;  // no kernel answers
    constructor(state) { this.state = state; }
    get(name) { return this.state[name]; }
    set(name, value) {
      if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
      this.state[name] = value;
      this.fire(`change:${name}`);
    }
    save_changes() {}
    on(event, listener) { (this.listeners[event] ??= []).push(listener); }
    fire(event, ...values) { for (const listener of this.listeners[event] ?? []) listener(...values); }
    async send({ need, bytes: size }) {
      const tell = (share) => this.fire("msg:custom", { asset: need, share });
      try {
        const bytes = await (loaded[need] ??= size && location.protocol.startsWith("http") ? piecemeal(need, size, tell) : asset(need));
        this.fire("msg:custom", { asset: need }, [new DataView(bytes.buffer)]);
      } catch (error) {
        delete loaded[need];
        this.fire("msg:custom", { asset: need, error: error.message });
      }
    }
  }

  async function start(widget) {
    const { kind, state, still } = JSON.parse(widget.querySelector("script[type='application/json']").textContent);
    if (still) { widget.dataset.kept = ""; widget.classList.add("alive"); return; }  // nothing but its picture, which says why
    const space = widget.querySelector(".mmvae-space"), model = new Model(state), el = space.appendChild(document.createElement("div"));
    hold();
    try {
      await globalThis.mmvae[kind].render({ model, el });
      space.dataset.drawn = "";
      widget.classList.add("alive");
    } catch (error) {
      console.error(error);
      delete space.dataset.drawn;
      el.style.cssText = "visibility:visible;align-self:end";
      el.innerHTML = '<p class="mmvae-failed" role="alert"><span></span> <button type="button">Try again</button></p>';
      el.querySelector("span").textContent = `The sliders did not start (${error.message}); the still picture shows the same.`;
      el.querySelector("button").onclick = () => { el.remove(); start(widget); };
    }
    go();
  }

  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) { near.unobserve(target); start(target); }
  }, { rootMargin: "600px" });
  const begin = () => document.querySelectorAll(".mmvae-widget").forEach((widget) => near.observe(widget));
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", begin); else begin();
})();
