//! What is built from: the context and the Dockerfile, wherever they are.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::build::{self, Fetcher, Location, Opened, Secret, Tree};
use crate::cli::environment::Environment;
use crate::cli::pull::RegistryArguments;
use crate::error::{Error, Result, hide_credentials, quote, quote_path};
use crate::event::Sink;
use crate::store::Store;

/// The options.
#[derive(clap::Args)]
pub struct SourceArguments {
    /// Build context: a directory, a tarball, an http(s) URL of one, a git repository (`URL.git#REF:SUBDIR`), or `-` for a tarball or a
    /// Dockerfile on standard input
    #[arg(value_name = "CONTEXT", default_value = ".")]
    context: String,
    /// Dockerfile, its URL, or `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(long, short, value_name = "FILE")]
    file: Option<String>,
    /// Further context for FROM, `--from` and `from=`: a directory, tarball, URL or repository as above, or an image as
    /// `docker-image://NAME`, `oci-layout://DIR[:TAG][@DIGEST]`, `oci-archive:FILE`, `docker-archive:FILE`; may be repeated
    #[arg(long, value_name = "NAME=CONTEXT")]
    build_context: Vec<String>,
}

/// A Dockerfile, and the context it is for.
pub struct Text {
    /// What it is called in messages.
    pub name: String,
    /// Its bytes.
    pub source: Vec<u8>,
    /// The build context; `None` if there is none.
    pub context: Option<Tree>,
    /// The ignore file's name and text.
    pub ignore: Option<(String, String)>,
}

/// Opens storage and connections when something has to be fetched, and only then: reading a local Dockerfile needs neither.
pub struct Means<'a> {
    pub environment: &'a Environment,
    pub registry: &'a RegistryArguments,
    pub sink: &'a dyn Sink,
    /// Among them credentials.
    pub secrets: &'a BTreeMap<String, Secret>,
    /// Storage, once it is open. It outlives the build, so that what was fetched stays.
    pub store: std::cell::OnceCell<Store>,
}

impl Means<'_> {
    /// Storage.
    pub fn store(&self) -> Result<&Store> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = self.environment.store()?;
        Ok(self.store.get_or_init(|| store))
    }

    fn fetch<T>(&self, work: impl FnOnce(&Fetcher<'_>) -> Result<T>) -> Result<T> {
        let client = self.registry.client(self.environment);
        work(&Fetcher { store: self.store()?, client: &client, sink: self.sink, secrets: self.secrets })
    }
}

/// Where the Dockerfile is.
enum File<'a> {
    /// In the context, under one of the usual names.
    Usual,
    Stdin,
    Url(&'a str),
    Named(&'a str),
}

impl SourceArguments {
    /// Reads the Dockerfile, and fetches the context if it is elsewhere.
    pub fn read(&self, means: &Means<'_>) -> Result<Text> {
        let file = match self.file.as_deref() {
            None => File::Usual,
            Some("-") => File::Stdin,
            Some(url) if build::is_web(url) => File::Url(url),
            Some(path) => File::Named(path),
        };
        let opened = match (self.context.as_str(), &file) {
            // Both on standard input: the Dockerfile is.
            ("-", File::Stdin) => return Ok(Text { name: STDIN.into(), source: stdin()?, context: None, ignore: None }),
            ("-", _) => means.fetch(|fetcher| build::open_stream(fetcher, std::io::stdin()))?,
            (text, _) => match Location::of_context(text)? {
                Location::Directory(directory) => Opened::Tree(Tree::Directory(directory)),
                location => means.fetch(|fetcher| location.open(fetcher)).map_err(|e| e.context("can't open the build context"))?,
            },
        };
        match opened {
            Opened::Tree(tree) => self.dockerfile(means, tree, &file),
            // `docker build - <Dockerfile`, `docker build https://host/Dockerfile`
            Opened::Text(source) if matches!(file, File::Usual) => {
                let name = if self.context == "-" { STDIN.to_owned() } else { hide_credentials(&self.context) };
                Ok(Text { name, source, context: None, ignore: None })
            }
            Opened::Text(_) if self.context == "-" => Err(Error::input("both `--file` and a Dockerfile on standard input")
                .hint("give a directory as context, pipe a tarball in, or drop `--file`")),
            Opened::Text(_) => Err(Error::input(format!("{} is not a tarball", quote(hide_credentials(&self.context))))
                .hint("a URL that is a Dockerfile itself needs no `--file`")),
        }
    }

    /// The named contexts.
    pub fn contexts(&self) -> Result<BTreeMap<String, Location>> {
        build::named_contexts(&self.build_context)
    }

    fn dockerfile(&self, means: &Means<'_>, tree: Tree, file: &File<'_>) -> Result<Text> {
        let (name, source) = match (file, &tree) {
            (File::Stdin, _) => (STDIN.to_owned(), stdin()?),
            (File::Url(url), _) => (hide_credentials(url), means.fetch(|fetcher| fetcher.text(url))?),
            (File::Named(path), Tree::Directory(context)) => return local(context, Path::new(path), tree.clone()),
            (File::Usual, Tree::Directory(context)) => return local(context, &usual(context)?, tree.clone()),
            (File::Named(path), Tree::Layer(_)) => return inside(means, tree, &[*path]),
            (File::Usual, Tree::Layer(_)) => return inside(means, tree, &USUAL),
        };
        let ignore = match &tree {
            Tree::Directory(context) => build::ignore_file(context, None)?,
            Tree::Layer(_) => build::ignore_in(means.store()?, &tree, None)?,
        };
        Ok(Text { name, source, context: Some(tree), ignore })
    }
}

const STDIN: &str = "standard input";

/// The names a Dockerfile has when nobody says: docker's, podman's, and docker's other one.
const USUAL: [&str; 3] = ["Dockerfile", "Containerfile", "dockerfile"];

fn local(context: &Path, path: &Path, tree: Tree) -> Result<Text> {
    let source = build::read_text(path)?;
    let ignore = build::ignore_file(context, Some(path))?;
    Ok(Text { name: path.display().to_string(), source, context: Some(tree), ignore })
}

/// The Dockerfile of a directory.
fn usual(context: &Path) -> Result<PathBuf> {
    let path = USUAL.iter().map(|name| context.join(name)).find(|path| path.exists()).ok_or_else(|| {
        Error::input(format!("there is no Dockerfile in {}", quote_path(context)))
            .hint("name it with `-f FILE`, or `-f -` for standard input")
    })?;
    // With `-f <(generate)` a FIFO is as good as a file; in a context it would wait for ever.
    if path.is_file() { Ok(path) } else { Err(Error::input(format!("{} is not a regular file", quote_path(&path)))) }
}

/// The Dockerfile of a context that came from elsewhere.
fn inside(means: &Means<'_>, tree: Tree, names: &[&str]) -> Result<Text> {
    let store = means.store()?;
    for name in names {
        if let Some(source) = tree.read(store, name)? {
            let ignore = build::ignore_in(store, &tree, Some(name))?;
            return Ok(Text { name: (*name).to_owned(), source, context: Some(tree), ignore });
        }
    }
    Err(Error::input(format!("there is no {} in the build context", quote(names[0])))
        .hint("name the Dockerfile with `-f`, relative to the context"))
}

fn stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|e| Error::os("can't read standard input", e))?;
    Ok(bytes)
}
