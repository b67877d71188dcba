//! `rootling pull`, and the options that all commands with a registry share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::environment::Environment;
use super::prompt;
use super::render::{self, Printer, Progress};
use crate::error::{Error, Result, quote};
use crate::oci::{Platform, Reference};
use crate::transfer::git::GitSettings;
use crate::transfer::read::Platforms;
use crate::transfer::{
    self, AskPassword, Client, ClientSettings, Given, Means, Need, OneTimeSettings, Place, PullOptions, Source, TrustSettings,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// Image to pull: its name, or a place such as docker://REF, oci-archive:FILE[:REF], docker-daemon:REF, podman:REF
    #[arg(value_name = "REFERENCE")]
    image: String,
    /// Platform to pull [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Pull the images of all platforms, and what stands beside them
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Take the image only if the owner of this public key has signed it for this name
    #[arg(long, value_name = "KEYFILE")]
    verify: Option<PathBuf>,
    /// Show nothing but the image ID
    #[arg(long, short)]
    quiet: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// How to speak with registries.
#[derive(Default, clap::Args)]
pub struct RegistryArguments {
    /// Require HTTPS with a known certificate [default: true, but for loopback addresses]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// Credentials for this once, never stored; a password left out is asked for. REGISTRY must be named where a command may ask several;
    /// may be repeated. $ROOTLING_USERNAME, $ROOTLING_PASSWORD and $ROOTLING_REGISTRY say the same without showing it to others
    #[arg(long, value_name = "[REGISTRY=]USER[:PASSWORD]", value_parser = given)]
    creds: Vec<Given>,
    /// Directory with certificates for registries: `*.crt` are authorities, `*.cert` and `*.key` are yours [default: certs.d/HOST]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// File with credentials [default: $REGISTRY_AUTH_FILE, then podman's and docker's places]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// How often to try again when a registry does not answer [default: 5; 2 where its name is unknown]
    #[arg(long, value_name = "N")]
    retry: Option<u32>,
    /// Wait before the first new attempt, such as `2s`; doubles each time [default: 0.4 s]
    #[arg(long, value_name = "TIME", value_parser = pause)]
    retry_delay: Option<Duration>,
    /// File that says whose images are taken [default: ~/.config/containers/policy.json, then /etc/containers/policy.json]
    #[arg(long, value_name = "FILE")]
    signature_policy: Option<PathBuf>,
}

/// Never an error, which would show what was given.
fn given(text: &str) -> std::result::Result<Given, std::convert::Infallible> {
    Ok(Given::parse(text))
}

/// A time with its unit, as docker and podman write it (Go's `time.ParseDuration`, one unit).
fn pause(text: &str) -> std::result::Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let factor = match &text[split..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit `{unit}`; write a number and ms, s, m or h")),
    };
    let number: f64 = text[..split].parse().map_err(|_| "write a number and ms, s, m or h".to_owned())?;
    Duration::try_from_secs_f64(number * factor).map_err(|e| e.to_string())
}

impl RegistryArguments {
    /// What `login` and `logout` need of them.
    pub fn of_login(authfile: Option<PathBuf>, cert_dir: Option<PathBuf>, tls_verify: Option<bool>) -> Self {
        Self { authfile, cert_dir, tls_verify, ..Self::default() }
    }

    /// A client; nothing is read or connected before it is used.
    pub fn client(&self, environment: &Environment) -> Client {
        Client::new(ClientSettings {
            tls_verify: self.tls_verify,
            auth_file: self.authfile.clone().or_else(|| environment.variable("REGISTRY_AUTH_FILE").map(PathBuf::from)),
            runtime_dir: environment.variable("XDG_RUNTIME_DIR").map(PathBuf::from),
            docker_config: environment.variable("DOCKER_CONFIG").map(PathBuf::from),
            config_home: environment.variable("XDG_CONFIG_HOME").map(PathBuf::from),
            registries_conf: environment.registries_conf(),
            home: environment.home(),
            user_id: Some(nix::unistd::getuid().as_raw()),
            certificates: self.cert_dir.clone(),
            one_time: OneTimeSettings {
                given: self.creds.clone(),
                from_environment: environment.one_time_credentials(),
                ask: Some(AskPassword(Arc::new(|user, registry| prompt::secret(&format!("Password of {user} at {registry}: "))))),
                registry: None,
            },
            attempts: self.retry.map(|again| again.saturating_add(1)),
            first_delay: self.retry_delay,
            chunk_size: None,
            patience: None,
            docker_socket: environment.docker_socket(),
            git: GitSettings {
                search_path: environment.variable("PATH").map(str::to_owned),
                ssh_agent: environment.variable("SSH_AUTH_SOCK").map(str::to_owned),
                proxies: environment.proxies().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                ca_file: ["GIT_SSL_CAINFO", "SSL_CERT_FILE"].iter().find_map(|name| environment.variable(name)).map(PathBuf::from),
            },
            trust: TrustSettings { policy: self.signature_policy.clone(), key: None },
        })
    }

    /// How to pull.
    pub fn pull_options(&self, platform: Option<&Platform>) -> PullOptions {
        PullOptions { platform: platform.cloned().unwrap_or_else(Platform::host), need: Need::Files }
    }
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let printer = Printer::new(if arguments.quiet { Progress::Quiet } else { arguments.progress });
    let store = environment.store()?;
    let mut client = arguments.registry.client(environment).with_key(arguments.verify.clone());
    let options = arguments.registry.pull_options(arguments.platform.as_ref());
    let pull = if arguments.all_platforms { transfer::pull_all } else { transfer::pull };
    let records = match Place::of_source(&arguments.image)? {
        None => {
            let candidates = client.candidates(&arguments.image)?;
            if let [only] = &candidates[..] {
                client = client.for_registry(only.registry());
            }
            let ask = |reference: &Reference| pull(&store, &client, reference, &options, &printer);
            vec![transfer::search(&arguments.image, &candidates, &printer, ask)?]
        }
        Some(place @ Place::Registry { .. }) => {
            client = client.for_places(&[&place]);
            vec![pull(&store, &client, &place.reference().expect("a registry's place has a name"), &options, &printer)?]
        }
        Some(place) => {
            let platforms = if arguments.all_platforms { Platforms::All } else { Platforms::One(options.platform) };
            let means = Means { store: &store, client: &client, sink: &printer };
            let brought = transfer::bring(&means, &Source { place: &place, digest: None, platforms: &platforms })?;
            if brought.names.is_empty() {
                return Err(Error::input(format!("{} has no name to keep it by", quote(place.to_string())))
                    .hint(format!("give it one: `rootling convert {} NAME`", arguments.image)));
            }
            brought.names.iter().map(|name| brought.put(&store, name)).collect::<Result<_>>()?
        }
    };
    for record in records {
        if arguments.quiet {
            render::result(&record.config.to_string());
        } else {
            let platforms: Vec<String> = record.members().iter().map(|member| member.platform.to_string()).collect();
            let all = if arguments.all_platforms { format!(" for {}", platforms.join(", ")) } else { String::new() };
            render::note(&format!("pulled {} {}{all}", record.reference.familiar(), record.config.short()));
        }
    }
    Ok(())
}
