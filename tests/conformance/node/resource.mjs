// A token for one API, or for several, with openid-client: the arguments after the API's URL are resources (RFC 8707).
import { readFileSync } from "node:fs";
import * as oauth from "openid-client";
import { Agent, fetch } from "undici";

const [secret, api, ...resources] = process.argv.slice(2);
const field = (name) => readFileSync(`${secret}/${name}`, "utf8");

const dispatcher = new Agent({ connect: { ca: field("issuer_ca.crt") } });
const server = await oauth.discovery(
  new URL(field("issuer")),
  field("client_id"),
  undefined,
  oauth.ClientSecretBasic(field("client_secret")),
  { algorithm: "oauth2", [oauth.customFetch]: (url, options) => fetch(url, { ...options, dispatcher }) },
);
const parameters = new URLSearchParams(resources.map((resource) => ["resource", resource]));
const { access_token } = await oauth.clientCredentialsGrant(server, parameters);

const answer = await fetch(api, { headers: { authorization: `Bearer ${access_token}` } });
if (!answer.ok) throw new Error(`the API answered ${answer.status}`);
console.log(await answer.text());
