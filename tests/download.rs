//! Downloads of plain URLs from a server that misbehaves in every way a real one won't.

#[path = "servers/fault.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod fault;

use std::io::Read as _;
use std::time::Duration;

use fault::{Asked, Reply, Server, http};
use rootling::error::{Error, Kind, Result};
use rootling::event::Silent;
use rootling::oci::Digest;
use rootling::registry::{Ask, Client, Fetched, Head, Patience, Receiver, Settings, Validators};
use rootling::store::Store;
use rootling::transfer::{self, ClientSettings, DownloadRequest};

const BODY: &[u8] = b"The quick brown fox jumps over the lazy dog, again and again and again.";

/// Keeps everything, and counts beginnings.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    begun: usize,
    limit: Option<usize>,
}

impl Receiver for Kept {
    fn begin(&mut self, _: &Head) -> Result<()> {
        self.bytes.clear();
        self.begun += 1;
        Ok(())
    }

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(piece);
        match self.limit {
            Some(limit) if self.bytes.len() > limit => Err(Error::with_kind(Kind::NoSpace, "the disk is full")),
            _ => Ok(()),
        }
    }
}

fn client() -> Client {
    let patience = Patience {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(300),
        attempts: 4,
        first_delay: Duration::from_millis(2),
        longest_delay: Duration::from_millis(20),
    };
    Client::new(Settings { patience, ..Settings::default() })
}

fn fetch(url: &str, known: Option<&Validators>, kept: &mut Kept) -> Result<Fetched> {
    client().download(&Ask { url, authorization: None, known }, kept)
}

fn url(server: &Server) -> String {
    format!("http://{}/file", server.address)
}

#[test]
fn survives_a_cut_at_every_byte() {
    for (tag, resumes) in
        [("ETag: \"a\"", true), ("ETag: \"a\"", false), ("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", true), ("X: y", true)]
    {
        for cut in 0..BODY.len() {
            let server = Server::start(move |asked| {
                if asked.number == 1 {
                    return Reply::Close(http("200 OK", &[&format!("Content-Length: {}", BODY.len()), tag], &BODY[..cut]));
                }
                match asked.range() {
                    from if resumes && from > 0 => {
                        assert!(asked.headers.contains_key("if-range"));
                        let range = format!("Content-Range: bytes {from}-{}/{}", BODY.len() - 1, BODY.len());
                        Reply::Close(http("206 Partial Content", &[&range], &BODY[from..]))
                    }
                    _ => Reply::Close(http("200 OK", &[tag], BODY)),
                }
            });
            let mut kept = Kept::default();
            fetch(&url(&server), None, &mut kept).unwrap();
            assert_eq!(kept.bytes, BODY, "{tag} cut at {cut}");
            let goes_on = resumes && cut > 0 && tag != "X: y";
            assert_eq!((kept.begun, server.requests().len()), (if goes_on { 1 } else { 2 }, 2), "{tag} cut at {cut}");
        }
    }
}

#[test]
fn starts_over_where_something_else_is_by_now() {
    let server = Server::start(|asked| match asked.number {
        1 => Reply::Close(http("200 OK", &["Content-Length: 9", "ETag: \"a\""], "old")),
        2 => Reply::Close(http("200 OK", &["ETag: \"b\""], "new content")),
        _ => unreachable!(),
    });
    let mut kept = Kept::default();
    let Fetched::Whole(head) = fetch(&url(&server), None, &mut kept).unwrap() else { panic!("not whole") };
    assert_eq!((kept.bytes.as_slice(), kept.begun), (&b"new content"[..], 2));
    assert_eq!(head.validators.etag.as_deref(), Some("\"b\""));
}

#[test]
fn faults() {
    type Answer = fn(&Asked) -> Reply;
    let cases: &[(&str, Answer, Kind, &[&str])] = &[
        ("404", |_| Reply::Close(http("404 Not Found", &[], "")), Kind::NotFound, &["404 Not Found", "check the URL"]),
        ("403", |_| Reply::Close(http("403 Forbidden", &[], "go away")), Kind::Denied, &["go away", "HTTP_AUTH_TOKEN_"]),
        (
            "429 for ever",
            |_| Reply::Close(http("429 Too Many Requests", &["Retry-After: 1"], "")),
            Kind::Network,
            &["429", "given up after 4 attempts", "try again later"],
        ),
        ("503 for ever", |_| Reply::Close(http("503 Service Unavailable", &[], "")), Kind::Network, &["503", "given up after 4 attempts"]),
        (
            "always cut",
            |_| Reply::Close(http("200 OK", &["Content-Length: 71"], &BODY[..9])),
            Kind::Network,
            &["sent 9 of 71 bytes", "given up after 4 attempts"],
        ),
        ("silent", |_| Reply::Hang(vec![]), Kind::Network, &["has sent nothing for 1 s", "given up after 4 attempts"]),
        ("stops", |_| Reply::Hang(http("200 OK", &["Content-Length: 71"], "x")), Kind::Network, &["nothing came for 1 s"]),
        ("redirects for ever", |_| Reply::Close(http("302 Found", &["Location: /again"], "")), Kind::Network, &["11 redirects in a row"]),
        (
            "redirects to a file",
            |_| Reply::Close(http("302 Found", &["Location: file:///etc/passwd"], "")),
            Kind::Network,
            &["not a web address"],
        ),
        ("no HTTP", |_| Reply::Close(b"SSH-2.0-x\r\n".to_vec()), Kind::Network, &["given up after 4 attempts"]),
    ];
    for (name, answer, kind, expected) in cases {
        let server = Server::start(answer);
        let error = fetch(&url(&server), None, &mut Kept::default()).expect_err(name);
        let text = format!("{error} | {} | {}", error.causes().join(" | "), error.hints().join(" | "));
        assert_eq!(error.kind(), *kind, "{name}: {text}");
        for part in *expected {
            assert!(text.contains(part), "{name}: `{part}` is not in: {text}");
        }
    }
}

#[test]
fn passing_faults_pass() {
    for first in ["429 Too Many Requests", "503 Service Unavailable"] {
        let server = Server::start(move |asked| match asked.number {
            1 => Reply::Close(http(first, &["Retry-After: 0"], "")),
            _ => Reply::Close(http("200 OK", &[], BODY)),
        });
        let mut kept = Kept::default();
        fetch(&url(&server), None, &mut kept).unwrap();
        assert_eq!(kept.bytes, BODY);
    }
}

#[test]
fn an_endless_body_ends_where_the_disk_does() {
    let server = Server::start(|_| Reply::Endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), b'x'));
    let mut kept = Kept { limit: Some(1 << 20), ..Kept::default() };
    let error = fetch(&url(&server), None, &mut kept).unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn credentials_go_to_their_host_only() {
    let other = Server::start(|_| Reply::Close(http("200 OK", &[], BODY)));
    let target = format!("Location: http://{}/file", other.address);
    let first = Server::start(move |_| Reply::Close(http("302 Found", &[&target], "")));
    let with_user = format!("http://user:w%3Ard@{}/file", first.address);
    fetch(&with_user, None, &mut Kept::default()).unwrap();
    let ask = Ask { url: &url(&first), authorization: Some("Bearer sesame\n"), known: None };
    client().download(&ask, &mut Kept::default()).unwrap();
    assert_eq!(first.requests(), ["GET /file HTTP/1.1 Basic dXNlcjp3OnJk", "GET /file HTTP/1.1 Bearer sesame"]);
    assert_eq!(other.requests(), ["GET /file HTTP/1.1 -", "GET /file HTTP/1.1 -"]);
    let error = fetch(&format!("http://user:w%3Ard@{}/file", other.address.replace(':', ":1")), None, &mut Kept::default()).unwrap_err();
    let text = format!("{error} {:?} {:?}", error.causes(), error.place());
    assert!(!text.contains("user") && !text.contains("w%3Ard"), "{text}");
}

/// A server whose file changes with `version`; it answers conditions, or, with `deaf`, ignores them.
fn versions(tag: fn(usize) -> String, deaf: bool) -> Server {
    Server::start(move |asked| {
        let number: usize = asked.line.split(['=', ' ']).nth(2).and_then(|text| text.parse().ok()).unwrap_or(1);
        let header = tag(number);
        let value = header.split_once(": ").map_or("", |(_, value)| value).to_owned();
        let conditions = ["if-none-match", "if-modified-since"];
        if !deaf && conditions.iter().any(|name| asked.headers.get(*name).is_some_and(|known| *known == value)) {
            return Reply::Close(http("304 Not Modified", &[], ""));
        }
        Reply::Close(http("200 OK", &[&header], format!("version {number}")))
    })
}

#[test]
fn an_unchanged_url_is_not_downloaded_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let client = transfer::Client::new(ClientSettings::default());
    type Tag = fn(usize) -> String;
    let tags: [(Tag, bool); 3] = [
        (|n| format!("ETag: \"{n}\""), false),
        (|n| format!("ETag: W/\"{n}\""), true),
        (|n| format!("Last-Modified: Sun, 06 Nov 1994 08:49:3{n} GMT"), false),
    ];
    for (tag, deaf) in tags {
        let server = versions(tag, deaf);
        let get = |checksum: Option<&Digest>| {
            let request = DownloadRequest { url: &url(&server), checksum, authorization: None };
            transfer::download(&store, &client, &request, &Silent)
        };
        let first = get(None).unwrap();
        let mut text = String::new();
        store.blob_reader(&first.digest).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), first.size), ("version 1", 9));
        assert_eq!(get(None).unwrap(), first);
        assert_eq!(server.requests().len(), 2);
        assert_eq!(get(Some(&first.digest)).unwrap(), first);
        assert_eq!(server.requests().len(), 2, "what is known by its checksum is not asked for");
        let error = get(Some(&Digest::of("other"))).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert_eq!(get(None).unwrap(), first, "a wrong checksum spoils nothing");
    }
}
