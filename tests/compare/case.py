"""A case of the corpus: a directory of tests/corpus.

  Dockerfile            as the user would write it (none: context/Dockerfile, found by the builder itself)
  Dockerfile.PEER       the same meaning in the words of `buildah` (1.28) or `docker` (20.10), where the Dockerfile is beyond them
  context/              the build context; all times become 2005-05-05, modes 644 or 755
  prepare               run in a copy of the context before the build, for what git can't hold; $1 is the builder's name
  served/               files that a server on this machine gives out during the build, over HTTP; a directory `NAME.git` in it is a repository
                        that git can clone (`prepare` makes it, in ../served)
  options               build options, one argument a line; @SERVER@ is the server's URL, @CONTEXT@ the copy of the context, @CASE@ its parent
  options.BUILDER       in place of `options` for `buildah`, `docker` or `rootling`
  environment           variables of the builder, NAME=VALUE a line
  without               peers that can't build the case, `PEER REASON` a line; a case without all of them needs `expected`
  expected              facts that must be in rootling's listing whatever a peer says (format: facts.py). If no peer builds the case, every path that is not
                        as in the base must be named
  fails                 the build must fail: regular expressions, one a line, that rootling's messages must contain; the peers must fail too
  accepted[.docker]     differences from buildah [Docker] that are right or harmless: `NUMBER REGEX`, NUMBER being a section of doc/differences.md,
                        REGEX matching a whole line of the difference; one that matches nothing is an error
  checks                (gallery) `$ ARGUMENTS` lines, as given to `run IMAGE`, each with what it prints below (empty lines don't count)
  docker                what Docker's engine made, recorded by `make compare-docker`: `+` and `-` facts against the base
"""
import contextlib, hashlib, os, shutil, subprocess

from facts import Failed, read_lines
import serve

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CONTEXT_TIME = 1115251200
BUILDERS = ("buildah", "docker", "rootling")
# What says nothing about how the case is built.
OPINIONS = ("accepted", "accepted.docker", "docker", "expected", "fails", "without")


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout.decode(errors='replace')}")
    return done.stdout


def without(case):
    """The peers that can't build the case."""
    return {line.split(" ")[0] for line in read_lines(f"{SET.directory}/{case}/without")}


def fails(case):
    return read_lines(f"{SET.directory}/{case}/fails")


class Set:
    """Which cases: the corpus, small and on a base of a few megabytes, or the gallery, which installs real software on Debian."""

    def __init__(self):
        self.directory = f"{ROOT}/tests/corpus"
        self.base_name = "localhost/base"
        self.base_files = [f"{ROOT}/target/fixtures/base.tar"]
        self.base_dockerfile = 'FROM scratch\nADD base.tar /\nENV PATH=/usr/bin:/bin:/usr/sbin:/sbin\nCMD ["/bin/sh"]\n'

    def gallery(self):
        self.directory = f"{ROOT}/tests/gallery"
        self.base_name = "localhost/debian"
        # The machine's certificates, so that package managers inside reach what they reach outside.
        self.base_files = [f"{ROOT}/target/fixtures/debian.tar", "/etc/ssl/certs/ca-certificates.crt"]
        self.base_dockerfile = (
            "FROM scratch\nADD debian.tar /\nCOPY ca-certificates.crt /etc/ssl/certs/\n"
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PIP_CERT=/etc/ssl/certs/ca-certificates.crt"
            ' NPM_CONFIG_CAFILE=/etc/ssl/certs/ca-certificates.crt DEBIAN_FRONTEND=noninteractive\nCMD ["/bin/bash"]\n'
        )

    def cases(self):
        return sorted(n for n in os.listdir(self.directory) if os.path.isdir(f"{self.directory}/{n}/context"))


SET = Set()


class Staged:
    """A copy of a case, ready to be built: `arguments` after the builder's own, and the `environment`."""

    def __init__(self, arguments, environment):
        self.arguments, self.environment = arguments, environment


@contextlib.contextmanager
def staged(case, target, builder):
    """Makes `target/context` and the Dockerfile beside it, and serves what is to be served until the block ends."""
    shutil.copytree(f"{SET.directory}/{case}", target, symlinks=True, dirs_exist_ok=True)
    for folder, _, files in os.walk(target):
        os.chmod(folder, 0o755)
        for name in files:
            path = f"{folder}/{name}"
            os.chmod(path, 0o755 if os.access(path, os.X_OK) else 0o644)
    context = f"{target}/context"
    if os.path.exists(f"{target}/prepare"):
        run(f"{target}/prepare", builder, cwd=context, umask=0o022)
    for root in (context, f"{target}/served"):
        for folder, directories, files in os.walk(os.fsencode(root), topdown=False):
            for name in directories + files:
                os.utime(os.path.join(folder, name), (CONTEXT_TIME, CONTEXT_TIME), follow_symlinks=False)
    options = next((p for p in (f"{target}/options.{builder}", f"{target}/options") if os.path.exists(p)), None)
    arguments = open(options).read().splitlines() if options else []
    dockerfile = next((p for p in (f"{target}/Dockerfile.{builder}", f"{target}/Dockerfile") if os.path.exists(p)), None)
    if dockerfile:
        arguments += ["-f", dockerfile]
    extra = dict(line.split("=", 1) for line in read_lines(f"{target}/environment"))
    server = serve.directory(f"{target}/served") if os.path.isdir(f"{target}/served") else contextlib.nullcontext("")
    with server as url:
        replace = lambda text: text.replace("@SERVER@", url).replace("@CONTEXT@", context).replace("@CASE@", target)
        yield Staged([replace(a) for a in arguments] + [context], {**os.environ, **{k: replace(v) for k, v in extra.items()}})


def key_of(case, builder):
    """A digest of all that decides what the builder makes of the case."""
    digest = hashlib.sha256()
    for folder, directories, files in os.walk(f"{SET.directory}/{case}"):
        directories.sort()
        for name in sorted(files):
            path = f"{folder}/{name}"
            relative = os.path.relpath(path, SET.directory)
            stem, _, other = name.rpartition(".")
            elsewhere = stem in ("Dockerfile", "options") and other in BUILDERS and other != builder
            if os.path.dirname(relative) == case and (name in OPINIONS or elsewhere):
                continue
            digest.update(f"{relative} {os.access(path, os.X_OK)}\n".encode())
            digest.update(open(path, "rb").read())
    return digest.hexdigest()
