// One picture in large, with its details and actions.

import { $, bytes, el, fileName, moment, picturePath, thumbnail, thumbnailPath } from "./dom.js";
import { rating } from "./rating.js";

let grid = null;
let at = 0;
let rate = null;

function place({ latitude, longitude }) {
  const part = (value, [positive, negative]) =>
    `${Math.abs(value).toFixed(5)}° ${value < 0 ? negative : positive}`;
  return `${part(latitude, "NS")}, ${part(longitude, "EW")}`;
}

function facts(match) {
  const folder = match.image_name.split("/").slice(0, -1).join("/");
  return [
    ["Score", match.score?.toFixed(4)],
    ["Folder", folder || "(top)"],
    ["Dimensions", match.width ? `${match.width} × ${match.height}` : null],
    ["Size", bytes(match.size_bytes)],
    ["Kind", match.media_type],
    ["Taken", match.taken_at && moment(match.taken_at)],
    ["Camera", match.camera],
    ["Place", match.latitude === null ? null : place(match)],
    ["Changed", moment(match.modified_at)],
    ["Added", moment(match.added_at)],
  ].filter(([, value]) => value);
}

function show() {
  const match = grid.matches[at];
  const name = match.image_name;
  $("viewer-name").textContent = fileName(name);
  $("viewer-name").title = name;
  $("viewer-place").textContent = `${at + 1} of ${grid.matches.length}`;
  // A thumbnail, as browsers do not show all formats; the original is one click away.
  $("viewer-image").src = thumbnailPath(name, 1024);
  $("viewer-image").alt = name;
  $("viewer-original").href = picturePath(name);
  $("viewer-before").disabled = at === 0;
  $("viewer-details").replaceChildren(
    ...facts(match).map(([title, value]) =>
      el("div", {}, el("dt", {}, title), el("dd", {}, value)),
    ),
  );
  const duplicates = match.duplicates ?? [];
  $("viewer-duplicates").hidden = duplicates.length === 0;
  $("viewer-duplicates-list").replaceChildren(
    ...duplicates.map((duplicate) =>
      el(
        "li",
        {},
        el("a", { href: picturePath(duplicate), target: "_blank", rel: "noopener", title: duplicate }, thumbnail(duplicate, 128, duplicate)),
      ),
    ),
  );
  // A picture of the first screen is not an answer.
  rate(match.jwt ? { jwt: match.jwt, image_name: name } : null);
}

async function move(step) {
  const wanted = at + step;
  if (wanted >= grid.matches.length) await grid.more();
  if (wanted < 0 || wanted >= grid.matches.length || !$("viewer").open) return;
  at = wanted;
  show();
}

/** Show a picture of a grid; the arrow keys move through the others. */
export function open(shown, match) {
  grid = shown;
  at = grid.matches.indexOf(match);
  show();
  $("viewer").showModal();
  $("viewer").scrollTop = 0;
}

/** `like(match)` and `term(match, weight)` are the actions of its buttons. */
export function connect({ like, term }) {
  const viewer = $("viewer");
  rate = rating($("viewer-rating"), "How good is this picture as an answer?");
  const leave = (act) => () => {
    const match = grid.matches[at];
    viewer.close();
    act(match);
  };
  $("viewer-like").addEventListener("click", leave(like));
  $("viewer-plus").addEventListener("click", leave((match) => term(match, 1)));
  $("viewer-minus").addEventListener("click", leave((match) => term(match, -1)));
  $("viewer-close").addEventListener("click", () => viewer.close());
  $("viewer-before").addEventListener("click", () => move(-1));
  $("viewer-after").addEventListener("click", () => move(1));
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(step);
  });
  viewer.addEventListener("close", () => grid.focusOn(at));
}
