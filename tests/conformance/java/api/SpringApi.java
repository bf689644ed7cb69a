package orders;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.boot.web.server.context.WebServerInitializedEvent;
import org.springframework.context.event.EventListener;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** An API behind `AccessTokens`. Arguments: a directory with its identity, the issuer, the audience. */
@SpringBootApplication
@RestController
public class SpringApi {

    public static void main(String[] args) {
        String[] properties = {"--directory=" + args[0], "--issuer=" + args[1], "--audience=" + args[2]};
        var api = new SpringApplicationBuilder(SpringApi.class);
        api.properties("server.address=127.0.0.1", "server.port=0").run(properties);
    }

    @EventListener
    void started(WebServerInitializedEvent event) {
        System.out.println("listening on " + event.getWebServer().getPort());
    }

    @GetMapping("/orders")
    Map<String, Object> orders(@AuthenticationPrincipal Jwt token) {
        Map<String, Object> seen = new LinkedHashMap<>();
        seen.put("client_id", token.getClaim("client_id"));
        List<String> audience = token.getAudience();
        seen.put("aud", audience.size() == 1 ? audience.get(0) : audience);
        seen.put("scope", token.getClaim("scope"));
        seen.put("bound", token.hasClaim("cnf"));
        return seen;
    }
}
