// The terms of a query as chips: change the sign or the weight, or remove one.

import { el, fileName, thumbnail } from "./dom.js";
import * as own from "./own.js";
import { MAX_WEIGHT } from "./query.js";

function label(term) {
  if (term.text !== undefined) return [term.text, null];
  if (term.name !== undefined) return [fileName(term.name), thumbnail(term.name, 128)];
  const picture = own.find(term.own);
  return picture
    ? [picture.name, el("img", { alt: "", src: picture.preview })]
    : ["a picture that this tab no longer has", null];
}

/** One chip; calls `change` with the new term, or with null when it is removed. */
function chip(term, change) {
  const [name, image] = label(term);
  const size = Math.abs(term.weight);
  const minus = term.weight < 0;
  const sign = el(
    "button",
    {
      type: "button",
      class: "sign",
      "aria-label": `${name}: ${minus ? "subtracted, add it instead" : "added, subtract it instead"}`,
      title: minus ? "Subtracted; press to add" : "Added; press to subtract",
      onclick: () => change({ ...term, weight: -term.weight }, "sign"),
    },
    minus ? "−" : "+",
  );
  const weight = el("input", {
    type: "number",
    class: "weight",
    min: "0.1",
    max: MAX_WEIGHT,
    step: "any",
    value: size,
    inputmode: "decimal",
    "aria-label": `Weight of ${name}`,
    title: "Weight",
    onchange: () => {
      const wanted = weight.valueAsNumber;
      if (wanted > 0 && wanted <= MAX_WEIGHT) {
        change({ ...term, weight: minus ? -wanted : wanted }, "weight");
      } else weight.value = size;
    },
    // Enter would submit the form with the text in the box.
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      weight.dispatchEvent(new Event("change"));
    },
  });
  const remove = el(
    "button",
    {
      type: "button",
      class: "remove",
      "aria-label": `Remove ${name} from the query`,
      title: "Remove",
      onclick: () => change(null, "remove"),
    },
    "×",
  );
  return el(
    "li",
    { class: minus ? "chip minus" : "chip" },
    sign,
    image,
    el("span", { class: "what", title: term.name ?? name }, name),
    weight,
    remove,
  );
}

/** Show the terms; calls `changed` with the new list. The focus does not move. */
export function show(list, terms, changed) {
  const chips = terms.map((term, at) =>
    chip(term, (next, part) => {
      changed(next ? terms.with(at, next) : terms.toSpliced(at, 1));
      const rest = list.children;
      const near = rest[Math.min(at, rest.length - 1)];
      (near?.querySelector(`.${part}`) ?? document.getElementById("text")).focus();
    }),
  );
  list.replaceChildren(...chips);
  list.parentElement.hidden = chips.length === 0;
}
