// Calls of the gateway's API. Every failure becomes an ApiError with a message for the user.

export class ApiError extends Error {
  constructor(message, status = 0, fields = [], freeName = null) {
    super(message);
    this.status = status;
    this.fields = fields;
    this.freeName = freeName;
  }
}

function problem(status, body) {
  const fields = (body.errors ?? []).map((each) => each.field);
  return new ApiError(body.detail || `The server answered ${status}.`, status, fields, body.free_name);
}

/** Whether the user must sign in again; a 401 for a receipt has no such challenge. */
function signedOut(status, challenge) {
  if (status !== 401 || !challenge) return false;
  const then = encodeURIComponent(location.pathname + location.search);
  location.assign(`/sign-in?then=${then}`);
  return true;
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (signedOut(response.status, response.headers.get("WWW-Authenticate"))) {
    throw new ApiError("Sign in again.", response.status);
  }
  const body = await content(response);
  if (!response.ok) throw problem(response.status, body ?? {});
  if (body === null) throw new ApiError("The server's answer is incomplete.");
  return body;
}

/** The JSON of an answer; null if there is none. A request that is aborted meanwhile has no answer. */
async function content(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null;
  }
}

/** Whether the server answers that there is nothing at this path; false if it cannot be reached. */
export async function isMissing(path) {
  try {
    return (await fetch(path, { method: "HEAD" })).status === 404;
  } catch {
    return false;
  }
}

export const get = (path, signal) => call(path, { signal });

export function post(path, body, signal) {
  return call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

/** Send a form; calls `progress` with the fraction sent, 0 to 1, which fetch does not report. */
export function send(path, form, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(request.response);
      else if (signedOut(request.status, request.getResponseHeader("WWW-Authenticate"))) {
        reject(new ApiError("Sign in again.", request.status));
      } else reject(problem(request.status, request.response ?? {}));
    });
    request.addEventListener("error", () => reject(new ApiError("The server cannot be reached.")));
    request.open("POST", path);
    request.send(form);
  });
}
