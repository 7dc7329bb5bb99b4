// The page: the address holds the query, and everything on the page is derived from it.

import * as chips from "./chips.js";
import { $ } from "./dom.js";
import * as drop from "./drop.js";
import * as first from "./first.js";
import * as options from "./options.js";
import * as own from "./own.js";
import { MAX_TERMS, asTyped, describe, fromAddress, isPlain, parse, toAddress } from "./query.js";
import { rating } from "./rating.js";
import * as results from "./results.js";
import * as system from "./system.js";
import * as uploads from "./uploads.js";
import * as viewer from "./viewer.js";

const HINT = "Say in your own words what a picture shows, or drop a picture here to find others like it.";
let query = { terms: [], options: [] };
let followed = 0; // How many queries were followed.

/** Show the results of the query in the address. */
function follow() {
  followed += 1;
  query = fromAddress(location.search);
  const plain = isPlain(query.terms);
  $("text").value = plain ? asTyped(query.terms[0].text) : "";
  $("text").placeholder =
    query.terms.length && !plain ? "Add a term" : "Describe a picture";
  chips.show($("chips"), plain ? [] : query.terms, (terms) => go({ ...query, terms }));
  options.show(query.options);
  $("examples").hidden = query.terms.length > 0;
  $("options").hidden = false;
  $("after").hidden = !query.terms.length;
  for (const each of document.querySelectorAll(".for-answers")) each.hidden = !query.terms.length;
  document.title = query.terms.length ? `${describe(query.terms)} – Image search` : "Image search";
  if (query.terms.length) {
    first.hide();
    results.search(query);
  } else {
    results.clear();
    results.say(HINT);
    first.show(query.options);
  }
}

/** Start another query. */
function go(wanted) {
  if (wanted.terms.length > MAX_TERMS) {
    results.refuse(`A query has at most ${MAX_TERMS} terms.`);
    return;
  }
  const address = toAddress(wanted);
  if (address !== (location.search || "/")) history.pushState(null, "", address);
  follow();
}

const only = (term) => go({ ...query, terms: [term] });
const like = (name) => only({ weight: 1, name });

/** Add a picture of the answer to the query, or change its sign if it is already a term. */
function combine(match, weight) {
  const name = match.image_name;
  go({ ...query, terms: [...query.terms.filter((each) => each.name !== name), { weight, name }] });
}

/**
 * Search for the typed text: alone it is the query, next to chips it is added to them. Without a text
 * or chips, the first screen is shown.
 */
function submit() {
  const typed = $("text").value.trim();
  const plain = isPlain(query.terms) || query.terms.length === 0;
  if (!typed) {
    if (plain) go({ ...query, terms: [] });
    else follow();
    return;
  }
  try {
    const terms = parse(typed);
    go({ ...query, terms: plain ? terms : [...query.terms, ...terms] });
  } catch (error) {
    results.refuse(error.message);
  }
}

/**
 * Search by a picture of the user's; `beside` the existing chips, or instead of them. Not if another
 * query was chosen while the file was being read.
 */
async function byFile(file, beside) {
  if (!file) return;
  const before = followed;
  try {
    const term = { weight: 1, own: await own.keep(file) };
    if (followed !== before) return;
    const kept = beside && !isPlain(query.terms) ? query.terms : [];
    // A picture that this tab no longer has would make the whole search fail.
    const here = kept.filter((each) => each.own === undefined || own.find(each.own));
    go({ ...query, terms: [...here, term] });
  } catch (error) {
    if (followed === before) results.refuse(error.message);
  }
}

const rate = rating($("rating"), "How good is this answer?");
const actions = { open: viewer.open, like: (match) => like(match.image_name), term: combine };
results.connect(actions, { rate: (jwt) => rate(jwt && { jwt }), found: options.learn });
first.connect(actions, { found: options.learn, folders: options.learnFolders });
viewer.connect(actions);
options.connect((chosen) => go({ ...query, options: chosen }));
uploads.connect({ find: like, added: first.added });
drop.connect({ search: (file) => byFile(file, false), add: uploads.add, fail: (text) => results.refuse(text) });

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
/** The query of a pressed link, followed without loading the page again; null for other keys. */
function linked(event) {
  const link = event.target.closest("a");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return null;
  event.preventDefault();
  return fromAddress(new URL(link.href).search);
}

$("text").addEventListener("search", () => {
  // Chromium and Safari send this when the button that empties the box is pressed.
  if (!$("text").value && isPlain(query.terms)) submit();
});
$("examples").addEventListener("click", (event) => {
  const wanted = linked(event);
  if (wanted) go({ ...wanted, options: query.options });
});
$("folder-list").addEventListener("click", (event) => {
  const wanted = linked(event);
  if (!wanted) return;
  go(wanted);
  $("first-title").focus();
});
$("weaker").addEventListener("click", () => {
  go({ ...query, options: [...query.options, ["weak", "1"]] });
  $("results").focus();
});
$("start-over").addEventListener("click", () => {
  go({ ...query, terms: [] });
  $("text").focus();
});
$("by-picture").addEventListener("click", () => $("by-file").click());
$("by-file").addEventListener("change", () => {
  byFile($("by-file").files[0], true);
  $("by-file").value = "";
});
window.addEventListener("popstate", () => {
  $("viewer").close();
  follow();
});

follow();
system.connect(first.update);
if (!query.terms.length) $("text").focus();
