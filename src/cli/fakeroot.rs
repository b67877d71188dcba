//! The fakeroot configs of an invocation: where files of the user's own are, and `rootling info --fakeroot`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::environment::Environment;
use super::run::EmulationArgument;
use super::{Format, render};
use crate::build;
use crate::error::{Error, IoContext, Kind, Result, quote};
use crate::rootemu::fakeroot::{self, Config, Origin, config_name};
use crate::rootfs::view::View;

#[derive(clap::Args)]
pub struct FakerootArguments {
    /// Directory with fakeroot configs of your own, looked at before the built-in ones; may be repeated
    /// [default: $ROOTLING_FAKEROOT_CONFIGS, else ~/.config/rootling/fakeroot-configs]
    #[arg(long, value_name = "DIR")]
    fakeroot_configs: Vec<PathBuf>,
}

impl FakerootArguments {
    /// The configs where fakeroot is asked for; elsewhere none are read, so that a broken one breaks nothing.
    pub fn configs_for(&self, wanted: EmulationArgument, environment: &Environment) -> Result<Vec<Arc<Config>>> {
        match (wanted, self.fakeroot_configs.first()) {
            (EmulationArgument::Fakeroot, _) => self.configs(environment),
            (_, None) => Ok(Vec::new()),
            (_, Some(_)) => {
                Err(Error::input("`--fakeroot-configs` without `--root-emulation=fakeroot` means nothing").hint("give both, or neither"))
            }
        }
    }

    /// All configs in the order in which they are tried. A user's file hides a built-in one of its name.
    pub fn configs(&self, environment: &Environment) -> Result<Vec<Arc<Config>>> {
        let mut configs: Vec<Arc<Config>> = Vec::new();
        let named = |list: &str| std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect::<Vec<_>>();
        let own = match (self.fakeroot_configs.as_slice(), environment.variable("ROOTLING_FAKEROOT_CONFIGS")) {
            ([], Some(list)) => named(list),
            ([], None) => {
                environment.configuration().map(|path| path.join("fakeroot-configs")).filter(|path| path.is_dir()).into_iter().collect()
            }
            (given, _) => given.to_vec(),
        };
        let mut add = |config: Config| {
            if configs.iter().all(|known| known.name() != config.name()) {
                configs.push(Arc::new(config));
            }
        };
        for directory in own {
            read(&directory)?.into_iter().for_each(&mut add);
        }
        fakeroot::built_in()?.into_iter().for_each(add);
        Ok(configs)
    }
}

/// The configs of a directory, in the order of their names.
fn read(directory: &Path) -> Result<Vec<Config>> {
    let entries = std::fs::read_dir(directory).map_err(|e| {
        Error::io("read", directory, e).hint("`--fakeroot-configs` and $ROOTLING_FAKEROOT_CONFIGS name directories with files `NAME.toml`")
    })?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().doing("read", directory)?;
    paths.sort();
    let mut configs = Vec::new();
    for path in paths {
        let Some(name) = path.file_name().and_then(|file| config_name(file.to_str()?)) else { continue };
        let text = std::fs::read_to_string(&path).doing("read", &path)?;
        configs.push(Config::parse(name, Origin::File(path.clone()), &text)?);
    }
    Ok(configs)
}

/// Tells which config is for an image, and all it says; without an image, which there are.
pub fn print(view: Option<(&str, &View)>, configs: &[Arc<Config>], format: Format) -> Result<()> {
    let chosen = view.map_or(Ok(None), |(_, view)| build::choose_fakeroot(configs, view))?;
    let known = || render::table(&["CONFIG", "FOR", "FROM"], &configs.iter().map(|config| row(config)).collect::<Vec<_>>());
    match (format, view, chosen) {
        (Format::Json, ..) => {
            let known: Vec<_> = configs.iter().map(|config| json_of(config)).collect();
            let name = view.map(|(name, _)| name);
            let info = json!({ "image": name, "config": chosen.map(|config| config.name()), "configs": known });
            render::result(&serde_json::to_string_pretty(&info).expect("plain data"));
        }
        (Format::Table, None, _) => render::result(&known()),
        (Format::Table, Some((name, _)), None) => {
            render::result(&format!("none is for {}\n\n{}", quote(name), known()));
            render::note("a file of your own adds a distribution: doc/fakeroot.md");
        }
        (Format::Table, Some(_), Some(config)) => render::result(&describe(config)),
    }
    Ok(())
}

fn row(config: &Config) -> Vec<String> {
    vec![config.name().to_owned(), config.about().to_owned(), config.origin().to_string()]
}

fn describe(config: &Config) -> String {
    let mut lines = vec![format!("config   {} ({})", config.name(), config.about()), format!("from     {}", config.origin())];
    let mut entry = |label: &str, text: &str, why: &str| {
        lines.push(String::new());
        for (at, line) in text.trim_end().lines().enumerate() {
            lines.push(format!("{:8} {line}", if at == 0 { label } else { "" }).trim_end().to_owned());
        }
        lines.push(format!("{:8} # {why}", ""));
    };
    for condition in config.conditions() {
        entry("match", &format!("{} has a line {}", condition.file, quote(condition.pattern.as_str())), &condition.why);
    }
    for install in config.installs() {
        entry("install", &format!("unless {}:\n{}", quote(install.test.trim()), install.command), &install.why);
    }
    entry("with", &config.wrapping().with.join(" "), &config.wrapping().why);
    for words in &config.wrapping().commands {
        entry("wrap", &words.names.join(" "), &words.why);
    }
    lines.join("\n")
}

fn json_of(config: &Config) -> serde_json::Value {
    let matches: Vec<_> =
        config.conditions().iter().map(|c| json!({ "file": c.file.to_string(), "pattern": c.pattern.as_str(), "why": c.why })).collect();
    let installs: Vec<_> = config.installs().iter().map(|i| json!({ "test": i.test, "command": i.command, "why": i.why })).collect();
    let commands: Vec<_> = config.wrapping().commands.iter().map(|w| json!({ "names": w.names, "why": w.why })).collect();
    json!({
        "name": config.name(),
        "about": config.about(),
        "from": config.origin().to_string(),
        "match": matches,
        "install": installs,
        "wrap": { "with": config.wrapping().with, "why": config.wrapping().why, "commands": commands },
    })
}

/// For a command that needs fakeroot in an image: the config, or why there is none.
pub fn required<'c>(configs: &'c [Arc<Config>], view: &View, image: &str) -> Result<&'c Config> {
    let Some(config) = build::choose_fakeroot(configs, view)? else {
        return Err(Error::with_kind(Kind::NotFound, format!("no fakeroot config is for {}", quote(image)))
            .hint("`rootling info --fakeroot` lists them; a file of your own adds one, see doc/fakeroot.md"));
    };
    if build::lacks_program(config, view)? {
        return Err(Error::with_kind(Kind::NotFound, format!("{} has no {}", quote(image), quote(config.program())))
            .cause("`run` changes no image, so it installs nothing")
            .hint("a build with `--root-emulation=fakeroot` installs it; `--root-emulation` without a word needs nothing in the image"));
    }
    Ok(config)
}
