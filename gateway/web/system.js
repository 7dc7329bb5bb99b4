// The state of the system, in the header and in a dialog, which also lists the dead letters.

import { ApiError, get } from "./api.js";
import { $, counted, el, moment } from "./dom.js";

const EVERY_MS = 10_000;
const QUICK_MS = 2500; // While pictures are being indexed.

let state = null;
let timer = null;
let idle = 0; // How many times in a row the state was read without a change.
const newest = { state: 0, letters: 0 }; // The newest requests that were answered.
let requests = 0;
let announced = null; // The step of the change to a better model that was announced last.
let listener = () => {};
export const known = () => state;

function summary(found) {
  const parts = [counted(found.images, "picture")];
  if (found.waiting) parts.push(`${found.waiting.toLocaleString("en")} waiting`);
  if (found.failed) parts.push(`${found.failed.toLocaleString("en")} failed`);
  return parts.join(" · ");
}

/**
 * Load the state; called every ten seconds while the page is visible, more often while pictures are
 * being indexed, and after uploads.
 */
export async function refresh() {
  const before = JSON.stringify(state);
  await load();
  idle = JSON.stringify(state) === before ? idle + 1 : 0;
  clearTimeout(timer);
  const unsettled = state === null || state.waiting;
  timer = setTimeout(next, unsettled ? Math.min(EVERY_MS, QUICK_MS * 2 ** idle) : EVERY_MS);
}

/** While the page is hidden, nothing is loaded; `visibilitychange` starts again. */
const next = () => document.hidden || refresh();

/** Whether a newer request of this kind was answered before this one, whose answer is old by now. */
function isLate(kind, mine) {
  if (mine < newest[kind]) return true;
  newest[kind] = mine;
  return false;
}

async function load() {
  const button = $("state");
  const mine = ++requests;
  try {
    const found = await get("/api/v1/state");
    if (isLate("state", mine)) return;
    state = found;
    button.textContent = `${summary(state)} · model ${state.model_name}`;
    button.classList.remove("bad");
    $("add").hidden = !state.uploads;
    $("drop").classList.toggle("one", !state.uploads);
    showModelChange(state.model_change);
  } catch (error) {
    if (isLate("state", mine)) return;
    button.textContent = error instanceof ApiError && error.status ? "Not ready" : "No connection";
    button.title = error.message;
    button.classList.add("bad");
    state = null;
    showModelChange(undefined);
    problem(error.message);
    listener(null);
    return;
  }
  button.title = "State of the system";
  listener(state);
  if ($("system").open) await show();
}

/** The change to a better model that the system makes by itself; hidden if there is none. */
function showModelChange(change) {
  announce(change);
  const bar = $("model-change-progress");
  $("model-change").hidden = !change;
  if (!change) return;
  $("model-change-text").textContent = `${change.text}.`;
  $("model-change").classList.toggle("bad", Boolean(change.problem));
  bar.hidden = change.total === null;
  bar.max = change.total ?? 1;
  bar.value = change.done ?? 0;
  $("model-change-decline").hidden = change.decline === null;
  $("model-change-decline").textContent = `To decline it: ${change.decline}`;
}

/** Tell a screen reader about each step of the change once, but not how far a step is. */
function announce(change) {
  if (!change) $("model-change-news").textContent = "";
  if (!change) return;
  const step = [change.model, change.step, change.problem].join();
  if (step === announced) return;
  announced = step;
  $("model-change-news").textContent = `${change.text}.`;
}

function problem(text) {
  $("system-message").textContent = text;
  $("system-message").classList.toggle("bad", Boolean(text));
}

const REASONS = {
  not_a_picture: "not a picture by content",
  other_suffix: "not a picture by name",
  ignored: "ignored by rule",
  not_a_file: "not a regular file",
  too_large: "too large",
  unreadable: "unreadable",
  name_not_utf8: "name not UTF-8",
};

/** How many files were skipped, and why. */
function skipped() {
  if (state.skipped === undefined) return "not known";
  const reasons = Object.entries(state.skipped_reasons).map(
    ([reason, count]) => `${count.toLocaleString("en")} ${REASONS[reason] ?? reason}`,
  );
  const total = state.skipped.toLocaleString("en");
  return reasons.length ? `${total} (${reasons.join(", ")})` : total;
}

function facts() {
  const small = state.model_name === "lite" ? " (small and bundled; CLIP models find more)" : "";
  return [
    ["Pictures indexed", state.images.toLocaleString("en")],
    ["Waiting", state.waiting === null ? "not known" : state.waiting.toLocaleString("en")],
    ["Failed", state.failed.toLocaleString("en")],
    ["Skipped", skipped()],
    ["Model", `${state.model_name}${small}`],
    ["Version", state.model_version],
    ["Adding pictures", state.uploads ? "enabled" : "disabled"],
  ];
}

async function show() {
  if (!state) return;
  $("system-facts").replaceChildren(
    ...facts().map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, value))),
  );
  const mine = ++requests;
  try {
    const { total, letters } = await get("/api/v1/dead-letters?limit=100");
    if (isLate("letters", mine)) return;
    problem("");
    const left = total - letters.length;
    $("letters-none").textContent =
      total === 0
        ? "None: all pictures could be indexed."
        : `${left ? `The newest 100 of ${total}. ` : ""}To retry repaired pictures: ./image-search dlq retry --all.`;
    $("letters").replaceChildren(
      ...letters.map((letter) =>
        el(
          "li",
          {},
          el("strong", {}, letter.image_name),
          el("span", {}, letter.reason),
          el(
            "span",
            { class: "hint" },
            `${letter.error_class} · ${counted(letter.attempts, "attempt")} · ` +
              `${moment(letter.occurred_at)} · letter ${letter.letter}`,
          ),
        ),
      ),
    );
  } catch (error) {
    if (!isLate("letters", mine)) problem(error.message);
  }
}

/** `changed(state)` is called whenever the state was read, with null if it could not be. */
export function connect(changed) {
  listener = changed;
  const dialog = $("system");
  $("state").addEventListener("click", () => {
    dialog.showModal();
    refresh();
  });
  $("system-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.addEventListener("visibilitychange", next);
  refresh();
}
