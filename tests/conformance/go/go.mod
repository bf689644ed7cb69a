module appreg.dev/tests/conformance

go 1.26.0

require (
	github.com/golang-jwt/jwt/v5 v5.3.0
	golang.org/x/oauth2 v0.37.0
)
