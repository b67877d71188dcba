//! What a signature is made over: cosign's simple signing payload.
//!
//! Source: cosign's SIGNATURE_SPEC.md, "Simple Signing"; the fields are Red Hat's atomic signatures'.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Kind, Result, quote};
use crate::oci::Digest;

const TYPE: &str = "cosign container image signature";

/// "The manifest with this digest is the image of this name."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The image's name as the signer wrote it: cosign signs a repository, others also the tag.
    pub reference: String,
    /// The manifest.
    pub digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Document {
    critical: Critical,
    #[serde(default)]
    optional: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

impl Payload {
    /// The bytes to sign. The same payload has the same bytes: no time stands in it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let critical =
            Critical { identity: Identity { reference: self.reference.clone() }, image: Image { digest: self.digest }, kind: TYPE.into() };
        let creator = concat!("rootling ", env!("CARGO_PKG_VERSION"));
        let document = Document { critical, optional: Some(serde_json::json!({ "creator": creator })) };
        serde_json::to_vec(&document).expect("plain data")
    }

    /// Reads signed bytes. What is critical and not understood is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::with_kind(Kind::Corrupt, "not an image signature").cause(why);
        let Document { critical, .. } = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if critical.kind != TYPE {
            return Err(bad(format!("it is of type {}", quote(&critical.kind))));
        }
        Ok(Self { reference: critical.identity.reference, digest: critical.image.digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let payload = Payload { reference: "h/a:1".into(), digest: Digest::of("x") };
        assert_eq!(Payload::parse(&payload.to_bytes()).unwrap(), payload);
        assert_eq!(payload.to_bytes(), payload.to_bytes());
    }

    #[test]
    fn reads_what_others_write() {
        let digest = Digest::of("");
        let text = |kind: &str, image: &str, rest: &str| {
            format!(
                r#"{{"critical":{{"identity":{{"docker-reference":"h/a"}},"image":{{"{image}":"{digest}"}},"type":"{kind}"}},"optional":{rest}}}"#
            )
        };
        for (text, good) in [
            (text(TYPE, "docker-manifest-digest", "null"), true),
            (text(TYPE, "docker-manifest-digest", r#"{"creator":"c","timestamp":1}"#), true),
            (text("atomic container signature", "docker-manifest-digest", "null"), false),
            (text(TYPE, "Docker-manifest-digest", "null"), false),
            (text(TYPE, "docker-manifest-digest", "null").replace("sha256", "sha512"), false),
            (text(TYPE, "docker-manifest-digest", "null").replace("\"type\"", "\"more\":1,\"type\""), false),
            (text(TYPE, "docker-manifest-digest", "null").replace("\"type\"", "\"type\":\"x\",\"type\""), false),
            (String::new(), false),
        ] {
            assert_eq!(Payload::parse(text.as_bytes()).is_ok(), good, "{text}");
        }
    }
}
