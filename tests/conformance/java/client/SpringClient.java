package shop;

import com.nimbusds.jose.jwk.Curve;
import com.nimbusds.jose.jwk.ECKey;
import com.nimbusds.jose.jwk.JWK;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.interfaces.ECPublicKey;
import java.util.List;
import javax.net.ssl.SSLContext;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.security.oauth2.client.autoconfigure.OAuth2ClientProperties;
import org.springframework.boot.security.oauth2.client.autoconfigure.OAuth2ClientPropertiesMapper;
import org.springframework.boot.ssl.pem.PemContent;
import org.springframework.context.annotation.Bean;
import org.springframework.security.oauth2.client.AuthorizedClientServiceOAuth2AuthorizedClientManager;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientProviderBuilder;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientService;
import org.springframework.security.oauth2.client.endpoint.NimbusJwtClientAuthenticationParametersConverter;
import org.springframework.security.oauth2.client.endpoint.OAuth2ClientCredentialsGrantRequest;
import org.springframework.security.oauth2.client.endpoint.RestClientClientCredentialsTokenResponseClient;
import org.springframework.security.oauth2.client.registration.ClientRegistration;
import org.springframework.security.oauth2.client.registration.ClientRegistrationRepository;
import org.springframework.security.oauth2.client.web.client.OAuth2ClientHttpRequestInterceptor;
import org.springframework.util.LinkedMultiValueMap;
import org.springframework.web.client.RestClient;

/** client_credentials with Spring Boot, from the issuer alone. */
@SpringBootApplication
public class SpringClient {

    /** Arguments: the directory of the Secret, the URL of the API, and its audience unless it is the first one. */
    public static void main(String[] args) throws Exception {
        // Spring Security reads the metadata with the trust of the JVM: an SSL bundle cannot be set for that.
        SSLContext.setDefault(IssuerTrust.with(Path.of(args[0], "issuer_ca.crt")));
        String resource = args.length > 2 ? args[2] : "";
        try (var app = SpringApplication.run(SpringClient.class, "--secret=" + args[0], "--resource=" + resource)) {
            System.out.println(app.getBean(RestClient.class).get().uri(args[1]).retrieve().body(String.class));
        }
    }

    /** An HTTP client for the API. It sends a token, and keeps that until a minute before its end. */
    @Bean
    RestClient api(
            ClientRegistrationRepository registrations,
            OAuth2AuthorizedClientService tokens,
            RestClientClientCredentialsTokenResponseClient tokenEndpoint) {
        var manager = new AuthorizedClientServiceOAuth2AuthorizedClientManager(registrations, tokens);
        manager.setAuthorizedClientProvider(OAuth2AuthorizedClientProviderBuilder.builder()
                .clientCredentials(grant -> grant.accessTokenResponseClient(tokenEndpoint))
                .build());
        var interceptor = new OAuth2ClientHttpRequestInterceptor(manager);
        interceptor.setClientRegistrationIdResolver(request -> "orders");
        return RestClient.builder().requestInterceptor(interceptor).build();
    }

    /** Reads the client secret again for each token: it is replaced while the application runs. */
    @Bean
    ClientRegistrationRepository registrations(OAuth2ClientProperties properties, @Value("${secret}") Path secret) {
        var discovered = new OAuth2ClientPropertiesMapper(properties).asClientRegistrations();
        return id -> {
            var registration = ClientRegistration.withClientRegistration(discovered.get(id));
            Path file = secret.resolve("client_secret");
            return Files.exists(file) ? registration.clientSecret(read(file)).build() : registration.build();
        };
    }

    @Bean
    RestClientClientCredentialsTokenResponseClient tokenEndpoint(
            @Value("${secret}") Path secret, @Value("${issuer}") String issuer, @Value("${resource}") String resource) {
        var client = new RestClientClientCredentialsTokenResponseClient();
        // RFC 8707: the API that the token is for. Without it, that is the registration's first one.
        client.addParametersConverter(grant -> {
            var parameters = new LinkedMultiValueMap<String, String>();
            if (!resource.isEmpty()) {
                parameters.add("resource", resource);
            }
            return parameters;
        });
        // Only for private_key_jwt. The audience is the issuer, not the token endpoint.
        var assertions = new NimbusJwtClientAuthenticationParametersConverter<OAuth2ClientCredentialsGrantRequest>(
                registration -> key(secret));
        assertions.setJwtClientAssertionCustomizer(assertion -> assertion.getClaims().audience(List.of(issuer)));
        client.addParametersConverter(assertions);
        return client;
    }

    /** Reads the key again for each assertion: it is replaced while the application runs. */
    private static JWK key(Path secret) {
        var certificate = PemContent.of(read(secret.resolve("tls.crt"))).getCertificates().get(0);
        var key = PemContent.of(read(secret.resolve("tls.key"))).getPrivateKey();
        return new ECKey.Builder(Curve.P_256, (ECPublicKey) certificate.getPublicKey()).privateKey(key).build();
    }

    private static String read(Path file) {
        try {
            return Files.readString(file);
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }
}
