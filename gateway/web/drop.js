// Pictures dragged onto the page: two zones say what is going to happen to them.

import { $ } from "./dom.js";

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

/** `search(file)` and `add(files)` are what the zones do; `fail(text)` says what cannot be. */
export function connect({ search, add, fail }) {
  const drop = $("drop");
  const zones = [...drop.children];
  const end = () => {
    drop.hidden = true;
    zones.forEach((zone) => zone.classList.remove("over"));
  };
  for (const kind of ["dragenter", "dragover"]) {
    window.addEventListener(kind, (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      drop.hidden = false;
      const over = event.target.closest?.(".zone");
      zones.forEach((zone) => zone.classList.toggle("over", zone === over));
    });
  }
  window.addEventListener("dragleave", (event) => event.relatedTarget || end());
  window.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    const zone = event.target.closest?.(".zone")?.dataset.zone;
    const files = [...event.dataTransfer.files];
    end();
    if (!files.length || !zone) return;
    if (zone === "add") add(files);
    else if (files.length > 1) fail("One picture at a time can be searched by.");
    else search(files[0]);
  });
  window.addEventListener("keydown", (event) => event.key === "Escape" && end());
}
