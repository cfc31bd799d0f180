"use strict";
// The link's secret is in the fragment: it is taken out of the address bar at once and leaves only in a POST.
(function () {
  const secret = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  const form = document.getElementById("form");
  const field = document.getElementById("secret");
  const show = (id) => { document.getElementById(id).hidden = false; };

  function claims(token) {
    try {
      const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
      return JSON.parse(atob(part));
    } catch (error) {
      return null;
    }
  }

  document.getElementById("wait").hidden = true;
  if (secret.startsWith("code.")) {
    show("wait");
    field.name = "code";
    field.value = secret.slice(5);
    form.submit();
    return;
  }
  const said = claims(secret);
  if (said === null) {
    show("nothing");
  } else if (said.bind === "browser") {
    show("wait");
    location.replace(document.body.dataset.gateway + "/open#" + secret);
  } else {
    if (said.support) show("support");
    field.name = "token";
    field.value = secret;
    show("form");
  }
})();
