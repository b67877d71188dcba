//! What others wrote is read, what we wrote others read: skopeo, podman, buildah, umoci and ch-image as this ordinary user, with their real
//! registry between. `tests/long/interop` does the same where programs need root or subuids.
//!
//! The image is one of `tests/round-trip`: in it was done what only root can do to files. Whatever way it went, it must show the same files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::push::Guarded;
use crate::registry::Registry;
use crate::rig::{Ran, Rig, assert_ordinary_user, needs};

const BASE: &str =
    "host:sh,cat,chmod,chown,cp,echo,find,getfacl,getfattr,grep,ln,mkdir,mkfifo,mknod,readlink,sed,setcap,setfacl,setfattr,sort,stat";

fn round_trip(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/round-trip").join(name)
}

/// A rig with an image `made:3` of four layers, or `None` after a skip.
fn rig_with_made(programs: &[&str]) -> Option<Rig> {
    assert_ordinary_user();
    for program in ["setcap", "setfattr", "setfacl"].iter().chain(programs) {
        needs(program)?;
    }
    let rig = Rig::new();
    rig.ok(["import", BASE, "base"]);
    for name in ["deeds", "list"] {
        rig.write(&format!("context/{name}"), fs::read(round_trip(name)).unwrap());
    }
    let dockerfile = "FROM base\nCOPY deeds list /\nRUN sh /deeds /data\nRUN echo x >/x && chown 3:4 /x\nENV KEPT=yes\nLABEL kept=yes\nCMD [\"cat\", \"/data/file\"]\n";
    rig.build("made:3", dockerfile);
    Some(rig)
}

/// The image has all files of `made`, with all they have.
#[track_caller]
fn holds_all(rig: &Rig, image: &str) {
    let listed = rig.ok(["run", "--root-emulation", image, "--", "sh", "/list", "/data"]);
    let expected = fs::read_to_string(round_trip("deeds.expected")).unwrap();
    let missing: Vec<_> = expected.lines().filter(|line| !listed.lines().any(|other| other == *line)).collect();
    assert!(listed == expected, "{image} shows other files, without {missing:#?}");
    assert_eq!(rig.ok(["run", "--root-emulation", image, "--", "stat", "-c", "%u:%g", "/x"]), "3:4\n");
    assert!(rig.ok(["inspect", image, "--format", "config"]).contains("KEPT=yes"));
}

/// What the config says; who converts between Docker's documents and OCI's may write it anew.
fn config(rig: &Rig, image: &str) -> Value {
    serde_json::from_str(&rig.ok(["inspect", image, "--format", "config"])).unwrap()
}

/// Another program, in the rig's directory; gives what it printed.
#[track_caller]
fn other(rig: &Rig, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    // A home of its own: nothing of one test reaches another.
    command.env("HOME", rig.path("home")).env("XDG_RUNTIME_DIR", rig.path("run")).env("BUILDAH_ISOLATION", "chroot");
    fs::create_dir_all(rig.path("home")).unwrap();
    fs::create_dir_all(rig.path("run")).unwrap();
    let out = command.args(arguments).current_dir(rig.path("")).output().unwrap();
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// podman or buildah with a storage of their own and one UID: what owners it can't have it drops from its trees, not from its layers.
struct Containers<'a> {
    rig: &'a Rig,
    program: &'a str,
    /// podman takes no long path for it.
    run: TempDir,
}

impl<'a> Containers<'a> {
    fn new(rig: &'a Rig, program: &'a str) -> Self {
        Self { rig, program, run: TempDir::with_prefix("p.").unwrap() }
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let root = self.rig.path("containers").display().to_string();
        let storage = ["--root", &root, "--runroot", self.run.path().to_str().unwrap(), "--storage-driver", "vfs"];
        let owners = ["--storage-opt", "vfs.ignore_chown_errors=true"];
        other(self.rig, self.program, &[&storage[..], &owners, arguments].concat())
    }
}

#[test]
fn skopeo_between_all_its_places() {
    let Some(rig) = rig_with_made(&["skopeo", "docker-registry"]) else { return };
    let registry = Registry::start();
    let skopeo = |from: &str, to: &str| {
        let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        other(&rig, "skopeo", &[&["copy", "--quiet", "--insecure-policy"], &plain[..], &[from, to]].concat());
    };
    let ours = format!("docker://{}/ours:3", registry.address);
    let places = ["docker-archive:ours.tar", "oci-archive:ours.oci.tar", "oci:ours.oci:three", &ours];
    for place in places {
        rig.ok(["push", "made:3", place]);
    }
    // Every place of ours to skopeo's own form, and from there to every place of theirs.
    for (at, ours) in places.iter().enumerate() {
        skopeo(ours, &format!("dir:{at}.dir"));
        let theirs = match at {
            0 => "docker-archive:theirs.tar:theirs:3".to_owned(),
            1 => "oci-archive:theirs.oci.tar:theirs:3".to_owned(),
            2 => "oci:theirs.oci:theirs:3".to_owned(),
            _ => format!("docker://{}/theirs:3", registry.address),
        };
        for from in 0..=at {
            skopeo(&format!("dir:{from}.dir"), &theirs);
            let reader = Rig::new();
            let place = match theirs.split_once(':') {
                Some((transport, rest)) if !rest.starts_with("//") => format!("{transport}:{}", rig.path(rest).display()),
                _ => theirs.clone(),
            };
            reader.ok(["convert", &place, "read:1"]);
            assert_eq!(config(&reader, "read:1"), config(&rig, "made:3"), "{ours} by {from}.dir to {theirs}");
            if from == at {
                holds_all(&reader, "read:1");
            }
        }
    }
    // Between registries and layouts nothing changes at all.
    let digest = |place: &str| other(&rig, "skopeo", &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", place]);
    skopeo(&ours, "oci:same:x");
    rig.ok(["push", "made:3", "oci:again:x"]);
    assert_eq!(digest("oci:same:x"), digest(&ours));
    assert_eq!(digest("oci:again:x"), digest(&ours));
}

#[test]
fn podman_loads_saves_pulls_and_pushes() {
    let Some(rig) = rig_with_made(&["podman", "docker-registry"]) else { return };
    let registry = Registry::start();
    let containers = Containers::new(&rig, "podman");
    let podman = |arguments: &[&str]| containers.run(&[&["--cgroup-manager", "cgroupfs", "--events-backend", "none"], arguments].concat());
    let id = |image: &str| podman(&["images", "--no-trunc", "--quiet", image]).trim().to_owned();
    let ours = rig.ok(["inspect", "made:3", "--format", "json"]);
    for (format, file) in [("docker-archive", "d.tar"), ("oci-archive", "o.tar")] {
        rig.ok(["save", "--format", format, "--output", file, "made:3"]);
        podman(&["load", "--input", file]);
        let id = id("made:3");
        assert!(ours.contains(&id["sha256:".len()..]), "{id}\n{ours}");
        let back = format!("back-{file}");
        podman(&["save", "--quiet", "--format", format, "--output", &back, "made:3"]);
        let reader = Rig::new();
        reader.ok(["load", "--tag", "read:1", "--input", rig.path(&back).to_str().unwrap()]);
        assert_eq!(config(&reader, "read:1"), config(&rig, "made:3"));
        holds_all(&reader, "read:1");
        podman(&["rmi", "--force", "made:3"]);
    }
    // Several images in one archive.
    rig.ok(["save", "--output", "both.tar", "made:3", "base"]);
    podman(&["load", "--input", "both.tar"]);
    assert!(!id("base").is_empty());
    podman(&["save", "--quiet", "--multi-image-archive", "--output", "both-back.tar", "made:3", "base"]);
    let reader = Rig::new();
    assert_eq!(reader.ok(["load", "-q", "-i", rig.path("both-back.tar").to_str().unwrap()]).lines().count(), 2);
    // By a registry.
    let name = format!("{}/made:3", registry.address);
    rig.ok(["push", "made:3", &name]);
    podman(&["pull", "--quiet", "--tls-verify=false", &name]);
    let again = format!("{}/again:3", registry.address);
    podman(&["push", "--quiet", "--tls-verify=false", &name, &again]);
    reader.ok(["pull", &again]);
    assert_eq!(config(&reader, &again), config(&rig, "made:3"));
    holds_all(&reader, &again);
    // An image of configuration alone, and a flattened one.
    rig.ok(["export", "--with-spec", "spec", "made:3"]);
    podman(&["load", "--input", "spec/empty.tar"]);
    rig.ok(["export", "made:3", "-o", "flat.tar"]);
    podman(&["import", "--quiet", "flat.tar", "flat:1"]);
    podman(&["save", "--quiet", "--output", "flat-back.tar", "flat:1"]);
    reader.ok(["load", "-i", rig.path("flat-back.tar").to_str().unwrap(), "-t", "flat:1"]);
    let expected = fs::read_to_string(round_trip("deeds.expected")).unwrap();
    assert_eq!(reader.ok(["run", "--root-emulation", "flat:1", "--", "sh", "/list", "/data"]), expected);
}

#[test]
fn buildah_builds_on_ours_and_we_on_theirs() {
    let Some(rig) = rig_with_made(&["buildah", "docker-registry"]) else { return };
    let registry = Registry::start();
    let containers = Containers::new(&rig, "buildah");
    let buildah = |arguments: &[&str]| containers.run(arguments);
    rig.write("added", "by buildah\n");
    let name = format!("docker://{}/made:3", registry.address);
    for (at, place) in ["docker-archive:d.tar", "oci-archive:o.tar", "oci:layout:x", &name].iter().enumerate() {
        rig.ok(["push", "made:3", place]);
        let container = buildah(&["from", "--tls-verify=false", place]).trim().to_owned();
        buildah(&["copy", "--quiet", &container, "added", "/added"]);
        buildah(&["config", "--label", "by=buildah", &container]);
        let theirs = match at {
            0 => "docker-archive:theirs.tar:theirs:1".to_owned(),
            1 => "oci-archive:theirs.oci.tar:theirs:1".to_owned(),
            2 => "oci:theirs:x".to_owned(),
            _ => format!("docker://{}/theirs:1", registry.address),
        };
        buildah(&["commit", "--quiet", "--tls-verify=false", &container, &theirs]);
        buildah(&["rm", &container]);
        // FROM a registry takes a plain name.
        let from = theirs
            .strip_prefix("docker://")
            .map_or_else(|| theirs.replacen(':', &format!(":{}/", rig.path("").display()), 1), str::to_owned);
        rig.build("on-theirs", &format!("FROM {from}\nRUN stat -c %u:%g /added >/owner && cat /added >>/owner\n"));
        assert_eq!(rig.sh("on-theirs", "cat /owner"), "0:0\nby buildah\n", "{theirs}");
        assert!(config(&rig, "on-theirs").to_string().contains("\"by\":\"buildah\""));
        holds_all(&rig, "on-theirs");
    }
}

#[test]
fn umoci_unpacks_changes_and_makes() {
    let Some(rig) = rig_with_made(&["umoci"]) else { return };
    let umoci = |arguments: &[&str]| other(&rig, "umoci", arguments);
    rig.ok(["save", "--format", "oci-dir", "--output", "layout", "made:3"]);
    umoci(&["unpack", "--rootless", "--image", "layout:3", "bundle"]);
    // What an ordinary user's tree can show: names, kinds but devices, modes, links.
    let listed = |directory: &Path| {
        let script = "cd \"$0\" && find . -mindepth 1 -printf '%p %y %m %n %l\\n' | sort";
        other(&rig, "sh", &["-c", script, directory.to_str().unwrap()])
    };
    rig.ok(["push", "made:3", "local:tree"]);
    let theirs = listed(&rig.path("bundle/rootfs"));
    let devices = ["./data/char ", "./data/block ", "./data/zero "];
    let theirs: String =
        theirs.lines().filter(|line| !devices.iter().any(|d| line.starts_with(d))).map(|line| format!("{line}\n")).collect();
    assert_eq!(theirs, listed(&rig.path("tree")));

    fs::write(rig.path("bundle/rootfs/new"), "new\n").unwrap();
    fs::remove_file(rig.path("bundle/rootfs/deeds")).unwrap();
    umoci(&["repack", "--image", "layout:repacked", "bundle"]);
    umoci(&["config", "--image", "layout:repacked", "--config.env", "BY=umoci"]);
    umoci(&["insert", "--rootless", "--image", "layout:repacked", "context/list", "/inserted"]);
    rig.build("repacked", &format!("FROM oci:{}:repacked\n", rig.path("layout").display()));
    holds_all(&rig, "repacked");
    assert!(config(&rig, "repacked").to_string().contains("BY=umoci"));
    assert_eq!(rig.sh("repacked", "cat /new; ! cat /deeds 2>/dev/null && cat /inserted >/dev/null && echo inserted"), "new\ninserted\n");

    umoci(&["init", "--layout", "fresh"]);
    umoci(&["new", "--image", "fresh:one"]);
    // An image without any layer.
    rig.ok(["load", "--tag", "nothing:1", "--input", "fresh"]);
    umoci(&["insert", "--rootless", "--image", "fresh:one", "context", "/context"]);
    rig.ok(["load", "--tag", "fresh:1", "--input", "fresh"]);
    assert!(rig.facts("fresh:1").contains("context/deeds"));
}

#[test]
fn ch_image_pulls_imports_and_pushes() {
    let Some(rig) = rig_with_made(&["ch-image", "openssl", "docker-registry"]) else { return };
    let Some(registry) = Guarded::start(&["plain", "tls"]) else { return };
    let storage = rig.path("ch").display().to_string();
    let ch_image =
        |arguments: &[&str]| other(&rig, "ch-image", &[&["--storage", &storage, "--tls-no-verify", "--no-cache"], arguments].concat());
    let trusted = |rig: &Rig, arguments: &[&str]| {
        let certificates = rig.path("config/containers/certs.d").join(&registry.address);
        fs::create_dir_all(&certificates).unwrap();
        fs::copy(registry.authority.as_ref().unwrap(), certificates.join("ca.crt")).unwrap();
        let mut command = rig.command(arguments);
        let ran = Ran::of(command.env("XDG_CONFIG_HOME", rig.path("config")).output().unwrap(), format!("{arguments:?}"));
        assert_eq!(ran.code, Some(0), "{ran}");
    };
    // It pushes no FIFOs and no devices, and keeps no owners and set-user-ID bits.
    rig.build(
        "plain",
        "FROM base\nRUN mkdir /data && echo file >/data/file && ln /data/file /data/hard\nRUN echo x >/x && chmod 4750 /x\n",
    );
    let name = format!("{}/plain:1", registry.address);
    trusted(&rig, &["push", "plain", &name]);
    ch_image(&["pull", &name, "pulled"]);
    let content = |file: &str| fs::read_to_string(rig.path("ch/img/pulled").join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    assert_eq!((content("data/file"), content("x")), ("file\n".into(), "x\n".into()));
    let pushed = format!("{}/from-ch-image:1", registry.address);
    ch_image(&["push", "pulled", &pushed]);
    let reader = Rig::new();
    trusted(&reader, &["pull", &pushed]);
    assert_eq!(reader.ok(["run", &pushed, "--", "cat", "/data/hard"]), "file\n");
    // By tarball and by directory.
    rig.ok(["export", "plain", "--output", "flat.tar"]);
    ch_image(&["import", "flat.tar", "imported"]);
    assert_eq!(fs::read_to_string(rig.path("ch/img/imported/data/file")).unwrap(), "file\n");
    rig.ok(["import", "ch/img/imported", "back:1"]);
    assert_eq!(rig.ok(["run", "back:1", "--", "cat", "/data/file"]), "file\n");
}

#[test]
fn copies_through_a_registry_with_passwords_and_its_own_authority() {
    let Some(rig) = rig_with_made(&["skopeo", "openssl", "htpasswd", "docker-registry"]) else { return };
    let Some(registry) = Guarded::start(&["htpasswd", "tls"]) else { return };
    let certificates = rig.path("config/containers/certs.d").join(&registry.address);
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(registry.authority.as_ref().unwrap(), certificates.join("ca.crt")).unwrap();
    let auth = registry.auth(&rig, "user", "pass");
    let ours = |arguments: &[&str]| {
        let mut command = rig.command(arguments);
        command.env("XDG_CONFIG_HOME", rig.path("config")).env("REGISTRY_AUTH_FILE", &auth);
        let ran = Ran::of(command.output().unwrap(), format!("{arguments:?}"));
        assert_eq!(ran.code, Some(0), "{ran}");
    };
    let skopeo = |from: &str, to: &str| {
        let directory = certificates.display().to_string();
        let options = ["--authfile", &auth, "--src-cert-dir", &directory, "--dest-cert-dir", &directory];
        other(&rig, "skopeo", &[&["copy", "--quiet", "--insecure-policy"], &options[..], &[from, to]].concat());
    };
    let name = |image: &str| format!("docker://{}/{image}", registry.address);
    ours(&["push", "made:3", &name("ours:1")]);
    skopeo(&name("ours:1"), "oci:layout:x");
    skopeo("oci:layout:x", &name("theirs:1"));
    ours(&["convert", &name("theirs:1"), "read:1"]);
    assert_eq!(config(&rig, "read:1"), config(&rig, "made:3"));
    // From registry to registry, by way of nothing here.
    ours(&["convert", &name("theirs:1"), &name("copied:1")]);
    skopeo(&name("copied:1"), "dir:copied");
    assert!(fs::read_dir(rig.path("copied")).unwrap().count() >= 6);
}
