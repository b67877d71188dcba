"""The ways to install a package that are compared: real root, rootling's root emulations, ch-image. Each installs into a fresh copy of the base."""
import contextlib, functools, gzip, json, os, pwd, queue, shutil, subprocess, tempfile

import facts, ground
from facts import Outcome

USER = "rootling-test"
# `apt-get clean` since the archives are 3 GB of what every mode has alike.
INSTALL = "export http_proxy={proxy} && apt-get update && apt-get install -y --no-install-recommends {package} && apt-get clean"
# What fake success needs: apt's download methods look whether they have really become another user (ch-image inserts it by itself).
INSTALL_AS_ROOT = INSTALL.replace("apt-get ", "apt-get -o APT::Sandbox::User=root ")

# What ch-image installs into an image.
FAKEROOT = "fakeroot"


class NotInstalled(Exception):
    """The step failed; the end of what it printed."""


class Mode:
    def __init__(self, scratch, proxy):
        self.scratch, self.proxy = tempfile.mkdtemp(prefix=f"{self.name}.", dir=scratch), proxy


class Real(Mode):
    """Real root, with the capabilities of a Docker container."""

    name, title = "real", "real root"

    def __init__(self, scratch, proxy):
        super().__init__(scratch, proxy)
        self.tree = f"{self.scratch}/base"
        os.mkdir(self.tree)
        ground.run("tar", "-xpf", f"{ground.KEPT}/base.tar", "-C", self.tree, "--numeric-owner", "--xattrs", "--xattrs-include=*")

    @functools.cached_property
    def base(self):
        return facts.of_directory(self.tree)

    def install(self, package):
        place = tempfile.mkdtemp(dir=self.scratch)
        try:
            ground.run(f"{ground.HERE}/real", self.tree, f"{place}/scratch", f"{place}/out", INSTALL.format(package=package, proxy=self.proxy), timeout=1800)
            with open(f"{place}/out") as file:
                out = json.load(file)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        if out["exit"]:
            raise NotInstalled(out["log"])
        return Outcome(self.base, out["facts"], out["touched"])


class Again(Real):
    """Real root a second time: what differs from the first differs by itself."""

    name, title = "again", "real root, a second time"


class User(Mode):
    """What runs as an ordinary user: this one, or the tests' if this one is root."""

    def __init__(self, scratch, proxy):
        super().__init__(scratch, proxy)
        self.uid = os.getuid() or pwd.getpwnam(USER).pw_uid
        self.gid = os.getgid() or pwd.getpwnam(USER).pw_gid
        os.chown(self.scratch, self.uid, self.gid)
        self.environment = {"PATH": ground.PATH, "HOME": self.scratch, "TMPDIR": self.scratch, "USER": USER, "LANG": "C.UTF-8", "NO_COLOR": "1"}

    def command(self, *words, failure=ground.Failed):
        identity = {"user": self.uid, "group": self.gid, "extra_groups": []} if os.getuid() == 0 else {}
        ran = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, umask=0o022, timeout=1800,
                             env=self.environment, cwd=self.scratch, **identity)
        if ran.returncode:
            raise failure(ran.stdout.decode(errors="replace")[-4000:])

    def context(self, package, install, base="matrix-base"):
        """A directory with a Dockerfile and nothing else."""
        place = f"{self.scratch}/{package}.context"
        os.mkdir(place)
        with open(f"{place}/Dockerfile", "w") as out:
            out.write(f"FROM {base}\nENV DEBIAN_FRONTEND=noninteractive\nRUN {install.format(package=package, proxy=self.proxy)}\n")
        os.chmod(place, 0o755)
        return place

    def file_for_user(self, source, name):
        """A copy where the user can read it, whatever the way to the checkout is like."""
        target = f"{self.scratch}/{name}"
        shutil.copy(source, target)
        os.chmod(target, 0o755)
        return target


class Rootling(User):
    emulation, recipe = "consistent", INSTALL
    name, title = "consistent", "rootling"

    def __init__(self, scratch, proxy, program):
        super().__init__(scratch, proxy)
        self.program = [self.file_for_user(program, "rootling"), "--storage", f"{self.scratch}/storage"]
        archive = self.file_for_user(f"{ground.KEPT}/base.tar", "base.tar")
        self.command(*self.program, "import", archive, "matrix-base")
        os.unlink(archive)
        self.base = self.exported("matrix-base")

    def exported(self, image):
        archive = f"{self.scratch}/{image}.tar"
        self.command(*self.program, "export", image, "-o", archive)
        try:
            return facts.of_tar(archive)
        finally:
            os.unlink(archive)

    def install(self, package):
        context, image = self.context(package, self.recipe), f"p-{package.replace('+', 'x')}"
        try:
            self.command(*self.program, "build", "--progress", "plain", "--no-cache", "--root-emulation", self.emulation, "-t", image, context,
                         failure=NotInstalled)
            after = self.exported(image)
            self.command(*self.program, "rm", image)
        finally:
            shutil.rmtree(context)
            # Layers without an image.
            self.command(*self.program, "prune")
        return Outcome(self.base, after)


class Success(Rootling):
    """The filter that answers success and does nothing."""

    name, title, emulation, recipe = "success", "rootling, `--root-emulation=success`", "success", INSTALL_AS_ROOT


class ChImage(User):
    name, title = "ch-image", "`ch-image build --force`"

    def __init__(self, scratch, proxy, program):
        super().__init__(scratch, proxy)
        self.program = program.split()
        # A storage directory each for those that run at a time: it serves one ch-image only.
        self.first, self.idle = f"{self.scratch}/storage", queue.SimpleQueue()
        archive = self.file_for_user(f"{ground.KEPT}/base.tar", "base.tar")
        self.command(*self.program, "import", "--no-cache", "-s", self.first, archive, "matrix-plain")
        os.unlink(archive)
        # Its own installation of that needs the proxy too.
        self.environment["http_proxy"] = proxy
        # Before 0.32 `--force` installs a package of its own first; that isn't to count as a difference of each package.
        context = self.context(FAKEROOT, INSTALL, base="matrix-plain")
        self.command(*self.program, "build", "-s", self.first, "--force", "--no-cache", "-t", "matrix-base", context)
        self.base = self.tree(self.first, "matrix-base")

    def tree(self, storage, image):
        return facts.of_directory(f"{storage}/img/{image}", self.inside)

    def storage(self):
        try:
            return self.idle.get_nowait()
        except queue.Empty:
            storage = tempfile.mkdtemp(prefix="storage.", dir=self.scratch)
            ground.run("cp", "-a", f"{self.first}/.", storage)
            return storage

    def inside(self, uid, gid):
        """The owner as the user namespace maps it, in which the user is root."""
        return (0 if uid == self.uid else uid), (0 if gid == self.gid else gid)

    def install(self, package):
        context, image, storage = self.context(package, INSTALL), f"p-{package.replace('+', 'x')}", self.storage()
        try:
            self.command(*self.program, "build", "-s", storage, "--force", "--no-cache", "-t", image, context, failure=NotInstalled)
            return Outcome(self.base, self.tree(storage, image))
        finally:
            shutil.rmtree(context)
            with contextlib.suppress(ground.Failed):
                self.command(*self.program, "delete", "-s", storage, image)
            self.idle.put(storage)


KINDS = {kind.name: kind for kind in (Real, Again, Rootling, Success, ChImage)}


def make(name, scratch, proxy, arguments):
    kind = KINDS[name]
    if issubclass(kind, User):
        return kind(scratch, proxy, arguments.ch_image if kind is ChImage else arguments.program)
    return kind(scratch, proxy)


# ---- the reference, kept: a package's outcome under real root


def reference_path(package):
    return f"{ground.KEPT}/reference/{package}.json.gz"


def keep_reference(package, outcome):
    """Only what differs from the base, which is the same for all."""
    os.makedirs(f"{ground.KEPT}/reference", exist_ok=True)
    base = f"{ground.KEPT}/reference.base.json.gz"
    if not os.path.exists(base):
        write_json(base, outcome.before)
    changed = {name: fact for name, fact in outcome.after.items() if outcome.before.get(name) != fact}
    gone = [name for name in outcome.before if name not in outcome.after]
    write_json(reference_path(package), {"changed": changed, "gone": gone, "touched": sorted(outcome.touched)})


def read_reference(package):
    """`None` if there is none."""
    if not os.path.exists(reference_path(package)):
        return None
    before = read_base()
    kept = read_json(reference_path(package))
    after = {name: fact for name, fact in before.items() if name not in set(kept["gone"])} | kept["changed"]
    return Outcome(before, after, kept["touched"])


@functools.cache
def read_base():
    return read_json(f"{ground.KEPT}/reference.base.json.gz")


def write_json(path, value):
    with gzip.open(f"{path}.tmp", "wt", compresslevel=1, errors="surrogateescape") as out:
        json.dump(value, out)
    os.rename(f"{path}.tmp", path)


def read_json(path):
    with gzip.open(path, "rt", errors="surrogateescape") as file:
        return json.load(file)
