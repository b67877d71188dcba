//! `RUN --mount`: its options as written, and the mount they describe once variables are known.
//!
//! A mount's values may hold variables, so it is read twice: when the file is parsed, for what can be told already, and by
//! [`MountFlag::resolve`] in the step.

use super::spelling::{nearest, quote};
use crate::error::{Error, Result};

/// One `--mount=…` as written: every option's name is known, and `from` holds no variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    /// The flag's value.
    pub raw: String,
    /// Names in lower case and values in order.
    options: Vec<(String, Option<String>)>,
}

/// A mount of a `RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Stage, context or image that a bind or cache mount takes its (first) content from; otherwise the build context or nothing.
    pub from: Option<String>,
    /// Path in `from`; root if unset. For secrets an older name of `id`.
    pub source: Option<String>,
    /// Where. If unset: the working directory, `/run/secrets/ID` for secrets, `/run/buildkit/ssh_agent.N` for agents.
    pub target: Option<String>,
    /// Whether writing is refused. For bind mounts otherwise what is written is dropped after the step.
    pub read_only: bool,
    /// How a cache is shared; unset means [`Sharing::Shared`].
    pub sharing: Option<Sharing>,
    /// Name of a cache (its target if unset), secret (its target's last component) or agent (`default`).
    pub id: Option<String>,
    /// Whether a missing secret or agent is an error.
    pub required: bool,
    /// Limit of a tmpfs in bytes.
    pub size: Option<u64>,
    /// Permissions of a cache directory, secret or agent socket.
    pub mode: Option<u32>,
    /// Owner of the same.
    pub uid: Option<u32>,
    /// Group of the same.
    pub gid: Option<u32>,
    /// Environment variable that holds a secret, instead of or besides a file.
    pub env: Option<String>,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file with a secret.
    Secret,
    /// A socket of an SSH agent.
    Ssh,
}

/// How several steps use one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// At the same time.
    Shared,
    /// Each a new one if it is in use.
    Private,
    /// One after the other.
    Locked,
}

const KINDS: &[(&str, MountKind)] = &[
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

const SHARINGS: &[(&str, Sharing)] = &[("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

const OPTIONS: &[&str] = &[
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];

/// Options that stand alone for `…=true`.
const SWITCHES: &[&str] = &["readonly", "ro", "readwrite", "rw", "required"];

impl MountFlag {
    /// Reads a flag's value as far as it can be without knowing variables; without any, completely.
    pub(super) fn parse(raw: &str) -> Result<Self> {
        let mut options = Vec::new();
        for field in comma_fields("--mount", raw)? {
            let (name, value) = field.split_once('=').map_or((field.as_str(), None), |(name, value)| (name, Some(value)));
            let name = name.to_ascii_lowercase();
            if !OPTIONS.contains(&name.as_str()) {
                let error = Error::input(format!("unknown mount option {}", quote(&name)));
                return Err(match nearest(&name, OPTIONS.iter().copied()) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error.hint(format!("known are {}", OPTIONS.join(", "))),
                });
            }
            if value.is_none() && !SWITCHES.contains(&name.as_str()) {
                return Err(Error::input(format!("mount option {} needs a value", quote(&name))));
            }
            if name == "from" && value.is_some_and(|value| value.find('$').is_some_and(|at| at + 1 < value.len())) {
                return Err(Error::input("mount option `from` can't hold variables")
                    .hint("name the image in a stage of its own (`FROM ${IMAGE} AS name`) and write `from=name`"));
            }
            options.push((name, value.map(str::to_string)));
        }
        let flag = Self { raw: raw.to_string(), options };
        if !raw.contains('$') {
            flag.resolve(&mut |value| Ok(value.to_string()))?;
        }
        Ok(flag)
    }

    /// What `from` names: a stage, a context or an image. It holds no variables.
    pub fn from(&self) -> Option<&str> {
        self.options.iter().rev().find(|(name, _)| name == "from").and_then(|(_, value)| value.as_deref())
    }

    /// The mount, every value passed through `expand` first.
    pub fn resolve(&self, expand: &mut dyn FnMut(&str) -> Result<String>) -> Result<Mount> {
        let mut mount = Mount::default();
        let mut read_only = None;
        for (name, value) in &self.options {
            let value = value.as_deref().map(&mut *expand).transpose()?;
            let text = value.as_deref().unwrap_or("true");
            match name.as_str() {
                "type" => mount.kind = choice(name, text, KINDS)?,
                "sharing" => mount.sharing = Some(choice(name, text, SHARINGS)?),
                "readonly" | "ro" => read_only = Some(truth(name, text)?),
                "readwrite" | "rw" => read_only = Some(!truth(name, text)?),
                "required" => mount.required = truth(name, text)?,
                "size" => {
                    let wrong = || Error::input(format!("mount option `size` takes a size such as `64m`, not {}", quote(text)));
                    mount.size = Some(size(text).ok_or_else(wrong)?);
                }
                "mode" => mount.mode = Some(number(name, text, 8)?),
                "uid" => mount.uid = Some(number(name, text, 10)?),
                "gid" => mount.gid = Some(number(name, text, 10)?),
                "from" => mount.from = value,
                "source" | "src" => mount.source = value,
                "target" | "dst" | "destination" => mount.target = value,
                "id" => mount.id = value,
                _ => mount.env = value,
            }
        }
        mount.read_only = read_only.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
        self.check(&mount)?;
        Ok(mount)
    }

    /// Whether the options go together.
    fn check(&self, mount: &Mount) -> Result<()> {
        let kind = KINDS.iter().find(|(_, kind)| *kind == mount.kind).map_or("", |(name, _)| name);
        let allowed: &[(&str, &[MountKind])] = &[
            ("mode", &[MountKind::Secret, MountKind::Ssh, MountKind::Cache]),
            ("uid", &[MountKind::Secret, MountKind::Ssh, MountKind::Cache]),
            ("gid", &[MountKind::Secret, MountKind::Ssh, MountKind::Cache]),
            ("size", &[MountKind::Tmpfs]),
            ("required", &[MountKind::Secret, MountKind::Ssh]),
            ("env", &[MountKind::Secret]),
            ("sharing", &[MountKind::Cache]),
            ("from", &[MountKind::Bind, MountKind::Cache, MountKind::Tmpfs, MountKind::Ssh]),
        ];
        for (name, kinds) in allowed {
            if self.options.iter().any(|(option, _)| option == name) && !kinds.contains(&mount.kind) {
                return Err(Error::input(format!("mount option `{name}` does not go with `type={kind}`")));
            }
        }
        let given = |value: &Option<String>| value.as_ref().is_some_and(|text| !text.is_empty());
        if mount.kind == MountKind::Secret {
            if !given(&mount.source) && !given(&mount.target) && !given(&mount.id) && !given(&mount.env) {
                return Err(Error::input("a secret mount needs `id`, `target` or `env`"));
            }
            if given(&mount.source) && given(&mount.id) {
                return Err(Error::input("a secret mount can't have both `source` and `id`").hint("`source` is the older name of `id`"));
            }
        }
        Ok(())
    }
}

/// The fields of an option's value, comma-separated as RFC 4180 has it: a field may stand in double quotes, doubled within.
pub fn comma_fields(option: &str, record: &str) -> Result<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)
                .ok_or_else(|| Error::input(format!("a quote in `{option}` is not closed or not at an option's end")))?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(Error::input(format!("a quote in `{option}` must be around a whole option")));
                }
                (rest[..end].to_string(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(_) => field.push('"'),
            None if after.is_empty() || after.starts_with(',') => return Some((field, after)),
            None => return None,
        }
        rest = &after[1..];
    }
}

fn choice<T: Copy>(name: &str, value: &str, known: &[(&str, T)]) -> Result<T> {
    let lower = value.to_ascii_lowercase();
    if let Some((_, found)) = known.iter().find(|(text, _)| *text == lower) {
        return Ok(*found);
    }
    let error = Error::input(format!("mount option `{name}` can't be {}", quote(value)));
    Err(match nearest(&lower, known.iter().map(|(text, _)| *text)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("known are {}", known.iter().map(|(text, _)| *text).collect::<Vec<_>>().join(", "))),
    })
}

/// As Go's `strconv.ParseBool`.
fn truth(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::input(format!("mount option `{name}` takes `true` or `false`, not {}", quote(value)))),
    }
}

fn number(name: &str, value: &str, radix: u32) -> Result<u32> {
    let digits = !value.is_empty() && value.chars().all(|c| c.is_digit(radix));
    digits.then(|| u32::from_str_radix(value, radix).ok()).flatten().ok_or_else(|| {
        let what = if radix == 8 { "an octal number" } else { "a number" };
        Error::input(format!("mount option `{name}` takes {what}, not {}", quote(value)))
    })
}

/// A size in bytes with an optional unit of 1024: `64m`, `1.5GiB`.
pub fn size(value: &str) -> Option<u64> {
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let amount: f64 = value[..end].parse().ok()?;
    let mut unit = value[end..].strip_prefix(' ').unwrap_or(&value[end..]).to_ascii_lowercase();
    if unit.ends_with('b') {
        unit.pop();
    }
    if unit.ends_with('i') {
        unit.pop();
    }
    let power = match unit.as_str() {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let result = amount * 1024f64.powi(power);
    // Beyond that no file system reaches, and a float could not be turned into an integer.
    (result.is_finite() && result < 9e18).then_some(result as u64)
}
