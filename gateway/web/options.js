// Filters and options: a form whose fields have the same names as in the address.

import { $ } from "./dom.js";

const form = $("options");
const folders = new Set();
const cameras = new Set();

/** All options that are set, as [name, value] pairs. */
export function read() {
  const given = [...new FormData(form)].filter(([, value]) => value.trim());
  if (!$("good-only").checked) given.push(["weak", "1"]);
  return given;
}

/** Show these options in the form. */
export function show(options) {
  form.reset();
  $("good-only").checked = !options.some(([name]) => name === "weak");
  for (const [name, value] of options) {
    for (const field of form.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
      if (field.type !== "checkbox") field.value = value;
      else if (field.value === value) field.checked = true;
    }
  }
  const count = new Set(
    options.map(([name]) => name).filter((name) => name !== "weak" && name !== "collapse"),
  ).size;
  $("filters-toggle").textContent = count ? `Filters (${count})` : "Filters";
  $("filters-toggle").classList.toggle("on", count > 0);
  $("clear-filters").hidden = count === 0;
}

/** Suggest the folders and cameras of the matches. */
export function learn(matches) {
  for (const { image_name: name, camera } of matches) {
    const parts = name.split("/").slice(0, -1);
    parts.forEach((_, at) => folders.add(parts.slice(0, at + 1).join("/")));
    if (camera) cameras.add(camera);
  }
  offer("folders", folders);
  offer("cameras", cameras);
}

/** Suggest these folders. */
export function learnFolders(names) {
  names.forEach((name) => folders.add(name));
  offer("folders", folders);
}

function offer(id, values) {
  $(id).replaceChildren(
    ...[...values].sort().map((value) => Object.assign(document.createElement("option"), { value })),
  );
}

function open(wanted) {
  $("filters").hidden = !wanted;
  $("filters-toggle").setAttribute("aria-expanded", String(wanted));
}

/** Calls `changed` with the options after each change. */
export function connect(changed) {
  $("filters-toggle").addEventListener("click", () => open($("filters").hidden));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => form.reportValidity() && changed(read()));
  $("clear-filters").addEventListener("click", () => {
    changed(read().filter(([name]) => name === "weak" || name === "collapse"));
    $("filters-toggle").focus();
  });
}
