// The answer to a query: its pages, loaded as the user scrolls, and the messages about them.

import { post } from "./api.js";
import { $, counted } from "./dom.js";
import { Grid, isNear, whenNear } from "./grid.js";
import * as own from "./own.js";
import { describe, request } from "./query.js";

const PAGE = 30;

let running = null; // The search in flight; a newer one aborts it.
let refusedIn = null; // The search in flight when the typed text was rejected; its end shows no message.
let cursor = null; // Of the next page; null if there is none.
let query = null;
let hooks = {};
let grid = null; // All shown matches, each with the receipt of its page.
let total = null; // The message with the number of matches, if there is one.

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

/** `rate(jwt or null)` and `found(matches)` are called with each answer; see `Grid` for `actions`. */
export function connect(actions, given) {
  hooks = given;
  grid = new Grid($("results"), actions, more, recount);
  $("more").addEventListener("click", more);
  whenNear($("after"), more);
}

export function clear() {
  running?.abort();
  running = cursor = query = total = null;
  grid.clear();
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
  grid.showWaiting();
  const answer = await page(true);
  if (!answer) return;
  if (grid.matches.length) hooks.rate(answer.jwt);
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
    if (running !== mine) return null;
    if (first) grid.clear();
    grid.append(answer.matches.map((match) => ({ ...match, jwt: answer.jwt })));
    cursor = answer.next_cursor;
    report(mine);
    hooks.found(answer.matches);
    return answer;
  } catch (error) {
    if (running !== mine) return null;
    if (first) {
      grid.clear();
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
      fill();
    }
  }
}

/** Load more matches if the end of those that are shown is in the window. */
function fill() {
  if (cursor && $("more").hidden) requestAnimationFrame(() => isNear($("after")) && more());
}

const isNarrowed = () => query.options.some(([name]) => name !== "weak" && name !== "collapse");

function count() {
  const so = cursor ? " so far" : "";
  const among = isNarrowed() ? " within the filters" : "";
  return `${counted(grid.matches.length, "picture")}${so} for “${describe(query.terms)}”${among}, best first`;
}

/** A picture that does not exist any more was removed: show the new number, if a number is shown. */
function recount() {
  if (total === null) return;
  const shown = $("message").textContent === total;
  total = count();
  if (shown) say(total);
  if (!running) fill();
}

function report(search) {
  const wanted = describe(query.terms);
  const narrowed = isNarrowed();
  const strict = !query.options.some(([name]) => name === "weak");
  const among = narrowed ? " within the filters" : "";
  total = null;
  if (grid.matches.length) {
    total = count();
    conclude(search, total);
  } else if (strict) {
    conclude(search, `No picture${among} stands out for “${wanted}”.`);
  } else if (narrowed) {
    conclude(search, `There is no picture${among}.`);
  } else {
    conclude(search, "No pictures yet. Add some, and search again.");
  }
  $("after-text").textContent =
    cursor || !grid.matches.length ? "" : strict ? "These are all good matches." : "These are all.";
  $("more").textContent = "Show more";
  $("weaker").hidden = !strict || Boolean(cursor);
}
