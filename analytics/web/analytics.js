"use strict";
// The analytics page. In a report the data are in the page itself, and there is no server.

const REFRESH_MS = 5000;
const COLOURS = ["#3b78d8", "#d8743b", "#3ba56a", "#a05bc4", "#c4a03b", "#3baab8"];
const inline = document.getElementById("data");
const $ = (id) => document.getElementById(id);
const charts = new Map();
let filters = new URLSearchParams(location.search);
let shown = "";

const number = (value, digits = 3) =>
  value === null || value === undefined ? "–"
    : typeof value !== "number" ? String(value)
      : Number.isInteger(value) ? value.toLocaleString("en") : Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 4 });
const time = (value) => value.replace("T", " ").slice(0, 16);
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

// What would fill a panel that is empty.
const NO_SEARCHES = "No searches yet: search on the page, in the terminal or over HTTP.";
const NO_RATINGS = "No ratings yet: search on the page, and rate the answer from 1 to 10.";
const NO_RATED_PICTURES = "No rated pictures yet: open a picture of an answer on the page, and rate it from 1 to 10.";

const PANELS = [
  { id: "over_time", empty: NO_SEARCHES, title: "Searches over time", kind: "line", counts: true, x: (row) => time(row.bucket), series: (rows) => [
    { label: "searches", data: rows.map((row) => row.searches) },
    { label: "without a result", data: rows.map((row) => row.without_result) }],
  drillDown: (row, data) => ({ since: row.bucket, until: later(row.bucket, data.bucket === "day" ? 1 : 1 / 24) }) },
  { id: "latency", empty: NO_SEARCHES, title: "Latency by stage, ms", kind: "bar", x: (row) => row.stage, series: (rows) =>
    ["p50_ms", "p90_ms", "p95_ms", "p99_ms"].map((name) => ({ label: name.slice(0, 3), data: rows.map((row) => row[name]) })) },
  { id: "rating_counts", empty: NO_RATINGS, title: "Ratings", kind: "bar", counts: true, x: (row) => row.rating, series: (rows) =>
    [{ label: "ratings", data: rows.map((row) => row.ratings) }], drillDown: (row) => ({ rating: row.rating }) },
  { id: "ratings_by_week", empty: NO_RATINGS, title: "Mean rating by model and week, 95 % interval", kind: "bar",
    x: (row) => row.week.slice(0, 10), series: (rows, labels) => seriesPerName(rows, labels, (row) => row.week.slice(0, 10),
      (row) => `${row.model_name} ${row.model_version ?? ""}`, { "": "mean_rating" }),
    drillDown: (row) => ({ since: row.week, until: later(row.week, 7), model: row.model_name, rated: true }) },
  { id: "ratings_by_score", empty: "No ratings of answers with a picture yet: search on the page, and rate the answer from 1 to 10.", title: "Mean rating by the best match's score, 95 % interval", kind: "bar",
    x: (row) => number(row.from_score), series: means,
    drillDown: (row) => ({ score_from: row.from_score, score_below: Math.round(row.from_score * 20 + 1) / 20, rated: true }) },
  { id: "ratings_by_position", empty: NO_RATED_PICTURES, title: "Mean rating by the rated picture's position, 95 % interval", kind: "bar",
    x: (row) => row.place, series: means, drillDown: (row) => ({ place: row.place }) },
  { id: "ratings_by_rated_images", empty: NO_RATINGS, title: "Mean rating by the number of rated pictures", kind: "bar", x: (row) => row.rated_images, series: means, drillDown: (row) => ({ rated_images: row.rated_images }) },
  { id: "time_to_searchable", empty: "No pictures indexed yet: put some into the watched folder.", title: "From file to searchable, seconds", kind: "line", x: (row) => row.day.slice(0, 10),
    series: (rows, labels) => seriesPerName(rows, labels, (row) => row.day.slice(0, 10), (row) => row.model_name, { p50: "p50_s", p95: "p95_s" }) },
  { id: "weak_queries", empty: "No search without a good match so far; those that have none are listed here.", title: "Queries with no results or only weak ones", columns: { text: "query", kind: "kind", searches: "searches", without_result: "no result", mean_top_score: "mean score", last_asked: "last searched" }, drillDown: (row) => ({ ...query(row), kind: row.kind, weak: true }) },
  { id: "most_liked", empty: NO_RATINGS, title: "Best rated queries", columns: { text: "query", ratings: "ratings", mean_rating: "mean", at_least: "at least" }, drillDown: (row) => ({ ...query(row), rated: true }) },
  { id: "least_liked", empty: NO_RATINGS, title: "Worst rated queries", columns: { text: "query", ratings: "ratings", mean_rating: "mean", at_most: "at most" }, drillDown: (row) => ({ ...query(row), rated: true }) },
  { id: "rated_images", empty: NO_RATED_PICTURES, title: "Rated pictures", columns: { image_name: "picture", ratings: "ratings", mean_rating: "mean" } },
  { id: "dead_letters", empty: "No picture has failed so far; those that cannot be indexed are counted here.", title: "Dead letters", columns: { error_class: "class", source_topic: "topic", letters: "letters", images: "pictures", last_at: "last" } },
  { id: "model_switches", empty: "The model has not been changed yet: ./image-search models switch NAME changes it.", title: "Effect of each model change, 95 % interval", columns: { switched_at: "when", from_collection: "from", collection: "to", ratings_before: "ratings before", ratings_after: "after", mean_before: "mean before", mean_after: "after", difference: "difference", at_least: "at least", at_most: "at most" } },
];
// The figures of a lake to which nothing was written yet.
const NOTHING = { bucket: "hour", totals: {}, score_correlation: {}, models: [], ...Object.fromEntries(PANELS.map(({ id }) => [id, []])) };

function means(rows) {
  return [{ label: "mean rating", data: rows.map((row) => row.mean_rating), rows }];
}
// A series per name (model) and field; labels without a value stay empty.
function seriesPerName(rows, labels, x, name, fields) {
  return [...new Set(rows.map(name))].sort().flatMap((one) => {
    const found = new Map(rows.filter((row) => name(row) === one).map((row) => [x(row), row]));
    const aligned = labels.map((label) => found.get(label) ?? {});
    return Object.entries(fields).map(([field, column]) => ({
      label: `${one} ${field}`.trim(), data: aligned.map((row) => row[column] ?? null), rows: aligned, spanGaps: true }));
  });
}
function query(row) {
  return { text: row.text ?? "" };
}
function later(moment, days) {
  return new Date(Date.parse(moment) + days * 864e5).toISOString();
}

// The element under the pointer, of all at this position of the axis.
function pointedAt(chart, event, hit) {
  return chart.getElementsAtEventForMode(event.native, "nearest", { intersect: true }, false)[0] ?? hit[0];
}

// Whiskers from at_least to at_most on each bar.
const whiskers = {
  id: "whiskers",
  afterDatasetsDraw(chart) {
    const { ctx, scales: { y } } = chart;
    if (chart.config.type !== "bar") return;
    ctx.save();
    ctx.strokeStyle = Chart.defaults.color;
    chart.data.datasets.forEach((series, number) => chart.getDatasetMeta(number).data.forEach((bar, place) => {
      const { at_least: low, at_most: high } = series.rows?.[place] ?? {};
      if (typeof low !== "number") return;
      const [bottom, top] = [y.getPixelForValue(Math.max(low, y.min)), y.getPixelForValue(Math.min(high, y.max))];
      ctx.beginPath();
      ctx.moveTo(bar.x, bottom); ctx.lineTo(bar.x, top);
      ctx.moveTo(bar.x - 4, bottom); ctx.lineTo(bar.x + 4, bottom);
      ctx.moveTo(bar.x - 4, top); ctx.lineTo(bar.x + 4, top);
      ctx.stroke();
    }));
    ctx.restore();
  },
};

function draw(data) {
  const totals = data.totals;
  $("totals").replaceChildren(...Object.entries({
    searches: totals.searches, "without result": totals.without_result, "latency p95, ms": totals.latency_p95_ms,
    ratings: totals.ratings, "mean rating": totals.mean_rating, "index changes": totals.index_changes,
    "dead letters": totals.dead_letters, "rating and score (Pearson)": data.score_correlation.pearson,
  }).map(([name, value]) => element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: number(value) }))));
  for (const panel of PANELS) {
    const rows = data[panel.id];
    if (!$(panel.id)) {
      const made = element("section", { id: panel.id, className: "panel" }, element("h2", { textContent: panel.title }));
      made.append(panel.columns ? element("div", { className: "scroll" }) : element("div", { className: "plot" }, element("canvas"), element("p", { className: "quiet", hidden: true })));
      $("charts").append(made);
    }
    if (panel.columns) fill(panel, rows); else plot(panel, rows, data);
  }
}

function emptyText(panel) {
  return filters.size ? "Nothing of the chosen period or model." : panel.empty;
}

function plot(panel, rows, data) {
  const note = $(panel.id).querySelector("p");
  note.textContent = rows.length ? "" : emptyText(panel);
  note.hidden = rows.length > 0;
  note.parentElement.classList.toggle("empty", rows.length === 0);
  const labels = [...new Set(rows.map(panel.x).map(String))];
  const datasets = panel.series(rows, labels).map((series, place) => ({
    ...series, backgroundColor: COLOURS[place % COLOURS.length], borderColor: COLOURS[place % COLOURS.length], borderWidth: panel.kind === "line" ? 2 : 0, pointRadius: rows.length > 60 ? 0 : 3, pointHitRadius: 8 }));
  const known = charts.get(panel.id);
  if (known) {
    Object.assign(known.data, { labels, datasets: datasets.map((set, place) => Object.assign(known.data.datasets[place] ?? {}, set)) });
    known.rows = rows; known.dashboard = data;
    known.update("none");
    return;
  }
  const canvas = $(panel.id).querySelector("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", panel.title);
  const chart = new Chart(canvas, {
    type: panel.kind, data: { labels, datasets }, plugins: [whiskers],
    options: {
      animation: false, maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      plugins: { legend: { display: datasets.length > 1 } },
      scales: { y: panel.id.startsWith("ratings_by") ? { min: 1, max: 10 } : { beginAtZero: true, grace: "5%", ticks: panel.counts ? { precision: 0 } : {} }, x: { ticks: { maxRotation: 60, autoSkipPadding: 12 } } },
      onHover: (event, hit) => { event.native.target.style.cursor = hit.length && panel.drillDown && !inline ? "pointer" : ""; },
      onClick: (event, hit) => { if (hit.length && panel.drillDown && !inline) {
        // With several series, the row belongs to the bar, not to the position on the axis.
        const { datasetIndex, index } = pointedAt(chart, event, hit);
        const row = chart.data.datasets[datasetIndex].rows?.[index] ?? chart.rows[index];
        if (row && Object.keys(row).length) drillDown(panel.title, panel.drillDown(row, chart.dashboard));
      } },
    },
  });
  chart.rows = rows; chart.dashboard = data;
  charts.set(panel.id, chart);
}

function fill(panel, rows) {
  const names = Object.keys(panel.columns);
  const head = element("tr", {}, ...names.map((name) => element("th", {
    scope: "col", textContent: panel.columns[name], className: rows.some((row) => typeof row[name] === "number") ? "number" : "" })));
  const body = rows.map((row) => element("tr", {}, ...names.map((name, place) => {
    const value = row[name];
    const text = typeof value === "string" && /^\d{4}-\d\d-\d\dT/.test(value) ? time(value) : name === "text" ? (value ?? (row.kind === "image" ? "(a picture)" : "(not recorded)")) : number(value);
    const cell = element("td", { className: typeof value === "number" ? "number" : "" });
    if (place === 0 && panel.drillDown && !inline) cell.append(element("button", { type: "button", textContent: text, onclick: () => drillDown(`${panel.title}: ${text}`, panel.drillDown(row)) }));
    else cell.textContent = text;
    return cell;
  })));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  $(panel.id).lastElementChild.replaceChildren(rows.length ? table : element("p", { className: "quiet", textContent: emptyText(panel) }));
}

async function fetchJson(path, parameters) {
  const response = await fetch(`/api/v1/analytics/${path}?${parameters}`);
  const body = await response.json();
  if (!response.ok) {
    const message = body.errors?.map((error) => `${error.field}: ${error.message}`).join("; ") || body.detail;
    throw Object.assign(new Error(message), { emptyLake: body.empty_lake === true });
  }
  return body;
}

async function drillDown(title, wanted) {
  const parameters = new URLSearchParams(filters);
  for (const [name, value] of Object.entries(wanted)) {
    // A bar at the edge of the period counts only what is within the period.
    const chosen = filters.get(name);
    const beyond = chosen && (name === "since" ? Date.parse(chosen) > Date.parse(value) : name === "until" && Date.parse(chosen) < Date.parse(value));
    if (!beyond) parameters.set(name, value);
  }
  try {
    const { searches } = await fetchJson("searches", parameters);
    $("drill-down").hidden = false;
    $("drill-down-title").textContent = `${title}: ${searches.length} searches, newest first`;
    $("drill-down-list").replaceChildren(...searches.map(entry));
    $("drill-down-title").focus();
  } catch (error) {
    showState(error.message, true);
  }
}

function entry(search) {
  const rated = new Map(search.ratings.map((given) => [given.image_name, given.rating]));
  const whole = rated.has(null) ? `, rated ${rated.get(null)}` : "";
  const about = `${time(search.occurred_at)} · ${search.model_name} · ${number(search.latency_ms)} ms${whole}`;
  const pictures = search.results.slice(0, 20).map(({ image_name: name, score }) => {
    const link = `/images/${name.split("/").map(encodeURIComponent).join("/")}`;
    const given = rated.has(name) ? `, rated ${rated.get(name)}` : "";
    return element("figure", {}, element("a", { href: link }, element("img", { src: link, alt: name, loading: "lazy" })), element("figcaption", { textContent: `${number(score)}${given}`, title: name }));
  });
  return element("li", {}, element("strong", { textContent: search.text ?? (search.kind === "image" ? "(a picture)" : "(not recorded)") }), " ", element("span", { className: "quiet", textContent: about }),
    element("div", { className: "pictures" }, ...(pictures.length ? pictures : ["No result."])));
}

function showState(text, bad = false) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", bad);
}

async function fetchDashboard() {
  try {
    return await fetchJson("dashboard", filters);
  } catch (error) {
    if (error.emptyLake) return NOTHING;
    throw error;
  }
}

async function refresh() {
  try {
    const data = await fetchDashboard();
    const now = JSON.stringify(data);
    if (now !== shown) {
      shown = now;
      draw(data);
      const select = document.forms.filters.model;
      const chosen = filters.get("model") ?? "";
      select.replaceChildren(new Option("all", ""), ...data.models.map((name) => new Option(name, name)));
      select.value = chosen;
    }
    showState(data === NOTHING ? "Nothing has been recorded yet" : `Updated at ${new Date().toISOString().slice(11, 19)} UTC`);
  } catch (error) {
    showState(error.message, true);
  }
}

function start() {
  Chart.defaults.color = getComputedStyle(document.body).color;
  if (inline) {
    draw(JSON.parse(inline.textContent));
    return;
  }
  const form = document.forms.filters;
  for (const name of ["since", "until"]) form[name].value = (filters.get(name) ?? "").slice(0, 16);
  const choose = () => {
    filters = new URLSearchParams();
    for (const name of ["since", "until"]) if (form[name].value) filters.set(name, `${form[name].value}:00Z`);
    if (form.model.value) filters.set("model", form.model.value);
    history.replaceState(null, "", filters.size ? `?${filters}` : location.pathname);
    refresh();
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); choose(); });
  form.addEventListener("reset", () => setTimeout(choose));
  const again = async () => {
    if (!document.hidden) await refresh();
    setTimeout(again, REFRESH_MS);
  };
  again();
}
start();
