//! The stages as a graph: which are needed, in what order, on what.
//!
//! Pure: names are resolved as far as text allows, no image is looked up. Follows BuildKit: stage names are compared without case, FROM sees only
//! the global arguments, a stage that the target does not need is dropped.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::ast::{Dockerfile, From, Instruction, Kind};
use crate::dockerfile::expand::{Mode, expand};
use crate::error::{Error, Kind as ErrorKind, Result, nearest, quote};
use crate::oci::Platform;

use super::scope::platform_arguments;

/// What to build, for one platform.
#[derive(Debug)]
pub struct Plan<'a> {
    /// All stages of the file, needed or not, in its order; each stands on earlier ones only.
    pub stages: Vec<Stage<'a>>,
    /// The indexes of the stages that the target stands on, itself included, ascending.
    pub needed: BTreeSet<usize>,
    /// The index of the stage that becomes the image.
    pub target: usize,
    /// Values of the global arguments after `--build-arg`.
    pub globals: BTreeMap<String, String>,
    /// `--build-arg` names that nothing in the file declares.
    pub unused_arguments: Vec<String>,
}

/// One stage.
#[derive(Debug)]
pub struct Stage<'a> {
    /// Position in the file, counted from zero; what `--from=0` means.
    pub index: usize,
    /// Its name, or `stage-N`.
    pub name: String,
    /// What it starts from.
    pub base: Base,
    /// The platform of an image base.
    pub platform: Platform,
    /// The FROM.
    pub from: &'a Instruction,
    /// All after it.
    pub instructions: Vec<&'a Instruction>,
    /// The stages it starts from or copies from, as far as the file says: triggers of a base image may name more.
    pub needs: BTreeSet<usize>,
}

/// What a stage starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage, by index.
    Stage(usize),
    /// An image.
    Image(String),
    /// A named context.
    Context(String),
}

/// The choices that planning depends on.
pub struct Options<'a> {
    /// `--target`.
    pub target: Option<&'a str>,
    /// `--build-arg`.
    pub arguments: &'a BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: &'a Platform,
    /// The platform this program runs on.
    pub host: &'a Platform,
    /// Whether a name is that of a context, which then takes the place of stages and images.
    pub is_context: &'a dyn Fn(&str) -> bool,
}

/// Plans.
pub fn plan<'a>(file: &'a Dockerfile, options: &Options<'_>) -> Result<Plan<'a>> {
    let mut globals = platform_arguments(options.host, options.platform, options.target);
    let mut stages: Vec<Stage<'a>> = Vec::new();
    let mut declared: BTreeSet<&str> = BTreeSet::new();
    for instruction in &file.instructions {
        if let Kind::Arg(arguments) = &instruction.kind {
            declared.extend(arguments.iter().map(|(name, _)| name.as_str()));
        }
        match (&instruction.kind, stages.last_mut()) {
            (Kind::From(from), _) => stages.push(start_stage(file, instruction, from, &stages, &globals, options)?),
            (Kind::Arg(arguments), None) => set_globals(file, instruction, arguments, &mut globals, options.arguments)?,
            (_, Some(stage)) => stage.instructions.push(instruction),
            (_, None) => {
                return Err(error_at(file, instruction, "no stage to add this to").hint("begin with FROM; only ARG may stand before it"));
            }
        }
    }
    for stage in stages.iter_mut().filter(|stage| (options.is_context)(&stage.name)) {
        stage.base = Base::Context(stage.name.clone());
        stage.instructions.clear();
    }
    let Some(last) = stages.last() else {
        return Err(Error::input("the Dockerfile has no FROM").hint("begin with `FROM IMAGE`, or `FROM scratch`"));
    };
    let target = match options.target {
        None => last.index,
        Some(name) => find_stage(&stages, name).ok_or_else(|| unknown_target(name, &stages))?,
    };
    let needed = find_needs(file, &mut stages, target, options.is_context)?;
    let unused = options.arguments.keys().filter(|name| !declared.contains(name.as_str()) && !is_known(name, &globals));
    let unused_arguments = unused.cloned().collect();
    Ok(Plan { stages, needed, target, globals, unused_arguments })
}

fn is_known(name: &str, globals: &BTreeMap<String, String>) -> bool {
    super::scope::PREDEFINED.contains(&name) || globals.contains_key(name) || name == "SOURCE_DATE_EPOCH" || name.starts_with("BUILDKIT_")
}

fn start_stage<'a>(
    file: &Dockerfile,
    instruction: &'a Instruction,
    from: &From,
    stages: &[Stage<'_>],
    globals: &BTreeMap<String, String>,
    options: &Options<'_>,
) -> Result<Stage<'a>> {
    let lookup = |name: &str| globals.get(name).cloned();
    let expanded = expand(&from.image, file.escape, &lookup, Mode::Word).map_err(|e| error_at(file, instruction, e.what))?;
    let image = expanded.text;
    if image.is_empty() {
        let mut error = error_at(file, instruction, "FROM names no image after its variables are replaced");
        if let Some(unset) = expanded.unset.first() {
            error = error.cause(format!("{} is not set", quote(unset))).hint(format!(
                "FROM sees only ARGs that stand before the first FROM: add `ARG {unset}=VALUE` there, or give `--build-arg {unset}=VALUE`"
            ));
        }
        return Err(error);
    }
    let platform = match &from.platform {
        None => options.platform.clone(),
        Some(text) => {
            let text = expand(text, file.escape, &lookup, Mode::Word).map_err(|e| error_at(file, instruction, e.what))?.text;
            text.parse().map_err(|e: Error| error_at(file, instruction, e.to_string()))?
        }
    };
    let index = stages.len();
    let name = from.name.as_deref();
    let base = match image.as_str() {
        "scratch" => Base::Scratch,
        _ if (options.is_context)(&image) => Base::Context(image),
        // Only names count here, not numbers: `FROM 0` would be an image.
        _ => match stages.iter().rfind(|stage| stage.name.eq_ignore_ascii_case(&image)) {
            Some(stage) => Base::Stage(stage.index),
            None => Base::Image(image),
        },
    };
    let platform = match base {
        Base::Stage(index) => stages[index].platform.clone(),
        _ => platform,
    };
    let name = name.map_or_else(|| format!("stage-{index}"), str::to_owned);
    Ok(Stage { index, name, base, platform, from: instruction, instructions: Vec::new(), needs: BTreeSet::new() })
}

fn set_globals(
    file: &Dockerfile,
    instruction: &Instruction,
    arguments: &[(String, Option<String>)],
    globals: &mut BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
) -> Result<()> {
    for (name, default) in arguments {
        let value = match (given.get(name), default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => {
                let lookup = |name: &str| globals.get(name).cloned();
                expand(default, file.escape, &lookup, Mode::Word).map_err(|e| error_at(file, instruction, e.what))?.text
            }
            (None, None) => continue,
        };
        globals.insert(name.clone(), value);
    }
    Ok(())
}

/// A stage by name or number, as `--target` and `--from` give it. Of two with one name the later counts (BuildKit).
pub fn find_stage(stages: &[Stage<'_>], name: &str) -> Option<usize> {
    if let Some(stage) = stages.iter().rfind(|stage| !name.is_empty() && stage.name.eq_ignore_ascii_case(name)) {
        return Some(stage.index);
    }
    let number: usize = name.parse().ok()?;
    stages.iter().find(|stage| stage.index == number).map(|stage| stage.index)
}

fn unknown_target(name: &str, stages: &[Stage<'_>]) -> Error {
    let error = Error::with_kind(ErrorKind::Input, format!("there is no stage {}", quote(name)));
    let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    match nearest(name, names.iter().copied()) {
        Some(near) => error.hint(format!("did you mean {}?", quote(near))),
        None => error.hint(format!("the stages are {}", names.join(", "))),
    }
}

/// Fills in what each needed stage needs, and gives the indexes of all that `target` stands on, itself included.
fn find_needs(file: &Dockerfile, stages: &mut [Stage<'_>], target: usize, is_context: &dyn Fn(&str) -> bool) -> Result<BTreeSet<usize>> {
    let mut needed = BTreeSet::new();
    let mut todo = vec![target];
    while let Some(index) = todo.pop() {
        if needed.insert(index) {
            stages[index].needs = needs_of(file, stages, index, is_context)?;
            todo.extend(&stages[index].needs);
        }
    }
    Ok(needed)
}

fn needs_of(file: &Dockerfile, stages: &[Stage<'_>], index: usize, is_context: &dyn Fn(&str) -> bool) -> Result<BTreeSet<usize>> {
    let stage = &stages[index];
    let mut needs = BTreeSet::new();
    // What the base stage left as triggers is executed here too.
    let mut inherited: &[&Instruction] = &[];
    if let Base::Stage(base) = stage.base {
        needs.insert(base);
        inherited = &stages[base].instructions;
    }
    let triggers = inherited.iter().filter_map(|instruction| match &instruction.kind {
        Kind::Onbuild(onbuild) => Some(&*onbuild.instruction),
        _ => None,
    });
    for instruction in stage.instructions.iter().copied().chain(triggers) {
        for name in sources(&instruction.kind).into_iter().filter(|name| !is_context(name)) {
            needs.extend(source_stage(file, instruction, name, stages, index)?);
        }
    }
    Ok(needs)
}

/// The stages and images an instruction reads from.
fn sources(kind: &Kind) -> Vec<&str> {
    let given = |from: &&str| !from.is_empty();
    match kind {
        Kind::Copy(copy) => copy.from.as_deref().filter(given).into_iter().collect(),
        Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from()).filter(given).collect(),
        _ => Vec::new(),
    }
}

/// The stage that a `--from` or `from=` names: `None` if it names an image. A stage can only use earlier ones.
fn source_stage(file: &Dockerfile, instruction: &Instruction, name: &str, stages: &[Stage<'_>], current: usize) -> Result<Option<usize>> {
    let found = find_stage(stages, name);
    match found {
        Some(index) if index < current => Ok(Some(index)),
        Some(index) if index == current => Err(error_at(file, instruction, format!("stage {} can't copy from itself", quote(name)))),
        Some(_) => Err(error_at(file, instruction, format!("stage {} comes later", quote(name)))
            .hint("move that stage above this one; a stage can only use earlier stages")),
        None if name.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => {
            Err(error_at(file, instruction, format!("there is no stage number {name}"))
                .hint(format!("the stages are 0 to {}", stages.len() - 1)))
        }
        None => Ok(None),
    }
}

/// An error about a whole instruction.
pub fn error_at(file: &Dockerfile, instruction: &Instruction, what: impl Into<String>) -> Error {
    locate(file, Error::input(what), instruction)
}

/// Points an error at an instruction's first line.
pub fn locate(file: &Dockerfile, error: Error, instruction: &Instruction) -> Error {
    let end = file
        .source
        .slice(instruction.span)
        .lines()
        .next()
        .map_or(instruction.span.end, |line| instruction.span.start + line.trim_end().len());
    error.in_text(file.source.place(instruction.span.start..end, ""))
}
