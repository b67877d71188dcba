//! Images as members of a list: which ones a user means, and what the list says of them.

use std::collections::BTreeMap;

use super::super::environment::Environment;
use super::super::pull::RegistryArguments;
use super::super::render::{Printer, Progress};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::{Descriptor, Index, Platform};
use crate::store::{ImageRecord, Store};
use crate::transfer::{self, Documents, Means, Place, Which};

/// What a list says of an image.
#[derive(clap::Args)]
pub struct Notes {
    /// CPU architecture, such as arm64 [default: what the image says]
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// CPU variant, such as v7
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// What the operating system must have; repeated or separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    os_features: Vec<String>,
    /// What the CPU must have; repeated or separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    features: Vec<String>,
    /// A note on the image; repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = annotation)]
    annotation: Vec<(String, String)>,
}

/// `NAME=VALUE`.
pub fn annotation(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

impl Notes {
    /// Puts the notes on a member. Errors: an architecture nobody knows, and that looks like one.
    pub fn put(&self, member: &mut Descriptor) -> Result<()> {
        let mut platform = member.platform.take().unwrap_or_else(|| Platform::new("linux", "", None));
        let written = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(arch) = written(&self.arch) {
            // `x86_64` and the like are put in Go's words.
            let read: Platform = format!("{}/{arch}", if platform.os.is_empty() { "linux" } else { &platform.os }).parse()?;
            if let Some(near) = read.misspelt() {
                return Err(Error::input(format!("unknown architecture {}", quote(&arch))).hint(format!("did you mean {}?", quote(near))));
            }
            platform.architecture = read.architecture;
            platform.variant = read.variant;
        }
        platform.os = written(&self.os).unwrap_or(platform.os);
        platform.variant = written(&self.variant).or(platform.variant);
        platform.os_version = written(&self.os_version).or(platform.os_version);
        for (list, words) in [(&mut platform.os_features, &self.os_features), (&mut platform.features, &self.features)] {
            list.extend(words.iter().filter(|word| !word.is_empty()).cloned());
            let mut seen = std::collections::BTreeSet::new();
            list.retain(|word| seen.insert(word.clone()));
        }
        member.platform = Some(platform);
        member.annotations.extend(self.annotation.iter().cloned());
        Ok(())
    }

    /// The platform these options choose of an index: docker and podman let them do both.
    fn platform(&self) -> Result<Platform> {
        let host = Platform::host();
        let (os, arch) = (self.os.as_deref().unwrap_or(&host.os), self.arch.as_deref().unwrap_or(&host.architecture));
        let variant = self.variant.as_deref().map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{os}/{arch}{variant}").parse()
    }

    fn chooses(&self) -> bool {
        self.arch.is_some() || self.os.is_some() || self.variant.is_some()
    }
}

/// Finds images and brings here what is not.
pub struct Finder<'a> {
    pub store: &'a Store,
    pub environment: &'a Environment,
    pub registry: &'a RegistryArguments,
    pub progress: Progress,
    /// All images of an index.
    pub all: bool,
}

impl Finder<'_> {
    /// The members that an argument means: images here by name, digest or ID, else those of a registry or archive.
    pub fn members(&self, text: &str, notes: Option<&Notes>) -> Result<Vec<Descriptor>> {
        let chosen = notes.filter(|notes| notes.chooses()).map(Notes::platform).transpose()?;
        let spelled = Place::of_source(text)?;
        if spelled.is_none() {
            match self.store.find_image(text) {
                Ok(record) => return self.local(&record, text, chosen.as_ref()),
                // An ID is in no registry.
                Err(error) if error.kind() != Kind::NotFound || text.parse::<crate::oci::Reference>().is_err() => return Err(error),
                Err(_) => {}
            }
        }
        let place = match spelled {
            Some(place) => place,
            None => Place::Registry { reference: text.parse()?, documents: Documents::Same },
        };
        let printer = Printer::new(self.progress);
        let client = self.registry.client(self.environment).for_places(&[&place]);
        let host = Platform::host();
        let wanted = chosen.as_ref().unwrap_or(&host);
        let which = if self.all { Which::All } else { Which::One(wanted) };
        let means = Means { store: self.store, client: &client, sink: &printer };
        let found = transfer::members(&means, &place, which);
        match (found, &chosen) {
            // A registry may have one image for one platform, which the options then only describe.
            (Err(error), Some(_)) if error.kind() == Kind::NotFound && !self.all => {
                transfer::members(&means, &place, Which::One(&host)).map_err(|_| error)
            }
            (found, _) => found,
        }
    }

    fn local(&self, record: &ImageRecord, text: &str, chosen: Option<&Platform>) -> Result<Vec<Descriptor>> {
        record.expect_image()?;
        let index = self.store.index_of(record)?.map(|(_, index)| index);
        let entry = |digest| index.as_ref().and_then(|index| index.manifests.iter().find(|member| member.digest == digest));
        let describe = |member: &crate::store::Member| match entry(member.manifest.digest) {
            Some(entry) if entry.platform.is_some() => entry.clone(),
            _ => Descriptor { platform: Some(member.platform.clone()), ..member.manifest.clone() },
        };
        if self.all {
            return Ok(record.members().iter().map(describe).collect());
        }
        let members = record.members();
        // A digest or an ID may mean another member than the name alone.
        let by_digest = members.iter().find(|member| text.ends_with(&member.manifest.digest.hex()));
        let best = chosen.and_then(|platform| record.for_platform(platform)).map(|record| record.members().remove(0));
        let member = by_digest.cloned().or(best).unwrap_or_else(|| members[0].clone());
        Ok(vec![describe(&member)])
    }
}

/// The digests of members that a user means by a digest, a name, an ID, or a beginning of either.
pub fn named(store: &Store, index: &Index, text: &str) -> Result<Vec<crate::oci::Digest>> {
    let digest = text.rsplit_once('@').map_or(text, |(_, digest)| digest);
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    let is_hex = (6..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let of_hex: Vec<_> =
        index.manifests.iter().map(|member| member.digest).filter(|digest| is_hex && digest.hex().starts_with(hex)).collect();
    if !of_hex.is_empty() {
        return Ok(of_hex);
    }
    let record = match store.find_image(text) {
        Ok(record) => record,
        Err(error) if error.kind() == Kind::NotFound && is_hex => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let members = record.members();
    Ok(index.manifests.iter().map(|member| member.digest).filter(|d| members.iter().any(|m| m.manifest.digest == *d)).collect())
}

/// Puts members into a list: in place of an entry of the same digest, else behind.
pub fn put(index: &mut Index, members: Vec<Descriptor>) {
    for member in members {
        match index.manifests.iter_mut().find(|there| there.digest == member.digest) {
            Some(there) => *there = member,
            None => index.manifests.push(member),
        }
    }
}

/// Notes on the list itself.
pub fn note(index: &mut Index, notes: &[(String, String)]) {
    let notes: BTreeMap<String, String> = notes.iter().cloned().collect();
    index.annotations.extend(notes);
}
