package orders;

import com.nimbusds.jwt.JWTClaimsSet;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsExchange;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLPeerUnverifiedException;
import javax.net.ssl.TrustManagerFactory;
import net.minidev.json.JSONObject;
import org.springframework.boot.ssl.pem.PemContent;
import shop.IssuerTrust;

/** An API behind `NimbusAccessTokens`. Arguments: a directory with its identity, issuer, audience, scope. */
public class NimbusApi {

    private record Answer(int status, String challenge, Map<String, ?> body) {}

    private final NimbusAccessTokens tokens;
    private final String scope;

    private NimbusApi(NimbusAccessTokens tokens, String scope) {
        this.tokens = tokens;
        this.scope = scope;
    }

    public static void main(String[] args) throws Exception {
        Path directory = Path.of(args[0]);
        SSLContext.setDefault(IssuerTrust.with(directory.resolve("issuer_ca.crt")));
        var api = new NimbusApi(new NimbusAccessTokens(args[1], args[2]), args[3]);
        var server = HttpsServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.setHttpsConfigurator(new HttpsConfigurator(identity(directory)) {
            @Override
            public void configure(HttpsParameters parameters) {
                SSLParameters tls = getSSLContext().getDefaultSSLParameters();
                tls.setWantClientAuth(true);
                parameters.setSSLParameters(tls);
            }
        });
        server.createContext("/orders", exchange -> api.send((HttpsExchange) exchange));
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
        System.out.println("listening on " + server.getAddress().getPort());
    }

    private Answer answer(HttpsExchange exchange) {
        String header = exchange.getRequestHeaders().getFirst("Authorization");
        if (header == null || !header.regionMatches(true, 0, "Bearer ", 0, 7)) {
            return new Answer(401, "Bearer", Map.of());
        }
        JWTClaimsSet claims;
        try {
            claims = tokens.validate(header.substring(7), certificate(exchange));
        } catch (Exception error) {
            return new Answer(401, "Bearer error=\"invalid_token\"", Map.of("why", error.getClass().getSimpleName()));
        }
        if (!List.of(String.valueOf(claims.getClaim("scope")).split(" ")).contains(scope)) {
            return new Answer(403, "Bearer error=\"insufficient_scope\"", Map.of());
        }
        var audience = claims.getAudience();
        return new Answer(200, null, Map.of(
                "client_id", claims.getClaim("client_id"),
                "aud", audience.size() == 1 ? audience.get(0) : audience,
                "scope", claims.getClaim("scope"),
                "bound", claims.getClaim("cnf") != null));
    }

    private void send(HttpsExchange exchange) throws IOException {
        Answer answer = answer(exchange);
        byte[] body = JSONObject.toJSONString(answer.body()).getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        if (answer.challenge() != null) {
            exchange.getResponseHeaders().set("WWW-Authenticate", answer.challenge());
        }
        exchange.sendResponseHeaders(answer.status(), body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    private static X509Certificate certificate(HttpsExchange exchange) {
        try {
            return (X509Certificate) exchange.getSSLSession().getPeerCertificates()[0];
        } catch (SSLPeerUnverifiedException none) {
            return null;
        }
    }

    private static SSLContext identity(Path directory) throws Exception {
        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(null, null);
        var chain = PemContent.of(Files.readString(directory.resolve("server.crt"))).getCertificates();
        var key = PemContent.of(Files.readString(directory.resolve("server.key"))).getPrivateKey();
        own.setKeyEntry("server", key, new char[0], chain.toArray(X509Certificate[]::new));
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, new char[0]);
        KeyStore clients = KeyStore.getInstance("PKCS12");
        clients.load(null, null);
        for (var authority : PemContent.of(Files.readString(directory.resolve("issuer_ca.crt"))).getCertificates()) {
            clients.setCertificateEntry("authority-" + clients.size(), authority);
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(clients);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }
}
