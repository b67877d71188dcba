//! Resource limits of a command, as `--ulimit` writes them: setrlimit(2).

use std::str::FromStr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, nearest, quote};

/// One limit. `None` for a number is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// One of the names below.
    name: String,
    soft: Option<u64>,
    hard: Option<u64>,
}

/// Docker's names (docker/go-units, `ulimit.go`).
const RESOURCES: [(&str, Resource); 15] = [
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

impl Limit {
    /// Sets it for this process and those it starts.
    ///
    /// # Errors
    /// Beyond the caller's own hard limit, which only the machine's root can raise.
    pub(super) fn set(&self) -> Result<()> {
        let Some((_, resource)) = RESOURCES.iter().find(|(name, _)| *name == self.name) else { return Ok(()) };
        let own = getrlimit(*resource).maximum;
        setrlimit(*resource, Rlimit { current: self.soft, maximum: self.hard }).map_err(|errno| {
            let error = Error::os(format!("can't set the limit {}", quote(self.to_string())), errno);
            match own {
                Some(most) if self.hard.is_none_or(|hard| hard > most) => error
                    .cause(format!("this user's own hard limit is {most}"))
                    .hint(format!("ask for {most} at most: `{}={most}`", self.name)),
                _ => error,
            }
        })
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |value: Option<u64>| value.map_or_else(|| "-1".to_owned(), |value| value.to_string());
        write!(f, "{}={}:{}", self.name, number(self.soft), number(self.hard))
    }
}

impl FromStr for Limit {
    type Err = Error;

    /// `NAME=SOFT[:HARD]`, -1 for no limit.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: String| Error::input(format!("invalid limit {}", quote(text))).cause(why);
        let (name, values) = text
            .split_once('=')
            .ok_or_else(|| wrong("it has no `=`".into()).hint("write NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:4096"))?;
        if !RESOURCES.iter().any(|(known, _)| *known == name) {
            let error = wrong(format!("there is no resource {}", quote(name)));
            let names = RESOURCES.iter().map(|(known, _)| *known);
            return Err(match nearest(name, names.clone()) {
                Some(near) => error.hint(format!("did you mean {}?", quote(near))),
                None => error.hint(format!("known are {}", names.collect::<Vec<_>>().join(", "))),
            });
        }
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| wrong(format!("{} is no number", quote(digits)))),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
            return Err(wrong("the soft limit is above the hard one".into()));
        }
        Ok(Self { name: name.into(), soft, hard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        for (text, expected) in [
            ("nofile=1024", Ok("nofile=1024:1024")),
            ("nofile=1024:4096", Ok("nofile=1024:4096")),
            ("core=0:-1", Ok("core=0:-1")),
            ("core=-1", Ok("core=-1:-1")),
            ("nofil=1", Err("there is no resource `nofil`")),
            ("nofile", Err("it has no `=`")),
            ("nofile=many", Err("`many` is no number")),
            ("nofile=2:1", Err("the soft limit is above the hard one")),
        ] {
            match (text.parse::<Limit>(), expected) {
                (Ok(limit), Ok(expected)) => assert_eq!(limit.to_string(), expected, "{text}"),
                (Err(error), Err(expected)) => assert_eq!(error.causes(), [expected], "{text}"),
                (limit, _) => panic!("{text}: {limit:?}"),
            }
        }
    }
}
