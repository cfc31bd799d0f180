// The OpenID provider of the login's tests: npm's oidc-provider with its own pages for login and consent.
// Usage: node oidc_provider.mjs MODULE SETTINGS, a JSON text: {issuer, port, client_id, client_secret, redirect_uris},
// and for clients that have a key: {clients: [{client_id, …}], jwks: the provider's own keys}.
import { pathToFileURL } from "node:url";

const [module, text] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(module));
const settings = JSON.parse(text);

// Who logs in is whoever they say: the name typed on the provider's page.
function account(id) {
  const claims = { sub: id, email: `${id}@example.com`, email_verified: id !== "unverified", preferred_username: id };
  return { accountId: id, claims: () => claims };
}

const provider = new Provider(settings.issuer, {
  clients: [
    {
      client_id: settings.client_id,
      client_secret: settings.client_secret,
      redirect_uris: settings.redirect_uris,
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
    ...(settings.clients ?? []),
  ],
  ...(settings.jwks && { jwks: settings.jwks }),
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["preferred_username"] },
  cookies: { keys: ["of a test"] },
  features: { devInteractions: { enabled: true } },
  findAccount: (_, id) => account(id),
  pkce: { required: () => true },
});
// Its answers do not say why.
provider.on("grant.error", (_, error) => console.error(error.error, error.error_detail));
provider.listen(settings.port, "127.0.0.1");
