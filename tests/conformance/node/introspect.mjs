// Asks whether a token is good, with openid-client (RFC 7662).
import { readFileSync } from "node:fs";
import * as oauth from "openid-client";
import { Agent, fetch } from "undici";

const [secret, file] = process.argv.slice(2);
const field = (name) => readFileSync(`${secret}/${name}`, "utf8");

const dispatcher = new Agent({ connect: { ca: field("issuer_ca.crt") } });
const server = await oauth.discovery(
  new URL(field("issuer")),
  field("client_id"),
  undefined,
  oauth.ClientSecretBasic(field("client_secret")),
  { algorithm: "oauth2", [oauth.customFetch]: (url, options) => fetch(url, { ...options, dispatcher }) },
);
console.log(JSON.stringify(await oauth.tokenIntrospection(server, readFileSync(file, "utf8"))));
