//! `rootling build`.

mod attestations;
mod attributes;
mod caches;
mod check;
mod compat;
mod image_options;
mod outputs;
mod run_options;
mod source;
mod timeline;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use self::check::Task;
use crate::build::{self, Bases, Cache, Execution, Failed, Request, Surroundings};
use crate::cli::environment::Environment;
use crate::cli::fakeroot::FakerootArguments;
use crate::cli::pull::RegistryArguments;
use crate::cli::render::{self, Printer, Progress};
use crate::cli::run::EmulationArgument;
use crate::cli::timeline::Recorder;
use crate::error::{Error, Result, quote};
use crate::oci::{Platform, Reference};
use image_options::EPOCH;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    source: source::SourceArguments,
    /// Name for the image; may be repeated
    #[arg(long, short, value_name = "NAME")]
    tag: Vec<Reference>,
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
    #[arg(long, short, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, action = clap::ArgAction::Set)]
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
    fakeroot: FakerootArguments,
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
    attestations: attestations::AttestationArguments,
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
    let printer = Printer::new(progress);
    let surroundings = arguments.run.surroundings(environment)?;
    let (registry, secrets) = (&arguments.registry, &surroundings.secrets);
    let means = source::Means { environment, registry, sink: &printer, secrets, store: OnceCell::new() };
    match arguments.check.task()? {
        Task::Build => {}
        Task::Parse => {
            let text = arguments.source.read(&means)?;
            return arguments.check.print_tree(&text.name, &text.source).map(|()| ExitCode::SUCCESS);
        }
        Task::Check => return check(&arguments, environment, &means),
    }
    let (others, exports) = arguments.caches.parse()?;
    let outputs = arguments.outputs.parse(&mut arguments.tag)?;
    arguments.tag.iter().try_for_each(crate::cli::tag::check_name)?;
    arguments.timeline.check()?;
    arguments.compat.check(&printer);
    let mut request = request(&arguments, environment, &means, &surroundings)?;
    request.caches = others;
    let store = means.store()?;
    let client = arguments.registry.client(environment);
    if arguments.dry_run {
        return build::rehearse(store, &client, &request, &printer).map(|()| ExitCode::SUCCESS);
    }
    let recorder = Recorder::new(&printer);
    let built = build::build(store, &client, &request, &recorder);
    let drawn = arguments.timeline.write(&recorder.finish(), &request);
    let built = built?;
    drawn?;
    if let Some(path) = &arguments.iidfile {
        std::fs::write(path, built.id().to_string()).map_err(|e| Error::io("write", path, e))?;
    }
    outputs.write(store, &client, &built, &printer)?;
    exports.save(store, &client, &built, &printer)?;
    if progress == Progress::Quiet && !outputs.write_stream() {
        render::result(&built.id().to_string());
    } else if progress != Progress::Quiet {
        let names: Vec<String> = request.tags.iter().map(Reference::familiar).collect();
        render::note(&format!("built {} {}", names.join(", "), built.id().short()).replace("  ", " "));
    }
    Ok(ExitCode::SUCCESS)
}

fn check(arguments: &Arguments, environment: &Environment, means: &source::Means<'_>) -> Result<ExitCode> {
    let text = arguments.source.read(means)?;
    let surroundings = check::Surroundings {
        environment,
        client: &arguments.registry.client(environment),
        ignore: text.ignore.as_ref(),
        target: arguments.target.as_deref(),
        arguments: &build_arguments(&arguments.build_arg, environment)?,
        platform: &platforms(&arguments.platform)?[0],
        contexts: &arguments.source.contexts()?,
    };
    arguments.check.print_findings(&text.name, &text.source, &surroundings)
}

fn request(arguments: &Arguments, environment: &Environment, means: &source::Means<'_>, surroundings: &Surroundings) -> Result<Request> {
    let source::Text { name, source, context, ignore } = arguments.source.read(means)?;
    let store = means.store()?;
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
        contexts: arguments.source.contexts()?,
        ignore,
        tags: arguments.tag.clone(),
        target: arguments.target.clone(),
        arguments: build_args,
        platforms: platforms(&arguments.platform)?,
        width: arguments.jobs.map_or_else(|| environment.processors(), std::num::NonZero::get),
        cache: if arguments.no_cache { Cache::Ignore } else { Cache::Use },
        caches: build::Caches::default(),
        explain: arguments.caches.explain(),
        bases: if arguments.pull_always { Bases::Pull } else { arguments.pull.into() },
        fakeroot: arguments.fakeroot.configs_for(arguments.root_emulation, environment)?,
        emulation: crate::cli::info::emulation(Some(store), arguments.root_emulation.into())?,
        workspace: crate::cli::info::workspace(store, environment)?,
        surroundings: surroundings.clone(),
        proxies: environment.proxies().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        programs: environment.programs(),
        times,
        additions: arguments.image.additions()?,
        attestations: arguments.attestations.parse()?,
        execution: if arguments.dry_run { Execution::Dry } else { Execution::Full },
        failed: if arguments.keep_failed { Failed::Keep } else { Failed::Drop },
    })
}

/// Each platform once, in the order given; this machine's if none is.
fn platforms(given: &[Platform]) -> Result<Vec<Platform>> {
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in given {
        if let Some(near) = platform.misspelt() {
            return Err(Error::input(format!("unknown architecture {}", quote(&platform.architecture)))
                .hint(format!("did you mean {}?", quote(near))));
        }
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    Ok(if platforms.is_empty() { vec![Platform::host()] } else { platforms })
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
