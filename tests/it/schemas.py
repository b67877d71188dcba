#!/usr/bin/python3
"""schemas.py LAYOUT|FILE.tar|registry/name:tag...: documents against the OCI image-spec's JSON schemas, everything an index leads to.

The schemas are those of Debian's package golang-github-opencontainers-image-spec-dev (1.1.0-rc2, with `$ref` between its files). What the final 1.1 added to
manifests, indexes and descriptors is checked by hand below, from the specification's text: artifactType, subject, data. Each broken document is one line; exit status 1.
"""
import base64, hashlib, json, os, re, subprocess, sys, tempfile, urllib.request

SCHEMAS = "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema"
OCI = "application/vnd.oci.image."
MANIFEST, INDEX, CONFIG, EMPTY = f"{OCI}manifest.v1+json", f"{OCI}index.v1+json", f"{OCI}config.v1+json", "application/vnd.oci.empty.v1+json"
FILES = {MANIFEST: "image-manifest-schema.json", INDEX: "image-index-schema.json", CONFIG: "config-schema.json", "layout": "image-layout-schema.json",
         "descriptor": "content-descriptor.json"}
# RFC 6838, 4.2
MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


def validators():
    import jsonschema
    found = {}
    store = {}
    for name in os.listdir(SCHEMAS):
        if name.endswith(".json"):
            with open(f"{SCHEMAS}/{name}") as file:
                store[f"file:///{name}"] = json.load(file)
    for kind, name in FILES.items():
        # `id`s inside the files name places nobody serves; what refers to another file means the one beside it.
        schema = without_ids(store[f"file:///{name}"])
        resolver = jsonschema.RefResolver(f"file:///{name}", schema, store={uri: without_ids(other) for uri, other in store.items()})
        found[kind] = jsonschema.Draft4Validator(schema, resolver=resolver)
    return found


def without_ids(schema):
    if isinstance(schema, dict):
        return {key: without_ids(value) for key, value in schema.items() if key not in ("id", "$schema") or not isinstance(value, str)}
    return [without_ids(value) for value in schema] if isinstance(schema, list) else schema


class Check:
    def __init__(self):
        self.validators, self.broken, self.seen = validators(), [], 0

    def document(self, kind, data, where):
        self.seen += 1
        try:
            document = json.loads(data)
        except ValueError as error:
            self.broken.append(f"{where}: no JSON: {error}")
            return None
        for error in self.validators[kind].iter_errors(document):
            self.broken.append(f"{where}: {'/'.join(str(part) for part in error.absolute_path)}: {error.message[:200]}")
        if kind in (MANIFEST, INDEX):
            self.since_1_1(kind, document, where)
        return document

    def since_1_1(self, kind, document, where):
        say = lambda text: self.broken.append(f"{where}: {text}")
        if document.get("mediaType", kind) != kind:
            say(f"mediaType is {document['mediaType']!r} and not {kind!r}")
        artifact = document.get("artifactType")
        if artifact is not None and not (isinstance(artifact, str) and MEDIA_TYPE.fullmatch(artifact)):
            say(f"artifactType {artifact!r} is no media type")
        if kind == MANIFEST and document.get("config", {}).get("mediaType") == EMPTY and not artifact:
            say("a manifest with the empty config must have an artifactType")
        subject = document.get("subject")
        if subject is not None:
            for error in self.validators["descriptor"].iter_errors(subject):
                say(f"subject: {error.message[:200]}")
        for descriptor in [document.get("config"), subject, *document.get("layers", []), *document.get("manifests", [])]:
            if isinstance(descriptor, dict) and "data" in descriptor:
                data = base64.b64decode(descriptor["data"], validate=True)
                if len(data) != descriptor["size"] or f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor["digest"]:
                    say("a descriptor's data is not what it describes")

    def descend(self, descriptor, read, where):
        """A document and all it leads to. Docker's own forms have no schema there."""
        kind = descriptor.get("mediaType")
        if kind not in (MANIFEST, INDEX, CONFIG):
            return
        data = read(descriptor)
        where = f"{where}: {kind.split('.')[-2]} {descriptor['digest'][7:19]}"
        if len(data) != descriptor["size"] or f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor["digest"]:
            self.broken.append(f"{where}: not the bytes described")
        document = self.document(kind, data, where) or {}
        for below in [*document.get("manifests", []), document.get("config")] if kind != CONFIG else []:
            if isinstance(below, dict):
                self.descend(below, read, where)

    def layout(self, directory, where):
        self.document("layout", open(f"{directory}/oci-layout", "rb").read(), f"{where}: oci-layout")
        index = self.document(INDEX, open(f"{directory}/index.json", "rb").read(), f"{where}: index.json") or {}
        read = lambda descriptor: open(f"{directory}/blobs/{descriptor['digest'].replace(':', '/')}", "rb").read()
        for descriptor in index.get("manifests", []):
            self.descend(descriptor, read, where)

    def registry(self, reference):
        host, _, rest = reference.partition("/")
        name, _, tag = rest.rpartition(":")

        def get(kind, what):
            request = urllib.request.Request(f"http://{host}/v2/{name}/{kind}/{what}", headers={"Accept": f"{MANIFEST}, {INDEX}, application/vnd.docker.distribution.manifest.v2+json"})
            with urllib.request.urlopen(request) as answer:
                return answer.read(), answer.headers["Content-Type"]
        data, kind = get("manifests", tag)
        read = lambda descriptor: get("manifests" if descriptor["mediaType"] in (MANIFEST, INDEX) else "blobs", descriptor["digest"])[0]
        self.descend({"mediaType": kind, "size": len(data), "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}, read, reference)


def main():
    check = Check()
    for place in sys.argv[1:]:
        if os.path.isdir(place):
            check.layout(place, place)
        elif os.path.isfile(place):
            with tempfile.TemporaryDirectory(prefix="schemas.") as directory:
                subprocess.run(["tar", "-xf", place, "-C", directory], check=True)
                check.layout(directory, place)
        else:
            check.registry(place)
    for line in check.broken:
        print(line)
    print(f"{check.seen} documents, {len(check.broken)} broken")
    sys.exit(bool(check.broken) or not check.seen)


main()
