package shop;

import com.nimbusds.oauth2.sdk.auth.ClientAuthentication;
import com.nimbusds.oauth2.sdk.auth.ClientSecretPost;
import com.nimbusds.oauth2.sdk.auth.Secret;
import com.nimbusds.oauth2.sdk.id.ClientID;

/** client_secret_post with Nimbus. */
public class NimbusPost extends NimbusBasic {

    NimbusPost(String secret) {
        super(secret);
    }

    /** The same arguments. */
    public static void main(String[] args) throws Exception {
        new NimbusPost(args[0]).call(args);
    }

    // What the Secret holds now: it is replaced while the application runs.
    @Override
    ClientAuthentication authentication() throws Exception {
        return new ClientSecretPost(new ClientID(field("client_id")), new Secret(field("client_secret")));
    }
}
