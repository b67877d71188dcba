"""What a root file system is, as far as being root made it so: names and what they are, from a directory or from a tar archive.

    /etc/shadow                 file 0640 0:42
    /usr/bin/ping               file 0755 0:0 security.capability=0100…
    /dev/sda                    block 0660 0:6 8:0
    /etc/rc2.d/S01cron          symlink 0:0 -> ../init.d/cron
    dpkg cron:amd64             3.0pl1-162 install ok installed
    user www-data               33:33:…      (group, shadow, gshadow alike: /etc/passwd and its like, a fact a line)
    statoverride /usr/bin/x     root mail 2755 (and diversions)

Times, sizes and contents aren't here: they have nothing to do with being root, and differ between two runs.
"""
import os, re, stat, struct, tarfile

DATABASES = ("var/lib/dpkg/status", "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "var/lib/dpkg/statoverride", "var/lib/dpkg/diversions")
# Not of the image: what is mounted there is the container's.
MOUNTED = ("/dev", "/proc", "/sys")


def of_directory(root, owner=lambda uid, gid: (uid, gid)):
    """`owner` says what an owner on disk means inside."""
    facts = {}
    root = os.fsencode(root)
    pending = [b""]
    while pending:
        directory = pending.pop()
        for entry in os.scandir(root + directory):
            name = directory + b"/" + entry.name
            info = entry.stat(follow_symlinks=False)
            uid, gid = owner(info.st_uid, info.st_gid)
            link = os.readlink(entry.path) if stat.S_ISLNK(info.st_mode) else None
            xattrs = {n: os.getxattr(entry.path, n, follow_symlinks=False) for n in os.listxattr(entry.path, follow_symlinks=False)}
            facts[os.fsdecode(name)] = fact(info.st_mode, uid, gid, link, (os.major(info.st_rdev), os.minor(info.st_rdev)), xattrs)
            if stat.S_ISDIR(info.st_mode) and os.fsdecode(name) not in MOUNTED:
                pending.append(name)
    for path in DATABASES:
        try:
            with open(os.path.join(os.fsdecode(root), path), "rb") as file:
                facts.update(of_database(path, file.read()))
        except FileNotFoundError:
            pass
    return facts


TYPES = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}


def of_tar(path):
    facts = {}
    with tarfile.open(path, errors="surrogateescape") as tar:
        for info in tar:
            name = os.path.normpath("/" + info.name)
            if name in ("/", "//"):
                continue
            if info.islnk():
                facts[name] = facts[os.path.normpath("/" + info.linkname)]
                continue
            kind = TYPES.get(info.type, stat.S_IFREG)
            link = os.fsencode(info.linkname) if kind == stat.S_IFLNK else None
            xattrs = {key[13:]: value.encode("utf-8", "surrogateescape") for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr.")}
            facts[name] = fact(kind | info.mode, info.uid, info.gid, link, (info.devmajor, info.devminor), xattrs)
            if name[1:] in DATABASES:
                facts.update(of_database(name[1:], tar.extractfile(info).read()))
    return {n: f for n, f in facts.items() if not n.startswith(tuple(f"{m}/" for m in MOUNTED))}


def fact(mode, uid, gid, link, device, xattrs):
    kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo",
            stat.S_IFSOCK: "socket"}.get(stat.S_IFMT(mode), "file")
    words = [kind, f"{uid}:{gid}"] if kind == "symlink" else [kind, f"{mode & 0o7777:04o}", f"{uid}:{gid}"]
    if kind in ("char", "block"):
        words.append("{}:{}".format(*device))
    for name, value in sorted(xattrs.items()):
        # Where the file lies is not what it is: overlayfs' own.
        if name.startswith(("trusted.overlay.", "user.overlay.")):
            continue
        words.append(f"{name}={capability(value).hex() if name == 'security.capability' else value.hex()}")
    if link is not None:
        words.append(f"-> {os.fsdecode(link)}")
    return " ".join(words)


def capability(value):
    """Version 3 carries the ID of a namespace's root; as the image's root it is version 2."""
    magic = struct.unpack("<I", value[:4])[0] if len(value) >= 4 else 0
    if magic >> 24 == 3 and len(value) == 24 and value[20:] == b"\0\0\0\0":
        return struct.pack("<I", (magic & 0xFFFFFF) | 2 << 24) + value[4:20]
    return value


def of_database(path, content):
    text = content.decode("utf-8", "surrogateescape")
    name = path.rsplit("/", 1)[1]
    if name == "status":
        for stanza in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.split("\n") if line.startswith(("Package: ", "Status: ", "Version: ", "Architecture: ")))
            if "Package" in fields:
                yield f"dpkg {fields['Package']}:{fields.get('Architecture', '')}", f"{fields.get('Version', '')} {fields.get('Status', '')}"
    elif name == "diversions":
        lines = text.splitlines()
        for source, target, package in zip(lines[::3], lines[1::3], lines[2::3]):
            yield f"diversion {source}", f"{target} {package}"
    elif name == "statoverride":
        for line in text.splitlines():
            owner, path = line.rsplit(" ", 1)
            yield f"statoverride {path}", owner
    else:
        for line in text.splitlines():
            user, *fields = line.split(":")
            # The day of the last change is a time.
            if name == "shadow" and len(fields) > 1:
                fields[1] = ""
            yield f"{name} {user}", ":".join(fields)


def allowed():
    """The patterns, of a name and its fact, of what differs between two runs under real root."""
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "allowed")) as file:
        return [re.compile(line) for line in file.read().split("\n") if line and line[0] != "#"]


def differences(real, other, allowed=()):
    """(name, in `real`, in `other`) of all that differs; `None` is absence. What the step touched in neither doesn't count, such as an owner
    that the base lost before."""
    for name in sorted(real.after.keys() | other.after.keys()):
        expected, found = real.after.get(name), other.after.get(name)
        if expected == found or all(any(p.fullmatch(f"{name} {fact}") for p in allowed) for fact in (expected, found) if fact is not None):
            continue
        touched = name in real.touched or expected != real.before.get(name) or found != other.before.get(name)
        if touched:
            yield name, expected, found


class Outcome:
    """What a step found and left, as facts. `touched` are the names that it wrote, even where that leaves them as they were."""

    def __init__(self, before, after, touched=()):
        self.before, self.after, self.touched = before, after, frozenset(touched)
