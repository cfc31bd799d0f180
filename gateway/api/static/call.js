// One way to call the API: JSON in, JSON out, problems as errors that carry their code.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || `The gateway answered ${status}.`);
    this.status = status;
    this.code = body.code || "";
  }
}

export async function call(method, path, body) {
  const request = { method, headers: { accept: "application/json" } };
  if (body !== undefined) {
    request.headers["content-type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch {
    throw new Problem(0, { detail: "The gateway cannot be reached." });
  }
  const answer = response.status === 204 ? {} : await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, answer);
  return answer;
}

export function notice(text, bad = true) {
  const place = document.getElementById("notice");
  place.textContent = text;
  place.classList.toggle("bad", bad);
  place.hidden = false;
}

// Only paths of this origin: never "//host", no backslash, no control characters (gateway/policy/return_path.py).
export function ownPath(text) {
  return /^\/(?!\/)[\x21-\x5b\x5d-\x7e]*$/.test(text || "") ? text : "/";
}

export function localTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.getTime())) time.textContent = moment.toLocaleString();
  }
}
