// Adding pictures: they are sent two at a time, then polled until a search finds them.

import { get, post, send } from "./api.js";
import { $, bytes, el, thumbnail } from "./dom.js";
import * as system from "./system.js";

const AT_ONCE = 2;
const WAIT_S = 15;
const GIVE_UP_MS = 10 * 60_000;
const queue = [];
let busy = 0;
let find = null; // The action of a finished picture.
let added = null; // Called when a picture can be found.

function row(file) {
  const bar = el("progress", { max: "1", value: "0", "aria-label": `Progress of ${file.name}` });
  const status = el("span", { class: "status" }, "waiting to be sent");
  const buttons = el("span", { class: "choices" });
  const preview = el("span", { class: "preview" });
  const item = el(
    "li",
    {},
    preview,
    el("span", { class: "name", title: file.name }, file.name),
    el("span", { class: "hint" }, bytes(file.size)),
    bar,
    status,
    buttons,
  );
  $("upload-list").prepend(item);
  return {
    file,
    says(text, { share, bad = false, done = false } = {}) {
      status.textContent = text;
      item.classList.toggle("bad", bad);
      item.classList.toggle("done", done);
      if (share === null) bar.removeAttribute("value");
      else if (share !== undefined) bar.value = share;
      bar.hidden = bad || done;
      if (bad || done) $("upload-news").textContent = `${file.name}: ${text}`;
    },
    offer(choices) {
      buttons.replaceChildren(
        ...choices.map(([text, act]) =>
          el(
            "button",
            {
              type: "button",
              class: "quiet",
              "aria-label": `${text}: ${file.name}`,
              onclick: () => {
                buttons.replaceChildren();
                act();
              },
            },
            text,
          ),
        ),
      );
    },
    shows(name) {
      preview.replaceChildren(thumbnail(name, 128));
    },
  };
}

function summary() {
  const items = [...$("upload-list").children];
  const done = items.filter((item) => item.classList.contains("done")).length;
  const bad = items.filter((item) => item.classList.contains("bad")).length;
  $("uploads-title").textContent =
    `Adding pictures: ${done} of ${items.length} can be found${bad ? `, ${bad} failed` : ""}`;
}

/** Add these files to the collection, and show the progress of each. */
export function add(files) {
  $("uploads").hidden = false;
  for (const file of files) queue.push({ row: row(file), options: {} });
  summary();
  next();
}

function next() {
  while (busy < AT_ONCE && queue.length) {
    busy += 1;
    const { row: one, options } = queue.shift();
    store(one, options)
      .catch((error) => refused(one, error))
      .finally(() => {
        busy -= 1;
        summary();
        next();
      });
  }
}

async function store(one, options) {
  const limit = system.known()?.max_upload_bytes;
  if (limit && one.file.size > limit) throw new Error(`larger than ${bytes(limit)}`);
  const form = new FormData();
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  form.append("image", one.file, one.file.name);
  one.says("sending", { share: 0 });
  const stored = await send("/api/v1/images", form, (share) =>
    one.says(share < 1 ? `sending, ${Math.floor(share * 100)} %` : "being checked", { share: share < 1 ? share : null }),
  );
  one.says("stored, waiting to be indexed", { share: null });
  // Not awaited, so that the next one can be sent.
  settle(one, stored).catch((error) => one.says(error.message, { bad: true })).finally(summary);
}

function refused(one, error) {
  one.says(error.message, { bad: true });
  const again = (options) => () => {
    queue.push({ row: one, options });
    one.says("waiting to be sent", { share: 0 });
    next();
  };
  if (error.freeName) {
    one.says("another picture has this name", { bad: true });
    one.offer([
      ["Keep both", again({ name: error.freeName })],
      ["Replace it", again({ overwrite: "true" })],
    ]);
  } else if (!error.status || error.status >= 429) {
    one.offer([["Try again", again({})]]);
  }
}

/** Wait until a search finds the picture, or it has a dead letter. */
async function settle(one, stored) {
  const began = Date.now();
  while (Date.now() - began < GIVE_UP_MS) {
    try {
      await post("/api/v1/search-image", {
        image_name: stored.image_name,
        limit: 1,
        wait_for: { image_name: stored.image_name, sha256: stored.sha256, timeout_s: WAIT_S },
      });
      // The thumbnail is served only now that the picture is indexed.
      one.shows(stored.image_name);
      one.says(stored.status === "unchanged" ? "already existed" : "can be found", { done: true });
      one.offer([["More like this", () => find(stored.image_name)]]);
      system.refresh();
      added();
      return;
    } catch (error) {
      // 409: not yet. Any other error may be a short outage of a server.
      if (error.status !== 409) await new Promise((resolve) => setTimeout(resolve, 2000));
    }
    const letter = await deadLetter(stored.image_name, began);
    if (letter) throw new Error(`cannot be indexed: ${letter.reason}`);
    one.says("stored, still waiting to be indexed", { share: null });
  }
  throw new Error("stored, but not indexed within ten minutes; see the state of the system");
}

async function deadLetter(name, began) {
  const answer = await get("/api/v1/dead-letters?limit=1000").catch(() => ({ letters: [] }));
  return answer.letters.find(
    (letter) => letter.image_name === name && Date.parse(letter.occurred_at) > began - 60_000,
  );
}

export function connect(hooks) {
  ({ find, added } = hooks);
  $("add").addEventListener("click", () => $("add-files").click());
  $("add-files").addEventListener("change", () => {
    add([...$("add-files").files]);
    $("add-files").value = "";
  });
  $("uploads-close").addEventListener("click", () => {
    $("uploads").hidden = true;
    for (const item of $("upload-list").querySelectorAll(".done, .bad")) item.remove();
    summary();
    $("add").focus();
  });
}
