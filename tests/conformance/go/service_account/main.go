// A ServiceAccount token as the client assertion, with golang.org/x/oauth2: no credential is kept anywhere.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

var volume, api = os.Args[1], os.Args[2]

func main() {
	roots, err := x509.SystemCertPool()
	if err != nil {
		log.Fatal(err)
	}
	roots.AppendCertsFromPEM([]byte(field("issuer_ca.crt")))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
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

// Token reads the ServiceAccount token each time: the kubelet replaces it.
func (t tokens) Token() (*oauth2.Token, error) {
	config := clientcredentials.Config{
		ClientID:  field("client_id"),
		TokenURL:  field("token_endpoint"),
		AuthStyle: oauth2.AuthStyleInParams,
		EndpointParams: url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {field("sa_token")},
		},
	}
	return config.Token(t.ctx)
}

func field(name string) string {
	content, err := os.ReadFile(filepath.Join(volume, name))
	if err != nil {
		log.Fatal(err)
	}
	return string(content)
}
