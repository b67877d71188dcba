"""What an image is, read by nobody's program: layers applied by the specification's rules, file by file.

An image is `{"manifest": digest or None, "config": digest, "layers": [digests], "diff_ids": [...], "tree": {path: file}}`; what a place has not is None.
A file is a dict of `type mode owner time size content link device xattrs` and `same`, the first name of its hard links.
"""
import gzip, hashlib, io, json, os, stat, struct, subprocess, tarfile, tempfile, urllib.request

KINDS = {tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}
OPAQUE, GONE = b".wh..wh..opq", b".wh."
MANIFESTS = ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.index.v1+json",
             "application/vnd.docker.distribution.manifest.list.v2+json"]


# ---- trees

def entries(tar):
    """A tar's entries: (path, file), hard links as (path, target path)."""
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8") as archive:
        for info in archive:
            path = clean(info.name)
            if info.islnk():
                yield path, clean(info.linkname)
                continue
            kind = KINDS.get(info.type, "file")
            content = archive.extractfile(info).read() if kind == "file" else b""
            # Names under `user.rootling.xattr.` are those of attributes that a place can't have by their own.
            xattrs = {name[13:].removeprefix("user.rootling.xattr."): value.encode("utf-8", "surrogateescape")
                      for name, value in info.pax_headers.items() if name.startswith("SCHILY.xattr.")}
            yield path, {"type": kind, "mode": 0o777 if kind == "symlink" else info.mode & 0o7777, "owner": (info.uid, info.gid), "time": time_of(info),
                         "size": len(content), "content": hashlib.sha256(content).hexdigest()[:16] if kind == "file" else None,
                         "link": os.fsencode(info.linkname) if kind == "symlink" else None,
                         "device": (info.devmajor, info.devminor) if kind in ("char", "block") else None, "xattrs": xattrs}


def clean(name):
    return b"/".join(part for part in os.fsencode(name).split(b"/") if part not in (b"", b"."))


def time_of(info):
    """Nanoseconds since 1970, exactly."""
    text = info.pax_headers.get("mtime")
    if text is None:
        return int(info.mtime) * 10**9
    whole, _, part = text.partition(".")
    nanos = int((part + "0" * 9)[:9])
    return int(whole or 0) * 10**9 + (-nanos if text.startswith("-") else nanos)


def flatten(tars):
    """Layers, lowest first, to one tree: whiteouts hide what is below their layer, never what is in it."""
    tree = {}
    for tar in tars:
        layer = list(entries(tar))
        for path, _ in layer:
            parent, name = os.path.split(path)
            if name == OPAQUE:
                remove_below(tree, parent)
            elif name.startswith(GONE):
                hidden = os.path.join(parent, name[len(GONE):])
                tree.pop(hidden, None)
                remove_below(tree, hidden)
        for path, file in layer:
            if os.path.basename(path).startswith(GONE):
                continue
            if isinstance(file, bytes):
                file = tree[file]
            if file["type"] != "directory" and tree.get(path, {}).get("type") == "directory":
                remove_below(tree, path)
            tree[path] = file
    return grouped(tree)


def remove_below(tree, parent):
    below = parent + b"/" if parent else b""
    for path in [path for path in tree if path.startswith(below) and path != parent]:
        del tree[path]


def grouped(tree):
    """Gives each file the first name of those it shares."""
    names = {}
    for path, file in tree.items():
        names.setdefault(id(file), []).append(path)
    return {path: {**file, "same": min(names[id(file)])} for path, file in sorted(tree.items())}


# ---- places

def unpacked(blob):
    if blob[:2] == b"\x1f\x8b":
        return gzip.decompress(blob)
    if blob[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-qdc"], input=blob, stdout=subprocess.PIPE, check=True).stdout
    return blob


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def checked(data, wanted):
    if digest(data) != wanted:
        raise ValueError(f"a blob is {digest(data)} and is said to be {wanted}")
    return data


FLAT = {}


def from_blobs(manifest_bytes, blob):
    """`blob(digest)` gives bytes."""
    manifest = json.loads(manifest_bytes)
    config = checked(blob(manifest["config"]["digest"]), manifest["config"]["digest"])
    tars = []
    for layer in manifest["layers"]:
        data = checked(blob(layer["digest"]), layer["digest"])
        if len(data) != layer["size"]:
            raise ValueError(f"layer {layer['digest']} has another size than said")
        tars.append(unpacked(data))
    return of_tars(tars, config, manifest=digest(manifest_bytes), layers=[(layer["mediaType"], layer["digest"]) for layer in manifest["layers"]])


def of_tars(tars, config, manifest=None, layers=None):
    diff_ids = [digest(tar) for tar in tars]
    said = json.loads(config)
    if said["rootfs"]["diff_ids"] != diff_ids:
        raise ValueError("the config's diff IDs are not those of the layers")
    key = tuple(diff_ids)
    if key not in FLAT:
        FLAT[key] = flatten(tars)
    return {"manifest": manifest, "config": digest(config), "layers": layers, "diff_ids": diff_ids, "said": said, "tree": FLAT[key]}


def layout(directory):
    read = lambda digest: open(f"{directory}/blobs/sha256/{digest[7:]}", "rb").read()
    index = json.load(open(f"{directory}/index.json"))
    document = read(index["manifests"][0]["digest"])
    return from_blobs(checked(document, index["manifests"][0]["digest"]), read)


def oci_archive(file):
    with tempfile.TemporaryDirectory(prefix="copies.") as directory:
        subprocess.run(["tar", "-xf", file, "-C", directory], check=True)
        return layout(directory)


def docker_archive(file):
    with tarfile.open(file) as tar:
        read = lambda name: tar.extractfile(name).read()
        entry = json.loads(read("manifest.json"))[0]
        return of_tars([unpacked(read(name)) for name in entry["Layers"]], read(entry["Config"]))


def registry(base, name, tag):
    def get(kind, reference):
        with urllib.request.urlopen(urllib.request.Request(f"{base}/v2/{name}/{kind}/{reference}", headers={"Accept": ", ".join(MANIFESTS)})) as answer:
            return answer.read()
    return from_blobs(get("manifests", tag), lambda digest: get("blobs", digest))


def flat(tree):
    return {"manifest": None, "config": None, "layers": None, "diff_ids": None, "said": None, "tree": tree}


def tarball(file):
    return flat(flatten([unpacked(open(file, "rb").read())]))


def squashfs(file):
    """By another implementation than squashfs-tools, which hides nothing that the format has."""
    tar = subprocess.run(["sqfs2tar", "-r", ".", file], stdout=subprocess.PIPE, check=True).stdout
    return flat(flatten([tar]))


def local(directory):
    """An ordinary user's directory: what one user can't have natively is in attributes (doc/decisions/0002-overrides.md)."""
    tree, inodes = {}, {}
    top = os.fsencode(directory)
    paths = [b""]
    while paths:
        path = paths.pop()
        here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        # Step by step, since a path may be longer than the kernel takes at once.
        parent, name = os.path.split(path)
        for part in [part for part in parent.split(b"/") if part]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        status = os.stat(name or b".", dir_fd=here, follow_symlinks=False)
        key = (status.st_dev, status.st_ino)
        if key not in inodes:
            inodes[key] = local_file(here, name or b".", status)
        tree[path] = inodes[key]
        if stat.S_ISDIR(status.st_mode):
            opened = readable(here, name or b".", status)
            os.close(opened)
            opened = os.open(name or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            paths += [path + b"/" + os.fsencode(entry) if path else os.fsencode(entry) for entry in os.listdir(opened)]
            os.close(opened)
        os.close(here)
    return flat(grouped(tree))


def readable(here, name, status):
    """A descriptor of a file that its owner may read from now on. The directory is a copy of its own, so its native modes are seen before."""
    opened = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
    wanted = 0o500 if stat.S_ISDIR(status.st_mode) else 0o400
    if status.st_mode & wanted != wanted:
        os.chmod(f"/proc/self/fd/{opened}", stat.S_IMODE(status.st_mode) | wanted)
    return opened


def local_file(here, name, status):
    kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo"}.get(stat.S_IFMT(status.st_mode), "file")
    file = {"type": kind, "mode": 0o777 if kind == "symlink" else stat.S_IMODE(status.st_mode), "owner": (0, 0), "time": status.st_mtime_ns, "size": 0, "content": None,
            "link": os.readlink(name, dir_fd=here) if kind == "symlink" else None, "device": None, "xattrs": {}}
    if kind not in ("file", "directory"):
        return file
    opened = readable(here, name, status)
    through = f"/proc/self/fd/{opened}"
    try:
        for key in os.listxattr(through):
            value = os.getxattr(through, key)
            if key == "user.containers.override_stat":
                parts = value.decode().split(":")
                file["owner"], file["mode"] = (int(parts[0]), int(parts[1])), int(parts[2], 8) & 0o7777
            else:
                file["xattrs"][key.removeprefix("user.rootling.xattr.")] = value
        if kind == "file":
            with open(through, "rb") as content:
                data = content.read()
            file["size"], file["content"] = len(data), hashlib.sha256(data).hexdigest()[:16]
    finally:
        os.close(opened)
    return file
