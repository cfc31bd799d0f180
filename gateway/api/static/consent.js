import { call, notice } from "./call.js";

const buttons = document.querySelectorAll("button[data-answer]");

document.getElementById("consent").addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-answer]");
  if (!button) return;
  for (const one of buttons) one.disabled = true;
  try {
    const body = { query: location.search.slice(1), allow: button.dataset.answer === "allow" };
    const { redirect_to } = await call("POST", "/v1/oauth/authorize", body);
    location.replace(redirect_to);
  } catch (problem) {
    if (problem.status === 401) {
      location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
      return;
    }
    notice(problem.message);
    for (const one of buttons) one.disabled = false;
  }
});
