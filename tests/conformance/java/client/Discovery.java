package shop;

import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.oauth2.sdk.GrantType;
import com.nimbusds.oauth2.sdk.as.AuthorizationServerMetadata;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.nimbusds.openid.connect.sdk.SubjectType;
import com.nimbusds.openid.connect.sdk.op.OIDCProviderMetadata;
import java.net.URI;
import java.nio.file.Path;
import java.util.List;
import javax.net.ssl.SSLContext;
import org.springframework.security.oauth2.client.registration.ClientRegistration;
import org.springframework.security.oauth2.client.registration.ClientRegistrations;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.jwt.JwtDecoders;

/** Each way of a library to start from an issuer. Arguments: a file with its authority, the library, the issuer. */
public class Discovery {

    public static void main(String[] args) throws Exception {
        SSLContext.setDefault(IssuerTrust.with(Path.of(args[0])));
        if (args[1].equals("Nimbus")) {
            nimbus(args[2]);
        } else {
            spring(args[2]);
        }
        System.out.println("{\"valid\": true}");
    }

    private static void nimbus(String issuer) throws Exception {
        var openid = OIDCProviderMetadata.resolve(new Issuer(issuer));
        var oauth = AuthorizationServerMetadata.resolve(new Issuer(issuer));
        for (var metadata : List.of(openid, oauth)) {
            require(metadata.getIssuer().getValue().equals(issuer), "issuer");
            require(metadata.getTokenEndpointURI().equals(URI.create(issuer + "/token")), "token_endpoint");
            require(metadata.getJWKSetURI().equals(URI.create(issuer + "/jwks")), "jwks_uri");
            require(metadata.getGrantTypes().equals(List.of(GrantType.CLIENT_CREDENTIALS)), "grant_types_supported");
        }
        require(openid.getSubjectTypes().equals(List.of(SubjectType.PUBLIC)), "subject_types_supported");
        require(openid.getIDTokenJWSAlgs().contains(JWSAlgorithm.RS256), "id_token_signing_alg_values_supported");
        require(openid.getResponseTypes().size() == 1, "response_types_supported");
        require(openid.getAuthorizationEndpointURI() != null, "authorization_endpoint");
        require(oauth.getAuthorizationEndpointURI() == null, "authorization_endpoint of RFC 8414");
    }

    private static void spring(String issuer) {
        for (var found : List.of(
                ClientRegistrations.fromIssuerLocation(issuer), ClientRegistrations.fromOidcIssuerLocation(issuer))) {
            ClientRegistration client = found.clientId("client")
                    .authorizationGrantType(AuthorizationGrantType.CLIENT_CREDENTIALS)
                    .build();
            require(client.getProviderDetails().getTokenUri().equals(issuer + "/token"), "token_endpoint");
            require(client.getProviderDetails().getJwkSetUri().equals(issuer + "/jwks"), "jwks_uri");
        }
        JwtDecoders.fromIssuerLocation(issuer);
        JwtDecoders.fromOidcIssuerLocation(issuer);
    }

    private static void require(boolean holds, String member) {
        if (!holds) {
            throw new IllegalStateException(member);
        }
    }
}
