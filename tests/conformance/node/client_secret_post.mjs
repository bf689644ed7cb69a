// client_secret_post with openid-client.
import { readFileSync } from "node:fs";
import * as oauth from "openid-client";
import { Agent, fetch } from "undici";

const [secret, api] = process.argv.slice(2);
const field = (name) => readFileSync(`${secret}/${name}`, "utf8");

const dispatcher = new Agent({ connect: { ca: field("issuer_ca.crt") } });
const server = await oauth.discovery(
  new URL(field("issuer")),
  field("client_id"),
  undefined,
  oauth.ClientSecretPost(field("client_secret")),
  { algorithm: "oauth2", [oauth.customFetch]: (url, options) => fetch(url, { ...options, dispatcher }) },
);
const { access_token } = await oauth.clientCredentialsGrant(server);

const answer = await fetch(api, { headers: { authorization: `Bearer ${access_token}` } });
if (!answer.ok) throw new Error(`the API answered ${answer.status}`);
console.log(await answer.text());
