#!/usr/bin/env python3
"""Rootling beside buildah, podman and ch-image, on one machine in one run; prints a markdown table.

  compare.py [--rootling PROGRAM] [--runs N] [--only WORD,...] [--debian TAR] [--json FILE]

Needs root, to be several users: rootling runs as `rootling-test`, who has no subuids, the others as `rootling-peer`, who
has. For each kind of work the tools take turns, so that a busy moment of the machine meets all of them; a figure is the
median. The peak is that of the largest process of a command. Without --rootling only the others are measured.
"""
import argparse, hashlib, io, json, os, pwd, random, shutil, socket, statistics, subprocess, sys, tarfile, tempfile, time, zlib

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# 20 instructions: 10 RUN and 5 COPY that do next to nothing, so that what is measured is the builder.
DOCKERFILE = """FROM {base}
ENV COLOUR=blue
LABEL purpose=measure
WORKDIR /data
RUN echo 1 >/data/1
COPY a.txt /data/a.txt
RUN echo 2 >/data/2
RUN true
COPY tree /data/tree
RUN echo 3 >/data/3
COPY b.txt /data/b.txt
RUN true
RUN echo 4 >/data/4
COPY c.txt /data/c.txt
RUN echo 5 >/data/5
RUN true
RUN echo 6 >/data/6
RUN true
CMD ["/bin/true"]
COPY last.txt /data/last.txt
"""
LAYERS, FILES, BYTES = 8, 40_000, 1_000_000_000


class Tool:
    """A builder: who runs it, and its command lines. `None` means it has no such command."""

    user = "rootling-peer"

    def __init__(self, bench):
        self.bench, self.home = bench, f"{bench.scratch}/{self.name}"
        os.mkdir(self.home)
        os.chown(self.home, *bench.ids(self.user))

    def environment(self):
        return {"HOME": self.home, "USER": self.user, "LOGNAME": self.user, "PATH": PATH, "TMPDIR": self.home, "LANG": "C.UTF-8"}

    def fresh(self):
        """Empties its storage."""
        shutil.rmtree(f"{self.home}/storage", ignore_errors=True)
        shutil.rmtree(f"{self.home}/run", ignore_errors=True)

    def run_true(self):
        return None

    def export(self, target):
        return None


class Rootling(Tool):
    name, user, base = "rootling", "rootling-test", "localhost/debian"

    def command(self, *words):
        return [self.bench.program, "--storage", f"{self.home}/storage", *words]

    def import_base(self, tar):
        return self.command("import", tar, self.base)

    def build(self, context, cold):
        return self.command("build", "--progress", "quiet", *(["--no-cache"] if cold else []), "-t", "bench", context)

    def run_true(self):
        return self.command("run", "bench", "--", "/bin/true")

    def pull(self, plain, _tls):
        return [self.command("pull", plain)]

    def export(self, target):
        return self.command("export", "bench", "-o", target)


class Buildah(Tool):
    name, base = "buildah", "localhost/debian"

    def command(self, *words):
        return [self.name, "--root", f"{self.home}/storage", "--runroot", f"{self.home}/run", "--storage-driver", "overlay", *words]

    def import_base(self, tar):
        return ["podman", *self.command("import", "--quiet", tar, self.base)[1:]]

    def build(self, context, cold):
        return self.command("build", "--quiet", "--isolation", "chroot", "--layers", "--pull-never", *(["--no-cache"] if cold else []), "-t", "bench", context)

    def pull(self, plain, _tls):
        return [self.command("pull", "--quiet", "--tls-verify=false", plain)]


class Podman(Buildah):
    name = "podman"

    def build(self, context, cold):
        return self.command("build", "--quiet", "--isolation", "chroot", "--layers", "--pull=never", *(["--no-cache"] if cold else []), "-t", "bench", context)


class ChImage(Tool):
    name, base = "ch-image", "debian"

    def environment(self):
        # Its build cache is a Git repository, and Git wants to know who commits.
        who = {f"GIT_{role}_{what}": "bench@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return {**super().environment(), **who}

    def command(self, *words):
        return ["ch-image", "--storage", f"{self.home}/storage", "--cache", *words]

    def import_base(self, tar):
        return self.command("import", tar, self.base)

    def build(self, context, cold):
        return self.command("build", "--force", *(["--rebuild"] if cold else []), "-t", "bench", context)

    def run_true(self):
        return ["ch-run", f"{self.home}/storage/img/bench", "--", "/bin/true"]

    def pull(self, _plain, tls):
        return [[*self.command()[:3], "--no-cache", "--tls-no-verify", "pull", tls]]

    def export(self, target):
        return ["tar", "-cf", target, "-C", f"{self.home}/storage/img/bench", "."]


class ChImageUncached(ChImage):
    """Charliecloud without its build cache: no rebuild to speak of, but its quickest cold build."""

    name = "ch-image --no-cache"

    def command(self, *words):
        return ["ch-image", "--storage", f"{self.home}/storage", "--no-cache", *words]

    def build(self, context, cold):
        return self.command("build", "--force", "-t", "bench", context)

    def run_true(self):
        return None

    def pull(self, _plain, _tls):
        return None

    def export(self, target):
        return None


class SkopeoUmoci(Tool):
    name = "skopeo + umoci"

    def pull(self, plain, _tls):
        layout = f"{self.home}/storage/oci"
        return [["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{plain}", f"oci:{layout}:latest"],
                ["umoci", "unpack", "--rootless", "--image", f"{layout}:latest", f"{self.home}/storage/tree"]]

    def fresh(self):
        super().fresh()
        os.mkdir(f"{self.home}/storage")
        os.chown(f"{self.home}/storage", *self.bench.ids(self.user))


class Bench:
    def __init__(self, args, scratch):
        self.program = args.rootling and os.path.realpath(args.rootling)
        self.scratch, self.runs, self.results, self.failures = scratch, args.runs, {}, {}

    @staticmethod
    def ids(user):
        entry = pwd.getpwnam(user)
        return entry.pw_uid, entry.pw_gid

    def run(self, tool, command):
        """Wall time in seconds and peak in kB; raises on failure."""
        uid, gid = self.ids(tool.user)
        with tempfile.TemporaryFile() as output:
            started = time.perf_counter()
            child = subprocess.Popen(command, user=uid, group=gid, extra_groups=[], env=tool.environment(), cwd=tool.home, umask=0o022,
                                     stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - started
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode != 0:
                output.seek(0)
                raise RuntimeError(f"{' '.join(command)}: exit status {child.returncode}\n{output.read().decode(errors='replace')[-2000:]}")
        return wall, usage.ru_maxrss

    def measure(self, work, tools, commands, before=lambda tool, n: None, runs=None):
        """Lets the tools take turns at a piece of work. `commands(tool)` gives a list of command lines or None."""
        print(f"measuring: {work}", file=sys.stderr)
        for n in range(runs or self.runs):
            for tool in tools:
                lines = commands(tool)
                if not lines or (work, tool.name) in self.failures:
                    continue
                try:
                    before(tool, n)
                    done = [self.run(tool, line) for line in lines]
                    self.results.setdefault(work, {}).setdefault(tool.name, []).append((sum(d[0] for d in done), max(d[1] for d in done)))
                except (RuntimeError, OSError) as error:
                    self.failures[work, tool.name] = str(error)
                    print(f"  {tool.name}: {error}", file=sys.stderr)

    # ---- builds, runs and exports

    def builds(self, tools, debian):
        contexts = {tool.name: self.context(tool) for tool in tools}
        for tool in list(tools):
            try:
                self.run(tool, tool.import_base(debian))
                self.run(tool, tool.build(contexts[tool.name], True))
            except RuntimeError as error:
                self.failures["any build", tool.name] = str(error)
                print(f"  {tool.name}: {error}", file=sys.stderr)
                tools.remove(tool)
        cached = [t for t in tools if t.name != "ch-image --no-cache"]
        self.measure("rebuild, nothing changed", cached, lambda t: [t.build(contexts[t.name], False)])

        def edit(tool, n):
            with open(f"{contexts[tool.name]}/last.txt", "w") as f:
                f.write(f"edit {n} {time.time()}\n")

        self.measure("rebuild, last COPY's source edited", cached, lambda t: [t.build(contexts[t.name], False)], before=edit)
        self.measure("cold build, 20 trivial instructions", tools, lambda t: [t.build(contexts[t.name], True)])
        self.measure("run /bin/true", tools, lambda t: (c := t.run_true()) and [c], runs=max(self.runs, 20))
        self.measure("export (ch-image: tar -cf of the tree)", tools, lambda t: (c := t.export(f"{t.home}/out.tar")) and [c])

    def context(self, tool):
        directory = f"{tool.home}/context"
        os.makedirs(f"{directory}/tree")
        for name in ("a.txt", "b.txt", "c.txt", "last.txt", *(f"tree/{i}" for i in range(100))):
            with open(f"{directory}/{name}", "w") as f:
                f.write(f"{name}\n" * 20)
        with open(f"{directory}/Dockerfile", "w") as f:
            f.write(DOCKERFILE.format(base=tool.base))
        subprocess.run(["chown", "-R", f"{tool.user}:", directory], check=True)
        return directory

    # ---- pulls

    def pulls(self, tools, image):
        registry = Registry(f"{self.scratch}/registry", image)
        try:
            def fresh(tool, _n):
                tool.fresh()
                os.sync()

            self.measure("pull of 1 GB, 8 layers, 40,000 files", tools, lambda t: t.pull(f"{registry.plain}/bench:latest", f"{registry.tls}/bench:latest"),
                         before=fresh, runs=min(self.runs, 3))
        finally:
            registry.stop()

    # ---- the report

    def report(self):
        names = list(dict.fromkeys(n for by_tool in self.results.values() for n in by_tool))
        print(f"\n| work (median) | {' | '.join(names)} | fastest rival / rootling |\n|---|{'---|' * (len(names) + 1)}")
        for work, by_tool in self.results.items():
            medians = {n: statistics.median(t for t, _ in runs) for n, runs in by_tool.items()}
            cell = lambda n: f"{seconds(medians[n])}, {max(p for _, p in by_tool[n]) // 1024} MB" if n in medians else "–"
            rivals = [t for n, t in medians.items() if n != "rootling"]
            ratio = f"{min(rivals) / medians['rootling']:.2f}" if "rootling" in medians and rivals else ""
            print(f"| {work} | {' | '.join(cell(n) for n in names)} | {ratio} |")
        for (work, name), error in self.failures.items():
            print(f"\n{name} did not manage `{work}`: {error.splitlines()[-1] if error else ''}")


def seconds(value):
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s"


# ---- the image to pull


def make_image(directory):
    """An OCI layout directory with a reproducible image that compresses about as well as a distribution does."""
    if os.path.exists(f"{directory}/index.json"):
        return
    print("making the image to pull (about a minute, once)", file=sys.stderr)
    os.makedirs(f"{directory}/blobs/sha256", exist_ok=True)
    chance = random.Random(20)
    words = b" ".join(bytes(chance.choices(b"etaoinshrdlucmfwypvbgk", k=chance.randint(2, 9))) for _ in range(4000))
    layers = [make_layer(directory, chance, words, n) for n in range(LAYERS)]
    # ch-image insists on a history.
    config = put_blob(directory, json.dumps({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]},
                                             "history": [{"created_by": f"layer {n}"} for n in range(LAYERS)],
                                             "rootfs": {"type": "layers", "diff_ids": [d for _, d in layers]}}).encode())
    oci = "application/vnd.oci.image."
    manifest = put_blob(directory, json.dumps({
        "schemaVersion": 2, "mediaType": f"{oci}manifest.v1+json", "config": {"mediaType": f"{oci}config.v1+json", **config},
        "layers": [{"mediaType": f"{oci}layer.v1.tar+gzip", **blob} for blob, _ in layers]}).encode())
    with open(f"{directory}/oci-layout", "w") as f:
        f.write('{"imageLayoutVersion":"1.0.0"}')
    with open(f"{directory}/index.json", "w") as f:
        json.dump({"schemaVersion": 2, "manifests": [{"mediaType": f"{oci}manifest.v1+json", **manifest,
                                                      "annotations": {"org.opencontainers.image.ref.name": "latest"}}]}, f)


def make_layer(directory, chance, words, number):
    """One gzip layer; returns its descriptor and diff ID. Sizes vary as in a distribution: many small, few large."""
    count, target = FILES // LAYERS, BYTES // LAYERS
    weights = [chance.paretovariate(1.1) for _ in range(count)]
    scale = target / sum(weights)
    tar_digest, gzip_digest, size = hashlib.sha256(), hashlib.sha256(), 0
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    unfinished = f"{directory}/layer{number}.tmp"
    with open(unfinished, "wb") as out:
        def write(data):
            nonlocal size
            tar_digest.update(data)
            packed = packer.compress(data)
            gzip_digest.update(packed)
            size += out.write(packed)
            return len(data)

        sink = io.RawIOBase()
        sink.write = write
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
            for i, weight in enumerate(weights):
                length = int(weight * scale)
                noise = chance.randbytes(length * 3 // 10)
                start = chance.randrange(len(words))
                text = (words[start:] + words * (length // len(words) + 1))[:length - len(noise)]
                if i % 100 == 0:
                    folder = tarfile.TarInfo(f"layer{number}/{i // 100}")
                    folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, 1_600_000_000
                    tar.addfile(folder)
                info = tarfile.TarInfo(f"layer{number}/{i // 100}/file{i}")
                info.size, info.mode, info.mtime = length, 0o644, 1_600_000_000
                tar.addfile(info, io.BytesIO(noise + text))
        rest = packer.flush()
        gzip_digest.update(rest)
        size += out.write(rest)
    digest = gzip_digest.hexdigest()
    os.rename(unfinished, f"{directory}/blobs/sha256/{digest}")
    return {"digest": f"sha256:{digest}", "size": size}, f"sha256:{tar_digest.hexdigest()}"


def put_blob(directory, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{directory}/blobs/sha256/{digest}", "wb") as f:
        f.write(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


class Registry:
    """docker-registry twice on one data directory: plain HTTP, and TLS for ch-image, which knows nothing else."""

    def __init__(self, directory, image):
        os.mkdir(directory)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{directory}/key", "-out", f"{directory}/crt"], check=True, capture_output=True)
        self.children = []
        self.plain = self.start(directory, "")
        self.tls = self.start(directory, f", tls: {{ certificate: {directory}/crt, key: {directory}/key }}")
        subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{image}:latest", f"docker://{self.plain}/bench:latest"], check=True)

    def start(self, directory, tls):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{s.getsockname()[1]}"
        config = f"{directory}/{address}.yml"
        with open(config, "w") as f:
            f.write(f"version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\nstorage: {{ filesystem: {{ rootdirectory: {directory}/data }} }}\n"
                    f"http: {{ addr: '{address}', secret: x{tls} }}\n")
        self.children.append(subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        host, port = address.split(":")
        for _ in range(400):
            try:
                socket.create_connection((host, int(port))).close()
                return address
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"docker-registry does not answer on {address}")

    def stop(self):
        for child in self.children:
            child.terminate()
            child.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rootling")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="build,pull")
    parser.add_argument("--tools", default="rootling,buildah,podman,ch-image,ch-image --no-cache,skopeo + umoci")
    parser.add_argument("--debian", default=f"{ROOT}/target/fixtures/debian.tar")
    parser.add_argument("--json")
    args = parser.parse_args()
    if os.getuid() != 0:
        sys.exit("compare.py needs root, to run each tool as its own user")
    scratch = tempfile.mkdtemp(prefix="rootling-bench.", dir=os.environ.get("ROOTLING_TEST_SCRATCH", "/var/tmp"))
    os.chmod(scratch, 0o755)
    try:
        bench = Bench(args, scratch)
        wanted = args.tools.split(",")
        tools = [kind(bench) for kind in (Rootling, Buildah, Podman, ChImage, ChImageUncached, SkopeoUmoci)
                 if kind.name in wanted and (kind is not Rootling or args.rootling)]
        debian = f"{scratch}/debian.tar"
        shutil.copy(args.debian, debian)
        os.chmod(debian, 0o644)
        if "build" in args.only:
            bench.builds([t for t in tools if not isinstance(t, SkopeoUmoci)], debian)
        if "pull" in args.only:
            image = f"{ROOT}/target/bench/image"
            make_image(image)
            bench.pulls(tools, image)
        bench.report()
        if args.json:
            with open(args.json, "w") as f:
                json.dump(bench.results, f, indent=1)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
