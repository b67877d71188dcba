//! Options of docker, buildx, podman and buildah that scripts give and that mean nothing here, or something simpler.

use crate::build::Bases;
use crate::event::{Event, Sink};

/// When base images are asked for at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PullPolicy {
    /// Always; with a mere `--pull` as well
    #[value(aliases = ["true", "newer", "ifnewer"])]
    Always,
    /// Only what is not here
    #[value(aliases = ["false", "ifmissing"])]
    Missing,
    /// Not at all: what is not here is an error
    Never,
}

impl From<PullPolicy> for Bases {
    fn from(policy: PullPolicy) -> Self {
        match policy {
            PullPolicy::Always => Self::Pull,
            PullPolicy::Missing => Self::LocalFirst,
            PullPolicy::Never => Self::LocalOnly,
        }
    }
}

/// A switch that may be given as `--name`, `--name=true` or `--name=false`, as Go programs take them.
pub const SWITCH: [&str; 2] = ["true", "false"];

/// Accepted, so that scripts written for others run.
#[derive(clap::Args)]
pub struct CompatArguments {
    /// Intermediate containers never stay
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = SWITCH)]
    rm: Option<String>,
    /// The same
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = SWITCH)]
    force_rm: Option<String>,
    /// There are no builder instances
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
    /// The context is never sent anywhere
    #[arg(long, hide = true)]
    compress: bool,
    /// Limits are the surrounding job's
    #[arg(long, short = 'm', hide = true, value_name = "SIZE")]
    memory: Option<String>,
    /// The same
    #[arg(long, hide = true, value_name = "SIZE")]
    memory_swap: Option<String>,
    /// The same
    #[arg(long, hide = true, value_name = "N")]
    cpu_shares: Option<String>,
    /// The same
    #[arg(long, hide = true, value_name = "N")]
    cpu_period: Option<String>,
    /// The same
    #[arg(long, hide = true, value_name = "N")]
    cpu_quota: Option<String>,
    /// The same
    #[arg(long, hide = true, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The same
    #[arg(long, hide = true, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Security modules are the machine's
    #[arg(long, hide = true, value_name = "OPTION")]
    security_opt: Vec<String>,
}

impl CompatArguments {
    /// Tells what has no effect here, where somebody might count on it.
    pub fn check(&self, sink: &dyn Sink) {
        let limits = [
            ("--memory", &self.memory),
            ("--memory-swap", &self.memory_swap),
            ("--cpu-shares", &self.cpu_shares),
            ("--cpu-period", &self.cpu_period),
            ("--cpu-quota", &self.cpu_quota),
            ("--cpuset-cpus", &self.cpuset_cpus),
            ("--cgroup-parent", &self.cgroup_parent),
        ];
        for (name, _) in limits.iter().filter(|(_, value)| value.is_some()) {
            sink.event(Event::Warning(&format!(
                "`{name}` has no effect: an ordinary user has no cgroups to give; the limits of this job hold"
            )));
        }
        if !self.security_opt.is_empty() {
            sink.event(Event::Warning("`--security-opt` has no effect: security modules are the machine's"));
        }
    }
}
