//! `HEALTHCHECK`: its two forms, times and count.

use std::time::Duration;

use super::ast::{Command, Healthcheck, Kind};
use super::duration;
use super::flags::{Flags, Problem};
use super::instruction::{Arguments, Parts, command_in};
use super::spelling::quote;

/// Shorter times are refused: the engine could not keep them.
const SHORTEST: Duration = Duration::from_millis(1);

/// Reads the arguments and flags.
pub(super) fn read(parts: &Parts<'_>) -> Result<(Arguments, Kind), Problem> {
    let rest = parts.rest();
    if rest.is_empty() {
        return Err(parts.problem("HEALTHCHECK needs an argument", "expected `NONE` or `CMD command`"));
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let form = rest[..end].to_string();
    let start = parts.rest.start + end + (rest[end..].len() - rest[end..].trim_start().len());
    let (mut arguments, command) = command_in(parts, start..parts.rest.end)?;
    let checked = match form.to_uppercase().as_str() {
        // BuildKit does not look at flags here.
        "NONE" if arguments.list.is_empty() => Healthcheck::None,
        "NONE" => return Err(Problem::new(start..parts.rest.end, "HEALTHCHECK NONE takes no arguments", "unexpected")),
        "CMD" => check(parts, command)?,
        _ => {
            let what = format!("unknown form of HEALTHCHECK {}", quote(&form));
            let problem = Problem::new(parts.rest.start..parts.rest.start + end, what, "expected `NONE` or `CMD`");
            return Err(problem.hint("flags come first: `HEALTHCHECK --interval=30s CMD command`"));
        }
    };
    arguments.list.insert(0, form);
    Ok((arguments, Kind::Healthcheck(checked)))
}

fn check(parts: &Parts<'_>, command: Command) -> Result<Healthcheck, Problem> {
    let flags = Flags::read(parts.keyword, &parts.flags)?;
    if matches!(&command, Command::Shell(text) if text.is_empty()) || command == Command::Exec(Vec::new()) {
        return Err(parts.rest_problem("HEALTHCHECK CMD needs a command", "nothing follows"));
    }
    Ok(Healthcheck::Cmd {
        command,
        interval: time(&flags, "interval")?,
        timeout: time(&flags, "timeout")?,
        start_period: time(&flags, "start-period")?,
        start_interval: time(&flags, "start-interval")?,
        retries: count(&flags, "retries")?,
    })
}

fn time(flags: &Flags, name: &str) -> Result<Option<Duration>, Problem> {
    let Some((value, range)) = flags.found(name).filter(|(value, _)| !value.is_empty()) else { return Ok(None) };
    match duration::parse(value) {
        Some(time) if time.is_zero() || time >= SHORTEST => Ok(Some(time)),
        Some(_) => Err(Problem::new(range, format!("`--{name}` can't be shorter than 1ms"), "")),
        None => {
            let what = format!("`--{name}` takes a time, not {}", quote(value));
            Err(Problem::new(range, what, "").hint(format!("write a number with its unit, for example `--{name}=1m30s`")))
        }
    }
}

fn count(flags: &Flags, name: &str) -> Result<Option<u32>, Problem> {
    let Some((value, range)) = flags.found(name).filter(|(value, _)| !value.is_empty()) else { return Ok(None) };
    match value.parse::<i32>() {
        Ok(number) if number >= 0 => Ok(Some(number.unsigned_abs())),
        _ => Err(Problem::new(range, format!("`--{name}` takes a number from 0 on, not {}", quote(value)), "")),
    }
}
