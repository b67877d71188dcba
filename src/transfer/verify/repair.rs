//! Putting right what is wrong, from the ground up.

use std::collections::BTreeSet;

use super::check::take_apart;
use super::needs::{Needs, Role};
use super::{Finding, Outcome, Part};
use crate::error::{Error, Kind, Place, Result, from_io};
use crate::event::{Event, next_id};
use crate::oci::{Descriptor, DiffId, Digest, Links, ManifestOrIndex, Reference, media_type};
use crate::store::{ImageRecord, Inventory, Replaced};
use crate::transfer::copy::Means;
use crate::transfer::pull::LONGEST_MANIFEST;

/// The work.
pub(super) struct Mender<'a> {
    means: &'a Means<'a>,
    needs: &'a Needs,
    inventory: &'a Inventory,
    /// Blobs that are here and whole.
    proven: BTreeSet<Digest>,
    /// Whether something may still be had from who did not answer now.
    unanswered: bool,
}

/// Why a blob can't be had.
enum Failure {
    /// Whoever could have it says that there is no such thing, or has other bytes.
    Gone(String),
    /// Nobody can tell now: no answer, no permission, nowhere to write. Nothing may be given up for that.
    Unsure(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match (error.kind(), error.place()) {
            // What is not found on this machine (a certificate, a program with credentials) has a path or no place.
            (Kind::NotFound, Some(Place::Name(_))) | (Kind::Corrupt, _) => Self::Gone(reason(&error)),
            _ => Self::Unsure(error),
        }
    }
}

impl<'a> Mender<'a> {
    pub(super) fn new(means: &'a Means<'a>, inventory: &'a Inventory, needs: &'a Needs, proven: BTreeSet<Digest>) -> Self {
        Self { means, needs, inventory, proven, unanswered: false }
    }

    /// Mends, drops or removes each; what each came to stands in it afterwards.
    pub(super) fn mend(mut self, findings: &mut [Finding]) -> Result<()> {
        // Manifests say how long the other blobs are.
        let described = |finding: &Finding| {
            let need = finding.name.parse().ok().and_then(|digest: Digest| self.needs.blobs.get(&digest));
            need.is_none_or(|need| need.role != Role::Manifest)
        };
        findings.sort_by_key(|finding| (finding.part, described(finding)));
        for finding in findings {
            let mended = match finding.part {
                Part::Blob => self.blob(finding),
                Part::Layer => self.layer(finding),
                Part::Record => self.record(finding),
                Part::Tree => self.tree(finding),
                Part::Referrers => self.means.store.discard_file(&finding.path).map(|()| detached("it can't be read", finding)),
                Part::Step | Part::Memory => self.means.store.discard_file(&finding.path).map(|()| {
                    let what = if finding.part == Part::Step { "the step is executed when it is needed" } else { "it only saves work" };
                    Outcome::Dropped(what.into())
                }),
            };
            finding.outcome = match mended {
                Ok(outcome) => outcome,
                // A full disk ends it all.
                Err(error) if error.kind() == Kind::NoSpace => return Err(error),
                Err(error) => Outcome::Left(reason(&error)),
            };
        }
        Ok(())
    }

    fn blob(&mut self, finding: &Finding) -> Result<Outcome> {
        let digest: Digest = finding.name.parse()?;
        let store = self.means.store;
        let Some(need) = self.needs.blobs.get(&digest) else {
            store.discard_blob(&digest)?;
            return Ok(Outcome::Dropped("no image needs it".into()));
        };
        let why = match self.fetch(&digest) {
            Ok(from) => return Ok(Outcome::Mended(format!("fetched again from {from}"))),
            Err(Failure::Unsure(error)) if need.role != Role::Layer || error.kind() == Kind::NoSpace => return Err(error),
            // The layer itself is here.
            Err(Failure::Unsure(error)) => reason(&error),
            Err(Failure::Gone(why)) => why,
        };
        if need.role == Role::Layer {
            store.discard_blob(&digest)?;
            return Ok(Outcome::Dropped(format!(
                "it can't be fetched ({why}); its layer is packed again when it is pushed, in other bytes"
            )));
        }
        store.discard_blob(&digest)?;
        if need.role != Role::Attached {
            return self.lose(&finding.images, &why, |record| {
                let extras = record.extras.iter().any(|extra| extra.manifest.digest == digest || extra.blobs.contains(&digest));
                let members = record.members();
                extras || record.index == Some(digest) || members.iter().any(|m| m.manifest.digest == digest || m.config == digest)
            });
        }
        for (subject, manifest) in &self.needs.attached {
            if manifest.digest == digest || self.names(manifest, &digest) {
                store.discard_file(&store.referrers_path(subject))?;
            }
        }
        Ok(detached(&why, finding))
    }

    /// Whether a manifest names a blob; one that can't be read may.
    fn names(&self, manifest: &Descriptor, blob: &Digest) -> bool {
        let bytes = self.means.store.read_blob(&manifest.digest, LONGEST_MANIFEST);
        bytes.and_then(|bytes| Links::parse(&bytes)).map_or(true, |links| links.blobs().iter().any(|named| named.digest == *blob))
    }

    /// Fetches a blob from a registry that one of its images came from.
    fn fetch(&mut self, digest: &Digest) -> Result<String, Failure> {
        let need = self.needs.blobs.get(digest);
        let names: BTreeSet<Reference> = need.map(|need| need.names.clone()).unwrap_or_default();
        let mut gone = "no image says where it came from".to_owned();
        let mut unsure = None;
        let mut asked = BTreeSet::new();
        for name in names
            .iter()
            .filter(|name| !self.never_left(name))
            .filter(|name| asked.insert((name.registry().to_owned(), name.repository().to_owned())))
        {
            let attached = self.needs.attached.iter().any(|(_, manifest)| manifest.digest == *digest);
            let fetched = match need.map(|need| need.role) {
                Some(Role::Attached) if attached => self.fetch_manifest(name, digest),
                Some(Role::Manifest) => self.fetch_manifest(name, digest),
                _ => match self.describe(digest) {
                    Some(blob) => self.fetch_blob(name, &blob),
                    None => Err(self.undescribed()),
                },
            };
            match fetched {
                Ok(()) => {
                    self.proven.insert(*digest);
                    return Ok(name.familiar_repository());
                }
                Err(error) if error.kind() == Kind::NoSpace => return Err(error.into()),
                Err(error) => match Failure::from(error) {
                    Failure::Gone(why) => gone = why,
                    Failure::Unsure(error) => unsure = Some(error),
                },
            }
        }
        self.unanswered |= unsure.is_some();
        Err(unsure.map_or(Failure::Gone(gone), Failure::Unsure))
    }

    /// Whether the name of an image built here only looks like one of docker.io's: nobody can push to `docker.io/library`.
    fn never_left(&self, name: &Reference) -> bool {
        let record = self.needs.records.iter().find(|record| record.reference == *name);
        let official = name.registry() == "docker.io" && name.repository().starts_with("library/");
        official && record.is_some_and(|record| self.means.store.built_here(record))
    }

    /// That no manifest names a blob is final only when no manifest is still to come.
    fn undescribed(&self) -> Error {
        let what = "no manifest says how long it is";
        if self.unanswered { Error::new(what) } else { Error::with_kind(Kind::Corrupt, what) }
    }

    fn fetch_manifest(&self, name: &Reference, digest: &Digest) -> Result<()> {
        let pinned: Reference = name.canonical(*digest).to_string().parse()?;
        let fetched = self.means.client.registry()?.manifest(&pinned, &media_type::ACCEPTED_MANIFESTS)?;
        // What is there has perhaps the same size, so it is replaced and not put.
        self.write(digest, None, &fetched.bytes[..])
    }

    fn fetch_blob(&self, name: &Reference, blob: &Descriptor) -> Result<()> {
        let id = next_id();
        let what = format!("blob {}", blob.digest.short());
        self.means.sink.event(Event::TransferStarted { id, what: &what, total: Some(blob.size) });
        let stream = self.means.client.registry()?.blob(name, blob, 0);
        let done = stream.and_then(|stream| self.write(&blob.digest, Some(blob.size), stream));
        self.means.sink.event(Event::TransferFinished { id, note: if done.is_ok() { "fetched again" } else { "not there" } });
        done
    }

    fn write(&self, digest: &Digest, size: Option<u64>, mut from: impl std::io::Read) -> Result<()> {
        let mut writer = self.means.store.blob_writer()?;
        std::io::copy(&mut from, &mut writer).map_err(|e| from_io(|| "can't fetch the blob".into(), e))?;
        writer.commit(digest, size)
    }

    /// Size and type of a blob: as manifests had it, or have it by now; `None` if none of those here names it.
    fn describe(&self, digest: &Digest) -> Option<Descriptor> {
        if let Some(descriptor) = self.needs.blobs.get(digest).and_then(|need| need.descriptor.clone()) {
            return Some(descriptor);
        }
        for record in &self.needs.records {
            for member in record.members() {
                let Ok(bytes) = self.means.store.read_blob(&member.manifest.digest, LONGEST_MANIFEST) else {
                    continue;
                };
                if let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes, None)
                    && let Some(found) = manifest.layers.iter().chain([&manifest.config]).find(|blob| blob.digest == *digest)
                {
                    return Some(found.clone());
                }
            }
        }
        for (_, manifest) in &self.needs.attached {
            let bytes = self.means.store.read_blob(&manifest.digest, LONGEST_MANIFEST);
            let links = bytes.and_then(|bytes| Links::parse(&bytes)).map(|links| links.blobs()).unwrap_or_default();
            if let Some(found) = links.iter().find(|blob| blob.digest == *digest) {
                return Some(found.clone());
            }
        }
        None
    }

    fn layer(&mut self, finding: &Finding) -> Result<Outcome> {
        let diff_id = DiffId(finding.name.parse()?);
        let mut sources = self.needs.sources.get(&diff_id).cloned().unwrap_or_default();
        // What is here costs nothing.
        sources.sort_by_key(|blob| !self.proven.contains(&blob.digest));
        let mut why = "there is no blob of it".to_owned();
        let mut unsure = None;
        for blob in &sources {
            let from = if self.proven.contains(&blob.digest) { Ok(None) } else { self.fetch(&blob.digest).map(Some) };
            match from.and_then(|from| Ok((from, self.unpack(&diff_id, blob)?))) {
                Err(Failure::Unsure(error)) if error.kind() == Kind::NoSpace => return Err(error),
                Err(Failure::Unsure(error)) => unsure = Some(error),
                Err(Failure::Gone(said)) => why = said,
                Ok((from, Replaced::Done)) => {
                    let from = from.map(|from| format!(", which was fetched from {from}")).unwrap_or_default();
                    return Ok(Outcome::Mended(format!("unpacked again from blob {}{from}", blob.digest.short())));
                }
                Ok((_, Replaced::InUse)) => return Ok(in_use()),
            }
        }
        if let Some(error) = unsure {
            return Err(error);
        }
        let discarded = self.means.store.discard_layer(&diff_id)?;
        if discarded == Replaced::Done {
            self.forget_steps(&diff_id)?;
        }
        match discarded {
            Replaced::InUse => Ok(in_use()),
            Replaced::Done if finding.images.is_empty() => Ok(Outcome::Dropped("no image needs it".into())),
            Replaced::Done => self.lose(&finding.images, &why, |record| record.members().iter().any(|m| m.layers.contains(&diff_id))),
        }
    }

    /// Steps that made a layer, or were made on it, are to be executed again.
    fn forget_steps(&self, diff_id: &DiffId) -> Result<()> {
        let of_layer = self.inventory.steps.iter().filter(|(_, step)| step.as_ref().is_some_and(|step| step.layers.contains(diff_id)));
        of_layer.into_iter().try_for_each(|(key, _)| self.means.store.discard_file(&self.means.store.step_path(key)))
    }

    fn unpack(&self, diff_id: &DiffId, blob: &Descriptor) -> Result<Replaced> {
        let draft = self.means.store.draft()?;
        let unpacked = take_apart(self.means, blob, Some(&draft))?;
        crate::transfer::pipeline::expect(unpacked, &diff_id.0)?;
        self.means.store.replace_layer(draft, diff_id, unpacked.size)
    }

    fn record(&self, finding: &Finding) -> Result<Outcome> {
        let store = self.means.store;
        if let Some(record) = self.needs.records.iter().find(|record| finding.images.contains(&record.reference)) {
            // Its documents may have been lost with it a moment ago.
            if store.image(&record.reference)?.is_none() {
                return Ok(Outcome::Lost("removed with what it needs".into()));
            }
            store.rewrite_record(record)?;
            return Ok(Outcome::Mended("written again from the manifest".into()));
        }
        store.discard_file(&finding.path)?;
        Ok(Outcome::Lost(format!("removed; pull or build `{}` again", finding.name)))
    }

    fn tree(&self, finding: &Finding) -> Result<Outcome> {
        Ok(match self.means.store.discard_tree(&finding.name.parse()?)? {
            Replaced::Done => Outcome::Dropped("it is made again when it is needed".into()),
            Replaced::InUse => in_use(),
        })
    }

    /// Takes the names away that need what can't be had.
    fn lose(&self, names: &[Reference], why: &str, needs: impl Fn(&ImageRecord) -> bool) -> Result<Outcome> {
        for name in names {
            // Someone may have given the name to another image meanwhile.
            if self.means.store.image(name).is_ok_and(|record| record.is_none_or(|record| !needs(&record))) {
                continue;
            }
            self.means.store.remove_image(name)?;
        }
        let names: Vec<String> = names.iter().map(Reference::familiar).collect();
        Ok(Outcome::Lost(format!("it can't be mended ({why}): removed {}; pull or build again", names.join(", "))))
    }
}

/// The image is what it was.
fn detached(why: &str, finding: &Finding) -> Outcome {
    let names: Vec<String> = finding.images.iter().map(Reference::familiar).collect();
    Outcome::Lost(format!("it can't be mended ({why}); {} no longer has what was attached to it: build or pull again", names.join(", ")))
}

fn in_use() -> Outcome {
    Outcome::Left("a running command uses it; try again when that has ended".into())
}

fn reason(error: &Error) -> String {
    match error.causes().last() {
        Some(cause) => format!("{}: {cause}", error.what()),
        None => error.what().to_owned(),
    }
}
