package orders;

import java.net.http.HttpClient;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.function.Consumer;
import org.springframework.boot.security.oauth2.server.resource.autoconfigure.JwkSetUriJwtDecoderBuilderCustomizer;
import org.springframework.boot.ssl.SslBundle;
import org.springframework.boot.ssl.SslBundles;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.client.JdkClientHttpRequestFactory;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.oauth2.core.OAuth2Error;
import org.springframework.security.oauth2.core.OAuth2ErrorCodes;
import org.springframework.security.oauth2.core.OAuth2TokenValidator;
import org.springframework.security.oauth2.core.OAuth2TokenValidatorResult;
import org.springframework.security.oauth2.jose.jws.SignatureAlgorithm;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtClaimValidator;
import org.springframework.security.oauth2.jwt.JwtTimestampValidator;
import org.springframework.security.oauth2.jwt.JwtTypeValidator;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.client.RestTemplate;

/** Access tokens of RFC 9068 and RFC 8705 for Spring Boot; application.yaml has the issuer and the audience. */
@Configuration
public class AccessTokens {

    /** Spring Security accepts `JWT` alone by default. */
    @Bean
    JwtTypeValidator type() {
        return new JwtTypeValidator("at+jwt");
    }

    /** A token without an end would be valid for ever by default. */
    @Bean
    JwtTimestampValidator time() {
        var time = new JwtTimestampValidator(Duration.ofMinutes(1));
        time.setAllowEmptyExpiryClaim(false);
        return time;
    }

    @Bean
    OAuth2TokenValidator<Jwt> client() {
        return new JwtClaimValidator<>("client_id", Objects::nonNull);
    }

    /** Spring Security compares the certificate, but accepts a token that is bound in another way. */
    @Bean
    OAuth2TokenValidator<Jwt> binding() {
        var error = new OAuth2Error(OAuth2ErrorCodes.INVALID_TOKEN, "The token is bound in another way", null);
        return token -> token.hasClaim("cnf") && !token.getClaimAsMap("cnf").containsKey("x5t#S256")
                ? OAuth2TokenValidatorResult.failure(error)
                : OAuth2TokenValidatorResult.success();
    }

    /**
     * How the issuer is reached, and by which algorithms its tokens are verified. By default, the algorithms would be
     * those of the keys at the first call, and after a change of the algorithm every token would be rejected.
     */
    @Bean
    JwkSetUriJwtDecoderBuilderCustomizer issuer(SslBundles bundles) {
        var http = new RestTemplate();
        Consumer<SslBundle> reach = bundle -> {
            var client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5));
            client.sslContext(bundle.createSslContext());
            http.setRequestFactory(new JdkClientHttpRequestFactory(client.build()));
        };
        reach.accept(bundles.getBundle("issuer"));
        bundles.addBundleUpdateHandler("issuer", reach);
        var algorithms = List.of(SignatureAlgorithm.ES256, SignatureAlgorithm.RS256);
        return decoder -> decoder.restOperations(http).jwsAlgorithms(known -> known.addAll(algorithms));
    }

    @Bean
    SecurityFilterChain scopes(HttpSecurity http) {
        http.authorizeHttpRequests(requests -> requests.anyRequest().hasAuthority("SCOPE_orders:read"));
        http.oauth2ResourceServer(server -> server.jwt(Customizer.withDefaults()));
        return http.build();
    }
}
