"""What an image is, as a sorted set of facts, one a line, so that a difference is two short lists.

  "etc/passwd" type=file | mode=0644 | owner=0:0 | size=12 | sha256=... | link="..." | same-as="..." | device=1:3
               | xattr user.x=hex | time=... (only when it was plainly set on purpose: not between 2020 and 2035)
  config Env=["A=1"]     one line a field of the configuration, one a label (Env sorted: see doc/differences.md, 3)
"""
import hashlib, json, os, re, tarfile

FIELDS = ["Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "StopSignal", "Shell", "Healthcheck", "OnBuild"]


class Failed(Exception):
    """A command that ended badly, with all it printed; or something wrong with a case."""


def quote(name):
    """A name of any bytes, as one printable word."""
    return json.dumps(name)


def facts_of_tar(path):
    """All facts of a root file system in a tar archive."""
    members, contents, first = {}, {}, {}
    with tarfile.open(path, errors="surrogateescape") as tar:
        for info in tar:
            name = os.path.normpath("/" + info.name).lstrip("/")
            members.pop(name, None)
            if info.islnk():
                target = os.path.normpath("/" + info.linkname).lstrip("/")
                first[name] = first.get(target, target)
                members[name] = members[first[name]]
                continue
            first.pop(name, None)
            members[name] = info
            if info.isreg():
                contents[id(info)] = hashlib.sha256(tar.extractfile(info).read()).hexdigest()[:24]
    if "" not in members:
        root = tarfile.TarInfo("")
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        members[""] = root
    groups = {}
    for name in members:
        groups.setdefault(id(members[name]), []).append(name)
    for name, info in members.items():
        yield from (f"{quote(name)} {fact}" for fact in facts_of_member(info, contents.get(id(info))))
        group = sorted(groups[id(info)])
        if len(group) > 1:
            yield f"{quote(name)} same-as={quote(group[0])}"


def facts_of_member(info, content):
    kinds = {tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}
    kind = kinds.get(info.type, "file")
    yield f"type={kind}"
    yield f"owner={info.uid}:{info.gid}"
    if kind != "symlink":
        yield f"mode={info.mode & 0o7777:04o}"
    else:
        yield f"link={quote(info.linkname)}"
    if kind in ("char", "block"):
        yield f"device={info.devmajor}:{info.devminor}"
    if kind == "file":
        yield f"size={info.size}"
        yield f"sha256={content}"
    if kind != "directory" and not 1577836800 <= info.mtime < 2051222400:
        yield f"time={int(info.mtime // 1)}"
    for name, value in info.pax_headers.items():
        if name.startswith("SCHILY.xattr."):
            yield f"xattr {name[13:]}={value.encode('utf-8', 'surrogateescape').hex()}"


def facts_of_config(config):
    """`config` is an image configuration, or an object that has one somewhere inside."""
    image = find_config(config)
    if image is None:
        raise Failed("no image configuration in what `inspect` printed")
    inner = image.get("config") or {}
    for field in FIELDS:
        value = inner.get(field)
        if field == "Env":
            value = sorted(value or [])
        if value not in (None, "", [], {}):
            yield f"config {field}={json.dumps(value, sort_keys=True)}"
    for name, value in (inner.get("Labels") or {}).items():
        if not name.startswith("io.buildah."):
            yield f"config Labels {quote(name)}={quote(value)}"
    for field in ("architecture", "os", "author"):
        if image.get(field):
            yield f"config {field}={quote(image[field])}"


def find_config(value):
    if isinstance(value, dict):
        if "rootfs" in value and "architecture" in value:
            return value
        value = list(value.values())
    if isinstance(value, list):
        return next((found for item in value if (found := find_config(item)) is not None), None)
    return None


def listing(tar, config):
    return sorted({*facts_of_tar(tar), *facts_of_config(config)})


def name_of(fact):
    """The path a fact is about, or `config` and the field."""
    if fact.startswith('"'):
        return json.dumps(json.JSONDecoder().raw_decode(fact)[0])
    return " ".join(re.split(r"[ =]", fact)[:2])


# ---- facts written by a person

KEY = r'(?:type|mode|owner|size|sha256|link|same-as|device|time|content|xattr [^ =]+)='


def expected(path):
    """The facts of an `expected` file, the names that must be absent, and the names that may be anything.

    A line is a path in quotes with one or more facts after it, or a fact of the configuration. `content="text"` stands for type, size
    and digest. `no "path"` says that there is no such path; `any "path"` that it is there and says nothing of it. Each run
    of lines stands below a comment that cites the sentence it rests on.
    """
    facts, absent, anything, cited = [], [], [], False
    for number, line in enumerate(read_lines(path, keep="#"), 1):
        if line.startswith("#"):
            cited = True
            continue
        if not cited:
            raise Failed(f"{path}: the first line must be a comment that cites the reference")
        if line.startswith(("no ", "any ")):
            word, name = line.split(" ", 1)
            (absent if word == "no" else anything).append(json.dumps(json.loads(name)))
        elif line.startswith('"'):
            name, end = json.JSONDecoder().raw_decode(line)
            words = re.split(rf" (?={KEY})", line[end:])
            if words[0] or len(words) < 2:
                raise Failed(f"{path}: no facts in `{line}`")
            facts += [f"{quote(name)} {fact}" for word in words[1:] for fact in spelt_out(word)]
        elif line.startswith("config "):
            facts.append(line)
        else:
            raise Failed(f"{path}: not a fact: `{line}`")
    return facts, absent, anything


def spelt_out(fact):
    if not fact.startswith("content="):
        return [fact]
    text = json.loads(fact[8:]).encode()
    return ["type=file", f"size={len(text)}", f"sha256={hashlib.sha256(text).hexdigest()[:24]}"]


def read_lines(path, keep=""):
    """The lines of a file without empty ones and comments; none if there is no such file."""
    if not os.path.exists(path):
        return []
    with open(path, errors="surrogateescape") as file:
        return [l for l in file.read().splitlines() if l and (l[0] == keep or not l.startswith("#"))]
