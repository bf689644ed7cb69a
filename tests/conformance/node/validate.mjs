// Validates access tokens by discovery alone, with jose (RFC 9068 section 4, RFC 8705 section 3).
import { createHash } from "node:crypto";
import { createRemoteJWKSet, customFetch, jwtVerify } from "jose";

// `fetch` is how the issuer is reached. What is returned takes a token and, if there is one, the caller's certificate
// in DER; it returns the claims or throws.
export async function accessTokens(issuer, audience, fetch) {
  const url = new URL(issuer);
  // RFC 8414 section 3.1: the well-known part stands between host and path.
  url.pathname = `/.well-known/oauth-authorization-server${url.pathname.replace(/\/$/, "")}`;
  const metadata = await (await fetch(url, { redirect: "error" })).json();
  if (metadata.issuer !== issuer) throw new Error("the metadata is another issuer's");
  // Fetched again after five minutes, its max-age, and for a key that it does not have, at most twice a minute.
  const keys = createRemoteJWKSet(new URL(metadata.jwks_uri), { cacheMaxAge: 300_000, [customFetch]: fetch });

  return async (token, certificate) => {
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience,
      typ: "at+jwt",
      algorithms: ["ES256", "EdDSA", "RS256"],
      clockTolerance: 60,
      requiredClaims: ["exp", "iat", "sub", "client_id", "jti"],
    });
    // A bound token is good with its certificate alone.
    if (payload.cnf !== undefined) {
      const thumbprint = certificate && createHash("sha256").update(certificate).digest("base64url");
      if (!thumbprint || payload.cnf["x5t#S256"] !== thumbprint) throw new Error("not the certificate of the token");
    }
    return payload;
  };
}
