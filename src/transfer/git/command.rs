//! Running the system's git so that nothing of a repository is executed and no secret shows in its arguments.
//!
//! No configuration but ours is read (a repository can't bring any; the machine's and the user's may name filters and helpers), hooks are off,
//! nobody is asked for a password, and only the named protocols are spoken. What is secret goes through the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Kind, Result, hide_credentials, quote};

/// What git is told of this machine and its user.
#[derive(Clone, Debug, Default)]
pub struct GitSettings {
    /// `$PATH`.
    pub search_path: Option<String>,
    /// `$SSH_AUTH_SOCK`.
    pub ssh_agent: Option<String>,
    /// Proxy variables.
    pub proxies: BTreeMap<String, String>,
    /// A file of CA certificates instead of the system's (`$GIT_SSL_CAINFO`, `$SSL_CERT_FILE`).
    pub ca_file: Option<PathBuf>,
}

/// Git with everything that does not change from call to call.
pub(super) struct Git<'a> {
    pub(super) settings: &'a GitSettings,
    /// Certificates are not checked (`--tls-verify=false`).
    pub(super) insecure: bool,
    /// An empty directory: git finds neither configuration nor passwords (`.netrc`) there.
    pub(super) home: &'a Path,
    /// Where an `Authorization` header goes, and the header.
    pub(super) authorization: Option<(&'a str, &'a str)>,
    /// Protocols that are spoken, separated by colons.
    pub(super) protocols: &'static str,
}

/// Said on every call. A silent server is given up after a minute.
const CONFIG: [&str; 12] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.symlinks=true",
    "core.fileMode=true",
    "core.attributesFile=/dev/null",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
];

impl Git<'_> {
    /// Runs git in a directory; returns what it wrote to standard output.
    pub(super) fn run(&self, directory: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new("git");
        for setting in CONFIG {
            command.args(["-c", setting]);
        }
        command.args(arguments).current_dir(directory).stdin(Stdio::null());
        self.environment(&mut command);
        let output = command.output().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::with_kind(Kind::Unsupported, "git is not installed")
                .hint("install the package `git`, or load the module that has it; repositories are fetched by the system's git"),
            _ => Error::os("can't run git", e),
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(self.failure(arguments.first().copied().unwrap_or_default(), &String::from_utf8_lossy(&output.stderr)))
    }

    fn environment(&self, command: &mut Command) {
        command.env_clear();
        command.envs(&self.settings.proxies);
        let path = self.settings.search_path.as_deref().unwrap_or("/usr/local/bin:/usr/bin:/bin");
        command.env("PATH", path).env("HOME", self.home).env("LC_ALL", "C");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_ATTR_NOSYSTEM", "1");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", self.protocols);
        // ssh keeps the user's own keys, known hosts and agent, but asks nothing.
        command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        command.envs(self.settings.ssh_agent.as_ref().map(|socket| ("SSH_AUTH_SOCK", socket)));
        command.envs(self.settings.ca_file.as_ref().map(|file| ("GIT_SSL_CAINFO", file)));
        if self.insecure {
            command.env("GIT_SSL_NO_VERIFY", "1");
        }
        if let Some((origin, header)) = self.authorization {
            // git would send the header on to whatever host the first answer points at.
            let settings = [
                (format!("http.{origin}/.extraHeader"), format!("Authorization: {header}")),
                ("http.followRedirects".to_owned(), "false".to_owned()),
            ];
            command.env("GIT_CONFIG_COUNT", settings.len().to_string());
            for (number, (name, value)) in settings.iter().enumerate() {
                command.env(format!("GIT_CONFIG_KEY_{number}"), name).env(format!("GIT_CONFIG_VALUE_{number}"), value);
            }
        }
    }

    /// An error with git's own last line.
    fn failure(&self, action: &str, stderr: &str) -> Error {
        let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        // That a submodule could not be cloned is said after why.
        let wraps = |line: &str| line.starts_with("fatal: clone of") || line.contains("into submodule path");
        let telling = |line: &&str| ["fatal:", "error:", "ssh:"].iter().any(|start| line.starts_with(start)) && !wraps(line);
        let line = lines().rfind(telling).or_else(|| lines().next_back()).unwrap_or("it says nothing");
        // Git adds advice for ssh after what went wrong.
        let line = match line.starts_with("fatal: Could not read from remote repository") {
            true => lines().find(|line| !line.starts_with("Warning:")).unwrap_or(line),
            false => line,
        };
        let error = Error::with_kind(kind(stderr), format!("git {action} failed")).cause(hide_credentials(line));
        match (error.kind(), self.authorization) {
            (Kind::Denied, None) => error.hint(
                "check the address; if it is private, give `--secret id=GIT_AUTH_TOKEN,src=FILE` for HTTPS, or load its key into ssh-agent for SSH",
            ),
            (Kind::Denied, Some(_)) => error.hint("the server does not accept the credentials given for it (git 2.31 or later is needed to pass them on)"),
            (Kind::NotFound, _) => error.hint("check the address"),
            _ if stderr.contains("Host key verification failed") => error
                .hint("ssh does not know this host: connect to it once by hand, or add its key with `ssh-keyscan HOST >>~/.ssh/known_hosts`"),
            _ if line.contains("transport") && line.contains("not allowed") => {
                error.hint(format!("only these protocols are spoken here: {}", self.protocols.replace(':', ", ")))
            }
            _ => error,
        }
    }
}

/// Whether another attempt may help: the network failed, not the request.
fn kind(stderr: &str) -> Kind {
    let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    if has(&[
        "could not read Username",
        "could not read Password",
        "Authentication failed",
        "Permission denied",
        "error: 403",
        "error: 401",
    ]) {
        Kind::Denied
    } else if has(&["not found", "does not exist", "does not appear to be a git repository", "error: 404"]) && !has(&["command not found"])
    {
        Kind::NotFound
    } else if has(&[
        "Could not resolve",
        "unable to access",
        "unable to connect",
        "Connection",
        "early EOF",
        "hung up",
        "RPC failed",
        "timed out",
        "error: 5",
        "error: 429",
    ]) {
        Kind::Network
    } else if has(&["No space left", "Disk quota exceeded"]) {
        Kind::NoSpace
    } else {
        Kind::Other
    }
}

/// What git printed, as text for a message or a value in a line.
pub(super) fn line(output: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.trim();
    if line.is_empty() || line.contains('\n') {
        return Err(Error::new("git's answer can't be understood").cause(format!("it is {}", quote(line))));
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_git_says_last() {
        let settings = GitSettings::default();
        let git = Git { settings: &settings, insecure: false, home: Path::new("/"), authorization: None, protocols: "https" };
        for (stderr, expected, expected_kind) in [
            ("fatal: repository 'https://u:p@h/x/' not found\n", "fatal: repository 'https://xxxxx@h/x/' not found", Kind::NotFound),
            ("remote: a\nfatal: Authentication failed for 'https://h/x'\n", "fatal: Authentication failed for 'https://h/x'", Kind::Denied),
            (
                "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\nPlease make sure\nexists.",
                "git@h: Permission denied (publickey).",
                Kind::Denied,
            ),
            (
                "fatal: unable to access 'https://h/': Could not resolve host: h",
                "fatal: unable to access 'https://h/': Could not resolve host: h",
                Kind::Network,
            ),
            ("", "it says nothing", Kind::Other),
        ] {
            let error = git.failure("fetch", stderr);
            assert_eq!((error.causes()[0].as_str(), error.kind()), (expected, expected_kind), "{stderr}");
        }
    }
}
