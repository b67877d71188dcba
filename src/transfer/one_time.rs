//! Credentials for this once, as the command line and the environment give them: in memory only, and for one registry each.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, quote};
use crate::event::{Event, Sink};
use crate::registry::{Login, OneTime, Scope};

/// Asks for the password of a user (first) at a registry (second).
pub type Question = dyn Fn(&str, &str) -> Result<String> + Send + Sync;

/// How passwords are asked for.
#[derive(Clone)]
pub struct AskPassword(pub Arc<Question>);

/// What was given. `Debug` never shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    registry: Option<String>,
    user: String,
    password: Option<String>,
}

/// Credentials for this once.
#[derive(Clone, Debug, Default)]
pub struct OneTimeSettings {
    /// By options.
    pub given: Vec<Given>,
    /// By variables; not used where nothing says for which registry.
    pub from_environment: Option<Given>,
    /// Asked when a password is missing.
    pub ask: Option<AskPassword>,
    /// The registry that the command names, if it names one.
    pub registry: Option<String>,
}

impl Given {
    /// Reads `[REGISTRY=]USER[:PASSWORD]`; REGISTRY has a dot in its name or is `localhost`. Anything is read, so that no message
    /// about it has to be shown with what was written.
    pub fn parse(text: &str) -> Self {
        let named = text.split_once('=').filter(|(host, _)| {
            let bare = host.split(':').next().unwrap_or_default();
            (bare.contains('.') || bare == "localhost" || host.starts_with('[')) && host.parse::<Scope>().is_ok_and(|s| s.path().is_none())
        });
        let (registry, rest) = named.map_or((None, text), |(host, rest)| (Some(host), rest));
        let (user, password) = rest.split_once(':').map_or((rest, None), |(user, password)| (user, Some(password)));
        Self::new(registry, user, password)
    }

    /// From its parts.
    pub fn new(registry: Option<&str>, user: &str, password: Option<&str>) -> Self {
        Self { registry: registry.map(str::to_owned), user: user.to_owned(), password: password.map(str::to_owned) }
    }

    fn login(&self, registry: &str, ask: Option<&AskPassword>) -> Result<OneTime> {
        let scope: Scope = registry.parse()?;
        let password = match (&self.password, ask) {
            (Some(password), _) => password.clone(),
            (None, Some(AskPassword(ask))) => ask(&self.user, scope.registry())?,
            (None, None) => return Err(Error::input(format!("the password of {} is missing", quote(&self.user)))),
        };
        Ok(OneTime { registry: scope.registry().to_owned(), login: Login::password(&self.user, &password)? })
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Given({:?}, {:?}, …)", self.registry, self.user)
    }
}

impl fmt::Debug for AskPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskPassword")
    }
}

impl OneTimeSettings {
    /// Whose they are at which registry. Passwords that are missing are asked for now.
    pub(super) fn resolve(&self, notices: &dyn Sink) -> Result<Vec<OneTime>> {
        let mut logins = Vec::new();
        for given in &self.given {
            let registry = given.registry.as_ref().or(self.registry.as_ref()).ok_or_else(|| {
                Error::input(format!("it is not said at which registry {} is a user", quote(&given.user)))
                    .cause("this command may ask several, and a password is for one")
                    .hint(format!("name it: `--creds HOST={}`", given.user))
            })?;
            logins.push(given.login(registry, self.ask.as_ref())?);
        }
        let Some(given) = &self.from_environment else { return Ok(logins) };
        match given.registry.as_ref().or(self.registry.as_ref()) {
            // Options say it more plainly.
            Some(registry) if logins.iter().any(|login| login.registry == *registry) => {}
            Some(registry) => logins.push(given.login(registry, self.ask.as_ref())?),
            None => notices
                .event(Event::Note("the password in the environment is not used; $ROOTLING_REGISTRY can say which registry it is for")),
        }
        Ok(logins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;

    #[test]
    fn reads_what_is_given() {
        for (text, registry, user, password) in [
            ("u", None, "u", None),
            ("u:p", None, "u", Some("p")),
            ("u:p:q=r", None, "u", Some("p:q=r")),
            ("u:", None, "u", Some("")),
            ("h.example=u:p", Some("h.example"), "u", Some("p")),
            ("localhost:5000=u", Some("localhost:5000"), "u", None),
            ("127.0.0.1:5000=u:p=q", Some("127.0.0.1:5000"), "u", Some("p=q")),
            ("[::1]:5000=u", Some("[::1]:5000"), "u", None),
            ("user:123=x", None, "user", Some("123=x")),
            ("a.b/c=u", None, "a.b/c=u", None),
        ] {
            assert_eq!(Given::parse(text), Given::new(registry, user, password), "{text}");
        }
        assert!(!format!("{:?}", Given::parse("u:hush")).contains("hush"));
    }

    #[test]
    fn belong_to_one_registry() {
        let settings = |given: &[&str], registry: Option<&str>| OneTimeSettings {
            given: given.iter().map(|text| Given::parse(text)).collect(),
            from_environment: Some(Given::new(None, "e", Some("s"))),
            ask: None,
            registry: registry.map(str::to_owned),
        };
        let resolved = |given: &[&str], registry: Option<&str>| {
            let logins = settings(given, registry).resolve(&Silent)?;
            Ok::<_, Error>(logins.iter().map(|l| format!("{} {}", l.registry, l.login.user().unwrap())).collect::<Vec<_>>())
        };
        assert_eq!(resolved(&["u:p"], Some("h.example")).unwrap(), ["h.example u"]);
        assert_eq!(resolved(&["index.docker.io=u:p"], Some("h.example")).unwrap(), ["docker.io u", "h.example e"]);
        assert_eq!(resolved(&[], Some("h.example")).unwrap(), ["h.example e"]);
        assert_eq!(resolved(&[], None).unwrap(), [""; 0]);
        assert!(resolved(&["u:p"], None).is_err());
        assert!(resolved(&["u"], Some("h.example")).is_err(), "nobody can be asked");
    }
}
