// The same with oauth4webapi, which knows tokens bound by DPoP (RFC 9449), and refuses those bound to a certificate.
import * as oauth from "oauth4webapi";

export async function accessTokens(issuer, audience, fetch) {
  const url = new URL(issuer);
  const options = { [oauth.customFetch]: fetch };
  const answer = await oauth.discoveryRequest(url, { algorithm: "oauth2", ...options });
  const server = await oauth.processDiscoveryResponse(url, answer);
  const signingAlgorithms = ["ES256", "EdDSA", "RS256"];
  return async (token) => {
    const request = new Request("https://api.example", { headers: { authorization: `Bearer ${token}` } });
    return oauth.validateJwtAccessToken(server, request, audience, { signingAlgorithms, ...options });
  };
}
