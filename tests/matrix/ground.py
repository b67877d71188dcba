"""What every mode starts from: one Debian base, and one repository on this machine that holds just the packages needed.

    target/matrix/base.tar      tests/make-debian's tree with a policy-rc.d as Docker's images have one, and the repository as only source
    target/matrix/debs/         the packages, downloaded once by apt itself, which checks their signatures
    target/matrix/repository/   the same with an index
"""
import contextlib, functools, hashlib, http.server, os, re, shutil, socketserver, subprocess, threading, urllib.parse

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
KEPT = f"{ROOT}/target/matrix"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLICY = "#!/bin/sh\n# Nothing is started while an image is built.\nexit 101\n"
# Reached through a proxy, so that it has one name whatever port is free: names below /var/lib/apt are made of it.
SOURCES = "deb [trusted=yes] http://packages.invalid/ ./\n"


class Failed(Exception):
    """A command that ended badly, with the end of what it printed."""


def run(*command, **options):
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if ran.returncode:
        raise Failed(f"{' '.join(command[:6])} …: exit code {ran.returncode}\n{ran.stdout.decode(errors='replace')[-3000:]}")
    return ran.stdout


def read_packages(path):
    """The names of a list, in order."""
    with open(path) as file:
        return [line for line in file.read().split("\n") if line and line[0] != "#"]


def first_packages(path):
    """Those above the line `# ----`."""
    with open(path) as file:
        return [line for line in file.read().split("\n# ----")[0].split("\n") if line and line[0] != "#"]


def make_base(debian):
    """`base.tar` from the fixture. With a new one nothing counts that was found before."""
    target, info = f"{KEPT}/base.tar", os.stat(debian)
    key = hashlib.sha256(f"{info.st_size} {info.st_mtime_ns} {POLICY} {SOURCES}".encode()).hexdigest()
    if os.path.exists(f"{target}.key") and open(f"{target}.key").read() == key:
        return
    shutil.rmtree(f"{KEPT}/reference", ignore_errors=True)
    for name in ("reference.base.json.gz", "results", "base.tar.key"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{KEPT}/{name}")
    tree = f"{KEPT}/base.tmp"
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(tree)
    run("tar", "-xpf", debian, "-C", tree, "--numeric-owner")
    for path in [f"{tree}/etc/apt/sources.list", *(e.path for e in os.scandir(f"{tree}/etc/apt/sources.list.d"))]:
        if os.path.exists(path):
            os.unlink(path)
    write(f"{tree}/etc/apt/sources.list", SOURCES, 0o644)
    write(f"{tree}/usr/sbin/policy-rc.d", POLICY, 0o755)
    # Where the containers' own are mounted.
    for name in ("hosts", "resolv.conf"):
        write(f"{tree}/etc/{name}", "", 0o644)
    run("tar", "-cf", f"{target}.tmp", "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", tree, ".")
    os.rename(f"{target}.tmp", target)
    shutil.rmtree(tree)
    write(f"{target}.key", key, 0o644)


def write(path, text, mode):
    with open(path, "w") as out:
        out.write(text)
    os.chmod(path, mode)


# One apt for all packages: its dependencies are those of a fresh base every time, since it only downloads.
DOWNLOAD = r"""
set -u
mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; mkdir -p "$1/debs"; mount --bind "$2" "$1/debs"
cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
cat >"$1/tmp/download" <<'INNER'
apt-get -qq update || exit 1
while read -r package; do
    apt-get -y -qq --no-install-recommends --download-only -o Acquire::Retries=3 -o Dir::Cache::archives=/debs -o APT::Sandbox::User=root install "$package" </dev/null ||
        echo "$package" >>/debs/unavailable
done
apt-cache dumpavail >/debs/available
INNER
exec chroot "$1" sh /tmp/download
"""


def make_repository(debian, packages):
    """Downloads what is missing and writes the index."""
    debs, repository = f"{KEPT}/debs", f"{KEPT}/repository"
    done = f"{KEPT}/packages"
    had = set(open(done).read().split()) if os.path.exists(done) else set()
    wanted = "".join(f"{p}\n" for p in sorted(set(packages) - had))
    if not wanted:
        return repository
    if os.getuid() != 0:
        raise Failed(f"{len(wanted.split())} packages aren't here: run this, or tests/setup, as root first")
    os.makedirs(f"{debs}/partial", exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{debs}/unavailable")
    tree = f"{KEPT}/download.tmp"
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(tree)
    try:
        run("tar", "-xpf", debian, "-C", tree, "--numeric-owner")
        # The namespace takes the mounts with it.
        ran = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", DOWNLOAD, "sh", tree, debs], input=wanted.encode(),
                             env={"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"})
        if ran.returncode:
            raise Failed("can't download the packages")
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    if os.path.exists(f"{debs}/unavailable"):
        raise Failed(f"not to be had: {' '.join(open(f'{debs}/unavailable').read().split())}")
    index(debs, repository)
    with open(done, "w") as out:
        out.write("".join(f"{p}\n" for p in sorted(had | set(packages))))
    return repository


def index(debs, repository):
    """The upstream stanzas of just the packages that are here, with their new places."""
    shutil.rmtree(repository, ignore_errors=True)
    os.makedirs(f"{repository}/pool")
    here = {name for name in os.listdir(debs) if name.endswith(".deb")}
    for name in here:
        os.link(f"{debs}/{name}", f"{repository}/pool/{plain(name)}")
    stanzas = []
    for stanza in open(f"{debs}/available").read().split("\n\n"):
        field = dict(re.findall(r"^(Package|Version|Architecture): (.*)$", stanza, re.M))
        name = "{Package}_{Version}_{Architecture}.deb".format(**field).replace(":", "%3a") if len(field) == 3 else ""
        if name in here:
            # Recommended and suggested packages aren't here, and descriptions are elsewhere in Debian's indexes.
            stanzas.append(re.sub(r"^Filename: .*$", f"Filename: ./pool/{plain(name)}", stanza, flags=re.M))
    packages = ("\n\n".join(stanzas) + "\n").encode()
    with open(f"{repository}/Packages", "wb") as out:
        out.write(packages)
    with open(f"{repository}/Release", "w") as out:
        digest = hashlib.sha256(packages).hexdigest()
        out.write(f"Origin: matrix\nSuite: matrix\nArchitectures: all amd64\nSHA256:\n {digest} {len(packages)} Packages\n")


def plain(name):
    """apt's own names have the colon of an epoch as `%3a`, which an address would need quoted again."""
    return name.replace("%3a", "-")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Answers a proxy's requests, whose paths are whole addresses."""

    protocol_version = "HTTP/1.1"

    def translate_path(self, path):
        return super().translate_path(urllib.parse.urlsplit(path).path)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextlib.contextmanager
def served(repository):
    """Serves the repository on the loopback interface, which containers share; gives the proxy's address."""
    server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=repository))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield "http://127.0.0.1:{}".format(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
