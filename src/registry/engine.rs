//! Docker's engine on this machine, over its Unix socket: only what takes an image there, and back.
//!
//! Source: Docker Engine API 1.41, "Import images", "Export an image".

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use super::body::Body;
use super::fault;
use super::payload::{Payload, Sent};
use super::settings::Patience;
use super::transport::read_limited;
use crate::error::{Error, Kind, Result, from_io, quote, quote_path};
use crate::oci::Reference;

/// What the engine says while it loads: some hundred bytes a layer.
const LONGEST_ANSWER: usize = 4 << 20;

/// An engine that reads and writes whole images before it answers may be silent for so long.
const STALL: Duration = Duration::from_secs(600);

/// A running engine.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The engine at a socket.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Loads a docker archive (`docker load`). `seen` is told how many bytes have gone.
    pub fn load(&self, archive: Box<dyn Read + Send>, seen: &dyn Fn(u64) -> Result<()>) -> Result<()> {
        let what = format!("can't load the image into Docker's engine at {}", quote_path(&self.socket));
        let network = |cause: String| Error::with_kind(Kind::Network, &what).cause(cause);
        self.talk(&what, async |client| {
            let request = client.post("http://docker/images/load?quiet=1");
            let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
            let archive = std::sync::Mutex::new(Some(archive));
            let gone = || Error::new("an archive can be sent only once");
            let open = || archive.lock().ok().and_then(|mut archive| archive.take()).ok_or_else(gone);
            let payload = Payload::Stream { length: None, open: &open, seen };
            let patience = Patience { stall: STALL, ..Patience::default() };
            let response = match payload.send(request, &patience).await {
                Sent::Ours(error) => return Err(error),
                Sent::Silence(waited) => return Err(network(format!("no answer for {} s", waited.as_secs()))),
                Sent::Answer(Err(e)) => return Err(network(fault::innermost(&e))),
                Sent::Answer(Ok(response)) => response,
            };
            let status = response.status();
            let body = read_limited(response, LONGEST_ANSWER, patience.stall).await.map_err(network)?;
            match complaint(&body) {
                None if status.is_success() => Ok(()),
                said => Err(Error::new(&what).cause(format!("it answered {status}: {}", quote(said.unwrap_or_default())))),
            }
        })
    }

    /// Has an image's docker archive written out (`docker save`).
    pub fn save(&self, reference: &Reference, out: &mut dyn Write) -> Result<()> {
        let name = reference.familiar();
        let what = format!("can't save {} from Docker's engine at {}", quote(&name), quote_path(&self.socket));
        let network = |cause: String| Error::with_kind(Kind::Network, &what).cause(cause);
        self.talk(&what, async |client| {
            let response = client.get(format!("http://docker/images/{name}/get")).send().await;
            let response = response.map_err(|e| network(fault::innermost(&e)))?;
            let status = response.status();
            if !status.is_success() {
                let body = read_limited(response, LONGEST_ANSWER, STALL).await.map_err(network)?;
                let kind = if status == StatusCode::NOT_FOUND { Kind::NotFound } else { Kind::Other };
                return Err(Error::with_kind(kind, &what).cause(complaint(&body).unwrap_or_else(|| format!("it answered {status}"))));
            }
            let mut body = Body::new(response);
            while let Some(piece) = body.next(STALL).await.map_err(network)? {
                out.write_all(piece.as_ref()).map_err(|e| from_io(|| what.clone(), e))?;
            }
            Ok(())
        })
    }

    /// Runs a conversation.
    fn talk<T>(&self, what: &str, conversation: impl AsyncFnOnce(reqwest::Client) -> Result<T>) -> Result<T> {
        // The client below would say only that it could not connect.
        std::os::unix::net::UnixStream::connect(&self.socket).map_err(|e| self.unreachable(what, e))?;
        let network = |cause: String| Error::with_kind(Kind::Network, what).cause(cause);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(4).enable_all().build();
        let runtime = runtime.map_err(|e| Error::os("can't start threads", e))?;
        runtime.block_on(async {
            let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
            let tls = tls.with_safe_default_protocol_versions().map_err(|e| network(e.to_string()))?;
            let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
            let client = reqwest::Client::builder().tls_backend_preconfigured(tls).unix_socket(self.socket.clone()).http1_only();
            conversation(client.no_proxy().build().map_err(|e| network(fault::innermost(&e)))?).await
        })
    }

    fn unreachable(&self, what: &str, e: std::io::Error) -> Error {
        let error = Error::os(what, e);
        match error.kind() {
            Kind::Denied => error.hint("only root and members of the group `docker` may use it"),
            _ => error.hint("is `dockerd` running? Another socket is named by `$DOCKER_HOST` as `unix:///PATH`"),
        }
    }
}

/// The error in what an engine answers: a JSON document, or one a line while it works.
fn complaint(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|value| {
        let said = value.get("error").or_else(|| value.get("message"))?;
        said.as_str().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_complaints() {
        for (body, expected) in [
            ("{\"stream\":\"Loaded image: a:1\\n\"}\r\n", None),
            ("{\"stream\":\"x\"}\n{\"errorDetail\":{\"message\":\"bad\"},\"error\":\"bad\"}\n", Some("bad")),
            ("{\"message\":\"no space\"}", Some("no space")),
            ("", None),
        ] {
            assert_eq!(complaint(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }
}
