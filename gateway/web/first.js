// The first screen: the newest pictures, their folders, and how far indexing is.

import { ApiError, get } from "./api.js";
import { $, counted, el } from "./dom.js";
import { Grid, isNear, whenNear } from "./grid.js";
import { DETAILS, filters, toAddress } from "./query.js";

const PAGE = 30;
const FOLDERS = 12;
const LOADING = "Loading more…";
const MORE_ANEW_PX = 300; // Further down, pictures that were loaded are not thrown away.

let grid = null;
let hooks = {};
let shown = null; // The options in the address while the first screen is shown, else null.
let loaded = null; // What is shown: {options, contents, additions, folders}; null before the first answer.
let additions = 0; // How many pictures were added here.
let cursor = null; // Of the next page; null if there is none.
let seen = new Set(); // The names of the pictures that were on the screen since it was emptied.
let running = null; // The page that is being loaded.
let state = null; // The state of the system; null if it is not known.

/** `found(matches)` is called with the pictures, `folders(names)` with the folders. */
export function connect(actions, given) {
  hooks = given;
  grid = new Grid($("newest"), actions, more, dropped);
  whenNear($("newest-after"), more);
  $("newest-more").addEventListener("click", more);
  $("nothing-add").addEventListener("click", () => $("add-files").click());
  $("viewer").addEventListener("close", () => refresh());
}

/** Show the first screen, with the pictures that pass the filters among these options. */
export function show(options) {
  shown = options;
  $("first").hidden = false;
  if (loaded?.options !== key()) {
    stop();
    loaded = cursor = null;
    seen = new Set();
    grid.showWaiting();
    $("newest-text").textContent = "";
    $("newest-more").hidden = $("nothing").hidden = true;
    title();
  }
  refresh();
}

export function hide() {
  stop();
  shown = null;
  $("first").hidden = true;
}

/** Abort what is being loaded; `show` loads it again. */
function stop() {
  running?.abort();
  running = null;
  $("newest").removeAttribute("aria-busy");
  if ($("newest-text").textContent === LOADING) end();
}

/** The state of the system was read, or could not be read (null). */
export function update(found) {
  state = found;
  progress();
  if (!shown) return;
  if (loaded?.contents === null && state?.images === loaded.folders.images) loaded.contents = contents();
  if (loaded) nothing(loaded.folders);
  refresh();
}

/** A picture was added: look for it now, as the state may be some seconds old. */
export function added() {
  additions += 1;
  refresh();
}

const key = () => new URLSearchParams(shown).toString();
const narrowed = () => Object.keys(filters(shown)).length > 0;

/** What the collection holds, as far as the state says. */
const contents = () =>
  state && `${state.collection} ${state.images} ${state.waiting ? "more to come" : ""}`;

function progress() {
  const { images, waiting } = state ?? {};
  $("indexing").hidden = !waiting;
  if (!waiting) return;
  const text = `Indexing: ${images.toLocaleString("en")} of about ${counted(images + waiting, "picture")}`;
  const failed = state.failed ? `, ${state.failed.toLocaleString("en")} failed` : "";
  $("indexing-text").textContent = text + failed;
  $("indexing-bar").max = images + waiting;
  $("indexing-bar").value = images;
}

/** Load what is new, unless nothing has changed or the viewer shows one of the pictures. */
async function refresh() {
  if (!shown || running || $("viewer").open) return;
  const now = contents();
  const known = additions;
  if (loaded && loaded.additions === known && (now === null || loaded.contents === now)) return;
  const options = key();
  const mine = (running = new AbortController());
  $("newest").setAttribute("aria-busy", String(!loaded));
  try {
    const [page, folders] = await Promise.all([
      get(address(), mine.signal),
      get(`/api/v1/folders?limit=${FOLDERS}`, mine.signal),
    ]);
    if (running !== mine || $("viewer").open) return;
    const first = !loaded;
    const joined = join(page);
    loaded = joined ? { options, contents: now, additions: known, folders } : { ...loaded, folders };
    listFolders(folders);
    title(folders.images);
    nothing(folders);
    if (joined) announce(page.images, first);
    hooks.found(page.images);
  } catch (error) {
    if (running !== mine) return;
    if (!(error instanceof ApiError)) throw error;
    if (loaded) return;
    grid.clear();
    $("newest-text").textContent = `The pictures could not be loaded: ${error.message}`;
  } finally {
    if (running === mine) {
      done();
      if (additions !== known) refresh();
    }
  }
}

function done() {
  running = null;
  $("newest").removeAttribute("aria-busy");
  fill();
}

/** Load more pictures if the end of those that are shown is in the window. */
function fill() {
  if (cursor && $("newest-more").hidden) requestAnimationFrame(() => isNear($("newest-after")) && more());
}

/** A picture that does not exist any more was removed. */
function dropped() {
  if (running || !loaded) return;
  end();
  nothing(loaded.folders);
  fill();
}

function address() {
  const wanted = new URLSearchParams({ limit: PAGE });
  if (narrowed()) wanted.set("filters", JSON.stringify(filters(shown)));
  for (const each of ["sha256", ...DETAILS]) wanted.append("include", each);
  return `/api/v1/images?${wanted}`;
}

/**
 * Join the newest pictures with those shown: what is new comes first, what is gone goes. Returns
 * false if that must wait, as it would throw away the pictures that the user has scrolled to.
 */
function join({ images, next_cursor: next }) {
  const names = grid.matches.map((each) => each.image_name);
  const last = names.indexOf(images.at(-1)?.image_name);
  if (!loaded || !next || (last < 0 && scrollY < MORE_ANEW_PX)) {
    grid.replace(images);
    cursor = next;
  } else if (last < 0) {
    return false;
  } else {
    const wanted = new Set(images.map((each) => each.image_name));
    const older = grid.matches.slice(last + 1).filter((each) => !wanted.has(each.image_name));
    if (!older.length) cursor = next;
    grid.replace([...images, ...older]);
  }
  $("newest-more").hidden = true;
  end();
  return true;
}

function end() {
  $("newest-text").textContent = cursor || grid.matches.length <= PAGE ? "" : "These are all.";
}

/** Load the next page, if there is one and none is being loaded; returns whether it has pictures. */
async function more() {
  if (!shown || !cursor || running || !loaded) return false;
  const mine = (running = new AbortController());
  $("newest-more").hidden = true;
  $("newest-text").textContent = LOADING;
  try {
    const page = await get(`${address()}&cursor=${encodeURIComponent(cursor)}`, mine.signal);
    if (running !== mine) return false;
    const names = new Set(grid.matches.map((each) => each.image_name));
    const fresh = page.images.filter((each) => !names.has(each.image_name));
    grid.append(fresh);
    fresh.forEach((each) => seen.add(each.image_name));
    cursor = page.next_cursor;
    end();
    hooks.found(fresh);
    return fresh.length > 0;
  } catch (error) {
    if (running !== mine) return false;
    if (!(error instanceof ApiError)) throw error;
    $("newest-text").textContent = `More could not be loaded: ${error.message}`;
    $("newest-more").hidden = false;
    return false;
  } finally {
    if (running === mine) done();
  }
}

const folderOf = (options) => options.find(([name]) => name === "folder")?.[1];

function title(images) {
  const folder = folderOf(shown);
  const others = Object.keys(filters(shown)).length > (folder === undefined ? 0 : 1);
  const where = `${folder === undefined ? "" : ` in ${folder}`}${others ? " within the filters" : ""}`;
  $("first-title").textContent =
    where || images === undefined ? `Newest pictures${where}` : `${counted(images, "picture")}, newest first`;
}

function link(text, options, ...more) {
  const address = toAddress({ terms: [], options });
  return el("a", { href: address, "data-first": true }, text, ...more);
}

/** The folders as links that set the filter, or a link that removes it. */
function listFolders({ folders, elsewhere, exact }) {
  const chosen = folderOf(shown);
  const others = shown.filter(([name]) => name !== "folder");
  const items =
    chosen === undefined
      ? folders.map((each) => link(each.folder, [["folder", each.folder], ...others], count(each.images, exact)))
      : [link("All folders", others)];
  if (chosen === undefined && folders.length && elsewhere) {
    items.push(el("span", { class: "elsewhere" }, "elsewhere", count(elsewhere, exact)));
  }
  $("folder-list").replaceChildren(...items.map((each) => el("li", {}, each)));
  $("folder-nav").hidden = items.length === 0;
  hooks.folders(folders.map((each) => each.folder));
}

/** A number of pictures; two digits of it if it was estimated from a sample. */
function count(images, exact) {
  const number = images.toLocaleString("en", exact ? {} : { maximumSignificantDigits: 2 });
  const label = `${exact ? "" : "about "}${number} ${images === 1 ? "picture" : "pictures"}`;
  return el("span", { class: "count", "aria-label": label }, exact ? number : `≈ ${number}`);
}

/** Say what to do while there is nothing to show. */
function nothing({ root, images }) {
  const empty = images === 0 && !narrowed();
  $("nothing").hidden = !empty;
  $("first-head").hidden = empty;
  $("examples").hidden = $("options").hidden = empty;
  if (empty) {
    const coming = Boolean(state?.waiting);
    $("nothing-title").textContent = coming ? "The first pictures are being indexed" : "No pictures yet";
    $("nothing-folder").textContent = root;
    $("nothing-coming").hidden = !coming;
    $("nothing-how").hidden = coming;
    $("nothing-upload").hidden = coming || !(state?.uploads ?? true);
  } else if (!grid.matches.length && narrowed()) {
    $("newest-text").textContent = "There is no picture within the filters.";
  }
}

/** Tell a screen reader about pictures that appeared, but not about the `first` ones. */
function announce(images, first) {
  const fresh = images.filter((each) => !seen.has(each.image_name));
  fresh.forEach((each) => seen.add(each.image_name));
  if (fresh.length && !first) $("first-news").textContent = `${counted(fresh.length, "new picture")}.`;
}
