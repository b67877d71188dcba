#!/usr/bin/python3
"""A web server for tests: files by HTTP or HTTPS, repositories by git's own `http-backend`.

web-server.py ROOT LOG [CERTIFICATE KEY]      environment: PASSWORD = what a request below /private/ must authenticate with

Prints its port. LOG gets a line a request: method, path, status, Authorization. Files have a `Last-Modified`, and below /tagged/ an `ETag`
besides. What is below ROOT/*.git is also served by `git http-backend`, as /git/*.git. Needs only the standard library and git(1).
"""
import base64
import hashlib
import os
import ssl
import subprocess
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ROOT, LOG = os.path.abspath(sys.argv[1]), sys.argv[2]
PASSWORD = os.environ.get("PASSWORD")


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=ROOT)

    def log_message(self, *_):
        pass

    def log_request(self, code="-", size="-"):
        code = getattr(code, "value", code)
        with open(LOG, "a") as log:
            log.write(f"{self.command} {self.path} {code} {self.headers.get('Authorization', '-')}\n")

    def allowed(self):
        if not self.path.startswith(("/private/", "/git/private/")):
            return True
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and given == PASSWORD:
            return True
        if kind.lower() == "basic" and base64.b64decode(given).decode().partition(":")[2] == PASSWORD:
            return True
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="private"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def end_headers(self):
        path = self.translate_path(self.path)
        if self.path.startswith("/tagged/") and os.path.isfile(path):
            with open(path, "rb") as file:
                self.send_header("ETag", '"' + hashlib.sha256(file.read()).hexdigest()[:16] + '"')
        super().end_headers()

    def do_GET(self):
        if self.path.startswith("/redirect/"):
            self.send_response(302)
            self.send_header("Location", self.path[len("/redirect/"):])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.allowed():
            self.backend() if self.path.startswith("/git/") else super().do_GET()

    def do_POST(self):
        if self.allowed():
            self.backend()

    def backend(self):
        url = urlsplit(self.path)
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        environment = dict(
            os.environ, GIT_PROJECT_ROOT=ROOT, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=url.path[len("/git"):], QUERY_STRING=url.query,
            REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("Content-Type", ""), CONTENT_LENGTH=str(len(body)),
            HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""), GIT_PROTOCOL=self.headers.get("Git-Protocol", ""),
            GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
        answer = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True).stdout
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = [line.split(": ", 1) for line in head.decode().split("\r\n") if line]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        self.send_response(int(status.split()[0]))
        for name, value in headers:
            if name not in ("Status", "Content-Length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        super().end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
