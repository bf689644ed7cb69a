package orders;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.BadJWTException;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.nimbusds.oauth2.sdk.as.AuthorizationServerMetadata;
import com.nimbusds.oauth2.sdk.auth.X509CertificateConfirmation;
import com.nimbusds.oauth2.sdk.id.Issuer;
import java.security.cert.X509Certificate;
import java.util.Set;

/** Validates access tokens by discovery alone, with Nimbus (RFC 9068 section 4, RFC 8705 section 3). */
public class NimbusAccessTokens {

    private final DefaultJWTProcessor<SecurityContext> processor = new DefaultJWTProcessor<>();

    /** Tokens of one issuer for one audience. */
    NimbusAccessTokens(String issuer, String audience) throws Exception {
        var server = AuthorizationServerMetadata.resolve(new Issuer(issuer));
        // Fetched again after five minutes, and for an unknown key, at most twice in half a minute. The last copy is
        // used while the issuer cannot be reached.
        var keys = JWKSourceBuilder.create(server.getJWKSetURI().toURL()).outageTolerantForever().build();
        processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
        processor.setJWSKeySelector(
                new JWSVerificationKeySelector<>(Set.of(JWSAlgorithm.ES256, JWSAlgorithm.RS256), keys));
        processor.setJWTClaimsSetVerifier(new DefaultJWTClaimsVerifier<>(
                audience,
                new JWTClaimsSet.Builder().issuer(issuer).build(),
                Set.of("exp", "iat", "sub", "client_id", "jti")));
    }

    /** The claims of a token; `certificate` is the caller's, or null. */
    JWTClaimsSet validate(String token, X509Certificate certificate) throws Exception {
        var claims = processor.process(token, null);
        // A bound token is good with its certificate alone.
        if (claims.getClaim("cnf") != null) {
            var bound = X509CertificateConfirmation.parse(claims);
            if (bound == null || certificate == null || !bound.equals(X509CertificateConfirmation.of(certificate))) {
                throw new BadJWTException("not the certificate of the token");
            }
        }
        return claims;
    }
}
