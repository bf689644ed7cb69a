package shop;

import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.oauth2.sdk.auth.ClientAuthentication;
import com.nimbusds.oauth2.sdk.auth.PrivateKeyJWT;
import com.nimbusds.oauth2.sdk.id.ClientID;
import java.net.URI;
import java.security.KeyFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;

/** private_key_jwt with Nimbus: the key of a certificate signs, and never leaves the application. */
public class NimbusPrivateKey extends NimbusBasic {

    NimbusPrivateKey(String secret) {
        super(secret);
    }

    /** The same arguments. */
    public static void main(String[] args) throws Exception {
        new NimbusPrivateKey(args[0]).call(args);
    }

    // Signs with the key that the Secret holds now. The audience is the issuer, not the token endpoint.
    @Override
    ClientAuthentication authentication() throws Exception {
        var pkcs8 = Base64.getMimeDecoder().decode(field("tls.key").replaceAll("-----[^-]+-----", ""));
        var key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(pkcs8));
        var client = new ClientID(field("client_id"));
        return new PrivateKeyJWT(client, URI.create(field("issuer")), JWSAlgorithm.ES256, key, null, null);
    }
}
