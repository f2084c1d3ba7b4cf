// The package's own networks, and how a model of them forms its posterior. mmvae/show/page.py is its twin in Python: what
// `about` says there of a model, its rule, is carried out here. Values are flat arrays; a class is its one-hot vector.

const PATCH = 8;  // pixels of mmvae.nets.ImageEncoder
const ready = {};  // weights, parsed: shared by the explorers of a page

async function weights(view) {  // gzip of a safetensors file; a tensor: the low bytes of its fp16 numbers, then the high
  const unzipped = new Blob([view]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(unzipped).arrayBuffer()), tensors = {};
  const start = 8 + new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  for (const [name, { data_offsets: [from, to] }] of Object.entries(header)) {
    const n = (to - from) / 2, low = bytes.subarray(start + from), high = low.subarray(n), words = new Uint32Array(n);
    for (let i = 0; i < n; i++) words[i] = ((high[i] & 0x80) << 24) | ((high[i] & 0x7f) << 21) | (low[i] << 13);
    tensors[name] = new Float32Array(words.buffer).map((value) => value * 2 ** 112);  // the exponents' origins differ
  }
  return tensors;
}

function dense(net, layer, x, from = 0, to = net[layer + ".bias"].length) {  // rows from..to of a linear layer
  const weight = net[layer + ".weight"], out = net[layer + ".bias"].slice(from, to), n = x.length;
  for (let o = 0, k = from * n; o < out.length; o++) {
    let a = 0, b = 0, c = 0, d = 0, i = 0;  // four sums at a time: none waits for the other
    for (; i + 3 < n; i += 4, k += 4) {
      a += weight[k] * x[i]; b += weight[k + 1] * x[i + 1]; c += weight[k + 2] * x[i + 2]; d += weight[k + 3] * x[i + 3];
    }
    for (; i < n; i++, k++) a += weight[k] * x[i];
    out[o] += a + b + c + d;
  }
  return out;
}

const silu = (x) => x.map((value) => value / (1 + Math.exp(-value)));
const bounded = (v) => (Math.abs(v) <= 15 ? v : Math.sign(v) * (15 + Math.log1p(Math.abs(v) - 15)));  // mmvae.gaussian

function patches(net, at, image, [H, W]) {  // of mmvae.nets.ImageEncoder; beyond the last whole one all is grey
  const across = Math.ceil(W / PATCH), places = across * Math.ceil(H / PATCH), area = PATCH * PATCH;
  const patch = new Float32Array((image.length / (H * W)) * area), out = new Float32Array(net[at + ".bias"].length * places);
  for (let place = 0; place < places; place++) {
    for (let i = 0; i < patch.length; i++) {
      const y = Math.floor(place / across) * PATCH + Math.floor((i % area) / PATCH), x = (place % across) * PATCH + (i % PATCH);
      patch[i] = y < H && x < W ? image[(Math.floor(i / area) * H + y) * W + x] - 0.5 : 0;
    }
    dense(net, at, patch).forEach((value, f) => { out[f * places + place] = value; });
  }
  return silu(out);
}

function encode(net, { net: kind, at, x: names, size, log, parts }, x) {  // means, then log-variances
  const joined = parts ? join(parts.map((part) => encode(net, part, x))) : join(names.map((m) => x[m]));
  const read = { image: () => patches(net, at + ".patches", joined, size), joined: () => silu(joined),
    vector: () => (log ? joined.map(Math.log1p) : joined) }[kind]();
  const hidden = parts ? silu(dense(net, at + ".hidden", read))
    : silu(dense(net, at + ".hidden2", silu(dense(net, at + ".hidden1", read))));
  return [...dense(net, at + ".mu", hidden), ...dense(net, at + ".logvar", hidden)];
}

function expert(net, of, x) {  // mmvae.nets.Encoder: {block: {mu, logvar}}
  const out = encode(net, of, x), mu = out.slice(0, out.length / 2), logvar = out.slice(mu.length).map(bounded), q = {};
  for (const [b, dim] of Object.entries(of.blocks)) q[b] = { mu: mu.splice(0, dim), logvar: logvar.splice(0, dim) };
  return q;
}

function product(experts, dim) {  // times the prior: eq-poe-gaussian. Of no expert: the prior
  const d = Array.from({ length: dim }, (_, k) => k), sum = (term) => d.map((k) => experts.reduce((s, e) => s + term(e, k), 0));
  const precision = sum((e, k) => Math.exp(-e.logvar[k])).map((p) => p + 1);
  return { mu: sum((e, k) => e.mu[k] * Math.exp(-e.logvar[k])).map((s, k) => s / precision[k]), logvar: precision.map((p) => -Math.log(p)) };
}

function posterior(net, about, subset, x) {  // of what is observed, names joined by "+": {block: {mu, logvar}}
  const experts = (about.infer[subset] ?? []).map((name) => expert(net, about.readers[name], x));
  return Object.fromEntries(Object.entries(about.blocks).map(([b, dim]) => {
    const own = experts.map((e) => e[b]).filter(Boolean);
    return [b, own.length === 1 && !(b === "S" && about.single_prior) ? own[0] : product(own, dim)];
  }));
}

const MEANS = { same: (v) => v, sigmoid: (v) => v.map((o) => 1 / (1 + Math.exp(-o))),  // of mmvae.likelihoods
  softplus: (v) => v.map((o) => Math.max(o, 0) + Math.log1p(Math.exp(-Math.abs(o)))),
  softmax: (v, n) => {
    for (let i = 0; i < v.length; i += n) {
      const part = v.subarray(i, i + n), most = Math.max(...part), e = part.map((o) => Math.exp(o - most));
      part.set(e.map((o) => o / e.reduce((a, b) => a + b)));
    }
    return v;
  } };

const reaching = ({ blocks }, z) => join(blocks.map((b) => z[b]));  // what a decoder sees

function drawn(net, { at, rows, size: [H, W] }, hidden) {  // the end of mmvae.nets.ImageDecoder: 8x8 pixels a place
  const across = Math.ceil(W / PATCH), down = Math.ceil(H / PATCH), places = across * down, area = PATCH * PATCH;
  const grid = silu(dense(net, at + ".last", hidden)), near = new Float32Array((grid.length / places) * 9);
  const out = new Float32Array(((rows[1] - rows[0]) / area) * H * W);
  for (let place = 0; place < places; place++) {
    const top = Math.floor(place / across), left = place % across;
    for (let i = 0; i < near.length; i++) {  // its features and its neighbours'; beyond the edge there is nothing
      const y = top + Math.floor((i % 9) / 3) - 1, x = left + (i % 3) - 1;
      near[i] = y < 0 || x < 0 || y >= down || x >= across ? 0 : grid[Math.floor(i / 9) * places + y * across + x];
    }
    const pixels = dense(net, at + ".pixels", silu(dense(net, at + ".mix", near)), ...rows);
    for (let i = 0; i < pixels.length; i++) {
      const y = top * PATCH + Math.floor((i % area) / PATCH), x = left * PATCH + (i % PATCH);
      if (y < H && x < W) out[(Math.floor(i / area) * H + y) * W + x] = pixels[i];
    }
  }
  return out;
}

function decode(net, of, z) {  // mmvae.nets.VectorDecoder or ImageDecoder, or some rows of it: the mean of one modality
  const hidden = silu(dense(net, of.at + ".hidden2", silu(dense(net, of.at + ".hidden1", reaching(of, z)))));
  return MEANS[of.mean](of.size ? drawn(net, of, hidden) : dense(net, of.at + ".last", hidden, ...of.rows), of.classes);
}

const normals = (length) =>  // a draw from the prior
  Array.from({ length }, () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()));
