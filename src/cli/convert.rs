//! `rootling convert`: any place to any place (ch-convert, `skopeo copy`).

use std::io::IsTerminal as _;
use std::path::Path;

use super::environment::Environment;
use super::pull::RegistryArguments;
use super::push::ShapeArguments;
use super::render::{self, Printer, Progress};
use crate::error::{Error, Result, quote, quote_path};
use crate::oci::Platform;
use crate::transfer::read::Platforms;
use crate::transfer::{self, Means, Place, Source, guess};

#[derive(clap::Args)]
pub struct Arguments {
    /// What to copy: a name or ID in storage, a path (told by content), docker://REF, oci-archive:FILE[:REF], oci:DIR[:REF],
    /// docker-archive:FILE[:REF], docker-daemon:REF, podman:REF, tar:FILE, local:DIR, squashfs:FILE, host:PROGRAM,…
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to: a name for storage, a path (told by its suffix), docker://REF, oci://REF, or a place as above or isulad:REF
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// What SOURCE is, instead of telling by itself
    #[arg(long, short, value_enum, value_name = "FORMAT")]
    in_fmt: Option<Kind>,
    /// What DESTINATION is, instead of telling by itself
    #[arg(long, short, value_enum, value_name = "FORMAT")]
    out_fmt: Option<Kind>,
    /// Say what would be copied, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Replace nothing that is there
    #[arg(long)]
    no_clobber: bool,
    /// Which of an index' images [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "all_platforms")]
    platform: Option<Platform>,
    /// All images of an index, and the index
    #[arg(long, visible_alias = "all", short = 'a')]
    all_platforms: bool,
    #[command(flatten)]
    shape: ShapeArguments,
    /// Show nothing but the digest
    #[arg(long, short)]
    quiet: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// ch-convert's words, and those of the places it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    #[value(alias = "ch-image")]
    Storage,
    Dir,
    Tar,
    #[value(alias = "squashfs")]
    Squash,
    Docker,
    Podman,
    Oci,
    OciArchive,
    DockerArchive,
    Registry,
}

impl Kind {
    fn place(self, text: &str) -> Result<Place> {
        let transport = match self {
            Self::Storage => "storage:",
            Self::Dir => "local:",
            Self::Tar => "tar:",
            Self::Squash => "squashfs:",
            Self::Docker => "docker-daemon:",
            Self::Podman => "podman:",
            Self::Oci => "oci:",
            Self::OciArchive => "oci-archive:",
            Self::DockerArchive => "docker-archive:",
            Self::Registry => "docker://",
        };
        // It may be written twice.
        format!("{transport}{}", text.strip_prefix(transport).unwrap_or(text)).parse()
    }
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let printer = Printer::new(if arguments.quiet { Progress::Quiet } else { arguments.progress });
    let store = environment.store()?;
    let from = match arguments.in_fmt {
        Some(kind) => kind.place(&arguments.source)?,
        None => guess::source(&store, &arguments.source)?,
    };
    let to = match arguments.out_fmt {
        Some(kind) => kind.place(&arguments.destination)?,
        None => guess::destination(&arguments.destination)?,
    };
    check(arguments, &to, |name| store.find_image(name).is_ok())?;
    if arguments.dry_run {
        render::note(&format!("{} {} -> {} {}", from.transport(), quote(from.to_string()), to.transport(), quote(to.to_string())));
        return Ok(());
    }
    let platforms = match &arguments.platform {
        _ if arguments.all_platforms => Platforms::All,
        Some(platform) => Platforms::One(platform.clone()),
        None => Platforms::One(transfer::usual_platform(&store, &from)?),
    };
    let client = arguments.registry.client(environment).for_places(&[&from, &to]);
    let means = Means { store: &store, client: &client, sink: &printer };
    let source = Source { place: &from, digest: None, platforms: &platforms };
    let copied = transfer::copy(&means, &source, &to, &arguments.shape.shape(&to)?, &mut std::io::stdout().lock())?;
    if arguments.quiet {
        render::result(&copied.descriptor.digest.to_string());
    } else {
        render::note(&match &to {
            Place::Registry { reference, .. } => format!("copied {from} to {}", reference.canonical(copied.descriptor.digest)),
            _ => format!("copied {from} to {to}"),
        });
    }
    Ok(())
}

/// Whether the destination may be written.
fn check(arguments: &Arguments, to: &Place, stored: impl Fn(&str) -> bool) -> Result<()> {
    let taken = |what: String| Error::input(format!("{what} is there already")).hint("remove it, or leave `--no-clobber` out");
    match to {
        Place::Directory(path) if holds_something(path) => {
            Err(Error::input(format!("{} is there already, and not empty", quote_path(path))).hint("remove it, or name another directory"))
        }
        Place::Tarball(file) | Place::OciArchive { file, .. } | Place::DockerArchive { file, .. } if file.as_os_str() == "-" => {
            match std::io::stdout().is_terminal() {
                true => Err(Error::input("not writing an archive to a terminal").hint("redirect it, or name a file")),
                false => Ok(()),
            }
        }
        Place::Tarball(path) | Place::OciArchive { file: path, .. } | Place::DockerArchive { file: path, .. } | Place::Squashfs(path)
            if arguments.no_clobber && path.exists() =>
        {
            Err(taken(quote_path(path)))
        }
        Place::Storage(name) if arguments.no_clobber && stored(name) => Err(taken(quote(name))),
        _ => Ok(()),
    }
}

fn holds_something(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
