// A ServiceAccount token as the client assertion, with openid-client: no credential is kept anywhere.
import { readFileSync } from "node:fs";
import * as oauth from "openid-client";
import { Agent, fetch } from "undici";

const [volume, api] = process.argv.slice(2);
const field = (name) => readFileSync(`${volume}/${name}`, "utf8");

function serviceAccount(_server, client, form) {
  form.set("client_id", client.client_id);
  form.set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
  form.set("client_assertion", field("sa_token")); // read again each time: the kubelet replaces it
}

const dispatcher = new Agent({ connect: { ca: field("issuer_ca.crt") } });
const server = await oauth.discovery(new URL(field("issuer")), field("client_id"), undefined, serviceAccount, {
  algorithm: "oauth2",
  [oauth.customFetch]: (url, options) => fetch(url, { ...options, dispatcher }),
});
const { access_token } = await oauth.clientCredentialsGrant(server);

const answer = await fetch(api, { headers: { authorization: `Bearer ${access_token}` } });
if (!answer.ok) throw new Error(`the API answered ${answer.status}`);
console.log(await answer.text());
