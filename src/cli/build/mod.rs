//! `rootling build`.

mod attributes;
mod caches;
mod check;
mod compat;
mod image_options;
mod outputs;
mod run_options;
mod timeline;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::check::Task;
use crate::build::{self, Bases, Cache, Execution, Failed, Request};
use crate::cli::environment::Environment;
use crate::cli::pull::RegistryArguments;
use crate::cli::render::{self, Printer, Progress};
use crate::cli::run::EmulationArgument;
use crate::cli::timeline::Recorder;
use crate::error::{Error, Result, quote_path};
use crate::oci::{Platform, Reference};
use image_options::EPOCH;

pub use outputs::docker_socket;

#[derive(clap::Args)]
pub struct Arguments {
    /// Build context: a directory, or `-` for a Dockerfile on standard input without context
    #[arg(value_name = "CONTEXT", default_value = ".")]
    context: PathBuf,
    /// Name for the image; may be repeated
    #[arg(long, short, value_name = "NAME")]
    tag: Vec<Reference>,
    /// Dockerfile, or `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Value for an ARG; without value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Execute every step, whatever is remembered
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, action = clap::ArgAction::Set)]
    no_cache: bool,
    /// When to ask the registry for a newer base image
    #[arg(long, value_enum, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "always", default_value = "missing")]
    pull: compat::PullPolicy,
    /// The same as --pull=always
    #[arg(long, hide = true)]
    pull_always: bool,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    /// Show nothing but the image ID
    #[arg(long, short)]
    quiet: bool,
    /// Platforms to build for; several make an index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[,…]", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// How many stages may be under way at a time [default: the CPUs this job may use]
    #[arg(long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// How RUN is root
    #[arg(long, value_enum, default_value_t = EmulationArgument::Consistent)]
    root_emulation: EmulationArgument,
    #[command(flatten)]
    check: check::CheckArguments,
    /// Execute and pull nothing; show which steps would be executed
    #[arg(long)]
    dry_run: bool,
    /// Keep a stage whose command failed as an image, to look around in
    #[arg(long)]
    keep_failed: bool,
    #[command(flatten)]
    image: image_options::ImageArguments,
    #[command(flatten)]
    caches: caches::CacheArguments,
    #[command(flatten)]
    compat: compat::CompatArguments,
    #[command(flatten)]
    outputs: outputs::OutputArguments,
    #[command(flatten)]
    run: run_options::RunOptions,
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    timeline: timeline::TimelineArguments,
}

pub fn execute(mut arguments: Arguments, environment: &Environment) -> Result<ExitCode> {
    let progress = if arguments.quiet { Progress::Quiet } else { arguments.progress };
    match arguments.check.task()? {
        Task::Build => {}
        Task::Parse => {
            let text = dockerfile(&arguments)?;
            return arguments.check.print_tree(&text.name, &text.source).map(|()| ExitCode::SUCCESS);
        }
        Task::Check => return check(&arguments, environment),
    }
    let printer = Printer::new(progress);
    let (others, exports) = arguments.caches.parse()?;
    let outputs = arguments.outputs.parse(&mut arguments.tag, environment)?;
    arguments.tag.iter().try_for_each(crate::cli::tag::check_name)?;
    arguments.timeline.check()?;
    arguments.compat.check(&printer)?;
    let store = environment.store()?;
    let mut request = request(&arguments, environment, &store)?;
    request.caches = others;
    let client = arguments.registry.client(environment);
    if arguments.dry_run {
        return build::rehearse(&store, &client, &request, &printer).map(|()| ExitCode::SUCCESS);
    }
    let recorder = Recorder::new(&printer);
    let built = build::build(&store, &client, &request, &recorder);
    let drawn = arguments.timeline.write(&recorder.finish(), &request);
    let built = built?;
    drawn?;
    if let Some(path) = &arguments.iidfile {
        std::fs::write(path, built.id().to_string()).map_err(|e| Error::io("write", path, e))?;
    }
    outputs.write(&store, &client, &built, &printer)?;
    exports.save(&store, &client, &built, &printer)?;
    if progress == Progress::Quiet && !outputs.write_stream() {
        render::result(&built.id().to_string());
    } else if progress != Progress::Quiet {
        let names: Vec<String> = request.tags.iter().map(Reference::familiar).collect();
        render::note(&format!("built {} {}", names.join(", "), built.id().short()).replace("  ", " "));
    }
    Ok(ExitCode::SUCCESS)
}

fn check(arguments: &Arguments, environment: &Environment) -> Result<ExitCode> {
    let text = dockerfile(arguments)?;
    let ignore = text.ignore()?;
    let surroundings = check::Surroundings {
        environment,
        client: &arguments.registry.client(environment),
        ignore: ignore.as_ref(),
        target: arguments.target.as_deref(),
        arguments: &build_arguments(&arguments.build_arg, environment)?,
        platform: &platforms(&arguments.platform)[0],
    };
    arguments.check.print_findings(&text.name, &text.source, &surroundings)
}

/// A Dockerfile and where it was found.
struct Text {
    name: String,
    source: Vec<u8>,
    /// `None` for standard input.
    path: Option<PathBuf>,
    /// The build context; `None` if there is none.
    context: Option<PathBuf>,
}

impl Text {
    /// The ignore file's text and name, if there is one.
    fn ignore(&self) -> Result<Option<(String, String)>> {
        self.context.as_deref().map_or(Ok(None), |context| build::ignore_file(context, self.path.as_deref()))
    }
}

fn dockerfile(arguments: &Arguments) -> Result<Text> {
    let dash = Path::new("-");
    let stdin = arguments.file.as_deref() == Some(dash) || arguments.context == dash;
    let context = (arguments.context != dash).then(|| arguments.context.clone());
    if context.is_none() && arguments.file.as_deref().is_some_and(|file| file != dash) {
        return Err(Error::input("both `--file` and a Dockerfile on standard input").hint("give a directory as context, or drop `--file`"));
    }
    if stdin {
        return Ok(Text { name: "standard input".to_owned(), source: read_stdin()?, path: None, context });
    }
    let path = find_dockerfile(context.as_deref().unwrap_or(Path::new(".")), arguments.file.as_deref())?;
    // With `-f <(generate)` a FIFO is as good as a file; in a context it would wait for ever.
    if arguments.file.is_none() && !path.is_file() {
        return Err(Error::input(format!("{} is not a regular file", quote_path(&path))));
    }
    let source = build::read_text(&path)?;
    Ok(Text { name: path.display().to_string(), source, path: Some(path), context })
}

fn request(arguments: &Arguments, environment: &Environment, store: &crate::store::Store) -> Result<Request> {
    let text = dockerfile(arguments)?;
    let ignore = text.ignore()?;
    let Text { name, source, context, .. } = text;
    let mut build_args = build_arguments(&arguments.build_arg, environment)?;
    // As docker buildx: who sets the variable means the Dockerfile's ARG of that name too.
    if let Some(epoch) = environment.variable(EPOCH) {
        build_args.entry(EPOCH.into()).or_insert_with(|| epoch.to_owned());
    }
    let times = arguments.image.times(build_args.get(EPOCH).map(String::as_str))?;
    Ok(Request {
        name,
        source,
        context,
        ignore,
        tags: arguments.tag.clone(),
        target: arguments.target.clone(),
        arguments: build_args,
        platforms: platforms(&arguments.platform),
        width: arguments.jobs.map_or_else(|| environment.processors(), std::num::NonZero::get),
        cache: if arguments.no_cache { Cache::Ignore } else { Cache::Use },
        caches: build::Caches::default(),
        explain: arguments.caches.explain(),
        bases: if arguments.pull_always { Bases::Pull } else { arguments.pull.into() },
        emulation: crate::cli::info::emulation(Some(store), arguments.root_emulation.into())?,
        workspace: crate::cli::info::workspace(store, environment)?,
        surroundings: arguments.run.surroundings(environment)?,
        proxies: environment.proxies().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        programs: environment.programs(),
        times,
        additions: arguments.image.additions()?,
        execution: if arguments.dry_run { Execution::Dry } else { Execution::Full },
        failed: if arguments.keep_failed { Failed::Keep } else { Failed::Drop },
    })
}

/// Each platform once, in the order given; this machine's if none is.
fn platforms(given: &[Platform]) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in given {
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    if platforms.is_empty() { vec![Platform::host()] } else { platforms }
}

/// `-f FILE` as given, else `CONTEXT/Dockerfile`, else `CONTEXT/Containerfile` as podman has it.
fn find_dockerfile(context: &Path, file: Option<&Path>) -> Result<PathBuf> {
    if let Some(file) = file {
        return Ok(file.to_path_buf());
    }
    if !context.is_dir() {
        let error = Error::input(format!("the build context {} is not a directory", quote_path(context)));
        return Err(error.hint("the last argument is the directory to build from; name the Dockerfile with `-f`"));
    }
    for name in ["Dockerfile", "Containerfile", "dockerfile"] {
        let path = context.join(name);
        if path.exists() {
            return Ok(path);
        }
    }
    Err(Error::input(format!("there is no Dockerfile in {}", quote_path(context)))
        .hint("name it with `-f FILE`, or `-f -` for standard input"))
}

fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|e| Error::os("can't read standard input", e))?;
    Ok(bytes)
}

fn build_arguments(given: &[String], environment: &Environment) -> Result<BTreeMap<String, String>> {
    let mut arguments = BTreeMap::new();
    for argument in given {
        match argument.split_once('=') {
            Some(("", _)) => return Err(Error::input(format!("`--build-arg {argument}` has no name"))),
            Some((name, value)) => drop(arguments.insert(name.to_owned(), value.to_owned())),
            // As docker: a name alone passes the variable on, if there is one.
            None => {
                if let Some(value) = environment.variable(argument) {
                    arguments.insert(argument.clone(), value.to_owned());
                }
            }
        }
    }
    Ok(arguments)
}
