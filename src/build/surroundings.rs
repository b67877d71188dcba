//! What the steps of a build get from the machine, beyond what the Dockerfile says: plain data, complete before the build begins.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::oci::ImagePath;
use crate::sandbox::{Access, Capabilities, Limit, Missing, Mount, MountKind, Network};

use super::key::Key;
use super::run::{HOSTNAME, file};

/// The surroundings of every RUN.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Secrets by ID, for `--mount=type=secret`.
    pub secrets: BTreeMap<String, Secret>,
    /// SSH agents by ID, for `--mount=type=ssh`.
    pub agents: BTreeMap<String, Agent>,
    /// The network of a RUN that does not choose one.
    pub network: Network,
    /// Lines for `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// Name resolution other than the machine's.
    pub resolution: Resolution,
    /// The size of `/dev/shm` in bytes; `None` for the kernel's limit.
    pub shm_size: Option<u64>,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// The most a command may hold within its user namespace.
    pub capabilities: Capabilities,
    /// Files and directories of the machine.
    pub binds: Vec<Mount>,
    /// Variables that every stage sets after its FROM, as buildah's `--env`.
    pub variables: Vec<(String, String)>,
}

impl Surroundings {
    /// Adds to a step's cache key what its result may depend on: of hosts the names only, and never a secret (BuildKit).
    pub fn add_to(&self, key: &mut Key) {
        key.list(self.hosts.iter().map(|(name, _)| name));
        key.list(self.limits.iter().map(Limit::to_string));
        key.list(self.binds.iter().map(|bind| format!("{} {:?} {:?}", bind.target, bind.kind, bind.access)));
        key.field(format!("{:?} {:x}", self.shm_size, self.capabilities.mask()));
    }

    /// What is mounted into every step.
    pub fn mounts(&self) -> Vec<Mount> {
        let mut mounts = host_files(self);
        mounts.extend(self.shm_size.map(shared_memory));
        mounts.extend(self.binds.iter().cloned());
        mounts
    }
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            network: Network::Host,
            hosts: Vec::new(),
            resolution: Resolution::default(),
            shm_size: None,
            limits: Vec::new(),
            capabilities: Capabilities::docker(),
            binds: Vec::new(),
            variables: Vec::new(),
        }
    }
}

/// A secret's bytes. They are in memory only, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Gives them to who must have them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Who answers for keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// The agent that listens there.
    Socket(PathBuf),
    /// An agent of our own with these private keys, for the time of a step.
    Keys(Vec<PathBuf>),
}

/// What takes the place of the machine's `resolv.conf`, as far as it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
}

impl Resolution {
    /// The text of `resolv.conf`, where the machine's own has `text`.
    pub fn apply(&self, text: &str) -> String {
        let replaced = [("nameserver", self.servers.is_empty()), ("search", self.search.is_empty()), ("options", self.options.is_empty())];
        let kept = |line: &&str| {
            let word = line.split_whitespace().next().unwrap_or_default();
            // `domain` is an older form of `search`.
            let word = if word == "domain" { "search" } else { word };
            replaced.iter().all(|(name, unchanged)| word != *name || *unchanged)
        };
        let mut lines: Vec<String> = text.lines().filter(kept).map(str::to_owned).collect();
        lines.extend(self.servers.iter().map(|server| format!("nameserver {server}")));
        for (name, values) in [("search", &self.search), ("options", &self.options)] {
            if !values.is_empty() {
                lines.push(format!("{name} {}", values.join(" ")));
            }
        }
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// The host's files that name resolution needs, as far as they exist, with what was asked for. A copy each: a step must not change the host's.
fn host_files(surroundings: &Surroundings) -> Vec<Mount> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let added: String = surroundings.hosts.iter().map(|(name, address)| format!("{address}\t{name}\n")).collect();
    // `sudo` and `hostname -f` look their own host up.
    let own = format!("127.0.1.1\t{HOSTNAME}\n");
    let hosts = Some(read("/etc/hosts").map_or_else(String::new, |text| text.trim_end().to_owned() + "\n") + &own + &added);
    let resolution = &surroundings.resolution;
    let resolv = match read("/etc/resolv.conf") {
        None if *resolution == Resolution::default() => None,
        text => Some(resolution.apply(&text.unwrap_or_default())),
    };
    let mount = |(path, text): (&str, Option<String>)| Some(file(ImagePath::clean(path), text?.into_bytes(), 0o644));
    [("/etc/resolv.conf", resolv), ("/etc/hosts", hosts)].into_iter().filter_map(mount).collect()
}

/// `/dev/shm` with a size of its own.
fn shared_memory(size: u64) -> Mount {
    let kind = MountKind::Tmpfs { size: Some(size), mode: 0o1777 };
    Mount { target: ImagePath::clean("/dev/shm"), kind, access: Access::ReadWrite, missing: Missing::Create }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let surroundings = Surroundings { secrets: BTreeMap::from([("id".into(), Secret::new(b"hidden".to_vec()))]), ..Default::default() };
        let text = format!("{surroundings:?}");
        assert!(text.contains("id") && !text.contains("hidden") && !text.contains("104"), "{text}");
    }

    #[test]
    fn resolution_replaces_what_is_given() {
        let machine = "# made by x\ndomain a.example\nnameserver 10.0.0.1\noptions ndots:2\n";
        let resolution = |servers: &[&str], search: &[&str], options: &[&str]| Resolution {
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            search: search.iter().map(|&word| word.into()).collect(),
            options: options.iter().map(|&word| word.into()).collect(),
        };
        for (given, expected) in [
            (resolution(&[], &[], &[]), machine),
            (
                resolution(&["9.9.9.9", "::1"], &[], &[]),
                "# made by x\ndomain a.example\noptions ndots:2\nnameserver 9.9.9.9\nnameserver ::1\n",
            ),
            (resolution(&[], &["b", "c"], &["rotate"]), "# made by x\nnameserver 10.0.0.1\nsearch b c\noptions rotate\n"),
        ] {
            assert_eq!(given.apply(machine), expected);
        }
    }
}
