//! Proof that the storage directory is whole: every blob has its digest, every layer is what its tar says, records agree with documents.
//!
//! A layer that was packed here has the digest of its own tar. One that came from elsewhere is unpacked again, from a blob that proves itself, and compared.
//! Where there is no such blob nothing can be proven of it, which the report says. Trees are compared with the layers they are made of.
//!
//! Repairing goes from the ground up: blobs are fetched again from the registries that the images' names say, layers are unpacked again from blobs,
//! records written again from documents. What only saves work (steps, trees, memory of blobs) is dropped. What is left can't be mended, and is removed
//! with the names that need it; but what a registry that does not answer may still have is left as it is. Each of these is one rename; killed in between, what was not mended yet is found again.

mod check;
mod needs;
mod repair;

use std::path::PathBuf;

use super::copy::Means;
use crate::error::Result;
use crate::oci::{DiffId, Reference};
use crate::store::ImageRecord;

use check::Check;
use needs::Needs;
use repair::Mender;

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct VerifyRequest {
    /// Only what these names need; all there is, where there are none.
    pub images: Vec<ImageRecord>,
    /// Whether to put right what is wrong.
    pub repair: Repair,
    /// Threads that read.
    pub threads: usize,
}

/// Whether to put right what is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// Only tell.
    #[default]
    No,
    /// Mend, or remove.
    Yes,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Things that were read.
    pub checked: Checked,
    /// What is wrong, and what became of it.
    pub findings: Vec<Finding>,
    /// Layers of someone's tar, of which there is no blob here.
    pub unproven: Vec<(DiffId, Vec<Reference>)>,
    /// Files that are not ours.
    pub strangers: Vec<PathBuf>,
}

/// How many things were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Names.
    pub images: u64,
    /// Blobs.
    pub blobs: u64,
    /// Layers.
    pub layers: u64,
    /// Trees.
    pub trees: u64,
    /// Records of the cache.
    pub records: u64,
    /// Bytes of blobs and of layers' tars.
    pub bytes: u64,
}

/// A kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A blob.
    Blob,
    /// A layer.
    Layer,
    /// An image's record.
    Record,
    /// A tree of several layers.
    Tree,
    /// A step of the cache.
    Step,
    /// The memory of which blobs hold a layer.
    Memory,
    /// The list of what is attached to a manifest.
    Referrers,
}

/// Something that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What kind of thing.
    pub part: Part,
    /// Digest, or name.
    pub name: String,
    /// Where it is, or should be.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// More of that: the files of a layer.
    pub details: Vec<String>,
    /// The names that need it.
    pub images: Vec<Reference>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody tried.
    Found,
    /// It is right now; how.
    Mended(String),
    /// It only saved work, and is gone.
    Dropped(String),
    /// It can't be mended, and is gone with the names that need it.
    Lost(String),
    /// It is still wrong; why.
    Left(String),
}

impl Report {
    /// Whether nothing is wrong any more, and nothing was lost.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| matches!(finding.outcome, Outcome::Mended(_) | Outcome::Dropped(_)))
    }
}

impl Part {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::Record => "image record",
            Self::Tree => "tree",
            Self::Step => "step",
            Self::Memory => "memory of blobs",
            Self::Referrers => "list of referrers",
        }
    }
}

/// Reads everything and tells what is wrong. An error is only what keeps it from going on.
pub fn verify(means: &Means<'_>, request: &VerifyRequest) -> Result<Report> {
    let inventory = means.store.inventory()?;
    let needs = Needs::of(means.store, &inventory)?;
    let check = Check::new(means, &inventory, &needs, request);
    check.all()?;
    let mut findings = check.findings();
    if request.repair == Repair::Yes {
        Mender::new(means, &inventory, &needs, check.proven()).mend(&mut findings)?;
    }
    let broken = findings.iter().any(|finding| finding.part == Part::Layer && !matches!(finding.outcome, Outcome::Mended(_)));
    if request.images.is_empty() && !broken {
        let start = findings.len();
        findings.extend(check.trees()?);
        if request.repair == Repair::Yes {
            Mender::new(means, &inventory, &needs, check.proven()).mend(&mut findings[start..])?;
        }
    }
    findings.sort_by(|a, b| (a.part, &a.name).cmp(&(b.part, &b.name)));
    Ok(Report { checked: check.checked(), findings, unproven: check.unproven(), strangers: inventory.strangers })
}
