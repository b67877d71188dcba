//! The build checks there are, by BuildKit's names and in the order of its reference (<https://docs.docker.com/reference/build-checks/>).

/// One check.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// BuildKit's name, which `# check=skip=…` takes.
    pub name: &'static str,
    /// What it asks for, whatever the file.
    pub description: &'static str,
    /// Whether it runs at all.
    pub state: State,
}

/// Whether a rule runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Unless it is skipped.
    Stable,
    /// Only if `# check=experimental=…` asks for it.
    Experimental,
}

const fn stable(name: &'static str, description: &'static str) -> Rule {
    Rule { name, description, state: State::Stable }
}

const fn experimental(name: &'static str, description: &'static str) -> Rule {
    Rule { name, description, state: State::Experimental }
}

pub(super) static STAGE_NAME_CASING: Rule = stable("StageNameCasing", "Stage names should be lowercase");
pub(super) static FROM_AS_CASING: Rule = stable("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword");
pub(super) static NO_EMPTY_CONTINUATION: Rule =
    stable("NoEmptyContinuation", "Empty continuation lines will become errors in a future release");
pub(super) static CONSISTENT_INSTRUCTION_CASING: Rule =
    stable("ConsistentInstructionCasing", "All commands within the Dockerfile should use the same casing (either upper or lower)");
pub(super) static DUPLICATE_STAGE_NAME: Rule = stable("DuplicateStageName", "Stage names should be unique");
pub(super) static RESERVED_STAGE_NAME: Rule = stable("ReservedStageName", "Reserved words should not be used as stage names");
pub(super) static JSON_ARGS_RECOMMENDED: Rule =
    stable("JSONArgsRecommended", "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals");
pub(super) static MAINTAINER_DEPRECATED: Rule =
    stable("MaintainerDeprecated", "The MAINTAINER instruction is deprecated, use a label instead to define an image author");
pub(super) static UNDEFINED_ARG_IN_FROM: Rule = stable("UndefinedArgInFrom", "FROM command must use declared ARGs");
pub(super) static WORKDIR_RELATIVE_PATH: Rule = stable(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
);
pub(super) static UNDEFINED_VAR: Rule = stable("UndefinedVar", "Variables should be defined before their use");
pub(super) static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule =
    stable("MultipleInstructionsDisallowed", "Multiple instructions of the same type should not be used in the same stage");
pub(super) static LEGACY_KEY_VALUE_FORMAT: Rule =
    stable("LegacyKeyValueFormat", "Legacy key/value format with whitespace separator should not be used");
pub(super) static REDUNDANT_TARGET_PLATFORM: Rule = stable(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
);
pub(super) static INVALID_BASE_IMAGE_PLATFORM: Rule =
    stable("InvalidBaseImagePlatform", "Base image platform does not match expected target platform");
pub(super) static SECRETS_USED_IN_ARG_OR_ENV: Rule =
    stable("SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands");
pub(super) static INVALID_DEFAULT_ARG_IN_FROM: Rule =
    stable("InvalidDefaultArgInFrom", "Default value for global ARG results in an empty or invalid base image name");
pub(super) static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule =
    stable("FromPlatformFlagConstDisallowed", "FROM --platform flag should not use a constant value");
pub(super) static COPY_IGNORED_FILE: Rule = experimental("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore");
pub(super) static INVALID_DEFINITION_DESCRIPTION: Rule = experimental(
    "InvalidDefinitionDescription",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be \
     a description comment, add an empty line or comment between the instruction and the comment.",
);
pub(super) static EXPOSE_PROTO_CASING: Rule = stable("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase");
pub(super) static EXPOSE_INVALID_FORMAT: Rule = stable(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
);

/// All of them.
pub static RULES: [&Rule; 22] = [
    &STAGE_NAME_CASING,
    &FROM_AS_CASING,
    &NO_EMPTY_CONTINUATION,
    &CONSISTENT_INSTRUCTION_CASING,
    &DUPLICATE_STAGE_NAME,
    &RESERVED_STAGE_NAME,
    &JSON_ARGS_RECOMMENDED,
    &MAINTAINER_DEPRECATED,
    &UNDEFINED_ARG_IN_FROM,
    &WORKDIR_RELATIVE_PATH,
    &UNDEFINED_VAR,
    &MULTIPLE_INSTRUCTIONS_DISALLOWED,
    &LEGACY_KEY_VALUE_FORMAT,
    &REDUNDANT_TARGET_PLATFORM,
    &INVALID_BASE_IMAGE_PLATFORM,
    &SECRETS_USED_IN_ARG_OR_ENV,
    &INVALID_DEFAULT_ARG_IN_FROM,
    &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    &COPY_IGNORED_FILE,
    &INVALID_DEFINITION_DESCRIPTION,
    &EXPOSE_PROTO_CASING,
    &EXPOSE_INVALID_FORMAT,
];
