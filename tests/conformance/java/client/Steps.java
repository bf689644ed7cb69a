package shop;

import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.List;

/**
 * Runs programs one after the other in one JVM, because its start takes longer than most of them. Arguments: a file
 * with the certificate authority that the system trusts, then for each program `--`, its class and its arguments. A
 * line after each says how it ended.
 */
public class Steps {

    public static void main(String[] args) throws Exception {
        trust(Path.of(args[0]));
        List<List<String>> steps = new ArrayList<>();
        for (String argument : List.of(args).subList(1, args.length)) {
            if (argument.equals("--")) {
                steps.add(new ArrayList<>());
            } else {
                steps.get(steps.size() - 1).add(argument);
            }
        }
        for (var step : steps) {
            System.out.println("step " + (run(step) ? "ended" : "failed"));
        }
    }

    private static boolean run(List<String> step) {
        try {
            String[] arguments = step.subList(1, step.size()).toArray(String[]::new);
            Class.forName("shop." + step.get(0)).getMethod("main", String[].class).invoke(null, (Object) arguments);
            return true;
        } catch (Exception error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                System.out.println(cause);
            }
            return false;
        }
    }

    /** Stands for the cacerts file of a system. */
    private static void trust(Path file) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        try (var pem = Files.newInputStream(file)) {
            for (var authority : CertificateFactory.getInstance("X.509").generateCertificates(pem)) {
                store.setCertificateEntry("authority-" + store.size(), authority);
            }
        }
        Path path = Files.createTempFile("system", ".p12");
        path.toFile().deleteOnExit();
        try (OutputStream out = Files.newOutputStream(path)) {
            store.store(out, "changeit".toCharArray());
        }
        System.setProperty("javax.net.ssl.trustStore", path.toAbsolutePath().toString());
        System.setProperty("javax.net.ssl.trustStoreType", "PKCS12");
        System.setProperty("javax.net.ssl.trustStorePassword", "changeit");
    }
}
