//! How repositories are written: BuildKit's URL forms, parsed. No I/O.
//!
//! ```text
//! https://HOST/PATH.git   http://…   ssh://USER@HOST/PATH   git://HOST/PATH   USER@HOST:PATH      each with
//! #REF:SUBDIR      ?ref=R&tag=T&branch=B&subdir=D&checksum=C&submodules=BOOL&keep-git-dir=BOOL
//! ```
//!
//! On the command line also `github.com/OWNER/REPOSITORY` and `file:///PATH`; in a Dockerfile the first would be a local path and
//! the second would let somebody else's Dockerfile read this machine's repositories.
//!
//! Source: Dockerfile reference, "Adding private Git repositories" and "ADD <git ref>"; docker build, "Git repositories".

use base64::Engine as _;

use crate::error::{Error, Result, hide_credentials, quote};
use crate::oci::percent_decoded;

/// Who writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A Dockerfile.
    Dockerfile,
    /// The user of this program.
    User,
}

/// A repository and what of it.
#[derive(Clone, PartialEq, Eq)]
pub struct GitAddress {
    /// As git gets it: without credentials, query and fragment.
    pub remote: String,
    /// A branch, a tag, a full reference name or a commit; the default branch if there is none.
    pub reference: Option<String>,
    /// A directory in it, as written.
    pub subdir: Option<String>,
    /// What the commit must be, perhaps shortened.
    pub checksum: Option<String>,
    /// Whether `.git` stays, where the address says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules come too, where the address says so.
    pub submodules: Option<bool>,
    /// The `Authorization` header made of the credentials in the address.
    authorization: Option<String>,
}

/// Without the credentials.
impl std::fmt::Debug for GitAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { remote, reference, subdir, checksum, keep_git_dir, submodules, .. } = self;
        write!(f, "{remote} {reference:?} {subdir:?} {checksum:?} {keep_git_dir:?} {submodules:?}")
    }
}

impl GitAddress {
    /// Parses an address; `None` for what is no repository.
    pub fn parse(text: &str, writer: Writer) -> Result<Option<Self>> {
        let (bare, fragment) = text.split_once('#').map_or((text, None), |(bare, fragment)| (bare, Some(fragment)));
        let (bare, query) = bare.split_once('?').map_or((bare, None), |(bare, query)| (bare, Some(query)));
        let Some((remote, authorization)) = remote(bare, writer) else { return Ok(None) };
        let mut address =
            Self { remote, reference: None, subdir: None, checksum: None, keep_git_dir: None, submodules: None, authorization };
        let checked = address.fragment(fragment).and_then(|()| address.query(query)).and_then(|()| address.check());
        checked.map_err(|e| e.context(format!("invalid repository address {}", quote(hide_credentials(text)))))?;
        Ok(Some(address))
    }

    /// `SCHEME://HOST[:PORT]` of a repository on a web server.
    pub fn web_origin(&self) -> Option<&str> {
        let rest = self.remote.strip_prefix("https://").or_else(|| self.remote.strip_prefix("http://"))?;
        let host = rest.split('/').next().unwrap_or(rest);
        Some(&self.remote[..self.remote.len() - rest.len() + host.len()])
    }

    /// `HOST[:PORT]` of a repository on a web server.
    pub fn web_host(&self) -> Option<&str> {
        self.web_origin()?.split_once("://").map(|(_, host)| host)
    }

    /// The `Authorization` header made of the credentials in the address.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    fn fragment(&mut self, fragment: Option<&str>) -> Result<()> {
        let Some(fragment) = fragment else { return Ok(()) };
        let fragment = percent_decoded(fragment);
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        self.reference = Some(reference.to_owned()).filter(|text| !text.is_empty());
        self.subdir = Some(subdir.to_owned()).filter(|text| !text.is_empty());
        Ok(())
    }

    fn query(&mut self, query: Option<&str>) -> Result<()> {
        let mut seen: Vec<String> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (percent_decoded(&name.replace('+', " ")), percent_decoded(&value.replace('+', " ")));
            if seen.contains(&name) {
                return Err(Error::input(format!("{} is given twice", quote(&name))));
            }
            match name.as_str() {
                "keep-git-dir" => self.keep_git_dir = Some(boolean(&name, &value)?),
                "submodules" => self.submodules = Some(boolean(&name, &value)?),
                _ if value.is_empty() => return Err(Error::input(format!("{} has no value", quote(&name)))),
                "ref" => set("ref", &mut self.reference, value)?,
                "tag" => set("ref", &mut self.reference, full("refs/tags/", value))?,
                "branch" => set("ref", &mut self.reference, full("refs/heads/", value))?,
                "subdir" => set("subdir", &mut self.subdir, value)?,
                "checksum" | "commit" => set("checksum", &mut self.checksum, value)?,
                _ => {
                    return Err(Error::input(format!("unknown option {}", quote(&name)))
                        .hint("the options are ref, tag, branch, subdir, checksum, submodules and keep-git-dir"));
                }
            }
            seen.push(name);
        }
        if self.reference.is_none() {
            self.reference = self.checksum.clone().filter(|checksum| is_commit(checksum));
        }
        Ok(())
    }

    /// What git would take for an option or for a pattern never reaches it (git-check-ref-format(1)).
    fn check(&self) -> Result<()> {
        if let Some(reference) = &self.reference {
            let bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
            if reference.starts_with('-') || reference.contains(bad) || reference.contains("..") || reference.contains("@{") {
                return Err(Error::input(format!("{} can't be a branch, tag or commit", quote(reference))));
            }
        }
        match &self.checksum {
            Some(checksum) => check_commit(checksum),
            None => Ok(()),
        }
    }
}

/// Whether a text is a complete commit ID, of SHA-1 or SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Checks that a text is a commit ID, perhaps shortened.
pub fn check_commit(text: &str) -> Result<()> {
    let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex && (7..=64).contains(&text.len()) {
        return Ok(());
    }
    Err(Error::input(format!("{} is not a commit ID", quote(text)))
        .hint("give the 40 hexadecimal digits of the commit, or at least the first 7"))
}

/// What git gets, and the header for the credentials that it does not.
fn remote(bare: &str, writer: Writer) -> Option<(String, Option<String>)> {
    if let Some(rest) = bare.strip_prefix("github.com/") {
        return (writer == Writer::User).then(|| (format!("https://github.com/{rest}"), None));
    }
    let Some((scheme, rest)) = bare.split_once("://") else { return scp_like(bare).then(|| (bare.to_owned(), None)) };
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let sound = !host.is_empty() && !host.starts_with('-') && !path.is_empty() && !rest.contains(|c: char| c.is_control() || c == ' ');
    match scheme.as_str() {
        "http" | "https" if sound && path.ends_with(".git") => {
            let authorization = user.map(|user| {
                let user = percent_decoded(user);
                let user = if user.contains(':') { user } else { format!("{user}:") };
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user))
            });
            Some((format!("{scheme}://{host}/{path}"), authorization))
        }
        "git" if sound => Some((format!("git://{host}/{path}"), None)),
        // A password would stand in ssh's arguments; ssh doesn't take one anyway.
        "ssh" if sound => {
            let user = user.map(|user| user.split(':').next().unwrap_or(user)).filter(|user| !user.starts_with('-'));
            Some((format!("ssh://{}{host}/{path}", user.map(|user| format!("{user}@")).unwrap_or_default()), None))
        }
        "file" if writer == Writer::User && rest.starts_with('/') => Some((format!("file://{rest}"), None)),
        _ => None,
    }
}

/// `USER@HOST:PATH`, as ssh has it.
fn scp_like(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &str| {
        !text.is_empty() && !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    word(user, "-_") && word(host, "-.") && !path.is_empty() && !path.contains(|c: char| c.is_control())
}

fn set(name: &str, place: &mut Option<String>, value: String) -> Result<()> {
    match place {
        Some(there) if *there != value => Err(Error::input(format!("{name} is {} and {}", quote(there), quote(&value)))),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn full(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) { name } else { format!("{prefix}{name}") }
}

/// As Go's `strconv.ParseBool`; a name alone is a yes.
fn boolean(name: &str, value: &str) -> Result<bool> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::input(format!("{} of {} is neither true nor false", quote(value), quote(name)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, writer: Writer) -> String {
        match GitAddress::parse(text, writer) {
            Ok(Some(found)) => {
                let mut parts = vec![found.remote.clone()];
                parts.extend(found.reference.map(|text| format!("ref={text}")));
                parts.extend(found.subdir.map(|text| format!("dir={text}")));
                parts.extend(found.checksum.map(|text| format!("sum={text}")));
                parts.extend(found.keep_git_dir.map(|keep| format!("keep={keep}")));
                parts.extend(found.submodules.map(|with| format!("sub={with}")));
                parts.extend(found.authorization.map(|header| format!("auth={header}")));
                parts.join(" ")
            }
            Ok(None) => "none".into(),
            Err(error) => format!("error: {}", error.causes().first().map_or("", String::as_str)),
        }
    }

    #[test]
    fn reads_buildkits_forms() {
        for (text, expected) in [
            ("https://h.example/foo", "none"),
            ("https://h.example/foo.git", "https://h.example/foo.git"),
            ("https://h.example/foo.git#deadbeef", "https://h.example/foo.git ref=deadbeef"),
            ("https://h.example/foo.git#release/1.2", "https://h.example/foo.git ref=release/1.2"),
            ("https://h.example/foo.git/", "none"),
            ("https://h.example/foo.git.bar", "none"),
            ("git://h.example/foo", "git://h.example/foo"),
            ("github.com/moby/buildkit", "none"),
            ("custom.xyz/moby/buildkit.git", "none"),
            ("https://foo:b%40r@h.example/x.git", "https://h.example/x.git auth=Basic Zm9vOmJAcg=="),
            ("https://token@h.example/x.git", "https://h.example/x.git auth=Basic dG9rZW46"),
            ("git@h.example:moby/buildkit", "git@h.example:moby/buildkit"),
            ("git@h.example:m/b.git#v1:d", "git@h.example:m/b.git ref=v1 dir=d"),
            ("ssh://git:word@h.example/x", "ssh://git@h.example/x"),
            ("https://h/bar.git#baz/qux:quux/quuz", "https://h/bar.git ref=baz/qux dir=quux/quuz"),
            ("https://h/d.git#:myfolder", "https://h/d.git dir=myfolder"),
            ("http://h/d.git:#branch", "none"),
            ("./.git", "none"),
            (".git", "none"),
            ("https://h/d.git?ref=v1.0.0&subdir=/subdir", "https://h/d.git ref=v1.0.0 dir=/subdir"),
            ("https://h/d.git?tag=v1&submodules=false&keep-git-dir", "https://h/d.git ref=refs/tags/v1 keep=true sub=false"),
            ("https://h/d.git?branch=b&checksum=0123456", "https://h/d.git ref=refs/heads/b sum=0123456"),
            ("file:///srv/r", "none"),
            ("ext::sh -c x", "none"),
            ("git@-oProxyCommand=x:y", "none"),
            ("ssh://-oProxyCommand=x/y", "none"),
        ] {
            assert_eq!(parse(text, Writer::Dockerfile), expected, "{text}");
        }
        for (text, expected) in [
            ("github.com/moby/buildkit#master", "https://github.com/moby/buildkit ref=master"),
            ("file:///srv/r#v1", "file:///srv/r ref=v1"),
            ("file://host/r", "none"),
            ("/srv/r", "none"),
        ] {
            assert_eq!(parse(text, Writer::User), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_git_would_misread() {
        for (text, expected) in [
            ("https://h/x.git#--upload-pack=x", "error: `--upload-pack=x` can't be a branch, tag or commit"),
            ("https://h/x.git#a..b", "error: `a..b` can't be a branch, tag or commit"),
            ("https://h/x.git?ref=a&ref=b", "error: `ref` is given twice"),
            ("https://h/x.git?ref=a&tag=b", "error: ref is `a` and `refs/tags/b`"),
            ("https://h/x.git?nope=1", "error: unknown option `nope`"),
            ("https://h/x.git?ref=", "error: `ref` has no value"),
            ("https://h/x.git?submodules=perhaps", "error: `perhaps` of `submodules` is neither true nor false"),
            ("https://h/x.git?checksum=xyz", "error: `xyz` is not a commit ID"),
        ] {
            assert_eq!(parse(text, Writer::Dockerfile), expected, "{text}");
        }
    }

    #[test]
    fn knows_web_hosts() {
        let address = |text: &str| GitAddress::parse(text, Writer::User).unwrap().unwrap();
        assert_eq!(address("https://u@h:8443/x.git").web_origin(), Some("https://h:8443"));
        assert_eq!(address("https://u@h:8443/x.git").web_host(), Some("h:8443"));
        assert_eq!(address("git@h:x").web_origin(), None);
    }
}
