//! Asking for signatures: by the policy of this machine or user, and by `--verify`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{LONGEST_PAYLOAD, PAYLOAD, SIGNATURE, place};
use crate::error::{Error, Kind, Place, Result, quote, quote_path};
use crate::oci::{Descriptor, Digest, ManifestOrIndex, Reference, media_type};
use crate::registry;
use crate::transfer::client::ClientSettings;
use crate::transfer::{Client, Place as Source};
use crate::trust::{BUNDLE_TYPE, Claim, Envelope, Identity, KeySource, Match, Payload, Policy, PublicKey, Requirement, Signed};

/// The artifact type under which cosign 2 attached simple signatures as referrers, when it was told to.
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// More signatures than this over one image are not looked at; ten are many.
const MOST_SIGNATURES: usize = 100;

/// What must be true of an image of some name before it is taken.
pub(in crate::transfer) struct Demands {
    reference: Reference,
    demands: Vec<Demand>,
}

/// One signature that is asked for.
struct Demand {
    keys: Vec<PublicKey>,
    identity: Identity,
    /// Where it is asked for.
    place: Place,
    /// Who asks, and for what.
    text: String,
}

/// A signature that was found.
enum Found {
    /// In the form of cosign before its version 3, and of podman.
    Simple { payload: Vec<u8>, signature: Vec<u8> },
    /// In that of cosign 3.
    Bundle(Envelope),
}

impl Demands {
    /// Finds out what is asked for. Errors: nothing of this name may be taken at all; the policy or a key can't be read.
    pub(in crate::transfer) fn of(settings: &ClientSettings, reference: &Reference) -> Result<Self> {
        let mut demands = Vec::new();
        if let Some(file) = &settings.trust.key {
            demands.push(Demand {
                keys: vec![read_key(file)?],
                identity: Identity::Claimed,
                place: Place::Path(file.clone()),
                text: format!("`--verify` asks for a signature by {}", quote_path(file)),
            });
        }
        if let Some((file, policy)) = policy(settings)? {
            let found = policy.for_image(reference);
            for requirement in found.requirements {
                let refused = |why: String| refusal(&reference.familiar(), &file, &found, &why);
                match requirement {
                    Requirement::Accept => {}
                    Requirement::Reject => return Err(refused("it says `reject`".into())),
                    Requirement::Unsupported(what) => {
                        return Err(refused(format!("it asks for {what}, which can't be checked here"))
                            .hint("sign by `rootling push --sign` or cosign, and ask for `sigstoreSigned` with `keyPath`"));
                    }
                    Requirement::Signed(signed) => demands.push(Demand::of(signed, &file, &found)?),
                }
            }
        }
        Ok(Self { reference: reference.clone(), demands })
    }

    /// Checks that what stands under these digests (an image, and the index it was chosen from) is signed as it must be.
    pub(in crate::transfer) fn check(&self, client: &registry::Client, digests: &[Digest]) -> Result<()> {
        if self.demands.is_empty() {
            return Ok(());
        }
        let failed = |e: Error| e.context(format!("can't look for signatures of {}", quote(self.reference.familiar())));
        let mut found = Vec::new();
        for digest in digests {
            found.extend(self.tagged(client, digest).map_err(failed)?);
        }
        if self.demands.iter().any(|demand| self.fulfilled(demand, &found, digests).is_err()) {
            // Only then, since old registries are asked twice for it.
            for digest in digests {
                found.extend(self.attached(client, digest).map_err(failed)?);
            }
        }
        self.demands.iter().try_for_each(|demand| self.fulfilled(demand, &found, digests))
    }

    fn fulfilled(&self, demand: &Demand, found: &[Found], digests: &[Digest]) -> Result<()> {
        let asked = Claim::of(&self.reference);
        let mut reasons: Vec<String> = Vec::new();
        for signature in found {
            match demand.judge(signature, &asked, digests) {
                Ok(()) => return Ok(()),
                Err(reason) if reasons.contains(&reason) => {}
                Err(reason) => reasons.push(reason),
            }
        }
        let name = self.reference.familiar();
        let error = Error::with_kind(Kind::Denied, format!("{} is not signed as it must be", quote(&name)));
        let mut error = error.at(demand.place.clone()).cause(&demand.text);
        if reasons.is_empty() {
            let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
            error = error.cause(format!("the registry has no signature of {}", digests.join(" or ")));
        }
        for reason in reasons {
            error = error.cause(reason);
        }
        Err(error.hint(format!("who has the key signs it by `rootling push --sign KEY … {name}` or `cosign sign --key KEY {name}`")))
    }

    /// The signatures of a manifest under its tag.
    fn tagged(&self, client: &registry::Client, digest: &Digest) -> Result<Vec<Found>> {
        self.listed(client, &place(&self.reference, digest)?)
    }

    /// Those among its referrers.
    fn attached(&self, client: &registry::Client, digest: &Digest) -> Result<Vec<Found>> {
        let referrers = client.referrers(&self.reference, digest)?;
        let kind = |referrer: &Descriptor| referrer.other.get("artifactType").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
        let signatures = referrers.iter().filter(|referrer| [BUNDLE_TYPE, ARTIFACT].contains(&kind(referrer).as_str()));
        let mut found = Vec::new();
        for referrer in signatures.take(MOST_SIGNATURES) {
            found.extend(self.listed(client, &self.reference.canonical(referrer.digest).to_string().parse()?)?);
        }
        Ok(found)
    }

    /// The signatures that a manifest lists.
    fn listed(&self, client: &registry::Client, place: &Reference) -> Result<Vec<Found>> {
        let fetched = match client.manifest(place, &media_type::ACCEPTED_MANIFESTS) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let ManifestOrIndex::Manifest(manifest) = ManifestOrIndex::parse(&fetched.bytes, fetched.media_type.as_deref())? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for layer in manifest.layers.iter().take(MOST_SIGNATURES) {
            let bytes = || client.blob_bytes(&self.reference, layer, LONGEST_PAYLOAD);
            match signature(layer) {
                Some(signature) => found.push(Found::Simple { payload: bytes()?, signature }),
                // What can't be read vouches for nothing.
                None if layer.media_type == BUNDLE_TYPE => found.extend(Envelope::parse(&bytes()?).ok().map(Found::Bundle)),
                None => {}
            }
        }
        Ok(found)
    }
}

impl Demand {
    fn of(signed: &Signed, file: &std::path::Path, found: &Match<'_>) -> Result<Self> {
        let mut names = Vec::new();
        let keys = signed.keys.iter().map(|source| match source {
            KeySource::File(path) => {
                names.push(quote_path(path));
                read_key(path).map_err(|e| e.context(format!("can't use a key that {} names", quote_path(file))))
            }
            KeySource::Text(text) => {
                let key = PublicKey::read(text).map_err(|e| e.context("can't use `keyData`").at(Place::Path(file.to_owned())))?;
                names.push(format!("the key {}", key.fingerprint().short()));
                Ok(key)
            }
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let text = format!("scope {} asks for a signature by {}", quote(&found.scope), names.join(" or "));
        Ok(Self { keys, identity: signed.identity.clone(), place: Place::Path(file.to_owned()), text })
    }

    /// Whether a signature is what is asked for; else why not.
    fn judge(&self, found: &Found, asked: &Claim, digests: &[Digest]) -> Result<(), String> {
        let by_another = || "there is a signature by another key".to_owned();
        let of_another = |digest: &Digest| format!("the key has signed another image, {digest}");
        match found {
            Found::Simple { payload, signature } => {
                // What is not signed by the key is not even read.
                if !self.keys.iter().any(|key| key.verifies(payload, signature)) {
                    return Err(by_another());
                }
                let payload = Payload::parse(payload).map_err(|e| format!("what the key has signed is unusable: {e}"))?;
                if !digests.contains(&payload.digest) {
                    return Err(of_another(&payload.digest));
                }
                let signed = Claim::parse(&payload.reference).map_err(|e| format!("the key has signed an invalid name: {e}"))?;
                match self.identity.accepts(asked, &signed) {
                    true => Ok(()),
                    false => Err(format!("the key has signed it as {}", quote(signed.to_string()))),
                }
            }
            Found::Bundle(envelope) => {
                if !self.keys.iter().any(|key| envelope.verifies(key)) {
                    return Err(by_another());
                }
                let signed = envelope.signed().map_err(|e| format!("what the key has signed is unusable: {e}"))?;
                match (signed.first(), signed.iter().any(|digest| digests.contains(digest))) {
                    (_, true) if self.identity == Identity::Claimed => Ok(()),
                    (_, true) => Err("the key has signed it without a name, and the policy wants one".into()),
                    (Some(other), false) => Err(of_another(other)),
                    (None, false) => Err("the key has signed nothing".into()),
                }
            }
        }
    }
}

/// Checks that the policy lets images of a file, a directory or an engine in. Signatures are kept in registries only, so that one that is asked for
/// can't be there.
pub fn permit(client: &Client, place: &Source) -> Result<()> {
    let (transport, scope) = match place {
        Source::OciArchive { file, .. } => ("oci-archive", absolute(file)),
        Source::OciLayout { directory, .. } => ("oci", absolute(directory)),
        // These know no scopes.
        Source::DockerArchive { .. } => ("docker-archive", "/".into()),
        Source::DockerDaemon(_) => ("docker-daemon", "/".into()),
        _ => return Ok(()),
    };
    let Some((file, policy)) = policy(client.settings())? else { return Ok(()) };
    let found = policy.for_file(transport, &scope);
    let refused = |why: &str| Err(refusal(&place.to_string(), &file, &found, why));
    match found.requirements.iter().find(|requirement| **requirement != Requirement::Accept) {
        None => Ok(()),
        Some(Requirement::Reject) => refused("it says `reject`"),
        Some(_) => refused(&format!("it asks for a signature, which images of `{transport}:` don't have")),
    }
}

fn absolute(path: &std::path::Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn refusal(name: &str, file: &std::path::Path, found: &Match<'_>, why: &str) -> Error {
    let scope = &found.scope;
    Error::with_kind(Kind::Denied, format!("the policy refuses {}", quote(name)))
        .at(Place::Path(file.to_owned()))
        .cause(format!("scope {} is what counts for it, and {why}", quote(scope)))
        .hint("change the policy, or name another one: `--signature-policy FILE`")
}

/// The signature of a layer in cosign's manifest.
fn signature(layer: &Descriptor) -> Option<Vec<u8>> {
    let text = layer.annotations.get(SIGNATURE).filter(|_| layer.media_type == PAYLOAD)?;
    STANDARD.decode(text).ok()
}

fn read_key(file: &std::path::Path) -> Result<PublicKey> {
    let bytes = std::fs::read(file).map_err(|e| Error::io("read", file, e))?;
    PublicKey::read(&bytes).map_err(|e| e.at(Place::Path(file.to_owned())))
}

/// The policy that counts, if there is any.
fn policy(settings: &ClientSettings) -> Result<Option<(PathBuf, Policy)>> {
    for file in settings.policies() {
        let text = match std::fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && settings.trust.policy.is_none() => continue,
            other => other.map_err(|e| Error::io("read", &file, e))?,
        };
        let policy = Policy::parse(&text).map_err(|e| e.at(Place::Path(file.clone())))?;
        return Ok(Some((file, policy)));
    }
    Ok(None)
}
