//! The registry client with the files of this machine and user: where podman, skopeo and docker keep theirs.
//!
//! Which of several wins, and where logins are written: decision 20.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::git::GitSettings;
use super::one_time::OneTimeSettings;
use super::place::Place;
use crate::error::Result;
use crate::event::{Silent, Sink};
use crate::oci::ShortNames;
use crate::registry::{self, Credentials, Patience, RegistriesConf, Settings, TlsVerify};

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    /// `--tls-verify`.
    pub tls_verify: Option<bool>,
    /// `--authfile` or `$REGISTRY_AUTH_FILE`; the only one then.
    pub auth_file: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$DOCKER_CONFIG`, a directory.
    pub docker_config: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF`; the only one then.
    pub registries_conf: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// When to give up; the usual times if not given.
    pub patience: Option<Patience>,
    /// The user's number.
    pub user_id: Option<u32>,
    /// Attempts in a row without progress; `None` for the usual number.
    pub attempts: Option<u32>,
    /// Wait before the second attempt; `None` for the usual one.
    pub first_delay: Option<Duration>,
    /// Bytes of a blob to send at once; `None` for all.
    pub chunk_size: Option<u64>,
    /// The socket of Docker's engine.
    pub docker_socket: PathBuf,
    /// `--cert-dir`: certificates for every registry.
    pub certificates: Option<PathBuf>,
    /// Credentials for this once.
    pub one_time: OneTimeSettings,
    /// For git.
    pub git: GitSettings,
    /// Who must vouch for what is pulled.
    pub trust: TrustSettings,
}

/// Who must vouch for what is pulled.
#[derive(Clone, Debug, Default)]
pub struct TrustSettings {
    /// `--signature-policy`; the only one then.
    pub policy: Option<PathBuf>,
    /// `--verify`: whose signature is needed besides.
    pub key: Option<PathBuf>,
}

/// A client of all registries; nothing is read or connected before it is used.
pub struct Client {
    settings: ClientSettings,
    notices: Arc<dyn Sink>,
    made: OnceLock<registry::Client>,
    /// Held while it is made: of two stages that begin at once one asks for the password.
    making: Mutex<()>,
}

impl Client {
    /// A client that has done nothing yet.
    pub fn new(settings: ClientSettings) -> Self {
        Self { settings, notices: Arc::new(Silent), made: OnceLock::new(), making: Mutex::default() }
    }

    /// Who is told when a registry makes us wait.
    #[must_use]
    pub fn with_notices(self, notices: Arc<dyn Sink>) -> Self {
        Self { notices, ..self }
    }

    /// Takes nothing that the owner of this public key has not signed.
    #[must_use]
    pub fn with_key(mut self, file: Option<PathBuf>) -> Self {
        self.settings.trust.key = file;
        self
    }

    /// Sends at most so many bytes of a blob at once.
    #[must_use]
    pub fn with_chunk_size(mut self, bytes: Option<u64>) -> Self {
        self.settings.chunk_size = bytes;
        self
    }

    /// The registry that the command names: credentials for this once that name none belong to it.
    #[must_use]
    pub fn for_registry(mut self, registry: &str) -> Self {
        self.settings.one_time.registry = Some(registry.to_owned());
        self
    }

    /// [`Client::for_registry`], where the places that a command names are in one registry.
    #[must_use]
    pub fn for_places(self, places: &[&Place]) -> Self {
        let registries = places.iter().filter_map(|place| match place {
            Place::Registry { reference, .. } => Some(reference.registry().to_owned()),
            _ => None,
        });
        let registries: BTreeSet<String> = registries.collect();
        match registries.first() {
            Some(registry) if registries.len() == 1 => self.for_registry(registry),
            _ => self,
        }
    }

    /// What the command line and the environment say.
    pub(super) fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// The client proper. Errors: an unreadable configuration file.
    pub(super) fn registry(&self) -> Result<&registry::Client> {
        if let Some(client) = self.made.get() {
            return Ok(client);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = self.made.get() {
            return Ok(client);
        }
        let settings = self.registry_settings()?;
        let settings = Settings {
            credentials: Credentials { one_time: self.settings.one_time.resolve(&*self.notices)?, ..settings.credentials },
            ..settings
        };
        Ok(self.made.get_or_init(|| registry::Client::new(settings)))
    }

    /// What files and options say, without credentials for this once.
    pub(super) fn registry_settings(&self) -> Result<Settings> {
        let registries = RegistriesConf::load(&self.settings.registries_confs())?;
        let credentials = Credentials {
            one_time: Vec::new(),
            files: self.settings.auth_files(),
            written: self.settings.written_auth_file(),
            helpers: registries.credential_helpers().to_vec(),
        };
        Ok(Settings {
            registries,
            credentials,
            tls: match self.settings.tls_verify {
                Some(false) => TlsVerify::Never,
                Some(true) => TlsVerify::Always,
                None => TlsVerify::Configured,
            },
            certificate_dirs: self.settings.certificate_dirs(),
            certificates: self.settings.certificates.clone(),
            notices: self.notices.clone(),
            patience: self.settings.patience(),
            chunk_size: self.settings.chunk_size,
            ..Settings::default()
        })
    }
}

impl ClientSettings {
    fn patience(&self) -> Patience {
        let usual = self.patience.unwrap_or_default();
        let first_delay = self.first_delay.unwrap_or(usual.first_delay);
        let longest_delay = usual.longest_delay.max(first_delay);
        Patience { attempts: self.attempts.unwrap_or(usual.attempts), first_delay, longest_delay, ..usual }
    }

    /// `~/.config`.
    fn user_config(&self) -> Option<PathBuf> {
        self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))
    }

    /// containers-auth.json(5): the first file that knows the registry wins. Who sets `$DOCKER_CONFIG` means that one, as for podman.
    fn auth_files(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.auth_file {
            return vec![file.clone()];
        }
        let set = self.docker_config.iter().map(|dir| dir.join("config.json"));
        let podman = [self.podman_runtime(), self.user_config().map(|dir| dir.join("containers"))];
        let podman = podman.into_iter().flatten().map(|dir| dir.join("auth.json"));
        let docker = self.home.iter().flat_map(|home| [home.join(".docker/config.json"), home.join(".dockercfg")]);
        set.chain(podman).chain(docker).collect()
    }

    /// Where podman keeps what ends with the session.
    fn podman_runtime(&self) -> Option<PathBuf> {
        let fallback = || Some(PathBuf::from(format!("/run/containers/{}", self.user_id?)));
        self.runtime_dir.as_ref().map(|dir| dir.join("containers")).or_else(fallback)
    }

    /// The file that logins are written to. A batch job often has a `$XDG_RUNTIME_DIR` that is not there.
    fn written_auth_file(&self) -> Option<PathBuf> {
        let podman = |dir: PathBuf| dir.join("containers/auth.json");
        let set = self.auth_file.clone().or_else(|| Some(self.docker_config.as_ref()?.join("config.json")));
        let runtime = || self.runtime_dir.clone().filter(|dir| dir.is_dir()).map(podman);
        set.or_else(runtime).or_else(|| self.user_config().map(podman))
    }

    /// containers-registries.conf(5): the user's file replaces the system's, drop-ins add to it.
    pub(super) fn registries_confs(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.registries_conf {
            return vec![file.clone()];
        }
        let user = self.user_config().map(|dir| dir.join("containers"));
        let own = user.as_ref().map(|dir| dir.join("registries.conf")).filter(|file| file.exists());
        let system = Path::new("/etc/containers");
        let mut files = vec![own.unwrap_or_else(|| system.join("registries.conf")), system.join("registries.conf.d")];
        files.extend(user.map(|dir| dir.join("registries.conf.d")));
        files
    }

    /// What names without a registry mean, if that can be read: an error is for those to tell who need the network.
    pub fn short_names(&self) -> ShortNames {
        RegistriesConf::load(&self.registries_confs()).map(|conf| conf.short_names().clone()).unwrap_or_default()
    }

    /// containers-policy.json(5): the first that exists is the only one. The manual's place for the user's is below `~/.config` whatever
    /// `$XDG_CONFIG_HOME` says, so a policy there counts too.
    pub(super) fn policies(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.trust.policy {
            return vec![file.clone()];
        }
        let homes = self.user_config().into_iter().chain(self.home.as_ref().map(|home| home.join(".config")));
        homes.chain([PathBuf::from("/etc")]).map(|dir| dir.join("containers/policy.json")).collect()
    }

    /// containers-certs.d(5).
    fn certificate_dirs(&self) -> Vec<PathBuf> {
        let user = self.user_config().map(|dir| dir.join("containers/certs.d"));
        user.into_iter().chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_places() {
        let settings = ClientSettings { home: Some("/h".into()), runtime_dir: Some("/r".into()), ..ClientSettings::default() };
        let expected = ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json", "/h/.dockercfg"];
        assert_eq!(settings.auth_files(), expected.map(PathBuf::from));
        assert_eq!(settings.written_auth_file(), Some("/h/.config/containers/auth.json".into()), "there is no /r");
        let session = ClientSettings { runtime_dir: Some("/proc".into()), ..settings.clone() };
        assert_eq!(session.written_auth_file(), Some("/proc/containers/auth.json".into()));
        let batch = ClientSettings { runtime_dir: None, user_id: Some(7), ..settings.clone() };
        assert_eq!(batch.auth_files()[0], Path::new("/run/containers/7/auth.json"));
        let only = ClientSettings { auth_file: Some("/a".into()), ..settings.clone() };
        assert_eq!(only.auth_files(), [PathBuf::from("/a")]);
        let moved = ClientSettings { docker_config: Some("/d".into()), config_home: Some("/c".into()), ..settings };
        assert_eq!(moved.auth_files()[..3], ["/d/config.json", "/r/containers/auth.json", "/c/containers/auth.json"].map(PathBuf::from));
        assert_eq!(moved.written_auth_file(), Some("/d/config.json".into()));
        assert_eq!(moved.certificate_dirs()[0], Path::new("/c/containers/certs.d"));
        assert!(ClientSettings::default().auth_files().is_empty());
    }
}
