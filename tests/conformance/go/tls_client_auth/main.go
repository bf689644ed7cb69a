// tls_client_auth with golang.org/x/oauth2: the token is bound to the certificate, which the API asks for again.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

var secret, api = os.Args[1], os.Args[2]

func main() {
	roots, err := x509.SystemCertPool()
	if err != nil {
		log.Fatal(err)
	}
	roots.AppendCertsFromPEM([]byte(field("issuer_ca.crt")))
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots,
		// For each connection, what the Secret holds then: it is replaced while the application runs.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, err := tls.LoadX509KeyPair(filepath.Join(secret, "tls.crt"), filepath.Join(secret, "tls.key"))
			return &certificate, err
		},
	}}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: transport})

	client := oauth2.NewClient(ctx, oauth2.ReuseTokenSource(nil, tokens{ctx}))
	answer, err := client.Get(api)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		log.Fatal(answer.Status, err)
	}
	fmt.Println(string(body))
}

type tokens struct{ ctx context.Context }

// Token sends the client ID alone: the connection proves it.
func (t tokens) Token() (*oauth2.Token, error) {
	config := clientcredentials.Config{
		ClientID:  field("client_id"),
		TokenURL:  field("token_endpoint"),
		AuthStyle: oauth2.AuthStyleInParams,
	}
	return config.Token(t.ctx)
}

func field(name string) string {
	content, err := os.ReadFile(filepath.Join(secret, name))
	if err != nil {
		log.Fatal(err)
	}
	return string(content)
}
