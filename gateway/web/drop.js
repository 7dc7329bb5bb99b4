// Pictures dragged onto the page: one zone searches by them, the other adds them.

import { $ } from "./dom.js";

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

/** `search(file)` and `add(files)` are the actions of the zones; `fail(text)` shows an error. */
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
    else if (files.length > 1) fail("You can search by only one picture at a time.");
    else search(files[0]);
  });
  window.addEventListener("keydown", (event) => event.key === "Escape" && end());
}
