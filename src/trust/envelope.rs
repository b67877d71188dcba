//! A signed in-toto statement in a sigstore bundle (version 0.3): how cosign 3 signs.
//!
//! Only what a key needs is read; certificates and transparency logs in it are left alone.
//!
//! Source: sigstore's protobuf-specs (bundle), DSSE's protocol.md, in-toto's Statement v1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::PublicKey;
use crate::error::{Error, Kind, Result, quote};
use crate::oci::Digest;

/// The media type of a bundle, as layer and as artifact type.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
/// The statement "this is signed"; the others, such as provenance, say something else about an image.
const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// A statement with its signatures.
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Dsse,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse {
    payload: String,
    payload_type: String,
    signatures: Vec<DsseSignature>,
}

#[derive(Deserialize)]
struct DsseSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: std::collections::BTreeMap<String, String>,
}

impl Envelope {
    /// Reads a bundle.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::with_kind(Kind::Corrupt, "not a signature bundle").cause(why);
        let Bundle { dsse_envelope: dsse } = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|e| bad(e.to_string()));
        Ok(Self {
            payload: decode(&dsse.payload)?,
            payload_type: dsse.payload_type,
            signatures: dsse.signatures.iter().map(|signature| decode(&signature.sig)).collect::<Result<_>>()?,
        })
    }

    /// Whether one of its signatures is by the key.
    pub fn verifies(&self, key: &PublicKey) -> bool {
        let Self { payload_type, payload, signatures } = self;
        let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
        let message = [head.as_bytes(), payload].concat();
        signatures.iter().any(|signature| key.verifies(&message, signature))
    }

    /// The manifests it says to be signed. An error if it says something else.
    pub fn signed(&self) -> Result<Vec<Digest>> {
        let bad = |why: String| Error::with_kind(Kind::Corrupt, "not an image signature").cause(why);
        if self.payload_type != STATEMENT_TYPE {
            return Err(bad(format!("it is of type {}", quote(&self.payload_type))));
        }
        let statement: Statement = serde_json::from_slice(&self.payload).map_err(|e| bad(e.to_string()))?;
        if statement.predicate_type != SIGNATURE_PREDICATE {
            return Err(bad(format!("it is a statement of type {}", quote(&statement.predicate_type))));
        }
        let digests = statement.subject.iter().filter_map(|subject| subject.digest.get("sha256"));
        Ok(digests.filter_map(|hex| Digest::from_hex(hex)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::PrivateKey;
    use super::*;

    #[test]
    fn checks_bundles() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let digest = Digest::of("x");
        let bundle = |predicate: &str| {
            let statement = serde_json::json!({
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [{"name": "", "digest": {"sha256": digest.hex()}}],
                "predicateType": predicate,
            });
            let statement = statement.to_string();
            let message = format!("DSSEv1 28 {STATEMENT_TYPE} {} {statement}", statement.len());
            let signature = STANDARD.encode(key.sign(message.as_bytes()).unwrap());
            let bundle = serde_json::json!({
                "mediaType": BUNDLE_TYPE,
                "verificationMaterial": {"publicKey": {"hint": "h"}},
                "dsseEnvelope": {
                    "payload": STANDARD.encode(&statement),
                    "payloadType": STATEMENT_TYPE,
                    "signatures": [{"sig": signature}],
                },
            });
            Envelope::parse(bundle.to_string().as_bytes()).unwrap()
        };
        let good = bundle(SIGNATURE_PREDICATE);
        assert!(good.verifies(&key.public()) && !good.verifies(&other.public()));
        assert_eq!(good.signed().unwrap(), [digest]);
        assert!(bundle("https://slsa.dev/provenance/v1").signed().is_err());
        assert!(Envelope::parse(b"{}").is_err());
    }
}
