// Rating an answer, or one picture of it, from 1 to 10.

import { post } from "./api.js";
import { el } from "./dom.js";

/** A row of buttons in `container`; returns a function that sets the subject of a rating. */
export function rating(container, label) {
  let subject = null; // {jwt, image_name?}: the subject of the next rating.
  let presses = 0; // Only the answer to the last one is shown.
  const thanks = el("p", { class: "thanks", role: "status" });
  const buttons = Array.from({ length: 10 }, (_, at) =>
    el(
      "button",
      {
        type: "button",
        "aria-label": `${at + 1} of 10`,
        "aria-pressed": "false",
        onclick: () => give(at + 1),
      },
      String(at + 1),
    ),
  );
  const press = (given) =>
    buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(at + 1 === given)));

  async function give(given) {
    const about = subject;
    const mine = ++presses;
    const isLate = () => about !== subject || mine !== presses;
    try {
      await post("/api/v1/create-feedback", { user_feedback: given, ...about });
      if (isLate()) return;
      press(given);
      thanks.textContent = `Thank you: your rating of ${given} is saved.`;
      thanks.classList.remove("bad");
    } catch (error) {
      if (isLate()) return;
      thanks.textContent = `Not saved: ${error.message}`;
      thanks.classList.add("bad");
    }
  }

  container.replaceChildren(
    el("span", { class: "question", "aria-hidden": "true" }, label),
    el(
      "div",
      { class: "rating-buttons", role: "group", "aria-label": `${label} 1 is useless, 10 exactly right` },
      ...buttons,
    ),
    el(
      "p",
      { class: "scale", "aria-hidden": "true" },
      el("span", {}, "useless"),
      el("span", {}, "exactly right"),
    ),
    thanks,
  );
  return (next) => {
    subject = next;
    container.hidden = next === null;
    thanks.textContent = "";
    press(null);
  };
}
