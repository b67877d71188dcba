//! Git repositories, by the system's git: one commit's files as a layer in the storage directory.
//!
//! The layer is remembered by repository, commit and what was asked of it, so that an unchanged reference costs one `ls-remote` and a
//! commit ID costs nothing. Fetched is one commit deep where the server allows. Files belong to root, are 0644 or 0755, and have the time of the
//! commit: the same commit gives the same layer on every machine.

mod address;
mod command;
mod tree;

use std::path::Path;

use crate::error::{Error, Kind, Result, hide_credentials, quote};
use crate::event::{Event, Sink, next_id};
use crate::oci::{DiffId, Digest};
use crate::store::{StepRecord, Store, Work};

use super::client::Client;
pub use address::{GitAddress, Writer, check_commit};
pub use command::GitSettings;
use command::{Git, line};

/// Attempts where the network is to blame.
const ATTEMPTS: u32 = 3;

/// What to check out.
#[derive(Clone, Debug)]
pub struct GitRequest<'a> {
    /// Which repository, and what of it.
    pub address: &'a GitAddress,
    /// Whether `.git` stays, unless the address says otherwise.
    pub metadata: Metadata,
    /// The `Authorization` header for the repository's web server.
    pub authorization: Option<&'a str>,
}

/// What becomes of a repository's `.git` directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// It goes.
    Drop,
    /// It stays (`--keep-git-dir`), unless a subdirectory is asked for.
    Keep,
}

/// A commit's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// The commit's ID.
    pub commit: String,
    /// Its files.
    pub layer: DiffId,
}

/// A reference, found at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// What to fetch: a full reference name, `HEAD`, or a commit.
    name: String,
    commit: String,
    /// An annotated tag's own ID.
    tag: Option<String>,
}

/// Brings a commit's files here.
///
/// Errors: `Unsupported` without git, `NotFound` for an unknown repository, reference or directory, `Denied`, `Network`, and `Corrupt` for another
/// commit than the checksum says.
pub fn checkout(store: &Store, client: &Client, request: &GitRequest<'_>, sink: &dyn Sink) -> Result<Checkout> {
    let address = request.address;
    let failed = |e: Error| e.context(format!("can't fetch repository {}", quote(hide_credentials(&address.remote))));
    let home = store.scratch()?;
    let origin = address.web_origin();
    let header = request.authorization.or(address.authorization());
    let git = Git {
        settings: &client.settings().git,
        insecure: client.settings().tls_verify == Some(false),
        home: home.path(),
        authorization: origin.zip(header),
        // A repository's submodules never reach this machine's own files.
        protocols: if address.remote.starts_with("file://") { "file" } else { NETWORK },
    };
    let work = Checking { git, request, store, sink };
    let found = work.resolve().map_err(failed)?;
    work.check(&found).map_err(failed)?;
    let key = work.key(&found.commit);
    // Others that want the same commit wait, and find it here.
    let _lock = store.lock(Work::Step(&key))?;
    if let Some(step) = store.step_get(&key)?
        && let [layer] = step.layers[..]
    {
        return Ok(Checkout { commit: found.commit, layer });
    }
    let layer = work.fetch(&found).map_err(failed)?;
    store.step_put(&key, &StepRecord { layers: vec![layer], blobs: Vec::new(), value: found.commit.clone().into() })?;
    Ok(Checkout { commit: found.commit, layer })
}

const NETWORK: &str = "https:http:ssh:git";

struct Checking<'a> {
    git: Git<'a>,
    request: &'a GitRequest<'a>,
    store: &'a Store,
    sink: &'a dyn Sink,
}

impl Checking<'_> {
    fn metadata(&self) -> Metadata {
        match (self.request.address.keep_git_dir, self.request.metadata) {
            (Some(true), _) | (None, Metadata::Keep) => Metadata::Keep,
            _ => Metadata::Drop,
        }
    }

    fn key(&self, commit: &str) -> Digest {
        let address = self.request.address;
        let parts = (&address.remote, commit, &address.subdir, self.metadata(), address.submodules);
        Digest::of(format!("git 1\0{parts:?}"))
    }

    /// The commit a reference means now.
    fn resolve(&self) -> Result<Found> {
        let wanted = self.request.address.reference.as_deref();
        if let Some(commit) = wanted.filter(|text| address::is_commit(text)) {
            return Ok(Found { name: commit.to_owned(), commit: commit.to_owned(), tag: None });
        }
        let name = wanted.unwrap_or("HEAD");
        let peeled = format!("{name}^{{}}");
        let remote = self.request.address.remote.as_str();
        let listed = self.patiently(|| self.git.run(self.git.home, &["ls-remote", "--", remote, name, &peeled]))?;
        choose(name, &String::from_utf8_lossy(&listed)).ok_or_else(|| {
            let error = Error::with_kind(Kind::NotFound, format!("the repository has no branch or tag {}", quote(name)));
            match name.len() >= 7 && check_commit(name).is_ok() {
                true => error.hint("a commit must be given with all its 40 digits"),
                false => error.hint("`git ls-remote ADDRESS` lists what there is"),
            }
        })
    }

    fn check(&self, found: &Found) -> Result<()> {
        let Some(checksum) = &self.request.address.checksum else { return Ok(()) };
        if found.commit.starts_with(checksum) || found.tag.as_ref().is_some_and(|tag| tag.starts_with(checksum)) {
            return Ok(());
        }
        Err(Error::with_kind(Kind::Corrupt, "the commit is not the one that is asked for")
            .cause(format!("expected {}, found {}", quote(checksum), quote(&found.commit)))
            .hint("if the reference was moved on purpose, change the checksum"))
    }

    fn fetch(&self, found: &Found) -> Result<DiffId> {
        let id = next_id();
        let what = format!("repository {} {}", self.request.address.remote, &found.commit[..12]);
        self.sink.event(Event::TransferStarted { id, what: &what, total: None });
        let scratch = self.store.scratch()?;
        let work = scratch.path().join("work");
        std::fs::create_dir(&work).map_err(|e| Error::io("create directory", &work, e))?;
        self.git.run(&work, &["init", "--quiet", "--template=", "."])?;
        self.git.run(&work, &["remote", "add", "origin", &self.request.address.remote])?;
        self.download(&work, found)?;
        self.git.run(&work, &["checkout", "--quiet", "--force", "--detach", &found.commit])?;
        if self.request.address.submodules != Some(false) {
            self.submodules(&work)?;
        }
        let seconds = line(&self.git.run(&work, &["show", "--no-patch", "--no-show-signature", "--format=%ct", &found.commit])?)?;
        let seconds = seconds.parse().map_err(|_| Error::new(format!("git gives {} as a time", quote(&seconds))))?;
        let draft = self.store.draft()?;
        let part = tree::Part { subdir: self.request.address.subdir.as_deref(), metadata: self.metadata(), seconds };
        tree::put(&work, &draft.path().join("fs"), &part)?;
        let layer = draft.commit_packed()?;
        self.sink.event(Event::TransferFinished { id, note: "done" });
        Ok(layer.diff_id)
    }

    /// Fetches as little as the server allows.
    fn download(&self, work: &Path, found: &Found) -> Result<()> {
        let by_id = address::is_commit(&found.name);
        let refspec = match found.name.split_once("refs/heads/") {
            Some(("", branch)) => format!("+{}:refs/remotes/origin/{branch}", found.name),
            _ if found.name.starts_with("refs/") => format!("+{0}:{0}", found.name),
            _ => found.name.clone(),
        };
        let everything = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        let attempts: [&[&str]; 3] = [
            &["--depth=1", "--no-tags", "origin", &refspec],
            &["--no-tags", "origin", &refspec],
            &["origin", everything[0], everything[1]],
        ];
        let mut outcome = Ok(());
        for attempt in attempts {
            let arguments: Vec<&str> = ["fetch", "--quiet", "--no-recurse-submodules"].iter().chain(attempt).copied().collect();
            outcome = self.patiently(|| self.git.run(work, &arguments)).map(drop);
            match &outcome {
                // Servers of files alone can't serve a part, old servers no bare commit.
                Err(e) if matches!(e.kind(), Kind::Denied | Kind::Network | Kind::NoSpace | Kind::Unsupported) => break,
                Err(_) => {}
                Ok(()) if self.has(work, &found.commit) => break,
                // The branch moved since it was looked up; its history has the commit.
                Ok(()) => {}
            }
        }
        outcome?;
        if self.has(work, &found.commit) {
            return Ok(());
        }
        let error = Error::with_kind(Kind::NotFound, format!("the repository has no commit {}", quote(&found.commit)));
        Err(if by_id {
            error.hint("only commits that a branch or a tag leads to can be fetched")
        } else {
            error.hint("the reference was moved just now; try again")
        })
    }

    fn has(&self, work: &Path, commit: &str) -> bool {
        self.git.run(work, &["cat-file", "-e", &format!("{commit}^{{commit}}")]).is_ok()
    }

    fn submodules(&self, work: &Path) -> Result<()> {
        if !std::fs::symlink_metadata(work.join(".gitmodules")).is_ok_and(|found| found.is_file()) {
            return Ok(());
        }
        let git = Git { protocols: NETWORK, ..self.git };
        let shallow = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
        let outcome = self.patiently(|| git.run(work, &shallow)).or_else(|e| match e.kind() {
            Kind::Denied => Err(e),
            _ => git.run(work, &shallow[..5]),
        });
        outcome.map(drop).map_err(|e| e.context("can't fetch its submodules").hint("`?submodules=false` in the address leaves them out"))
    }

    /// Tries again where the network is to blame, after one second and after two.
    fn patiently(&self, mut work: impl FnMut() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let mut attempt = 1;
        loop {
            match work() {
                Err(e) if e.kind() == Kind::Network && attempt < ATTEMPTS => {
                    std::thread::sleep(std::time::Duration::from_secs(attempt.into()));
                    attempt += 1;
                }
                Err(e) if attempt > 1 => return Err(e.cause(format!("given up after {attempt} attempts"))),
                outcome => return outcome,
            }
        }
    }
}

/// Of what `ls-remote` lists, the reference that a name means: git's own order (gitrevisions(7)), tags before branches.
fn choose(name: &str, listed: &str) -> Option<Found> {
    let find = |wanted: &str| {
        let ids = listed.lines().filter_map(|line| line.split_once('\t'));
        ids.filter(|(id, _)| address::is_commit(id)).find(|(_, name)| *name == wanted).map(|(id, _)| id.to_owned())
    };
    let candidates = [name.to_owned(), format!("refs/{name}"), format!("refs/tags/{name}"), format!("refs/heads/{name}")];
    candidates.into_iter().find_map(|full| {
        let id = find(&full)?;
        Some(match find(&format!("{full}^{{}}")) {
            Some(commit) => Found { name: full, commit, tag: Some(id) },
            None => Found { name: full, commit: id, tag: None },
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_as_git_does() {
        let [a, b, c] = ["a", "b", "c"].map(|digit| digit.repeat(40));
        let listed =
            format!("{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n{a}\trefs/heads/x/main\nnonsense\n{a}\tHEAD\n");
        let found = |name: &str, commit: &String, tag: Option<&String>| {
            Some(Found { name: name.into(), commit: commit.clone(), tag: tag.cloned() })
        };
        for (name, expected) in [
            ("v1", found("refs/tags/v1", &c, Some(&b))),
            ("heads/v1", found("refs/heads/v1", &a, None)),
            ("refs/heads/v1", found("refs/heads/v1", &a, None)),
            ("HEAD", found("HEAD", &a, None)),
            ("x/main", found("refs/heads/x/main", &a, None)),
            ("main", None),
        ] {
            assert_eq!(choose(name, &listed), expected, "{name}");
        }
    }
}
