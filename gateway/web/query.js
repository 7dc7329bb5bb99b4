// The query: terms, filters and options; its short form, address and request.

export const MAX_TERMS = 16;
export const MAX_WEIGHT = 100;

const WORDS = /(?:[^\s"]|"[^"]*"?)+/g;
const WEIGHT = /^([0-9]+(?:\.[0-9]+)?):(?![0-9])([\s\S]*)$/;
const PICTURE = ["./", "../", "~/", "/"];

/**
 * The terms of a query in the short form, `2:dog + ./a.jpg - fruit`, as gateway/search/short_form.py reads
 * it: {weight, text} or {weight, name}. Throws an Error that says why it cannot be read.
 */
export function parse(query) {
  const terms = [];
  let sign = 1;
  let words = [];
  let given = false;
  for (const word of query.match(WORDS) ?? []) {
    if (word !== "+" && word !== "-") {
      words.push(word);
      continue;
    }
    if (words.length) terms.push(term(sign, words.join(" ")));
    else if (given || terms.length) throw new Error(`A term is missing before ${word}.`);
    [sign, words, given] = [word === "+" ? 1 : -1, [], true];
  }
  if (!words.length) throw new Error(given ? "A term is missing at the end." : "The query is empty.");
  terms.push(term(sign, words.join(" ")));
  if (terms.length > MAX_TERMS) throw new Error(`A query has at most ${MAX_TERMS} terms.`);
  return terms;
}

function term(sign, words) {
  let weight = 1;
  const weighted = WEIGHT.exec(words);
  if (weighted) {
    weight = Number(weighted[1]);
    words = weighted[2].trim();
    if (!(weight > 0 && weight <= MAX_WEIGHT)) {
      throw new Error(`The weight ${weighted[1]} is not above 0 and at most ${MAX_WEIGHT}.`);
    }
  }
  if ((words.split('"').length - 1) % 2) throw new Error("A quote is not closed.");
  const quoted = words.startsWith('"');
  const plain = words.replaceAll('"', "").trim();
  if (!plain) throw new Error("A term is empty.");
  if (quoted || !PICTURE.some((start) => plain.startsWith(start))) {
    return { weight: sign * weight, text: plain };
  }
  if (plain.startsWith("../") || plain.startsWith("~/")) {
    throw new Error("Only pictures of the collection can be named here, for instance ./cat.jpg.");
  }
  return { weight: sign * weight, name: plain.replace(/^\.?\/+/, "") };
}

/** The text in the box for a single term, which is parsed to the same term again. */
export function asTyped(text) {
  try {
    const [only, ...more] = parse(text);
    if (!more.length && only.text === text && only.weight === 1) return text;
  } catch {
    // The text has a meaning in the short form unless it is quoted.
  }
  return `"${text}"`;
}

/** Whether the box can show the whole query, so that no chips are needed. */
export const isPlain = (terms) =>
  terms.length === 1 && terms[0].text !== undefined && terms[0].weight === 1;

/** The query in words, for messages and the title. */
export function describe(terms) {
  const named = (each) => each.text ?? each.name ?? "your picture";
  if (isPlain(terms)) return terms[0].text;
  return terms
    .map((each, at) => {
      const sign = each.weight < 0 ? "− " : at ? "+ " : "";
      const size = Math.abs(each.weight);
      return `${sign}${size === 1 ? "" : `${size}:`}${named(each)}`;
    })
    .join(" ");
}

const KINDS = { q: "text", like: "name", own: "own" };

/**
 * The query that an address holds. Terms are `q` (a text), `like` (an indexed picture) and `own` (a
 * picture of this browser tab), each with an optional `w` after it; all others are options.
 */
export function fromAddress(search) {
  const query = { terms: [], options: [] };
  for (const [name, value] of new URLSearchParams(search)) {
    const last = query.terms.at(-1);
    if (name in KINDS) {
      if (value.trim()) query.terms.push({ weight: 1, [KINDS[name]]: value.trim() });
    } else if (name === "w") {
      const weight = Number(value);
      if (last && weight && Math.abs(weight) <= MAX_WEIGHT) last.weight = weight;
    } else if (value) {
      query.options.push([name, value]);
    }
  }
  query.terms.length = Math.min(query.terms.length, MAX_TERMS);
  return query;
}

export function toAddress({ terms, options }) {
  const address = new URLSearchParams();
  for (const each of terms) {
    for (const [name, property] of Object.entries(KINDS)) {
      if (each[property] !== undefined) address.append(name, each[property]);
    }
    if (each.weight !== 1) address.append("w", each.weight);
  }
  for (const [name, value] of options) address.append(name, value);
  const text = address.toString();
  return text ? `?${text}` : "/";
}

/** The filters of the API for these options, which have the names of the form's fields. */
export function filters(options) {
  const found = {};
  const set = (name, end, value) => (found[name] = { ...found[name], [end]: value });
  for (const [name, value] of options) {
    const [end, what] = name.split("_");
    if (name === "folder" || name === "camera") found[name] = value;
    else if (name === "type") (found.media_type ??= []).push(value);
    else if (name === "gps") found.has_gps = value === "with";
    else if (what === "mb") set("size_bytes", end, Math.round(Number(value) * 1e6));
    else if (what === "width" || what === "height") set(what, end, Number(value));
    else if (end === "taken" || end === "added") set(`${end}_at`, what, day(value, what === "to"));
  }
  return found;
}

/** The first or the last instant of a day in the user's time zone. */
function day(text, last) {
  const start = new Date(`${text}T00:00:00`);
  if (Number.isNaN(start.getTime())) return text;
  if (last) start.setDate(start.getDate() + 1);
  return new Date(start.getTime() - (last ? 1 : 0)).toISOString();
}

/** The properties of a picture that are shown. */
export const DETAILS = [
  "media_type", "size_bytes", "width", "height", "modified_at", "added_at", "taken_at", "camera",
  "latitude", "longitude",
];

/** The request's body without the cursor; `own` returns the Base64 of a picture of this tab. */
export function request({ terms, options }, own) {
  const has = (name) => options.some(([each]) => each === name);
  const narrowed = filters(options);
  return {
    terms: terms.map((each) => ({
      ...(each.text === undefined ? {} : { text: each.text }),
      ...(each.name === undefined ? {} : { image_name: each.name }),
      ...(each.own === undefined ? {} : { image: own(each.own) }),
      weight: each.weight,
    })),
    ...(Object.keys(narrowed).length ? { filters: narrowed } : {}),
    cut_off: has("weak") ? "none" : "auto",
    collapse_duplicates: has("collapse"),
    include: DETAILS,
  };
}
