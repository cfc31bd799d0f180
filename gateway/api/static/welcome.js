import { call, notice } from "./call.js";

const secret = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
try {
  if (!secret) throw new Error("This welcome address is not complete.");
  await call("POST", "/v1/login/welcome", { secret });
  location.replace("/");
} catch (problem) {
  document.getElementById("progress").hidden = true;
  notice(problem.message);
}
