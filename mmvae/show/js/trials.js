// Studies of a few runs each, and the interval that each would print: mmvae/show/trials.py is its Python half.

function drawn(share, runs, study) {  // a count, of dice that are the same for every share (mulberry32)
  let state = Math.imul(study, 0x9e3779b9), found = 0;
  for (let i = 0; i < runs; i++) {
    state = (state + 0x6d2b79f5) | 0;
    let a = Math.imul(state ^ (state >>> 15), state | 1);
    a ^= a + Math.imul(a ^ (a >>> 7), a | 61);
    found += ((a ^ (a >>> 14)) >>> 0) / 2 ** 32 < share;
  }
  return found;
}

function wilson(k, n) {  // eq-learned-wilson
  const z = 1.959963984540054, p = k / n, middle = (p + z ** 2 / (2 * n)) / (1 + z ** 2 / n);
  const half = (z / (1 + z ** 2 / n)) * Math.sqrt((p * (1 - p)) / n + z ** 2 / (4 * n ** 2));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

const answered = (k, n, [low, high] = wilson(k, n)) => (low > 0.5 ? "confirmed" : high < 0.5 ? "refuted" : "undecided");

function longRun(p, n) {  // exact: sums over the binomial distribution
  const found = { holds: 0, confirmed: 0, refuted: 0, undecided: 0 };
  for (let k = 0, ways = 1; k <= n; ways *= (n - k) / (k + 1), k++) {
    const chance = ways * p ** k * (1 - p) ** (n - k), [low, high] = wilson(k, n);
    found.holds += low <= p && p <= high ? chance : 0;
    found[answered(k, n)] += chance;
  }
  return found;
}

renderers.trials = async function trials({ model, el }) {
  const put = wire(model, draw, "share", "runs", "studies"), get = (name) => model.get(name), { presets, runs: few, most, shown, missed } = model.get("config");
  const plot = board(draw, () => (x) => put({ share: +within(0, 1, x / plot.width).toFixed(2) }), { truth: [TRIANGLE, GREY] });
  const [truths, mark] = choices(presets, (value) => put({ share: value })), [sizes, sized] = choices(from(few, (n) => n), (value) => put({ runs: value }));
  const more = (name, n) => h("button", { type: "button", onclick: () => put({ studies: Math.min(10000, get("studies") + n) }) }, name);
  const share = slider({ name: "true share", min: 0, max: 1, step: 0.01, value: 0, data: "share", text: (v) => v.toFixed(2), input: (v) => put({ share: v }) });
  const runs = slider({ name: "runs", spoken: "runs of a study", min: 1, max: most, step: 1, value: 5, data: "runs", text: (v) => `${v}`, input: (v) => put({ runs: v }) });
  const says = h("p", { class: "words tall", role: "status" }), numbers = h("table");
  const { element: list, watch } = tasks({ misses: "Draw studies until an interval misses the truth. How many did it take?",
    five: "With five runs a study: how great must the true share be, for four studies in five to say \u201cconfirmed\u201d?",
    many: "With a true share of 0.75: how many runs does that take?" });
  frame(el, h("div", { class: "bar" }, more("one study more", 1), more("a hundred more", 100)), plot.element, says, numbers,
    h("div", { class: "thirds apart" }, h("fieldset", { class: GREY }, marked("legend", "the truth<i>nobody knows it</i>"), h("div", { class: "bar" }, ...truths), share.element),
      h("fieldset", { class: GREY }, marked("legend", "a study<i>how many runs</i>"), h("div", { class: "bar" }, ...sizes), runs.element)), list);

  function draw() {
    const p = get("share"), n = get("runs"), last = get("studies"), { width } = plot, often = longRun(p, n);
    const first = Math.max(1, last - shown + 1), top = 30, bottom = HEIGHT - FOOT, X = (v) => within(1, width - 1, v * width);
    const all = Array.from({ length: last }, (_, i) => drawn(p, n, i + 1)), holds = (k, [low, high] = wilson(k, n)) => low <= p && p <= high;
    const rows = Array.from({ length: last - first + 1 }, (_, i) => {
      const k = all[first - 1 + i], [low, high] = wilson(k, n), y = top + ((i + 0.5) * (bottom - top - 12)) / shown, held = holds(k);
      return `<g ${worn(held ? GREY : missed)}><path class="line product" d="M${X(low)},${y}H${X(high)}"/><path class="line" d="M${X(k / n)},${y - 5}v10"/></g>`;
    });
    const k = all[last - 1], [low, high] = wilson(k, n), said = from(["confirmed", "undecided", "refuted"], (word) => all.filter((c) => answered(c, n) === word).length);
    const held = all.filter((c) => holds(c)).length;
    says.textContent = `Study ${last}: ${k} of ${n} runs. That leaves shares from ${low.toFixed(2)} to ${high.toFixed(2)} possible, so \u201cmore often than not\u201d is ` +
      `${answered(k, n)}. The truth, ${p.toFixed(2)}, is ${holds(k) ? "among them" : "not among them"}.`;
    plot.show(line(`M0,${bottom}H${width}`, "axis") + [0, 0.25, 0.5, 0.75, 1].map((v) => line(`M${X(v)},${bottom}v5`, "axis") +
      label(X(v), bottom + 20, `${v}`, v ? (v < 1 ? "middle" : "end") : "start")).join("") + line(`M${X(0.5)},${top - 6}V${bottom}`, "p", GREY) +
      line(`M${X(p)},${top - 6}V${bottom}`, "mixture", GREY) + rows.join("") +
      label(within(24, width - 24, X(p)), 14, "truth") + (Math.abs(X(p) - X(0.5)) > 60 ? label(X(0.5), 14, "one half") : ""),
    `Intervals of the last ${last - first + 1} studies on an axis from 0 to 1. ${says.textContent}`, { truth: [X(p), bottom] });
    numbers.innerHTML = table(["of the studies", `these ${last}`, "in the long run"], [["hold the truth", held, often.holds],
      ...Object.keys(said).map((word) => [`say \u201c${word}\u201d`, said[word], often[word]])].map(([head, count, chance]) => ["", head, `${count}`, percent(chance)]));
    watch("misses", held < last);
    watch("five", n === 5 && often.confirmed >= 0.8);
    watch("many", Math.abs(p - 0.75) < 0.001 && often.confirmed >= 0.8);
    share.set(p);
    runs.set(n);
    mark(p);
    sized(n);
  }
  draw();
  return plot.stop;
};
