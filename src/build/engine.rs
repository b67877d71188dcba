//! The engine: the stages of all platforms, several at a time; a stage is its base and then step by step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::dockerfile;
use crate::dockerfile::ast::Dockerfile;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Outcome, Sink, next_id};
use crate::oci::Platform;
use crate::store::{Image, Store};
use crate::transfer::{self, MadeStep, StepCache};

use super::base::{self, Images};
use super::cache::{self, Ledger};
use super::context::Context;
use super::contexts::Contexts;
use super::location::context_name;
use super::materials::Materials;
use super::plan::{self, Base, Plan, Stage, locate};
use super::schedule::{Job, Schedule};
use super::state::{Certainty, State};
use super::stop::Stop;
use super::{Cache, Execution, Request, check, resolve};

/// What a build works with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// Where everything is kept.
    pub store: &'a Store,
    /// How registries are asked.
    pub client: &'a transfer::Client,
    /// What is to be built.
    pub request: &'a Request,
    /// Who hears of it.
    pub sink: &'a dyn Sink,
}

/// One platform's part of a build under way. Its steps may run at the same time.
#[derive(Clone)]
pub struct Engine<'a> {
    pub(super) store: &'a Store,
    pub(super) request: &'a Request,
    pub(super) sink: &'a dyn Sink,
    pub(super) client: &'a transfer::Client,
    pub(super) file: &'a Dockerfile,
    pub(super) plan: Arc<Plan<'a>>,
    /// Whether old results answer for steps.
    pub(super) cache: Cache,
    /// Where else results are.
    pub(super) caches: &'a [StepCache],
    pub(super) ledger: &'a Ledger,
    pub(super) context: Option<&'a Context>,
    pub(super) stop: &'a Stop,
    pub(super) contexts: &'a Contexts,
    images: &'a Images,
    pub(super) materials: &'a Materials,
    /// Finished stages of all platforms.
    schedule: &'a Schedule<State>,
    /// Where this platform's stages begin in the schedule.
    first: usize,
    /// Shown before the names of stages, if there are several platforms.
    prefix: String,
}

/// What going through all steps gives.
pub struct Executed {
    /// What the target became, for each platform.
    pub states: Vec<State>,
    /// The steps gone through.
    pub steps: Vec<MadeStep>,
    /// What was taken from elsewhere.
    pub materials: Materials,
}

/// Builds the target stage for every platform of the request, in its order.
///
/// What was learnt about the context is kept, also when a step fails.
pub fn execute(means: Means<'_>, file: &Dockerfile) -> Result<Executed> {
    let Means { store, client, request, sink } = means;
    let open = |tree| Context::open(store, tree, request.ignore.as_ref(), "the build context");
    let context = request.context.as_ref().map(open).transpose()?;
    let contexts = Contexts::new(&request.contexts);
    let plans = request.platforms.iter().map(|platform| plan(means, file, platform)).collect::<Result<Vec<_>>>()?;
    let count = plans.first().map_or(0, |plan| plan.stages.len());
    let (schedule, stop, images) = (Schedule::new(count * plans.len()), Stop::default(), Images::default());
    let caches = cache::load(client, &request.caches, &request.platforms, sink);
    let (ledger, materials) = (Ledger::default(), Materials::default());
    let engines: Vec<Engine<'_>> = plans
        .into_iter()
        .zip(&request.platforms)
        .enumerate()
        .map(|(at, (plan, platform))| Engine {
            store,
            request,
            sink,
            client,
            file,
            plan: Arc::new(plan),
            cache: request.cache,
            caches: &caches,
            ledger: &ledger,
            context: context.as_ref(),
            stop: &stop,
            contexts: &contexts,
            images: &images,
            materials: &materials,
            schedule: &schedule,
            first: at * count,
            prefix: if request.platforms.len() > 1 { format!("{platform} ") } else { String::new() },
        })
        .collect();
    let jobs: Vec<Job> = engines.iter().flat_map(Engine::jobs).collect();
    let result = schedule.run(&jobs, request.width, &stop, &|number| engines[number / count].stage(number % count));
    // Reading it again costs more than a failed build should cost the next one.
    context.as_ref().map_or(Ok(()), Context::save)?;
    contexts.save()?;
    result?;
    let states = engines.iter().map(|engine| engine.state(engine.plan.target)).collect::<Result<Vec<_>>>()?;
    drop(engines);
    Ok(Executed { states, steps: ledger.steps(), materials })
}

/// Plans for one platform; refuses what can't be executed before anything is.
fn plan<'a>(means: Means<'_>, file: &'a Dockerfile, platform: &Platform) -> Result<Plan<'a>> {
    let host = Platform::host();
    let request = means.request;
    let is_context = |name: &str| request.contexts.contains_key(&context_name(name));
    let options =
        plan::Options { target: request.target.as_deref(), arguments: &request.arguments, platform, host: &host, is_context: &is_context };
    let plan = plan::plan(file, &options)?;
    if !plan.unused_arguments.is_empty() && Some(platform) == request.platforms.first() {
        let names = plan.unused_arguments.join(", ");
        means.sink.event(Event::Warning(&format!("build arguments that no ARG declares: {names}")));
    }
    if Some(platform) == request.platforms.first() {
        check::warn(file, request, &plan, means.store, means.sink)?;
    }
    if Some(platform) == request.platforms.first() {
        let known = |name: &String| plan.stages.iter().any(|stage| stage.name == *name);
        for name in request.caches.fresh.iter().filter(|name| !known(name)) {
            means.sink.event(Event::Warning(&format!("`--no-cache-filter`: there is no stage {}", crate::error::quote(name))));
        }
    }
    for instruction in plan.needed.iter().flat_map(|index| &plan.stages[*index].instructions) {
        resolve::check_supported(instruction).map_err(|e| locate(file, e, instruction))?;
    }
    Ok(plan)
}

impl Engine<'_> {
    /// The needed stages as jobs of the schedule.
    fn jobs(&self) -> Vec<Job> {
        let number = |index: &usize| self.first + index;
        let needs = |index: &usize| -> BTreeSet<usize> { self.plan.stages[*index].needs.iter().map(number).collect() };
        self.plan.needed.iter().map(|index| Job { number: number(index), needs: needs(index) }).collect()
    }

    /// What a stage became; builds it if nobody has begun to.
    pub(super) fn state(&self, index: usize) -> Result<State> {
        self.schedule.result(self.first + index, || self.stage(index))
    }

    /// What a stage is called in events; the only one of a file needs no name.
    pub(super) fn name(&self, stage: &Stage<'_>) -> String {
        let name = if self.plan.stages.len() == 1 { "" } else { &stage.name };
        format!("{}{name}", self.prefix).trim_end().to_owned()
    }

    /// An image by name, from storage or pulled.
    pub(super) fn image(&self, name: &str, platform: &Platform) -> Result<Image> {
        self.images.find(self, name, platform)
    }

    fn stage(&self, index: usize) -> Result<State> {
        match self.request.caches.fresh.contains(&self.plan.stages[index].name) {
            true => Self { cache: Cache::Ignore, ..self.clone() }.steps(index),
            false => self.steps(index),
        }
    }

    fn steps(&self, index: usize) -> Result<State> {
        let stage = &self.plan.stages[index];
        let (mut state, onbuild) = self.timed(stage, |engine| engine.base(stage))?;
        state.set_variables(&self.request.surroundings.variables);
        let triggers = self.triggers(stage, &onbuild)?;
        let total = 1 + triggers.iter().map(|file| file.instructions.len()).sum::<usize>() + stage.instructions.len();
        let all = triggers.iter().flat_map(|file| file.instructions.iter()).chain(stage.instructions.iter().copied());
        for (position, instruction) in all.enumerate() {
            self.stop.check()?;
            self.step(stage, &mut state, instruction, (position + 2, total))?;
        }
        Ok(state)
    }

    /// FROM as a step.
    fn timed<T>(&self, stage: &Stage<'_>, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let id = next_id();
        let total = 1 + stage.instructions.len();
        self.sink.event(Event::StepStarted { id, stage: &self.name(stage), number: 1, total, text: &stage.from.original });
        self.sink.event(Event::StepExecuting { id });
        let start = Instant::now();
        let result = work(self).map_err(|e| locate(self.file, e, stage.from));
        let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
        self.sink.event(Event::StepFinished { id, outcome, elapsed: start.elapsed(), layer: None });
        result
    }

    /// The state a stage starts with, and the triggers it inherits.
    fn base(&self, stage: &Stage<'_>) -> Result<(State, Vec<String>)> {
        let mut state = match &stage.base {
            Base::Scratch => return Ok((State::scratch(&stage.platform), Vec::new())),
            Base::Stage(index) => {
                let parent = self.state(*index)?;
                let triggers = parent.config.config.on_build.clone();
                return Ok((parent.child(), triggers));
            }
            Base::Image(name) => match self.image(name, &stage.platform) {
                Err(error) if self.request.execution == Execution::Dry && error.kind() == Kind::NotFound => {
                    self.sink.event(Event::Note(&error.to_string()));
                    State { certainty: Certainty::Guessed, ..State::scratch(&stage.platform) }
                }
                image => base::state(&image?),
            },
            Base::Context(name) => match self.named_tree(name)? {
                Some(context) => return Ok((self.state_of_tree(context, &stage.platform)?, Vec::new())),
                None => base::state(&self.image(name, &stage.platform)?),
            },
        };
        let triggers = std::mem::take(&mut state.config.config.on_build);
        Ok((state, triggers))
    }

    fn triggers(&self, stage: &Stage<'_>, triggers: &[String]) -> Result<Vec<Dockerfile>> {
        let parse = |trigger: &String| {
            let file = dockerfile::parse_fragment("ONBUILD trigger of the base image", trigger.as_bytes())?;
            file.instructions.iter().try_for_each(resolve::check_supported)?;
            Ok(file)
        };
        let parsed: Result<Vec<Dockerfile>> = triggers.iter().map(parse).collect();
        parsed.map_err(|e: Error| locate(self.file, e, stage.from))
    }
}
