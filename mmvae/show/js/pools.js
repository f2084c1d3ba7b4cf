// One dial from product to mixture: mmvae/show/pools.py is its Python half, and its `summary` computes what this one does.

// log of the power mean of the experts at z, not normalised; alpha 0: the geometric mean
function powerMean(experts, alpha, z) {
  const logs = experts.map(([mean, sd]) => -(((z - mean) / sd) ** 2) / 2 + Math.log(peak(sd))), most = Math.max(...logs);
  if (alpha < 1e-3) return logs.reduce((a, b) => a + b) / logs.length;
  return most + Math.log(logs.reduce((sum, l) => sum + Math.exp(alpha * (l - most)), 0) / logs.length) / alpha;
}

function consensus([[a, s], [b, t]], rho) {  // eq-frontier-consensus, of two: mean, deviation, and the weight of the first
  const whole = (s ** -2 + t ** -2 - (2 * rho) / (s * t)) / (1 - rho ** 2), w = (s ** -2 - rho / (s * t)) / (1 - rho ** 2) / whole;
  return [w * a + (1 - w) * b, whole ** -0.5, w];
}

function calibrated([[, s], [, t]]) {  // the rho at which it is as sure as the exact posterior
  const [l, k] = [s ** -2, t ** -2];
  return (Math.sqrt(l * k) - Math.sqrt((l - 1) * (k - 1))) / (l + k - 1);
}

function pooled(experts, alpha, rho, { reach, steps }) {  // the densities on a grid, and {name: [mean, sd, KL from the exact one]}
  const z = Array.from({ length: steps + 1 }, (_, i) => reach * ((2 * i) / steps - 1)), dz = z[1] - z[0];
  const logs = z.map((v) => powerMean(experts, alpha, v)), most = Math.max(...logs), raw = logs.map((l) => Math.exp(l - most));
  const whole = raw.reduce((a, b) => a + b) * dz, pool = raw.map((d) => d / whole), sum = (f) => z.reduce((s, v, i) => s + f(v, i), 0) * dz;
  const mean = sum((v, i) => v * pool[i]), [m, d] = consensus(experts, rho), l = experts.map(([, sd]) => sd ** -2);
  const precision = l[0] + l[1] - 1, exact = [(l[0] * experts[0][0] + l[1] * experts[1][0]) / precision, precision ** -0.5];
  const p = z.map((v) => density([[1, ...exact]], v)), log = (v) => -(((v - exact[0]) / exact[1]) ** 2) / 2 + Math.log(peak(exact[1]));
  return { z, pool, table: {
    pool: [mean, Math.sqrt(sum((v, i) => (v - mean) ** 2 * pool[i])), sum((v, i) => p[i] * (log(v) - logs[i] + most + Math.log(whole)))],
    consensus: [m, d, ((exact[1] / d) ** 2 + ((exact[0] - m) / d) ** 2 - 1) / 2 + Math.log(d / exact[1])], exact: [...exact, 0] } };
}

function judged({ pool, consensus: both, exact }, alpha, rho, weight, peaks) {  // in words
  const sure = ([, sd]) => (Math.abs(sd / exact[1] - 1) < 0.02 ? "as sure as" : sd < exact[1] ? "surer than" : "less sure than");
  const form = peaks > 1 ? "It keeps both opinions" : alpha < 1e-3 ? "It is one Gaussian between the two" : "It has one peak";
  return `${form}, ${sure(pool)} the exact posterior (sd ${pool[1].toFixed(2)}, exact ${exact[1].toFixed(2)}), and ` +
    `${pool[2].toFixed(2)} nats from it. The consensus at \u03c1 = ${rho.toFixed(2)} is ${sure(both)} the exact one` +
    (weight < 0 ? ": one expert's weight is negative, so its mean lies beyond the other's." : `, ${both[2].toFixed(2)} nats from it.`);
}

renderers.pools = async function pools({ model, el }) {
  const put = wire(model, draw, "values", "alpha", "rho"), get = (name) => model.get(name), config = model.get("config");
  const names = Object.keys(get("values")), { colours } = config, shapes = [CIRCLE, SQUARE];
  const set = (k, mean, sd) => put({ values: { ...get("values"), [k]: [+mean.toFixed(2), +sd.toPrecision(3)] } });
  let top = 0, scale = 1;
  const X = (z) => (z + SPAN) * scale, Y = (d) => height(d, top), low = 0.15, high = 0.95;
  const plot = board(draw, (k, x0, y0) => {
    const [mean, sd] = get("values")[k], dx = X(mean) - x0, dy = Y(peak(sd)) - y0;
    return (x, y) => set(k, within(-3, 3, (x + dx) / scale - SPAN),
      within(low, high, peak(Math.max(0.01, (top * (Y(0) - y - dy)) / (Y(0) - HEAD)))));
  }, from(names.toReversed(), (k) => [shapes[names.indexOf(k)], colours[k]]));
  const dial = (name, spoken, trait, max) => slider({ name, spoken, min: 0, max, step: 0.01, value: 0, data: trait,
    text: (v) => v.toFixed(2), input: (v) => put({ [trait]: v }) });
  const alpha = dial("\u03b1", "alpha, from the geometric mean to the mixture", "alpha", 1);
  const rho = dial("\u03c1", "rho, the correlation of the experts' errors", "rho", 0.95);
  const [presets, mark] = choices(config.presets, (values) => put({ values }));
  const [places, placed] = choices(config.places, (value) => put({ alpha: value }));
  const [codes, coded] = choices({ product: 0, CoDE: 0.5 }, (value) => put({ rho: value }));
  const [exactly] = choices({ "as sure as the exact one": 0 }, () => put({ rho: +calibrated(Object.values(get("values"))).toFixed(3) }));
  const numbers = h("table"), says = words();
  const { element: list, watch } = tasks({ peaks: "Turn \u03b1 until both opinions are kept: two peaks.", exact: "Find the \u03c1 at which the consensus is as sure as the exact posterior.",
    beyond: "Let the experts err together until one\u2019s weight is negative." });
  const rows = from(names, (k) => [
    slider({ name: "mean", spoken: `mean of expert ${k}`, min: -3, max: 3, step: 0.05, value: 0, data: `mean${k}`, input: (v) => set(k, v, get("values")[k][1]) }),
    slider({ name: "sd", spoken: `standard deviation of expert ${k}`, min: low, max: high, step: 0.01, value: 0.5, data: `sd${k}`, text: (v) => v.toFixed(2),
      input: (v) => set(k, get("values")[k][0], v) })]);
  frame(el, h("div", { class: "bar" }, ...presets), plot.element, says,
    h("div", { class: "thirds" },
      h("fieldset", inked(colours.pool), marked("legend", "the dial<i>power mean of the two</i>"), h("div", { class: "bar" }, ...places), alpha.element),
      h("fieldset", { class: GREY }, marked("legend", "consensus<i>experts who err together</i>"), h("div", { class: "bar" }, ...codes, ...exactly), rho.element)),
    h("div", { class: "thirds" }, ...names.map((k) => h("fieldset", inked(colours[k]), marked("legend", `q<sub>${k}</sub><i>expert ${k}</i>`),
      ...rows[k].map((row) => row.element)))), numbers, list);

  function draw() {
    const values = get("values"), experts = Object.values(values), [a, r] = [get("alpha"), get("rho")], { width } = plot;
    const { z, pool, table: found } = pooled(experts, a, r, config), weight = consensus(experts, r)[2];
    scale = width / (2 * SPAN);
    const sharpest = Math.max(...pool, ...experts.map(([, sd]) => peak(sd)), peak(found.exact[1]), peak(found.consensus[1]));
    if (!plot.held) top = Math.max(1, 1.35 * sharpest);
    const seen = z.map((_, i) => i).filter((i) => Math.abs(z[i]) <= SPAN && i % 5 === 0);
    const curve = (f) => track(seen.map((i) => [X(z[i]), Y(f(z[i], i))]));
    const gaussian = (k) => curve((v) => density([[1, ...(values[k] ?? found[k].slice(0, 2))]], v)), green = curve((_, i) => pool[i]);
    const highest = pool.indexOf(Math.max(...pool)), peaks = pool.filter((d, i) => i && d > pool[i - 1] && d >= pool[i + 1] && d > 0.02).length;
    watch("peaks", peaks > 1);
    watch("exact", Math.abs(found.consensus[1] / found.exact[1] - 1) < 0.02);
    watch("beyond", Math.min(weight, 1 - weight) < 0);
    says.textContent = judged(found, a, r, Math.min(weight, 1 - weight), peaks);
    const over = (k) => [X(found[k][0]), Y(peak(found[k][1])) - 8];
    plot.show(line(`M0,${Y(0)}H${width}`, "axis") + label(width - 10, Y(0) + 20, "z") + [-3, -2, -1, 0, 1, 2, 3].map((v) =>
      line(`M${X(v)},${Y(0)}v5`, "axis") + label(X(v), Y(0) + 20, v ? signed(v, 0) : "0")).join("") +
      label(0, 14, width < 500 ? "Drag a mark." : "Drag a mark: across, its mean; up, surer.", "start", GREY) +
      `<g ${worn(colours.pool)}><path class="area" d="${green}V${Y(0)}H0z"/></g>` + line(gaussian("exact"), "mixture", GREY) +
      line(gaussian("consensus"), "subsets", GREY) + names.map((k) => line(gaussian(k), "", colours[k])).join("") + line(green, "product", colours.pool) +
      spread([[...over("exact"), "exact", "start", GREY], [...over("consensus"), `\u03c1 = ${r.toFixed(2)}`, "end", GREY],
        [X(z[highest]), Y(pool[highest]) - 10, `\u03b1 = ${a.toFixed(2)}`, "middle", colours.pool],
        ...names.map((k) => [X(values[k][0]), Y(peak(values[k][1])) - 14, `q<sub>${k}</sub>`, "middle", colours[k]])], width),
    `Curves over z: two experts, their pool, their consensus and the exact posterior. ${says.textContent}`,
    from(names, (k) => [X(values[k][0]), Y(peak(values[k][1]))]));
    for (const k of names) { rows[k][0].set(values[k][0]); rows[k][1].set(values[k][1]); }
    alpha.set(a);
    rho.set(r);
    mark(values);
    placed(a);
    coded(r);
    numbers.innerHTML = table(["", "mean", "sd", "nats from exact"], [[colours.pool, `pool, \u03b1 = ${a.toFixed(2)}`, found.pool],
      [GREY, `consensus, \u03c1 = ${r.toFixed(2)}`, found.consensus], [GREY, "exact", found.exact]].map(([colour, head, [mean, sd, far]]) =>
      [colour, head, signed(Math.abs(mean) < 0.005 ? 0 : mean), sd.toFixed(2), far.toFixed(2)]));
  }
  draw();
  return plot.stop;
};
