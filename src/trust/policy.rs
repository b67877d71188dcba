//! policy.json: whose images are taken, by where they come from.
//!
//! Read as strictly as the manual asks: what is not understood makes the whole file invalid, since a rule that is overlooked is a rule that is
//! broken. Requirements that exist but can't be checked here are read, and refuse the images they are for.
//!
//! Source: containers-policy.json(5).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Identity;
use crate::error::{Error, Result};
use crate::oci::Reference;

/// The transport of registries.
const REGISTRIES: &str = "docker";

/// A policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: Unique<Unique<Vec<Requirement>>>,
}

/// What an image must fulfil.
#[derive(Clone, Debug, PartialEq)]
pub enum Requirement {
    /// Nothing.
    Accept,
    /// What no image does.
    Reject,
    /// A signature in cosign's form.
    Signed(Signed),
    /// Something that can't be checked here; what that is.
    Unsupported(String),
}

/// A signature that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    /// By any of these keys.
    pub keys: Vec<KeySource>,
    /// Over which name.
    pub identity: Identity,
}

/// Where a public key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// In the policy itself.
    Text(Vec<u8>),
}

/// The requirements for an image, and why they are for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Match<'a> {
    /// All of which must be fulfilled.
    pub requirements: &'a [Requirement],
    /// The scope, or `default`.
    pub scope: String,
}

impl Policy {
    /// Reads a policy.
    pub fn parse(text: &str) -> Result<Self> {
        let policy: Self = serde_json::from_str(text).map_err(|e| Error::input("the policy is invalid").cause(e))?;
        let scopes = policy.transports.0.iter().flat_map(|(_, scopes)| &scopes.0);
        let mut lists = scopes.map(|(scope, list)| (scope.as_str(), list)).chain([("default", &policy.default)]);
        if let Some((scope, _)) = lists.find(|(_, list)| list.is_empty()) {
            return Err(Error::input("the policy is invalid")
                .cause(format!("scope `{scope}` has no requirements"))
                .hint("`[{\"type\": \"insecureAcceptAnything\"}]` says that there are none"));
        }
        drop(lists);
        Ok(policy)
    }

    /// What is required of an image of a registry.
    pub fn for_image(&self, reference: &Reference) -> Match<'_> {
        self.find(REGISTRIES, &scopes(reference))
    }

    /// What is required of an image of another transport, such as `oci-archive`, at a path.
    pub fn for_file(&self, transport: &str, path: &str) -> Match<'_> {
        let parents = path.match_indices('/').map(|(at, _)| path[..at].to_owned()).filter(|parent| !parent.is_empty());
        let mut scopes: Vec<String> = parents.chain([path.to_owned()]).collect();
        scopes.reverse();
        self.find(transport, &scopes)
    }

    fn find(&self, transport: &str, candidates: &[String]) -> Match<'_> {
        let scopes = self.transports.get(transport);
        let found = scopes.and_then(|scopes| {
            let of = |scope: &String| scopes.get(scope).map(|requirements| (requirements, scope.clone()));
            candidates.iter().find_map(of).or_else(|| Some((scopes.get("")?, format!("all of `{transport}`"))))
        });
        let (requirements, scope) = found.unwrap_or((&self.default, "default".into()));
        Match { requirements, scope }
    }
}

/// The scopes that fit an image, the narrowest first.
fn scopes(reference: &Reference) -> Vec<String> {
    let mut name = format!("{}/{}", reference.registry(), reference.repository());
    let mut scopes: Vec<String> = reference.digest().map(|digest| format!("{name}@{digest}")).into_iter().collect();
    scopes.extend(reference.tag().map(|tag| format!("{name}:{tag}")));
    scopes.push(name.clone());
    while let Some(at) = name.rfind('/') {
        name.truncate(at);
        scopes.push(name.clone());
    }
    let host = name.split(':').next().unwrap_or_default();
    scopes.extend(host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..])));
    scopes
}

impl<'de> Deserialize<'de> for Requirement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Unique::<Value>::deserialize(deserializer)?;
        let kind = fields.text("type")?.ok_or_else(|| D::Error::missing_field("type"))?;
        match kind.as_str() {
            "insecureAcceptAnything" => fields.end(Self::Accept),
            "reject" => fields.end(Self::Reject),
            // What is in it is GPG's business.
            "signedBy" => Ok(Self::Unsupported("`signedBy`, simple signing by GPG keys".into())),
            "sigstoreSigned" => signed(fields),
            other => Err(D::Error::custom(format!("there is no requirement of type `{other}`"))),
        }
    }
}

fn signed<E: serde::de::Error>(mut fields: Unique<Value>) -> Result<Requirement, E> {
    let mut keys = Vec::new();
    let mut given = 0;
    for (one, several) in [("keyPath", "keyPaths"), ("keyData", "keyDatas")] {
        let single = fields.text(one)?.map(|text| vec![text]);
        for texts in single.into_iter().chain(fields.texts(several)?) {
            given += 1;
            for text in texts {
                keys.push(match one {
                    "keyPath" => KeySource::File(text.into()),
                    _ => KeySource::Text(STANDARD.decode(&text).map_err(|e| E::custom(format!("`keyData`: {e}")))?),
                });
            }
        }
    }
    let identity = fields.take("signedIdentity").map(|value| identity(&value).map_err(E::custom)).transpose()?;
    for other in ["fulcio", "pki", "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"] {
        if fields.take(other).is_some() {
            return Ok(Requirement::Unsupported(format!("`sigstoreSigned` with `{other}`, certificates or a transparency log")));
        }
    }
    if given != 1 || keys.is_empty() {
        return Err(E::custom("`sigstoreSigned` needs exactly one of `keyPath`, `keyPaths`, `keyData`, `keyDatas`"));
    }
    let identity = identity.unwrap_or(Identity::RepositoryDigestOrExact);
    fields.end(Requirement::Signed(Signed { keys, identity }))
}

fn identity(value: &Value) -> Result<Identity, String> {
    let object = value.as_object().ok_or("`signedIdentity` is no object")?;
    let field = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(format!("`signedIdentity` needs `{name}`"));
    let kind = field("type")?;
    let (identity, fields) = match kind.as_str() {
        "matchExact" => (Identity::Exact, 1),
        "matchRepoDigestOrExact" => (Identity::RepositoryDigestOrExact, 1),
        "matchRepository" => (Identity::Repository, 1),
        "exactReference" => (Identity::ThisReference(field("dockerReference")?), 2),
        "exactRepository" => (Identity::ThisRepository(field("dockerRepository")?), 2),
        "remapIdentity" => (Identity::Remapped { prefix: field("prefix")?, signed: field("signedPrefix")? }, 3),
        other => return Err(format!("there is no identity of type `{other}`")),
    };
    match &identity {
        Identity::ThisReference(name) | Identity::ThisRepository(name) => drop(super::Claim::parse(name).map_err(|e| e.to_string())?),
        _ => {}
    }
    if object.len() == fields { Ok(identity) } else { Err(format!("`{kind}` has fields that it does not know")) }
}

/// A JSON object whose names must differ; serde's maps would take the last of equals.
#[derive(Clone, Debug, PartialEq)]
struct Unique<V>(Vec<(String, V)>);

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Unique<V> {
    fn get(&self, name: &str) -> Option<&V> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn take(&mut self, name: &str) -> Option<V> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(at).1)
    }

    /// The result, if every field was taken.
    fn end<T, E: serde::de::Error>(&self, result: T) -> Result<T, E> {
        match self.0.first() {
            None => Ok(result),
            Some((name, _)) => Err(E::custom(format!("unknown field `{name}`"))),
        }
    }
}

impl Unique<Value> {
    fn text<E: serde::de::Error>(&mut self, name: &str) -> Result<Option<String>, E> {
        let text = |value| serde_json::from_value(value).map_err(|_| E::custom(format!("`{name}` is no text")));
        self.take(name).map(text).transpose()
    }

    fn texts<E: serde::de::Error>(&mut self, name: &str) -> Result<Option<Vec<String>>, E> {
        let texts = |value| serde_json::from_value(value).map_err(|_| E::custom(format!("`{name}` is no list of texts")));
        self.take(name).map(texts).transpose()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<V>(std::marker::PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Object<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<V>, A::Error> {
                let mut found: BTreeMap<String, ()> = BTreeMap::new();
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    if found.insert(name.clone(), ()).is_some() {
                        return Err(A::Error::custom(format!("`{name}` stands there twice")));
                    }
                    fields.push((name, value));
                }
                Ok(Unique(fields))
            }
        }

        deserializer.deserialize_map(Object(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_narrowest_scope() {
        let policy = Policy::parse(
            r#"{"default": [{"type": "reject"}], "transports": {
                "docker": {
                    "": [{"type": "reject"}],
                    "docker.io/library": [{"type": "reject"}],
                    "docker.io/library/debian:12": [{"type": "reject"}],
                    "h.a.example:5000": [{"type": "reject"}],
                    "*.a.example": [{"type": "reject"}],
                    "*.example": [{"type": "reject"}]
                },
                "oci": {"/srv/images": [{"type": "reject"}]}
            }}"#,
        )
        .unwrap();
        for (name, expected) in [
            ("debian:12", "docker.io/library/debian:12"),
            ("debian", "docker.io/library"),
            ("a/b", "all of `docker`"),
            ("h.a.example:5000/x/y:1", "h.a.example:5000"),
            ("h.a.example:5001/x/y:1", "*.a.example"),
            ("b.h.a.example/x", "*.a.example"),
            ("a.example/x", "*.example"),
            ("localhost:5000/x", "all of `docker`"),
        ] {
            assert_eq!(policy.for_image(&name.parse().unwrap()).scope, expected, "{name}");
        }
        for (transport, path, expected) in
            [("oci", "/srv/images/x/y", "/srv/images"), ("oci", "/srv/imagesx", "default"), ("oci-archive", "/srv/images", "default")]
        {
            assert_eq!(policy.for_file(transport, path).scope, expected, "{path}");
        }
    }

    #[test]
    fn reads_requirements() {
        let read = |text: &str| match Policy::parse(&format!(r#"{{"default": [{text}]}}"#)) {
            Ok(policy) => Ok(policy.default[0].clone()),
            Err(error) => Err(error.to_string()),
        };
        let signed = |keys, identity| Requirement::Signed(Signed { keys, identity });
        let file = |name: &str| KeySource::File(name.into());
        for (text, expected) in [
            (r#"{"type": "insecureAcceptAnything"}"#, Requirement::Accept),
            (r#"{"type": "reject"}"#, Requirement::Reject),
            (r#"{"type": "sigstoreSigned", "keyPath": "/k"}"#, signed(vec![file("/k")], Identity::RepositoryDigestOrExact)),
            (
                r#"{"type": "sigstoreSigned", "keyPaths": ["/k", "/l"], "signedIdentity": {"type": "matchRepository"}}"#,
                signed(vec![file("/k"), file("/l")], Identity::Repository),
            ),
            (
                r#"{"type": "sigstoreSigned", "keyData": "a2V5", "signedIdentity": {"type": "remapIdentity", "prefix": "a", "signedPrefix": "b"}}"#,
                signed(vec![KeySource::Text(b"key".to_vec())], Identity::Remapped { prefix: "a".into(), signed: "b".into() }),
            ),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for text in [r#"{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}"#, r#"{"type": "sigstoreSigned", "fulcio": {}}"#] {
            assert!(matches!(read(text), Ok(Requirement::Unsupported(_))), "{text}");
        }
        for (text, expected) in [
            ("{}", "`type`"),
            (r#"{"type": "accept"}"#, "no requirement of type `accept`"),
            (r#"{"type": "reject", "keyPath": "/k"}"#, "unknown field `keyPath`"),
            (r#"{"type": "reject", "type": "reject"}"#, "`type` stands there twice"),
            (r#"{"type": "sigstoreSigned"}"#, "exactly one"),
            (r#"{"type": "sigstoreSigned", "keyPath": "/k", "keyData": "a2V5"}"#, "exactly one"),
            (r#"{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "matchTag"}}"#, "no identity of type `matchTag`"),
            (r#"{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "exactReference"}}"#, "needs `dockerReference`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn is_strict() {
        for (text, expected) in [
            ("", "invalid"),
            ("{}", "missing field `default`"),
            (r#"{"default": []}"#, "no requirements"),
            (r#"{"default": [{"type": "reject"}], "transport": {}}"#, "unknown field `transport`"),
            (r#"{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}"#, "duplicate field"),
            (
                r#"{"default": [{"type": "reject"}], "transports": {"docker": {"a": [{"type": "reject"}], "a": [{"type": "reject"}]}}}"#,
                "twice",
            ),
            (r#"{"default": [{"type": "reject"}], "transports": {"docker": {"a": []}}}"#, "scope `a` has no requirements"),
        ] {
            let error = Policy::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
