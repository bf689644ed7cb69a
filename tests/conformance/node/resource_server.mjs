// An API behind `validate.mjs` or another: arguments are the module, a directory with its identity, the issuer, the
// audience, the scope.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { Agent, fetch } from "undici";

const [module, directory, issuer, audience, scope] = process.argv.slice(2);
const file = (name) => readFileSync(`${directory}/${name}`);
const { accessTokens } = await import(`./${module}.mjs`);
const dispatcher = new Agent({ connect: { ca: file("issuer_ca.crt") } });
const validate = await accessTokens(issuer, audience, (url, options) => fetch(url, { ...options, dispatcher }));

async function answer(request) {
  const [kind, token] = (request.headers.authorization ?? "").split(" ");
  if (kind.toLowerCase() !== "bearer") return [401, "Bearer", {}];
  let claims;
  try {
    claims = await validate(token, request.socket.getPeerCertificate().raw);
  } catch (error) {
    return [401, 'Bearer error="invalid_token"', { error: "invalid_token", why: error.code ?? error.name }];
  }
  if (!(claims.scope ?? "").split(" ").includes(scope)) {
    return [403, 'Bearer error="insufficient_scope"', { error: "insufficient_scope" }];
  }
  const { client_id, aud, scope: scopes, cnf } = claims;
  return [200, undefined, { client_id, aud, scope: scopes, bound: cnf !== undefined }];
}

// Any certificate is taken: the token says which one it has to be.
const tls = { cert: file("server.crt"), key: file("server.key"), requestCert: true, rejectUnauthorized: false };
const server = createServer(tls, async (request, response) => {
  const [status, challenge, body] = await answer(request);
  if (challenge) response.setHeader("www-authenticate", challenge);
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
});
server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
