//! Instructions that change the config only.

use std::time::Duration;

use serde_json::json;

use crate::dockerfile::ast::{Command as Line, Healthcheck as Check};
use crate::error::{Error, Result, quote};
use crate::oci::Healthcheck;

use super::state::{Command, State};

/// A change of the config, with all variables replaced.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// ARG, with the value it has here.
    Arg(Vec<(String, Option<String>)>),
    /// ENV.
    Env(Vec<(String, String)>),
    /// LABEL.
    Label(Vec<(String, String)>),
    /// USER.
    User(String),
    /// EXPOSE.
    Expose(Vec<String>),
    /// VOLUME.
    Volume(Vec<String>),
    /// CMD.
    Cmd(Line),
    /// ENTRYPOINT.
    Entrypoint(Line),
    /// SHELL.
    Shell(Vec<String>),
    /// STOPSIGNAL.
    StopSignal(String),
    /// HEALTHCHECK.
    Healthcheck(Check),
    /// ONBUILD, the trigger as written.
    Onbuild(String),
    /// MAINTAINER.
    Maintainer(String),
}

/// How long a stage's variables may be together, in bytes. Linux passes 6 MiB at most to a program (execve(2)); variables made of variables can
/// grow without limit.
const LARGEST_ENVIRONMENT: usize = 16 << 20;

/// Applies a change and gives the line for the history.
pub fn apply(state: &mut State, change: &Change) -> Result<String> {
    let line = apply_any(state, change)?;
    if matches!(change, Change::Env(_) | Change::Arg(_)) && state.scope.size() > LARGEST_ENVIRONMENT {
        return Err(Error::input(format!("the variables are longer than {} MiB together", LARGEST_ENVIRONMENT >> 20))
            .hint("no program can be given so much; keep data in files"));
    }
    Ok(line)
}

fn apply_any(state: &mut State, change: &Change) -> Result<String> {
    let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(k, v)| format!(" {k}={v}")).collect::<String>();
    Ok(match change {
        Change::Arg(arguments) => set_arguments(state, arguments),
        Change::Env(variables) => {
            for (name, value) in variables {
                state.scope.set_env(name, value);
                state.config.config.set_env(name, value);
            }
            format!("ENV{}", pairs(variables))
        }
        Change::Label(labels) => {
            state.config.config.labels.extend(labels.iter().cloned());
            format!("LABEL{}", pairs(labels))
        }
        Change::User(user) => {
            state.config.config.user.clone_from(user);
            format!("USER {user}")
        }
        Change::Expose(ports) => set_ports(state, ports)?,
        Change::Volume(volumes) => {
            if volumes.iter().any(String::is_empty) {
                return Err(Error::input("VOLUME can't be an empty string"));
            }
            state.config.config.volumes.extend(volumes.iter().map(|name| (name.clone(), json!({}))));
            format!("VOLUME {}", json!(volumes))
        }
        Change::Cmd(line) => set_command(state, line),
        Change::Entrypoint(line) => set_entrypoint(state, line),
        Change::Shell(shell) => {
            state.config.config.shell.clone_from(shell);
            format!("SHELL {}", json!(shell))
        }
        Change::StopSignal(signal) => {
            check_signal(signal)?;
            state.config.config.stop_signal.clone_from(signal);
            format!("STOPSIGNAL {signal}")
        }
        Change::Healthcheck(check) => {
            let healthcheck = healthcheck(check);
            let text = format!("HEALTHCHECK {}", json!(healthcheck.test));
            state.config.config.healthcheck = Some(healthcheck);
            text
        }
        Change::Onbuild(trigger) => {
            state.config.config.on_build.push(trigger.clone());
            format!("ONBUILD {trigger}")
        }
        Change::Maintainer(name) => {
            state.config.author = Some(name.clone());
            format!("MAINTAINER {name}")
        }
    })
}

fn set_arguments(state: &mut State, arguments: &[(String, Option<String>)]) -> String {
    let mut line = "ARG".to_owned();
    for (name, value) in arguments {
        state.scope.set_arg(name, value.as_deref());
        line.push_str(&value.as_ref().map_or_else(|| format!(" {name}"), |value| format!(" {name}={value}")));
    }
    line
}

fn set_ports(state: &mut State, ports: &[String]) -> Result<String> {
    let mut names = Vec::new();
    for port in ports {
        names.extend(ports_of(port)?);
    }
    state.config.config.exposed_ports.extend(names.iter().map(|name| (name.clone(), json!({}))));
    Ok(format!("EXPOSE {}", names.join(" ")))
}

fn set_command(state: &mut State, line: &Line) -> String {
    let command = command(state, line);
    let text = format!("CMD {}", json!(command));
    state.config.config.cmd = Some(command);
    state.command = Command::Own;
    text
}

/// An inherited CMD was meant for the inherited ENTRYPOINT.
fn set_entrypoint(state: &mut State, line: &Line) -> String {
    let command = command(state, line);
    let text = format!("ENTRYPOINT {}", json!(command));
    state.config.config.entrypoint = Some(command);
    if state.command == Command::Inherited {
        state.config.config.cmd = None;
    }
    text
}

/// A command line as the config keeps it: the shell form with its shell.
pub fn command(state: &State, line: &Line) -> Vec<String> {
    match line {
        Line::Exec(words) => words.clone(),
        Line::Shell(text) => {
            let mut words = state.shell();
            words.push(text.clone());
            words
        }
    }
}

fn healthcheck(check: &Check) -> Healthcheck {
    let Check::Cmd { command, interval, timeout, start_period, start_interval, retries } = check else {
        return Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() };
    };
    let nanoseconds = |time: &Option<Duration>| time.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    Healthcheck {
        test: match command {
            Line::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
            // Docker's CMD-SHELL runs the image's shell.
            Line::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
        },
        interval: nanoseconds(interval),
        timeout: nanoseconds(timeout),
        start_period: nanoseconds(start_period),
        start_interval: nanoseconds(start_interval),
        retries: retries.map_or(0, i64::from),
    }
}

/// `port`, `port/protocol`, `first-last/protocol`, also with docker's `[ip:][host:]` in front, which EXPOSE ignores: one key a port.
fn ports_of(text: &str) -> Result<Vec<String>> {
    let bad = |why: &str| Error::input(format!("invalid port {}", quote(text))).cause(why).hint("write `80`, `80/udp` or `8000-8010/tcp`");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad("the protocol is not tcp, udp or sctp"));
    }
    let range = range.rsplit(':').next().unwrap_or_default();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().map_err(|_| bad("a port is a number from 0 to 65535"));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(bad("the range ends before it begins"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Accepts a number or a signal's name, with or without SIG.
fn check_signal(signal: &str) -> Result<()> {
    let known = match signal.parse::<u32>() {
        Ok(number) => number > 0,
        Err(_) => {
            let name = signal.to_uppercase();
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            let real_time = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-")).is_some_and(|n| n.parse::<u8>().is_ok());
            real_time
                || matches!(name, "RTMIN" | "RTMAX" | "CLD" | "POLL")
                || format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
        }
    };
    if known {
        Ok(())
    } else {
        Err(Error::input(format!("unknown signal {}", quote(signal))).hint("give a name such as SIGTERM, or a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, expected) in [
            ("80", &["80/tcp"][..]),
            ("53/UDP", &["53/udp"]),
            ("1-3/sctp", &["1/sctp", "2/sctp", "3/sctp"]),
            ("127.0.0.1:80:8080", &["8080/tcp"]),
        ] {
            assert_eq!(ports_of(text).unwrap(), expected, "{text}");
        }
        for text in ["", "x", "80/icmp", "70000", "5-3", "-1"] {
            assert!(ports_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals() {
        for signal in ["SIGTERM", "term", "9", "SIGRTMIN+3", "64"] {
            assert!(check_signal(signal).is_ok(), "{signal}");
        }
        for signal in ["SIGFOO", "0", "-1", ""] {
            assert!(check_signal(signal).is_err(), "{signal}");
        }
    }
}
