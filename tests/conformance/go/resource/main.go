// A token for one API, or for several, with golang.org/x/oauth2: the arguments after the API's URL are resources (RFC 8707).
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

var secret, api, resources = os.Args[1], os.Args[2], os.Args[3:]

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

// Token asks for a token for these APIs; where none is named, for the first of the registration's apis.
func (t tokens) Token() (*oauth2.Token, error) {
	config := clientcredentials.Config{
		ClientID:       field("client_id"),
		ClientSecret:   field("client_secret"),
		TokenURL:       field("token_endpoint"),
		AuthStyle:      oauth2.AuthStyleInHeader,
		EndpointParams: url.Values{"resource": resources},
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
