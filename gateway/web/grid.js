// A grid of pictures: its cards, and the arrow keys that move between them.

import { counted, day, el, fileName, moment, thumbnail } from "./dom.js";

const WAITING = 12;
const GONE_AT_ONCE = 30; // If more are gone than this and none is there, a whole folder cannot be read.

export class Grid {
  /**
   * `list` is the element of the cards. `actions` are those of a card: open(grid, match), like(match),
   * term(match, weight). `more` loads further pictures and returns whether there were any. `dropped`
   * is called after the card of a picture that does not exist any more was removed.
   */
  constructor(list, actions, more, dropped) {
    this.list = list;
    this.actions = actions;
    this.more = more;
    this.dropped = dropped;
    this.gone = 0; // Cards removed since a thumbnail was last loaded.
    this.matches = [];
    list.addEventListener("keydown", (event) => this.#moveFocus(event));
    list.addEventListener("load", () => (this.gone = 0), true);
  }

  append(matches) {
    this.matches.push(...matches);
    this.list.append(...matches.map((match) => this.#card(match)));
  }

  /** Show exactly these; the cards of pictures that are shown already stay as they are. */
  replace(matches) {
    const cards = new Map(this.matches.map((match, at) => [match.image_name, [match, this.list.children[at]]]));
    const kept = matches.map((match) => {
      const [known, card] = cards.get(match.image_name) ?? [];
      return known && known.sha256 === match.sha256 ? [known, card] : [match, this.#card(match)];
    });
    const wanted = new Set(kept.map(([, card]) => card));
    [...this.list.children].forEach((card) => wanted.has(card) || card.remove());
    // Cards that stay are not moved, so that none of them loses the focus.
    kept.forEach(([, card], at) => {
      if (this.list.children[at] !== card) this.list.insertBefore(card, this.list.children[at] ?? null);
    });
    this.matches = kept.map(([match]) => match);
  }

  /**
   * Remove the card of a picture that does not exist any more. Returns false if it stays: while none of
   * many pictures can be read, their folder is not there, and each removed card would load another.
   */
  drop(match) {
    const at = this.matches.indexOf(match);
    if (at < 0) return true;
    if (this.gone >= GONE_AT_ONCE) return false;
    this.gone += 1;
    const card = this.list.children[at];
    const focused = card.contains(document.activeElement);
    card.remove();
    this.matches.splice(at, 1);
    if (focused) this.focusOn(Math.min(at, this.matches.length - 1));
    this.dropped();
    return true;
  }

  clear() {
    this.gone = 0;
    this.matches = [];
    this.list.replaceChildren();
  }

  showWaiting() {
    this.clear();
    this.list.replaceChildren(
      ...Array.from({ length: WAITING }, () => el("li", { class: "card waiting", "aria-hidden": "true" })),
    );
  }

  focusOn(at) {
    const open = this.matches[at] && this.list.children[at]?.querySelector(".open");
    (open ?? this.list).focus();
  }

  #card(match) {
    const name = fileName(match.image_name);
    const score = match.score?.toFixed(2);
    const duplicates = match.duplicates?.length ?? 0;
    // For the mouse only; with the keyboard the same buttons are in the viewer.
    const quick = (sign, title, act) =>
      el("button", { type: "button", tabindex: "-1", title, "aria-label": `${title}: ${name}`, onclick: act }, sign);
    return el(
      "li",
      { class: "card" },
      el(
        "button",
        {
          type: "button",
          class: "open",
          "aria-label": `Open ${match.image_name}${score === undefined ? "" : `, score ${score}`}`,
          onclick: () => this.actions.open(this, match),
        },
        thumbnail(match.image_name, 512, { gone: () => this.drop(match) }),
      ),
      el(
        "div",
        { class: "quick" },
        quick("≈", "More like this", () => this.actions.like(match)),
        quick("+", "Add to the query", () => this.actions.term(match, 1)),
        quick("−", "Subtract from the query", () => this.actions.term(match, -1)),
      ),
      duplicates ? el("span", { class: "duplicates", title: `${counted(duplicates, "picture")} nearly the same` }, `+${duplicates}`) : null,
      el(
        "p",
        {},
        el("span", { class: "name", title: match.image_name }, name),
        score === undefined
          ? el("span", { class: "score", title: `Added ${moment(match.added_at)}` }, day(match.added_at))
          : el("span", { class: "score", title: "Cosine similarity" }, score),
      ),
    );
  }

  /** Arrow keys move from card to card. */
  #moveFocus(event) {
    const columns = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const at = [...this.list.children].indexOf(document.activeElement?.closest(".card"));
    if (at < 0 || !(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.focusOn(Math.max(0, Math.min(this.matches.length - 1, at + steps[event.key])));
  }
}

/** Call `load` when the end of a list is near the window. */
export function whenNear(element, load) {
  new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && load(), {
    rootMargin: "600px",
  }).observe(element);
}

/** Whether the end of a list is near the window, so that no scroll event will load the next page. */
export const isNear = (element) =>
  element.checkVisibility() && element.getBoundingClientRect().top < innerHeight + 600;
