import { call, notice } from "./call.js";

// The token survives a detour over the login page in this tab, and nowhere else.
const KEPT = "towline-link";
const token = location.hash.slice(1) || sessionStorage.getItem(KEPT) || "";
history.replaceState(null, "", location.pathname);
sessionStorage.removeItem(KEPT);

const progress = document.getElementById("progress");
const button = document.getElementById("continue");

function failed(problem) {
  progress.hidden = true;
  button.hidden = true;
  if (problem.status === 401) {
    sessionStorage.setItem(KEPT, token);
    location.replace("/login?next=/open");
    return;
  }
  notice(problem.message);
}

async function look() {
  if (!token) throw new Error("This link is not complete. Open the device again.");
  const link = await call("POST", "/v1/links/inspect", { token });
  for (const name of ["device", "owner", "service"]) document.getElementById(name).textContent = link[name];
  if (link.support) {
    for (const name of ["engineer", "reason"]) document.getElementById(name).textContent = link.support[name];
    for (const part of document.querySelectorAll("[data-support]")) part.hidden = false;
  }
  document.getElementById("until").textContent = new Date(link.expires_at).toLocaleString();
  document.getElementById("facts").hidden = false;
  progress.hidden = true;
  button.hidden = false;
  button.focus();
}

button.addEventListener("click", async () => {
  button.disabled = true;
  try {
    const { url } = await call("POST", "/v1/links/code", { token });
    location.replace(url);
  } catch (problem) {
    failed(problem);
  }
});

look().catch(failed);
