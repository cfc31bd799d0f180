import { call, notice, ownPath } from "./call.js";

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await call("POST", "/v1/login", { username: form.username.value, password: form.password.value });
    location.replace(ownPath(new URLSearchParams(location.search).get("next")));
  } catch (problem) {
    notice(problem.message);
    form.password.select();
  } finally {
    button.disabled = false;
  }
});
