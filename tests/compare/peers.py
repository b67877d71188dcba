"""The builders that rootling is compared with: each builds a case and lists what it made."""
import functools, hashlib, json, os, shutil, subprocess

from case import ROOT, SET, fails, key_of, run, staged
from facts import Failed, listing

# Raised when the listing's form or the way of staging changes, so that references are made anew.
LISTING_VERSION = 3
FAILS = "the build fails"
TAR = "tar --create --file=\"$2\" --format=posix --numeric-owner --xattrs --xattrs-include='*' --directory=\"$1\" ."


class Buildah:
    """Runs as a user with subuids. Listings are kept in target/reference, made anew when anything changes."""

    name = "buildah"
    kept = f"{ROOT}/target/reference"
    command = ["buildah", "build", "--quiet", "--isolation", "chroot", "--format", "docker", "--pull-never"]

    @functools.cache
    def version(self):
        return run("buildah", "--version").decode().strip() if shutil.which("buildah") else ""

    def build(self, image, staged):
        run(*self.command, "-t", image, *staged.arguments, env=staged.environment, umask=0o022)

    def base(self, directory):
        run(*self.command, "-t", SET.base_name, directory)

    def listing(self, image, scratch):
        container = run("buildah", "from", "--pull-never", image).decode().split()[-1]
        try:
            run("buildah", "unshare", "sh", "-ec", f'set -- "$(buildah mount "$1")" "$2"; {TAR}', "sh", container, scratch)
        finally:
            run("buildah", "rm", container)
        config = json.loads(run("buildah", "inspect", "--type", "image", image))["Docker"]
        # Refused where the image is the base under another name, which is as well.
        subprocess.run(["buildah", "rmi", image], capture_output=True)
        return listing(scratch, config)


class Docker:
    """Docker's engine at $DOCKER_HOST, as root: its layers are read where they lie, since `docker export` loses attributes."""

    name = "docker"
    command = ["/usr/bin/docker", "build", "--network", "host", "--no-cache"]

    @functools.cache
    def version(self):
        return run("/usr/bin/docker", "version", "--format", "{{.Server.Version}}").decode().strip() if "DOCKER_HOST" in os.environ else ""

    def build(self, image, staged):
        run(*self.command, "-t", image, *staged.arguments, env={**staged.environment, "DOCKER_BUILDKIT": "1"}, umask=0o022)

    def base(self, directory):
        run(*self.command, "-t", SET.base_name, directory, env={**os.environ, "DOCKER_BUILDKIT": "1"})

    def listing(self, image, scratch):
        found = json.loads(run("/usr/bin/docker", "image", "inspect", image))[0]
        driver = found["GraphDriver"]["Data"] or {}
        layers = [driver["UpperDir"], *(l for l in driver.get("LowerDir", "").split(":") if l)] if driver else []
        # The short names beside the layers: an option string has room for a page.
        links = ["l/" + open(f"{os.path.dirname(layer)}/link").read() for layer in layers]
        root = os.path.dirname(os.path.dirname(layers[0])) if layers else "/"
        mount = {0: "true", 1: 'mount --bind "$3" "$1"'}.get(len(links), 'mount -t overlay -o ro,lowerdir="$3" overlay "$1"')
        os.makedirs(f"{scratch}.mount")
        run("unshare", "--mount", "sh", "-ec", f"{mount}; {TAR}", "sh", f"{scratch}.mount", scratch, ":".join(links), cwd=root)
        config = {"config": found["Config"], "architecture": found["Architecture"], "os": found["Os"], "author": found["Author"], "rootfs": {}}
        if image != SET.base_name:
            subprocess.run(["/usr/bin/docker", "rmi", image], capture_output=True)
        return listing(scratch, config)


def base(peer, scratch):
    """Builds the image that most cases start from."""
    directory = f"{scratch}/base"
    os.mkdir(directory)
    for file in SET.base_files:
        shutil.copy(file, directory)
    with open(f"{directory}/Dockerfile", "w") as out:
        out.write(SET.base_dockerfile)
    peer.base(directory)


def facts(peer, case, scratch):
    """The facts of the case as the peer builds it."""
    work, image = f"{scratch}/{case}", f"localhost/corpus-{case}"
    with staged(case, work, peer.name) as ready:
        try:
            peer.build(image, ready)
        except Failed:
            if fails(case):
                return [FAILS]
            raise
    if fails(case):
        raise Failed(f"{peer.name} builds it, and should fail")
    try:
        return peer.listing(image, f"{work}.tar")
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if os.path.exists(f"{work}.tar"):
            os.unlink(f"{work}.tar")


# ---- buildah's references, kept with a key in their first line


def reference_key(peer, case):
    parts = (key_of(case, peer.name), open(SET.base_files[0], "rb").read(), f"{LISTING_VERSION} {SET.base_dockerfile} {peer.command} {peer.version()}")
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
    return digest.hexdigest()


def read_reference(peer, case):
    """The kept facts; raises where there are none, or old ones."""
    path = f"{peer.kept}/{case}"
    if not os.path.exists(path):
        raise Failed(f"there is no reference {path}: run tests/setup as root")
    lines = open(path, errors="surrogateescape").read().splitlines()
    # Without the peer nobody could make it anew; its version is part of the key.
    if peer.version() and lines[0] != f"# {reference_key(peer, case)}":
        raise Failed(f"the reference {path} is out of date: run tests/setup as root")
    return set(lines[1:])


def write_reference(peer, case, facts):
    path = f"{peer.kept}/{case}"
    with open(f"{path}.tmp", "w", errors="surrogateescape") as out:
        out.write(f"# {reference_key(peer, case)}\n" + "".join(f"{line}\n" for line in facts))
    os.rename(f"{path}.tmp", path)


# ---- Docker's facts, recorded beside the case, as what differs from the base or from nothing: so they mean the same on every machine

# A recorded case is read by people; what is longer is compared by `make compare-docker` only.
LONGEST_RECORD = 400


def record(case, facts, base):
    """The recorded form, or `None` if it is too long."""
    if FAILS in facts:
        lines = [FAILS]
    else:
        forms = [[ground] + [f"- {l}" for l in sorted(under - facts)] + [f"+ {l}" for l in sorted(facts - under)]
                 for ground, under in (("on base", base), ("on nothing", set()))]
        lines = min(forms, key=len)
    if len(lines) > LONGEST_RECORD or any(not l.isprintable() for l in lines):
        return None
    return f"# {key_of(case, Docker.name)[:32]} by `make compare-docker`\n" + "".join(f"{l}\n" for l in lines)


def read_record(case, base):
    """The facts that the record means on this machine; `None` without a record."""
    path = f"{SET.directory}/{case}/docker"
    if not os.path.exists(path):
        return None
    lines = open(path).read().splitlines()
    if lines[0].split(" ")[1] != key_of(case, Docker.name)[:32]:
        raise Failed(f"{path} was recorded of another form of the case: run `make compare-docker` as root")
    if FAILS in lines:
        return {FAILS}
    under = base if "on base" in lines else set()
    return (under - {l[2:] for l in lines[1:] if l.startswith("- ")}) | {l[2:] for l in lines[1:] if l.startswith("+ ")}
