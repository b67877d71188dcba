#!/usr/bin/python3
"""A token server for a registry with `auth: token` (distribution, docs/spec/auth/token.md), for tests.

token-server.py PORT KEY CERTIFICATE      environment:
    TTL      lifetime of a token in seconds (300); the registry allows a minute for clocks
    CLAIMED  the lifetime it tells clients (TTL)
    OFFLINE  if set, who logs in gets an identity token
    POST     if set, there is only OAuth2: GET is not allowed

Needs only the standard library and openssl(1), which signs. user/pass gets what is asked, reader/reader pulls,
nobody pulls public/*. GET with Basic, and OAuth2's POST (password, refresh_token = the literal `refresh-me`, which is user, or `identity-of-NAME`).
"""
import base64
import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT, KEY, CERTIFICATE = int(sys.argv[1]), sys.argv[2], sys.argv[3]
TTL = int(os.environ.get("TTL", "300"))
CLAIMED = int(os.environ.get("CLAIMED", TTL))
OFFLINE, POST = os.environ.get("OFFLINE"), os.environ.get("POST")
PASSWORDS = {"user": "pass", "reader": "reader"}


def openssl(*arguments, text=b""):
    return subprocess.run(["openssl", *arguments], input=text, capture_output=True, check=True).stdout


def url_safe(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


CHAIN = [base64.b64encode(openssl("x509", "-in", CERTIFICATE, "-outform", "DER")).decode()]


def signed(claims):
    parts = [{"typ": "JWT", "alg": "RS256", "x5c": CHAIN}, claims]
    text = ".".join(url_safe(json.dumps(part).encode()) for part in parts)
    return f"{text}.{url_safe(openssl('dgst', '-sha256', '-sign', KEY, text=text.encode()))}"


def allowed(user, name):
    if user == "user":
        return {"pull", "push", "delete", "*"}
    return {"pull"} if user == "reader" or name.startswith("public/") else set()


def access(user, scopes):
    for scope in " ".join(scopes).split():
        kind, rest = scope.split(":", 1)
        name, actions = rest.rsplit(":", 1)
        granted = [action for action in actions.split(",") if action in allowed(user, name)]
        yield {"type": kind, "name": name, "actions": granted}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, form, *values):
        print(form % values, flush=True)

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # skopeo sends the form so.
        whole = b""
        while length := int(self.rfile.readline(), 16):
            whole += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def grant(self, user, query, offline):
        now = int(time.time())
        token = signed({
            "iss": "test-issuer", "sub": user or "", "aud": query.get("service", ["test"])[0], "jti": str(time.time_ns()),
            "iat": now, "nbf": now - 10, "exp": now + TTL, "access": list(access(user, query.get("scope", []))),
        })
        document = {"token": token, "access_token": token, "expires_in": CLAIMED}
        if user and offline and OFFLINE:
            document["refresh_token"] = f"identity-of-{user}"
        self.answer(200, document)

    def do_GET(self):
        if POST:
            return self.answer(405, {"details": "POST only"})
        user = None
        scheme, _, secret = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            user, _, password = base64.b64decode(secret).decode().partition(":")
            if PASSWORDS.get(user) != password:
                return self.answer(401, {"details": "incorrect username or password"})
        query = parse_qs(urlsplit(self.path).query)
        self.grant(user, query, query.get("offline_token") == ["true"])

    def do_POST(self):
        query = parse_qs(self.body().decode())
        user = query.get("username", [None])[0]
        if query.get("grant_type") == ["refresh_token"]:
            users = {"refresh-me": "user"} | {f"identity-of-{name}": name for name in PASSWORDS}
            user = users.get(query.get("refresh_token", [""])[0])
            if not user:
                return self.answer(401, {"error": "invalid_grant"})
        elif PASSWORDS.get(user) != query.get("password", [""])[0]:
            return self.answer(401, {"error": "invalid_grant"})
        self.grant(user, query, query.get("access_type") == ["offline"])


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
