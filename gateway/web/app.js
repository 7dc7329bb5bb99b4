const LIMIT = 24;
const STATE_EVERY_MS = 10_000;

const $ = (id) => document.getElementById(id);
let running = null; // The search under way; a newer one aborts it.
let receipt = null;

const picturePath = (name) => "/images/" + name.split("/").map(encodeURIComponent).join("/");

/** POST JSON; throws an Error whose message is the problem document's detail. */
async function post(path, body, signal) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail || `The server answered ${response.status}.`);
  return answer;
}

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").classList.toggle("bad", bad);
}

function card(match) {
  const item = document.createElement("li");
  item.className = "card";
  const open = document.createElement("button");
  open.type = "button";
  open.setAttribute("aria-label", `Open ${match.image_name}`);
  const image = new Image();
  image.src = picturePath(match.image_name);
  image.alt = "";
  image.loading = "lazy";
  image.decoding = "async";
  image.addEventListener("error", () => item.classList.add("gone"));
  open.append(image);
  open.addEventListener("click", () => view(match));
  const line = document.createElement("p");
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = match.image_name.split("/").pop();
  name.title = match.image_name;
  const score = document.createElement("span");
  score.className = "score";
  score.textContent = match.score.toFixed(2);
  score.title = "Cosine similarity";
  line.append(name, score);
  item.append(open, line);
  return item;
}

function view(match) {
  $("viewer-image").src = picturePath(match.image_name);
  $("viewer-image").alt = match.image_name;
  $("viewer-name").textContent = `${match.image_name} · score ${match.score.toFixed(3)}`;
  $("viewer-like").onclick = () => {
    $("viewer").close();
    go({ like: match.image_name });
  };
  $("viewer").showModal();
}

function showWaiting() {
  const cards = Array.from({ length: 8 }, () => {
    const item = document.createElement("li");
    item.className = "card waiting";
    item.setAttribute("aria-hidden", "true");
    return item;
  });
  $("results").replaceChildren(...cards);
}

function offerRating(token) {
  receipt = token;
  $("rating-thanks").textContent = "";
  for (const button of $("rating-buttons").children) button.setAttribute("aria-pressed", "false");
  $("rating").hidden = false;
}

function asked(query) {
  if (query.image) return "like yours";
  return query.image_name ? `like ${query.image_name}` : `for “${query.text}”`;
}

/** Run a search; `query` is the body's part that says what to look for. */
async function search(query) {
  running?.abort();
  const mine = (running = new AbortController());
  $("rating").hidden = true;
  say("Searching…");
  showWaiting();
  $("results").setAttribute("aria-busy", "true");
  try {
    const answer = await post("/api/v1/search-image", { ...query, limit: LIMIT }, mine.signal);
    $("results").replaceChildren(...answer.matches.map(card));
    const count = answer.matches.length;
    if (count === 0) {
      say("No pictures yet. Copy some into the images folder and search again.");
    } else {
      say(`${count} ${count === 1 ? "picture" : "pictures"} ${asked(query)}, best first`);
      offerRating(answer.jwt);
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    $("results").replaceChildren();
    say(error instanceof TypeError ? "The server cannot be reached." : error.message, true);
  } finally {
    if (running === mine) $("results").removeAttribute("aria-busy");
  }
}

async function rate(button, rating) {
  const rated = receipt;
  try {
    await post("/api/v1/create-feedback", { user_feedback: rating, jwt: rated });
    if (rated !== receipt) return;
    for (const other of $("rating-buttons").children) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    $("rating-thanks").textContent = `Thank you: ${rating} of 10 is noted.`;
  } catch (error) {
    $("rating-thanks").textContent = `Not noted: ${error.message}`;
  }
}

async function showState() {
  const state = $("state");
  try {
    const response = await fetch("/api/v1/healthcheck");
    const health = await response.json();
    state.classList.toggle("bad", !response.ok);
    if (!response.ok) {
      state.textContent = `Not ready: ${health.detail}`;
    } else {
      const hint = health.model_name === "lite" ? " (the small built-in model, a stand-in for CLIP)" : "";
      state.textContent = `${health.images.toLocaleString("en")} pictures · model ${health.model_name}${hint}`;
    }
  } catch {
    state.classList.add("bad");
    state.textContent = "The server cannot be reached.";
  }
}

function followAddress() {
  const address = new URLSearchParams(location.search);
  const text = address.get("q")?.trim() ?? "";
  const like = address.get("like") ?? "";
  $("text").value = text;
  document.title = text || like ? `${text || like} – Image search` : "Image search";
  if (text) {
    search({ text });
  } else if (like) {
    search({ image_name: like });
  } else {
    running?.abort();
    $("results").replaceChildren();
    $("rating").hidden = true;
    say("Say in your own words what a picture shows, or drop a picture here to find others like it.");
  }
}

/** Go to a query that the address can hold: {q: text} or {like: name of a picture}. */
function go(query) {
  history.pushState(null, "", `?${new URLSearchParams(query)}`);
  followAddress();
}

async function searchByFile(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) {
    say(`${file.name} is not a picture.`, true);
    return;
  }
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
  $("text").value = "";
  document.title = "Like your picture – Image search";
  history.pushState(null, "", "/");
  search({ image: url.slice(url.indexOf(",") + 1) });
}

for (let rating = 1; rating <= 10; rating += 1) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = String(rating);
  button.setAttribute("aria-label", `${rating} of 10`);
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => rate(button, rating));
  $("rating-buttons").append(button);
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text) go({ q: text });
});
$("examples").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  go({ q: new URLSearchParams(new URL(link.href).search).get("q") });
});
$("viewer").addEventListener("click", (event) => {
  if (event.target === $("viewer")) $("viewer").close();
});
$("file").addEventListener("change", () => {
  searchByFile($("file").files[0]);
  $("file").value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  window.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
window.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
window.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  searchByFile(event.dataTransfer.files[0]);
});
window.addEventListener("popstate", followAddress);

followAddress();
showState();
setInterval(showState, STATE_EVERY_MS);
if (!$("text").value) $("text").focus();
