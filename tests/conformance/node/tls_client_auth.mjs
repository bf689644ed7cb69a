// tls_client_auth with openid-client: the token is bound to the certificate, which the API asks for again.
import { readFileSync } from "node:fs";
import * as oauth from "openid-client";
import { Agent, fetch } from "undici";

const [secret, api] = process.argv.slice(2);
const field = (name) => readFileSync(`${secret}/${name}`, "utf8");

const identity = { cert: field("tls.crt"), key: field("tls.key") };
const dispatcher = new Agent({ connect: { ...identity, ca: field("issuer_ca.crt") } });
const server = await oauth.discovery(
  new URL(field("issuer")),
  field("client_id"),
  { use_mtls_endpoint_aliases: true },
  oauth.TlsClientAuth(),
  { algorithm: "oauth2", [oauth.customFetch]: (url, options) => fetch(url, { ...options, dispatcher }) },
);
const { access_token } = await oauth.clientCredentialsGrant(server);

const answer = await fetch(api, {
  headers: { authorization: `Bearer ${access_token}` },
  dispatcher: new Agent({ connect: identity }),
});
if (!answer.ok) throw new Error(`the API answered ${answer.status}`);
console.log(await answer.text());
