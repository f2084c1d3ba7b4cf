// A private factor turned into a spare shared latent: mmvae/show/spare.py is its Python half, and its `summary` computes what this does.

// nats a row of the model at this angle: minus the ELBOs [first, second, both], the gap, and the loss against home
function turnedBy(degrees, r, weight, diagonal, { size, noise, shared }) {
  const s2 = Math.sin((degrees * Math.PI) / 180) ** 2, constant = size * Math.log(2 * Math.PI * Math.E * noise ** 2);
  const lacks = diagonal ? Math.log(((1 + r * (1 - s2)) * (1 + r * s2)) / (1 + r)) / 2 : 0;
  const charge = (diagonal ? 1 / (1 + r * s2) + (r * s2) / (1 + r) - 1 + Math.log(1 + r * s2) : Math.log((1 + r) / (1 + r * (1 - s2)))) / 2;
  const one = (constant + Math.log((1 + r) * (1 + shared))) / 2, both = constant + Math.log((1 + r) ** 2 * (1 + 2 * shared)) / 2;
  return { elbos: [one + lacks, one, both + lacks], gap: Math.log((1 + 2 * shared) / (1 + shared)) + charge, loss: 2 * lacks + weight * charge };
}

function told_(at, home, all, { angle, weight, diagonal }, [one, two]) {  // in words
  const grown = (at.gap - home.gap).toFixed(2), lost = at.elbos[0] - home.elbos[0], end = all.at(-1), hurdle = Math.max(...all) - end;
  if (angle < 0.5) return "At home. Turn the factor towards z_S: what will the three ELBOs do, and what the gap?";
  const said = lost < 0.005 ? `No ELBO has moved: the loss cannot tell this model from home. The gap has grown by ${grown} nats.`
    : `{${one}} and {${one}, ${two}} are ${lost.toFixed(2)} nats worse than at home: the factor lies between two axes. The gap has grown by ${grown}.`;
  if (!weight) return said + (diagonal && lost >= 0.005 ? ` At either end nothing is lost.` : "");
  return `${said} With weight ${weight.toFixed(1)} home is ${end.toFixed(2)} nats better than moved` +
    (hurdle > 0.001 ? `, but a hurdle of ${hurdle.toFixed(2)} stands between.` : ", and the loss falls all the way there.");
}

renderers.spare = async function spare({ model, el }) {
  const put = wire(model, draw, "angle", "sharpness", "weight", "diagonal"), get = (name) => model.get(name), config = model.get("config");
  const { names: [one, two], colours, most } = config, STEPS = 90;
  const set = (degrees) => put({ angle: Math.round(within(0, 90, degrees)) });
  let R = 100, left = 200, scale = 1;  // of the quarter circle; where the curve begins; pixels of a degree on it
  const corner = () => [26, HEIGHT - FOOT - 22], plot = board(draw, (k) => (x, y) => {
    const [x0, y0] = corner();
    set(k === "turn" ? (Math.atan2(Math.max(0, y0 - y), Math.max(0, x - x0)) * 180) / Math.PI : (x - left) / scale);
  }, { turn: [CIRCLE, ""], along: [DIAMOND, ""] });
  const dial = (name, spoken, trait, step, text) => slider({ name, spoken, min: most[trait][0], max: most[trait][1], step, value: 0, data: trait, text,
    input: (v) => put({ [trait]: v }) });
  const angle = dial("angle", "angle of the factor, from home to the spare shared latent", "angle", 1, (v) => `${v}\u00b0`);
  const sharp = dial("sharpness", "how sharply its picture tells the factor", "sharpness", 0.5, (v) => v.toFixed(1));
  const weight = dial("weight", "weight of the gap in the loss", "weight", 0.1, (v) => v.toFixed(1));
  const [ends, mark] = choices({ "at home": 0, "half way": 45, moved: 90 }, (value) => put({ angle: value }));
  const [kinds, marked_] = choices({ exact: false, diagonal: true }, (value) => put({ diagonal: value }));
  const numbers = h("table", { class: "meters" }), says = h("p", { class: "words tall", role: "status" });
  const { element: list, watch } = tasks({ moved: marked("span", "Turn the factor wholly into z<sub>S</sub> while the posteriors are exact. Which bar has moved?"),
    between: "Make the posteriors diagonal, and find the angle at which the ELBOs lack most.",
    free: "Keep them diagonal. From which weight on does no hurdle stand on the way home?" });
  frame(el, h("div", { class: "bar" }, ...ends), plot.element, says, numbers,
    h("div", { class: "thirds apart" },
      h("fieldset", inked(colours[one]), marked("legend", "the factor<i>where it sits</i>"), angle.element, sharp.element),
      h("fieldset", { class: GREY }, marked("legend", "the loss<i>posteriors, and the gap</i>"), h("div", { class: "bar" }, ...kinds), weight.element)), list);

  function draw() {
    const now = from(["angle", "sharpness", "weight", "diagonal"], get), { width } = plot, [x0, y0] = corner();
    const at = (degrees) => turnedBy(degrees, now.sharpness, now.weight, now.diagonal, config);
    const here = at(now.angle), home = at(0);
    const way = Array.from({ length: STEPS + 1 }, (_, i) => at(i)), all = way.map((one_) => one_.loss), grown = way.map((one_) => one_.gap - home.gap);
    R = Math.min(0.34 * width - 26, HEIGHT - FOOT - 62);
    left = x0 + R + Math.max(46, 0.09 * width);
    scale = (width - left - 14) / 90;
    const high = 1.12 * Math.max(0.5, ...all, ...grown), Y = (v) => HEIGHT - FOOT - 14 - (v / high) * (HEIGHT - FOOT - 64), X = (d) => left + d * scale;
    const turn = (now.angle * Math.PI) / 180, tip = [x0 + R * Math.cos(turn), y0 - R * Math.sin(turn)];
    const arc = track(Array.from({ length: 31 }, (_, i) => [x0 + R * Math.cos((i * Math.PI) / 60), y0 - R * Math.sin((i * Math.PI) / 60)]));
    const curve = (values) => track(values.map((v, i) => [X(i), Y(v)])), ticks = width < 500 ? [0, 45, 90] : [0, 15, 30, 45, 60, 75, 90];
    plot.show(line(arc, "axis") + line(`M${x0},${y0}H${x0 + R + 8}`, "", colours[one]) + line(`M${x0},${y0}V${y0 - R - 8}`, "", colours.S) +
      label(x0 + R / 2, y0 + 22, `home, z<sub>${one}</sub>`, "middle", colours[one]) + label(0, Math.max(14, y0 - R - 18), `spare, z<sub>S</sub>`, "start", colours.S) +
      line(`M${x0},${y0}L${tip}`, "product") +
      line(`M${left},${Y(0)}H${X(90)}`, "axis") + ticks.map((d) => line(`M${X(d)},${Y(0)}v5`, "axis") + label(X(d), Y(0) + 20, `${d}\u00b0`)).join("") +
      label(left, 14, width < 500 ? "against home" : "nats, against home", "start") + line(curve(grown), "", colours.S) + line(curve(all), "product") +
      label(X(0), Y(0) + 40, "home", "start") + label(X(90), Y(0) + 40, "moved", "end") +
      spread([[X(90), Math.max(30, Y(all.at(-1)) - 10), "loss", "end"], [X(90), Math.max(30, Y(grown.at(-1)) - 10), "gap", "end", colours.S]], width),
    `The private factor at ${now.angle} degrees between its home and a spare shared latent, and the loss along the way. ${told_(here, home, all, now, [one, two])}`,
    { turn: tip, along: [X(now.angle), Y(here.loss)] });
    const long = Math.max(10, here.elbos[2]), meter = (v, colour) => `<i class="meter ${colour ? "ink" : ""}" style="--p:${v / long};${tint(colour)}"></i>`;
    const change = (v) => (Math.abs(v) < 0.005 ? "0" : signed(v));
    numbers.innerHTML = table(["nats", "", "", "against home"], [...[`{${one}}`, `{${two}}`, `{${one}, ${two}}`].map((who, i) =>
      ["", `\u2212ELBO ${who}`, meter(here.elbos[i]), here.elbos[i].toFixed(2), change(here.elbos[i] - home.elbos[i])]),
      ["", "gap", meter(here.gap, colours.S), here.gap.toFixed(2), change(here.gap - home.gap)]]);
    says.innerHTML = told_(here, home, all, now, [one, two]).replaceAll("z_S", "z<sub>S</sub>");
    watch("moved", now.angle > 89 && !now.diagonal);
    watch("between", now.diagonal && Math.abs(now.angle - 45) < 3);
    watch("free", now.diagonal && now.weight > 0 && Math.max(...all) - all.at(-1) < 0.001);
    angle.set(now.angle);
    sharp.set(now.sharpness);
    weight.set(now.weight);
    mark(now.angle);
    marked_(now.diagonal);
  }
  draw();
  return plot.stop;
};
