//! What goes wrong with pushes: rows of `doc/registry-faults.md`.

use rootling::oci::Digest;

use crate::fault::{Asked, Reply, http};
use crate::memory::{Memory, usual_tar};
use crate::{Case, Pauses, case};

fn is(asked: &Asked, method: &str, kind: &str) -> bool {
    asked.line.starts_with(method) && asked.line.contains(kind)
}

fn close(status: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Option<Reply> {
    Some(Reply::Close(http(status, headers, body)))
}

fn post(asked: &Asked) -> bool {
    is(asked, "POST", "uploads/")
}

/// With bytes of the layer, not the small config.
fn patch(asked: &Asked) -> bool {
    is(asked, "PATCH", "uploads/") && asked.body.len() > 10_000
}

/// The layer's conclusion.
fn conclusion(asked: &Asked) -> bool {
    is(asked, "PUT", &format!("digest={}", Digest::of(usual_tar())))
}

fn manifest(asked: &Asked) -> bool {
    is(asked, "PUT", "manifests/")
}

/// The honest answer, and then a change of mind.
fn after(memory: &Memory, asked: &Asked, change: impl FnOnce(&Memory)) -> Option<Reply> {
    let reply = memory.answer(asked);
    change(memory);
    Some(reply)
}

pub fn cases() -> Vec<Case> {
    [refusals(), beginnings(), uploads(), sizes(), conclusions(), manifests(), loads()].into_iter().flatten().collect()
}

fn refusals() -> Vec<Case> {
    vec![
        case("401 without a way to log in", |_, _, _| close("401 Unauthorized", &[], "")),
        case("401 whatever token is sent", |_, a, _| {
            let host = a.headers.get("host").cloned().unwrap_or_default();
            match a.line.contains("/token") {
                true => close("200 OK", &[], r#"{"token":"T"}"#),
                false => close("401 Unauthorized", &[&format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"")], ""),
            }
        }),
        case("no such repository", |_, a, _| {
            let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
            post(a).then(|| close("404 Not Found", &[], body)).flatten()
        }),
        case("the quota is used up", |_, a, _| {
            let body =
                r#"{"errors":[{"code":"DENIED","message":"adding 0.6 MiB of storage resource, which exceeds the quota of 10 GiB"}]}"#;
            post(a).then(|| close("403 Forbidden", &[], body)).flatten()
        }),
        case("the registry's disk is full", |_, a, _| patch(a).then(|| close("507 Insufficient Storage", &[], "no space left")).flatten()),
        case("the registry is read-only", |_, a, _| {
            let body = r#"{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}"#;
            post(a).then(|| close("405 Method Not Allowed", &[], body)).flatten()
        }),
        case("one may write, but not look", |_, a, _| a.line.starts_with("HEAD").then(|| close("403 Forbidden", &[], "")).flatten())
            .pausing(Pauses::None),
    ]
}

fn beginnings() -> Vec<Case> {
    vec![
        case("no place to send to", |_, a, _| post(a).then(|| close("202 Accepted", &[], "")).flatten()),
        case("the place is no web address", |_, a, _| post(a).then(|| close("202 Accepted", &["Location: ftp://x/"], "")).flatten()),
        case("redirects without end", |_, a, n| {
            (post(a) || a.line.contains("/further/"))
                .then(|| close("307 Temporary Redirect", &[&format!("Location: /further/{n}/uploads/")], ""))
                .flatten()
        }),
        case("something that is not HTTP", |_, a, _| post(a).then(|| Reply::Close(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()))),
        case("the connection is closed at once", |_, a, _| post(a).then(|| Reply::Close(vec![]))),
        case("nothing is answered", |_, a, _| post(a).then(|| Reply::Hang(vec![]))),
        case("the headers come byte by byte", |_, a, _| post(a).then(|| Reply::Drip(b"HTTP/1.1 202 Accepted\r\nX: abcdefgh".to_vec(), 8))),
    ]
}

fn uploads() -> Vec<Case> {
    vec![
        case("the connection is closed, once", |_, a, n| (patch(a) && n == 1).then(|| Reply::Close(vec![]))),
        case("the connection is closed, again and again", |_, a, _| patch(a).then(|| Reply::Close(vec![]))),
        case("the answer to the bytes gets lost", |m, a, n| {
            (patch(a) && n == 1).then(|| {
                m.answer(a);
                Reply::Close(vec![])
            })
        }),
        case("bytes are not answered", |_, a, _| patch(a).then(|| Reply::Hang(vec![]))),
        case("the upload is forgotten, once", |m, a, n| {
            (patch(a) && n == 1)
                .then(|| {
                    m.forget_uploads();
                    close("404 Not Found", &[], "")
                })
                .flatten()
        }),
        case("the upload is forgotten, again and again", |_, a, _| {
            let body = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to registry"}]}"#;
            patch(a).then(|| close("404 Not Found", &[], body)).flatten()
        }),
        case("the last bytes get lost, and the answer says so", |m, a, n| {
            (patch(a) && n == 1)
                .then(|| {
                    m.answer(a);
                    m.shorten_uploads(200_000);
                    let Reply::Close(bytes) =
                        m.answer(&Asked { body: vec![], headers: Default::default(), line: a.line.clone(), number: 0 })
                    else {
                        return None;
                    };
                    Some(Reply::Close(bytes))
                })
                .flatten()
        }),
        case("416 in between", |m, a, n| {
            (patch(a) && n == 1)
                .then(|| {
                    m.answer(a);
                    m.shorten_uploads(200_000);
                    close("416 Range Not Satisfiable", &[], "")
                })
                .flatten()
        }),
        case("no place to go on", |_, a, _| patch(a).then(|| close("202 Accepted", &[], "")).flatten()),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        case("at most 300 kB at once (413)", |_, a, _| {
            (a.body.len() > 300_000).then(|| close("413 Payload Too Large", &[], "<html>")).flatten()
        }),
        case("at most 100 kB at once (413)", |_, a, _| {
            (a.body.len() > 100_000).then(|| close("413 Payload Too Large", &[], "<html>")).flatten()
        }),
        case("what is longer than 300 kB is hung up on", |_, a, _| (a.body.len() > 300_000).then(|| Reply::Close(vec![]))),
        case("no PATCH (405)", |_, a, _| a.line.starts_with("PATCH").then(|| close("405 Method Not Allowed", &[], "")).flatten()),
        case("no PATCH (501), and nothing longer than 300 kB", |_, a, _| match a.line.starts_with("PATCH") {
            true => close("501 Not Implemented", &[], ""),
            false => (a.body.len() > 300_000).then(|| close("413 Payload Too Large", &[], "<html>")).flatten(),
        }),
    ]
}

fn conclusions() -> Vec<Case> {
    vec![
        case("the bytes are not what was sent", |_, a, _| {
            let body = r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}"#;
            conclusion(a).then(|| close("400 Bad Request", &[], body)).flatten()
        }),
        case("it took something of another digest", |_, a, _| {
            let header = format!("Docker-Content-Digest: {}", Digest::of("other"));
            conclusion(a).then(|| close("201 Created", &[&header], "")).flatten()
        }),
        case("201, and nothing is there, once", |_, a, n| (conclusion(a) && n == 1).then(|| close("201 Created", &[], "")).flatten()),
        case("201, and nothing is there", |_, a, _| conclusion(a).then(|| close("201 Created", &[], "")).flatten()),
        case("the answer to the conclusion gets lost", |m, a, _| {
            conclusion(a).then(|| {
                m.answer(a);
                Reply::Close(vec![])
            })
        }),
        case("the conclusion is not answered", |_, a, _| conclusion(a).then(|| Reply::Hang(vec![]))),
    ]
}

fn manifests() -> Vec<Case> {
    vec![
        case("the manifest is refused", |_, a, _| {
            let body = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid: labels are required here"}]}"#;
            manifest(a).then(|| close("400 Bad Request", &[], body)).flatten()
        }),
        case("the manifest is too large", |_, a, _| manifest(a).then(|| close("413 Payload Too Large", &[], "")).flatten()),
        case("the tag is immutable", |_, a, _| {
            let body = r#"{"errors":[{"code":"TAG_INVALID","message":"The image tag 'tag' already exists and is immutable"}]}"#;
            manifest(a).then(|| close("400 Bad Request", &[], body)).flatten()
        }),
        case("a blob got lost before the manifest", |m, a, n| {
            let body = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
            (manifest(a) && n == 1).then(|| after(m, a, Memory::forget_all).and_then(|_| close("404 Not Found", &[], body))).flatten()
        }),
        case("blobs get lost, again and again", |_, a, _| {
            let body = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
            manifest(a).then(|| close("404 Not Found", &[], body)).flatten()
        }),
        case("the manifest is taken as another one", |_, a, _| {
            let header = format!("Docker-Content-Digest: {}", Digest::of("other"));
            manifest(a).then(|| close("201 Created", &[&header], "")).flatten()
        }),
        case("the manifest is taken, and not there", |_, a, _| manifest(a).then(|| close("201 Created", &[], "")).flatten()),
        case("the manifest is not answered", |_, a, _| manifest(a).then(|| Reply::Hang(vec![]))),
    ]
}

fn loads() -> Vec<Case> {
    vec![
        case("429 for some seconds", |_, a, n| {
            (post(a) && n < 3).then(|| close("429 Too Many Requests", &["Retry-After: 7"], "")).flatten()
        })
        .pausing(Pauses::Asked(7)),
        case("429 for a day", |_, a, _| post(a).then(|| close("429 Too Many Requests", &["Retry-After: 86400"], "")).flatten())
            .pausing(Pauses::Asked(86400)),
        case("a burst of 503", |_, a, n| (manifest(a) && n <= 4).then(|| close("503 Service Unavailable", &[], "<html>")).flatten()),
        case("503 without end", |_, a, _| patch(a).then(|| close("503 Service Unavailable", &[], "<html>")).flatten()),
    ]
}
