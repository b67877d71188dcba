//! A file from a URL into the storage directory: a blob, and a record of what the server said about it, so that an unchanged URL
//! is not downloaded twice.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::client::Client;
use crate::error::{Error, Kind, Result, from_io, hide_credentials, quote};
use crate::event::{Event, Sink, next_id};
use crate::oci::Digest;
use crate::registry::{Ask, Fetched, Head, Receiver, Validators};
use crate::store::{BlobWriter, StepRecord, Store, Work};

/// What to download.
#[derive(Clone, Copy, Debug)]
pub struct DownloadRequest<'a> {
    /// `http://` or `https://`.
    pub url: &'a str,
    /// What the bytes must have; if they are here, nobody is asked.
    pub checksum: Option<&'a Digest>,
    /// The `Authorization` header for the URL's host.
    pub authorization: Option<&'a str>,
}

/// What a URL has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downloaded {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// `Last-Modified` in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    downloaded: Downloaded,
    validators: Validators,
}

/// Brings what a URL has now here as a blob.
///
/// Errors: the network's, `NotFound`, and `Corrupt` for another checksum; nothing is kept then.
pub fn download(store: &Store, client: &Client, request: &DownloadRequest<'_>, sink: &dyn Sink) -> Result<Downloaded> {
    // Hashed, so that no record shows credentials or signatures of a URL.
    let key = Digest::of(format!("download\0{}", request.url));
    let _lock = store.lock(Work::Step(&key))?;
    let record = store.step_get(&key)?.and_then(|step| serde_json::from_value::<Record>(step.value).ok());
    if let (Some(record), Some(checksum)) = (&record, request.checksum)
        && record.downloaded.digest == *checksum
    {
        return Ok(record.downloaded.clone());
    }
    let ask = Ask { url: request.url, authorization: request.authorization, known: record.as_ref().map(|record| &record.validators) };
    let shown = hide_credentials(request.url);
    let mut incoming = Incoming { writer: store.blob_writer()?, what: &shown, sink, id: None, done: 0 };
    let fetched = client.registry()?.download(&ask, &mut incoming)?;
    let id = incoming.id;
    let record = match (fetched, record) {
        (Fetched::Unchanged, Some(record)) => record,
        (Fetched::Unchanged, None) => return Err(Error::new("the server says `not modified` to who has nothing")),
        (Fetched::Whole(head), _) => {
            let Head { validators, modified, .. } = head;
            let (digest, size) = incoming.finish(request.checksum)?;
            Record { downloaded: Downloaded { digest, size, modified }, validators }
        }
    };
    if let Some(checksum) = request.checksum {
        check(&shown, &record.downloaded.digest, checksum)?;
    }
    if let Some(id) = id {
        sink.event(Event::TransferFinished { id, note: "done" });
    }
    let value = serde_json::to_value(&record).expect("plain data");
    store.step_put(&key, &StepRecord { layers: Vec::new(), blobs: vec![record.downloaded.digest], value })?;
    Ok(record.downloaded)
}

struct Incoming<'a> {
    writer: BlobWriter,
    what: &'a str,
    sink: &'a dyn Sink,
    id: Option<u64>,
    done: u64,
}

impl Incoming<'_> {
    fn finish(self, checksum: Option<&Digest>) -> Result<(Digest, u64)> {
        let size = self.writer.written();
        let Some(checksum) = checksum else { return self.writer.finish() };
        let what = self.what.to_owned();
        match self.writer.commit(checksum, Some(size)) {
            Err(e) if e.kind() == Kind::Corrupt => {
                let error = mismatch(&what, checksum);
                Err(e.causes().iter().fold(error, |error, cause| error.cause(cause)))
            }
            outcome => outcome.map(|()| (*checksum, size)),
        }
    }
}

impl Receiver for Incoming<'_> {
    fn begin(&mut self, head: &Head) -> Result<()> {
        if self.id.is_none() {
            let id = next_id();
            self.sink.event(Event::TransferStarted { id, what: self.what, total: head.size });
            self.id = Some(id);
        }
        self.done = 0;
        if self.writer.written() > 0 { self.writer.restart() } else { Ok(()) }
    }

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        self.writer.write_all(piece).map_err(|e| from_io(|| format!("can't store {}", quote(self.what)), e))?;
        self.done += piece.len() as u64;
        if let Some(id) = self.id {
            self.sink.event(Event::TransferAdvanced { id, done: self.done });
        }
        Ok(())
    }
}

fn check(shown: &str, digest: &Digest, checksum: &Digest) -> Result<()> {
    if digest == checksum { Ok(()) } else { Err(mismatch(shown, checksum).cause(format!("what is there has digest `{digest}`"))) }
}

fn mismatch(shown: &str, checksum: &Digest) -> Error {
    Error::with_kind(Kind::Corrupt, format!("{} does not have the checksum that is asked for", quote(shown)))
        .cause(format!("expected `{checksum}`"))
        .hint("if the file was replaced on purpose, change the checksum")
}
