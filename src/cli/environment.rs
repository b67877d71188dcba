//! What the program takes from its surroundings: variables and standard files. Read once, passed down as values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::render::Warnings;
use crate::error::{Error, Result, quote};
use crate::store::Store;
use crate::transfer::{ClientSettings, Given};

/// The surroundings of one invocation.
pub struct Environment {
    storage: Option<PathBuf>,
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Reads the process environment; `storage` is what the command line says.
    pub fn read(storage: Option<PathBuf>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self { storage, variables: std::env::vars_os().filter_map(text).collect() }
    }

    /// A variable, if set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable, also an empty one: an empty password is a password.
    pub fn password(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The storage directory: option, `$ROOTLING_STORAGE`, `/var/tmp/$USER.rootling`; always absolute.
    pub fn storage(&self) -> Result<PathBuf> {
        let chosen = self.storage.clone().or_else(|| self.variable("ROOTLING_STORAGE").map(PathBuf::from));
        let path = match chosen {
            Some(path) => path,
            None => Path::new("/var/tmp").join(format!("{}.rootling", self.user()?)),
        };
        std::path::absolute(&path).map_err(|e| Error::io("make absolute", &path, e))
    }

    /// The login name, for the default storage directory. `getpwuid` is not asked: it crashes static programs on sites with LDAP.
    fn user(&self) -> Result<String> {
        let uid = nix::unistd::getuid().to_string();
        let from_passwd = || {
            let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
            let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid))?;
            Some(line.split(':').next()?.to_owned())
        };
        let name = self.variable("USER").map(str::to_owned).or_else(from_passwd).unwrap_or(uid.clone());
        if name.contains('/') || name.starts_with('.') {
            return Err(Error::input(format!("can't name a storage directory after user {}", quote(name)))
                .cause("$USER is not a login name")
                .hint("set `--storage DIR` or $ROOTLING_STORAGE"));
        }
        Ok(name)
    }

    /// Opens the storage directory, creating it when new.
    pub fn store(&self) -> Result<Store> {
        let store = Store::open_with(&self.storage()?, Arc::new(Warnings::default()))?;
        self.tell_short_names(&store);
        Ok(store)
    }

    /// Opens the storage directory for reading; `None` if there is none. Works where nothing can be written.
    pub fn existing_store(&self) -> Result<Option<Store>> {
        let store = Store::open_existing_with(&self.storage()?, Arc::new(Warnings::default()))?;
        store.iter().for_each(|store| self.tell_short_names(store));
        Ok(store)
    }

    fn tell_short_names(&self, store: &Store) {
        let settings = ClientSettings {
            registries_conf: self.registries_conf(),
            config_home: self.variable("XDG_CONFIG_HOME").map(PathBuf::from),
            home: self.home(),
            ..ClientSettings::default()
        };
        store.know_short_names(settings.short_names());
    }

    /// The user's `registries.conf`, if a variable names one: podman's, or buildah's older one.
    pub fn registries_conf(&self) -> Option<PathBuf> {
        ["CONTAINERS_REGISTRIES_CONF", "REGISTRIES_CONFIG_PATH"].iter().find_map(|name| self.variable(name)).map(PathBuf::from)
    }

    /// Credentials for this once: ours, else ch-image's variables.
    pub fn one_time_credentials(&self) -> Option<Given> {
        let registry = self.variable("ROOTLING_REGISTRY");
        [("ROOTLING_USERNAME", "ROOTLING_PASSWORD"), ("CH_IMAGE_USERNAME", "CH_IMAGE_PASSWORD")]
            .iter()
            .find_map(|(user, password)| Some(Given::new(registry, self.variable(user)?, self.variable(password))))
    }

    /// The proxy variables, which reach build steps and containers.
    pub fn proxies(&self) -> impl Iterator<Item = (&str, &str)> {
        crate::build::PREDEFINED_ARGUMENTS.iter().filter_map(|name| self.variable(name).map(|value| (*name, value)))
    }

    /// How many processors this job may use: what its cgroup and CPU affinity allow, and what Slurm gave it (sbatch(1), "Output
    /// environment variables").
    pub fn processors(&self) -> usize {
        let machine = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let slurm = ["SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"].iter().find_map(|name| self.variable(name)?.parse().ok());
        slurm.map_or(machine, |given: usize| machine.min(given.max(1)))
    }

    /// The directories of `$PATH`.
    pub fn programs(&self) -> Vec<PathBuf> {
        self.variable("PATH")
            .map(|path| std::env::split_paths(path).filter(|directory| directory.is_absolute()).collect())
            .unwrap_or_default()
    }

    /// Where the user keeps what configures this program: `$XDG_CONFIG_HOME/rootling`, else `~/.config/rootling`.
    pub fn configuration(&self) -> Option<PathBuf> {
        let base = self.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        Some(base.or_else(|| Some(self.home()?.join(".config")))?.join("rootling"))
    }

    /// `$DOCKER_HOST`, if it names a socket, else docker's own default.
    pub fn docker_socket(&self) -> PathBuf {
        // Of another kind of address only who really wants the engine learns that it can't be reached: the path does not exist.
        let host = self.variable("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock");
        host.strip_prefix("unix://").unwrap_or(host).into()
    }

    /// `$HOME`.
    pub fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }
}
