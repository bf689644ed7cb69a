"""An API behind `validate.py` or another: arguments are the module, a directory with its identity, the issuer, the
audience, the scope."""

import importlib
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from joserfc.errors import JoseError

module, directory, issuer, audience, scope = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]
tokens = importlib.import_module(module).AccessTokens(issuer, audience, ca=str(directory / "issuer_ca.crt"))


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return self.answer(401, {"error": "none"}, "Bearer")
        try:
            claims = tokens.validate(token, self.connection.getpeercert(binary_form=True))
        except (ValueError, JoseError) as error:
            why = type(error).__name__
            return self.answer(401, {"error": "invalid_token", "why": why}, 'Bearer error="invalid_token"')
        if scope not in claims.get("scope", "").split():
            return self.answer(403, {"error": "insufficient_scope"}, 'Bearer error="insufficient_scope"')
        seen = {name: claims.get(name) for name in ("client_id", "aud", "scope")}
        self.answer(200, {**seen, "bound": "cnf" in claims})

    def answer(self, status, document, challenge=None):
        body = json.dumps(document).encode()
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: a log of requests is no place for what they carry."""


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(directory / "server.crt", directory / "server.key")
context.load_verify_locations(directory / "issuer_ca.crt")
context.verify_mode = ssl.CERT_OPTIONAL
server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
