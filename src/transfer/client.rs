//! The registry client with the files of this machine and user: where podman, skopeo and docker keep theirs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::git::GitSettings;
use crate::error::Result;
use crate::event::{Silent, Sink};
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
    /// Attempts in a row without progress; `None` for the usual number.
    pub attempts: Option<u32>,
    /// Wait before the second attempt; `None` for the usual one.
    pub first_delay: Option<Duration>,
    /// The socket of Docker's engine.
    pub docker_socket: PathBuf,
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
}

impl Client {
    /// A client that has done nothing yet.
    pub fn new(settings: ClientSettings) -> Self {
        Self { settings, notices: Arc::new(Silent), made: OnceLock::new() }
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

    /// What the command line and the environment say.
    pub(super) fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// The client proper. Errors: an unreadable configuration file.
    pub(super) fn registry(&self) -> Result<&registry::Client> {
        if let Some(client) = self.made.get() {
            return Ok(client);
        }
        let settings = Settings {
            registries: RegistriesConf::load(&self.settings.registries_confs())?,
            credentials: Credentials { explicit: None, files: self.settings.auth_files() },
            tls: match self.settings.tls_verify {
                Some(false) => TlsVerify::Never,
                Some(true) => TlsVerify::Always,
                None => TlsVerify::Configured,
            },
            certificate_dirs: self.settings.certificate_dirs(),
            notices: self.notices.clone(),
            patience: self.settings.patience(),
            ..Settings::default()
        };
        Ok(self.made.get_or_init(|| registry::Client::new(settings)))
    }
}

impl ClientSettings {
    fn patience(&self) -> Patience {
        let usual = Patience::default();
        let first_delay = self.first_delay.unwrap_or(usual.first_delay);
        let longest_delay = usual.longest_delay.max(first_delay);
        Patience { attempts: self.attempts.unwrap_or(usual.attempts), first_delay, longest_delay, ..usual }
    }

    /// `~/.config`.
    fn user_config(&self) -> Option<PathBuf> {
        self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))
    }

    /// containers-auth.json(5): the first file that knows the registry wins.
    fn auth_files(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.auth_file {
            return vec![file.clone()];
        }
        let docker = self.docker_config.clone().or_else(|| Some(self.home.as_ref()?.join(".docker")));
        let podman = [self.runtime_dir.clone(), self.user_config()].into_iter().flatten().map(|dir| dir.join("containers/auth.json"));
        podman.chain(docker.map(|dir| dir.join("config.json"))).collect()
    }

    /// containers-registries.conf(5): the user's file replaces the system's, drop-ins add to it.
    fn registries_confs(&self) -> Vec<PathBuf> {
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
        let expected = ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"].map(PathBuf::from);
        assert_eq!(settings.auth_files(), expected);
        let only = ClientSettings { auth_file: Some("/a".into()), ..settings.clone() };
        assert_eq!(only.auth_files(), [PathBuf::from("/a")]);
        let moved = ClientSettings { docker_config: Some("/d".into()), config_home: Some("/c".into()), ..settings };
        assert_eq!(moved.auth_files()[1..], ["/c/containers/auth.json", "/d/config.json"].map(PathBuf::from));
        assert_eq!(moved.certificate_dirs()[0], Path::new("/c/containers/certs.d"));
        assert!(ClientSettings::default().auth_files().is_empty());
    }
}
