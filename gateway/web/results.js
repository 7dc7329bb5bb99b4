// The grid of pictures: its pages, loaded as the user scrolls, and the messages about them.

import { post } from "./api.js";
import { $, counted, el, fileName, thumbnail } from "./dom.js";
import * as own from "./own.js";
import { describe, request } from "./query.js";

const PAGE = 30;

let running = null; // The search in flight; a newer one aborts it.
let refusedIn = null; // The search in flight when the typed text was rejected; its end shows no message.
let cursor = null; // Of the next page; null if there is none.
let query = null;
let hooks = {};
export const matches = []; // All shown matches, each with the receipt of its page.

export function say(text, bad = false) {
  $("message").textContent = text;
  $("message").classList.toggle("bad", bad);
}

/** Show what is wrong with the typed text, until the next action. */
export function refuse(text) {
  say(text, true);
  refusedIn = running;
}

/** Show how a search ended, unless a text typed meanwhile was rejected. */
function conclude(search, text, bad = false) {
  if (search !== refusedIn) say(text, bad);
}

/** The actions of a card: open(at), term(match, weight), like(match), rate(jwt or null). */
export function connect(given) {
  hooks = given;
  $("more").addEventListener("click", more);
  new IntersectionObserver(
    (entries) => entries.some((entry) => entry.isIntersecting) && more(),
    { rootMargin: "600px" },
  ).observe($("after"));
  $("results").addEventListener("keydown", moveFocus);
}

const columns = () =>
  getComputedStyle($("results")).gridTemplateColumns.split(" ").length;

/** Arrow keys move from card to card. */
function moveFocus(event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
  const at = [...$("results").children].indexOf(document.activeElement?.closest(".card"));
  if (at < 0 || !(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  focusOn(Math.max(0, Math.min(matches.length - 1, at + steps[event.key])));
}

export function focusOn(at) {
  const open = matches[at] && $("results").children[at]?.querySelector(".open");
  (open ?? $("results")).focus();
}

function card(match, at) {
  const name = fileName(match.image_name);
  const duplicates = match.duplicates?.length ?? 0;
  // For the mouse only; with the keyboard the same buttons are in the viewer.
  const quick = (sign, title, act) =>
    el("button", { type: "button", tabindex: "-1", title, "aria-label": `${title}: ${name}`, onclick: act }, sign);
  return el(
    "li",
    { class: "card" },
    el(
      "button",
      { type: "button", class: "open", "aria-label": `Open ${match.image_name}, score ${match.score.toFixed(2)}`, onclick: () => hooks.open(at) },
      thumbnail(match.image_name, 512),
    ),
    el(
      "div",
      { class: "quick" },
      quick("≈", "More like this", () => hooks.like(match)),
      quick("+", "Add to the query", () => hooks.term(match, 1)),
      quick("−", "Subtract from the query", () => hooks.term(match, -1)),
    ),
    duplicates ? el("span", { class: "duplicates", title: `${counted(duplicates, "picture")} nearly the same` }, `+${duplicates}`) : null,
    el(
      "p",
      {},
      el("span", { class: "name", title: match.image_name }, name),
      el("span", { class: "score", title: "Cosine similarity" }, match.score.toFixed(2)),
    ),
  );
}

function showWaiting() {
  $("results").replaceChildren(
    ...Array.from({ length: 12 }, () => el("li", { class: "card waiting", "aria-hidden": "true" })),
  );
}

export function clear() {
  running?.abort();
  running = cursor = query = null;
  matches.length = 0;
  $("results").replaceChildren();
  $("results").removeAttribute("aria-busy");
  $("more").hidden = $("weaker").hidden = true;
  $("after-text").textContent = "";
  hooks.rate(null);
}

/** Show the first page of a query. */
export async function search(wanted) {
  clear();
  query = wanted;
  const lost = wanted.terms.find((each) => each.own !== undefined && !own.find(each.own));
  if (lost) {
    say("The picture of this search exists only in the tab where it was chosen. Choose it again.", true);
    return;
  }
  say("Searching…");
  showWaiting();
  const answer = await page(true);
  if (!answer) return;
  if (matches.length) hooks.rate(answer.jwt);
}

/** Load the next page, if there is one and none is being loaded; returns whether it has matches. */
export async function more() {
  if (!cursor || running) return false;
  return Boolean(await page(false));
}

async function page(first) {
  const mine = (running = new AbortController());
  $("results").setAttribute("aria-busy", "true");
  $("more").hidden = true;
  if (!first) $("after-text").textContent = "Loading more…";
  const body = { ...request(query, (key) => own.find(key).base64), limit: PAGE };
  try {
    const answer = await post(
      "/api/v1/search-image",
      { ...body, ...(first ? { paged: true } : { cursor }) },
      mine.signal,
    );
    if (first) $("results").replaceChildren();
    const start = matches.length;
    matches.push(...answer.matches.map((match) => ({ ...match, jwt: answer.jwt })));
    $("results").append(...matches.slice(start).map((match, at) => card(match, start + at)));
    cursor = answer.next_cursor;
    report(mine);
    hooks.found(answer.matches);
    return answer;
  } catch (error) {
    if (error.name === "AbortError") return null;
    if (first) {
      $("results").replaceChildren();
      conclude(mine, error.message, true);
    } else {
      $("after-text").textContent = `More could not be loaded: ${error.message}`;
      $("more").textContent = "Try again";
      $("more").hidden = false;
    }
    return null;
  } finally {
    if (running === mine) {
      running = null;
      $("results").removeAttribute("aria-busy");
      // If a page does not fill the window, no scroll event will load the next one.
      if (cursor && $("more").hidden) requestAnimationFrame(fill);
    }
  }
}

function fill() {
  if ($("after").getBoundingClientRect().top < innerHeight + 600) more();
}

function report(search) {
  const wanted = describe(query.terms);
  const narrowed = query.options.some(([name]) => name !== "weak" && name !== "collapse");
  const strict = !query.options.some(([name]) => name === "weak");
  const among = narrowed ? " within the filters" : "";
  if (matches.length) {
    const so = cursor ? " so far" : "";
    conclude(search, `${counted(matches.length, "picture")}${so} for “${wanted}”${among}, best first`);
  } else if (strict) {
    conclude(search, `No picture${among} stands out for “${wanted}”.`);
  } else if (narrowed) {
    conclude(search, `There is no picture${among}.`);
  } else {
    conclude(search, "No pictures yet. Add some, and search again.");
  }
  $("after-text").textContent =
    cursor || !matches.length ? "" : strict ? "These are all good matches." : "These are all.";
  $("more").textContent = "Show more";
  $("weaker").hidden = !strict || Boolean(cursor);
}
