package shop;

import com.nimbusds.oauth2.sdk.ClientCredentialsGrant;
import com.nimbusds.oauth2.sdk.TokenRequest;
import com.nimbusds.oauth2.sdk.TokenResponse;
import com.nimbusds.oauth2.sdk.auth.ClientAuthentication;
import com.nimbusds.oauth2.sdk.auth.ClientSecretBasic;
import com.nimbusds.oauth2.sdk.auth.Secret;
import com.nimbusds.oauth2.sdk.id.ClientID;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.nimbusds.openid.connect.sdk.op.OIDCProviderMetadata;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import javax.net.ssl.SSLContext;

/** client_secret_basic with Nimbus, from the issuer alone. */
public class NimbusBasic {

    final Path secret;

    NimbusBasic(String secret) {
        this.secret = Path.of(secret);
    }

    /** Arguments: the directory of the Secret, the URL of the API, and its audience unless it is the first one. */
    public static void main(String[] args) throws Exception {
        new NimbusBasic(args[0]).call(args);
    }

    void call(String[] args) throws Exception {
        SSLContext.setDefault(IssuerTrust.with(secret.resolve("issuer_ca.crt")));
        var server = OIDCProviderMetadata.resolve(new Issuer(field("issuer")));

        var request = new TokenRequest.Builder(
                server.getTokenEndpointURI(), authentication(), new ClientCredentialsGrant());
        if (args.length > 2) {
            request.resource(URI.create(args[2])); // RFC 8707: the API that the token is for
        }
        var response = TokenResponse.parse(request.build().toHTTPRequest().send());
        if (!response.indicatesSuccess()) {
            throw new Exception(response.toErrorResponse().getErrorObject().toString());
        }
        var token = response.toSuccessResponse().getTokens().getBearerAccessToken();

        var call = HttpRequest.newBuilder(URI.create(args[1])).header("Authorization", token.toAuthorizationHeader());
        var answer = HttpClient.newHttpClient().send(call.build(), BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new Exception("the API answered " + answer.statusCode());
        }
        System.out.println(answer.body());
    }

    // What the Secret holds now: it is replaced while the application runs.
    ClientAuthentication authentication() throws Exception {
        return new ClientSecretBasic(new ClientID(field("client_id")), new Secret(field("client_secret")));
    }

    String field(String name) throws Exception {
        return Files.readString(secret.resolve(name));
    }
}
