// What the last touch did, in a sentence: which pictures have changed, as they are painted, and by how much.

const many = (parts, last = " and ") => parts.flatMap((part, i) => (i ? [i === parts.length - 1 ? last : ", ", part] : [part])).flat();

function apart(before, now, { low, high }) {  // the mean difference of two lists of arrays, in 255ths of the scale
  if (before?.length !== now?.length) return 0;
  const level = (value) => Math.round((255 * (value - low)) / (high - low));
  let sum = 0, n = 0;
  now.forEach((values, k) => {
    if (values !== before[k]) for (let i = 0; i < values.length; i++) sum += Math.abs(level(values[i]) - level(before[k][i]));
    n += values.length;
  });
  return sum / n;
}

const brief_ = (v) => (v < 0.1 ? "less than 0.1" : v < 10 ? v.toFixed(1) : `${Math.round(v)}`);
const amounts = (by, pictures) => (pictures ? `${many(by.map((v) => [brief_(v)])).join("")} grey levels a pixel`
  : `${many(by.map((v) => [`${brief_((100 * v) / 255)}\u00a0%`])).join("")} of the range`);

// changed: {modality: by how much}. x(m): its name, an element; drawn(m): whether it is a picture. Nodes of a sentence
function changes(changed, x, drawn) {
  const moved = Object.keys(changed).filter((m) => changed[m]), kept = Object.keys(changed).filter((m) => !changed[m]);
  const pictures = kept.every(drawn), have = kept.length > 1 ? " have" : " has";
  if (!moved.length) return ["nothing has changed."];
  return [...(kept.length ? ["only "] : []), ...many(moved.map((m) => [x(m)])), moved.length > 1 ? " have changed, by " : " has changed, by ",
    amounts(moved.map((m) => changed[m]), moved.every(drawn)), ...(kept.length ? ["; ", ...many(kept.map((m) => [x(m)])), have,
      pictures ? " kept every pixel." : " not."] : ["."])];
}

function farthest(before, now) {  // the latent whose posterior mean has moved most: [block, its number, by how much]
  let found = ["", 0, 0];
  for (const b in now)
    now[b].mu.forEach((mean, k) => { if (Math.abs(mean - before[b].mu[k]) > Math.abs(found[2])) found = [b, k, mean - before[b].mu[k]]; });
  return found;
}
