// private_key_jwt with golang.org/x/oauth2: the key of a certificate signs, and never leaves the application.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
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

// Token signs an assertion with the key that the Secret holds now; it is used once, and ends within a minute.
func (t tokens) Token() (*oauth2.Token, error) {
	key, err := jwt.ParseECPrivateKeyFromPEM([]byte(field("tls.key")))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	assertion, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": field("client_id"), "sub": field("client_id"), "aud": field("issuer"),
		"jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}).SignedString(key)
	if err != nil {
		return nil, err
	}
	config := clientcredentials.Config{
		ClientID:  field("client_id"),
		TokenURL:  field("token_endpoint"),
		AuthStyle: oauth2.AuthStyleInParams,
		EndpointParams: url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {assertion},
		},
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
