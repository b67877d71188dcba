//! The registry client against a server that misbehaves in every way a real one won't, and against a real one.

#[path = "servers/fault.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod fault;

use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fault::{Asked, Reply, Server, http};

use rootling::error::{Error, Kind, Result};
use rootling::oci::{Descriptor, Digest, Reference, media_type};
use rootling::registry::{Client, Credentials, Login, OneTime, Patience, RegistriesConf, Settings, TlsVerify};

fn settings() -> Settings {
    let patience = Patience {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(300),
        attempts: 4,
        first_delay: Duration::from_millis(2),
        longest_delay: Duration::from_millis(20),
    };
    Settings { patience, ..Settings::default() }
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, Digest::of(bytes), bytes.len() as u64)
}

fn download(client: &Client, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut stream = client.blob(reference, descriptor, 0)?;
    stream.read_to_end(&mut bytes).map_err(|e| rootling::error::from_io(|| "read".into(), e))?;
    Ok(bytes)
}

#[track_caller]
fn check_error(outcome: Result<impl Sized>, kind: Kind, expected: &[&str]) {
    let error: Error = outcome.err().unwrap_or_else(|| panic!("succeeded, expected {expected:?}"));
    let text = format!("{error} | {}", error.hints().join(" | "));
    assert_eq!(error.kind(), kind, "{text}");
    for part in expected {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

const BLOB: &[u8] = b"The quick brown fox jumps over the lazy dog, again and again and again.";

#[test]
fn a_blob_survives_a_cut_at_every_byte() {
    for honours_range in [true, false] {
        for cut in 0..BLOB.len() {
            let server = Server::start(move |asked| {
                if asked.number == 1 {
                    return Reply::Close(http("200 OK", &[&format!("Content-Length: {}", BLOB.len())], &BLOB[..cut]));
                }
                match asked.range() {
                    from if honours_range && from > 0 => {
                        let range = format!("Content-Range: bytes {from}-{}/{}", BLOB.len() - 1, BLOB.len());
                        Reply::Close(http("206 Partial Content", &[&range], &BLOB[from..]))
                    }
                    _ => Reply::Close(http("200 OK", &[], BLOB)),
                }
            });
            let bytes = download(&Client::new(settings()), &server.reference(), &descriptor(BLOB));
            assert_eq!(bytes.unwrap(), BLOB, "cut at {cut}, range {honours_range}");
            assert_eq!(server.requests().len(), 2);
        }
    }
}

#[test]
fn blob_faults() {
    type Answer = fn(&Asked) -> Reply;
    let full = || http("200 OK", &["Content-Encoding: gzip"], BLOB);
    assert!(!full().is_empty());
    let cases: &[(&str, Answer, Kind, &[&str])] = &[
        (
            "cut again and again",
            |_| Reply::Close(http("200 OK", &["Content-Length: 71"], &BLOB[..9])),
            Kind::Network,
            &["9 of 71 bytes in 4 attempts", "try again later"],
        ),
        ("hangs before the answer", |_| Reply::Hang(vec![]), Kind::Network, &["has sent nothing", "after 4 attempts"]),
        ("hangs in the body", |_| Reply::Hang(http("200 OK", &["Content-Length: 71"], &BLOB[..9])), Kind::Network, &["nothing came for"]),
        (
            "shorter than announced",
            |_| Reply::Close(http("200 OK", &[], &BLOB[..9])),
            Kind::Corrupt,
            &["serves 9 bytes, the manifest says 71"],
        ),
        ("longer than announced", |_| Reply::Close(http("200 OK", &["Content-Length: 72"], BLOB)), Kind::Corrupt, &["serves 72 bytes"]),
        (
            "not there",
            |_| Reply::Close(http("404 Not Found", &[], r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#)),
            Kind::NotFound,
            &["404 Not Found", "blob unknown to registry (BLOB_UNKNOWN)"],
        ),
        ("forbidden", |_| Reply::Close(http("403 Forbidden", &[], "")), Kind::Denied, &["403 Forbidden", "give credentials", "127.0.0.1:"]),
        (
            "always 503",
            |_| Reply::Close(http("503 Service Unavailable", &["Retry-After: 9999"], "<html>")),
            Kind::Network,
            &["503 Service Unavailable", "after 4 attempts", "try again later"],
        ),
        (
            "always 429",
            |_| Reply::Close(http("429 Too Many Requests", &[], r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#)),
            Kind::Network,
            &["TOOMANYREQUESTS", "credentials"],
        ),
        (
            "redirect loop",
            |_| Reply::Close(http("307 Temporary Redirect", &["Location: /again"], "")),
            Kind::Network,
            &["11 redirects in a row"],
        ),
        (
            "redirect to a file",
            |_| Reply::Close(http("302 Found", &["Location: file:///etc/passwd"], "")),
            Kind::Network,
            &["not a web address"],
        ),
        ("not HTTP", |_| Reply::Close(b"SSH-2.0-OpenSSH\r\n".to_vec()), Kind::Network, &["can't fetch blob sha256:"]),
        ("nothing", |_| Reply::Close(vec![]), Kind::Network, &["connection to `127.0.0.1:"]),
        (
            "wrong range, and the whole is cut",
            |asked| match asked.range() {
                0 => Reply::Close(http("200 OK", &["Content-Length: 71"], &BLOB[..9])),
                _ => Reply::Close(http("206 Partial Content", &["Content-Range: bytes 50-70/71"], &BLOB[50..])),
            },
            Kind::Network,
            &["9 of 71 bytes in 4 attempts"],
        ),
    ];
    for (name, answer, kind, expected) in cases {
        println!("{name}");
        let server = Server::start(answer);
        check_error(download(&Client::new(settings()), &server.reference(), &descriptor(BLOB)), *kind, expected);
    }
}

#[test]
fn blobs_that_arrive_all_the_same() {
    type Answer = fn(&Asked) -> Reply;
    let cases: &[(&str, Answer)] = &[
        ("endless", |_| Reply::Endless(http("200 OK", &["Transfer-Encoding: identity"], BLOB), b'x')),
        ("without length", |_| Reply::Close(http("200 OK", &["Transfer-Encoding: identity"], BLOB))),
        ("content coding is not undone", |_| Reply::Close(http("200 OK", &["Content-Encoding: gzip"], BLOB))),
        ("429 first", |asked| match asked.number {
            1 | 2 => Reply::Close(http("429 Too Many Requests", &["Retry-After: 1"], "")),
            _ => Reply::Close(http("200 OK", &[], BLOB)),
        }),
        ("500 first", |asked| match asked.number {
            1 => Reply::Close(http("500 Internal Server Error", &[], "")),
            _ => Reply::Close(http("200 OK", &[], BLOB)),
        }),
        ("stall first", |asked| match asked.number {
            1 => Reply::Hang(http("200 OK", &["Content-Length: 71"], &BLOB[..20])),
            _ => Reply::Close(http("200 OK", &[], BLOB)),
        }),
        ("redirected", |asked| match asked.line.contains("/elsewhere") {
            false => Reply::Close(http("302 Found", &["Location: /elsewhere?signature=1"], "")),
            true => Reply::Close(http("200 OK", &[], BLOB)),
        }),
    ];
    for (name, answer) in cases {
        let server = Server::start(answer);
        let bytes = download(&Client::new(settings()), &server.reference(), &descriptor(BLOB));
        assert_eq!(bytes.unwrap_or_else(|e| panic!("{name}: {e}")), BLOB, "{name}");
    }
}

#[test]
fn small_blobs_are_verified() {
    let server = Server::start(|asked| match asked.number {
        1 => Reply::Close(http("200 OK", &[], BLOB.to_ascii_uppercase())),
        _ => Reply::Close(http("200 OK", &[], BLOB)),
    });
    let client = Client::new(settings());
    assert_eq!(client.blob_bytes(&server.reference(), &descriptor(BLOB), 100).unwrap(), BLOB);

    let server = Server::start(|_| Reply::Close(http("200 OK", &[], BLOB.to_ascii_uppercase())));
    check_error(client.blob_bytes(&server.reference(), &descriptor(BLOB), 100), Kind::Corrupt, &["127.0.0.1", "served bytes of digest"]);
    check_error(client.blob_bytes(&server.reference(), &descriptor(BLOB), 10), Kind::Corrupt, &["at most 10"]);
    assert_eq!(server.requests().len(), 2, "one second chance, and none for what is too long");
}

#[test]
fn manifest_faults() {
    type Answer = fn(&Asked) -> Reply;
    let cases: &[(&str, Answer, Kind, &[&str])] = &[
        (
            "unknown tag",
            |_| Reply::Close(http("404 Not Found", &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)),
            Kind::NotFound,
            &["can't fetch the manifest of", "manifest unknown", "check the repository's name"],
        ),
        (
            "lying digest",
            |_| Reply::Close(http("200 OK", &[&format!("Docker-Content-Digest: {}", Digest::of("other"))], "{}")),
            Kind::Corrupt,
            &["served bytes of digest"],
        ),
        (
            "endless",
            |_| Reply::Endless(http("200 OK", &["Transfer-Encoding: identity"], "{}"), b' '),
            Kind::Corrupt,
            &["longer than 4194304 bytes"],
        ),
        ("slow", |_| Reply::Hang(http("200 OK", &["Content-Length: 100"], "{")), Kind::Corrupt, &["not complete after"]),
        (
            "no way to log in",
            |_| Reply::Close(http("401 Unauthorized", &["WWW-Authenticate: Negotiate"], "")),
            Kind::Denied,
            &["give credentials", "127.0.0.1:"],
        ),
        (
            "a token server that is none",
            |_| Reply::Close(http("401 Unauthorized", &["WWW-Authenticate: Bearer realm=\"nowhere\""], "")),
            Kind::Denied,
            &["token server `nowhere` is no web address"],
        ),
    ];
    for (name, answer, kind, expected) in cases {
        println!("{name}");
        let server = Server::start(answer);
        check_error(Client::new(settings()).manifest(&server.reference(), &media_type::ACCEPTED_MANIFESTS), *kind, expected);
    }
}

#[test]
fn unreachable_registries() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (name, kind, expected) in [
        (format!("{closed}/x"), Kind::Network, &["ECONNREFUSED", "check the port"][..]),
        ("registry.invalid/x".into(), Kind::Network, &["unknown host `registry.invalid`"]),
    ] {
        let client = Client::new(settings());
        check_error(client.manifest(&name.parse().unwrap(), &media_type::ACCEPTED_MANIFESTS), kind, expected);
    }
}

#[test]
fn a_plain_server_behind_a_verified_name_is_told_apart() {
    // `insecure` asks for HTTPS first and then takes plain HTTP; a loopback name does not count as one here.
    let server = Server::start(|_| Reply::Close(http("200 OK", &[], "{}")));
    let client = Client::new(Settings { tls: TlsVerify::Never, ..settings() });
    assert_eq!(client.manifest(&server.reference(), &media_type::ACCEPTED_MANIFESTS).unwrap().bytes, b"{}");
}

#[test]
fn credentials_stay_with_their_host() {
    let other = Server::start(|_| Reply::Close(http("200 OK", &[], BLOB)));
    let elsewhere = format!("Location: http://{}/signed?x=1", other.address);
    let server = Server::start(move |asked| match asked.headers.contains_key("authorization") {
        false => Reply::Close(http("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], "")),
        true => Reply::Close(http("307 Temporary Redirect", &[&elsewhere], "")),
    });
    let login = Login::Password { user: "u".into(), password: "p".into() };
    let client = Client::new(Settings { credentials: given(&server.address, login), ..settings() });
    assert_eq!(download(&client, &server.reference(), &descriptor(BLOB)).unwrap(), BLOB);
    assert!(server.requests()[1].ends_with("Basic dTpw"), "{:?}", server.requests());
    assert_eq!(other.requests(), ["GET /signed?x=1 HTTP/1.1 -"]);
}

#[test]
fn tokens_die_in_the_middle() {
    // One server is registry and token server; each token is good for two requests.
    let issued = std::sync::Mutex::new((0, 0));
    let server = Server::start(move |asked| {
        let (number, uses) = &mut *issued.lock().unwrap();
        if asked.line.starts_with("GET /token?") {
            (*number, *uses) = (*number + 1, 0);
            return Reply::Close(http("200 OK", &[], format!(r#"{{"token":"T{number}","expires_in":3600}}"#)));
        }
        *uses += 1;
        let realm = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"", asked.headers["host"]);
        match asked.headers.get("authorization") {
            Some(given) if *uses <= 2 && *given == format!("Bearer T{number}") => Reply::Close(http("200 OK", &[], BLOB)),
            _ => Reply::Close(http("401 Unauthorized", &[&realm], "")),
        }
    });
    let client = Client::new(settings());
    for _ in 0..7 {
        assert_eq!(download(&client, &server.reference(), &descriptor(BLOB)).unwrap(), BLOB);
    }
    assert_eq!(server.requests().iter().filter(|line| line.contains("/token?")).count(), 4);
}

#[test]
fn token_servers_get_what_is_theirs() {
    // A registry may name a token server elsewhere, which then gets its password; whoever that one redirects to gets nothing.
    let third = Server::start(|_| Reply::Close(http("200 OK", &[], r#"{"token":"T"}"#)));
    let onward = format!("Location: http://{}/token", third.address);
    let tokens = Server::start(move |_| Reply::Close(http("307 Temporary Redirect", &[&onward], "")));
    let realm = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"", tokens.address);
    let server = Server::start(move |_| Reply::Close(http("401 Unauthorized", &[&realm], "")));
    let login = Login::Password { user: "u".into(), password: "p".into() };
    let client = Client::new(Settings { credentials: given(&server.address, login.clone()), ..settings() });
    check_error(client.manifest(&server.reference(), &media_type::ACCEPTED_MANIFESTS), Kind::Other, &["token server", "307"]);
    assert!(tokens.requests()[0].ends_with("Basic dTpw") && third.requests().is_empty());

    // Over plain HTTP to another machine it is not sent at all.
    let server =
        Server::start(|_| Reply::Close(http("401 Unauthorized", &["WWW-Authenticate: Bearer realm=\"http://auth.invalid/t\""], "")));
    let client = Client::new(Settings { credentials: given(&server.address, login), ..settings() });
    check_error(client.manifest(&server.reference(), &media_type::ACCEPTED_MANIFESTS), Kind::Denied, &["over plain HTTP"]);
}

#[test]
fn mirrors_come_first_and_may_fail() {
    let origin = Server::start(|_| Reply::Close(http("200 OK", &[], BLOB)));
    let broken = Server::start(|_| Reply::Close(http("404 Not Found", &[], "")));
    let mirror = Server::start(|_| Reply::Close(http("200 OK", &[], BLOB)));
    let fetch = |mirror: &Server| {
        let mut registries = RegistriesConf::default();
        let text = format!("[[registry]]\nlocation='{}'\n[[registry.mirror]]\nlocation='{}/proxy'", origin.address, mirror.address);
        registries.merge(&text).unwrap();
        download(&Client::new(Settings { registries, ..settings() }), &origin.reference(), &descriptor(BLOB)).unwrap()
    };
    assert_eq!(fetch(&mirror), BLOB);
    assert_eq!((mirror.requests().len(), origin.requests().len()), (1, 0));
    assert!(mirror.requests()[0].starts_with("GET /v2/proxy/some/image/blobs/"), "{:?}", mirror.requests());
    assert_eq!(fetch(&broken), BLOB);
    assert_eq!((broken.requests().len(), origin.requests().len()), (1, 1));
}

/// A real registry, stopped when dropped.
struct RealRegistry {
    dir: PathBuf,
    address: String,
    ca: Option<PathBuf>,
}

impl RealRegistry {
    fn start(arguments: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap().keep();
        let output = Command::new(script()).arg("start").arg(&dir).args(arguments).output().unwrap();
        if output.status.code() == Some(77) {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let value = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
        Some(Self { dir, address: value("REGISTRY").unwrap(), ca: value("REGISTRY_CA").map(PathBuf::from) })
    }

    /// Puts an image there with skopeo and returns its reference.
    fn image(&self, name: &str) -> Reference {
        let layout = self.dir.join("layout");
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| {
            std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
            descriptor(bytes)
        };
        let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, Digest::of(BLOB));
        let config = Descriptor { media_type: media_type::OCI_CONFIG.into(), ..put(config.as_bytes()) };
        let manifest = rootling::oci::Manifest::oci(config, vec![put(BLOB)]).to_bytes();
        let manifest = Descriptor { media_type: media_type::OCI_MANIFEST.into(), ..put(&manifest) };
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
        std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
        std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let target = format!("{}/{name}", self.address);
        let copied = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds=user:pass"])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{target}"))
            .output()
            .unwrap();
        assert!(copied.status.success(), "{copied:?}");
        target.parse().unwrap()
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(&self.dir).status();
    }
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers/registry")
}

/// Fetches everything there is and checks it; skopeo may have compressed the layer.
fn fetch_all(client: &Client, reference: &Reference) -> Result<()> {
    let fetched = client.manifest(reference, &media_type::ACCEPTED_MANIFESTS)?;
    assert_eq!(client.digest(reference)?, Some(fetched.digest));
    let manifest: rootling::oci::Manifest = serde_json::from_slice(&fetched.bytes).unwrap();
    let layer = client.blob_bytes(reference, &manifest.layers[0], 1 << 20)?;
    let mut rest = Vec::new();
    client.blob(reference, &manifest.layers[0], 10)?.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, layer[10..]);
    Ok(())
}

fn with_login(image: &Reference, login: Option<Login>) -> Client {
    let credentials = login.map_or_else(Credentials::default, |login| given(image.registry(), login));
    Client::new(Settings { credentials, ..real_settings() })
}

/// Credentials for one registry.
fn given(registry: &str, login: Login) -> Credentials {
    Credentials { one_time: vec![OneTime { registry: registry.into(), login }], ..Credentials::default() }
}

fn real_settings() -> Settings {
    Settings { patience: Patience { stall: Duration::from_secs(20), ..settings().patience }, ..settings() }
}

fn password(user: &str, password: &str) -> Option<Login> {
    Some(Login::Password { user: user.into(), password: password.into() })
}

#[test]
fn a_real_registry() {
    let Some(registry) = RealRegistry::start(&["plain"]) else { return };
    let image = registry.image("team/app:1");
    fetch_all(&with_login(&image, None), &image).unwrap();
    for name in ["team/app:2", "nobody/knows"] {
        let reference = format!("{}/{name}", registry.address).parse().unwrap();
        check_error(fetch_all(&with_login(&reference, None), &reference), Kind::NotFound, &["manifest unknown"]);
    }
}

#[test]
fn a_real_registry_with_passwords() {
    let Some(registry) = RealRegistry::start(&["htpasswd"]) else { return };
    let image = registry.image("team/app:1");
    fetch_all(&with_login(&image, password("user", "pass")), &image).unwrap();
    check_error(
        fetch_all(&with_login(&image, None), &image),
        Kind::Denied,
        &["authentication required", "give credentials for 127.0.0.1:"],
    );
    check_error(fetch_all(&with_login(&image, password("user", "no")), &image), Kind::Denied, &["user `user` may not do this"]);
}

#[test]
fn a_real_registry_with_tokens() {
    let Some(registry) = RealRegistry::start(&["token"]) else { return };
    let (private, public) = (registry.image("team/app:1"), registry.image("public/app:1"));
    fetch_all(&with_login(&public, None), &public).unwrap();
    fetch_all(&with_login(&private, password("reader", "reader")), &private).unwrap();
    fetch_all(&with_login(&private, Some(Login::IdentityToken { user: None, token: "refresh-me".into() })), &private).unwrap();
    check_error(fetch_all(&with_login(&private, None), &private), Kind::Denied, &["rootling login 127.0.0.1:"]);
    check_error(
        fetch_all(&with_login(&private, password("user", "no")), &private),
        Kind::Denied,
        &["incorrect username or password", "token server"],
    );

    let file = registry.dir.join("auth.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{}/team":{{"auth":"cmVhZGVyOnJlYWRlcg=="}}}}}}"#, registry.address)).unwrap();
    let credentials = Credentials { files: vec![registry.dir.join("missing.json"), file], ..Credentials::default() };
    fetch_all(&Client::new(Settings { credentials, ..real_settings() }), &private).unwrap();
}

#[test]
fn a_real_registry_with_tls() {
    let Some(registry) = RealRegistry::start(&["htpasswd", "tls"]) else { return };
    let image = registry.image("team/app:1");
    let credentials = given(image.registry(), password("user", "pass").unwrap());
    let base = Settings { credentials, ..real_settings() };
    let ca = registry.ca.clone().unwrap();
    let certs = registry.dir.join("certs.d");
    std::fs::create_dir_all(certs.join(&registry.address)).unwrap();
    std::fs::copy(&ca, certs.join(&registry.address).join("ca.crt")).unwrap();

    let unknown = fetch_all(&Client::new(base.clone()), &image);
    check_error(
        unknown,
        Kind::Network,
        &["unknown authority", "/etc/containers/certs.d/127.0.0.1:", "/etc/docker/certs.d/", "--tls-verify=false"],
    );
    for settings in [
        Settings { ca_files: vec![ca], ..base.clone() },
        Settings { certificate_dirs: vec![certs], ..base.clone() },
        Settings { tls: TlsVerify::Never, ..base },
    ] {
        fetch_all(&Client::new(settings), &image).unwrap();
    }
}
