//! Pushing to a real registry, open, with passwords, tokens and TLS, and to one that breaks connections.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::registry::{Registry, push_sample};
use crate::rig::{Ran, Rig, assert_ordinary_user, fixture, needs, skip};
use crate::served::digest;

/// A registry of `tests/servers/registry`, stopped when dropped.
pub struct Guarded {
    directory: PathBuf,
    pub address: String,
    pub authority: Option<PathBuf>,
}

impl Guarded {
    pub fn start(arguments: &[&str]) -> Option<Guarded> {
        let directory = tempfile::tempdir().unwrap().keep();
        let output = Command::new(script()).arg("start").arg(&directory).args(arguments).output().unwrap();
        if output.status.code() == Some(77) {
            return skip(&String::from_utf8_lossy(&output.stderr));
        }
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let value = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
        Some(Guarded { directory, address: value("REGISTRY").unwrap(), authority: value("REGISTRY_CA").map(PathBuf::from) })
    }

    /// An auth file for a user.
    pub fn auth(&self, rig: &Rig, user: &str, password: &str) -> String {
        let secret = base64(&format!("{user}:{password}"));
        let text = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{secret}\"}}}}}}", self.address);
        rig.write(&format!("{user}.json"), text).display().to_string()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(&self.directory).status();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/registry")
}

fn base64(text: &str) -> String {
    let child = Command::new("sh").args(["-c", "printf %s \"$0\" | base64 -w0", text]).output().unwrap();
    String::from_utf8(child.stdout).unwrap()
}

fn skopeo(arguments: &[&str]) -> String {
    let out = Command::new("skopeo").args(arguments).output().unwrap();
    assert!(out.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The digest a registry has under a name, asked of skopeo.
fn remote_digest(reference: &str) -> String {
    skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{reference}")]).trim().to_owned()
}

fn build_app(rig: &Rig) {
    rig.build("app", "FROM base\nRUN echo one >/one && chown 33:44 /one\nRUN echo two >/two\nENV A=b\n");
}

#[test]
fn what_was_built_is_pushed_and_pulled_again() {
    assert_ordinary_user();
    let (Some(()), Some(())) = (needs("docker-registry"), needs("skopeo")) else { return };
    let registry = Registry::start();
    let rig = Rig::with_base();
    build_app(&rig);
    let target = format!("{}/team/app:1", registry.address);
    let pushed = rig.ok(["push", "--quiet", "app", &target]).trim().to_owned();
    assert_eq!(remote_digest(&target), pushed);
    // Twice the same sends nothing, from another storage directory the same bytes.
    let again = rig.run(["push", "--progress", "plain", "app", &target]);
    assert!(again.code == Some(0) && !again.stderr.contains("layer"), "{again}");
    let other = Rig::new();
    other.ok(["pull", &target]);
    assert_eq!(other.ok(["run", &target, "--", "cat", "/one", "/two"]), "one\ntwo\n");
    other.build("owner", &format!("FROM {target}\nRUN stat -c %u:%g /one >/owner\n"));
    assert_eq!(other.sh("owner", "cat /owner"), "33:44\n");
    let elsewhere = format!("{}/other/app:2", registry.address);
    let ran = other.run(["push", "--progress", "plain", &target, &elsewhere]);
    assert!(ran.code == Some(0) && ran.stderr.contains("(mounted)") && !ran.stderr.contains("(done)"), "{ran}");
    assert_eq!(remote_digest(&elsewhere), pushed);
    // Docker's documents, another compression.
    let docker = format!("docker://{}/team/app:docker", registry.address);
    rig.ok(["push", "--format", "docker", "app", &docker]);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &docker]);
    assert!(raw.contains("distribution.manifest.v2+json") && !raw.contains("vnd.oci"), "{raw}");
    let zstd = format!("oci://{}/team/app:zstd", registry.address);
    rig.ok(["push", "--compression-format", "zstd", "app", &zstd]);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &zstd.replace("oci:", "docker:")]);
    assert_eq!(raw.matches("tar+zstd").count(), 3, "{raw}");
    assert!(rig.fails(["push", "no-such-image", &target]).contains("no-such-image"));
}

#[test]
fn what_was_pulled_is_pushed_bit_for_bit() {
    let (Some(()), Some(()), Some(_)) = (needs("docker-registry"), needs("skopeo"), fixture("fixtures/base.tar")) else { return };
    let (from, to) = (Registry::start(), Registry::start());
    // Layers of gzip, zstd and plain.
    let reference = push_sample(&from, "sample", 3);
    let rig = Rig::new();
    rig.ok(["pull", &reference]);
    let target = format!("{}/copy:1", to.address);
    rig.ok(["push", &reference, &target]);
    assert_eq!(remote_digest(&reference), remote_digest(&target));
    // A child keeps the layers of its base.
    rig.build("child", &format!("FROM {reference}\nRUN echo x >/x\n"));
    let child = format!("{}/child:1", to.address);
    let ran = rig.run(["push", "--progress", "plain", "child", &child]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let layers = |reference: &str| -> Vec<String> {
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]);
        let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
        manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(layers(&child)[..4], layers(&reference)[..]);
}

#[test]
fn a_build_pushes_by_itself() {
    let (Some(()), Some(())) = (needs("docker-registry"), needs("skopeo")) else { return };
    let registry = Registry::start();
    let rig = Rig::with_base();
    let dockerfile = rig.write("ctx/Dockerfile", "FROM base\nRUN echo x >/x\n");
    let context = dockerfile.parent().unwrap().display().to_string();
    let name = format!("{}/app:1", registry.address);
    let second = format!("{}/app:2", registry.address);
    rig.ok(["build", "-t", &name, "--push", "--metadata-file", "m.json", &context]);
    let metadata: serde_json::Value = serde_json::from_str(&fs::read_to_string(rig.path("m.json")).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], remote_digest(&name));
    assert_eq!(metadata["image.name"], name);
    rig.ok(["build", "-o", &format!("type=image,name={second},push=true"), &context]);
    assert_eq!(remote_digest(&second), remote_digest(&name));
    // isula-build's spelling names the local image too.
    rig.ok(["build", "-o", &format!("docker://{}/isula:3", registry.address), &context]);
    assert!(rig.ok(["images"]).contains("isula"));
    assert!(rig.fails(["build", "--push", &context]).contains("--tag NAME"));
}

#[test]
fn passwords_tokens_and_tls() {
    let Some(()) = needs("skopeo") else { return };
    let rig = Rig::with_base();
    build_app(&rig);
    for kind in ["htpasswd", "token"] {
        let Some(registry) = Guarded::start(&[kind]) else { return };
        let target = format!("{}/team/app:1", registry.address);
        let auth = registry.auth(&rig, "user", "pass");
        rig.ok(["push", "--authfile", &auth, "app", &target]);
        // In chunks; and, what this registry is known to have, without sending it.
        rig.ok(["push", "--authfile", &auth, "--chunk-size=100k", "app", &format!("{}/team/again:1", registry.address)]);
        rig.ok(["tag", "app", &target]);
        let elsewhere = format!("{}/team/mounted:1", registry.address);
        let ran = rig.run(["push", "--authfile", &auth, "--progress", "plain", &target, &elsewhere]);
        assert!(ran.code == Some(0) && ran.stderr.contains("(mounted)") && !ran.stderr.contains("(done)"), "{ran}");
        let nobody = rig.fails(["push", "app", &format!("{}/team/app:2", registry.address)]);
        assert!(nobody.contains("rootling login"), "{nobody}");
        if kind == "token" {
            let reader = registry.auth(&rig, "reader", "reader");
            let refused = rig.fails(["push", "--authfile", &reader, "app", &format!("{}/team/app:3", registry.address)]);
            assert!(refused.contains("user `reader` may not do this"), "{refused}");
        }
    }
    let Some(registry) = Guarded::start(&["htpasswd", "tls"]) else { return };
    let target = format!("{}/team/app:1", registry.address);
    let auth = registry.auth(&rig, "user", "pass");
    let unknown = rig.fails(["push", "--authfile", &auth, "app", &target]);
    assert!(unknown.contains("unknown authority"), "{unknown}");
    let certificates = rig.path("config/containers/certs.d").join(&registry.address);
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(registry.authority.as_ref().unwrap(), certificates.join("ca.crt")).unwrap();
    let mut command = rig.command(["push", "--authfile", &auth, "app", &target]);
    let ran = Ran::of(command.env("XDG_CONFIG_HOME", rig.path("config")).output().unwrap(), "push over TLS".into());
    assert_eq!(ran.code, Some(0), "{ran}");
}

/// What a fragile registry has.
#[derive(Default)]
struct Kept {
    uploads: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    /// Connections broken so far.
    broken: usize,
    /// Ranges of uploads that went on.
    resumed: Vec<String>,
}

/// A registry that reads so many bytes of an upload and drops the connection, the first few times; `keeps` says whether it remembers what
/// it got.
fn fragile(after: usize, times: usize, keeps: bool) -> (String, Arc<Mutex<Kept>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let kept = Arc::new(Mutex::new(Kept::default()));
    let shared = Arc::clone(&kept);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let kept = Arc::clone(&shared);
            std::thread::spawn(move || serve(stream, &kept, (after, times, keeps)));
        }
    });
    (address, kept)
}

fn serve(mut stream: TcpStream, kept: &Mutex<Kept>, (after, times, keeps): (usize, usize, bool)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    let _ = reader.read_line(&mut line);
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header == "\r\n" {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let length: usize = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let name = path.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
    let mut reply = |status: &str, header: String| {
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{header}\r\n");
    };
    match (method.as_str(), path.as_str()) {
        ("HEAD", path) if path.contains("/blobs/") && kept.lock().unwrap().blobs.contains_key(&name) => reply("200 OK", String::new()),
        ("HEAD", path) if path.contains("/manifests/") => match kept.lock().unwrap().manifests.get(&name) {
            Some(bytes) => reply("200 OK", format!("Docker-Content-Digest: {}\r\n", digest(bytes))),
            None => reply("404 Not Found", String::new()),
        },
        ("POST", _) => {
            let mut kept = kept.lock().unwrap();
            let id = format!("u{}", kept.uploads.len());
            kept.uploads.insert(id.clone(), Vec::new());
            reply("202 Accepted", format!("Location: /v2/x/blobs/uploads/{id}?state=1\r\n"));
        }
        ("PATCH", _) => {
            let breaks = length > after && {
                let mut kept = kept.lock().unwrap();
                kept.broken += 1;
                kept.broken <= times
            };
            let mut body = vec![0; if breaks { after } else { length }];
            let _ = reader.read_exact(&mut body);
            let mut kept = kept.lock().unwrap();
            kept.resumed.extend(headers.get("content-range").cloned());
            if !breaks || keeps {
                kept.uploads.get_mut(&name).unwrap().extend(body);
            } else {
                kept.uploads.remove(&name);
            }
            if !breaks {
                reply("202 Accepted", format!("Location: /v2/x/blobs/uploads/{name}?state=2\r\n"));
            }
        }
        ("GET", path) if path.contains("/uploads/") => match kept.lock().unwrap().uploads.get(&name) {
            Some(bytes) => reply("204 No Content", format!("Range: 0-{}\r\n", bytes.len().max(1) - 1)),
            None => reply("404 Not Found", String::new()),
        },
        ("PUT", path) if path.contains("/uploads/") => {
            let wanted = path.split("digest=").nth(1).unwrap_or_default().to_owned();
            let mut kept = kept.lock().unwrap();
            let bytes = kept.uploads.remove(&name).unwrap_or_default();
            if digest(&bytes) == wanted {
                kept.blobs.insert(wanted, bytes);
                reply("201 Created", String::new());
            } else {
                reply("400 Bad Request", String::new());
            }
        }
        ("PUT", _) => {
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            kept.lock().unwrap().manifests.insert(name, body);
            reply("201 Created", String::new());
        }
        _ => reply("404 Not Found", String::new()),
    }
}

#[test]
fn broken_uploads_go_on_or_begin_again() {
    let rig = Rig::with_base();
    for keeps in [true, false] {
        let (address, kept) = fragile(200_000, 3, keeps);
        rig.ok(["push", "base", &format!("{address}/x:1")]);
        let kept = kept.lock().unwrap();
        assert!(kept.broken >= 3, "{}", kept.broken);
        // One that hangs up again and again is tried with less at once, which has a range too, from 0 on.
        assert_eq!(kept.resumed.first().is_some_and(|range| !range.starts_with("0-")), keeps, "{:?}", kept.resumed);
        let manifest: serde_json::Value = serde_json::from_slice(&kept.manifests["1"]).unwrap();
        let parts = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
        for part in parts {
            assert!(kept.blobs.contains_key(part["digest"].as_str().unwrap()), "{part}");
        }
    }
    // One that never takes it.
    let (address, kept) = fragile(1000, usize::MAX, false);
    let refused = rig.fails(["push", "base", &format!("{address}/x:1")]);
    assert!(refused.contains("given up after") && kept.lock().unwrap().manifests.is_empty(), "{refused}");
}
