//! A registry in memory that does what the distribution-spec says.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rootling::oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, Platform, media_type};

use crate::fault::{Asked, Reply, http};

/// What it has, below `/v2/some/image/`.
#[derive(Default)]
pub struct Memory {
    files: Mutex<HashMap<String, (String, Vec<u8>)>>,
    uploads: Mutex<HashMap<String, Vec<u8>>>,
    begun: AtomicUsize,
    asked: Mutex<HashMap<String, usize>>,
}

impl Memory {
    pub fn put(&self, name: &str, media_type: &str, bytes: &[u8]) {
        self.files.lock().unwrap().insert(name.to_owned(), (media_type.to_owned(), bytes.to_vec()));
    }

    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        self.put(&format!("blobs/{digest}"), "application/octet-stream", bytes);
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    /// A document under its digest, and under the tag if it is to have it.
    pub fn document(&self, media_type: &str, bytes: &[u8], name: Option<&str>) -> Descriptor {
        let digest = Digest::of(bytes);
        for name in name.into_iter().chain([digest.to_string().as_str()]) {
            self.put(&format!("manifests/{name}"), media_type, bytes);
        }
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    pub fn image(&self, layer: (&str, &[u8], &[u8]), name: Option<&str>) -> Descriptor {
        let (kind, blob, tar) = layer;
        let mut config = ImageConfig::scratch(&Platform::host());
        config.rootfs.diff_ids = vec![DiffId(Digest::of(tar))];
        let config = self.blob(media_type::OCI_CONFIG, &config.to_bytes());
        let layer = self.blob(kind, blob);
        self.document(media_type::OCI_MANIFEST, &Manifest::oci(config, vec![layer]).to_bytes(), name)
    }

    /// One layer of some 600 kB, which no compression makes smaller.
    pub fn usual_image(&self) {
        let tar = usual_tar();
        self.image((media_type::OCI_LAYER, &tar, &tar), Some("tag"));
    }

    pub fn has(&self, name: &str) -> bool {
        self.files.lock().unwrap().contains_key(name)
    }

    pub fn digest(&self, name: &str) -> Option<Digest> {
        self.files.lock().unwrap().get(name).map(|(_, bytes)| Digest::of(bytes))
    }

    pub fn forget_all(&self) {
        self.files.lock().unwrap().clear();
    }

    pub fn forget_uploads(&self) {
        self.uploads.lock().unwrap().clear();
    }

    /// Takes so many bytes off each upload.
    pub fn shorten_uploads(&self, by: usize) {
        self.uploads.lock().unwrap().values_mut().for_each(|bytes| bytes.truncate(bytes.len().saturating_sub(by)));
    }

    /// How often something of this kind was asked, this time included: method and kind of thing count.
    pub fn asked(&self, asked: &Asked) -> usize {
        let (method, path) = words(&asked.line);
        let kind = ["uploads", "blobs", "manifests"].into_iter().find(|kind| path.contains(kind)).unwrap_or(path);
        let mut counts = self.asked.lock().unwrap();
        let count = counts.entry(format!("{method} {kind}")).or_default();
        *count += 1;
        *count
    }

    pub fn answer(&self, asked: &Asked) -> Reply {
        let (method, path) = words(&asked.line);
        let name = path.strip_prefix("/v2/some/image/").unwrap_or_default();
        let (name, query) = name.split_once('?').unwrap_or((name, ""));
        Reply::Close(match (method, name) {
            ("POST", "blobs/uploads/") => {
                let mut uploads = self.uploads.lock().unwrap();
                let id = format!("u{}", self.begun.fetch_add(1, Ordering::Relaxed));
                uploads.insert(id.clone(), Vec::new());
                http("202 Accepted", &[&format!("Location: /v2/some/image/blobs/uploads/{id}")], "")
            }
            (_, upload) if upload.starts_with("blobs/uploads/") => self.upload(method, upload, query, asked),
            ("PUT", document) if document.starts_with("manifests/") => {
                let kind = asked.headers.get("content-type").cloned().unwrap_or_default();
                let digest = self.document(&kind, &asked.body, document.strip_prefix("manifests/")).digest;
                http("201 Created", &[&format!("Docker-Content-Digest: {digest}")], "")
            }
            (_, name) => self.file(method, name, asked.range()),
        })
    }

    fn file(&self, method: &str, name: &str, from: usize) -> Vec<u8> {
        let files = self.files.lock().unwrap();
        let Some((media_type, bytes)) = files.get(name) else { return not_found("MANIFEST_UNKNOWN", "not here") };
        let headers = [
            format!("Content-Type: {media_type}"),
            format!("Docker-Content-Digest: {}", Digest::of(bytes)),
            format!("Content-Length: {}", bytes.len().saturating_sub(from)),
            format!("Content-Range: bytes {from}-{}/{}", bytes.len().max(1) - 1, bytes.len()),
        ];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let body = if method == "HEAD" { &[][..] } else { &bytes[from.min(bytes.len())..] };
        http(if from > 0 { "206 Partial Content" } else { "200 OK" }, &headers, body)
    }

    fn upload(&self, method: &str, path: &str, query: &str, asked: &Asked) -> Vec<u8> {
        let id = path.rsplit('/').next().unwrap();
        let mut uploads = self.uploads.lock().unwrap();
        let Some(bytes) = uploads.get_mut(id) else { return not_found("BLOB_UPLOAD_UNKNOWN", "no such upload") };
        let start = asked.headers.get("content-range").and_then(|range| range.split('-').next()?.parse().ok());
        if method != "GET" && start.is_some_and(|start: usize| start != bytes.len()) {
            return http("416 Range Not Satisfiable", &[], "");
        }
        bytes.extend_from_slice(&asked.body);
        let range = format!("Range: 0-{}", bytes.len().max(1) - 1);
        let place = format!("Location: /v2/some/image/{path}");
        match (method, query.split("digest=").nth(1)) {
            ("PUT", Some(digest)) => {
                let bytes = uploads.remove(id).unwrap();
                if Digest::of(&bytes).to_string() != digest {
                    return http("400 Bad Request", &[], r#"{"errors":[{"code":"DIGEST_INVALID","message":"digest invalid"}]}"#);
                }
                self.blob("", &bytes);
                http("201 Created", &[&format!("Docker-Content-Digest: {digest}")], "")
            }
            ("GET", _) => http("204 No Content", &[&range, &place], ""),
            _ => http("202 Accepted", &[&range, &place], ""),
        }
    }
}

fn words(line: &str) -> (&str, &str) {
    let mut words = line.split(' ');
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

fn not_found(code: &str, message: &str) -> Vec<u8> {
    http("404 Not Found", &[], format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#))
}

/// A tar of one file that looks like noise.
pub fn usual_tar() -> Vec<u8> {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(600_000)
    .collect();
    tar_of(&noise)
}

pub fn tar_of(content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, "file", content).unwrap();
    builder.into_inner().unwrap()
}
