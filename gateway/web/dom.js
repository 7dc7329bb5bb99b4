// Helpers for building the page; every text is inserted as text, never as HTML.

import { isMissing } from "./api.js";

export const $ = (id) => document.getElementById(id);

/** A new element: properties are attributes, `on…` are listeners, booleans set or omit one. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const path = (name) => name.split("/").map(encodeURIComponent).join("/");

export const picturePath = (name) => `/images/${path(name)}`;
export const thumbnailPath = (name, size) => `/thumbnails/${path(name)}?size=${size}`;
export const fileName = (name) => name.split("/").pop();

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  let power = 0;
  while (count >= 1000 && power < units.length - 1) {
    count /= 1000;
    power += 1;
  }
  return `${count.toLocaleString("en", { maximumFractionDigits: power ? 1 : 0 })} ${units[power]}`;
}

export function moment(text) {
  return new Date(text).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

/** The time of a moment of today, else its day, with the year if that is not this year. */
export function day(text) {
  const [date, now] = [new Date(text), new Date()];
  if (date.toDateString() === now.toDateString()) return date.toLocaleTimeString("en", { timeStyle: "short" });
  const year = date.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString("en", { day: "numeric", month: "short", year });
}

/** `1 picture`, `2 pictures`. */
export const counted = (count, one, many = `${one}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

const AGAIN_MS = [1500, 4000, 10_000];

/**
 * A thumbnail that is loaded again after a failure (such as a rate limit), a few times. If the picture
 * does not exist any more, `gone()` is called; when it returns false, there is no preview.
 */
export function thumbnail(name, size, { alt = "", gone = () => false } = {}) {
  const address = thumbnailPath(name, size);
  const image = el("img", { alt, loading: "lazy", decoding: "async" });
  const waits = [...AGAIN_MS];
  image.addEventListener("error", async () => {
    const missing = await isMissing(address);
    if (!image.isConnected || (missing && gone())) return;
    if (missing || !waits.length) image.replaceWith(el("span", { class: "no-preview" }, "No preview"));
    else setTimeout(() => image.isConnected && (image.src = address), waits.shift());
  });
  image.src = address;
  return image;
}
