//! Images made by hand and a registry that serves them: the ground for hostile and interrupted pulls, where a real
//! registry would refuse to take part. For a real one see `registry.rs`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

/// `sha256:` and the hexadecimal digest.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// A tar archive written entry by entry, without anybody's idea of what is allowed.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// An entry: name, type flag, mode, link target and content, as they are.
    pub fn entry(mut self, name: &str, flag: u8, mode: u32, link: &str, content: &[u8]) -> Tar {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"07346545000\0");
        put(148, b"        ");
        put(156, &[flag]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, b"0000001\0");
        put(337, b"0000003\0");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &str) -> Tar {
        self.entry(name, b'0', 0o644, "", content.as_bytes())
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(name, b'2', 0o777, target, b"")
    }

    pub fn directory(self, name: &str) -> Tar {
        self.entry(name, b'5', 0o755, "", b"")
    }

    /// A file with a PAX extended header before it.
    pub fn pax(self, name: &str, records: &[(&str, &str)], content: &str) -> Tar {
        let mut body = String::new();
        for (key, value) in records {
            let bare = format!(" {key}={value}\n").len();
            let mut length = bare + 1;
            while length != bare + length.to_string().len() {
                length = bare + length.to_string().len();
            }
            body += &format!("{length} {key}={value}\n");
        }
        self.entry("pax", b'x', 0o644, "", body.as_bytes()).file(name, content)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// gzip, level 1.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A layer as an image describes it; each field can be made to lie.
pub struct Layer {
    pub blob: Vec<u8>,
    pub media_type: &'static str,
    pub digest: String,
    pub size: usize,
    pub diff_id: String,
}

impl Layer {
    pub fn gzipped(tar: &[u8]) -> Layer {
        let blob = gzip(tar);
        Layer {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
            digest: digest(&blob),
            size: blob.len(),
            diff_id: digest(tar),
            blob,
        }
    }

    pub fn plain(tar: &[u8]) -> Layer {
        Layer {
            media_type: "application/vnd.oci.image.layer.v1.tar",
            digest: digest(tar),
            size: tar.len(),
            diff_id: digest(tar),
            blob: tar.to_vec(),
        }
    }

    pub fn zstd(tar: &[u8]) -> Layer {
        let blob = zstd::encode_all(tar, 1).unwrap();
        Layer {
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
            digest: digest(&blob),
            size: blob.len(),
            diff_id: digest(tar),
            blob,
        }
    }
}

/// How a blob is sent.
#[derive(Clone, Copy, PartialEq)]
pub enum Sending {
    Whole,
    /// Each connection ends after so many bytes of a body; a client that resumes gets there.
    Cut(usize),
}

type Answers = Arc<Mutex<HashMap<String, (&'static str, Vec<u8>)>>>;

/// A registry on loopback that serves what it was given and says nothing else.
pub struct Served {
    address: String,
    answers: Answers,
}

impl Served {
    pub fn start(sending: Sending) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers = Answers::default();
        let shared = Arc::clone(&answers);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = Arc::clone(&shared);
                thread::spawn(move || answer(stream, &answers, sending));
            }
        });
        Served { address, answers }
    }

    /// Serves an image; returns its reference.
    pub fn image(&self, name: &str, layers: &[Layer]) -> String {
        let config = serde_json::json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id.clone()).collect::<Vec<_>>() },
        });
        let config = serde_json::to_vec(&config).unwrap();
        let described: Vec<_> =
            layers.iter().map(|l| serde_json::json!({ "mediaType": l.media_type, "digest": l.digest, "size": l.size })).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
            "layers": described,
        });
        self.blob(name, &digest(&config), config);
        for layer in layers {
            self.blob(name, &layer.digest, layer.blob.clone());
        }
        self.manifest(name, "latest", serde_json::to_vec(&manifest).unwrap());
        self.reference(name)
    }

    pub fn blob(&self, name: &str, digest: &str, bytes: Vec<u8>) {
        self.answers.lock().unwrap().insert(format!("/v2/{name}/blobs/{digest}"), ("application/octet-stream", bytes));
    }

    pub fn manifest(&self, name: &str, tag: &str, bytes: Vec<u8>) {
        let mut answers = self.answers.lock().unwrap();
        for path in [format!("/v2/{name}/manifests/{tag}"), format!("/v2/{name}/manifests/{}", digest(&bytes))] {
            answers.insert(path, ("application/vnd.oci.image.manifest.v1+json", bytes.clone()));
        }
    }

    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.address)
    }
}

/// Answers one request and closes the connection.
fn answer(mut stream: TcpStream, answers: &Answers, sending: Sending) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|l| !l.is_empty()).map(|l| l.to_ascii_lowercase()).collect();
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let found = if path == "/v2/" { Some(("application/json", b"{}".to_vec())) } else { answers.lock().unwrap().get(path).cloned() };
    let Some((media_type, body)) = found else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let start =
        headers.iter().find_map(|h| h.strip_prefix("range: bytes=")?.split('-').next()?.parse().ok()).unwrap_or(0usize).min(body.len());
    let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
    let range = if start > 0 { format!("Content-Range: bytes {start}-{}/{}\r\n", body.len() - 1, body.len()) } else { String::new() };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\n{range}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len() - start
    );
    let _ = stream.write_all(head.as_bytes());
    if method == "HEAD" {
        return;
    }
    let end = match sending {
        Sending::Cut(n) if path.contains("/blobs/") => body.len().min(start + n),
        _ => body.len(),
    };
    let _ = stream.write_all(&body[start..end]);
}
