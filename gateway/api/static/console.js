import { call, localTimes, notice } from "./call.js";

const LIVE_MS = 1500; // what support does is to be seen within two seconds
const REFRESH_MS = 3000; // presence itself is right within 15 s; this only has to feel alive

const actions = {
  async logout() {
    await call("POST", "/v1/logout");
    location.replace("/login");
  },
  async open({ device, button }) {
    // The person clicked here, on the gateway's own page: the link is made and confirmed in one go.
    const session = await call("POST", `/v1/devices/${device}/sessions`, { service: button.dataset.service });
    const token = new URL(session.url).hash.slice(1);
    const { url } = await call("POST", "/v1/links/code", { token });
    location.assign(url);
  },
  async approve({ device }) {
    await call("POST", `/v1/devices/${device}/approve`);
    location.reload();
  },
  async reject({ device }) {
    await call("POST", `/v1/devices/${device}/reject`);
    location.replace("/");
  },
  async revoke({ device }) {
    await call("POST", `/v1/devices/${device}/revoke`);
    location.reload();
  },
  async end({ session }) {
    await call("DELETE", `/v1/sessions/${session}`);
    location.reload();
  },
  async command({ device, button }) {
    await call("POST", `/v1/devices/${device}/commands`, { name: button.dataset.command });
    await follow();
  },
  async ask() {
    const device = document.getElementById("ask-device");
    const reason = document.getElementById("ask-reason");
    const path = `/v1/devices/${encodeURIComponent(device.value.trim())}/support-requests`;
    await call("POST", path, { reason: reason.value });
    device.value = reason.value = "";
    await follow();
  },
  async allow({ support }) {
    await call("POST", `/v1/support-requests/${support}/approve`, {});
    await follow();
  },
  async refuse({ support }) {
    await call("POST", `/v1/support-requests/${support}/refuse`);
    await follow();
  },
  async "end-support"({ support }) {
    await call("POST", `/v1/support-requests/${support}/end`);
    await follow();
  },
  async token() {
    const { token } = await call("POST", "/v1/registration-tokens", {});
    document.getElementById("token-text").textContent = token;
    document.getElementById("token").hidden = false;
  },
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  if (button.dataset.confirm) {
    button.textContent = button.dataset.confirm;
    delete button.dataset.confirm;
    return;
  }
  button.disabled = true;
  try {
    await actions[button.dataset.action]({
      button,
      device: button.closest("[data-device]")?.dataset.device,
      support: button.closest("[data-support]")?.dataset.support,
      session: button.closest("[data-session]")?.dataset.session,
    });
  } catch (problem) {
    if (problem.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
    notice(problem.message);
  } finally {
    button.disabled = false;
  }
});

// A page restored by the back button shows buttons as they were when it was left.
addEventListener("pageshow", (event) => event.persisted && location.reload());

function show(device) {
  const status = device.status === "approved" ? (device.online ? "online" : "offline") : device.status;
  for (const card of document.querySelectorAll(`[data-device="${CSS.escape(device.id)}"]`)) {
    const state = card.querySelector("[data-state]");
    if (!state) continue;
    const wanted = new Set(device.services.filter((s) => s.kind === "web").map((s) => s.name));
    const shown = card.querySelectorAll('button[data-action="open"]');
    const was = state.textContent.trim();
    const settled = ["pending", "revoked", "rejected"]; // these show other buttons
    if (settled.includes(was) || settled.includes(status) ? was !== status : wanted.size !== shown.length) {
      location.reload();
      return;
    }
    state.textContent = status;
    state.className = `state ${status}`;
    for (const button of shown) button.disabled = !device.online;
  }
}

async function refresh() {
  if (document.hidden) return;
  try {
    const { items } = await call("GET", "/v1/devices?limit=200");
    if (document.getElementById("token") && items.some((d) => !document.querySelector(`[data-device="${CSS.escape(d.id)}"]`))) {
      location.reload();
      return;
    }
    items.forEach(show);
  } catch (problem) {
    if (problem.status === 401) location.assign("/login");
  }
}

// Parts that change under the reader's eyes: taken from the page as it is now, when they differ.
const last = new Map();

function pageNow() {
  // The one way to a parsed page under Trusted Types: the browser parses it, and runs nothing in it.
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", location.pathname);
    request.responseType = "document";
    request.onload = () => resolve(request.status === 200 ? request.response : null);
    request.onerror = () => resolve(null);
    request.send();
  });
}

async function follow() {
  const now = await pageNow();
  if (now === null) return;
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = now.getElementById(part.id);
    if (!fresh || last.get(part.id)?.isEqualNode(fresh)) continue;
    last.set(part.id, fresh.cloneNode(true));
    part.replaceChildren(...fresh.childNodes);
    localTimes(part);
  }
}

// Told as it happens, the looks above are only for what a stream that broke did not tell. It is given up while
// nobody looks: a browser has six connections to one place, for all its tabs.
function listen(device) {
  const kinds = ["command.changed", "device.state", "device.message", "support.asked", "support.decided", "support.ended"];
  let stream = null;
  let busy = false;
  let again = false;
  async function look() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    do {
      again = false;
      await follow();
    } while (again);
    busy = false;
  }
  function open() {
    stream?.close();
    stream = null;
    if (document.hidden) return;
    stream = new EventSource("/v1/events");
    for (const kind of kinds) {
      stream.addEventListener(kind, (event) => JSON.parse(event.data).device_id === device && look());
    }
  }
  document.addEventListener("visibilitychange", open);
  addEventListener("pagehide", () => stream?.close());
  open();
}

const followed = document.getElementById("device-messages");
if (followed) listen(followed.dataset.device);
for (const part of document.querySelectorAll("[data-live]")) last.set(part.id, part.cloneNode(true));
if (document.querySelector("[data-live]")) setInterval(() => document.hidden || follow(), LIVE_MS);
for (const place of document.querySelectorAll("[data-origin]")) place.textContent = location.origin;
localTimes();
if (document.querySelector("[data-device], #token")) setInterval(refresh, REFRESH_MS);
