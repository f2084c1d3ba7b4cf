// What a modality looks like: a picture, numbers as bars or a curve, classes with their probabilities.

const SMALL = 128, LARGE = 192;  // CSS pixels of the longer side of a picture at most, in a narrow and in a wide column
const within = (low, high, value) => Math.max(low, Math.min(high, value));

async function greys(url, width, height = width) {  // an image file of a grid of images: a function (k) -> image k, in [0, 1]
  const file = h("img", { src: url });
  await file.decode();
  const canvas = h("canvas", { width: file.width, height: file.height }), columns = file.width / width;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(file, 0, 0);
  return (k) => {
    const { data } = context.getImageData((k % columns) * width, Math.floor(k / columns) * height, width, height);
    return Float32Array.from({ length: width * height }, (_, i) => data[4 * i] / 255);
  };
}

// Images, each its channels one after the other, as a square of them; three channels are a colour, others stand in a row.
function paint(canvas, images, { size: [H, W], channels = 1, low = 0, high = 1, large = LARGE }) {
  const colour = channels === 3, parts = colour ? 1 : channels, wide = W * parts, area = H * W, columns = Math.ceil(Math.sqrt(images.length));
  const gap = columns > 1 && Math.max(H, wide) < 32 ? 1 : 0;  // between small ones, a line
  const width = columns * (wide + gap) - gap, height = Math.ceil(images.length / columns) * (H + gap) - gap;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  for (const [name, box] of [["small", SMALL], ["large", large]]) {  // magnified by a whole number, if it can be
    const by = box / Math.max(width, height);
    canvas.style.setProperty(`--${name}`, `${(by >= 2 ? Math.floor(by) : by > 1 ? Math.floor(2 * by) / 2 : by) * width}px`);
  }
  const picture = new ImageData(width, height), words = new Uint32Array(picture.data.buffer);
  const level = (value) => within(0, 255, Math.round((255 * (value - low)) / (high - low)));
  images.forEach((image, n) => {
    const corner = Math.floor(n / columns) * (H + gap) * width + (n % columns) * (wide + gap);
    for (let part = 0, i = 0; part < parts; part++)
      for (let y = 0; y < H; y++)
        for (let x = corner + y * width + part * W, end = x + W; x < end; x++, i++)
          words[x] = 0xff000000 | (colour ? level(image[i]) | (level(image[i + area]) << 8) | (level(image[i + 2 * area]) << 16)
            : level(image[i]) * 0x010101);
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function moments(draws) {  // of several arrays: their means and standard deviations, number by number
  const mean = draws[0].map((_, i) => draws.reduce((sum, d) => sum + d[i], 0) / draws.length);
  return [mean, mean.map((m, i) => Math.sqrt(draws.reduce((sum, d) => sum + (d[i] - m) ** 2, 0) / draws.length))];
}

const percent = (share) => (share > 0.99 && share < 1 ? "over 99\u00a0%" : `${Math.round(100 * share)}\u00a0%`);

function numbers(mean, sd, { low, high, curve }) {  // an SVG of bars, or of a curve; around it, how the draws spread
  const W = 120, H = 80, n = mean.length, [floor, top] = [Math.min(low, 0), Math.max(high, 0)];
  const X = (i) => ((i + 0.5) * W) / n, Y = (v) => 4 + (H - 8) * within(-0.02, 1.02, (top - v) / (top - floor));
  const at = (i, v) => `${X(i).toFixed(1)},${Y(v).toFixed(1)}`, all = [...mean.keys()];
  const up = all.map((i) => at(i, mean[i] + sd[i])), down = all.map((i) => at(i, mean[i] - sd[i])).reverse();
  const bar = (i) => `<rect x="${X(i) - (0.36 * W) / n}" width="${(0.72 * W) / n}" y="${Math.min(Y(mean[i]), Y(0))}" ` +
    `height="${Math.max(0.6, Math.abs(Y(mean[i]) - Y(0)))}"/><path class="whisker" d="M${up[i]}L${down[n - 1 - i]}"/>`;
  return `<svg viewBox="0 0 ${W} ${H}"><path class="line axis" d="M0,${Y(0)}H${W}"/>` + (curve
    ? `<path class="area" d="M${[...up, ...down].join("L")}z"/><path class="line" d="M${all.map((i) => at(i, mean[i])).join("L")}"/>`
    : all.map(bar).join("")) + "</svg>";
}

function shares(mean, sd, names) {  // a line a class
  return names.map((_, k) => `<span class="class${mean[k] === Math.max(...mean) ? " most" : ""}" style="--p:${mean[k]};--sd:${sd[k]}">` +
    `<span></span><i></i><b>${percent(mean[k]).replace("over ", ">")}</b></span>`).join("");
}

// Where a modality is drawn: { element, draws(n): how many draws to ask for, show(values, ...): one array, or one a draw }
function view(of, name, data) {
  const picture = of.kind === "picture", element = h(picture ? "canvas" : "div", { role: "img", "aria-label": name, ...data });
  if (!picture) element.className = of.kind;
  return { element, name,
    count: () => (!picture ? 32 : element.clientWidth < 3 * Math.max(...of.size) && element.clientWidth >= Math.max(...of.size) ? 4 : 9),
    show: (draws, what = name) => {
      if (picture) paint(element, draws, of);
      const [mean, sd] = picture ? [] : moments(draws), most = of.names && [...mean.keys()].sort((a, b) => mean[b] - mean[a]);
      if (of.kind === "numbers") element.innerHTML = numbers(mean, sd, of);
      if (of.kind === "classes") element.innerHTML = shares(mean, sd, of.names);
      [...(of.kind === "classes" ? element.children : [])].forEach((line, k) => { line.firstChild.textContent = of.names[k]; });
      element.setAttribute("aria-label", most ? `${what}: ${most.slice(0, 3).map((k) => `${of.names[k]} ${percent(mean[k])}`).join(", ")}` : what);
    } };
}

function join(arrays, f = (v) => v) {  // one after the other
  const all = new Float32Array(arrays.reduce((sum, a) => sum + a.length, 0));
  let at = 0;
  for (const a of arrays) for (const v of a) all[at++] = f(v);
  return all;
}

async function read(given, { size, channels, low, high }) {  // what is given: a function (k) -> the numbers of preset k
  if (!given.png) return (k) => Float32Array.from(given.rows[k]);
  const tile = await greys(given.png, size[1], size[0]);
  return (k) => join(Array.from({ length: channels }, (_, c) => tile(k * channels + c)), (v) => low + v * (high - low));
}
