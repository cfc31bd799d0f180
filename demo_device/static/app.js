"use strict";

const byId = (id) => document.getElementById(id);
const KEPT = 240; // readings on the chart: one minute
const readings = [];
let fahrenheit = false;
let socket = null;

function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB"];
  let value = bytes / 1000, unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

const temperatureText = (c) => (fahrenheit ? `${(c * 9 / 5 + 32).toFixed(1)} °F` : `${c.toFixed(1)} °C`);

function element(name, text, attributes = {}) {
  const node = document.createElement(name);
  node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

async function answerOf(response) {
  if (!response.ok) throw new Error((await response.text()).trim() || `The device answered ${response.status}.`);
  return response.json();
}

// ---- live chart -------------------------------------------------------------------------------------------------

const SERIES = [["temperature", 0, 45], ["humidity", 0, 100], ["light", 0, 100]];

function draw() {
  const canvas = byId("chart"), context = canvas.getContext("2d");
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const style = getComputedStyle(document.documentElement);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.lineWidth = 1;
  context.strokeStyle = style.getPropertyValue("--line");
  context.beginPath();
  for (let line = 0; line <= 4; line += 1) {
    const y = Math.round((height - 1) * line / 4) + 0.5;
    context.moveTo(0, y);
    context.lineTo(width, y);
  }
  context.stroke();
  context.lineWidth = 2;
  context.lineJoin = "round";
  for (const [name, low, high] of SERIES) {
    context.strokeStyle = style.getPropertyValue(`--${name}`);
    context.beginPath();
    readings.forEach((reading, index) => {
      const x = width * (KEPT - readings.length + index) / (KEPT - 1);
      const y = height - 4 - (height - 8) * (reading[name] - low) / (high - low);
      if (index === 0) context.moveTo(x, y); else context.lineTo(x, y);
    });
    context.stroke();
  }
}

function show(reading) {
  readings.push(reading);
  if (readings.length > KEPT) readings.shift();
  byId("temperature").textContent = temperatureText(reading.temperature);
  byId("humidity").textContent = `${reading.humidity.toFixed(0)} %`;
  byId("light").textContent = `${reading.light.toFixed(0)} %`;
  byId("chart").dataset.readings = String(Number(byId("chart").dataset.readings || 0) + 1);
  if (document.activeElement !== byId("vent")) setVent(reading.vent);
  requestAnimationFrame(draw);
}

function setVent(percent) {
  byId("vent").value = percent;
  byId("vent-value").textContent = `${percent} %`;
}

function status(text, live) {
  byId("status").textContent = text;
  byId("status").classList.toggle("live", live);
}

function connect(attempt) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/api/live`);
  let opened = false;
  socket.onopen = () => { opened = true; status("live", true); };
  socket.onmessage = (event) => show(JSON.parse(event.data));
  socket.onclose = () => {
    status("reconnecting", false);
    const next = opened ? 0 : attempt + 1;
    setTimeout(() => connect(next), Math.random() * Math.min(10000, 500 * 2 ** next));
  };
}

byId("vent").addEventListener("input", (event) => {
  const percent = Number(event.target.value);
  byId("vent-value").textContent = `${percent} %`;
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ vent: percent }));
});

// ---- log --------------------------------------------------------------------------------------------------------

function followLog() {
  const list = byId("log");
  new EventSource("/api/log").onmessage = (event) => {
    const entry = element("li", "");
    entry.append(element("time", new Date().toLocaleTimeString()), JSON.parse(event.data));
    list.prepend(entry);
    while (list.children.length > 50) list.lastElementChild.remove();
  };
}

// ---- files ------------------------------------------------------------------------------------------------------

async function listFiles() {
  const items = (await answerOf(await fetch("/api/uploads"))).map((file) => {
    const item = element("li", ""), remove = element("button", "delete", { class: "quiet", type: "button" });
    remove.setAttribute("aria-label", `Delete ${file.name}`);
    remove.onclick = async () => {
      await fetch(`/uploads/${encodeURIComponent(file.name)}`, { method: "DELETE" });
      await listFiles();
    };
    item.title = `SHA-256 ${file.sha256}`;
    item.append(element("a", file.name, { href: `/uploads/${encodeURIComponent(file.name)}`, download: "" }));
    item.append(element("span", sizeText(file.size)), remove);
    return item;
  });
  byId("files").replaceChildren(...items);
}

function upload(file) {
  const request = new XMLHttpRequest(), progress = byId("progress"), result = byId("upload-result");
  progress.hidden = false;
  result.className = "";
  result.textContent = `sending ${file.name}`;
  request.upload.onprogress = (event) => { if (event.lengthComputable) progress.value = event.loaded / event.total; };
  request.onload = async () => {
    progress.hidden = true;
    if (request.status === 201) {
      const stored = JSON.parse(request.responseText);
      result.textContent = `${stored.name}: ${stored.size} bytes, SHA-256 ${stored.sha256}`;
      await listFiles();
    } else {
      result.className = "bad";
      result.textContent = request.responseText.trim() || `The device answered ${request.status}.`;
    }
  };
  request.onerror = () => {
    progress.hidden = true;
    result.className = "bad";
    result.textContent = "The upload broke off.";
  };
  request.open("POST", `/api/uploads?name=${encodeURIComponent(file.name)}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.send(file);
}

byId("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  const [file] = byId("file").files;
  if (file) upload(file);
});

// ---- downloads --------------------------------------------------------------------------------------------------

async function listDownloads() {
  const items = (await answerOf(await fetch("/api/downloads"))).map((file) => {
    const item = element("li", "");
    item.append(element("a", file.name, { href: `/download/${file.name}`, download: "" }));
    item.append(element("a", "SHA-256", { href: `/download/${file.name}.sha256` }));
    item.append(element("span", sizeText(file.size)));
    return item;
  });
  byId("downloads").replaceChildren(...items);
}

byId("verify").addEventListener("click", async () => {
  const result = byId("verify-result"), started = performance.now();
  result.className = "";
  result.textContent = "fetching";
  try {
    const response = await fetch("/download/10MB.bin", { cache: "no-store" });
    const content = await response.arrayBuffer(), seconds = (performance.now() - started) / 1000;
    const expected = (await (await fetch("/download/10MB.bin.sha256")).text()).trim();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    const actual = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    result.className = actual === expected ? "" : "bad";
    result.textContent = actual === expected
      ? `every byte right, ${(content.byteLength / 1e6 / seconds).toFixed(1)} MB/s, SHA-256 ${actual}`
      : "the bytes differ from what the device sent";
  } catch (error) {
    result.className = "bad";
    result.textContent = `The download failed: ${error.message}`;
  }
});

// ---- preferences and the request ---------------------------------------------------------------------------------

async function loadPreferences() {
  const preferences = await answerOf(await fetch("/api/preferences"));
  fahrenheit = preferences.unit === "f";
  byId("unit-c").setAttribute("aria-pressed", String(!fahrenheit));
  byId("unit-f").setAttribute("aria-pressed", String(fahrenheit));
  setVent(preferences.vent);
}

async function loadRequest() {
  const seen = await answerOf(await fetch("/api/request"));
  const rows = seen.fields.flatMap(([name, value]) => [element("dt", name), element("dd", value)]);
  byId("request").replaceChildren(...rows);
}

window.addEventListener("resize", () => requestAnimationFrame(draw));
connect(0);
followLog();
for (const load of [listFiles, listDownloads, loadPreferences, loadRequest]) {
  load().catch((error) => status(error.message, false));
}
