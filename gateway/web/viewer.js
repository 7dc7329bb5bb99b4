// One picture in large, with its details and actions.

import { isMissing } from "./api.js";
import { $, bytes, el, fileName, moment, picturePath, thumbnail, thumbnailPath } from "./dom.js";
import { rating } from "./rating.js";

let grid = null;
let match = null; // The picture that is shown.
let at = 0; // Its place in the grid, or where it was if it was removed.
let views = 0; // How many pictures were shown or closed.
let rate = null;

function place({ latitude, longitude }) {
  const part = (value, [positive, negative]) =>
    `${Math.abs(value).toFixed(5)}° ${value < 0 ? negative : positive}`;
  return `${part(latitude, "NS")}, ${part(longitude, "EW")}`;
}

function facts() {
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

function duplicateItem(name) {
  const gone = () => {
    item.remove();
    $("viewer-duplicates").hidden = !$("viewer-duplicates-list").children.length;
    return true;
  };
  const image = thumbnail(name, 128, { alt: name, gone });
  const item = el("li", {}, el("a", { href: picturePath(name), target: "_blank", rel: "noopener", title: name }, image));
  return item;
}

function show() {
  views += 1;
  match = grid.matches[at];
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
    ...facts().map(([title, value]) =>
      el("div", {}, el("dt", {}, title), el("dd", {}, value)),
    ),
  );
  const duplicates = match.duplicates ?? [];
  $("viewer-duplicates").hidden = duplicates.length === 0;
  $("viewer-duplicates-list").replaceChildren(
    ...duplicates.map(duplicateItem),
  );
  // A picture of the first screen is not an answer.
  rate(match.jwt ? { jwt: match.jwt, image_name: name } : null);
}

/** The place `step` beside the picture that is shown, in the grid as it is now. */
function beside(step) {
  const now = grid.matches.indexOf(match);
  if (now >= 0) return now + step;
  return step > 0 ? at : at - 1;
}

async function move(step) {
  if (beside(step) >= grid.matches.length) {
    const before = views;
    await grid.more();
    if (views !== before) return;
  }
  const wanted = beside(step);
  if (wanted < 0 || wanted >= grid.matches.length) return;
  at = wanted;
  show();
}

/** The picture itself could not be loaded: say so if it does not exist any more. */
async function failed() {
  const [before, lost] = [views, match];
  if (!(await isMissing(thumbnailPath(lost.image_name, 1024))) || views !== before) return;
  $("viewer-image").alt = `${lost.image_name} does not exist any more`;
  grid.drop(lost);
}

function closed() {
  views += 1;
  const now = grid.matches.indexOf(match);
  grid.focusOn(now >= 0 ? now : Math.min(at, grid.matches.length - 1));
}

/** Show a picture of a grid; the arrow keys move through the others. */
export function open(shown, wanted) {
  grid = shown;
  at = grid.matches.indexOf(wanted);
  show();
  $("viewer").showModal();
  $("viewer").scrollTop = 0;
}

/** `like(match)` and `term(match, weight)` are the actions of its buttons. */
export function connect({ like, term }) {
  const viewer = $("viewer");
  rate = rating($("viewer-rating"), "How good is this picture as an answer?");
  const leave = (act) => () => {
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
  viewer.addEventListener("close", closed);
  $("viewer-image").addEventListener("error", failed);
}
