//! What goes wrong with pulls: rows of `doc/registry-faults.md`.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use rootling::oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, Platform, media_type};

use crate::fault::{Asked, Reply, http};
use crate::memory::{Memory, tar_of, usual_tar};
use crate::{Case, Pauses, case};

fn is(asked: &Asked, method: &str, kind: &str) -> bool {
    asked.line.starts_with(method) && asked.line.contains(kind)
}

fn manifest(asked: &Asked) -> bool {
    is(asked, "GET", "manifests/")
}

/// The usual image's layer; its config is a blob too.
fn layer(asked: &Asked) -> bool {
    is(asked, "GET", &format!("blobs/{}", Digest::of(usual_tar())))
}

fn config(asked: &Asked) -> bool {
    is(asked, "GET", "blobs/") && !layer(asked)
}

fn close(status: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Option<Reply> {
    Some(Reply::Close(http(status, headers, body)))
}

/// The honest answer, changed.
fn spoiled(memory: &Memory, asked: &Asked, change: fn(&mut Vec<u8>)) -> Option<Reply> {
    let Reply::Close(mut bytes) = memory.answer(asked) else { return None };
    change(&mut bytes);
    Some(Reply::Close(bytes))
}

fn part(of: usize) -> Vec<u8> {
    usual_tar()[..of].to_vec()
}

fn whole_length() -> String {
    format!("Content-Length: {}", usual_tar().len())
}

pub fn cases() -> Vec<Case> {
    [manifests(), odd_images(), documents(), layers(), redirects(), logins(), loads(), connections()].into_iter().flatten().collect()
}

fn manifests() -> Vec<Case> {
    vec![
        case("no such tag", |_, a, _| {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            manifest(a).then(|| Reply::Close(http("404 Not Found", &[], body)))
        }),
        case("no such repository", |_, a, _| {
            let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
            manifest(a).then(|| Reply::Close(http("404 Not Found", &[], body)))
        }),
        case("the manifest is a web page", |_, a, _| manifest(a).then(|| close("200 OK", &[], "<html>hello</html>")).flatten()),
        case("the manifest is of schema 1", |_, a, _| manifest(a).then(|| close("200 OK", &[], r#"{"schemaVersion":1}"#)).flatten()),
        case("the manifest is an index too", |_, a, _| {
            manifest(a).then(|| close("200 OK", &[], r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#)).flatten()
        }),
        case("the manifest has another digest than the header says", |m, a, _| {
            manifest(a).then(|| spoiled(m, a, |bytes| *bytes.last_mut().unwrap() = b' ')).flatten()
        }),
        case("the same, once", |m, a, n| {
            (manifest(a) && n == 1).then(|| spoiled(m, a, |bytes| *bytes.last_mut().unwrap() = b' ')).flatten()
        }),
        case("the manifest has 5 MB", |_, a, _| manifest(a).then(|| close("200 OK", &[], vec![b' '; 5 << 20])).flatten()),
        case("the manifest never ends", |_, a, _| {
            manifest(a).then(|| Reply::Endless(http("200 OK", &["Transfer-Encoding: identity"], "{}"), b' '))
        }),
        case("the manifest's content type is a lie", |m, a, _| {
            manifest(a)
                .then(|| {
                    spoiled(m, a, |bytes| {
                        let text = String::from_utf8_lossy(bytes).replacen(media_type::OCI_MANIFEST, "text/html", 1);
                        *bytes = text.into_bytes();
                    })
                })
                .flatten()
        }),
    ]
}

fn index(members: Vec<Descriptor>) -> Vec<u8> {
    Index::oci(members).to_bytes()
}

fn mine(descriptor: Descriptor) -> Descriptor {
    Descriptor { platform: Some(Platform::host()), ..descriptor }
}

fn odd_images() -> Vec<Case> {
    let honest: crate::Fault = |_, _, _| None;
    vec![
        case("indexes in indexes, eight deep", honest).of(|m| {
            m.usual_image();
            let mut inner = m.document(media_type::OCI_MANIFEST, b"{}", None);
            for n in 0..8 {
                inner = m.document(media_type::OCI_INDEX, &index(vec![mine(inner)]), (n == 7).then_some("tag"));
            }
        }),
        case("the index has no image for this platform", honest).of(|m| {
            let other = Descriptor {
                platform: Some(Platform::linux("s390x", None)),
                ..Descriptor::new(media_type::OCI_MANIFEST, Digest::of(""), 9)
            };
            m.document(media_type::OCI_INDEX, &index(vec![other]), Some("tag"));
        }),
        case("the index gives a wrong size", honest).of(|m| {
            let tar = usual_tar();
            let image = m.image((media_type::OCI_LAYER, &tar, &tar), None);
            m.document(media_type::OCI_INDEX, &index(vec![Descriptor { size: 7, ..mine(image) }]), Some("tag"));
        }),
        case("the manifest wants a config of 9 MB", honest).of(|m| {
            let config = Descriptor::new(media_type::OCI_CONFIG, Digest::of("config"), 9_000_000);
            m.document(media_type::OCI_MANIFEST, &Manifest::oci(config, vec![]).to_bytes(), Some("tag"));
        }),
        case("the config is no JSON", honest).of(|m| {
            let config = m.blob(media_type::OCI_CONFIG, b"config");
            m.document(media_type::OCI_MANIFEST, &Manifest::oci(config, vec![]).to_bytes(), Some("tag"));
        }),
        case("it is a Helm chart", honest).of(|m| {
            let config = m.blob("application/vnd.cncf.helm.config.v1+json", b"{}");
            m.document(media_type::OCI_MANIFEST, &Manifest::oci(config, vec![]).to_bytes(), Some("tag"));
        }),
        case("a layer has an unknown media type", honest).of(|m| {
            let tar = usual_tar();
            m.image(("application/vnd.in-toto+json", &tar, &tar), Some("tag"));
        }),
        case("manifest and config count layers differently", honest).of(|m| {
            let config = ImageConfig::scratch(&Platform::host());
            let config = m.blob(media_type::OCI_CONFIG, &config.to_bytes());
            let layer = m.blob(media_type::OCI_LAYER, b"");
            m.document(media_type::OCI_MANIFEST, &Manifest::oci(config, vec![layer]).to_bytes(), Some("tag"));
        }),
        case("a layer's content is not what the config says", honest).of(|m| {
            m.image((media_type::OCI_LAYER, &usual_tar(), b"other"), Some("tag"));
        }),
        case("a layer's gzip stream is cut", honest).of(|m| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&tar_of(b"content")).unwrap();
            let mut gzip = encoder.finish().unwrap();
            gzip.truncate(gzip.len() - 9);
            m.image((media_type::OCI_LAYER_GZIP, &gzip, &tar_of(b"content")), Some("tag"));
        }),
        case("a layer is no tar", honest).of(|m| {
            m.image((media_type::OCI_LAYER, &[b'x'; 5000], &[b'x'; 5000]), Some("tag"));
        }),
        case("two layers say to be one blob of two sizes", honest).of(|m| {
            let tar = usual_tar();
            let mut config = ImageConfig::scratch(&Platform::host());
            config.rootfs.diff_ids = vec![DiffId(Digest::of(&tar)); 2];
            let config = m.blob(media_type::OCI_CONFIG, &config.to_bytes());
            let layer = m.blob(media_type::OCI_LAYER, &tar);
            let other = Descriptor { size: 5, ..layer.clone() };
            m.document(media_type::OCI_MANIFEST, &Manifest::oci(config, vec![layer, other]).to_bytes(), Some("tag"));
        }),
    ]
}

fn documents() -> Vec<Case> {
    vec![
        case("the config has another digest", |m, a, _| config(a).then(|| spoiled(m, a, |b| *b.last_mut().unwrap() = b' ')).flatten()),
        case("the config is not there", |_, a, _| config(a).then(|| close("404 Not Found", &[], "")).flatten()),
        case("the layer is not there", |_, a, _| {
            let body = r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
            layer(a).then(|| close("404 Not Found", &[], body)).flatten()
        }),
    ]
}

fn layers() -> Vec<Case> {
    vec![
        case("the layer has another digest", |m, a, _| layer(a).then(|| spoiled(m, a, |b| *b.last_mut().unwrap() ^= 1)).flatten()),
        case("the same, once", |m, a, n| {
            // The config was asked for before.
            (layer(a) && n == 2).then(|| spoiled(m, a, |b| *b.last_mut().unwrap() ^= 1)).flatten()
        }),
        case("the layer is shorter than the manifest says", |_, a, _| layer(a).then(|| close("200 OK", &[], part(1000))).flatten()),
        case("the layer is longer than the manifest says", |_, a, _| {
            layer(a).then(|| close("200 OK", &[], [usual_tar(), vec![0; 512]].concat())).flatten()
        }),
        case("the layer never ends", |_, a, _| {
            layer(a).then(|| Reply::Endless(http("200 OK", &["Transfer-Encoding: identity"], usual_tar()), b'x'))
        }),
        case("the connection is cut in the layer, again and again", |_, a, _| {
            layer(a).then(|| close("200 OK", &[&whole_length()], part(1000))).flatten()
        }),
        case("it is cut after each 100 kB, and goes on by `Range`", |m, a, _| {
            layer(a)
                .then(|| {
                    spoiled(m, a, |bytes| {
                        let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                        bytes.truncate(head + 100_000);
                    })
                })
                .flatten()
        })
        .pausing(Pauses::Steady),
        case("it is cut once, and `Range` is not understood", |_, a, _| {
            layer(a)
                .then(|| match a.range() {
                    0 => close("200 OK", &[&whole_length()], part(100_000)),
                    _ => close("200 OK", &[], usual_tar()),
                })
                .flatten()
        }),
        case("it is cut once, and `Range` is answered with another one", |_, a, n| {
            layer(a)
                .then(|| match a.range() {
                    0 if n > 2 => None,
                    0 => close("200 OK", &[&whole_length()], part(100_000)),
                    _ => {
                        let range = format!("Content-Range: bytes 300000-{}/{}", usual_tar().len() - 1, usual_tar().len());
                        close("206 Partial Content", &[&range], &usual_tar()[300_000..])
                    }
                })
                .flatten()
        }),
        case("it is cut once, and `Range` is refused", |_, a, n| {
            layer(a)
                .then(|| match a.range() {
                    0 if n > 2 => None,
                    0 => close("200 OK", &[&whole_length()], part(100_000)),
                    _ => close("416 Range Not Satisfiable", &[], ""),
                })
                .flatten()
        }),
        case("nothing comes in the layer", |_, a, _| layer(a).then(|| Reply::Hang(http("200 OK", &[&whole_length()], part(1000))))),
        case("the layer comes byte by byte", |_, a, _| layer(a).then(|| Reply::Drip(http("200 OK", &[&whole_length()], part(1000)), 900))),
        case("nothing comes in the manifest", |_, a, _| manifest(a).then(|| Reply::Hang(http("200 OK", &["Content-Length: 100"], "{")))),
    ]
}

fn redirects() -> Vec<Case> {
    vec![
        case("a redirect to itself", |_, a, _| {
            let to = format!("Location: {}", a.line.split(' ').nth(1).unwrap());
            manifest(a).then(|| close("307 Temporary Redirect", &[&to], "")).flatten()
        }),
        case("redirects without end", |_, a, n| {
            let further = a.line.contains("/further/") || layer(a);
            further.then(|| close("302 Found", &[&format!("Location: /further/{n}")], "")).flatten()
        }),
        case("a redirect to a file", |_, a, _| layer(a).then(|| close("302 Found", &["Location: file:///etc/passwd"], "")).flatten()),
        case("a redirect to nowhere", |_, a, _| layer(a).then(|| close("302 Found", &[], "")).flatten()),
    ]
}

fn challenge(realm: &str) -> Option<Reply> {
    close("401 Unauthorized", &[&format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"x\"")], "")
}

fn tokens(asked: &Asked, answer: impl FnOnce() -> Option<Reply>) -> Option<Reply> {
    let host = asked.headers.get("host").cloned().unwrap_or_default();
    if asked.line.contains("/token") {
        return answer();
    }
    manifest(asked).then(|| challenge(&format!("http://{host}/token"))).flatten()
}

fn logins() -> Vec<Case> {
    vec![
        case("401 without a way to log in", |_, a, _| manifest(a).then(|| close("401 Unauthorized", &[], "")).flatten()),
        case("401 whatever token is sent", |_, a, _| tokens(a, || close("200 OK", &[], r#"{"token":"T"}"#))),
        case("the token server gives none", |_, a, _| tokens(a, || close("200 OK", &[], "{}"))),
        case("the token server answers nonsense", |_, a, _| tokens(a, || close("200 OK", &[], "<html>"))),
        case("the token server's answer never ends", |_, a, _| {
            tokens(a, || Some(Reply::Endless(http("200 OK", &["Transfer-Encoding: identity"], "{"), b' ')))
        }),
        case("the token server is broken", |_, a, _| tokens(a, || close("500 Internal Server Error", &[], "oops"))),
        case("the token server says nothing", |_, a, _| tokens(a, || Some(Reply::Hang(vec![])))),
        case("the token server sends us elsewhere", |_, a, _| {
            tokens(a, || close("302 Found", &["Location: http://elsewhere.invalid/"], ""))
        }),
        case("the token server has no address", |_, a, _| manifest(a).then(|| challenge("nowhere")).flatten()),
        case("403, with the registry's reason", |_, a, _| {
            let body = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
            manifest(a).then(|| close("403 Forbidden", &[], body)).flatten()
        }),
    ]
}

fn loads() -> Vec<Case> {
    vec![
        case("429 for some seconds", |_, a, n| {
            (manifest(a) && n < 3).then(|| close("429 Too Many Requests", &["Retry-After: 7"], "")).flatten()
        })
        .pausing(Pauses::Asked(7)),
        case("429 until a date", |_, a, n| {
            let date = jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(7)).unwrap();
            let date = format!("Retry-After: {}", date.strftime("%a, %d %b %Y %H:%M:%S GMT"));
            (manifest(a) && n < 3).then(|| close("429 Too Many Requests", &[&date], "")).flatten()
        })
        .pausing(Pauses::Asked(7)),
        case("429 for a day", |_, a, _| {
            let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#;
            manifest(a).then(|| close("429 Too Many Requests", &["Retry-After: 86400"], body)).flatten()
        })
        .pausing(Pauses::Asked(86400)),
        case("a burst of 500, 502, 503 and 504", |_, a, n| {
            let status = ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"];
            (manifest(a) && n <= 4).then(|| close(status[n - 1], &[], "<html>")).flatten()
        }),
        case("503 without end", |_, a, _| layer(a).then(|| close("503 Service Unavailable", &[], "<html>")).flatten()),
    ]
}

fn connections() -> Vec<Case> {
    vec![
        case("the connection is closed at once", |_, a, _| manifest(a).then(|| Reply::Close(vec![]))),
        case("it is closed within the headers", |_, a, _| manifest(a).then(|| Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()))),
        case("something that is not HTTP", |_, a, _| manifest(a).then(|| Reply::Close(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()))),
        case("headers without end", |_, a, _| manifest(a).then(|| Reply::Endless(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), b'x'))),
        case("nothing is answered", |_, a, _| manifest(a).then(|| Reply::Hang(vec![]))),
        case("the headers come byte by byte", |_, a, _| manifest(a).then(|| Reply::Drip(b"HTTP/1.1 200 OK\r\nX: abcdefgh".to_vec(), 8))),
        Case {
            tls_verify: Some(true),
            ..case("plain HTTP where TLS must be (`--tls-verify`)", |_, _, _| {
                Some(Reply::Close(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()))
            })
        },
        case("an empty TLS alert where HTTP should be", |_, a, _| manifest(a).then(|| Reply::Close(vec![0x15, 3, 3, 0, 2, 2, 70]))),
    ]
}
