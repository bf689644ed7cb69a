package shop;

import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.List;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

/** Certificate authorities that the JVM trusts, and the issuer's besides. */
public final class IssuerTrust {

    /** `file` is issuer_ca.crt. */
    public static SSLContext with(Path file) throws Exception {
        List<X509Certificate> authorities = new ArrayList<>();
        for (var manager : managers(null).getTrustManagers()) {
            authorities.addAll(List.of(((X509TrustManager) manager).getAcceptedIssuers()));
        }
        try (var pem = Files.newInputStream(file)) {
            for (var certificate : CertificateFactory.getInstance("X.509").generateCertificates(pem)) {
                authorities.add((X509Certificate) certificate);
            }
        }
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        for (var authority : authorities) {
            trusted.setCertificateEntry("authority-" + trusted.size(), authority);
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers(trusted).getTrustManagers(), null);
        return context;
    }

    private static TrustManagerFactory managers(KeyStore trusted) throws Exception {
        var factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(trusted);
        return factory;
    }
}
