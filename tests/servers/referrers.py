#!/usr/bin/env python3
"""The referrers API (OCI distribution-spec 1.1) before a registry that has none.

    referrers.py UPSTREAM        prints the port it listens on; UPSTREAM is host:port

Everything is passed on to the registry; manifests with a `subject` are remembered and listed, two a page.
"""
import http.client
import json
import hashlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

upstream = sys.argv[1]
listed = {}  # (repository, subject) -> descriptors


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                # Uploads go on here, too.
                self.send_header(name, value.replace(upstream, self.headers["Host"]))
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        else:
            for name, value in headers:
                if name.lower() == "content-length":
                    self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        if self.command == "GET" and len(parts) > 3 and parts[-2] == "referrers":
            return self.referrers("/".join(parts[1:-2]), parts[-1], url)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        connection = http.client.HTTPConnection(upstream)
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        content, answer = response.read(), response.getheaders()
        if self.command == "PUT" and parts[-2] == "manifests" and response.status == 201:
            manifest = json.loads(body)
            if "subject" in manifest:
                subject = manifest["subject"]["digest"]
                entry = {
                    "mediaType": self.headers["Content-Type"],
                    "digest": "sha256:" + hashlib.sha256(body).hexdigest(),
                    "size": len(body),
                    "artifactType": manifest.get("artifactType"),
                    "annotations": manifest.get("annotations", {}),
                }
                entries = listed.setdefault(("/".join(parts[1:-2]), subject), [])
                if entry not in entries:
                    entries.append(entry)
                answer.append(("OCI-Subject", subject))
        self.answer(response.status, answer, content)

    def referrers(self, repository, subject, url):
        entries = listed.get((repository, subject), [])
        start = int(parse_qs(url.query).get("start", ["0"])[0])
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries[start:start + 2]}
        headers = [("Content-Type", index["mediaType"])]
        if start + 2 < len(entries):
            headers.append(("Link", f'<{url.path}?start={start + 2}>; rel="next"'))
        self.answer(200, headers, json.dumps(index).encode())

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
