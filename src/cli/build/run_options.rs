//! Options of `rootling build` for what RUN sees of this machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::build::{Agent, Resolution, Secret, Surroundings};
use crate::cli::bind;
use crate::cli::environment::Environment;
use crate::dockerfile;
use crate::error::{Error, IoContext, Result, nearest, quote, quote_path};
use crate::oci::ImagePath;
use crate::sandbox::{Access, Capabilities, Limit, Missing, Mount, MountKind, Network};

#[derive(clap::Args)]
#[command(next_help_heading = "What RUN sees")]
pub struct RunOptions {
    /// Secret for `RUN --mount=type=secret`, from a file or a variable
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    secret: Vec<String>,
    /// SSH agent for `RUN --mount=type=ssh`: a socket, or keys for an agent of the step's own [default: $SSH_AUTH_SOCK]
    #[arg(long, value_name = "default|ID[=SOCKET|KEY[,KEY]]")]
    ssh: Vec<String>,
    /// Network: host or none
    #[arg(long, value_name = "NETWORK", default_value = "host")]
    network: String,
    /// Line for /etc/hosts; `host-gateway` is this machine
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<String>,
    /// Name server instead of the machine's
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Search domain instead of the machine's
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of resolv.conf instead of the machine's
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Bind a directory or file of this machine; what is in it enters neither layers nor the cache key, its path enters the key
    #[arg(long, short = 'v', visible_alias = "volume", value_name = "SRC[:DST[:ro]]")]
    bind: Vec<String>,
    /// Device of this machine
    #[arg(long, value_name = "DEVICE[:DST]")]
    device: Vec<String>,
    /// Set a variable in every stage, and in the image; without value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Capability to have within the container, besides docker's usual ones
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Capability not to have
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_drop: Vec<String>,
    /// Accepted for buildah's sake: there is one kind of isolation
    #[arg(long, hide = true)]
    isolation: Option<String>,
    /// Accepted for docker's sake: what it allows is allowed, as far as anybody without privileges can allow it
    #[arg(long, hide = true)]
    allow: Vec<String>,
}

impl RunOptions {
    /// What the options say. Secrets are read now, so that an error comes before the first step.
    pub fn surroundings(&self, environment: &Environment) -> Result<Surroundings> {
        self.isolation.as_deref().map_or(Ok(()), check_isolation)?;
        self.allow.iter().try_for_each(|name| check_entitlement(name))?;
        let mut binds = self.bind.iter().map(|text| bind::parse(text)).collect::<Result<Vec<_>>>()?;
        binds.extend(self.device.iter().map(|text| device(text)).collect::<Result<Vec<_>>>()?);
        Ok(Surroundings {
            secrets: self.secret.iter().map(|text| secret(text, environment)).collect::<Result<_>>()?,
            agents: self.ssh.iter().map(|text| agent(text, environment)).collect::<Result<_>>()?,
            network: network(&self.network)?,
            hosts: self.add_host.iter().map(|text| host(text)).collect::<Result<_>>()?,
            resolution: Resolution { servers: self.dns.clone(), search: self.dns_search.clone(), options: self.dns_option.clone() },
            shm_size: self.shm_size.as_deref().map(size).transpose()?,
            limits: self.ulimit.iter().map(|text| text.parse()).collect::<Result<Vec<Limit>>>()?,
            capabilities: self.capabilities()?,
            binds,
            variables: variables(&self.env, environment)?,
        })
    }

    fn capabilities(&self) -> Result<Capabilities> {
        let set = |names: &[String]| -> Result<Capabilities> {
            names.iter().try_fold(Capabilities::NONE, |set, name| Ok(set.with(capability(name)?)))
        };
        // As docker: what is dropped by name is dropped even from ALL; ALL is dropped before what is added.
        let dropped = set(&self.cap_drop)?;
        let added = set(&self.cap_add)?;
        Ok(if dropped == Capabilities::ALL { added } else { Capabilities::docker().with(added).without(dropped) })
    }
}

/// `id=ID[,src=FILE|,env=NAME][,type=file|env]`, as `docker buildx build` reads it.
fn secret(text: &str, environment: &Environment) -> Result<(String, Secret)> {
    let wrong = |why: String| Error::input(format!("invalid secret {}", quote(text))).cause(why);
    let (mut id, mut kind, mut source, mut variable) = (String::new(), None, None, None);
    for field in dockerfile::comma_fields("--secret", text)? {
        let Some((name, value)) = field.split_once('=') else {
            return Err(wrong(format!("{} is no NAME=VALUE", quote(&field))).hint("write `id=ID,src=FILE` or `id=ID,env=NAME`"));
        };
        match name.to_ascii_lowercase().as_str() {
            "id" => value.clone_into(&mut id),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(wrong(format!("there is no type {}", quote(value))).hint("the types are file and env")),
            "src" | "source" => source = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            other => {
                let error = wrong(format!("unknown option {}", quote(other)));
                return Err(match nearest(other, ["id", "type", "src", "source", "env"]) {
                    Some(near) => error.hint(format!("did you mean {}?", quote(near))),
                    None => error.hint("known are id, src, env and type"),
                });
            }
        }
    }
    if id.is_empty() {
        return Err(wrong("it has no id".into()).hint("write `id=ID,src=FILE` or `id=ID,env=NAME`"));
    }
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = source.take();
    }
    // Without a source the id names a variable, else a file.
    if variable.is_none() && source.is_none() {
        if environment.variable(&id).is_some() && kind.as_deref() != Some("file") {
            variable = Some(id.clone());
        } else {
            source = Some(id.clone());
        }
    }
    let bytes = match (variable, source) {
        (Some(variable), _) => variable_value(&id, &variable, environment)?,
        (None, source) => read_secret(&id, Path::new(source.as_deref().unwrap_or(&id)))?,
    };
    Ok((id, Secret::new(bytes)))
}

fn variable_value(id: &str, name: &str, environment: &Environment) -> Result<Vec<u8>> {
    let value = environment.variable(name).ok_or_else(|| {
        Error::input(format!("can't read the secret {}", quote(id)))
            .cause(format!("the variable {} is not set", quote(name)))
            .hint(format!("set and export it, or give a file: `--secret id={id},src=FILE`"))
    })?;
    Ok(value.as_bytes().to_vec())
}

/// As BuildKit (`MaxSecretSize`); what is larger is no secret but a mistake.
const LARGEST_SECRET: usize = 500 * 1024;

fn read_secret(id: &str, path: &Path) -> Result<Vec<u8>> {
    let named = |error: Error| error.context(format!("can't read the secret {}", quote(id)));
    let bytes = std::fs::read(path).doing("read", path).map_err(named)?;
    if bytes.len() > LARGEST_SECRET {
        return Err(named(Error::input(format!("{} has {} bytes, {LARGEST_SECRET} are allowed", quote_path(path), bytes.len()))));
    }
    Ok(bytes)
}

/// `default`, `ID` or `ID=SOCKET` or `ID=KEY[,KEY]`.
fn agent(text: &str, environment: &Environment) -> Result<(String, Agent)> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    let paths: Vec<&str> = paths.split(',').filter(|path| !path.is_empty()).collect();
    if paths.is_empty() {
        let socket = environment.variable("SSH_AUTH_SOCK").ok_or_else(|| {
            Error::input(format!("there is no SSH agent for `--ssh {text}`"))
                .cause("the variable `SSH_AUTH_SOCK` is not set")
                .hint(format!("start one (`eval \"$(ssh-agent)\"; ssh-add`), or give keys: `--ssh {id}=KEY`"))
        })?;
        return Ok((id.to_owned(), Agent::Socket(existing(socket)?)));
    }
    let paths = paths.into_iter().map(existing).collect::<Result<Vec<_>>>()?;
    let is_socket = |path: &Path| std::fs::metadata(path).is_ok_and(|stat| stat.file_type().is_socket());
    match paths.as_slice() {
        [only] if is_socket(only) => Ok((id.to_owned(), Agent::Socket(only.clone()))),
        _ => match paths.iter().find(|path| is_socket(path)) {
            Some(socket) => {
                Err(Error::input(format!("invalid `--ssh {text}`")).cause(format!("{} is an agent, not a key", quote_path(socket))))
            }
            None => Ok((id.to_owned(), Agent::Keys(paths))),
        },
    }
}

fn existing(path: &str) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).doing("find", Path::new(path))?;
    std::fs::metadata(&absolute).doing("find", &absolute)?;
    Ok(absolute)
}

fn network(text: &str) -> Result<Network> {
    match text {
        "host" | "default" => Ok(Network::Host),
        "none" => Ok(Network::None),
        other => Err(Error::input(format!("there is no network {}", quote(other)))
            .cause("a network of its own needs privileges on this machine")
            .hint("use `host` or `none`")),
    }
}

/// `NAME:IP` or `NAME=IP`. A step has the machine's own network, so its gateway to the machine is the loopback address.
fn host(text: &str) -> Result<(String, IpAddr)> {
    let wrong = || {
        Error::input(format!("invalid host {}", quote(text)))
            .hint("write NAME:IP, such as db:10.0.0.5 or host.docker.internal:host-gateway")
    };
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let address = match address.trim_start_matches('[').trim_end_matches(']') {
        "host-gateway" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address.parse().map_err(|_| wrong().cause(format!("{} is no IP address", quote(address))))?,
    };
    Ok((name.to_owned(), address))
}

/// `DEVICE[:DST[:PERMISSIONS]]`: whoever may open a device here may do so inside.
fn device(text: &str) -> Result<Mount> {
    let mut parts = text.split(':');
    let source = PathBuf::from(parts.next().unwrap_or_default());
    if !source.starts_with("/dev") {
        let error = Error::input(format!("{} is not a device of this machine", quote(text)));
        return Err(error.hint("name it by its path, such as /dev/nvidia0; names of CDI (vendor.com/class=name) are not known here"));
    }
    std::fs::metadata(&source).doing("find", &source)?;
    let target = parts.next().filter(|part| part.starts_with('/'));
    let target = ImagePath::clean(target.map_or_else(|| source.display().to_string(), str::to_owned));
    Ok(Mount { target, kind: MountKind::Bind { source }, access: Access::ReadWrite, missing: Missing::Create })
}

fn variables(given: &[String], environment: &Environment) -> Result<Vec<(String, String)>> {
    let mut variables = BTreeMap::new();
    for text in given {
        match text.split_once('=') {
            Some(("", _)) => return Err(Error::input(format!("`--env {text}` has no name"))),
            Some((name, value)) => drop(variables.insert(name.to_owned(), value.to_owned())),
            None => {
                if let Some(value) = environment.variable(text) {
                    variables.insert(text.clone(), value.to_owned());
                }
            }
        }
    }
    Ok(variables.into_iter().collect())
}

fn size(text: &str) -> Result<u64> {
    dockerfile::size(text)
        .ok_or_else(|| Error::input(format!("{} is no size", quote(text))).hint("write a number with a unit, such as 512m or 2g"))
}

fn capability(name: &str) -> Result<Capabilities> {
    Capabilities::named(name).ok_or_else(|| {
        let error = Error::input(format!("there is no capability {}", quote(name)));
        let upper = name.to_ascii_uppercase();
        match nearest(upper.trim_start_matches("CAP_"), Capabilities::names().iter().copied()) {
            Some(near) => error.hint(format!("did you mean {}?", quote(near))),
            None => error.hint("capabilities(7) has the names"),
        }
    })
}

fn check_isolation(text: &str) -> Result<()> {
    match text {
        "default" | "rootless" | "chroot" | "oci" | "process" => Ok(()),
        other => Err(Error::input(format!("there is no isolation {}", quote(other)))
            .hint("leave `--isolation` out: steps always run in namespaces of their own, without privileges")),
    }
}

fn check_entitlement(text: &str) -> Result<()> {
    match text {
        "security.insecure" => Err(Error::input("`security.insecure` can't be allowed")
            .cause("it means privileges on the machine, which this program never has")
            .hint("if a step lacks a capability within its container, `--cap-add` gives it")),
        _ => Ok(()),
    }
}
