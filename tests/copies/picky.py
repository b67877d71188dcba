"""A picky image, written by hand: an OCI layout whose layers hold what copying programs lose. Same arguments, same bytes.

Nobody's tool is trusted: tars are made by Python's own library, documents and blobs by the few lines below. What an image can't hold is not here:
sockets (no tar has them), and names that begin with `.wh.`, which are whiteouts.
"""
import gzip, hashlib, io, json, os, random, struct, subprocess, tarfile

OCI = "application/vnd.oci.image."
THEN = 1_600_000_000
MARKS = [0, 1, 7, 255]

CONFIG = {
    "Env": ["PATH=/usr/bin:/bin", "EMPTY=", "QUOTES=a \"b\" 'c' $d \\e", "UNICODE=Grüße"],
    "Entrypoint": ["/bin/entry", "with space", ""], "Cmd": ["--flag", "a\tb"], "User": "1000:70000", "WorkingDir": "/odd/with space",
    "Volumes": {"/data": {}, "/var/lib/more": {}}, "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "StopSignal": "SIGRTMIN+3",
    "Labels": {"plain": "yes", "empty": "", "org.example.Grüße": "line\nbreak", "json": "{\"a\":[1]}"},
    "Healthcheck": {"Test": ["CMD-SHELL", "true || exit 1"], "Interval": 30_000_000_000, "Timeout": 5_000_000_000, "StartPeriod": 1_000_000_000, "Retries": 3},
    "Shell": ["/bin/sh", "-ec"], "OnBuild": ["RUN true"],
}


class Layer:
    """A tar being written."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")

    def add(self, name, kind=tarfile.REGTYPE, mode=0o644, owner=(0, 0), content=b"", link="", device=(0, 0), time=THEN, nanos=0, xattrs=None):
        info = tarfile.TarInfo(os.fsdecode(name))
        info.type, info.mode, (info.uid, info.gid), info.mtime = kind, mode, owner, time
        info.linkname, (info.devmajor, info.devminor), info.size = os.fsdecode(link), device, len(content)
        if nanos:
            # Before 1970 the fraction counts down from the second above.
            info.pax_headers["mtime"] = f"{time}.{nanos:09}" if time >= 0 else f"-{-time - 1}.{10**9 - nanos:09}"
        for key, value in (xattrs or {}).items():
            info.pax_headers[f"SCHILY.xattr.{key}"] = value.decode("utf-8", "surrogateescape")
        self.tar.addfile(info, io.BytesIO(content))

    def directory(self, name, mode=0o755, **more):
        self.add(name, tarfile.DIRTYPE, mode, **more)

    def symlink(self, name, target, **more):
        self.add(name, tarfile.SYMTYPE, 0o777, link=target, **more)

    def hard(self, name, target):
        self.add(name, tarfile.LNKTYPE, link=target)

    def gone(self, name):
        parent, base = os.path.split(os.fsencode(name))
        self.add(os.path.join(parent, b".wh." + base), mode=0o600)

    def opaque(self, name):
        self.add(os.path.join(os.fsencode(name), b".wh..wh..opq"), mode=0o600)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


def access_list(*entries):
    """The kernel's form of an access list: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, 0xFFFFFFFF if who is None else who) for tag, bits, who in entries)


def capability(bits, effective=True):
    return struct.pack("<IIIII", 0x02000000 | effective, bits & 0xFFFFFFFF, 0, bits >> 32, 0)


def first(files):
    chance, layer = random.Random(5), Layer()
    layer.directory("./", 0o755, owner=(0, 0), time=THEN)
    for name in ("bin", "odd", "hard", "hard/a", "hard/b", "devices", "modes", "xattrs", "owners", "times", "links", "big", "many", "hide", "hide/below", "opaque",
                 "opaque/deep", "change", "data"):
        layer.directory(name)
    for name in ("change/dir-file", "change/dir-link", "change/dir-dir", "change/dir-device"):
        layer.directory(name)
        layer.add(f"{name}/inside", content=b"inside")
    layer.add("bin/entry", mode=0o755, content=b"#!/bin/sh\n")
    # Names.
    odd = [b"with space", b"new\nline", b"tab\t", b" leading", b"trailing ", b"-dash", b"--help", b"quote'\"`$(true)", b"back\\slash", b"*?[x]", b"\xff\xfe not utf-8",
           "Grüße-日本-\U0001f600".encode(), b"a" * 255, b"\xe9" * 255, b".hidden", b"...", b"wh.", b".wh", b"x.wh.y", b"wh..wh..opq", b"colon:semi;comma,", b"=equals=",
           b"#hash", b"~tilde", b"\x01\x1b[31m\x7f", b"%41", b"CON", b"new\r"]
    for number, name in enumerate(odd):
        layer.add(b"odd/" + name, content=b"odd %d\n" % number)
    layer.directory(b"odd/dir \xff\n")
    layer.add(b"odd/dir \xff\n/file", content=b"in an odd directory")
    deep = b"deep"
    layer.directory(deep)
    for number in range(24):
        deep += b"/" + b"%02d" % number + b"d" * 198
        if len(deep) < 4000:
            layer.directory(deep)
            layer.add(deep + b"/file", content=b"deep %d" % number)
    # Hard links: near, across directories, to what has attributes, to what is no plain file.
    layer.add("hard/a/one", content=b"linked", owner=(33, 44), mode=0o4755, xattrs={"user.kept": b"yes"})
    layer.hard("hard/a/two", "hard/a/one")
    layer.hard("hard/b/three", "hard/a/one")
    layer.hard(b"hard/b/\xff four", "hard/a/one")
    layer.add("hard/empty", content=b"")
    layer.hard("hard/empty too", "hard/empty")
    layer.add("hard/pipe", tarfile.FIFOTYPE, 0o600)
    layer.hard("hard/pipe too", "hard/pipe")
    layer.symlink("hard/symlink", "a/one")
    layer.hard("hard/symlink too", "hard/symlink")
    layer.add("hard/device", tarfile.CHRTYPE, 0o666, device=(1, 3))
    layer.hard("hard/device too", "hard/device")
    layer.add("hard/for later", content=b"linked by a later layer", owner=(5, 6))
    # Devices and modes.
    for name, kind, device, mode in (("null", tarfile.CHRTYPE, (1, 3), 0o666), ("disk", tarfile.BLKTYPE, (259, 300), 0o660), ("large", tarfile.CHRTYPE, (4095, 1048575), 0o0),
                                     ("zero", tarfile.CHRTYPE, (0, 1), 0o600)):
        layer.add(f"devices/{name}", kind, mode, device=device, owner=(0, 6))
    layer.add("devices/pipe", tarfile.FIFOTYPE, 0o4622, owner=(7, 8))
    for mode in (0, 0o1, 0o111, 0o222, 0o400, 0o444, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777, 0o7000):
        layer.add(f"modes/file {mode:o}", mode=mode, content=b"%o" % mode)
        layer.directory(f"modes/directory {mode:o}", mode)
        layer.add(f"modes/directory {mode:o}/inside", content=b"in", mode=mode)
    # Attributes.
    layer.add("xattrs/user", content=b"u", xattrs={"user.text": b"text", "user.empty": b"", "user.binary": bytes(range(256)), "user.with=equals": b"=", "user.long": b"x" * 2000})
    layer.add("xattrs/capability", mode=0o755, content=b"c", xattrs={"security.capability": capability(1 << 10)})
    layer.add("xattrs/capability 2", mode=0o4750, owner=(3, 4), content=b"c", xattrs={"security.capability": capability((1 << 39) | 3), "user.beside": b"1"})
    layer.directory("xattrs/directory", xattrs={"user.text": b"of a directory"})
    acl = access_list((1, 6, None), (2, 7, 1000), (2, 4, 70000), (4, 4, None), (8, 5, 33), (16, 7, None), (32, 4, None))
    layer.add("xattrs/acl", mode=0o674, content=b"acl", xattrs={"system.posix_acl_access": acl})
    layer.directory("xattrs/acl directory", mode=0o775, xattrs={"system.posix_acl_default": access_list((1, 7, None), (2, 5, 1000), (4, 5, None), (16, 7, None), (32, 5, None))})
    # Owners.
    for owner in ((1, 1), (65534, 65534), (65535, 65536), (100_000, 200_000), (2_097_151, 2_097_152), (2**31 - 1, 2**31), (2**32 - 2, 2**32 - 2)):
        layer.add(f"owners/{owner[0]}", owner=owner, content=b"o")
        layer.directory(f"owners/directory {owner[0]}", owner=owner, mode=0o750)
        layer.symlink(f"owners/link {owner[0]}", str(owner[0]), owner=owner)
    # Times.
    for number, (time, nanos) in enumerate(((0, 0), (0, 1), (1, 999_999_999), (-1, 0), (-1, 500_000_000), (-1_000_000_000, 0), (2**31 - 1, 0), (2**31, 5), (2**32 - 1, 0), (2**32 + 5, 0),
                                            (8_589_934_591, 0), (THEN, 123_456_789))):
        layer.add(f"times/file {number}", time=time, nanos=nanos, content=b"t")
        layer.directory(f"times/directory {number}", time=time, nanos=nanos)
        layer.symlink(f"times/link {number}", "nowhere", time=time, nanos=nanos)
    # Links.
    for number, target in enumerate((b"nowhere", b"/", b"/absolute/dangling", b"../../../../../../outside", b"./self/../x", b"x" * 100, b"y" * 101, b"z/" * 2000 + b"z", b"\xff\n bytes",
                                     b"../odd/with space")):
        layer.symlink(f"links/{number}", target)
    layer.symlink("links/loop", "loop")
    # Sizes.
    block = chance.randbytes(1 << 20)
    layer.add("big/noise", content=b"".join(bytes([n]) + block[1:] for n in range(24)))
    layer.add("big/sparse", content=b"start" + bytes(48 << 20) + b"end")
    layer.add("big/zeros", content=bytes(4 << 20))
    for size in (0, 1, 511, 512, 513, 4095, 4096, 4097, 131_071, 131_072, 131_073):
        layer.add(f"big/{size}", content=block[:size])
    # Many.
    for number in range(files):
        if number % 200 == 0:
            layer.directory(f"many/{number // 200}")
        layer.add(f"many/{number // 200}/{number}", content=b"%d\n" % number * (1 + number % 40), mode=0o644 if number % 3 else 0o640, owner=(number % 5, 0), nanos=number * 1000 % 10**9)
    # What later layers hide and change.
    for name in ("hide/file", "hide/below/file", "hide/below/other", "hide/again", "opaque/old", "opaque/deep/old", "opaque/stays-hidden"):
        layer.add(name, content=b"first: " + name.encode())
    for name in ("file-dir", "file-link", "file-device", "file-file", "file-mode"):
        layer.add(f"change/{name}", content=b"first", owner=(9, 9))
    layer.symlink("change/link-file", "../bin/entry")
    layer.symlink("change/link-dir", "../data")
    layer.symlink("change/link-link", "one")
    layer.add("data/kept", content=b"must stay as it is")
    layer.directory("empty")
    return layer.bytes()


def second():
    layer = Layer()
    for name in ("hide/file", "hide/below", "hide/again", "odd/-dash", b"odd/\xff\xfe not utf-8", b"hard/b/\xff four", "devices/zero", "links/0"):
        layer.gone(name)
    layer.directory("opaque", 0o711, owner=(1, 2))
    layer.opaque("opaque")
    layer.add("opaque/new", content=b"second")
    layer.directory("opaque/deep")
    layer.add("opaque/deep/new", content=b"second")
    for name in ("dir-file", "link-file"):
        layer.add(f"change/{name}", content=b"a file now")
    for name in ("file-dir", "link-dir"):
        layer.directory(f"change/{name}", 0o700, owner=(4, 4))
        layer.add(f"change/{name}/inside", content=b"a directory now")
    layer.symlink("change/dir-link", "../data")
    layer.symlink("change/file-link", "/data/kept")
    layer.symlink("change/link-link", "two")
    layer.add("change/file-device", tarfile.CHRTYPE, 0o600, device=(5, 1))
    layer.add("change/dir-device", tarfile.BLKTYPE, 0o600, device=(8, 0))
    layer.add("change/file-file", content=b"second", owner=(70_000, 8), mode=0o6755)
    layer.add("change/file-mode", content=b"first", mode=0o4711, owner=(9, 9))
    layer.directory("change/dir-dir", 0o1777, owner=(0, 12))
    # What is linked to a file of a layer before comes with that file again, as everybody writes it: layers unpacked by themselves have no other file to link to.
    layer.add("hard/for later", content=b"linked by a later layer", owner=(5, 6))
    layer.hard("hard/from the second layer", "hard/for later")
    layer.add("hard/a/one", content=b"linked anew", owner=(33, 45), mode=0o4755)
    layer.hard("hard/b/three", "hard/a/one")
    return layer.bytes()


def third():
    layer = Layer()
    layer.directory("hide/below", 0o750)
    layer.add("hide/below/new", content=b"third")
    layer.add("hide/again", content=b"back again", owner=(2, 2))
    layer.directory("opaque/deep", 0o700)
    layer.opaque("opaque/deep")
    layer.gone("opaque/new")
    layer.gone("empty")
    layer.gone("change/link-dir/inside")
    layer.add("change/dir-link", content=b"a file at last")
    layer.directory("change/file-link")
    layer.add("change/file-link/kept", content=b"not in /data")
    layer.directory("data", 0o2770, owner=(0, 3), xattrs={"user.changed": b"yes"})
    return layer.bytes()


def fourth():
    layer = Layer()
    layer.add("owners/1", owner=(2, 2), content=b"other", xattrs={"security.capability": capability(1 << 13)})
    layer.directory("empty", 0o555)
    layer.add("many/0/1", content=b"changed")
    layer.hard("many/second name", "many/0/1")
    return layer.bytes()


def put(directory, data):
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with open(f"{directory}/blobs/sha256/{digest[7:]}", "wb") as out:
        out.write(data)
    return {"digest": digest, "size": len(data)}


def write(directory, files):
    """Writes the layout; its only image is called `picky`. Returns the plain tars."""
    os.makedirs(f"{directory}/blobs/sha256")
    tars = [first(files), second(), third(), tarfile.NUL * 1024, fourth()]
    # Each way a layer may come.
    zstd = lambda data: subprocess.run(["zstd", "-q", "-3", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    forms = [("tar+gzip", lambda data: gzip.compress(data, 5, mtime=0)), ("tar+zstd", zstd), ("tar", bytes), ("tar+gzip", lambda data: gzip.compress(data, 1, mtime=7)), ("tar+gzip", gzip_members)]
    layers = [{"mediaType": f"{OCI}layer.v1.{form}", **put(directory, pack(tar))} for tar, (form, pack) in zip(tars, forms)]
    step = lambda number, **more: {"created": f"2020-09-13T12:26:{number:02}.5Z", "created_by": f"step {number} && \"quoted\"", **more}
    history = [step(0), step(1, empty_layer=True, comment="only the config"), step(2), step(3), step(4), step(5, author="A. Uthor"), step(6, empty_layer=True)]
    config = {"created": "2020-09-13T12:26:40.123456789Z", "author": "A. Uthor <a@example.org>", "architecture": "amd64", "os": "linux", "config": CONFIG,
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]}, "history": history}
    # Spaces and escapes as nobody's program writes them: bytes in are bytes out.
    config = put(directory, json.dumps(config, indent=3).encode())
    manifest = {"schemaVersion": 2, "mediaType": f"{OCI}manifest.v1+json", "config": {"mediaType": f"{OCI}config.v1+json", **config}, "layers": layers,
                "annotations": {"org.example.kept": "Grüße"}}
    manifest = put(directory, json.dumps(manifest, indent=2).encode())
    with open(f"{directory}/oci-layout", "w") as out:
        out.write('{"imageLayoutVersion": "1.0.0"}')
    with open(f"{directory}/index.json", "w") as out:
        json.dump({"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json",
                   "manifests": [{"mediaType": f"{OCI}manifest.v1+json", **manifest, "annotations": {"org.opencontainers.image.ref.name": "picky"}}]}, out)
    return tars


def gzip_members(data):
    """gzip of two members, which some readers end after the first."""
    half = len(data) // 2
    return gzip.compress(data[:half], 9, mtime=0) + gzip.compress(data[half:], 9, mtime=0)
